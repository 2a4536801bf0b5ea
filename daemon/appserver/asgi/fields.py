"""The fields that an application sends: headers, trailers, links, and those of a promised request."""

import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from appserver.errors import MisuseError
from appserver.wire.engine import Headers

_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 section 5.6.2

_CONTROLS: Final = bytes(set(range(0x20)) - {0x09}) + b"\x7f"
_RARE: Final = _CONTROLS + b"\t"

_PLAIN, _LENGTH, _DROPPED, _DEFAULT, _MISPLACED = range(5)
_OWN: Final = {
    b"content-length": _LENGTH,
    # Framing is the server's business (RFC 9110 section 7.6.1): it knows the version, the application does not.
    b"transfer-encoding": _DROPPED,
    b"keep-alive": _DROPPED,
    b"proxy-connection": _DROPPED,
    b"te": _DROPPED,  # a request's; no response over HTTP/2 may have it (RFC 9113 section 8.2.2)
}

# What has to be known before the content is read: RFC 9110 section 6.5.1 by kinds of fields, RFC 7230 section 4.1.2 and
# RFC 7231 section 7.1 by names.
_NOT_IN_TRAILERS: Final = (
    b"content-length transfer-encoding trailer connection keep-alive proxy-connection upgrade te host "
    b"cache-control expect max-forwards pragma range "
    b"if-match if-none-match if-modified-since if-unmodified-since if-range "
    b"authorization proxy-authenticate proxy-authorization www-authenticate cookie set-cookie "
    b"age date expires location retry-after vary warning "
    b"content-encoding content-range content-type"
).split()

# The host is that of the request that promises, a promised request has no content (RFC 9113 section 8.4), and the
# rest is about the connection.
_NOT_IN_PROMISES: Final = (
    b"host content-length transfer-encoding connection keep-alive proxy-connection upgrade te expect trailer"
).split()
_KNOWN_LIMIT: Final = 1024  # an application may make names up
_VALUES_SIZE: Final = 256  # of those that a response brings anew, together: what is longer is rarely sent twice


class Defaults(list[tuple[bytes, bytes]]):
    """The fields that the server adds to every response: Date, Server and the operator's own.

    They are made anew each second; with them lives what is known of names and of values, so that these are matched
    against the grammar once a second and not once a response.

    Args:
        fields: Names in lower case.
    """

    __slots__ = ("kinds", "room", "values")

    def __init__(self, fields: Iterable[tuple[bytes, bytes]] = ()) -> None:
        super().__init__(fields)
        self.kinds = {**_OWN, **{name: _DEFAULT for name, _ in self}}
        self.values: set[bytes] = set()
        self.room = _KNOWN_LIMIT  # a response that has room brings at most some of its own more

    def learn(self, name: bytes) -> bytes:
        """Check a name that is not in `kinds`, and give it in lower case.

        Raises:
            MisuseError: It is no field name.
        """
        lower = name.lower()
        if _TOKEN.fullmatch(lower) is None:  # a TypeError where it is no byte string
            raise MisuseError(f"a header name must be a byte string with a token in it (RFC 9110), not {name!r:.200}")
        if len(self.kinds) < _KNOWN_LIMIT:
            self.kinds.setdefault(lower, _PLAIN)
        return lower


def _copy(value: Any) -> bytes:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise TypeError
    return bytes(memoryview(value))  # of a class derived from bytes too, whatever that makes of itself


def _tidy(name: bytes, value: bytes) -> bytes:
    """A value without the white space around it, which is no part of it (RFC 9110 section 5.5).

    In HTTP/1.1 it means nothing; in HTTP/2 the response would be malformed (RFC 9113 section 8.2.1).

    Raises:
        MisuseError: A line end, which would let a client write the next field, or another control character but HTAB.
    """
    if value.translate(None, _CONTROLS) != value:
        raise MisuseError(
            f"the value of {name.decode('latin-1')} holds CR, LF or NUL, or another control character: {value!r:.200}"
        )
    return value.strip(b" \t")


class Fields(NamedTuple):
    """What an application declared."""

    headers: Headers
    length: int | None
    """Its Content-Length, in bytes."""


