"""HTTP/2 requests: pseudo-fields and field validity, checked alike for every engine (RFC 9113 section 8).

What breaks the message format is `Malformed`: the stream is reset, the others go on. What is well formed and cannot be
served is a `Refusal`, which is answered as in HTTP/1.1.
"""

import re
from collections.abc import Sequence
from typing import Final

from appserver.wire.engine import Headers, Limits
from appserver.wire.memory import KEPT_FIELDS, KEPT_SIZE, MISSES, PAUSE
from appserver.wire.semantics import METHODS, Refusal, Request, is_host, read_length

UNKNOWN_LENGTH: Final = -1
"""`Request.length` of a body that does not tell its length."""

_PSEUDO: Final = frozenset({b":method", b":scheme", b":path", b":authority"})
_PROTOCOL: Final = b":protocol"

CONNECTION_SPECIFIC: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)
"""Fields of HTTP/1.1 that a message of HTTP/2 must not have, either way (RFC 9113 section 8.2.2)."""

# The fields whose meaning the server itself must know; all others pass by with two set look-ups.
_OWN: Final = CONNECTION_SPECIFIC | {b"host", b"content-length", b"expect", b"cookie", b"te"}

_UNLIKE: Final = frozenset({b"content-length", b"expect", _PROTOCOL})

# RFC 9110 section 5.6.2 without upper case (RFC 9113 section 8.2.1).
_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_METHOD: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_SCHEME: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+\-.]*")
_VERBS: Final = frozenset(METHODS.values())
_SCHEMES: Final = (b"https", b"http")
_TARGET: Final = re.compile(rb"/[!-\"$-~]*")

# Everything below SP but HTAB, and DEL (RFC 9110 section 5.5).
_CONTROLS: Final = bytes(set(range(0x20)) - {0x09}) + b"\x7f"

# Names that have matched: clients send the same few, and may make others up.
_names: Final[set[bytes]] = set()
_NAMES_LIMIT: Final = 512
_NAME_LENGTH: Final = 64


