"""HTTP/2 but for the frames: what both HTTP/2 engines have in common.

A library behind each engine keeps the protocol's state: HPACK, windows, the states of streams. What a request means
and what is refused (`http2_requests`), which frames may come (`http2_gate`), and here how a connection takes its leave
and what becomes of a response is decided once, for all engines.

    OPEN ──drain()──▶ NOTICED ──PING answered──▶ LEAVING ──last stream gone──▶ closing
      └── the peer breaks the protocol, or floods ──GOAWAY──▶ closing

Leaving takes two steps (RFC 9113 section 6.8): the first GOAWAY names no last stream, so that requests which are under
way are still taken; a PING tells when the peer has seen it; the second GOAWAY names the last one that is served.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar, Final

from appserver.wire.engine import Body, Broken, Closed, Event, Head, Headers, Limits, Refused, Reset
from appserver.wire.http2_frames import (
    CANCEL,
    ENHANCE_YOUR_CALM,
    INTERNAL_ERROR,
    NO_ERROR,
    PROTOCOL_ERROR,
    Violation,
)
from appserver.wire.http2_head import CONNECTION_SPECIFIC
from appserver.wire.http2_requests import LEAVING, NOTICED, OPEN, Requests, Stream

TAKE_SIZE: Final = 64 * 1024
"""Bytes that `take()` gives at once: what the transport does not hold yet can still be overtaken by urgent streams."""

STREAM_WINDOW: Final = 256 * 1024
"""Bytes of a body that a peer may send before the application has read them."""

CONNECTION_WINDOW: Final = 1024 * 1024
"""The same for all streams of a connection: what uploads to an application that does not read can hold."""

ANY_STREAMS: Final = 0x7FFFFFF0
"""What a library is told in the place of our limit: over that it would end the connection, and not the stream."""

LEAVE_PING: Final = b"leaving\0"


_STATUS: Final = {status: (b":status", b"%d" % status) for status in range(100, 600)}


class Http2Engine(Requests):
    """One HTTP/2 connection, server side; with a library behind the methods below it is a `wire.engine.Engine`."""

    __slots__ = (
        "_begun",
        "_eof",
        "_mute",
        "_peer_left",
        "_pieces",
        "closing",
    )

    name: ClassVar[str]
    version: ClassVar[str] = "2"
    multiplexed: ClassVar[bool] = True
    abrupt: ClassVar[bool] = False

    def __init__(self, limits: Limits, clock: Callable[[], float], *, websocket: bool = False) -> None:
        super().__init__(limits, clock, websocket=websocket)
        self._mute: list[int] = []  # answered before their request had ended
        self._pieces = 0  # of bodies, that were given since something was last written
        self._begun = self._peer_left = self._eof = False
        self.closing = False

    # What a library does

    @abstractmethod
    def begin(self) -> None:
        """Write the server's preface: SETTINGS, and the connection's window."""

    @abstractmethod
    def upgrade(self, settings: bytes, head: Head) -> list[Event]:
        """Begin with the request of an HTTP/1.1 connection as stream 1 (RFC 7540 section 3.2).

        Args:
            settings: The client's HTTP2-Settings, decoded.
            head: The request; it has no body.
        """

    @abstractmethod
    def write_head(self, stream: int, fields: Headers, end: bool) -> None:
        """Begin the final response."""

    @abstractmethod
    def write_body(self, stream: int, data: bytes, end: bool) -> None:
        """Queue bytes of the response's body."""

    @abstractmethod
    def write_interim(self, stream: int, fields: Headers) -> None:
        """Write a 1xx response."""

    @abstractmethod
    def write_trailers(self, stream: int, fields: Headers) -> None:
        """End the response behind what is queued of its body."""

    @abstractmethod
    def write_promise(self, stream: int, fields: Headers) -> int | None:
        """Promise an answer; the number of its stream, or None."""

    @abstractmethod
    def write_goaway(self, code: int, *, final: bool) -> None:
        """Write GOAWAY; not `final`: without a last stream, and a PING behind it."""

    @abstractmethod
    def break_off(self, code: int) -> None:
        """Write GOAWAY and nothing behind it."""

    @abstractmethod
    def drive(self) -> bytes:
        """Up to `TAKE_SIZE` bytes to write; calls `gone()` for streams that are over."""

    def write_out(self) -> None:
        """See `FrameGate`."""
        if len(self.own) < TAKE_SIZE:  # more is not made for a peer that does not read
            self.own += self.drive()

    @property
    def seen(self) -> int:
        """See `wire.engine.Engine`: clients begin streams of odd numbers (RFC 9113 section 5.1.1)."""
        return (self.last + 1) // 2

    @abstractmethod
    def queued(self, stream: int) -> int:
        """See `wire.engine.Engine`."""

    # In

    def receive(self, data: bytes) -> list[Event]:
        """See `wire.engine.Engine`."""
        events = self.news()
        if self.closing or not (data or self.more):
            return events
        if not self._begun:
            self._start()
        try:
            self.sift(data, events)
        except Violation as violation:
            events += self.fail(violation.code, violation.reason)
        return events

    def _start(self) -> None:
        self._begun = True
        self.begin()

    def news(self) -> list[Event]:
        """What was found while writing."""
        events, self._late = self._late, []
        return events

    @property
    def limit(self) -> int:
        """Requests that the peer may have open at once."""
        return self._limits.streams

    def eof(self) -> list[Event]:
        """See `wire.engine.Engine`."""
        self._peer_left = self._eof = True
        events = self.receive(b"")
        while self.more and not self.closing:
            events += self.receive(b"")
        for number, stream in list(self._streams.items()):
            if stream.open and not stream.muted:
                # No end of its body will come; the answer may still be read.
                stream.muted = True
                if stream.tunnel:
                    events.append(Body(number, b"", True))
                else:
                    events.append(Refused(number, 400, "the connection ended inside a body"))
        if not self._streams:
            self.closing = True
        events.append(Closed())
        return events

    def refuse(self, status: int, reason: str, stream: int = 0) -> list[Event]:
        """See `wire.engine.Engine`."""
        if not stream:
            return self.fail(ENHANCE_YOUR_CALM if status == 408 else PROTOCOL_ERROR, reason)
        found = self._streams.get(stream)
        if found is None:
            return []
        found.muted = True
        self._return_credit(stream, found)
        return [Refused(stream, status, reason)]

    def peer_leaves(self, events: list[Event]) -> None:
        """The peer begins no more streams (GOAWAY), once it has got what it asked for before."""
        self._peer_left = True
        events.append(Closed())

    def pong(self, payload: bytes) -> None:
        """The peer has answered a PING."""
        if self.state is NOTICED and payload == LEAVE_PING:
            self.state = LEAVING
            self.write_goaway(NO_ERROR, final=True)

    def fail(self, code: int, reason: str) -> list[Event]:
        """End the connection with an error (RFC 9113 section 5.4.1)."""
        self._streams.clear()
        self._mute.clear()
        if self.prefaced:  # else it is not HTTP/2, and GOAWAY would say nothing (section 3.4)
            self.break_off(code)
        self.closing = True
        return [Broken(code, reason)]

    # Out

    def inform(self, stream: int, status: int, headers: Headers) -> None:
        """See `wire.engine.Engine`."""
        found = self._streams.get(stream)
        if found is None or found.responded or not stream % 2:  # of a promised answer h2 announces nothing
            return
        if status == 100:
            if not found.expects:
                return
            found.expects = False
        self.write_interim(stream, [(b":status", b"%d" % status), *headers])

    def accept(self, stream: int, headers: Headers) -> None:
        """See `wire.engine.Engine`: RFC 8441 section 5."""
        found = self._streams.get(stream)
        if found is None or found.responded:
            return
        found.responded = True
        self.write_head(stream, [_STATUS[200], *headers], False)

    def respond(self, stream: int, status: int, headers: Headers, body: bytes, end: bool) -> None:
        """See `wire.engine.Engine`."""
        found = self._streams.get(stream)
        if found is None or found.responded:
            return
        found.responded = True
        fields = [_STATUS.get(status) or (b":status", b"%d" % status)]
        fields += [field for field in headers if field[0] not in CONNECTION_SPECIFIC]
        if found.bodiless or status in (204, 304):
            found.bodiless = True
            body = b""
            if status == 204:  # RFC 9110 section 8.6
                fields = [field for field in fields if field[0] != b"content-length"]
        # What has no body ends with its head, also where the application is slow to say so: an empty DATA frame behind
        # a 304 with its Content-Length is an error to clients that use h2.
        if not body and (end or (found.bodiless and not found.open)):
            self.write_head(stream, fields, True)
            self._ended(stream, found)
        else:
            self.write_head(stream, fields, False)
            if body:
                self.write_body(stream, body, end)
                self._pieces += 1
                found.given = len(body)
                if end:
                    self._ended(stream, found)

    def body(self, stream: int, data: bytes, end: bool) -> None:
        """See `wire.engine.Engine`."""
        found = self._streams.get(stream)
        if found is None or not found.responded or found.ended:
            return
        if found.bodiless:
            data = b""
        found.given += len(data)
        if data or end:
            self.write_body(stream, data, end)
            self._pieces += 1
        if end:
            self._ended(stream, found)

    def trailers(self, stream: int, headers: Headers) -> None:
        """See `wire.engine.Engine`."""
        found = self._streams.get(stream)
        if found is None or not found.responded or found.ended:
            return
        self.write_trailers(stream, headers)
        self._ended(stream, found)

    def _ended(self, number: int, stream: Stream) -> None:
        stream.ended = True
        if stream.open:
            stream.muted = True
            self._return_credit(number, stream)
            self._mute.append(number)

    def reset(self, stream: int, code: int) -> None:
        """See `wire.engine.Engine`."""
        found = self._streams.pop(stream, None)
        if found is not None:
            self._return_credit(stream, found)
            self.forget(stream)
            self.write_reset(stream, code or INTERNAL_ERROR)

    def push(self, stream: int, path: bytes, headers: Headers) -> Head | None:
        """See `wire.engine.Engine`."""
        found = self._streams.get(stream)
        if found is None or found.ended or not self.pushes or not stream % 2 or self.state is not OPEN:
            return None
        fields = [field for field in headers if field[0] not in CONNECTION_SPECIFIC and field[0] != b"host"]
        host = next((value for name, value in headers if name == b"host"), b"")
        line = [(b":method", b"GET"), (b":scheme", self._heads.scheme), (b":authority", host), (b":path", path)]
        # Without this both libraries would break RFC 9113 section 5.1.2.
        if sum(not number % 2 for number in self._streams) >= self.streams_limit or len(self.own) >= TAKE_SIZE:
            return None
        promised = self.write_promise(stream, line + fields)
        if promised is None:
            return None
        # At once: with ngh2 a promise that is not written goes with its request, when the peer gives that up.
        try:
            self.write_out()
        except Violation as violation:
            self._late += self.fail(violation.code, violation.reason)
            return None
        self.promised = promised
        self._streams[promised] = Stream(False, False, False)
        return Head(promised, "GET", path, [(b"host", host), *fields], "2", True, False)

    def drain(self) -> None:
        """See `wire.engine.Engine`."""
        if self.state is OPEN and not self.closing:
            self.state = NOTICED
            if not self._begun:
                self._start()
            self.write_goaway(NO_ERROR, final=False)

    def take(self) -> list[bytes]:
        """See `wire.engine.Engine`."""
        if not self._begun:
            self._start()
        data, self.own = self.own, b""
        try:
            data += self.drive()
            # Not before all has left that may leave: the end of such an answer could be behind it.
            if self._mute and len(data) < TAKE_SIZE:
                self._end_mute()
                data += self.drive()
        except Violation as violation:  # what is written for the peer's faults is a flood too
            self._late += self.fail(violation.code, violation.reason)
            data += self.own + self.drive()
            self.own = b""
        if data:
            self.budget.earn(len(data), self._pieces)
            self._pieces = 0
        elif self._peer_left or self.state is LEAVING:
            if self._eof:
                self._abandon()
            if not self._streams:
                self.closing = True
        return [data] if data else []

    def _abandon(self) -> None:
        """Nothing more comes from the peer: what waits for its windows waits for ever."""
        for number in self.waiting():
            self.reset(number, CANCEL)
            self._late.append(Reset(number, CANCEL))

    def _end_mute(self) -> None:
        """The answer is out before the request has ended: what is left of that nobody wants (RFC 9113 section 8.1)."""
        waiting = []
        for number in self._mute:
            stream = self._streams.get(number)
            if stream is None:
                continue
            if self.queued(number):
                waiting.append(number)
            else:
                del self._streams[number]
                if stream.open:
                    self.forget(number)
                    self.write_reset(number, NO_ERROR)
        self._mute = waiting

    # Facts

    def raw(self, stream: int) -> bool:  # noqa: ARG002
        """See `wire.engine.Engine`: all is framed."""
        return False

    def waiting(self) -> dict[int, int]:
        """See `wire.engine.Engine`."""
        return {
            number: stream.given - left for number, stream in self._streams.items() if (left := self.queued(number))
        }

    @property
    @abstractmethod
    def pushes(self) -> bool:
        """See `wire.engine.Engine`."""

    @property
    @abstractmethod
    def streams_limit(self) -> int:
        """Promised answers that the client takes at once (SETTINGS_MAX_CONCURRENT_STREAMS)."""

    @property
    def idle(self) -> bool:
        """See `wire.engine.Engine`."""
        return not self._streams and not self.block

    @property
    def pending(self) -> int:
        """See `wire.engine.Engine`: news that were found while writing."""
        return len(self._late)
