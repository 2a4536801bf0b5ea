"""RFC 9113 sections 6.2, 6.10, 4.3: HEADERS and CONTINUATION."""

import pytest

from tests.conformance.http2 import frames
from tests.conformance.http2.client import Client
from tests.conformance.http2.fields import REQUEST
from tests.conformance.http2.frames import Code, Flag, Kind, Setting, frame

PRIORITISED = Flag.END_HEADERS | Flag.END_STREAM | Flag.PRIORITY


@pytest.mark.parametrize("padding", [0, 1, 255])
def test_padding_is_taken_off(client: Client, padding: int) -> None:
    """6.2."""
    client.headers(1, padding=padding)
    client.expect_answer(1)


def test_padding_and_a_priority(client: Client) -> None:
    """6.2: both before the block."""
    payload = bytes((7,)) + frames.dependency(0) + REQUEST + bytes(7)
    client.send(frame(Kind.HEADERS, payload, stream=1, flags=PRIORITISED | Flag.PADDED))
    client.expect_answer(1)


@pytest.mark.parametrize("padding", [len(REQUEST) + 1, 255])
def test_more_padding_than_payload(client: Client, padding: int) -> None:
    """6.2: a connection error of type PROTOCOL_ERROR."""
    flags = Flag.END_HEADERS | Flag.END_STREAM | Flag.PADDED
    client.send(frame(Kind.HEADERS, bytes((padding,)) + REQUEST, stream=1, flags=flags))
    client.expect_goaway(Code.PROTOCOL_ERROR)


@pytest.mark.parametrize("flags", [Flag.PADDED, Flag.PRIORITY, Flag.PADDED | Flag.PRIORITY])
@pytest.mark.parametrize("size", [0, 4])
def test_too_short_for_what_its_flags_announce(client: Client, flags: Flag, size: int) -> None:
    """4.2, 6.2: a connection error; of type FRAME_SIZE_ERROR, or PROTOCOL_ERROR where padding is at fault."""
    payload = b"\x09" + REQUEST[:3] if flags is Flag.PADDED and size else bytes(size)
    client.send(frame(Kind.HEADERS, payload, stream=1, flags=flags | Flag.END_HEADERS | Flag.END_STREAM))
    client.expect_goaway(Code.FRAME_SIZE_ERROR, Code.PROTOCOL_ERROR)


def test_headers_on_no_stream(client: Client) -> None:
    """6.2: a connection error of type PROTOCOL_ERROR."""
    client.send(frames.headers(0, REQUEST))
    client.expect_goaway(Code.PROTOCOL_ERROR)


def test_an_empty_block(client: Client) -> None:
    """8.3.1: a request without its pseudo-fields is malformed."""
    client.send(frames.headers(1, b""))
    client.expect_malformed(1)


# 6.10, 4.3


@pytest.mark.parametrize("sizes", [[1], [3], [1, 1, 1], [0], [0, 0, 5], [len(REQUEST)]])
def test_a_block_in_pieces(client: Client, sizes: list[int]) -> None:
    """6.10: CONTINUATION frames, some of them empty, the last with END_HEADERS."""
    client.send(frames.headers(1, REQUEST[: sizes[0]], whole=False))
    place = sizes[0]
    for size in sizes[1:]:
        client.send(frames.continuation(1, REQUEST[place : place + size], whole=False))
        place += size
    client.send(frames.continuation(1, REQUEST[place:]))
    client.expect_answer(1)
    client.expect_alive()


def test_a_block_in_pieces_before_a_body(client: Client) -> None:
    """6.10: the stream goes on behind it."""
    client.send(frames.headers(1, REQUEST[:2], end=False, whole=False), frames.continuation(1, REQUEST[2:]))
    client.send(frames.data(1, b"body", end=True))
    assert client.expect_answer(1).told["body"] == "body"


def test_continuation_has_no_end_stream(client: Client) -> None:
    """6.10: its only flag is END_HEADERS; the bit of END_STREAM is ignored."""
    client.send(frames.headers(1, REQUEST[:2], end=False, whole=False))
    client.send(frame(Kind.CONTINUATION, REQUEST[2:], stream=1, flags=Flag.END_HEADERS | Flag.END_STREAM | 0x8))
    client.send(frames.data(1, b"body", end=True))
    assert client.expect_answer(1).told["body"] == "body"


