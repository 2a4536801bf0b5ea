r"""Text that is safe to print: whoever reads a log must see what was sent, not obey it.

A client chooses paths and field values, and an application puts them into messages. Raw control characters in them
would forge lines, and drive the terminal of whoever reads the log. They are shown as `\xNN` or `\uNNNN`. A backslash
itself stays single: regular expressions in messages remain readable, and a doubtful case is only ever harmless text.
"""

import re
from datetime import UTC, datetime
from typing import Final

UNSAFE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""C0, DEL, C1, line and paragraph separators, direction overrides, and surrogates (which UTF-8 cannot carry)."""

PLAIN: Final = bytes(range(0x20, 0x7F))
"""ASCII that prints: nothing here escapes it."""


def escape(text: str) -> str:
    """Show every control character of `text`, line ends included."""
    # isprintable() is false for all of UNSAFE and for little else: the search is for the rare text.
    return text if text.isprintable() else UNSAFE.sub(_escape_match, text)


def escape_lines(text: str) -> str:
    """Show every control character but the line feeds: for tracebacks, whose lines are our own."""
    return "\n".join(map(escape, text.split("\n")))


def show(value: object) -> str:
    """One line for any value; never raises, whatever its `__str__` does."""
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    try:
        if isinstance(value, bytes):
            return escape(value.decode("utf-8", "backslashreplace"))
        return escape(str(value))
    except Exception as error:  # noqa: BLE001 - the value is foreign code, and a record must not fail on it
        return f"<{type(value).__name__} that cannot be shown: {type(error).__name__}>"


def _escape_match(match: "re.Match[str]") -> str:
    number = ord(match[0])
    return f"\\x{number:02x}" if number <= 0xFF else f"\\u{number:04x}"


def show_count(number: int, noun: str) -> str:
    """So many of something: `1 request`, `2 requests`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def show_time(seconds: float) -> str:
    """A time since the epoch in ISO 8601, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def show_expiry(name: str, ends: float, now: float) -> str:
    """A phrase for STATUS= about the certificate of that name; times are seconds since the epoch."""
    return f"certificate {name} {'expired' if ends <= now else 'good until'} {show_time(ends)[:10]}"
