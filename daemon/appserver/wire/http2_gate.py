"""What HTTP/2 frames must pass before a library sees them (RFC 9113 sections 3.4 to 6).

The libraries behind the engines differ in which broken frames end a stream, which end the connection, and which they
take in silence; and none of them counts floods. So the header of every frame is looked at here first, once for all
engines: 0.4 us for a request. What reaches a library is whole frames, in the order and on the streams that the RFC
allows them on; what is left for it is HPACK, windows and settings.

    bytes ──sift()──▶ good frames ──feed()──▶ library ──▶ events
                 ├──▶ a stream's error: RST_STREAM, the frame is dropped
                 └──▶ the connection's error: Violation
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import ClassVar, Final

from appserver.wire.engine import Event
from appserver.wire.http2_frames import (
    ACK,
    CONTINUATION,
    CONTINUATIONS_LIMIT,
    COST,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADER_SIZE,
    HEADERS,
    LAST_STREAM,
    PADDED,
    PING,
    PREFACE,
    PRIORITISED,
    PRIORITY,
    PRIORITY_UPDATE,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    RESET_COST,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    Budget,
    Violation,
    rst_stream,
    window_update,
)

MAX_FRAME_SIZE: Final = 16 * 1024
"""Bytes of a frame's payload that we take: what RFC 9113 section 4.2 has everybody take."""

FRAMES_A_TURN: Final = 100
"""Small frames that are handled in one call: about a millisecond's work. Whoever sends more at once waits for his next
turn, and the others have theirs in between."""

COST_A_TURN: Final = 50
"""What may be spent in one call, of the budget for frames that bring nothing: ten streams begun in vain, 0.1 ms. Others
wait for two such calls, one that runs when their request arrives and one before it is answered."""

_SMALL: Final = 1024  # bytes of a payload; of larger ones there cannot be many in a read
_PAST: Final = 256  # streams reset by us, and gaps in their numbers, that are remembered: the latest
_PLAIN: Final = END_HEADERS | PADDED | PRIORITISED
_DECISIVE: Final = frozenset({DATA, HEADERS, CONTINUATION, RST_STREAM, WINDOW_UPDATE})


