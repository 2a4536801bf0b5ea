"""A listener's half of what its connections need."""

from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterator
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from appserver.asgi.service import Service
from appserver.net.turn import Turn
from appserver.wire.engine import Engine

if TYPE_CHECKING:
    from appserver.net.connection import Connection
    from appserver.wire.http2 import Http2Engine

READ_SIZE: Final = 64 * 1024
"""Bytes taken from the kernel at once. One buffer serves all connections of a loop: it is filled and emptied within
one call-back. asyncio and uvloop would hand over 256 KiB at once, two thirds of what a connection may hold in all."""

DRAINED_AT_ONCE: Final = 100
"""Connections that are told to end in one turn of the loop: 10,000 WebSockets, at 100 us each, stopped it for 1 s."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Deadlines of a connection, in seconds, and the rate that extends two of them; the defaults are in settings."""

    header: float
    body: float
    write: float
    keep_alive: float
    linger: float
    min_rate: int
    """Bytes a second."""


@dataclass(slots=True)
class Endpoint:
    """What is the same for all connections of a listener.

    Attributes:
        name: The listener, for records.
        service: What is served.
        loop: The running loop.
        make_engine: A new HTTP/1.1 engine for a connection.
        make_http2: A new HTTP/2 engine; None where that is not spoken.
        describe_tls: The fields of the ASGI extension `tls`, of a connection's `ssl.SSLObject`; None without TLS.
        timeouts: How long a peer may take.
        eager: Run applications up to their first wait within the turn (Python 3.12 and later).
        connections: Those that are open.
        draining: The next response on each connection is its last.
        cutting: No further request is begun, not even one that is pipelined behind an answer.
        on_last: Called when the last open connection is over.
        buffer: Where the loop reads into.
        context: What every call of the application starts from.
        turn: The requests that begin and end in the present turn of the loop.
        now: When the last sweep was, of a monotonic clock: one number for all connections that begin after it.
    """

    name: str
    service: Service
    loop: AbstractEventLoop
    make_engine: Callable[[], Engine]
    timeouts: Timeouts
    eager: bool
    make_http2: "Callable[[], Http2Engine] | None" = None
    describe_tls: Callable[[Any], dict[str, Any]] | None = None
    connections: "set[Connection]" = field(default_factory=set)
    draining: bool = False
    cutting: bool = False
    on_last: Callable[[], None] | None = None
    buffer: bytearray = field(default_factory=lambda: bytearray(READ_SIZE))
    context: Context = field(default_factory=copy_context)
    turn: Turn = field(init=False)
    now: float = field(default_factory=monotonic)

    def __post_init__(self) -> None:
        self.turn = Turn(self.loop, self.context)

    def sweep(self, now: float) -> None:
        """Enforce the deadlines of all connections: once a second, instead of a timer a request."""
        self.now = now
        # A list, because an expired connection takes itself out of the set.
        for connection in [connection for connection in self.connections if connection.is_due(now)]:
            try:
                connection.expire(now)
            except Exception as error:  # noqa: BLE001 - of ours; the others have deadlines as well
                connection.crash(error)

    def drain_in_steps(self) -> Iterator[None]:
        """Let every connection end with its next response, in steps: between two of them the loop may turn."""
        self.draining = True
        for number, connection in enumerate(list(self.connections), 1):
            if connection in self.connections:
                connection.drain()
            if number % DRAINED_AT_ONCE == 0:
                yield
