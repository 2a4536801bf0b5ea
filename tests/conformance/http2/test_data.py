"""RFC 9113 section 6.1: DATA."""

import pytest

from tests.conformance.http2 import frames
from tests.conformance.http2.client import Client
from tests.conformance.http2.frames import Code, Flag, Kind, frame


@pytest.mark.parametrize("pieces", [[b""], [b"body"], [b"bo", b"dy"], [b"", b"body", b""], [b"b", b"", b"ody"]])
def test_a_body_in_pieces(client: Client, pieces: list[bytes]) -> None:
    """6.1: END_STREAM on the last, which may be empty."""
    stream = client.ask(method=b"POST", end=False)
    for place, piece in enumerate(pieces):
        client.send(frames.data(stream, piece, end=place == len(pieces) - 1))
    assert client.expect_answer(stream).told["body"] == b"".join(pieces).decode()


@pytest.mark.parametrize("padding", [0, 1, 100, 255])
@pytest.mark.parametrize("payload", [b"", b"body"])
def test_padding_is_taken_off(client: Client, padding: int, payload: bytes) -> None:
    """6.1."""
    stream = client.ask(method=b"POST", end=False)
    client.send(frames.data(stream, payload, end=True, padding=padding))
    assert client.expect_answer(stream).told["body"] == payload.decode()


def test_padding_counts_for_the_windows(client: Client) -> None:
    """6.1: what is padding is credit too, and comes back: more of it is sent than any window holds."""
    stream = client.ask(b"/count", method=b"POST", end=False)
    granted = client.ledger.settings.get(frames.Setting.INITIAL_WINDOW_SIZE, frames.WINDOW)
    sent, padded = 0, frames.data(stream, b"x" * 1000, padding=255)
    while sent < 2 * max(granted, frames.WINDOW):
        client.send(padded)
        sent += 1256
        answer = client.ledger.answer(stream)
        if sent - answer.updates > granted - 2000 or sent - client.ledger.updates > frames.WINDOW - 2000:
            client.until(
                lambda answer=answer, sent=sent: (  # type: ignore[misc]
                    sent - answer.updates <= granted - 2000 and sent - client.ledger.updates <= frames.WINDOW - 2000
                ),
                "credit",
            )
    client.send(frames.data(stream, end=True))
    client.expect_answer(stream, body=b"%d" % (sent // 1256 * 1000))


@pytest.mark.parametrize(
    "payload",
    [b"\x01", b"\x05body", b"\xffbody", b"\x04abc"],
    ids=["of-nothing", "one-too-many", "most", "as-long-as-the-payload"],
)
def test_more_padding_than_payload(client: Client, payload: bytes) -> None:
    """6.1: a connection error of type PROTOCOL_ERROR."""
    stream = client.ask(method=b"POST", end=False)
    client.send(frame(Kind.DATA, payload, stream=stream, flags=Flag.PADDED | Flag.END_STREAM))
    client.expect_goaway(Code.PROTOCOL_ERROR)


def test_padded_and_empty(client: Client) -> None:
    """6.1, 4.2: no room for the length of the padding: FRAME_SIZE_ERROR, or the PROTOCOL_ERROR of padding."""
    stream = client.ask(method=b"POST", end=False)
    client.send(frame(Kind.DATA, b"", stream=stream, flags=Flag.PADDED | Flag.END_STREAM))
    client.expect_goaway(Code.FRAME_SIZE_ERROR, Code.PROTOCOL_ERROR)


@pytest.mark.parametrize("payload", [b"", b"x"])
def test_data_on_no_stream(client: Client, payload: bytes) -> None:
    """6.1: a connection error of type PROTOCOL_ERROR."""
    client.send(frames.data(0, payload, end=True))
    client.expect_goaway(Code.PROTOCOL_ERROR)
