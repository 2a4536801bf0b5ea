"""The framing of a WebSocket: RFC 6455 section 5, RFC 7692, and the rows of hardening that are about frames."""

import random
import tracemalloc
import zlib
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame as LibraryFrame
from websockets.version import version

from appserver.wire import websocket
from appserver.wire.websocket import (
    ABNORMAL,
    COMPRESSED_SIZE,
    FRAME_WORK,
    NO_STATUS,
    WORK,
    Deflate,
    WebSocket,
    deflate_memory,
)
from tests.unit import websocket_frames as frames
from tests.unit.websocket_frames import (
    BINARY,
    CLIENT,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    RSV1,
    RSV2,
    RSV3,
    TEXT,
    Frame,
    Protocol,
    frame,
    text,
)

LIMIT = 1000

LIBRARY = int(version.partition(".")[0])


def agreed(**options: Any) -> Deflate:
    parameters = {
        "remote_no_context_takeover": False,
        "local_no_context_takeover": False,
        "remote_max_window_bits": 12,
        "local_max_window_bits": 12,
        **options,
    }
    return Deflate(PerMessageDeflate(**parameters))


def plain(limit: int = LIMIT) -> WebSocket:
    return WebSocket(limit, None)


def compressing(limit: int = LIMIT, **options: Any) -> WebSocket:
    return WebSocket(limit, agreed(**options))


def deflate(size: int) -> bytes:
    return frames.deflate(bytes(size), bits=12)


def written(socket: WebSocket) -> list[Frame]:
    found, rest = frames.read(socket.take())
    assert rest == b""
    return found


def feed(socket: WebSocket, data: bytes) -> list[str | bytes]:
    """All messages of some bytes, in as many calls as it takes."""
    messages = socket.receive(data)
    while socket.rest:
        messages += socket.receive(socket.rest)
    return messages


def ended(socket: WebSocket) -> tuple[int, str]:
    """How the client was told of the end that we have made of it for a fault of its own."""
    assert socket.over
    assert socket.failure
    assert socket.failure.isascii()
    assert socket.failure.isprintable()
    *_, last = written(socket)
    assert last.close[0] == socket.code
    return last.close


# Messages


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 1000])
@pytest.mark.parametrize("kind", [str, bytes])
def test_a_message_comes_as_it_was_sent(size: int, kind: type) -> None:
    message: Any = "a" * size if kind is str else bytes(index % 251 for index in range(size))
    socket = plain()
    assert socket.receive(text(message) if kind is str else frames.binary(message)) == [message]
    assert [type(one) for one in socket.receive(frames.binary(b"x"))] == [bytes]
    assert (socket.over, socket.take(), socket.failure) == (False, b"", "")


@pytest.mark.parametrize("size", [65_535, 65_536, 1_000_000])
def test_a_large_message_comes_whole(size: int) -> None:
    assert plain(size).receive(frames.binary(bytes(size))) == [bytes(size)]


def test_an_empty_message_is_one() -> None:
    assert plain().receive(text("") + frames.binary(b"")) == ["", b""]


def test_any_length_form_is_taken() -> None:
    # RFC 6455 section 5.2 wants the shortest of writers; Autobahn and the library's readers take the others too.
    data = bytes([0x82, 0x80 | 126]) + (3).to_bytes(2) + bytes(4) + b"abc"
    assert plain().receive(data) == [b"abc"]


def test_fragments_become_one_message() -> None:
    socket = plain()
    assert socket.receive(frame(TEXT, "gr\u00fc".encode(), fin=False)) == []
    assert socket.receive(frame(CONTINUATION, b"", fin=False)) == []
    assert socket.receive(frame(CONTINUATION, "\u00dfe".encode())) == ["gr\u00fc\u00dfe"]
    assert socket.receive(frame(BINARY, b"a", fin=False) + frame(CONTINUATION, b"b")) == [b"ab"]
    assert socket.receive(text("next")) == ["next"]


