"""RFC 9113 sections 4.1, 4.2, 5.5: frames of any kind."""

import pytest

from tests.conformance.http2 import frames
from tests.conformance.http2.client import Client
from tests.conformance.http2.fields import REQUEST, plain
from tests.conformance.http2.frames import MAX_FRAME_SIZE, Code, Flag, Kind, Setting, frame

FULL = bytes(MAX_FRAME_SIZE)


@pytest.mark.parametrize("kind", [0xA, 0xB, 0xC, 0xF, 0x21, 0x7F, 0xFF])
@pytest.mark.parametrize("payload", [b"", b"what is this", FULL], ids=["empty", "short", "full"])
@pytest.mark.parametrize("stream", [0, 1, 2, 2**31 - 1])
def test_frames_of_unknown_types_are_ignored(client: Client, kind: int, payload: bytes, stream: int) -> None:
    """4.1, 5.5: whatever their flags, and without opening a stream."""
    client.send(frame(kind, payload, stream=stream, flags=0xFF))
    client.expect_alive()


def test_an_unknown_frame_within_a_request(client: Client) -> None:
    """5.5: between the frames of a stream."""
    stream = client.ask(method=b"POST", end=False)
    client.send(frame(0x7F, b"x", stream=stream), frames.data(stream, b"body", end=True))
    assert client.expect_answer(stream).told["body"] == "body"


def test_an_unknown_frame_within_a_field_block(client: Client) -> None:
    """5.5: there it is a connection error of type PROTOCOL_ERROR."""
    client.send(frames.headers(1, REQUEST[:1], whole=False), frame(0x7F, b"x"), frames.continuation(1, REQUEST[1:]))
    client.expect_goaway(Code.PROTOCOL_ERROR)


@pytest.mark.parametrize(
    "sent",
    [
        frame(Kind.PING, bytes(8), flags=0xFE),
        frame(Kind.SETTINGS, flags=0xFE),
        frame(Kind.WINDOW_UPDATE, b"\0\0\0\1", flags=0xFF),
        frame(Kind.PRIORITY, frames.dependency(0), stream=1, flags=0xFF),
    ],
    ids=lambda sent: Kind(sent[3]).name,
)
def test_undefined_flags_are_ignored(client: Client, sent: bytes) -> None:
    """4.1: PING and SETTINGS know ACK alone, WINDOW_UPDATE and PRIORITY none."""
    client.send(sent)
    client.expect_alive()


def test_undefined_flags_of_headers_and_data(client: Client) -> None:
    """4.1."""
    client.send(frame(Kind.HEADERS, REQUEST, stream=1, flags=Flag.END_HEADERS | 0x52))
    client.send(frame(Kind.DATA, b"body", stream=1, flags=Flag.END_STREAM | 0xF6))
    assert client.expect_answer(1).told["body"] == "body"
    client.expect_alive()


def test_undefined_flags_of_rst_stream(client: Client) -> None:
    """4.1."""
    stream = client.ask(b"/hold")
    client.send(frame(Kind.RST_STREAM, Code.CANCEL.to_bytes(4), stream=stream, flags=0xFF))
    client.expect_alive()


def test_the_reserved_bit_of_a_frame_is_ignored(client: Client) -> None:
    """4.1: in the streams of HEADERS, PING, SETTINGS and WINDOW_UPDATE."""
    client.send(frame(Kind.HEADERS, REQUEST, stream=1, flags=Flag.END_HEADERS | Flag.END_STREAM, reserved=True))
    client.expect_answer(1)
    client.send(frame(Kind.PING, bytes(8), reserved=True), frame(Kind.SETTINGS, reserved=True))
    client.send(frame(Kind.WINDOW_UPDATE, b"\0\0\0\1", reserved=True))
    client.expect_alive()


def test_the_reserved_bit_of_an_increment_is_ignored(client: Client) -> None:
    """6.9."""
    client.send(frame(Kind.WINDOW_UPDATE, b"\x80\0\0\1"))
    client.expect_alive()


def test_data_of_the_largest_size(client: Client) -> None:
    """4.2: 2^14 bytes are taken by everyone."""
    stream = client.post(b"/count", FULL)
    client.expect_answer(stream, body=b"%d" % MAX_FRAME_SIZE)


def test_headers_of_the_largest_size(client: Client) -> None:
    """4.2: 2^14 bytes of one field block, for which several fields are needed."""
    client.send(frames.headers(1, REQUEST + _filler(MAX_FRAME_SIZE - len(REQUEST))))
    client.expect_answer(1)


def _filler(size: int) -> bytes:
    """So many bytes of good fields."""
    block = b""
    while size - len(block) > 4400:
        block += plain([(b"x-filler", b"a" * 4000)])
    rest = size - len(block)
    overhead = len(plain([(b"x-filler", b"a" * 4000)])) - 4000
    return block + plain([(b"x-filler", b"a" * (rest - overhead))])


def test_data_over_the_largest_size(client: Client) -> None:
    """4.2: FRAME_SIZE_ERROR; of the connection or the stream alone."""
    limit = client.ledger.settings.get(Setting.MAX_FRAME_SIZE, MAX_FRAME_SIZE)
    stream = client.ask(method=b"POST", end=False)
    client.send(frames.data(stream, bytes(limit + 1), end=True))
    client.expect_error(stream, Code.FRAME_SIZE_ERROR)


@pytest.mark.parametrize(
    "kind",
    [
        Kind.HEADERS,
        Kind.PRIORITY,
        Kind.RST_STREAM,
        Kind.SETTINGS,
        Kind.PUSH_PROMISE,
        Kind.PING,
        Kind.GOAWAY,
        Kind.WINDOW_UPDATE,
        Kind.CONTINUATION,
        0x7F,
    ],
)
def test_frames_over_the_largest_size(client: Client, kind: int) -> None:
    """4.2: a connection error of type FRAME_SIZE_ERROR for all that can alter the connection's state.

    For unknown frames too: whoever sends them has not been told that they may be larger.
    """
    limit = client.ledger.settings.get(Setting.MAX_FRAME_SIZE, MAX_FRAME_SIZE)
    belongs = kind not in (Kind.SETTINGS, Kind.PING, Kind.GOAWAY)
    flags = Flag.END_HEADERS if kind in (Kind.HEADERS, Kind.CONTINUATION, Kind.PUSH_PROMISE) else Flag.NONE
    client.send(frame(kind, bytes(limit + 1), stream=int(belongs), flags=flags))
    client.expect_goaway(Code.FRAME_SIZE_ERROR, Code.PROTOCOL_ERROR)


def test_an_oversized_frame_is_refused_by_its_head(local: Client) -> None:
    """4.2: before its payload has come; else it would have to be kept."""
    local.send(frame(Kind.SETTINGS, length=2**24 - 1))
    local.expect_goaway(Code.FRAME_SIZE_ERROR)
