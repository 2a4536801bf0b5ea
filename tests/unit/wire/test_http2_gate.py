"""The gate by itself: what it lets through, what it costs, and that cuts change neither."""

from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appserver.wire.engine import Event, Refused
from appserver.wire.http2_frames import BUDGET, CONTINUATIONS_LIMIT, RESET_COST, Violation
from appserver.wire.http2_gate import COST_A_TURN, FRAMES_A_TURN, FrameGate
from tests.conformance.http2 import frames
from tests.conformance.http2.fields import REQUEST
from tests.conformance.http2.frames import PREFACE, Code, Flag, Kind, frame
from tests.contract.driver import cut


class Gate(FrameGate):
    """Keeps what is let through; a stream is open from its HEADERS to END_STREAM."""

    prioritises: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__(lambda: 1000.0)
        self.fed = b""
        self.open: dict[int, bool] = {}
        self.rejected: list[tuple[int, int]] = []

    def feed(self, data: bytes, events: list[Event]) -> None:  # noqa: ARG002 - there is no library to tell anything
        self.fed += data
        if data == PREFACE:
            return
        for got in frames.read(data):
            if got.kind in (Kind.HEADERS, Kind.DATA):
                self.open[got.stream] = not got.flags & Flag.END_STREAM

    def sift(self, data: bytes, events: list[Event]) -> None:
        super().sift(data, events)
        while self.more:
            super().sift(b"", events)

    def is_open(self, stream: int) -> bool | None:
        return self.open.get(stream)

    def reject(self, stream: int, code: int, reason: str, events: list[Event]) -> None:
        self.rejected.append((stream, code))
        self.open.pop(stream, None)
        self.forget(stream)
        events.append(Refused(stream, 0, reason))

    def send_window(self, stream: int) -> int:  # noqa: ARG002 - the same for all
        return frames.WINDOW

    def write_out(self) -> None:
        """There is nothing to write."""

    def peer_leaves(self, events: list[Event]) -> None:
        """Nothing is known of it here."""

    @property
    def spent(self) -> int:
        return BUDGET - self.budget.left


def begun() -> Gate:
    """A gate behind the preface, the client's SETTINGS and the head of a request that goes on."""
    gate = Gate()
    gate.sift(PREFACE + frames.settings() + frames.headers(1, REQUEST, end=False), [])
    gate.budget.left = BUDGET
    gate.fed = b""
    return gate


@pytest.mark.parametrize(
    ("data", "cost"),
    [
        (frames.data(1, b"content"), 0),
        (frames.data(1, b"c", padding=0), 0),
        (frames.data(1, b"c", padding=255), 0),
        (frames.data(1), 1),
        (frames.data(1, padding=20), 1),
        (frames.data(1, padding=0), 1),
        (frames.priority(3), 1),
        (frames.settings(), 2),
        (frames.ping(), 1),
        (frames.ping(ack=True), 1),
        (frames.goaway(), 1),
        (frames.window_update(0, 1), 1),
        (frames.window_update(1, 1), 1),
        (frames.priority_update(1), 1),
        (frame(0xFA, b"extension"), 1),
        (frames.rst_stream(1), RESET_COST),
    ],
)
def test_what_a_frame_costs(data: bytes, cost: int) -> None:
    gate = begun()
    gate.sift(data, [])
    assert gate.spent == cost
    gate.sift(data, [])
    assert gate.spent == 2 * cost


def test_requests_cost_nothing() -> None:
    gate = begun()
    gate.sift(b"".join(frames.headers(stream, REQUEST) for stream in range(3, 1_001, 2)), [])
    assert gate.spent == 0
    assert gate.last == 999


def test_very_many_frames_take_several_turns() -> None:
    gate = begun()
    FrameGate.sift(gate, b"".join(frames.headers(stream, REQUEST) for stream in range(3, 1_003, 2)), [])
    assert (gate.more, gate.last) == (True, 1 + 2 * FRAMES_A_TURN)
    FrameGate.sift(gate, b"", [])
    assert (gate.more, gate.last) == (True, 1 + 4 * FRAMES_A_TURN)


def test_frames_that_bring_nothing_take_more_turns() -> None:
    gate = begun()
    pairs = [frames.headers(stream, REQUEST) + frames.rst_stream(stream) for stream in range(3, 103, 2)]
    FrameGate.sift(gate, b"".join(pairs), [])
    resets = COST_A_TURN // RESET_COST
    assert (gate.more, gate.last) == (True, 1 + 2 * resets)
    FrameGate.sift(gate, b"", [])
    assert (gate.more, gate.last) == (True, 1 + 4 * resets)


def test_the_end_of_a_body_costs_nothing_even_if_it_is_empty() -> None:
    gate = begun()
    gate.sift(frames.data(1, end=True), [])
    assert gate.spent == 0


