"""What every engine checks alike: RFC 9110 semantics and the RFC 9112 rules that parsers are lax about.

Parsers differ in what they let through (bare LF, obs-fold, two equal Content-Lengths, any bytes after a chunk). Where
a proxy in front and the server behind it disagree on where a message ends, requests are smuggled; so what is
ambiguous is refused here, for all engines, before or after the parser has seen it.

A rule that is broken raises `Refusal`; the engine turns it into the event `Refused`.
"""

import re
from typing import Final, NamedTuple

from appserver.wire.engine import Headers, Limits

CHUNKED: Final = -1
"""`Request.length` of a body whose length its framing tells."""

# Everything below SP but HTAB, CR and LF, and DEL (RFC 9110 section 5.5). CR and LF are counted, not deleted.
_CONTROLS: Final = bytes(set(range(0x20)) - {0x09, 0x0A, 0x0D}) + b"\x7f"

# uri-host [":" port] (RFC 9110 section 7.2, RFC 3986 section 3.2.2): no userinfo, no path, nothing but ASCII.
_HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-fvV:.]+\]|[A-Za-z0-9\-._~!$&'()*+,;=%]*)(?::[0-9]{0,5})?")

# Those that have matched: a server has few names, and clients may make names up.
_hosts: Final[set[bytes]] = set()
_HOSTS_LIMIT: Final = 256
_HOST_LENGTH: Final = 255

_ABSOLUTE: Final = re.compile(rb"(?i:https?)://([^/?#]+)([^#]*)")

_LENGTH_FIELD: Final = b"\r\ncontent-length:"
_LENGTH_DIGITS: Final = 19  # of 2**63 - 1

# The fields whose meaning the server itself must know; all others pass by with one set look-up.
_OWN: Final = frozenset({b"host", b"content-length", b"transfer-encoding", b"expect", b"connection", b""})

METHODS: Final = {
    method.encode("ascii"): method for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "QUERY")
}
"""The usual methods, which need no further check."""

_VERSIONS: Final = {b"1.1": "1.1", b"1.0": "1.0"}


class Refusal(Exception):  # noqa: N818 - it is an answer to the peer, not an error of ours
    """The input breaks a rule; `status` is the answer and `reason` says why."""

    def __init__(self, status: int, reason: str) -> None:
        self.status, self.reason = status, reason
        super().__init__(status, reason)


class Preface(Refusal):
    """What came is the first half of HTTP/2's preface (RFC 9113 section 3.4)."""

    def __init__(self) -> None:
        super().__init__(505, "HTTP/2 with prior knowledge on a listener that speaks HTTP/1 only")


class Request(NamedTuple):
    """A head that passed, in the form that `engine.Head` wants."""

    method: str
    target: bytes
    headers: Headers
    version: str
    length: int
    """Bytes of body; 0 for none, `CHUNKED` where the framing tells."""
    expects: bool
    last: bool
    """The client wants the connection closed after this one."""
    upgrade: bool
    """It asks for another protocol (RFC 9110 section 7.8)."""


def check_partial_head(received: bytearray, seen: int, limits: Limits, *, trailers: bool = False) -> None:
    """Refuse as early as possible what can no longer become a good head.

    Args:
        received: All of the head that has arrived; no blank line in it yet.
        seen: How many of these bytes an earlier call has passed. A head may come one byte at a time, and looking at
            all of it each time costs seconds of CPU for 64 KiB; so the whole is counted only when a line ends.
        limits: The bounds.
        trailers: It is a trailer section, which has no request line.

    Raises:
        Refusal: 400, 414 or 431.
    """
    if received[0] == 0x16 and not trailers:
        raise Refusal(400, "a TLS handshake on a plain-text listener")
    # The CR of a line end that is under way is no part of the line.
    length = len(received) - received.endswith(b"\r")
    last = received.rfind(b"\r\n")
    if last < 0 and not trailers:
        if length > limits.request_line:
            raise Refusal(414, f"the request line is longer than {limits.request_line} bytes")
    elif length - (last + 2 if last >= 0 else 0) > limits.field:
        raise Refusal(431, f"a header field is longer than {limits.field} bytes")
    if length > limits.head:
        raise Refusal(431, f"the header is longer than {limits.head} bytes")
    if received.find(b"\n", seen) < 0 and received.find(b"\r", max(seen - 1, 0)) < 0:
        return
    lines = received.count(b"\r\n")
    # A bare LF is refused at once: a lax peer in front may take it for the end of the head and wait for an answer.
    # A CR may be the first half of a line end that is still under way.
    if received.count(b"\n") != lines or received.count(b"\r", 0, len(received) - 1) > lines:
        raise Refusal(400, "a bare CR or LF in the head")
    if lines > limits.fields + (not trailers):
        raise Refusal(431, f"more than {limits.fields} header fields")


