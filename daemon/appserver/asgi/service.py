"""What the cycles of one listener share: the application and where its records and figures go."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from appserver.asgi.fields import Defaults
from appserver.asgi.forwarded import Trust
from appserver.asgi.types import Application
from appserver.telemetry.access import AccessLog
from appserver.telemetry.log import Log

if TYPE_CHECKING:
    from asyncio import Task


@dataclass(slots=True)
class Figures:
    """Live figures of a worker, for STATUS= and the control socket."""

    connections: int = 0
    requests: int = 0
    """In flight."""
    answered: int = 0
    failed: int = 0
    """Answered with 5xx or cut short by a fault of the application."""
    refused: int = 0
    """Refused as bad input."""


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
    figures: Figures = field(default_factory=Figures)
    tasks: "set[Task[None]]" = field(default_factory=set)

    @property
    def running(self) -> "list[Task[None]]":
        """Application calls that have not returned."""
        # One that was cancelled before it began could not take itself out.
        self.tasks.difference_update([task for task in self.tasks if task.done()])
        return list(self.tasks)
