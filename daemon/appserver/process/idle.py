"""Leaving by itself: when nobody comes, or when enough has been answered.

Under socket activation the next connection starts the service again.
"""

from collections.abc import Iterable
from secrets import randbelow

from appserver.net.listeners import Listener
from appserver.settings import Settings


class Idle:
    """Tells when there has been no connection for so long.

    Args:
        seconds: For how long; 0 for never.
        now: Of a monotonic clock.
    """

    __slots__ = ("_answered", "_seconds", "_since")

    def __init__(self, seconds: float, now: float) -> None:
        self._seconds, self._since = seconds, now
        self._answered = 0

    def restart(self, now: float) -> None:
        """Count from now on."""
        self._since = now

    def is_over(self, now: float, connections: int, answered: int) -> bool:
        """Whether it is time to leave.

        Args:
            now: Of the same clock.
            connections: That are open.
            answered: All requests so far: a connection may have come and gone since the last look.
        """
        if connections or answered != self._answered:
            self._since, self._answered = now, answered
        return bool(self._seconds) and now - self._since >= self._seconds


def can_leave(listeners: Iterable[Listener]) -> bool:
    """Whether the next connection starts us again, wherever it comes."""
    return all(listener.activated for listener in listeners if not listener.control)


def are_inherited(listeners: Iterable[Listener]) -> bool:
    """Whether no socket that serves is one of our own."""
    return all(listener.inherited for listener in listeners if not listener.control)


def draw_limit(settings: Settings) -> int:
    """After how many answers a process has done enough, by chance a few more than were named; 0 for never."""
    return settings.max_requests and settings.max_requests + randbelow(settings.max_requests_jitter + 1)