def check_head(head: bytes, limits: Limits) -> None:
    """Check the bytes of a whole head, up to and with its blank line, before a parser sees them.

    Raises:
        Refusal: 400, 414 or 431.
    """
    if head[0] == 0x16:
        raise Refusal(400, "a TLS handshake on a plain-text listener")
    lines = head.count(b"\r\n")
    if head.count(b"\n") != lines or head.count(b"\r") != lines:
        raise Refusal(400, "a bare CR or LF in the head")
    if head.find(b"\n ") >= 0 or head.find(b"\n\t") >= 0:  # `in` takes 0.2 us more: see http2_head.py
        raise Refusal(400, "a folded header field (obs-fold, RFC 9112 section 5.2)")
    if len(head.translate(None, _CONTROLS)) != len(head):
        raise Refusal(400, "a control character in the head")
    # A head shorter than one field may be cannot break a length limit: the usual case ends here.
    if len(head) > min(limits.request_line, limits.field, limits.head):
        line, *fields = head[:-4].split(b"\r\n")
        if len(line) > limits.request_line:
            raise Refusal(414, f"the request line is longer than {limits.request_line} bytes")
        if fields and len(max(fields, key=len)) > limits.field:
            raise Refusal(431, f"a header field is longer than {limits.field} bytes")
        if len(head) > limits.head:
            raise Refusal(431, f"the header is longer than {limits.head} bytes")
    if lines > limits.fields + 2:
        raise Refusal(431, f"more than {limits.fields} header fields")
    # On the bytes, because h11 makes one length of several equal ones, and of a list of them.
    lower = head.lower()
    at = lower.find(_LENGTH_FIELD)
    if at >= 0:
        if lower.find(_LENGTH_FIELD, at + 1) >= 0:
            raise Refusal(400, "Content-Length twice")
        if b"," in head[at : head.find(b"\r\n", at + 2)]:
            raise Refusal(400, "a Content-Length that is a list")


