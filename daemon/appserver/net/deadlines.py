"""How long the streams of a multiplexed connection may keep the server waiting.

A stream has no timer. Once a second, by the sweep that enforces all deadlines, each one is looked at that waits for
its client: for the rest of a request's body, or for a window that lets its response leave. One that has not moved at
the minimum rate since the deadline was set is overdue. So nothing here runs when a request begins or ends.
"""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from math import inf

from appserver.asgi.cycle import Cycle
from appserver.net.endpoint import Timeouts
from appserver.wire.http2 import CONNECTION_WINDOW

UPLOAD = "upload"
DOWNLOAD = "download"
HEAD = "head"

SHARED = 0
"""Stands for all streams that wait for what they share, among those that wait each for itself: with a slow client that
takes its answers one after the other, the last of them has not moved for long, and nothing is wrong."""


@dataclass(slots=True)
class _Wait:
    until: float
    """When it is overdue; of a monotonic clock, in seconds."""
    mark: int
    """Bytes that had moved when the deadline was set."""


def is_window_taken(cycles: Iterable[Cycle]) -> bool:
    """Whether what slow applications have not read takes the connection's window from all: then nothing is late."""
    return sum([cycle.unread for cycle in cycles]) >= CONNECTION_WINDOW // 2


class StreamDeadlines:
    """The deadlines of one connection's streams.

    Args:
        timeouts: `header`, `body`, `write` and `min_rate` are used.
    """

    __slots__ = ("_timeouts", "_waits")

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._waits: dict[tuple[str, int, int], _Wait] = {}

    def overdue(
        self,
        now: float,
        cycles: Mapping[int, Cycle],
        waiting: Mapping[int, int],
        asked: set[int],
        untaken: Container[int],
    ) -> list[tuple[int, str]]:
        """Which streams have kept the server waiting for too long, and with what.

        Where nothing is served and no response waits, it is the rest of a head that is waited for, of stream 0.

        Args:
            now: Of a monotonic clock, in seconds.
            cycles: The requests that are served.
            waiting: Streams whose response cannot leave, with the bytes of it that have; `SHARED` for all that share.
            asked: Streams whose client has been sent `100 Continue`, if it waits for that.
            untaken: Streams of whose answer something waits to leave, for whatever reason.
        """
        timeouts = self._timeouts
        late: list[tuple[int, str]] = []
        waits: dict[tuple[str, int, int], _Wait] = {}
        blocked = is_window_taken(cycles.values())
        for stream, cycle in cycles.items():
            # With something unread it is the application that is slow; with something untaken the answer has a deadline
            # of its own; without 100 Continue nothing is to come.
            if blocked or cycle.whole or cycle.unread or stream in untaken:
                continue
            if cycle.head.expects and not cycle.received and stream not in asked:
                continue
            # Where the answer has moved it is another wait: who talks to the application may listen.
            key = UPLOAD, stream, cycle.sent
            if self._is_late(waits, key, now, cycle.received, timeouts.body, timeouts.min_rate):
                late.append((stream, UPLOAD))
        for stream, sent in waiting.items():
            if self._is_late(waits, (DOWNLOAD, stream, 0), now, sent, timeouts.write, timeouts.min_rate):
                late.append((stream, DOWNLOAD))
        if not cycles and not waiting and self._is_late(waits, (HEAD, 0, 0), now, 0, timeouts.header, inf):
            late.append((0, HEAD))
        self._waits = waits
        return late

    def _is_late(
        self,
        waits: dict[tuple[str, int, int], _Wait],
        key: tuple[str, int, int],
        now: float,
        moved: int,
        patience: float,
        rate: float,
    ) -> bool:
        wait = self._waits.get(key)
        if wait is not None and now > wait.until:
            # Less than before is a response that has ended, of those that share: it has moved.
            if 0 <= moved - wait.mark < rate * patience:
                return True
            wait = None
        waits[key] = wait or _Wait(now + patience, moved)
        return False
