"""HTTP/1.1 with heads parsed by gunicorn_h1c, a C module around picohttpparser.

Its yes is believed only for a plain head: lines that end in CRLF, single spaces in the request line, a target in
ASCII, within the limits. Whatever else comes, and all that it refuses, the reference engine decides: so both give the
same answer for the same bytes, and a bad head costs h11's 12 us once, because its connection ends
(docs/adr/0014).
"""

from typing import ClassVar, Final

from gunicorn_h1c import parse_request_fast

from appserver.wire.engine import Limits
from appserver.wire.http1 import Http1Engine, Parsed

_UNLIMITED: Final = 1 << 30  # our own limits are enforced here; of more than 256 fields it refuses the head anyway

# SP, SP and `HTTP/1.x`: what stands in a request line besides method and target.
_REST_OF_LINE: Final = 10


class H1cEngine(Http1Engine):
    """One HTTP/1.1 connection, server side; implements `wire.engine.Engine`."""

    __slots__ = ("_plain_length",)

    name: ClassVar[str] = "h1c"

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        # A head that is shorter than any of its parts may be breaks none of these limits.
        self._plain_length = min(limits.request_line, limits.field, limits.head)

    def parse_head(self, head: bytes) -> Parsed:
        """See `Http1Engine`."""
        if len(head) <= self._plain_length:
            try:
                request = parse_request_fast(head, 0, _UNLIMITED, _UNLIMITED, _UNLIMITED, True)
            except Exception:  # noqa: BLE001 - it has two classes named ParseError, and more; the verdict is h11's anyway
                return self._refer(head)
            method, target, headers = request.method, request.path, request.asgi_headers
            if (
                # It takes a bare LF for a line end too, but a CR nowhere else: so the CRs count the CRLFs.
                head.count(b"\r") == len(headers) + 2
                and len(headers) <= self._limits.fields
                # It takes several spaces for one.
                and head.find(b"\r") == len(method) + len(target) + _REST_OF_LINE
                and target.isascii()
            ):
                return method, target, headers, b"1.1" if request.minor_version else b"1.0"
        return self._refer(head)

    def _refer(self, head: bytes) -> Parsed:
        # Not at the top: it takes 6 ms of the start, and few processes ever need it. `select.warm` sees to it later.
        from appserver.wire.http1_h11 import parse_head  # noqa: PLC0415

        return parse_head(head, self._limits)
