"""The access log: one record for each answer."""

from collections.abc import Iterable
from typing import Final

from appserver.telemetry.log import LEVELS, Log

COMPLETE: Final = "complete"
"""The outcome of a request whose answer was handed over whole."""

_HEADERS: Final = {b"host": "http_host", b"user-agent": "user_agent", b"referer": "referer"}
_SAID: Final = frozenset(
    {
        "bytes_received",
        "bytes_sent",
        "duration_us",
        "http_host",
        "http_method",
        "http_status",
        "http_target",
        "http_version",
        "listener",
        "outcome",
        "referer",
        "request_id",
        "user_agent",
    }
)


class AccessLog:
    """Makes access records.

    They skip the processors: what these would add is known here, and there is a record for every request.

    Args:
        log: The pipeline whose renderer and output are used.
    """

    __slots__ = ("_channel",)

    def __init__(self, log: Log) -> None:
        self._channel = log.channel

    def record(
        self,
        method: str,
        target: bytes | str,
        status: int,
        duration: float,
        client: str,
        request_id: str | None,
        version: str,
        bytes_received: int,
        bytes_sent: int,
        listener: str,
        outcome: str = COMPLETE,
        headers: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        """Write the record of one answer: as a warning when it is a 5xx or was cut, else as info. Never raises.

        Args:
            method: As the client sent it.
            target: Path and query, as the client sent them.
            status: Of the final response.
            duration: Seconds from the head's arrival to the end of the answer.
            client: Its address, or `unix`.
            request_id: What the application's records of this request carry too.
            version: `1.0`, `1.1` or `2`.
            bytes_received: Of the request's body.
            bytes_sent: Of the response's body.
            listener: The socket's name or address.
            outcome: `complete`, or how the exchange ended otherwise.
            headers: The request's; host, user-agent and referer are recorded.
        """
        level = "warning" if status >= 500 or outcome == "cut" else "info"
        channel = self._channel
        if LEVELS[level] < channel.threshold:
            return
        if isinstance(target, bytes):
            target = target.decode("utf-8", "backslashreplace")
        event = f"{method} {target} {status} {duration * 1000:.1f} ms"
        record: dict[str, object] = {
            "event": event if outcome == COMPLETE else f"{event} ({outcome})",
            "http_method": method,
            "http_target": target,
            "http_status": status,
            "http_version": version,
            "duration_us": round(duration * 1_000_000),
            "client_addr": client,
            "request_id": request_id,
            "bytes_received": bytes_received,
            "bytes_sent": bytes_sent,
            "listener": listener,
            "outcome": outcome,
            "said": _SAID,
        }
        for name, value in headers:
            key = _HEADERS.get(name)
            if key is not None and key not in record:
                record[key] = value.decode("utf-8", "backslashreplace")
        channel.write(level, record)
