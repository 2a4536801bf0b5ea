"""What the cycles of one listener share: the application and where its records and figures go."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from appserver.asgi.fields import Defaults
from appserver.asgi.forwarded import Trust
from appserver.asgi.types import Application
from appserver.telemetry.access import AccessLog
from appserver.telemetry.log import Log
from appserver.telemetry.metrics import Metrics
from appserver.wire.origins import Origins

if TYPE_CHECKING:
    from asyncio import Task


@dataclass(slots=True)
class WebSockets:
    """How WebSockets are served. Sizes are bytes, times are seconds.

    Attributes:
        max_size: Of a message, inflated.
        max_queue: Messages that wait for the application before the client has to.
        open_timeout: Until the application has answered the handshake.
        close_timeout: Until the client has answered a Close.
        ping_interval: Between pings; 0 for none.
        ping_timeout: Until a ping is answered; 0 for ever.
        window_bits: Of compression; 0 for none.
        deflate_memory: For the compression of all connections; who comes later goes without.
        origins: Whose pages may connect; None for all.
        deflating: Of `deflate_memory`, what is given away.
    """

    max_size: int
    max_queue: int
    open_timeout: float
    close_timeout: float
    ping_interval: float
    ping_timeout: float
    window_bits: int
    deflate_memory: int
    origins: Origins | None = None
    deflating: int = 0


@dataclass(slots=True)
class Service:
    """One application and what it is served with.

    Attributes:
        application: ASGI 3.
        log: Where events go.
        access: Where access records go; None when they are switched off.
        trust: Proxies that are believed; None leaves the forwarded fields to the application.
        root_path: Where the application is mounted.
        state: The lifespan's state.
        fields: Date, Server and the operator's own fields, made anew each second by `process.life`.
        websockets: How they are served; None where they are not.
        figures: Counters.
        tasks: Application calls that have not returned; kept here because the loop itself holds them weakly.
    """

    application: Application
    log: Log
    access: AccessLog | None = None
    trust: Trust | None = None
    root_path: str = ""
    state: dict[str, Any] = field(default_factory=dict)
    fields: Defaults = field(default_factory=Defaults)
    websockets: WebSockets | None = None
    figures: Metrics = field(default_factory=Metrics)
    tasks: "set[Task[None]]" = field(default_factory=set)

    @property
    def running(self) -> "list[Task[None]]":
        """Application calls that have not returned."""
        # One that was cancelled before it began could not take itself out.
        self.tasks.difference_update([task for task in self.tasks if task.done()])
        return list(self.tasks)
