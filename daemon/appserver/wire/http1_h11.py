"""HTTP/1.1 on h11: the reference engine, always there.

h11 parses the head and the body and writes the response; it sees nothing that `semantics` and `chunked` have not
checked, and never a byte behind the message that is being read. What is behind waits here, in `_received`.

    IDLE ──head──▶ BODY ──last byte──▶ SERVED ──response ended──▶ IDLE
      │              │ └─response ended first──▶ DISCARD ──last byte──▶ IDLE
      └──────────────┴── bad input ──▶ REFUSED (only the answer is still written)
"""

from enum import Enum, auto
from http import HTTPStatus
from typing import Final

import h11

from appserver.wire.chunked import ChunkedFraming
from appserver.wire.engine import Body, Closed, Event, Head, Headers, Limits, Refused
from appserver.wire.semantics import CHUNKED, Refusal, check_head, check_partial_head, check_request

# What is still read and thrown away of a body that the application did not want, so that the connection can be kept.
# More than that costs more than a new connection.
DISCARD_LIMIT: Final = 64 * 1024

_PHRASES: Final = {status.value: status.phrase.encode("ascii") for status in HTTPStatus}
_UNBOUNDED: Final = 1 << 62  # HTTP/1.1 has no window of its own: the transport's buffer is the only limit
_CLOSE: Final = (b"connection", b"close")


class Phase(Enum):
    """What the engine waits for."""

    IDLE = auto()
    BODY = auto()
    SERVED = auto()
    DISCARD = auto()
    REFUSED = auto()