def test_control_frames_may_come_between_fragments() -> None:
    socket = plain()
    data = frame(TEXT, b"a", fin=False) + frame(PING, b"1") + frame(PONG, b"x") + frame(CONTINUATION, b"b")
    assert socket.receive(data) == ["ab"]
    assert written(socket) == [Frame(PONG, b"1")]


def test_text_may_be_cut_inside_a_character() -> None:
    data = "\N{GRINNING FACE}\u00e4".encode()
    socket = plain()
    pieces = [frame(TEXT if not at else CONTINUATION, data[at : at + 1], fin=False) for at in range(len(data))]
    assert [socket.receive(piece) for piece in pieces] == [[]] * len(data)
    assert socket.receive(frame(CONTINUATION)) == ["\N{GRINNING FACE}\u00e4"]


def test_fragments_without_end_take_no_more_memory_than_a_message() -> None:
    # One object each would be 40 bytes for every one that the limit counts, and for an empty one without end.
    limit = 100_000
    socket = plain(limit)
    socket.receive(frame(BINARY, b"", fin=False))
    empty, small = frame(CONTINUATION, b"", fin=False) * 1000, frame(CONTINUATION, b"ab", fin=False) * 1000
    tracemalloc.start()
    try:
        for _ in range(20):
            assert feed(socket, empty) == []
        for _ in range(limit // 2000):
            assert feed(socket, small) == []
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 2 * limit
    assert socket.receive(frame(CONTINUATION)) == [b"ab" * (limit // 2)]


# UTF-8, hardening: bad UTF-8


BAD_TEXT = [b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80", b"a\xe2\x82", b"\xce\xba\xe1\xbd"]


@pytest.mark.parametrize("bad", BAD_TEXT)
def test_bad_utf_8_is_told_1007(bad: bytes) -> None:
    socket = plain()
    assert socket.receive(text("good") + frame(TEXT, bad) + text("behind")) == ["good"]
    assert ended(socket)[0] == 1007


@pytest.mark.parametrize("bad", [bad for bad in BAD_TEXT if bad[-1:] not in (b"\x82", b"\xbd")])
def test_bad_utf_8_in_a_fragment_is_found_before_the_last_one_comes(bad: bytes) -> None:
    socket = plain()
    assert socket.receive(frame(TEXT, b"good", fin=False)) == []
    assert not socket.over
    socket.receive(frame(CONTINUATION, bad, fin=False))
    assert ended(socket)[0] == 1007


def test_text_that_ends_inside_a_character_is_told_1007() -> None:
    socket = plain()
    socket.receive(frame(TEXT, b"\xe2", fin=False) + frame(CONTINUATION, b"\x82"))
    assert ended(socket)[0] == 1007


def test_bad_utf_8_is_no_matter_in_bytes() -> None:
    assert plain().receive(frame(BINARY, b"\xff", fin=False) + frame(CONTINUATION, b"\xfe")) == [b"\xff\xfe"]


def test_bad_utf_8_in_a_reason_is_told_1007() -> None:
    socket = plain()
    socket.receive(frames.close(1000, b"\xff"))
    assert ended(socket)[0] == 1007


def test_the_first_of_two_faults_in_one_read_is_the_one_that_is_told() -> None:
    socket = plain()
    socket.receive(frame(TEXT, b"\xff") + frame(3) + frames.close(1000))
    assert ended(socket)[0] == 1007


def test_bad_utf_8_behind_our_close_ends_it() -> None:
    socket = plain()
    socket.close(1000, "")
    socket.receive(frame(TEXT, b"\xff"))
    assert socket.over
    assert socket.take() == b""


# The protocol, hardening: unmasked frame, reserved bits or opcodes, fragmented or over-long control frame


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(frame(TEXT, b"a", key=None), id="unmasked frame"),
        pytest.param(frame(PING, b"", key=None), id="unmasked control frame"),
        pytest.param(frame(TEXT, b"a", reserved=RSV1), id="reserved bit 1"),
        pytest.param(frame(TEXT, b"a", reserved=RSV2), id="reserved bit 2"),
        pytest.param(frame(TEXT, b"a", reserved=RSV3), id="reserved bit 3"),
        pytest.param(frame(PING, b"a", reserved=RSV1), id="reserved bit of a control frame"),
        *(
            pytest.param(frame(opcode), id=f"reserved opcode {opcode}")
            for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
        ),
        *(pytest.param(frame(opcode, b"", fin=False), id=f"fragmented {opcode}") for opcode in (CLOSE, PING, PONG)),
        *(pytest.param(frame(opcode, bytes(126)), id=f"over-long {opcode}") for opcode in (CLOSE, PING, PONG)),
        pytest.param(frame(CONTINUATION, b"a"), id="continuation of nothing"),
        pytest.param(frame(CONTINUATION, b"a", fin=False), id="continuation of nothing, to go on"),
        pytest.param(frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"), id="a message in the midst of one"),
        pytest.param(frame(TEXT, b"a") + frame(CONTINUATION, b"b"), id="continuation behind the end"),
        pytest.param(frame(CLOSE, b"\x03"), id="half a code"),
    ],
)
def test_what_breaks_the_protocol_is_told_1002(data: bytes) -> None:
    socket = plain()
    socket.receive(data + text("behind"))
    assert ended(socket)[0] == 1002
    assert socket.receive(text("more")) == []
    assert socket.take() == b""


@pytest.mark.parametrize("code", [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
def test_a_bad_close_code_is_told_1002(code: int) -> None:
    socket = plain()
    socket.receive(frames.close(code, b"reason"))
    assert ended(socket)[0] == 1002


def test_messages_before_a_fault_are_told() -> None:
    socket = plain()
    assert socket.receive(text("one") + frames.binary(b"two") + frame(3)) == ["one", b"two"]
    assert ended(socket)[0] == 1002


# Close


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3999, 4999])
def test_a_close_is_answered_with_itself(code: int) -> None:
    socket = plain()
    assert socket.receive(text("last") + frames.close(code, "gr\u00fcn".encode()) + text("behind")) == ["last"]
    assert written(socket) == [Frame(CLOSE, code.to_bytes(2) + "gr\u00fcn".encode())]
    assert (socket.over, socket.code, socket.reason, socket.failure) == (True, code, "gr\u00fcn", "")


def test_a_close_without_code_is_1005_and_answered_without() -> None:
    socket = plain()
    socket.receive(frames.close())
    assert written(socket) == [Frame(CLOSE, b"")]
    assert (socket.over, socket.code, socket.reason, socket.failure) == (True, NO_STATUS, "", "")


def test_without_a_close_it_is_1006() -> None:
    socket = plain()
    socket.receive(text("a"))
    assert (socket.over, socket.code, socket.reason) == (False, ABNORMAL, "")


@pytest.mark.parametrize("deflating", [False, True])
def test_a_close_in_the_midst_of_a_fragmented_message_is_one(deflating: bool) -> None:
    socket = compressing() if deflating else plain()
    assert socket.receive(frame(TEXT, b"half", fin=False) + frames.close(1001, b"bye")) == []
    assert written(socket) == [Frame(CLOSE, (1001).to_bytes(2) + b"bye")]
    assert (socket.over, socket.code, socket.reason, socket.failure) == (True, 1001, "bye", "")


def test_our_close_is_over_when_it_is_answered_with_the_peers_code() -> None:
    socket = plain()
    assert frames.read(socket.close(4000, "done")) == ([Frame(CLOSE, (4000).to_bytes(2) + b"done")], b"")
    assert not socket.over
    assert socket.receive(text("under way")) == ["under way"]
    assert not socket.over
    socket.receive(frames.close(4001, b"seen"))
    assert (socket.over, socket.code, socket.reason, socket.take()) == (True, 4001, "seen", b"")


def test_a_second_close_says_nothing() -> None:
    socket = plain()
    assert socket.close(1000, "") != b""
    assert socket.close(1001, "") == b""


def test_nothing_is_said_behind_the_answer_to_a_close() -> None:
    socket = plain()
    socket.receive(frames.close(1000))
    socket.take()
    assert socket.close(1001, "") == b""


def test_a_fault_behind_our_close_ends_it_without_another() -> None:
    socket = plain()
    socket.close(1000, "")
    socket.receive(frame(3))
    assert (socket.over, socket.take()) == (True, b"")
    assert "opcode" in socket.failure


def test_pings_are_answered_behind_our_close() -> None:
    socket = plain()
    socket.close(1000, "")
    socket.receive(frame(PING, b"there?"))
    assert written(socket) == ([Frame(PONG, b"there?")] if LIBRARY >= 15 else [])


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        *((code, "") for code in (-1, 0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 1 << 16, 1 << 80)),
        (1000, "a" * 124),
        (1000, "\u00e4" * 62),
        (1000, "\ud800"),
    ],
)
def test_a_close_that_may_not_be_sent_is_refused_and_leaves_no_trace(code: int, reason: str) -> None:
    socket = plain()
    with pytest.raises(ValueError):
        socket.close(code, reason)
    assert frames.read(socket.send("still open")) == ([Frame(TEXT, b"still open")], b"")
    assert socket.receive(text("here too")) == ["here too"]
    assert frames.read(socket.close(1000, "a" * 123))[0][0].close == (1000, "a" * 123)


# Limits, hardening: message over the limit, permessage-deflate bomb


def test_a_message_of_the_limit_is_none_too_many() -> None:
    assert plain().receive(frames.binary(bytes(LIMIT))) == [bytes(LIMIT)]
    fragments = frame(BINARY, bytes(LIMIT), fin=False) + frame(CONTINUATION, b"", fin=False) + frame(CONTINUATION, b"")
    assert plain().receive(fragments * 2) == [bytes(LIMIT)] * 2


@pytest.mark.parametrize(
    "data",
    [
        frames.binary(bytes(LIMIT + 1)),
        frames.binary(bytes(LIMIT + 200)),
        frame(BINARY, bytes(LIMIT), fin=False) + frame(CONTINUATION, b"a"),
        frame(BINARY, bytes(LIMIT), fin=False) + frame(CONTINUATION, b"", fin=False) + frame(CONTINUATION, bytes(200)),
        frame(BINARY, b"a", fin=False) + frame(CONTINUATION, b"a", fin=False) * LIMIT,
        frame(TEXT, "\u00e4".encode() * (LIMIT // 2), fin=False) + frame(CONTINUATION, b"a"),
    ],
)
def test_a_message_over_the_limit_is_told_1009(data: bytes) -> None:
    socket = plain()
    assert feed(socket, data) == []
    assert ended(socket)[0] == 1009


@pytest.mark.parametrize("size", [LIMIT + 126, 1 << 20, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_a_frame_that_says_it_will_be_too_long_is_told_1009_at_once(size: int) -> None:
    socket = plain()
    socket.receive(frame(BINARY, b"", size=size))
    assert ended(socket)[0] == 1009


def test_a_control_frame_is_of_no_message() -> None:
    # A fragmented message that has all it may have leaves nothing; a ping between its fragments is none of it.
    socket = plain()
    data = frame(BINARY, bytes(LIMIT), fin=False) + frame(PING, bytes(125)) + frame(CONTINUATION, b"")
    assert socket.receive(data) == [bytes(LIMIT)]
    assert written(socket) == [Frame(PONG, bytes(125))]


@pytest.mark.parametrize("options", [{}, {"remote_no_context_takeover": True}])
def test_the_limit_counts_what_is_inflated(options: dict[str, Any]) -> None:
    socket = compressing(**options)
    whole = frame(BINARY, deflate(LIMIT), reserved=RSV1)
    assert socket.receive(whole * 3) == [bytes(LIMIT)] * 3
    assert socket.receive(frame(BINARY, deflate(LIMIT + 1), reserved=RSV1)) == []
    assert ended(socket)[0] == 1009


BOMB = deflate(50_000_000)
FIRST = deflate(100_000)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(frame(BINARY, BOMB, reserved=RSV1, key=bytes(4)), id="permessage-deflate bomb"),
        pytest.param(frame(BINARY, BOMB[:-9], fin=False, reserved=RSV1, key=bytes(4)), id="in a first fragment"),
        pytest.param(
            frame(BINARY, b"", fin=False, reserved=RSV1) + frame(CONTINUATION, BOMB, key=bytes(4)), id="in a second one"
        ),
        pytest.param(
            frame(BINARY, FIRST, fin=False, reserved=RSV1) + frame(CONTINUATION, BOMB, fin=False, key=bytes(4)),
            id="behind as much as the limit",
        ),
    ],
)
def test_a_bomb_is_told_1009_and_never_inflated(data: bytes) -> None:
    socket = compressing(100_000)
    tracemalloc.start()
    try:
        assert feed(socket, data) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert ended(socket)[0] == 1009
    assert peak < 1_000_000


def test_a_bomb_behind_a_fragmented_message_of_exactly_the_limit_is_never_inflated() -> None:
    # For zlib a bound of 0, which is what the message has left, would be none.
    bomb = deflate(100_000)
    assert len(bomb) <= 125  # else its length alone would be over the limit
    compressor = zlib.compressobj(level=9, wbits=-12)
    first = compressor.compress(bytes(LIMIT)) + compressor.flush(zlib.Z_FULL_FLUSH)
    socket = compressing()
    assert socket.receive(frame(BINARY, first, fin=False, reserved=RSV1)) == []
    assert not socket.over
    tracemalloc.start()
    try:
        assert socket.receive(frame(CONTINUATION, bomb)) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert ended(socket)[0] == 1009
    assert peak < 50_000


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", b"\x07", b"not deflate"])
def test_what_does_not_inflate_is_told_1002(data: bytes) -> None:
    socket = compressing()
    assert socket.receive(frame(TEXT, data, reserved=RSV1)) == []
    assert ended(socket)[0] == 1002


def test_bad_utf_8_that_was_compressed_is_told_1007() -> None:
    socket = compressing()
    assert socket.receive(frame(TEXT, frames.deflate(b"\xff", bits=12), reserved=RSV1)) == []
    assert ended(socket)[0] == 1007


def test_a_later_fragment_does_not_say_that_it_is_compressed() -> None:
    payload = frames.deflate(b"message", bits=12)
    socket = compressing()
    data = frame(TEXT, payload[:3], fin=False, reserved=RSV1) + frame(CONTINUATION, payload[3:], reserved=RSV1)
    messages = socket.receive(data)
    if socket.over or LIBRARY >= 17:  # versions before do not mind it
        assert messages == []
        assert ended(socket)[0] == 1002


# How much is done at a time


@pytest.mark.parametrize("one", [text(""), frames.binary(b"a"), frame(PING, b"a"), frame(PONG)])
def test_very_many_frames_of_one_read_are_taken_in_turns(one: bytes) -> None:
    socket = plain()
    count = 10_000
    messages, answers, turns, rest = 0, 0, 0, one * count
    while rest:
        before = len(rest)
        messages += len(socket.receive(rest))
        answers += len(written(socket))
        rest = socket.rest
        assert before - len(rest) <= (WORK // FRAME_WORK + 1) * len(one)
        turns += 1
    assert messages + answers in (count, 0)
    assert turns == pytest.approx(count * FRAME_WORK / WORK, abs=2)


def test_what_one_read_inflates_to_is_taken_in_turns() -> None:
    socket = compressing(WORK)
    one = frame(BINARY, deflate(WORK // 2), reserved=RSV1)
    turns = [len(socket.receive(one * 20))]
    while socket.rest:
        turns.append(len(socket.receive(socket.rest)))
    assert sum(turns) == 20
    assert max(turns) <= 3


def test_work_is_counted_over_several_calls() -> None:
    socket = plain()
    socket.receive(text("") * 10)
    assert socket.work == WORK - 10 * FRAME_WORK
    assert len(socket.receive(text("") * 10, 3 * FRAME_WORK)) == 4
    assert (socket.work, socket.rest) == (-FRAME_WORK, text("") * 6)


def test_what_is_left_of_a_read_is_forgotten_behind_a_close() -> None:
    socket = plain()
    socket.receive(frames.close(1000) + text("") * 5000)
    assert (socket.over, socket.rest) == (True, b"")


@pytest.mark.parametrize("size", [1, 5, 6, 7, 4096])
def test_turns_lose_no_part_of_a_frame(size: int) -> None:
    messages = [f"{number}" for number in range(3000)]
    data = b"".join(map(text, messages))
    socket = plain()
    got: list[str | bytes] = []
    rest = b""
    for at in range(0, len(data), size):
        got += socket.receive(rest + data[at : at + size])
        rest = socket.rest
    assert got + feed(socket, rest) == messages


# Compression


def test_compression_takes_no_memory_before_it_is_used() -> None:
    tracemalloc.start()
    try:
        made = [agreed() for _ in range(100)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100 * 5000
    assert not [one for one in made if {"encoder", "decoder"} & set(vars(one))]


def test_each_half_of_compression_is_made_when_it_is_needed() -> None:
    deflate_ = agreed()
    socket = WebSocket(LIMIT, deflate_)
    socket.send(b"a" * (COMPRESSED_SIZE - 1))
    socket.receive(text("plain"))
    assert not {"encoder", "decoder"} & set(vars(deflate_))
    socket.receive(frame(TEXT, frames.deflate(b"a", bits=12), reserved=RSV1))
    assert "decoder" in vars(deflate_)
    assert "encoder" not in vars(deflate_)
    socket.send(b"a" * COMPRESSED_SIZE)
    assert "encoder" in vars(deflate_)


def test_compression_has_no_other_attributes() -> None:
    with pytest.raises(AttributeError, match="level"):
        agreed().__getattr__("level")


@pytest.mark.parametrize(("size", "reserved"), [(0, 0), (COMPRESSED_SIZE - 1, 0), (COMPRESSED_SIZE, RSV1)])
def test_small_messages_are_not_compressed(size: int, reserved: int) -> None:
    for message in ("a" * size, b"a" * size):
        [sent], _ = frames.read(compressing().send(message))
        assert sent.reserved == reserved
        assert (frames.inflate(sent.payload) if reserved else sent.payload) == b"a" * size


def test_control_frames_are_not_compressed() -> None:
    socket = compressing()
    socket.receive(frame(PING, bytes(125)))
    assert written(socket) == [Frame(PONG, bytes(125))]
    [ping], _ = frames.read(socket.ping())
    assert ping.reserved == 0
    assert frames.read(socket.close(1000, "a" * 123))[0][0].reserved == 0


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("remote", [False, True])
def test_compression_goes_both_ways_with_and_without_context(local: bool, remote: bool) -> None:
    socket = compressing(100_000, local_no_context_takeover=local, remote_no_context_takeover=remote)
    other = PerMessageDeflate(local, remote, 12, 12)
    message = bytes(index % 97 for index in range(5000))
    sizes = []
    for _ in range(3):
        compressed = other.encode(LibraryFrame(BINARY, message))  # type: ignore[arg-type]
        half = len(compressed.data) // 2
        data = bytes(compressed.data)
        fragments = frame(BINARY, data[:half], fin=False, reserved=RSV1) + frame(CONTINUATION, data[half:])
        assert socket.receive(fragments) == [message]
        [sent], _ = frames.read(socket.send(message))
        sizes.append(len(sent.payload))
        got = other.decode(LibraryFrame(BINARY, sent.payload, rsv1=True))  # type: ignore[arg-type]
        assert bytes(got.data) == message
    assert (sizes[1] == sizes[0]) is local


def taken(make: Callable[[], Any]) -> int:
    """Bytes that what is made takes, zlib's own among them."""
    tracemalloc.start()
    try:
        made = make()
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    del made
    return size


@pytest.mark.parametrize("local", [False, True])
def test_compression_takes_less_until_a_message_is_large_and_the_peer_sees_no_difference(local: bool) -> None:
    small, large = b"%d " * 300, random.Random(1).randbytes(5000)
    socket = compressing(100_000, local_no_context_takeover=local)
    other = PerMessageDeflate(local, False, 12, 12)
    sizes = []
    for message in (small, small, large, small, large, small):
        [sent], _ = frames.read(socket.send(message))
        sizes.append(len(sent.payload))
        got = other.decode(LibraryFrame(BINARY, sent.payload, rsv1=True))  # type: ignore[arg-type]
        assert bytes(got.data) == message
    # Each of the first two compressors begins without a context, and only they do.
    assert (sizes[1] < sizes[0]) is not local
    assert sizes[3] == sizes[0]
    assert (sizes[5] < sizes[3]) is not local


def test_small_messages_take_8_kib_less_for_compression_than_is_stated() -> None:
    def use(*messages: bytes) -> WebSocket:
        socket = compressing(100_000)
        for message in messages:
            socket.send(message)
        return socket

    small, large = bytes(4096), random.Random(1).randbytes(5000)
    use(small)
    assert taken(lambda: use(small, small)) < taken(lambda: use(small, large, small)) - 8000
    assert taken(lambda: use(small, large, small)) == pytest.approx(taken(lambda: use(large, small)), abs=500)


@pytest.mark.parametrize("bits", range(9, 16))
def test_the_memory_of_compression_is_not_more_than_stated(bits: int) -> None:
    stated = deflate_memory(bits, bits)
    assert agreed(local_max_window_bits=bits, remote_max_window_bits=bits).memory == stated
    # zlib.h: 1 << (windowBits + 2) and 1 << (memLevel + 9) for the one, 1 << windowBits and 7 KiB for the other
    assert stated >= (1 << (bits + 2)) + (1 << (websocket.MEMORY_LEVEL + 9)) + (1 << bits) + 7 * 1024


# Ping and pong


@pytest.mark.parametrize("size", [0, 1, 125])
def test_a_ping_is_answered_with_what_it_says(size: int) -> None:
    socket = plain()
    assert socket.receive(frame(PING, b"p" * size)) == []
    assert written(socket) == [Frame(PONG, b"p" * size)]


def test_each_ping_of_ours_is_another_and_its_own_pong_answers_it() -> None:
    socket = plain()

    def seen() -> bool:
        return socket.answered

    assert seen() is True
    [first], _ = frames.read(socket.ping())
    assert (first.opcode, seen()) == (PING, False)
    socket.receive(frame(PONG, b"") + frame(PONG, b"else"))
    assert seen() is False
    [second], _ = frames.read(socket.ping())
    assert second.payload != first.payload
    socket.receive(frame(PONG, first.payload))
    assert seen() is False
    socket.receive(frame(PONG, second.payload))
    assert seen() is True
    socket.receive(frame(PONG, b"unasked"))
    assert seen() is True
    assert socket.take() == b""


# Out


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_a_message_leaves_in_one_frame(size: int) -> None:
    assert frames.read(plain().send(b"a" * size)) == ([Frame(BINARY, b"a" * size)], b"")
    assert frames.read(plain().send("a" * size)) == ([Frame(TEXT, b"a" * size)], b"")


@pytest.mark.parametrize("kind", [str, bytes])
def test_a_message_that_has_left_is_not_kept(kind: type) -> None:
    socket = plain()

    def use() -> None:
        socket.send("a" * 100_000 if kind is str else b"a" * 100_000)

    assert taken(use) < 10_000


def test_text_with_surrogates_is_refused_and_leaves_no_trace() -> None:
    socket = compressing()
    with pytest.raises(UnicodeEncodeError):
        socket.send("\ud800" * 200)
    assert frames.read(socket.send("fine")) == ([Frame(TEXT, b"fine")], b"")


# Any bytes at all


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[start:stop] for start, stop in pairwise(edges)]


payloads = st.binary(max_size=20) | st.sampled_from([b"\xe2\x82\xac", b"\xe2\x82", b"\xff", bytes(LIMIT), bytes(126)])
any_frame = st.builds(
    frame,
    st.sampled_from([TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG]) | st.integers(0, 15),
    payloads,
    fin=st.booleans(),
    reserved=st.sampled_from([0, 0, 0, 0, RSV1, RSV2, RSV3]),
    key=st.sampled_from([b"\x01\x02\x03\x04"] * 5 + [None]),
)
good_text = st.text(max_size=20).map(lambda message: message.encode())
good_frame = (
    st.builds(text, st.text(max_size=20))
    | st.builds(frames.binary, st.binary(max_size=200))
    | st.builds(
        lambda a, b: frame(TEXT, a, fin=False) + frame(PING, b"p") + frame(CONTINUATION, b), good_text, good_text
    )
    | st.builds(lambda a: frame(BINARY, frames.deflate(a, bits=12), reserved=RSV1), st.binary(max_size=200))
    | st.builds(frames.close, st.sampled_from([1000, 1001, 4000]), st.just(b"bye"))
)
inputs = st.lists(any_frame | good_frame, max_size=8).map(b"".join) | st.lists(good_frame).map(b"".join) | st.binary()


def story(socket: WebSocket, pieces: list[bytes]) -> tuple[Any, ...]:
    messages: list[str | bytes] = []
    sent = b""
    for piece in pieces:
        messages += feed(socket, piece)
        sent += socket.take()
    return messages, sent, socket.over, socket.code, socket.reason, bool(socket.failure)


@settings(max_examples=400)
@given(data=inputs, places=st.lists(st.integers(0, 10_000), max_size=6), deflating=st.booleans())
def test_any_split_of_any_bytes_gives_the_same_messages_and_nothing_is_raised(
    data: bytes, places: list[int], deflating: bool
) -> None:
    made = [compressing() if deflating else plain() for _ in range(3)]
    whole = story(made[0], [data])
    assert story(made[1], cut(data, places)) == whole
    assert story(made[2], [data[at : at + 1] for at in range(len(data))]) == whole
    # What goes out is frames, with nothing behind a Close.
    sent, rest = frames.read(whole[1])
    assert rest == b""
    assert CLOSE not in [one.opcode for one in sent[:-1]]
    if whole[2]:
        assert sent[-1].opcode == CLOSE


@settings(max_examples=200)
@given(st.lists(st.text(max_size=300) | st.binary(max_size=300), max_size=10), st.booleans())
def test_messages_make_the_round_trip_with_the_librarys_client(messages: list[str | bytes], deflating: bool) -> None:
    client = Protocol(CLIENT)
    socket = WebSocket(LIMIT * 10, agreed() if deflating else None)
    if deflating:
        client.extensions = [PerMessageDeflate(False, False, 12, 12)]
    for message in messages:
        if isinstance(message, str):
            client.send_text(message.encode())
        else:
            client.send_binary(message)
    assert socket.receive(b"".join(client.data_to_send())) == messages
    for message in messages:
        client.receive_data(socket.send(message))
    got = [bytes(event.data) for event in client.events_received() if isinstance(event, LibraryFrame)]
    assert got == [message.encode() if isinstance(message, str) else message for message in messages]
    client.receive_data(socket.close(4000, "bye"))
    socket.receive(b"".join(client.data_to_send()))
    assert (socket.over, socket.code, socket.reason) == (True, 4000, "bye")
    assert client.close_rcvd is not None
    assert client.close_rcvd.reason == "bye"
