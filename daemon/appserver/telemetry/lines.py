"""Records as lines: JSON for programs, colour for people."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from time import time_ns
from typing import Any, Final

from appserver.telemetry.record import WORDS
from appserver.telemetry.text import PLAIN, UNSAFE, escape, escape_lines, show

JSON_PLAIN: Final = PLAIN.translate(None, b'"\\')
"""What stands in a JSON string as it is."""

CONSOLE_PLAIN: Final = PLAIN.translate(None, b' ="')
"""What needs no quotes on the console."""

_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=show)
"""Made once: json.dumps() would make one for each record."""

_COLOURS: Final[Mapping[str, str]] = {
    "critical": "\x1b[1;31m",
    "error": "\x1b[31m",
    "warning": "\x1b[33m",
    "info": "\x1b[32m",
    "debug": "\x1b[34m",
    "trace": "\x1b[35m",
}
_DIM: Final = "\x1b[2m"
_BOLD: Final = "\x1b[1m"
_PLAIN: Final = "\x1b[0m"
_WIDTH: Final = len("critical")
_INDENT: Final = " " * 4


def render_json(level: str, record: Mapping[str, Any]) -> bytes:
    """One JSON object (RFC 8259) and a line feed. `timestamp` is UTC (RFC 3339), `event` an event's code."""
    seconds, micros = divmod(record.get("captured") or time_ns() // 1000, 1_000_000)
    data: dict[str, Any] = {
        "timestamp": f"{stamp_utc(seconds)}{micros:06d}Z",
        "level": level,
        "message": str(record["event"]),
    }
    if record.get("code") is not None:
        data["event"] = record["code"]
    taken = {*data, "event", "traceback"}
    for key, value in record.items():
        if value is not None and key not in WORDS:
            data[f"extra_{key}" if key in taken else key] = value
    if record.get("traceback"):
        data["traceback"] = record["traceback"]
    try:
        text = _ENCODER.encode(data)
    except (TypeError, ValueError, RecursionError):
        # NaN, keys that are no strings, a value that contains itself: JSON has no way to say them.
        text = _ENCODER.encode({key: _make_plain(value) for key, value in data.items()})
    # What JSON leaves raw though a terminal obeys it (RFC 8259 section 7 asks for C0 alone); it stands in strings only.
    if not text.isprintable():
        text = UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
    return text.encode() + b"\n"


# Cached, as it is alike for all of a second: it takes 2 us, and an access record 2.


@lru_cache(maxsize=4)
def stamp_utc(seconds: int) -> str:
    """The time in UTC (RFC 3339) up to the point before the part of a second, from seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.")


@lru_cache(maxsize=4)
def stamp_local(seconds: int) -> str:
    """The time of day here up to the point before the part of a second, from seconds since 1970."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%H:%M:%S.")


def _make_plain(value: object) -> object:
    """The value itself where JSON can say it, else a line of text."""
    try:
        _ENCODER.encode(value)
    except (TypeError, ValueError, RecursionError):
        return show(value)
    return value


class Console:
    """Lines for a person at a terminal: time of day, level, message, then the fields it does not already say.

    A record begins in the first column, and nothing else does: no message can look like a second record.

    Args:
        colour: Whether the terminal wants escape sequences; see https://no-color.org.
    """

    __slots__ = ("_colour",)

    def __init__(self, *, colour: bool) -> None:
        self._colour = colour

    def render(self, level: str, record: Mapping[str, Any]) -> bytes:
        """One line, and the lines of a traceback, indented."""
        seconds, micros = divmod(record.get("captured") or time_ns() // 1000, 1_000_000)
        now = f"{stamp_local(seconds)}{micros // 1000:03d}"
        message = escape(str(record["event"]))
        if level in {"warning", "error", "critical"}:
            message = self._paint(_BOLD, message)
        said = record.get("said", ())
        parts = [self._paint(_DIM, now), self._paint(_COLOURS[level], level.ljust(_WIDTH)), message]
        parts += [
            f"{self._paint(_DIM, escape(key) + '=')}{_quote(show(value))}"
            for key, value in record.items()
            if value is not None and key not in WORDS and key not in said
        ]
        line = " ".join(parts)
        if record.get("traceback"):
            lines = escape_lines(record["traceback"]).split("\n")
            line = "\n".join([line, *(_INDENT + text for text in lines)])
        return line.encode() + b"\n"

    def _paint(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._colour else text


def _quote(text: str) -> str:
    """Quote where a value could be taken for more fields than one."""
    if text and not any(mark in text for mark in ' ="'):
        return text
    return '"' + text.replace('"', '\\"') + '"'