GOOD = st.sampled_from(
    [
        frames.data(1, b"\0\0\0\1\4" * 10),
        frames.data(1, b"content", padding=30),
        frames.data(1),
        frames.data(1, padding=20),
        frames.ping(),
        frames.settings({1: 1, 2: 0}),
        frames.window_update(1, 5),
        frames.priority(1),
        frame(0xFA, bytes(300)),
    ]
)


@given(st.lists(GOOD, max_size=10).map(b"".join), st.lists(st.integers(0, 500), max_size=8))
def test_cuts_change_nothing(data: bytes, places: list[int]) -> None:
    whole, pieces = begun(), begun()
    whole.sift(data, [])
    for piece in cut(data, places):
        pieces.sift(piece, [])
    assert (pieces.fed, pieces.spent, pieces.rejected) == (whole.fed, whole.spent, whole.rejected)


def test_byte_by_byte_is_as_at_once() -> None:
    data = PREFACE + frames.settings() + frames.headers(1, REQUEST, end=False) + frames.data(1, b"c", padding=9)
    data += frames.ping() + frames.headers(3, REQUEST, end=True, padding=5) + frames.data(1, end=True)
    whole, pieces = Gate(), Gate()
    whole.sift(data, [])
    for byte in data:
        pieces.sift(bytes([byte]), [])
    assert (pieces.fed, pieces.spent, pieces.last) == (whole.fed, whole.spent, 3)


def test_only_whole_frames_are_let_through() -> None:
    gate = begun()
    data = frames.data(1, b"content")
    gate.sift(data + data[:-1], [])
    assert gate.fed == data
    gate.sift(data[-1:], [])
    assert gate.fed == data * 2


def test_padding_of_heads_is_taken_off() -> None:
    gate = begun()
    gate.sift(frames.headers(3, REQUEST, padding=40), [])
    assert gate.fed == frames.headers(3, REQUEST)


@pytest.mark.parametrize("stream", [3, 5])
def test_a_header_block_is_told_while_it_is_not_whole(stream: int) -> None:
    gate = begun()
    gate.sift(frames.headers(stream, REQUEST[:4], whole=False), [])
    assert gate.block == stream
    gate.sift(frames.continuation(stream, REQUEST[4:6], whole=False) + frames.continuation(stream, REQUEST[6:]), [])
    assert gate.block == 0


def test_a_block_has_so_many_continuations_and_the_next_one_as_many() -> None:
    gate = begun()
    for stream in (3, 5, 7):
        gate.sift(frames.headers(stream, REQUEST, whole=False), [])
        gate.sift(frames.continuation(stream, b"", whole=False) * (CONTINUATIONS_LIMIT - 1), [])
        gate.sift(frames.continuation(stream, b""), [])
    gate.sift(frames.headers(9, REQUEST, whole=False), [])
    with pytest.raises(Violation, match="CONTINUATION") as violation:
        gate.sift(frames.continuation(9, b"", whole=False) * (CONTINUATIONS_LIMIT + 1), [])
    assert violation.value.code == Code.ENHANCE_YOUR_CALM


@pytest.mark.parametrize(
    "data", [frames.data(1), frames.ping(), frames.priority(3), frames.window_update(0, 1), frame(0xFA)]
)
def test_a_flood_ends_the_connection_and_what_came_before_is_let_through(data: bytes) -> None:
    gate = begun()
    good = frames.headers(3, REQUEST)
    with pytest.raises(Violation, match="flood") as violation:
        gate.sift(good + data * (BUDGET + 1), [])
    assert violation.value.code == Code.ENHANCE_YOUR_CALM
    assert gate.fed.startswith(good)


def test_what_is_wrong_on_a_stream_is_not_let_through_and_the_rest_is() -> None:
    gate = begun()
    events: list[Event] = []
    good = frames.headers(5, REQUEST)
    gate.sift(frames.headers(3, REQUEST) + frames.data(3, b"behind the end") + good, events)
    assert gate.rejected == [(3, Code.STREAM_CLOSED)]
    assert [(type(event), event[0]) for event in events if isinstance(event, Refused)] == [(Refused, 3)]
    assert gate.fed == frames.headers(3, REQUEST) + good


def test_the_window_that_a_dropped_frame_took_is_given_back() -> None:
    gate = begun()
    gate.sift(frames.headers(3, REQUEST) + frames.data(3, b"behind the end"), [])
    assert frames.window_update(0, len(b"behind the end")) in gate.own


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\r\n", PREFACE[:20] + b"XXXX", b"\0"])
def test_a_preface_that_is_none(first: bytes) -> None:
    with pytest.raises(Violation) as violation:
        Gate().sift(first, [])
    assert violation.value.code == Code.PROTOCOL_ERROR


def test_the_preface_is_let_through_once_it_is_whole() -> None:
    gate = Gate()
    gate.sift(PREFACE[:-1], [])
    assert (gate.fed, gate.prefaced) == (b"", False)
    gate.sift(PREFACE[-1:] + frames.settings(), [])
    assert gate.fed == PREFACE + frames.settings()
