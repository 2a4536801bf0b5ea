"""What one turn of the event loop brings, done by phase instead of by connection.

    reading   heads are read, requests begun     as the loop reports connections that can be read
    running   applications run                   then, one after the other, up to their first wait
    writing   answers become bytes               last, for all that have ended

A large application evicts the server from the processor's caches and branch predictors, and the server the application.
Done request by request, either begins cold each time: a request to a FastAPI application costs 92 us of CPU so, and
71 in phases. For an application that does next to nothing phases are no gain: 15.2 us without, 15.9 with them
(docs/adr/0016).
"""

from asyncio import AbstractEventLoop
from collections import deque
from contextvars import Context
from time import monotonic
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from appserver.asgi.cycle import Cycle
    from appserver.net.connection import Connection


RUN_SECONDS: Final = 0.002
"""Applications run for so long before the answers that are there already are written: no client waits for all others,
and a few dozen requests to an application of the usual size are still one phase."""


class Turn:
    """The requests that begin and the responses that end in one turn of the loop.

    Args:
        loop: The running loop.
        context: What it all runs in: not that of the request that happens to be the first.
    """

    __slots__ = ("_begun", "_context", "_ended", "_loop")

    def __init__(self, loop: AbstractEventLoop, context: Context) -> None:
        self._loop, self._context = loop, context
        self._begun: deque[tuple[Connection, Cycle]] = deque()
        self._ended: deque[Connection] = deque()

    def begin(self, connection: "Connection", cycle: "Cycle") -> None:
        """A request was read: its application runs when everything that can be read has been."""
        if not self._begun and not self._ended:
            self._arm()
        self._begun.append((connection, cycle))

    def end(self, connection: "Connection") -> None:
        """A response has ended: it is written when no application can run on at once."""
        if not self._begun and not self._ended:
            self._arm()
        self._ended.append(connection)

    def _arm(self) -> None:
        self._loop.call_soon(self._run, context=self._context)

    def _run(self) -> None:
        begun, ended = self._begun, self._ended
        until = monotonic() + RUN_SECONDS
        while begun:
            # The last one stays until it has run: while something stands here, nothing arms the next turn.
            connection, cycle = begun[0]
            try:
                connection.run(cycle)
            except Exception as error:  # noqa: BLE001 - of ours; it must not keep the others waiting
                connection.crash(error)
            begun.popleft()
            if ended and monotonic() > until:
                self._conclude()
                until = monotonic() + RUN_SECONDS
        self._conclude()

    def _conclude(self) -> None:
        ended = self._ended
        while ended:
            connection = ended[0]
            try:
                connection.conclude()
            except Exception as error:  # noqa: BLE001 - as above
                connection.crash(error)
            ended.popleft()
