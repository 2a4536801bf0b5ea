"""HTTP/1.1 with heads parsed by h11: the reference engine, always there.

A fresh `h11.Connection` a head costs 0.7 us; keeping one in step with the responses, by sending these through it too,
costs 18 us a request (docs/adr/0003).
"""

from typing import ClassVar

import h11

from appserver.wire.engine import Limits
from appserver.wire.http1 import Http1Engine
from appserver.wire.semantics import Refusal, Request, check_head, check_request

_UNLIMITED = 1 << 30  # the limits have been enforced before h11 sees the head


class H11Engine(Http1Engine):
    """One HTTP/1.1 connection, server side; implements `wire.engine.Engine`."""

    __slots__ = ()

    name: ClassVar[str] = "h11"

    def read_head(self, head: bytes) -> Request:
        """See `Http1Engine`."""
        return read_head(head, self._limits)


def read_head(head: bytes, limits: Limits) -> Request:
    """Take a head apart and check it: see `Http1Engine.read_head`."""
    check_head(head, limits)
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_UNLIMITED)
    connection.receive_data(head)
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError as error:
        # What h11 says before the colon; behind it stands the line itself, whole.
        raise Refusal(error.error_status_hint, str(error).partition(":")[0]) from error
    if not isinstance(event, h11.Request):
        raise Refusal(400, "no request line")
    return check_request(event.method, event.target, list(event.headers), event.http_version, limits)
