"""Leaving when nobody comes: under socket activation the next connection starts the service again."""

from collections.abc import Iterable

from appserver.net.listeners import Listener


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
    """Whether somebody else holds all sockets, and starts us again for the next connection."""
    return all(listener.inherited and not listener.connected for listener in listeners if not listener.control)