def check_fields(fields: Iterable[Iterable[bytes]], defaults: Defaults) -> Fields:
    """Check the fields of `http.response.start` and add the server's own where the application has not set them.

    Args:
        fields: As the application gave them.
        defaults: The server's own.

    Raises:
        MisuseError: A field that cannot be sent, named.
    """
    headers: Headers = []
    length: int | None = None
    overrides = False
    kinds, known = defaults.kinds, defaults.values
    unknown = []
    try:
        for name, value in fields:
            kind = kinds.get(name)
            if kind is None:
                name = defaults.learn(name)  # noqa: PLW2901 - the lower-case form takes its place
                kind = kinds.get(name, _PLAIN)
            if kind:
                if kind == _LENGTH:
                    if not value.isdigit() or (length is not None and int(value) != length):
                        raise MisuseError(f"content-length must be one number, not {value!r}")
                    if length is not None:
                        continue
                    length = int(value)
                elif kind == _DEFAULT:
                    overrides = True
                elif kind == _MISPLACED:
                    raise MisuseError(f"{name.decode('latin-1')} may not be a trailer (RFC 9110 section 6.5.1)")
                else:
                    continue
            if type(value) is not bytes:
                value = _copy(value)  # noqa: PLW2901 - what could change later, or is no bytes to the engines
            if value not in known:
                unknown.append(value)
            headers.append((name, value))
    except (TypeError, ValueError, AttributeError) as error:
        raise MisuseError(
            f"headers must be an iterable of [name, value] pairs of byte strings, not {fields!r:.200}"
        ) from error
    if unknown:
        # All at once: in nearly all responses none has a control character, or white space around it. Of two spaces
        # that stand side by side only a look at each value tells where they are. (`in` would take longer than find().)
        values = b" ".join(unknown)
        if values.translate(None, _RARE) != values or values.strip() != values or values.find(b"  ") >= 0:
            headers = [(name, _tidy(name, value)) for name, value in headers]
        elif len(values) <= _VALUES_SIZE and len(known) < defaults.room:
            known.update(unknown)
    if overrides:
        present = {name for name, _ in headers}
        headers += [field for field in defaults if field[0] not in present]
    else:
        headers += defaults
    return tuple.__new__(Fields, (headers, length))  # 0.1 us less than Fields(…), which is a function in Python


def _treat(names: Iterable[bytes], kind: int) -> Defaults:
    """No fields of the server's own, and a kind of their own for some names."""
    fields = Defaults()
    fields.kinds.update(dict.fromkeys(names, kind))
    fields.room = 0  # these live as long as the process: values, which may be secrets, do not stay in them
    return fields


_TRAILERS: Final = _treat(_NOT_IN_TRAILERS, _MISPLACED)
_PROMISED: Final = _treat(_NOT_IN_PROMISES, _DROPPED)
_BARE: Final = _treat((), _PLAIN)


def check_head(fields: Iterable[Iterable[bytes]]) -> Fields:
    """Check the fields of a response before it is known what the server adds.

    Raises:
        MisuseError: A field that cannot be sent, named.
    """
    return check_fields(fields, _BARE)


def check_trailers(fields: Iterable[Iterable[bytes]]) -> Headers:
    """Check the fields of `http.response.trailers`.

    Raises:
        MisuseError: A field that cannot be sent, or not behind the content.
    """
    return check_fields(fields, _TRAILERS).headers


def check_promise(fields: Iterable[Iterable[bytes]]) -> Headers:
    """Check the fields of `http.response.push`; those that are the server's to set are left out.

    Raises:
        MisuseError: A field that cannot be sent, named.
    """
    return check_fields(fields, _PROMISED).headers


def check_links(links: Any) -> Headers:
    """Make `link` fields (RFC 8288) of the values in `http.response.early_hint`.

    Raises:
        MisuseError: A value that cannot be sent.
    """
    values = list(links) if isinstance(links, Iterable) else [links]
    if not all(isinstance(value, bytes | bytearray | memoryview) for value in values):
        raise MisuseError(f"links must be an iterable of byte strings, not {links!r:.200}")
    return check_fields([(b"link", value) for value in values], _BARE).headers


def takes_trailers(headers: Headers) -> bool:
    """Whether a request says that trailers are not thrown away (RFC 9110 section 10.1.4)."""
    return any(
        name == b"te" and b"trailers" in [coding.strip(b" \t") for coding in value.lower().split(b",")]
        for name, value in headers
    )
