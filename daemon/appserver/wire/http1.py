"""HTTP/1.1 but for the parsing of heads: what all HTTP/1.1 engines have in common.

An engine is this class with a `read_head()` of its own, and that is all in which engines differ: when a head is
whole, what a request means, where a body ends, whether the connection lives on, and every byte that is written is
decided here, once. What a response's head says is `wire.http1_response`.

    IDLE ──head──▶ BODY ──last byte──▶ SERVED ──response ended──▶ IDLE
      │              └─response ended first──▶ DISCARD ──last byte──▶ IDLE
      ├── bad input, here or in BODY ──▶ REFUSED (only the answer is still written)
      ├── a WebSocket asked for and given ──▶ TUNNEL (bytes pass as they are)
      └── HTTP/2 is spoken, or asked for ──▶ SWITCHED (another engine goes on)
"""

from abc import ABC, abstractmethod
from typing import ClassVar, Final

from appserver.wire.chunked import ChunkedBody
from appserver.wire.engine import Body, Closed, Event, Head, Headers, Limits, Refused, Switch
from appserver.wire.http1_response import (
    CHUNKS,
    CLOSE,
    LENGTH,
    NO_BODY,
    UNKNOWN,
    make_interim,
    make_last_chunk,
    write_head,
)
from appserver.wire.http1_switch import PREFACE_HEAD, SWITCHING, asks_for_websocket, read_settings
from appserver.wire.memory import MISSES, PAUSE, HeadMemory
from appserver.wire.semantics import CHUNKED, Preface, Refusal, Request, check_partial_head

# What is still read and thrown away of a body that the application did not want, so that the connection can be kept.
# More than that costs more than a new connection.
DISCARD_LIMIT: Final = 64 * 1024

JOIN_LIMIT: Final = 32 * 1024
"""Bytes up to which a piece of body is copied, to be written in one piece with the head before it."""

_CR: Final = ord("\r")


# What the engine waits for. Plain names, because an Enum's members cost an attribute look-up each time.
IDLE: Final = "idle"
BODY: Final = "body"
SERVED: Final = "served"
DISCARD: Final = "discard"
REFUSED: Final = "refused"
SWITCHED: Final = "switched"
TUNNEL: Final = "tunnel"