class H11Engine:
    """One HTTP/1.1 connection, server side; implements `wire.engine.Engine`."""

    name = "h11"
    version = "1.1"

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._h11 = self._connection()
        self._received = bytearray()
        self._out: list[bytes] = []
        self._phase = Phase.IDLE
        self._framing: ChunkedFraming | None = None
        self._left = 0
        self._discarded = 0
        self._stream = 0
        self._expects = self._responding = self._eof = self._draining = self._reset = self._skipped = False
        self._old = False  # the client speaks HTTP/1.0
        self._headers: Headers = []
        self.closing = False

    def _connection(self) -> h11.Connection:
        # The head goes in whole and checked, so h11's own limit only has to be out of the way.
        return h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.head + 4096)

    # In

    def receive(self, data: bytes) -> list[Event]:
        """See `wire.engine.Engine`."""
        if self._phase is Phase.REFUSED or self.closing:
            return []
        self._received += data
        try:
            if self._phase is Phase.IDLE:
                return self._receive_head()
            if self._phase is Phase.BODY:
                return self._receive_body()
            if self._phase is Phase.DISCARD:
                return self._receive_discarded()
        except Refusal as refusal:
            return self.refuse(refusal.status, refusal.reason)
        except h11.RemoteProtocolError as error:
            return self.refuse(error.error_status_hint, str(error))
        return []

    def eof(self) -> list[Event]:
        """See `wire.engine.Engine`."""
        self._eof = True
        if self._phase is Phase.BODY:
            return self.refuse(400, "the connection ended inside a body")
        if self._phase is Phase.IDLE:
            return self._end_of_input()
        if self._phase is Phase.DISCARD:
            self.closing = True
        return [Closed()]

    def consumed(self, stream: int, count: int) -> None:
        """Nothing to do: TCP's own window is the credit, and `net.flow` holds it back."""

    def _receive_head(self) -> list[Event]:
        received = self._received
        # One empty line before a request is a client's bug that RFC 9112 section 2.2 wants forgiven.
        if not self._skipped and received.startswith(b"\r\n"):
            self._skipped = True
            del received[:2]
        if not received or received == b"\r":
            return self._end_of_input() if self._eof else []
        end = received.find(b"\r\n\r\n")
        if end < 0:
            check_partial_head(received, self._limits)
            return self._end_of_input() if self._eof else []
        self._skipped = False
        head = bytes(received[: end + 4])
        del received[: end + 4]
        check_head(head, self._limits)
        self._h11.receive_data(head)
        event = self._h11.next_event()
        if not isinstance(event, h11.Request):
            raise Refusal(400, "no request line")
        request = check_request(event.method, event.target, list(event.headers), event.http_version, self._limits)
        self._stream += 1
        self._expects = request.expects
        self._responding = False
        self._old = request.version == "1.0"
        end_of_message = request.length == 0
        if end_of_message:
            self._h11.next_event()
            self._phase = Phase.SERVED
        else:
            self._framing = ChunkedFraming(self._limits) if request.length == CHUNKED else None
            self._left = request.length
            self._phase = Phase.BODY
        events: list[Event] = [
            Head(
                self._stream,
                request.method,
                request.target,
                request.headers,
                request.version,
                end_of_message,
                request.expects,
            )
        ]
        if not end_of_message and received:
            try:
                events += self._receive_body()
            except Refusal as refusal:
                events += self.refuse(refusal.status, refusal.reason)
        return events

    def _end_of_input(self) -> list[Event]:
        if self._received:
            return self.refuse(400, "the connection ended inside a head")
        self.closing = True
        return [Closed()]

    def _checked(self) -> bytes:
        """Take the bytes of the present body out of what was received, checked."""
        received = self._received
        if self._framing is not None:
            return self._framing.follow(received)
        data = bytes(received[: self._left])
        del received[: len(data)]
        self._left -= len(data)
        return data

    def _receive_body(self) -> list[Event]:
        data = self._checked()
        if not data:
            return []
        self._expects = False  # it came without being asked for: RFC 9110 section 10.1.1 lets us omit the 100
        pieces: list[bytes] = []
        ended = False
        self._h11.receive_data(data)
        while True:
            event = self._h11.next_event()
            if isinstance(event, h11.Data):
                pieces.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                ended = True
                break
            else:
                break
        if ended:
            self._phase = Phase.SERVED
        if not pieces and not ended:
            return []
        return [Body(self._stream, pieces[0] if len(pieces) == 1 else b"".join(pieces), ended)]

    def _receive_discarded(self) -> list[Event]:
        self._discarded += len(self._received)
        for event in self._receive_body():
            if isinstance(event, Body) and event.end:
                self._next()
                return [] if self.closing else self._receive_head()
        if self._discarded > DISCARD_LIMIT:
            self.closing = True
        return []

    def refuse(self, status: int, reason: str) -> list[Event]:
        """See `wire.engine.Engine`."""
        self._received.clear()
        if self._phase is Phase.DISCARD:
            # Its response is out already; there is nothing left to answer.
            self.closing = True
            return []
        if self._phase is Phase.IDLE:
            # No request of this stream has reached h11, or only in part: the answer starts afresh.
            self._stream += 1
            self._h11 = self._connection()
            self._responding = False
        self._phase = Phase.REFUSED
        return [Refused(self._stream, status, reason)]

    # Out

    def inform(self, stream: int, status: int, headers: Headers) -> None:
        """See `wire.engine.Engine`."""
        if stream != self._stream or self._responding or self._old:
            return  # RFC 9110 section 15.2: an HTTP/1.0 client gets no 1xx
        if status == 100:
            if not self._expects:
                return
            self._expects = False
        self._send(h11.InformationalResponse(status_code=status, headers=headers, reason=_PHRASES.get(status, b"")))

    def respond(self, stream: int, status: int, headers: Headers, body: bytes, end: bool) -> None:
        """See `wire.engine.Engine`."""
        if stream != self._stream:
            return
        self._responding = True
        # The last answer says so; what is pipelined behind this one was sent in good faith and is still answered. A
        # client that waits for 100 may send its body or not: only closing makes the next bytes unambiguous.
        last = (self._draining or self._eof) and not self._received
        if last or self._expects or self._phase is Phase.REFUSED:
            headers = [field for field in headers if field[0] != b"connection"]
            headers.append(_CLOSE)
        if status == 204:  # RFC 9110 section 8.6
            headers = [field for field in headers if field[0] != b"content-length"]
        self._headers = headers
        self._send(h11.Response(status_code=status, headers=headers, reason=_PHRASES.get(status, b"")))
        self.body(stream, body, end)

    def body(self, stream: int, data: bytes, end: bool) -> None:
        """See `wire.engine.Engine`."""
        if stream != self._stream or not self._responding:
            return
        if data:
            self._send(h11.Data(data=data))
        if end:
            self._finish([])

    def trailers(self, stream: int, headers: Headers) -> None:
        """See `wire.engine.Engine`; only a chunked response has a place for them."""
        if stream == self._stream and self._responding:
            chunked = not self._old and all(name != b"content-length" for name, _ in self._headers)
            self._finish(headers if chunked else [])

    def _send(self, event: h11.Event) -> None:
        data = self._h11.send(event)
        if data:
            self._out.append(data)

    def _finish(self, trailers: Headers) -> None:
        self._send(h11.EndOfMessage(headers=trailers))
        self._responding = False
        if self._phase is Phase.REFUSED or self._h11.our_state is h11.MUST_CLOSE:
            self.closing = True
        elif self._phase is Phase.BODY:
            self._phase = Phase.DISCARD
            self._discarded = 0
        else:
            self._next()

    def _next(self) -> None:
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
            self._phase = Phase.IDLE
            self._framing = None
            if self._eof and not self._received:
                self.closing = True
        else:
            self.closing = True

    def reset(self, stream: int, code: int) -> None:  # noqa: ARG002 - HTTP/1.1 has no error codes
        """See `wire.engine.Engine`: the missing end of the body shows the cut."""
        if stream == self._stream:
            self._reset = True
            self.closing = True

    def drain(self) -> None:
        """See `wire.engine.Engine`."""
        self._draining = True

    def take(self) -> bytes:
        """See `wire.engine.Engine`."""
        out = self._out
        if len(out) == 1:
            return out.pop()
        data = b"".join(out)
        out.clear()
        return data

    # Facts

    def window(self, stream: int) -> int:
        """See `wire.engine.Engine`."""
        return _UNBOUNDED if stream == self._stream else 0

    @property
    def idle(self) -> bool:
        """See `wire.engine.Engine`."""
        return self._phase is Phase.IDLE and not self._received

    @property
    def pending(self) -> int:
        """See `wire.engine.Engine`."""
        return len(self._received)

    @property
    def abrupt(self) -> bool:
        """See `wire.engine.Engine`."""
        return self._reset and self._old
