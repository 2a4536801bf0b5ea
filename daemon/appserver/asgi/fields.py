"""The header fields of an application's response, checked and completed."""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from appserver.errors import MisuseError
from appserver.wire.engine import Headers

_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 section 5.6.2

_CONTROLS: Final = bytes(set(range(0x20)) - {0x09, 0x0A}) + b"\x7f"

_PLAIN, _LENGTH, _FRAMING = range(3)
_OWN: Final = {
    b"content-length": _LENGTH,
    # Framing is the server's business (RFC 9110 section 7.6.1): it knows the version, the application does not.
    b"transfer-encoding": _FRAMING,
    b"keep-alive": _FRAMING,
    b"proxy-connection": _FRAMING,
}
# Names seen before, so that a name is matched against the grammar once and not once a response. Bounded, because an
# application may make names up.
_SEEN: Final[dict[bytes, int]] = dict(_OWN)
_SEEN_LIMIT: Final = 1024


class Fields(NamedTuple):
    """What an application declared."""

    headers: Headers
    length: int | None
    """Its Content-Length, in bytes."""


def check_fields(fields: Iterable[Iterable[bytes]], defaults: Headers) -> Fields:
    """Check the fields of `http.response.start` and add the server's own where the application has not set them.

    Args:
        fields: As the application gave them.
        defaults: Date, Server and what the operator configured; names in lower case.

    Raises:
        MisuseError: A field that cannot be sent, named.
    """
    headers: Headers = []
    length: int | None = None
    try:
        for name, value in fields:
            kind = _SEEN.get(name)
            if kind is None:
                name = _learn(name)  # noqa: PLW2901 - the lower-case form takes its place
                kind = _SEEN.get(name, _PLAIN)
            if kind:
                if kind == _LENGTH:
                    if not value.isdigit() or (length is not None and int(value) != length):
                        raise MisuseError(f"content-length must be one number, not {value!r}")
                    if length is not None:
                        continue
                    length = int(value)
                else:
                    continue
            headers.append((name, value))
        values = b"\n".join([value for _, value in headers])
    except (TypeError, ValueError, AttributeError) as error:
        raise MisuseError(
            f"headers must be an iterable of [name, value] pairs of byte strings, not {fields!r:.200}"
        ) from error
    # Two passes over all values, with the LF between them counted: a line end in one of them would let a client write
    # the next field, and no other control character but HTAB may stand there (RFC 9110 section 5.5).
    if values.count(b"\n") > max(len(headers) - 1, 0) or len(values.translate(None, _CONTROLS)) != len(values):
        name, value = next(
            field for field in headers if len(field[1].translate(None, _CONTROLS + b"\n")) != len(field[1])
        )
        raise MisuseError(
            f"the value of {name.decode('latin-1')} holds CR, LF or NUL, or another control character: {value!r:.200}"
        )
    present = {name for name, _ in headers}
    headers += [field for field in defaults if field[0] not in present]
    return Fields(headers, length)


def _learn(name: bytes) -> bytes:
    lower = name.lower()
    if _TOKEN.fullmatch(lower) is None:  # a TypeError where it is no byte string
        raise MisuseError(f"a header name must be a byte string with a token in it (RFC 9110), not {name!r:.200}")
    if len(_SEEN) < _SEEN_LIMIT:
        _SEEN.setdefault(lower, _OWN.get(lower, _PLAIN))
    return lower
