"""Plain heads are read by a fast engine itself; what it leaves, and all that it would refuse, the reference judges.

So all engines give the same answer for the same bytes, whatever their parser takes or does not (docs/adr/0014).
"""

from appserver.wire.engine import Limits
from appserver.wire.http1 import Http1Engine
from appserver.wire.semantics import Request


class ReferringEngine(Http1Engine):
    """An engine that reads plain heads itself, and leaves all others, and all refusals, to the reference engine."""

    __slots__ = ("_plain_length",)

    def __init__(self, limits: Limits, *, http2: bool = False, upgrade: bool = False, websocket: bool = False) -> None:
        super().__init__(limits, http2=http2, upgrade=upgrade, websocket=websocket)
        # A head that is no longer than any of its parts may be breaks none of these limits.
        self._plain_length = min(limits.request_line, limits.field, limits.head)

    def _refer(self, head: bytes) -> Request:
        # Not at the top: it takes 6 ms of the start, and few processes ever need it. `select.warm` sees to it later.
        from appserver.wire.http1_h11 import read_head  # noqa: PLC0415

        return read_head(head, self._limits)