def test_padded_headers_that_go_on(client: Client) -> None:
    """6.2, 6.10."""
    client.send(frames.headers(1, REQUEST[:5], whole=False, padding=9), frames.continuation(1, REQUEST[5:]))
    client.expect_answer(1)


INTERLEAVED = {
    "DATA": frames.data(1, b"x"),
    "HEADERS": frames.headers(1, REQUEST),
    "HEADERS-of-another": frames.headers(3, REQUEST),
    "PRIORITY": frames.priority(1),
    "PRIORITY-of-another": frames.priority(3),
    "RST_STREAM": frames.rst_stream(1),
    "SETTINGS": frames.settings(),
    "SETTINGS-ACK": frames.SETTINGS_ACK,
    "PUSH_PROMISE": frame(Kind.PUSH_PROMISE, b"\0\0\0\2" + REQUEST, stream=1, flags=Flag.END_HEADERS),
    "PING": frames.ping(),
    "GOAWAY": frames.goaway(),
    "WINDOW_UPDATE": frames.window_update(0, 1),
    "CONTINUATION-of-another": frames.continuation(3, REQUEST[2:]),
    "CONTINUATION-of-none": frames.continuation(0, REQUEST[2:]),
    "PRIORITY_UPDATE": frames.priority_update(1),
}


@pytest.mark.parametrize("sent", INTERLEAVED.values(), ids=INTERLEAVED)
@pytest.mark.parametrize("continued", [False, True])
def test_another_frame_within_a_block(client: Client, sent: bytes, continued: bool) -> None:
    """4.3, 6.2, 6.10: a connection error of type PROTOCOL_ERROR."""
    client.send(frames.headers(1, REQUEST[:1], whole=False))
    if continued:
        client.send(frames.continuation(1, REQUEST[1:2], whole=False))
    client.send(sent)
    client.expect_goaway(Code.PROTOCOL_ERROR)


def test_continuation_alone(client: Client) -> None:
    """6.10: behind whole HEADERS a connection error of type PROTOCOL_ERROR."""
    client.send(frames.headers(1, REQUEST, end=False), frames.continuation(1, REQUEST))
    client.expect_goaway(Code.PROTOCOL_ERROR)


def test_continuation_behind_the_last(client: Client) -> None:
    """6.10."""
    client.send(frames.headers(1, REQUEST[:1], end=False, whole=False), frames.continuation(1, REQUEST[1:]))
    client.send(frames.continuation(1, REQUEST))
    client.expect_goaway(Code.PROTOCOL_ERROR)


def test_continuation_behind_data(client: Client) -> None:
    """6.10."""
    stream = client.post(b"/", b"x", end=False)
    client.send(frames.continuation(stream, REQUEST))
    client.expect_goaway(Code.PROTOCOL_ERROR)


@pytest.mark.parametrize("whole", [False, True])
def test_continuation_on_no_stream(client: Client, whole: bool) -> None:
    """6.10: a connection error of type PROTOCOL_ERROR."""
    client.send(frames.headers(1, REQUEST[:1], whole=False), frames.continuation(0, REQUEST[1:], whole=whole))
    client.expect_goaway(Code.PROTOCOL_ERROR)


def test_a_connection_that_ends_within_a_block(client: Client) -> None:
    """6.10: nothing comes of it."""
    client.send(frames.headers(1, REQUEST[:1], whole=False))
    client.pipe.end()
    client.expect_closed()
    assert client.ledger.answer(1).status == 0


def test_an_enormous_block(client: Client) -> None:
    """10.5.1: over the server's SETTINGS_MAX_HEADER_LIST_SIZE: 431, or the stream or connection is given up."""
    limit = client.ledger.settings[Setting.MAX_HEADER_LIST_SIZE]
    stream = client.ask(b"/", *((b"x-%d" % number, b"y" * 1000) for number in range(limit // 1000 + 1)))
    answer, goaways = client.ledger.answer(stream), client.ledger.goaways
    client.until(lambda: answer.ended or answer.reset is not None or bool(goaways), "an answer or an error")
    assert answer.status in (0, 431)
