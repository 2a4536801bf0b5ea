"""What a response of HTTP/1.1 looks like: its head, how its client finds its end, and that it is the last one.

Nothing here knows the connection. Whether that ends behind a response is `wire.http1`'s to say, and the response's own
if it lists `close`.
"""

from http import HTTPStatus
from typing import Final

from appserver.wire.engine import Headers
from appserver.wire.http1_switch import members

# How the client finds the end of a response (RFC 9112 section 6.3).
NO_BODY: Final = "no body"
LENGTH: Final = "length"
CHUNKS: Final = "chunks"
CLOSE: Final = "close"

UNKNOWN: Final = -1
"""The size of a body that is not there as a whole."""

_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode("ascii") for status in HTTPStatus
}

# The fields that mean something here; all others pass by with one set look-up.
_OWN: Final = frozenset({b"content-length", b"connection"})


def write_head(
    out: list[bytes], status: int, headers: Headers, size: int, is_head: bool, is_old: bool, last: bool
) -> tuple[str, bool]:
    """Write the head of a final response, with the fields that say where it ends.

    Args:
        out: Gets the head, in pieces.
        status: Of the response.
        headers: As the application has sent them.
        size: Bytes of the body, or `UNKNOWN`.
        is_head: The request's method is HEAD.
        is_old: The client speaks HTTP/1.0.
        last: The connection ends behind the response.

    Returns:
        How the client finds the end, and `last`, which the response itself may ask for (RFC 9112 section 9.6).
    """
    lengths = False
    options = b""
    for name, value in headers:
        if name not in _OWN:
            continue
        if name == b"content-length":
            lengths = True
        else:
            options += b"," + value
            last = last or b"close" in members(value.lower())
    fields = headers
    if is_head or status in (204, 304):
        framing = NO_BODY
        if status == 204 and lengths:  # RFC 9110 section 8.6
            fields = [field for field in fields if field[0] != b"content-length"]
    elif lengths:
        framing = LENGTH
    elif size != UNKNOWN:
        framing = LENGTH
        fields = [*fields, (b"content-length", b"%d" % size)]
    elif is_old:
        framing = CLOSE
    else:
        framing = CHUNKS
        fields = [*fields, (b"transfer-encoding", b"chunked")]
    if last:
        if options:
            fields = [field for field in fields if field[0] != b"connection"]
        fields = [*fields, (b"connection", _add_close(options) if options else b"close")]
    out.append(_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status)
    out += [b"%b: %b\r\n" % field for field in fields]
    out.append(b"\r\n")
    return framing, last


def make_interim(status: int, headers: Headers) -> bytes:
    """An interim response (1xx), which is a head and nothing else (RFC 9110 section 15.2)."""
    line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
    return line + _make_fields(headers)


def make_last_chunk(trailers: Headers) -> bytes:
    """The end of a body in chunks, with the fields behind it (RFC 9112 section 7.1.2)."""
    return b"0\r\n" + _make_fields(trailers)


def _add_close(options: bytes) -> bytes:
    """A Connection field's value with `close` in it, once.

    What else it lists stays: fields that no proxy may forward (RFC 9110 section 7.6.1), `upgrade` (section 7.8). But
    `keep-alive` says the opposite.
    """
    others = [option for option in members(options) if option and option.lower() not in (b"close", b"keep-alive")]
    return b", ".join([*others, b"close"])


def _make_fields(headers: Headers) -> bytes:
    return b"".join([b"%b: %b\r\n" % field for field in headers]) + b"\r\n"