class Malformed(Exception):  # noqa: N818 - it is an answer to the peer, not an error of ours
    """The request breaks RFC 9113 section 8.1.1: its stream ends with PROTOCOL_ERROR."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class HeadReader:
    """Reads the heads of one connection's requests.

    Two requests of a client often differ in `:path` alone: what one had beside it is kept, with what it came to, as in
    `wire.memory`. It saves 3 of 3.5 us for a request of five fields, and more for one of a browser.
    """

    __slots__ = (
        "_at",
        "_before",
        "_behind",
        "_limits",
        "_method",
        "_misses",
        "_room",
        "_scheme",
        "_websocket",
        "headers",
        "scheme",
    )

    def __init__(self, limits: Limits, *, websocket: bool = False) -> None:
        self.scheme = self._scheme = b"https"
        """What the client called us by in its last request."""
        self._limits = limits
        self._websocket = websocket
        # What is kept: where the path stood, what stood around it, what came of it, and how long a path may be then.
        self._at = 0
        self._before: Sequence[tuple[bytes, bytes]] | None = None
        self._behind: Sequence[tuple[bytes, bytes]] = ()
        self._method = ""
        self.headers: Headers = []
        """Of the request that is kept."""
        self._room = 0
        self._misses = 0

    def read(self, fields: Sequence[tuple[bytes, bytes]], *, end: bool) -> Request:
        """Read a request: see `read_request`. Its headers may be those of an earlier one.

        Raises:
            Malformed: It is no HTTP/2 request.
            Refusal: It cannot be served.
        """
        at = self._at
        if len(fields) > at and fields[:at] == self._before and fields[at + 1 :] == self._behind:
            name, target = fields[at]
            if name == b":path" and len(target) <= self._room and _TARGET.fullmatch(target) is not None:
                self._misses = 0
                self.scheme = self._scheme
                size = 0 if end else UNKNOWN_LENGTH
                return tuple.__new__(Request, (self._method, target, self.headers, "2", size, False, False, False))
        request = read_request(fields, self._limits, end=end, websocket=self._websocket)
        self.scheme = next(value for name, value in fields if name == b":scheme")
        self._misses += 1
        if self._misses <= MISSES or not self._misses % PAUSE:
            self._keep(fields, request)
        return request

    def _keep(self, fields: Sequence[tuple[bytes, bytes]], request: Request) -> None:
        limits, names = self._limits, [name for name, _ in fields]
        if _UNLIKE.intersection(names):
            return  # a body's length means something else without a body, and a tunnel has other rules
        at = names.index(b":path")
        size = sum([len(name) + len(value) + 4 for name, value in fields]) - len(fields[at][1])
        if size > KEPT_SIZE or len(fields) > KEPT_FIELDS:
            self._before, self._behind, self.headers = None, (), []
            return
        self._at, self._before, self._behind = at, fields[:at], fields[at + 1 :]
        self._method, self._scheme, self.headers = request.method, self.scheme, request.headers
        # What is no longer than a field may be breaks neither limit: see _check_size().
        self._room = min(min(limits.field, limits.head) - size, limits.request_line - len(request.method))


def read_request(
    fields: Sequence[tuple[bytes, bytes]], limits: Limits, *, end: bool, websocket: bool = False
) -> Request:
    """Check a request's fields and bring them into the common form: `host` first, cookies in one.

    Args:
        fields: As they came, pseudo-fields too.
        limits: The bounds.
        end: No body follows.
        websocket: `:protocol` may ask for one (RFC 8441); that it does so is `Request.upgrade` then.

    Raises:
        Malformed: It is no HTTP/2 request.
        Refusal: 400, 413, 414, 417, 431 or 501.
    """
    pseudo: dict[bytes, bytes] = {}
    headers: Headers = [(b"host", b"")]
    cookies: list[bytes] = []
    host: bytes | None = None
    length: int | None = None
    expects, known = False, True
    for field in fields:
        name, value = field
        if name not in _names:
            if name[:1] == b":":
                if name not in _PSEUDO and not (websocket and name == _PROTOCOL):
                    raise Malformed("a pseudo-field that no request has")
                if name in pseudo:
                    raise Malformed("a pseudo-field twice")
                if len(headers) > 1 or host is not None or cookies:
                    raise Malformed("a pseudo-field behind a field")
                pseudo[name] = value
                continue
            check_name(name)
        if name not in _OWN:
            headers.append((name, value) if type(field) is not tuple else field)
        elif name == b"cookie":
            # RFC 9113 section 8.2.3: they may come in crumbs, and applications know one field.
            cookies.append(value)
        elif name == b"host":
            if host is not None:
                raise Malformed("Host twice")
            host = value
        elif name == b"content-length":
            if length is not None:
                raise Malformed("Content-Length twice")
            length = read_length(value)
            if length is None:
                raise Malformed("a Content-Length that is not a number from 0 to 2**63 - 1")
            headers.append((name, value))
        elif name == b"te":
            if value != b"trailers":
                raise Malformed("a TE other than trailers")
            headers.append((name, value))
        elif name == b"expect":
            expects = not end
            known = known and value.lower() == b"100-continue"
            headers.append((name, value))
        else:
            raise Malformed("a field that belongs to HTTP/1.1 connections")
    _check_values(fields)
    method, target = _read_line(pseudo)
    extended = _PROTOCOL in pseudo
    if method != "CONNECT" or extended:
        headers[0] = (b"host", _read_authority(pseudo.get(b":authority"), host))
    if cookies:
        headers.append((b"cookie", b"; ".join(cookies)))
    if end and length:
        raise Malformed("a Content-Length without a body")
    # Only now: what breaks the format has no answer, whatever else is wrong with it.
    _check_size(fields, limits)
    _check_line("GET" if extended else method, target, limits)
    if extended and pseudo[_PROTOCOL] != b"websocket":
        raise Refusal(501, "CONNECT for another protocol than websocket")
    if extended and end:
        raise Refusal(400, "a WebSocket that its client has ended already")
    if not known:
        raise Refusal(417, "an Expect other than 100-continue")
    if limits.body and (length or 0) > limits.body:
        raise Refusal(413, f"the body is longer than {limits.body} bytes")
    size = 0 if end else UNKNOWN_LENGTH if length is None else length
    return tuple.__new__(Request, (method, target, headers, "2", size, expects, False, extended))


def check_trailers(fields: Sequence[tuple[bytes, bytes]], limits: Limits) -> None:
    """Check the trailer fields of a request; ASGI has no place for them, so they are dropped then.

    Raises:
        Malformed: They break RFC 9113 section 8.1.
        Refusal: 431.
    """
    for name, value in fields:
        if name not in _names:
            if name[:1] == b":":
                raise Malformed("a pseudo-field in the trailers")
            check_name(name)
        if name in CONNECTION_SPECIFIC or (name == b"te" and value != b"trailers"):
            raise Malformed("a field that belongs to HTTP/1.1 connections")
    _check_values(fields)
    _check_size(fields, limits)


def check_name(name: bytes) -> None:
    """Check a field's name, and remember it.

    Raises:
        Malformed: It is no token, or has upper-case letters.
    """
    if _NAME.fullmatch(name) is None:
        raise Malformed("a field name that is no token in lower case")
    if len(_names) < _NAMES_LIMIT and len(name) <= _NAME_LENGTH:
        _names.add(name)


def _check_values(fields: Sequence[tuple[bytes, bytes]]) -> None:
    """All values at once: 1 us for ten fields, where a regular expression for each would take 2."""
    if not fields:
        return
    joined = b"\0%b\0" % b"\0".join([value for _, value in fields])
    if len(joined) - len(joined.translate(None, _CONTROLS)) != len(fields) + 1:
        raise Malformed("a control character in a field's value")
    # RFC 9113 section 8.2.1: no white space around a value. find(), because `in` takes 0.2 us more: it asks bytes first
    # whether they are a number, and swallows what that raises.
    find = joined.find
    if find(b"\0 ") >= 0 or find(b" \0") >= 0 or find(b"\0\t") >= 0 or find(b"\t\0") >= 0:
        raise Malformed("white space around a field's value")


def _check_size(fields: Sequence[tuple[bytes, bytes]], limits: Limits) -> None:
    if len(fields) > limits.fields + len(_PSEUDO):
        raise Refusal(431, f"more than {limits.fields} header fields")
    # As in HTTP/1.1, where each field has a colon, a space and a line end too.
    size = sum([len(name) + len(value) + 4 for name, value in fields])
    if size > min(limits.field, limits.head):
        longest = max([len(name) + len(value) for name, value in fields if name != b":path"], default=0)
        if longest > limits.field:
            raise Refusal(431, f"a header field is longer than {limits.field} bytes")
        if size > limits.head:
            raise Refusal(431, f"the header is longer than {limits.head} bytes")


def _read_line(pseudo: dict[bytes, bytes]) -> tuple[str, bytes]:
    """The method and target; what HTTP/1.1 has in its request line (RFC 9113 section 8.3.1)."""
    method, target, scheme = pseudo.get(b":method", b""), pseudo.get(b":path"), pseudo.get(b":scheme")
    verb = METHODS.get(method)
    if verb is None:
        if _METHOD.fullmatch(method) is None:
            raise Malformed("no :method, or one that is no token")
        verb = method.decode("ascii")
    extended = _PROTOCOL in pseudo
    if extended and verb != "CONNECT":
        raise Malformed("a :protocol in a request that is no CONNECT")
    if extended and not pseudo[_PROTOCOL]:
        raise Malformed("an empty :protocol")
    if verb == "CONNECT" and not extended:
        if target is not None or scheme is not None or b":authority" not in pseudo:
            raise Malformed("a CONNECT with :scheme or :path, or without :authority")
        return verb, b""
    if scheme not in _SCHEMES and (scheme is None or _SCHEME.fullmatch(scheme) is None):
        raise Malformed("no :scheme, or one that is none")
    if target is None:
        raise Malformed("no :path")
    if _TARGET.fullmatch(target) is None and not (target == b"*" and verb == "OPTIONS"):
        raise Malformed("a :path that is no path")
    return verb, target


def _check_line(verb: str, target: bytes, limits: Limits) -> None:
    if len(verb) + len(target) > limits.request_line:
        raise Refusal(414, f"the request line is longer than {limits.request_line} bytes")
    if verb not in _VERBS:
        if verb == "CONNECT":
            raise Refusal(501, "CONNECT")
        if verb != verb.upper():
            raise Refusal(501, "a method with lower-case letters")  # as in HTTP/1.1


def _read_authority(authority: bytes | None, host: bytes | None) -> bytes:
    name = host if authority is None else authority
    if not name:
        raise Malformed("neither :authority nor Host")
    if host is not None and host.lower() != name.lower():
        raise Malformed("a Host that differs from :authority")
    if not is_host(name):
        raise Malformed("an :authority that is not host[:port]")
    return name