class FrameGate(ABC):
    """The receiving half of an HTTP/2 connection, up to the library.

    Attributes:
        block: The stream whose header block has begun and not ended; 0 for none.
        budget: What the peer may spend on frames that bring nothing.
        doomed: Streams whose head is to be read, for HPACK's sake, and then refused with this code.
        last: The last stream of the peer's that was begun.
        more: So many frames came at once that the rest waits for the next call.
        own: Frames of ours, to be written before what the library has.
        prefaced: The client's preface has come.
        promised: The last stream that was promised to the peer.
    """

    __slots__ = (
        "_acknowledged",
        "_continued",
        "_fragments",
        "_gaps",
        "_reset",
        "_rest",
        "_settled",
        "_told",
        "block",
        "budget",
        "doomed",
        "last",
        "more",
        "own",
        "prefaced",
        "promised",
    )

    prioritises: ClassVar[bool]
    """RFC 9218 is spoken."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.budget = Budget(clock)
        self._rest = b""  # the first bytes of a frame, or of the preface
        self._settled = False  # the client's SETTINGS have come
        self._acknowledged = False  # and its answer to ours
        self._continued = 0
        self._reset: deque[int] = deque(maxlen=_PAST)
        self._told: deque[int] = deque(maxlen=_PAST)  # streams that are over, whose peer has been told so
        self._fragments: list[bytes] = []  # of a header block that is not whole
        self._gaps: deque[tuple[int, int]] = deque(maxlen=_PAST)
        self.block = 0
        self.doomed: dict[int, int] = {}
        self.last = self.promised = 0
        self.own = b""
        self.prefaced = self.more = False

    @abstractmethod
    def feed(self, data: bytes, events: list[Event]) -> None:
        """Hand the preface, or whole frames, to the library.

        Raises:
            Violation: The connection is broken.
        """

    @abstractmethod
    def is_open(self, stream: int) -> bool | None:
        """Whether more of a request may come on it; None for a stream that is not there."""

    @abstractmethod
    def reject(self, stream: int, code: int, reason: str, events: list[Event]) -> None:
        """Reset a stream for a fault of the peer's."""

    @abstractmethod
    def send_window(self, stream: int) -> int:
        """Bytes that the peer lets us send on a stream that is there."""

    @abstractmethod
    def write_out(self) -> None:
        """Have the library put into `own` what it has to write."""

    @abstractmethod
    def peer_leaves(self, events: list[Event]) -> None:
        """The peer begins no more streams (GOAWAY)."""

    def forget(self, stream: int) -> None:
        """We have reset a stream: what is under way on it comes to nothing (RFC 9113 section 5.4.2)."""
        self._reset.append(stream)

    def is_forgotten(self, stream: int) -> bool:
        """Whether we have reset it."""
        return stream in self._reset

    def _was_reset(self, stream: int) -> bool:
        if stream not in self._reset:
            self.write_out()  # a library that resets a stream of its own accord tells when it writes that
        return stream in self._reset

    def sift(self, data: bytes, events: list[Event]) -> None:
        """Take bytes from the peer, and pass on what is whole and good.

        Raises:
            Violation: The peer breaks the protocol, or floods.
        """
        received = self._rest + data if self._rest else data
        self._rest = b""
        self.more = False
        start = at = small = 0
        size = len(received)
        least = self.budget.left - COST_A_TURN
        if not self.prefaced:
            at = self._take_preface(received, events)
            if not at:
                return
            start = at
        unfed = False  # something waits for the library that decides what may come on a stream
        try:
            while at + HEADER_SIZE <= size:
                length = received[at] << 16 | received[at + 1] << 8 | received[at + 2]
                kind, flags = received[at + 3], received[at + 4]
                end = at + HEADER_SIZE + length
                if length > MAX_FRAME_SIZE:  # refused for its header alone
                    raise Violation(FRAME_SIZE_ERROR, "a frame that is too long")  # noqa: TRY301
                if end > size:
                    break
                if length < _SMALL:
                    small += 1
                    if small > FRAMES_A_TURN:
                        self.more = True
                        break
                stream = int.from_bytes(received[at + 5 : at + 9], "big") & LAST_STREAM
                if (
                    kind == HEADERS
                    and stream > self.last
                    and stream & 1
                    and flags & _PLAIN == END_HEADERS
                    and self._settled
                    and not self.block
                ):  # what nearly all frames are
                    if stream > self.last + 2:
                        self._gaps.append((self.last, stream))
                    self.last = stream
                    unfed = True
                else:
                    if unfed:
                        chunk, start = received[start:at], at  # first, so that nothing is fed twice
                        self.feed(chunk, events)
                    instead = self._check(kind, flags, stream, received, at, end, events)
                    if instead is not None:
                        chunk, start = received[start:at], end
                        if chunk:
                            self.feed(chunk, events)
                        if instead:
                            self.feed(instead, events)
                    unfed = kind in _DECISIVE
                    if self.budget.left <= least:
                        small = FRAMES_A_TURN  # what is small and follows waits
                at = end
        except Violation:
            if start < at:
                self.feed(received[start:at], events)  # what was good
            raise
        if start < at:
            self.feed(received[start:at], events)
        if at < size:
            self._rest = received[at:]

    def _take_preface(self, received: bytes, events: list[Event]) -> int:
        """Where the first frame begins; 0 while the preface is not whole."""
        if not PREFACE.startswith(received[: len(PREFACE)]):
            raise Violation(PROTOCOL_ERROR, "a preface that is not HTTP/2's")
        if len(received) < len(PREFACE):
            self._rest = received
            return 0
        self.prefaced = True
        self.feed(PREFACE, events)
        return len(PREFACE)

    def _check(
        self, kind: int, flags: int, stream: int, received: bytes, at: int, end: int, events: list[Event]
    ) -> bytes | None:
        """Look at a frame: None to pass it, other bytes to pass these instead, or nothing."""
        length = end - at - HEADER_SIZE
        if not self._settled:
            if kind != SETTINGS or flags & ACK:
                raise Violation(PROTOCOL_ERROR, "a first frame that is not SETTINGS")
            self._settled = True
        if self.block:
            if kind != CONTINUATION or stream != self.block:
                raise Violation(PROTOCOL_ERROR, "another frame within a header block")
            self._continued += 1
            if self._continued > CONTINUATIONS_LIMIT:
                raise Violation(ENHANCE_YOUR_CALM, f"more than {CONTINUATIONS_LIMIT} CONTINUATION frames")
            self._fragments.append(received[at:end])
            if not flags & END_HEADERS:
                return b""
            self.block = 0
            whole = b"".join(self._fragments)
            self._fragments.clear()
            return whole
        if kind == DATA:
            return self._check_data(flags, stream, received, at, length, events)
        if kind == HEADERS:
            return self._check_headers(flags, stream, received, at, end, events)
        self.budget.spend(COST.get(kind, 1), kind)
        if kind == WINDOW_UPDATE:
            return self._check_credit(stream, received, at, length, events)
        if kind == PRIORITY:
            return self._check_priority(stream, received, at, length, events)
        if kind == RST_STREAM:
            if length != 4:
                raise Violation(FRAME_SIZE_ERROR, "an RST_STREAM that is not 4 bytes long")
            if stream > (self.last if stream & 1 else self.promised) or not stream:
                raise Violation(PROTOCOL_ERROR, "RST_STREAM on a stream that was not begun")
            return None
        if kind in (CONTINUATION, PUSH_PROMISE):
            raise Violation(PROTOCOL_ERROR, "a frame that a client does not send here")
        if kind in (SETTINGS, PING, GOAWAY) or (kind == PRIORITY_UPDATE and self.prioritises):
            if stream:
                raise Violation(PROTOCOL_ERROR, "a frame of the connection on a stream")
            return self._check_own(kind, flags, received, at, length, events)
        return b""  # of a kind that is not known: ignored (section 5.5)

    def _check_own(
        self, kind: int, flags: int, received: bytes, at: int, length: int, events: list[Event]
    ) -> bytes | None:
        """Frames of the connection: sections 6.5, 6.7 and 6.8, RFC 9218 section 7.1."""
        if kind == SETTINGS:
            if length % 6 or (flags & ACK and length):
                raise Violation(FRAME_SIZE_ERROR, "SETTINGS of a length that they cannot have")
            if flags & ACK:
                if self._acknowledged:
                    return b""  # we send SETTINGS once; one library makes an error of it, the other does not
                self._acknowledged = True
        elif kind == PING:
            if length != 8:
                raise Violation(FRAME_SIZE_ERROR, "a PING that is not 8 bytes long")
        elif length < (8 if kind == GOAWAY else 4):
            raise Violation(FRAME_SIZE_ERROR, "a frame that is too short")
        elif kind == GOAWAY:
            self.peer_leaves(events)
            return b""
        elif not _read(received, at):
            raise Violation(PROTOCOL_ERROR, "a PRIORITY_UPDATE for no stream")
        return None

    def _check_data(
        self, flags: int, stream: int, received: bytes, at: int, length: int, events: list[Event]
    ) -> bytes | None:
        """Section 6.1."""
        padding = 0
        if flags & PADDED:
            if not length:
                raise Violation(FRAME_SIZE_ERROR, "a payload that is shorter than its flags say")
            padding = received[at + HEADER_SIZE] + 1
            if padding > length:
                raise Violation(PROTOCOL_ERROR, "more padding than payload")
        if length <= padding and not flags & END_STREAM:
            self.budget.spend(1, DATA)
        is_open = self.is_open(stream)
        if is_open:
            return None
        if stream > self.last or not stream & 1:
            raise Violation(PROTOCOL_ERROR, "DATA on a stream that was not begun")
        if is_open is not None:
            self.reject(stream, STREAM_CLOSED, "DATA behind the end of the request", events)
        elif self._was_reset(stream) or stream in self._told:
            self.budget.spend(1, DATA)
        else:
            self.budget.spend(RESET_COST, DATA)
            self._told.append(stream)
            self.own += rst_stream(stream, STREAM_CLOSED)
        if length:
            self.own += window_update(length)  # the library has not counted it
        return b""

    def _check_headers(
        self, flags: int, stream: int, received: bytes, at: int, end: int, events: list[Event]
    ) -> bytes | None:
        """Section 6.2; padding and the deprecated priority are taken off, which the libraries read differently."""
        if not stream & 1:
            raise Violation(PROTOCOL_ERROR, "HEADERS on a stream that is not the client's to begin")
        instead: bytes | None = None
        if flags & (PADDED | PRIORITISED):
            block, on = _strip(received[at + HEADER_SIZE : end], flags)
            flags &= ~(PADDED | PRIORITISED)
            instead = _make_headers(flags, stream, block)
            if on == stream:
                self.doomed[stream] = PROTOCOL_ERROR  # RFC 7540 section 5.3.1
        is_open = self.is_open(stream)
        if is_open:
            if not flags & END_STREAM:
                self.doomed[stream] = PROTOCOL_ERROR  # section 8.1: trailers end the request
                block = (instead or received[at:end])[HEADER_SIZE:]
                flags |= END_STREAM
                instead = _make_headers(flags, stream, block)
        elif is_open is not None:
            # From a stream that was reset the library takes the block for HPACK's sake and nothing else.
            self.reject(stream, STREAM_CLOSED, "HEADERS behind the end of the request", events)
            self.write_out()
        elif stream > self.last:
            if stream > self.last + 2:
                self._gaps.append((self.last, stream))
            self.last = stream
        elif any(low < stream < high for low, high in self._gaps):
            raise Violation(PROTOCOL_ERROR, "HEADERS on a stream below the last one (section 5.1.1)")
        elif self._was_reset(stream):
            self.budget.spend(RESET_COST, RST_STREAM)
        else:
            raise Violation(STREAM_CLOSED, "HEADERS on a stream that is closed")
        if flags & END_HEADERS:
            return instead
        # One library decodes a block as it comes, the other once it is whole: so it comes whole.
        self.block, self._continued = stream, 0
        self._fragments.append(instead or received[at:end])
        return b""

    def _check_credit(self, stream: int, received: bytes, at: int, length: int, events: list[Event]) -> bytes | None:
        """Section 6.9."""
        if length != 4:
            raise Violation(FRAME_SIZE_ERROR, "a WINDOW_UPDATE that is not 4 bytes long")
        increment = _read(received, at)
        if not stream:
            if not increment:
                raise Violation(PROTOCOL_ERROR, "a WINDOW_UPDATE of 0")
        elif self.is_open(stream) is None:
            if stream > self.last or not stream & 1:
                raise Violation(PROTOCOL_ERROR, "WINDOW_UPDATE on a stream that was not begun")
            return b""
        elif not increment:
            self.reject(stream, PROTOCOL_ERROR, "a WINDOW_UPDATE of 0", events)
            return b""
        elif self.send_window(stream) + increment > LAST_STREAM:
            self.reject(stream, FLOW_CONTROL_ERROR, "a window of more than 2**31 - 1 bytes", events)
            return b""
        if received[at + HEADER_SIZE] & 0x80:  # reserved, and to be ignored
            return received[at : at + HEADER_SIZE] + increment.to_bytes(4, "big")
        return None

    def _check_priority(self, stream: int, received: bytes, at: int, length: int, events: list[Event]) -> bytes:
        """Section 6.3: deprecated, and never passed on."""
        if not stream:
            raise Violation(PROTOCOL_ERROR, "PRIORITY on no stream")
        if length != 5:
            code, reason = FRAME_SIZE_ERROR, "a PRIORITY that is not 5 bytes long"
        elif _read(received, at) == stream:
            code, reason = PROTOCOL_ERROR, "a stream that depends on itself"  # RFC 7540 section 5.3.1
        else:
            return b""
        if self.is_open(stream) is None:
            raise Violation(code, reason)  # there is nothing to reset
        self.reject(stream, code, reason, events)
        return b""


def _read(received: bytes, at: int) -> int:
    """The first 31 bits of the payload of the frame at `at`."""
    return int.from_bytes(received[at + HEADER_SIZE : at + HEADER_SIZE + 4], "big") & LAST_STREAM


def _strip(payload: bytes, flags: int) -> tuple[bytes, int]:
    """The header block of HEADERS, and the stream that it depends on.

    Raises:
        Violation: The payload is shorter than the flags say, or than its padding.
    """
    start, stop, on = 0, len(payload), 0
    if len(payload) < (1 if flags & PADDED else 0) + (5 if flags & PRIORITISED else 0):
        raise Violation(FRAME_SIZE_ERROR, "a payload that is shorter than its flags say")
    if flags & PADDED:
        start, stop = 1, stop - payload[0]
    if flags & PRIORITISED:
        on = int.from_bytes(payload[start : start + 4], "big") & LAST_STREAM
        start += 5
    if stop < start:
        raise Violation(PROTOCOL_ERROR, "more padding than payload")
    return payload[start:stop], on


def _make_headers(flags: int, stream: int, block: bytes) -> bytes:
    return len(block).to_bytes(3, "big") + bytes([HEADERS, flags]) + stream.to_bytes(4, "big") + block
