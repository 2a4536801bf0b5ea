"""What a server has said on a connection, checked frame by frame (RFC 9113, the sender's side).

Whatever a test is about, the server's frames have to come in the right order, on streams that are open, within the
windows and sizes that the client has granted, with field blocks that decode to what a response may say.
"""

import json
from dataclasses import dataclass, field
from typing import Any, Final

from hpack import Decoder

from tests.conformance.http2.fields import Fields
from tests.conformance.http2.frames import MAX_FRAME_SIZE, MAX_WINDOW, WINDOW, Flag, Frame, Kind, Setting

_CONNECTION_SPECIFIC: Final = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"}
)
PING_SIZE: Final = 8


@dataclass(slots=True)
class Answer:
    """What the server has sent on one stream."""

    stream: int
    window: int
    """Bytes that it may still send."""
    interim: list[Fields] = field(default_factory=list)
    fields: Fields = field(default_factory=list)
    body: bytes = b""
    trailers: Fields = field(default_factory=list)
    ended: bool = False
    reset: int | None = None
    promised: Fields = field(default_factory=list)
    updates: int = 0
    """The sum of its WINDOW_UPDATEs."""

    @property
    def status(self) -> int:
        return int(dict(self.fields)[b":status"]) if self.fields else 0

    @property
    def told(self) -> Any:
        """What the echo application has told of the request."""
        return json.loads(self.body)