class Http1Engine(ABC):
    """One HTTP/1.1 connection, server side; with `read_head()` it implements `wire.engine.Engine`."""

    __slots__ = (
        "_chunked",
        "_cut",
        "_discarded",
        "_draining",
        "_eof",
        "_expects",
        "_framing",
        "_http2",
        "_is_head",
        "_is_old",
        "_large",
        "_last",
        "_left",
        "_limits",
        "_memory",
        "_out",
        "_phase",
        "_received",
        "_responding",
        "_seen",
        "_skipped",
        "_stream",
        "_upgrade",
        "_websocket",
        "closing",
        "more",
    )

    name: ClassVar[str]
    version: ClassVar[str] = "1.1"
    multiplexed: ClassVar[bool] = False
    pushes: ClassVar[bool] = False

    def __init__(self, limits: Limits, *, http2: bool = False, upgrade: bool = False, websocket: bool = False) -> None:
        """Begin a connection.

        Args:
            limits: What the peer may send.
            http2: It may begin in HTTP/2.
            upgrade: It may ask for HTTP/2 (`h2c`).
            websocket: It may ask for a WebSocket.
        """
        self._limits = limits
        self._http2, self._upgrade, self._websocket = http2, upgrade, websocket
        self._received = bytearray()
        self._out: list[bytes] = []
        self._phase = IDLE
        self._stream = 0
        # The request
        self._memory: HeadMemory | None = None
        self._chunked: ChunkedBody | None = None
        self._left = 0
        self._discarded = 0
        self._seen = 0  # bytes of a partial head that have been looked at
        self._skipped = False  # the one empty line that may come before a request
        self._expects = False
        self._is_head = False
        self._is_old = False  # the client speaks HTTP/1.0
        # The response
        self._framing = NO_BODY
        self._responding = False
        self._last = False
        self._large = False  # something in `_out` is too large to be copied
        # The connection
        self._eof = self._draining = self._cut = False
        self.closing = self.more = False

    @abstractmethod
    def read_head(self, head: bytes) -> Request:
        """Take a head apart and check it: `semantics.check_request` on what a parser makes of it.

        Args:
            head: All of it, with its blank line, as it came.

        Raises:
            Refusal: It breaks a limit, does not fit the grammar of RFC 9112, or cannot be served.
        """

    # In

    def receive(self, data: bytes) -> list[Event]:
        """See `wire.engine.Engine`."""
        phase = self._phase
        if phase is REFUSED or phase is SWITCHED or self.closing:
            return []
        try:
            if not self._received:
                # What nearly all reads are, without a copy: one whole head and nothing behind it, or a piece of a body.
                if phase is IDLE:
                    if 0 <= data.find(b"\r\n\r\n") == len(data) - 4 and data[0] != _CR:
                        return self._begin(data)
                elif phase is BODY and self._chunked is None and len(data) <= self._left:
                    return self._pass_body(data)
            self._received += data
            if phase is IDLE:
                return self._receive_head()
            if phase is BODY:
                events = self._receive_body()
                return events + self._cut_short() if self._eof else events
            if phase is DISCARD:
                return self._discard_body()
            if phase is TUNNEL:
                return self._pass_on()
        except Preface as preface:
            if self._http2 and not self._stream and not self._skipped:
                return self._switch(PREFACE_HEAD, None, None)
            return self.refuse(preface.status, preface.reason)
        except Refusal as refusal:
            return self.refuse(refusal.status, refusal.reason)
        return []

    def _switch(self, received: bytes, settings: bytes | None, head: Head | None) -> list[Event]:
        received += self._received
        self._received.clear()
        self._phase = SWITCHED
        return [Switch(received, settings, head)]

    def eof(self) -> list[Event]:
        """See `wire.engine.Engine`."""
        self._eof = True
        if self._phase is BODY:
            return self._cut_short()
        if self._phase is IDLE and self._received.find(b"\r\n\r\n") < 0:  # else a whole request waits for its turn
            return self._end_of_input()
        if self._phase is DISCARD:
            self.closing = True
        if self._phase is TUNNEL:
            return [*self._pass_on(), Closed()]
        return [Closed()]

    def _pass_on(self) -> list[Event]:
        """Bytes of a WebSocket."""
        data = bytes(self._received)
        self._received.clear()
        return [Body(self._stream, data, False)] if data else []

    def refuse(self, status: int, reason: str, stream: int = 0) -> list[Event]:  # noqa: ARG002 - there is but one
        """See `wire.engine.Engine`."""
        self._received.clear()
        self.more = False
        if self._phase is DISCARD:
            # Its response is out already; there is nothing left to answer.
            self.closing = True
            return []
        if self._phase is IDLE:
            self._stream += 1
            self._responding = self._is_head = self._is_old = False
        self._phase = REFUSED
        return [Refused(self._stream, status, reason)]

    def consumed(self, stream: int, count: int) -> None:  # noqa: B027 - nothing to do, in no engine
        """Nothing to do: TCP's own window is the credit, and `net.connection` holds it back."""

    def _receive_head(self) -> list[Event]:
        received = self._received
        # One empty line before a request is a client's bug that RFC 9112 section 2.2 wants forgiven.
        if received.startswith(b"\r\n") and not self._skipped:
            self._skipped = True
            del received[:2]
        if not received or received == b"\r":
            return self._end_of_input() if self._eof else []
        end = received.find(b"\r\n\r\n", max(self._seen - 3, 0)) + 4
        if end < 4:
            check_partial_head(received, self._seen, self._limits)
            self._seen = len(received)
            return self._end_of_input() if self._eof else []
        head = bytes(received[:end])
        del received[:end]
        events = self._begin(head)
        if self._phase is BODY and received:
            try:
                events += self._receive_body()
            except Refusal as refusal:
                events += self.refuse(refusal.status, refusal.reason)
        return events + self._cut_short() if self._eof else events

    def _cut_short(self) -> list[Event]:
        """The input has ended: whether inside a body."""
        if self._phase is not BODY or self.more:
            return []
        return self.refuse(400, "the connection ended inside a body")

    def _begin(self, head: bytes) -> list[Event]:
        memory, request = self._memory, None
        if memory is None:
            if self._stream:  # many clients ask but once
                memory = self._memory = HeadMemory(self._limits)
        elif memory.misses > MISSES and self._stream % PAUSE:
            memory = None
        else:
            request = memory.recall(head)
        if request is None:
            request = self.read_head(head)
            if memory is not None:
                memory.keep(head, request)
        method, target, headers, version, length, expects, last, upgrade = request
        self._skipped = False
        self._seen = 0
        self._stream += 1
        self._expects = expects
        self._is_head = method == "HEAD"
        self._is_old = version == "1.0"
        self._last = last
        self._responding = False
        whole = length == 0
        if whole:
            self._phase = SERVED
        else:
            self._phase = BODY
            self._chunked = ChunkedBody(self._limits) if length == CHUNKED else None
            self._left = length
        websocket = upgrade and self._websocket and method == "GET" and version == "1.1" and asks_for_websocket(headers)
        # Head(…) would go through a function in Python: 0.1 us more.
        kept = memory is not None and memory.headers is headers
        event = tuple.__new__(Head, (self._stream, method, target, headers, version, whole, expects, websocket, kept))
        if websocket or not upgrade:
            return [event]
        if whole and self._upgrade and version == "1.1" and self._stream == 1 and not self._draining:
            settings = read_settings(headers)
            if settings is not None:
                self._out.append(SWITCHING)
                return self._switch(b"", settings, event)
        return [event]

    def _end_of_input(self) -> list[Event]:
        if self._received:
            return self.refuse(400, "the connection ended inside a head")
        self.closing = True
        return [Closed()]

    def _receive_body(self) -> list[Event]:
        received = self._received
        if self._chunked is None:
            data = bytes(received[: self._left])
            del received[: len(data)]
            return self._pass_body(data)
        data = self._chunked.take(received)
        self.more = self._chunked.more
        if not data and not self._chunked.ended:
            return []
        return self._body_event(data, self._chunked.ended)

    def _pass_body(self, data: bytes) -> list[Event]:
        if not data:
            return []
        self._left -= len(data)
        return self._body_event(data, self._left == 0)

    def _body_event(self, data: bytes, end: bool) -> list[Event]:
        self._expects = False  # it came without being asked for: RFC 9110 section 10.1.1 lets us omit the 100
        if end:
            self._phase = SERVED
        return [Body(self._stream, data, end)]

    def _discard_body(self) -> list[Event]:
        before = len(self._received)
        self._receive_body()
        self._discarded += before - len(self._received)
        if self._phase is SERVED:
            self._finish()
            return [] if self.closing else self._receive_head()
        if self._discarded > DISCARD_LIMIT or (self._eof and not self.more):
            self.closing = True
        return []

    # Out

    def inform(self, stream: int, status: int, headers: Headers) -> None:
        """See `wire.engine.Engine`."""
        if stream != self._stream or self._responding or self._is_old:
            return  # RFC 9110 section 15.2: an HTTP/1.0 client gets no 1xx
        if status == 100:
            if not self._expects:
                return
            self._expects = False
        self._out.append(make_interim(status, headers))

    def accept(self, stream: int, headers: Headers) -> None:
        """See `wire.engine.Engine`: from here on bytes pass as they are, and the connection ends with them."""
        if stream != self._stream or self._phase is not SERVED:
            return
        self._out.append(make_interim(101, headers))
        self._phase, self._framing = TUNNEL, CLOSE
        self._responding = self._last = True

    def respond(self, stream: int, status: int, headers: Headers, body: bytes, end: bool) -> None:
        """See `wire.engine.Engine`."""
        if stream != self._stream or self.closing:
            return  # nothing more is answered; a refusal that came with a request whose response is out already
        last = (
            self._last
            # A client that waits for 100 may send its body or not: only closing makes the next bytes unambiguous.
            or self._expects
            or self._is_old
            # The last answer says so; what is pipelined behind this one was sent in good faith and is still answered.
            or ((self._draining or self._eof) and not self._received)
            # Behind a body that is refused, or that nobody reads to its end, no further request is found.
            or (self._phase is not SERVED and (self._phase is REFUSED or (end and self._left > DISCARD_LIMIT)))
        )
        size = len(body) if end else UNKNOWN
        out = self._out
        self._framing, self._last = write_head(out, status, headers, size, self._is_head, self._is_old, last)
        if end and self._framing is LENGTH and size <= JOIN_LIMIT:
            out.append(body)  # what most answers are; the same as below, without the calls
            self._finish()
        else:
            self._responding = True
            self.body(stream, body, end)

    def body(self, stream: int, data: bytes, end: bool) -> None:
        """See `wire.engine.Engine`."""
        if stream != self._stream or not self._responding:
            return
        if data and self._framing is not NO_BODY:
            if len(data) > JOIN_LIMIT:
                self._append_large(data)
            elif self._framing is CHUNKS:
                self._out += (b"%x\r\n" % len(data), data, b"\r\n")
            else:
                self._out.append(data)
        if end:
            if self._framing is CHUNKS:
                self._out.append(b"0\r\n\r\n")
            self._finish()

    def _append_large(self, data: bytes) -> None:
        chunks = self._framing is CHUNKS
        if chunks:
            self._out.append(b"%x\r\n" % len(data))
        if not self._large:
            self._out = [b"".join(self._out)]
            self._large = True
        self._out.append(data)
        if chunks:
            self._out.append(b"\r\n")

    def trailers(self, stream: int, headers: Headers) -> None:
        """See `wire.engine.Engine`; only a chunked response has a place for them."""
        if stream != self._stream or not self._responding:
            return
        if self._framing is CHUNKS:
            self._out.append(make_last_chunk(headers))
        self._finish()

    def _finish(self) -> None:
        """The response has ended; or the body behind it has, which was thrown away."""
        self._responding = False
        if self._last:
            self.closing = True
        elif self._phase is BODY:
            self._phase = DISCARD
            self._discarded = 0
        else:
            self._phase = IDLE
            self._chunked = None
            if self._eof and not self._received:
                self.closing = True

    def reset(self, stream: int, code: int) -> None:  # noqa: ARG002 - HTTP/1.1 has no error codes
        """See `wire.engine.Engine`: the missing end of the body shows the cut."""
        if stream == self._stream:
            self._cut = True
            self.closing = True

    def drain(self) -> None:
        """See `wire.engine.Engine`."""
        self._draining = True

    def take(self) -> list[bytes]:
        """See `wire.engine.Engine`."""
        out = self._out
        self._out = []
        if len(out) < 2 or self._large:
            self._large = False
            return out
        return [b"".join(out)]

    # Facts

    @property
    def seen(self) -> int:
        """See `wire.engine.Engine`."""
        return self._stream

    def queued(self, stream: int) -> int:  # noqa: ARG002
        """See `wire.engine.Engine`: the transport has it all."""
        return 0

    def waiting(self) -> dict[int, int]:
        """See `wire.engine.Engine`."""
        return {}

    def push(self, stream: int, path: bytes, headers: Headers) -> Head | None:  # noqa: ARG002
        """See `wire.engine.Engine`: there is no such thing."""
        return None

    def raw(self, stream: int) -> bool:
        """See `wire.engine.Engine`: all framing but chunks is none, once the head is written."""
        return stream == self._stream and self._responding and self._framing in (LENGTH, CLOSE)

    @property
    def idle(self) -> bool:
        """See `wire.engine.Engine`."""
        return self._phase is IDLE and not self._received

    @property
    def pending(self) -> int:
        """See `wire.engine.Engine`."""
        if self._phase is DISCARD and not self.more:
            return 0  # part of a chunk's line, with which nothing can be done before the rest has come
        return len(self._received)

    @property
    def abrupt(self) -> bool:
        """See `wire.engine.Engine`."""
        return self._cut and self._framing is CLOSE