def check_request(method: bytes, target: bytes, headers: Headers, version: bytes, limits: Limits) -> Request:
    """Check a parsed HTTP/1.x head and bring its target and framing into the common form.

    Args:
        method: As it came.
        target: As it came, in any of the four forms of RFC 9112 section 3.2.
        headers: Names in lower case.
        version: `1.1`, `1.0`, or what else the parser let through.
        limits: The bounds.

    Raises:
        Refusal: 400, 413, 417, 501 or 505.
    """
    spoken = _VERSIONS.get(version)
    if spoken is None:
        if method == b"PRI" and version == b"2.0" and target == b"*" and not headers:
            raise Preface
        raise Refusal(505, "an HTTP version other than 1.0 and 1.1")
    hosts = 0
    length: int | None = None
    chunked = expects = last = upgrade = False
    for name, value in headers:
        if name not in _OWN:
            continue
        if name == b"host":
            hosts += 1
            if value not in _hosts and not is_host(value):
                raise Refusal(400, "a Host that is not host[:port]")
        elif name == b"content-length":
            # Refused even when equal: RFC 9112 section 6.3 allows that, and another reader may not collapse them.
            if length is not None:
                raise Refusal(400, "Content-Length twice")
            length = read_length(value)
            if length is None:
                raise Refusal(400, "a Content-Length that is not a number from 0 to 2**63 - 1")
        elif name == b"transfer-encoding":
            if chunked:
                raise Refusal(400, "Transfer-Encoding twice")
            if value != b"chunked":
                if value.lower() != b"chunked":
                    raise Refusal(501, "a Transfer-Encoding other than chunked")
                headers[headers.index((name, value))] = (name, b"chunked")  # as h11 gives it
            chunked = True
        elif name == b"connection":
            if value != b"keep-alive":
                options = [option.strip() for option in value.lower().split(b",")]
                last = last or b"close" in options
                upgrade = upgrade or b"upgrade" in options
        elif not name:  # how picohttpparser gives the lines that follow the first of a folded field
            raise Refusal(400, "a folded header field (obs-fold, RFC 9112 section 5.2)")
        elif value.lower() == b"100-continue":
            expects = True
        else:
            raise Refusal(417, "an Expect other than 100-continue")
    if hosts > 1 or (hosts == 0 and spoken == "1.1"):
        raise Refusal(400, "no Host" if hosts == 0 else "Host twice")
    if chunked:
        if length is not None:
            raise Refusal(400, "Content-Length together with Transfer-Encoding")
        if spoken == "1.0":
            raise Refusal(400, "Transfer-Encoding in HTTP/1.0")
    elif limits.body and (length or 0) > limits.body:
        raise Refusal(413, f"the body is longer than {limits.body} bytes")
    verb = METHODS.get(method)
    if verb is None:
        verb = method.decode("ascii", "replace")
        if verb == "CONNECT":
            raise Refusal(501, "CONNECT")
        if verb != verb.upper():
            # Methods are case-sensitive, and ASGI can only tell upper-case ones: "get" must not become GET behind a
            # proxy that let it pass as something else.
            raise Refusal(501, "a method with lower-case letters")
    if not target.startswith(b"/"):
        target = _take_apart(target, verb, headers)
    elif target.find(b"#") >= 0:
        raise Refusal(400, "a fragment in the request target")
    size = CHUNKED if chunked else length or 0
    # An HTTP/1.0 client cannot know 100 (RFC 9110 section 10.1.1), and nobody waits for a body that is not there.
    expects = expects and size != 0 and spoken == "1.1"
    # Request(…) would go through a function in Python: 0.1 us more.
    return tuple.__new__(Request, (verb, target, headers, spoken, size, expects, last, upgrade))


def is_host(value: bytes) -> bool:
    """Whether it is a name or address with or without a port (RFC 9110 section 7.2)."""
    if value in _hosts:
        return True
    if _HOST.fullmatch(value) is None:
        return False
    if len(_hosts) < _HOSTS_LIMIT and len(value) <= _HOST_LENGTH:
        _hosts.add(value)
    return True


def read_length(value: bytes) -> int | None:
    """The number in a Content-Length; None when it is none from 0 to 2**63 - 1 (RFC 9110 section 8.6)."""
    if not value.isdigit() or len(value) > _LENGTH_DIGITS:
        return None
    length = int(value)
    return length if length < 1 << 63 else None


def _take_apart(target: bytes, method: str, headers: Headers) -> bytes:
    """Turn absolute-form into origin-form, its authority into Host (RFC 9112 section 3.2.2); let `OPTIONS *` pass."""
    if target == b"*":
        if method != "OPTIONS":
            raise Refusal(400, "the target * with a method other than OPTIONS")
        return target
    parts = _ABSOLUTE.fullmatch(target)
    if parts is None or parts[1].startswith(b":") or _HOST.fullmatch(parts[1]) is None:
        raise Refusal(400, "a request target in none of the forms of RFC 9112 section 3.2")
    for index, (name, _) in enumerate(headers):
        if name == b"host":
            headers[index] = (name, parts[1])
            break
    else:
        headers.insert(0, (b"host", parts[1]))
    rest = parts[2]
    if not rest and method == "OPTIONS":
        return b"*"
    return rest if rest.startswith(b"/") else b"/" + rest
