"""HTTP/1.1 with heads parsed by gunicorn_h1c, a C module around picohttpparser.

Its yes is believed only for a plain head: lines that end in CRLF, single spaces in the request line, a target in
ASCII, within the limits. Whatever else comes, and all that it refuses, the reference engine judges: so all give the
same answer for the same bytes, and a bad head costs h11's 17 us once, because its connection ends (docs/adr/0014).
"""

from typing import ClassVar, Final

from gunicorn_h1c import parse_request_fast

from appserver.wire.http1_referral import ReferringEngine
from appserver.wire.semantics import Refusal, Request, check_request

_UNLIMITED: Final = 1 << 30  # our own limits are enforced here; of more than 256 fields it refuses the head anyway

# SP, SP and `HTTP/1.x`: what stands in a request line besides method and target.
_REST_OF_LINE: Final = 10


class H1cEngine(ReferringEngine):
    """One HTTP/1.1 connection, server side; implements `wire.engine.Engine`."""

    __slots__ = ()

    name: ClassVar[str] = "h1c"

    def read_head(self, head: bytes) -> Request:
        """See `Http1Engine`."""
        size = len(head)
        if size <= self._plain_length:
            try:
                request = parse_request_fast(head, 0, _UNLIMITED, _UNLIMITED, _UNLIMITED, True)
            except Exception:  # noqa: BLE001 - it has two classes named ParseError, and more; h11 judges what is wrong
                return self._refer(head)
            method, target, headers = request.method, request.path, request.asgi_headers
            try:
                if (
                    # It takes a bare LF for a line end too, and two of them for the head's end, but a CR nowhere else:
                    # so the CRs count the CRLFs, as long as it has seen all of them.
                    request.consumed == size
                    and head.count(b"\r") == len(headers) + 2
                    and len(headers) <= self._limits.fields
                    # It takes several spaces for one.
                    and head.find(b"\r") == len(method) + len(target) + _REST_OF_LINE
                    and target.isascii()
                ):
                    version = b"1.1" if request.minor_version else b"1.0"
                    return check_request(method, target, headers, version, self._limits)
            except Refusal:
                pass  # named by the reference, whose order of checks is the one
        return self._refer(head)


def _try() -> None:
    """Parse a head, because versions before 0.6.5 cannot: all heads would be h11's, and nobody would be told.

    Raises:
        ImportError: The library is not what this module needs.
    """
    try:
        request = parse_request_fast(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0, _UNLIMITED, _UNLIMITED, _UNLIMITED, True)
        works = (request.method, request.path, request.asgi_headers) == (b"GET", b"/", [(b"host", b"a")])
    except Exception:  # noqa: BLE001 - whatever it raises
        works = False
    if not works:
        raise ImportError("gunicorn_h1c is older than 0.6.5")


_try()
