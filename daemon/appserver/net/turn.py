"""What one turn of the event loop brings, done by phase instead of by connection.

    reading   heads are read, requests begun     as the loop reports connections that can be read
    running   applications run                   then, one after the other, up to their first wait
    writing   answers become bytes               last, for all that have ended

A large application evicts the server from the processor's caches and branch predictors, and the server the application.
Done request by request, either begins cold each time: a request to a FastAPI application costs 92 us of CPU so, and
71 in phases; one to an application that does next to nothing 15.2 and 15.9 (docs/adr/0016).
"""

from asyncio import AbstractEventLoop
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from appserver.asgi.http import HttpCycle
    from appserver.net.connection import Connection


class Turn:
    """The requests that begin and the responses that end in one turn of the loop.

    Args:
        loop: The running loop.
    """

    __slots__ = ("_begun", "_ended", "_loop")

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._begun: deque[tuple[Connection, HttpCycle]] = deque()
        self._ended: deque[Connection] = deque()

    def begin(self, connection: "Connection", cycle: "HttpCycle") -> None:
        """A request was read: its application runs when everything that can be read has been."""
        if not self._begun and not self._ended:
            self._loop.call_soon(self._run)
        self._begun.append((connection, cycle))

    def end(self, connection: "Connection") -> None:
        """A response has ended: it is written when no application can run on at once."""
        if not self._begun and not self._ended:
            self._loop.call_soon(self._run)
        self._ended.append(connection)

    def _run(self) -> None:
        begun, ended = self._begun, self._ended
        try:
            while begun:
                # The last one stays until it has run: while something stands here, nothing arms the next turn.
                connection, cycle = begun[0]
                try:
                    connection.run(cycle)
                finally:
                    begun.popleft()
            while ended:
                try:
                    ended[0].conclude()
                finally:
                    ended.popleft()
        finally:
            if begun or ended:  # a fault of ours in one of them must not keep the others waiting
                self._loop.call_soon(self._run)