class Ledger:
    """What the server has said so far, checked as it comes (RFC 9113, for the sender's side)."""

    def __init__(self) -> None:
        self.decoder = Decoder()
        self.answers: dict[int, Answer] = {}
        self.settings: dict[int, int] = {}
        self.greeted = False
        self.acks = 0
        self.pings: list[bytes] = []
        self.pongs: list[bytes] = []
        self.goaways: list[tuple[int, int, bytes]] = []
        """Last stream, code, debug data."""
        self.window = WINDOW
        self.updates = 0
        """The sum of the server's WINDOW_UPDATEs for the connection."""
        self.initial_window = WINDOW
        self.max_frame_size = MAX_FRAME_SIZE
        self.pushes = True
        self.highest = 0
        """Of the streams that this client has opened, the last."""
        self._block: Frame | None = None

    def answer(self, stream: int) -> Answer:
        """The record of one stream."""
        if stream not in self.answers:
            self.answers[stream] = Answer(stream, self.initial_window)
        return self.answers[stream]

    def grant(self, stream: int, increment: int) -> None:
        """A WINDOW_UPDATE has been sent."""
        if stream:
            self.answer(stream).window += increment
        else:
            self.window += increment

    def resize(self, initial: int) -> None:
        """A new SETTINGS_INITIAL_WINDOW_SIZE holds (section 6.9.2)."""
        for answer in self.answers.values():
            answer.window += initial - self.initial_window
        self.initial_window = initial

    def take(self, got: Frame) -> None:
        """Note one frame, and see that the server was allowed to send it."""
        assert len(got.payload) <= self.max_frame_size, f"4.2: larger than SETTINGS_MAX_FRAME_SIZE: {got}"
        if not self.greeted:
            assert got.kind == Kind.SETTINGS, f"3.4: the first frame is to be SETTINGS: {got}"
            assert not got.flags & Flag.ACK, f"3.4: the first frame is to be SETTINGS: {got}"
            self.greeted = True
        if self._block is not None:
            assert got.kind == Kind.CONTINUATION, f"4.3: in the middle of a field block: {got}"
            assert got.stream == self._block.stream, f"4.3: in the middle of another field block: {got}"
        known = got.kind in set(Kind)
        assert known, f"no such frame may come: {got}"
        self._check_stream(got)
        getattr(self, f"_{Kind(got.kind).name.lower()}")(got)

    def _check_stream(self, got: Frame) -> None:
        if got.kind in (Kind.SETTINGS, Kind.PING, Kind.GOAWAY):
            assert got.stream == 0, f"6: belongs to the connection: {got}"
            return
        if got.kind == Kind.WINDOW_UPDATE and got.stream == 0:
            return
        assert got.stream, f"6: belongs to a stream: {got}"
        promised = got.stream in self.answers and got.stream % 2 == 0
        assert promised or (got.stream % 2 == 1 and got.stream <= self.highest), f"5.1: on an idle stream: {got}"
        answer = self.answer(got.stream)
        assert answer.reset is None, f"5.4.2: behind RST_STREAM: {got}"
        if answer.ended:
            assert got.kind in (Kind.RST_STREAM, Kind.WINDOW_UPDATE), f"5.1: behind END_STREAM: {got}"

    def _settings(self, got: Frame) -> None:
        if got.flags & Flag.ACK:
            assert not got.payload
            self.acks += 1
            return
        assert len(got.payload) % 6 == 0
        for place in range(0, len(got.payload), 6):
            name = int.from_bytes(got.payload[place : place + 2])
            self.settings[name] = int.from_bytes(got.payload[place + 2 : place + 6])
        assert not self.settings.get(Setting.ENABLE_PUSH), "6.5.2: a server cannot set ENABLE_PUSH"

    def _ping(self, got: Frame) -> None:
        assert len(got.payload) == PING_SIZE
        (self.pongs if got.flags & Flag.ACK else self.pings).append(got.payload)

    def _goaway(self, got: Frame) -> None:
        last, code = got.number & MAX_WINDOW, int.from_bytes(got.payload[4:8])
        assert not self.goaways or last <= self.goaways[-1][0], f"6.8: the last stream grows: {got}"
        if code:
            assert last <= self.highest, f"6.8: the last stream was never opened: {got}"
        self.goaways.append((last, code, got.payload[8:]))

    def _window_update(self, got: Frame) -> None:
        assert 0 < got.number <= MAX_WINDOW
        if got.stream:
            self.answer(got.stream).updates += got.number
        else:
            self.updates += got.number

    def _rst_stream(self, got: Frame) -> None:
        self.answer(got.stream).reset = got.number

    def _data(self, got: Frame) -> None:
        answer = self.answer(got.stream)
        answer.window -= len(got.payload)
        self.window -= len(got.payload)
        if got.payload:
            assert answer.window >= 0, f"6.9.1: more than the stream's window: {got}"
            assert self.window >= 0, f"6.9.1: more than the connection's window: {got}"
        assert answer.fields, f"8.1: content before the head: {got}"
        payload = got.payload
        if got.flags & Flag.PADDED:
            payload = payload[1 : len(payload) - payload[0]]
        answer.body += payload
        answer.ended = bool(got.flags & Flag.END_STREAM)

    def _headers(self, got: Frame) -> None:
        assert not got.flags & (Flag.PADDED | Flag.PRIORITY), f"not expected of this server: {got}"
        self._gather(got)

    def _push_promise(self, got: Frame) -> None:
        assert self.pushes, f"6.6: the client wants none: {got}"
        assert got.number % 2 == 0
        assert got.number not in self.answers, f"5.1.1: not a new stream: {got}"
        self._gather(got)

    def _continuation(self, got: Frame) -> None:
        assert self._block is not None, f"6.10: behind no field block: {got}"
        kind, flags, stream, payload = self._block
        self._gather(Frame(kind, flags | got.flags, stream, payload + got.payload))

    def _gather(self, got: Frame) -> None:
        if not got.flags & Flag.END_HEADERS:
            self._block = got
            return
        self._block = None
        answer = self.answer(got.stream)
        promised = got.kind == Kind.PUSH_PROMISE
        block = got.payload[4:] if promised else got.payload
        fields = [(bytes(name), bytes(value)) for name, value in self.decoder.decode(block, raw=True)]
        for name, value in fields:
            assert name == name.lower(), f"8.2.1: upper case: {name!r}"
            assert name not in _CONNECTION_SPECIFIC, f"8.2.2: connection-specific: {name!r}"
            assert not set(value) & {0, 10, 13}, f"8.2.1: {name!r}: {value!r}"
        if promised:
            self.answer(got.number).promised = fields
            return
        names = [name for name, _ in fields]
        answer.ended = bool(got.flags & Flag.END_STREAM)
        if answer.fields:
            assert answer.ended, "8.1: trailers that do not end the stream"
            assert not any(name.startswith(b":") for name in names), f"8.3: pseudo-fields in trailers: {names}"
            answer.trailers = fields
            return
        assert names[:1] == [b":status"], f"8.3.2: {names}"
        assert not any(name.startswith(b":") for name in names[1:]), f"8.3: {names}"
        if 100 <= int(fields[0][1]) < 200:
            assert not answer.ended, "8.1: an interim response that ends the stream"
            answer.interim.append(fields)
        else:
            answer.fields = fields
