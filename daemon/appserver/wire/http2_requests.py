"""The requests of an HTTP/2 connection: from what a library reads to the events of the engine.

open ──Head──▶ the request and its response go on, each for itself ──both ended──▶ gone
├── malformed, against the rules, or one too many ──RST_STREAM──▶ gone
└── well formed, and not to be served ──answered with an error──▶ gone
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from appserver.wire.engine import Body, Event, Head, Limits, Refused, Reset
from appserver.wire.http2_frames import PROTOCOL_ERROR, REFUSED_STREAM, RESET_COST, RST_STREAM
from appserver.wire.http2_gate import FrameGate
from appserver.wire.http2_head import CONNECTION_SPECIFIC, HeadReader, Malformed, check_trailers
from appserver.wire.semantics import Refusal

# States of the connection.
OPEN: Final = "open"
NOTICED: Final = "noticed"
LEAVING: Final = "leaving"

_LENGTH_REASON: Final = "a body that is not as long as its Content-Length says"


@dataclass(slots=True)
class Stream:
    """A request and its response.

    Attributes:
        open: The request has not ended.
        length: Bytes of its body that it says to have; -1 where it does not.
        received: Those that have come.
        unread: Those of them that the application has not read: credit that the peer has not got back.
        muted: Refused; what still comes of the body is dropped.
        expects: The client waits for 100 Continue.
        bodiless: The response has no body, whatever is given.
        responded: The response has begun.
        ended: All of it has been given to the engine.
        given: Bytes of its body that have been.
        tunnel: It is a WebSocket, whose bytes no limit of a body is about.
    """

    open: bool
    bodiless: bool
    expects: bool
    length: int = -1
    received: int = 0
    unread: int = 0
    given: int = 0
    muted: bool = False
    responded: bool = False
    ended: bool = False
    tunnel: bool = False


class Requests(FrameGate):
    """The requests of one connection."""

    __slots__ = ("_heads", "_late", "_limits", "_streams", "_websocket", "state")

    def __init__(self, limits: Limits, clock: Callable[[], float], *, websocket: bool = False) -> None:
        super().__init__(clock)
        self._limits = limits
        self._websocket = websocket
        self._heads = HeadReader(limits, websocket=websocket)
        self._streams: dict[int, Stream] = {}
        self._late: list[Event] = []  # found while writing; told by the next receive()
        self.state = OPEN

    @abstractmethod
    def credit(self, stream: int, count: int) -> None:
        """Give the peer so many bytes of its windows back."""

    @abstractmethod
    def write_reset(self, stream: int, code: int) -> None:
        """Write RST_STREAM, and forget what is queued."""

    def request(self, number: int, fields: Sequence[tuple[bytes, bytes]], end: bool, events: list[Event]) -> None:
        """The library has read the head of a request."""
        code = self.doomed.pop(number, None) if self.doomed else None
        if code is not None:
            self.reject(number, code, "a stream that depends on itself", events)
            return
        if self.state is LEAVING:
            self.forget(number)
            self.write_reset(number, REFUSED_STREAM)
            return
        limit = self._limits.streams
        if len(self._streams) >= limit and self._count() >= limit:
            self.write_out()  # a library tells that a stream is over when it writes its end
        if len(self._streams) >= limit and self._count() >= limit:
            self.reject(number, REFUSED_STREAM, f"more than {limit} streams at once", events)
            return
        try:
            method, target, headers, version, length, expects, _, tunnel = self._heads.read(fields, end=end)
        except Malformed as malformed:
            self.reject(number, PROTOCOL_ERROR, f"a malformed request: {malformed.reason}", events)
            return
        except Refusal as refusal:
            self._streams[number] = Stream(not end, (b":method", b"HEAD") in fields, False, muted=True)
            self._turn_away(number, refusal.status, refusal.reason, events)
            return
        self._streams[number] = stream = Stream(not end, method == "HEAD", expects, length)
        if tunnel:
            stream.tunnel = True
            end = True  # what follows is no body
        # Head(…) would go through a function in Python: 0.1 us more.
        kept = headers is self._heads.headers
        events.append(tuple.__new__(Head, (number, method, target, headers, version, end, expects, tunnel, kept)))

    def _turn_away(self, number: int, status: int, reason: str, events: list[Event]) -> None:
        """Have a request answered with an error: it was begun in vain, as one that is reset."""
        events.append(Refused(number, status, reason))
        self.budget.spend(RESET_COST, RST_STREAM)

    def _count(self) -> int:
        """Streams that the peer has begun."""
        return sum(number & 1 for number in self._streams)

    def adopt(self, head: Head) -> Head:
        """Take the request of an upgraded connection for stream 1; it has been checked as HTTP/1.1."""
        dropped = CONNECTION_SPECIFIC | {b"http2-settings"}
        headers = [field for field in head.headers if field[0] not in dropped]
        self.last = 1
        self._streams[1] = Stream(False, head.method == "HEAD", False)
        return Head(1, head.method, head.target, headers, "2", True, False)

    def data(self, number: int, data: bytes, end: bool, events: list[Event]) -> None:
        """The library has read some of a body."""
        stream = self._streams.get(number)
        if stream is None or stream.muted:
            if data:
                self.credit(number, len(data))
            if stream is not None and end:
                stream.open = False
            return
        stream.expects = False
        stream.received += len(data)
        if self._limits.body and stream.received > self._limits.body and not stream.tunnel:
            stream.muted = True
            stream.open = not end
            if data:
                self.credit(number, len(data))
            self._return_credit(number, stream)
            self._turn_away(number, 413, f"the body is longer than {self._limits.body} bytes", events)
            return
        stream.unread += len(data)
        if end:
            stream.open = False
        if 0 <= stream.length < stream.received or (end and stream.received < stream.length):
            self.reject(number, PROTOCOL_ERROR, _LENGTH_REASON, events)
        elif data or end:
            events.append(Body(number, data, end))

    def trailers_read(self, number: int, fields: Sequence[tuple[bytes, bytes]], events: list[Event]) -> None:
        """The library has read the trailers of a request, which end it."""
        stream = self._streams.get(number)
        if stream is None:
            return
        stream.open = False
        told: list[Event] = [] if stream.muted else events  # one that was refused has had its record
        code = self.doomed.pop(number, None) if self.doomed else None
        if code is not None:
            self.reject(number, code, "trailers that do not end the request", told)
            return
        try:
            if not stream.muted and stream.received < stream.length:
                raise Malformed(_LENGTH_REASON)  # noqa: TRY301
            check_trailers(fields, self._limits)
        except Malformed as malformed:
            self.reject(number, PROTOCOL_ERROR, f"malformed trailers: {malformed.reason}", told)
        except Refusal as refusal:
            stream.muted = True
            self._turn_away(number, refusal.status, refusal.reason, told)
        else:
            told.append(Body(number, b"", True))

    def peer_reset(self, number: int, code: int, events: list[Event]) -> None:
        """The peer has given up a stream."""
        stream = self._streams.pop(number, None)
        if stream is not None:
            self._return_credit(number, stream)
            events.append(Reset(number, code))

    def gone(self, number: int, code: int) -> None:
        """A stream is over; with a code that is not 0 the library has reset it, for a fault of the peer's."""
        stream = self._streams.pop(number, None)
        if code and (stream is None or not stream.ended or stream.open):
            self.forget(number)
            self.budget.spend(RESET_COST, RST_STREAM)
            if stream is None or not stream.muted:  # one that was refused has had its record
                self._late.append(Refused(number, 0, "a malformed message, or one against the stream's state"))
        if stream is not None:
            self._return_credit(number, stream)

    def reject(self, stream: int, code: int, reason: str, events: list[Event]) -> None:
        """Reset a stream for a fault of the peer's."""
        found = self._streams.pop(stream, None)
        if found is not None:
            self._return_credit(stream, found)
        self.forget(stream)
        self.write_reset(stream, code)
        events.append(Refused(stream, 0, reason))
        self.budget.spend(RESET_COST, RST_STREAM)

    def is_open(self, stream: int) -> bool | None:
        """See `FrameGate`."""
        found = self._streams.get(stream)
        return None if found is None else found.open

    def _return_credit(self, number: int, stream: Stream) -> None:
        if stream.unread:
            self.credit(number, stream.unread)
            stream.unread = 0

    def consumed(self, stream: int, count: int) -> None:
        """See `wire.engine.Engine`."""
        found = self._streams.get(stream)
        if found is not None and found.unread:
            found.unread -= count
            self.credit(stream, count)
