"""RFC 9113 sections 6.3, 6.4, 6.6, 6.7, 6.8, 7: PRIORITY, RST_STREAM, PUSH_PROMISE, PING, GOAWAY, error codes."""

import pytest

from tests.conformance.http2 import frames
from tests.conformance.http2.client import Client
from tests.conformance.http2.fields import REQUEST
from tests.conformance.http2.frames import Code, Flag, Kind, Setting, frame

# 6.3 PRIORITY


def test_priority_on_no_stream(client: Client) -> None:
    """6.3: a connection error of type PROTOCOL_ERROR."""
    client.send(frames.priority(0))
    client.expect_goaway(Code.PROTOCOL_ERROR)


@pytest.mark.parametrize("size", [0, 1, 4, 6, 10])
def test_priority_of_a_wrong_length(client: Client, size: int) -> None:
    """6.3: a stream error of type FRAME_SIZE_ERROR."""
    stream = client.ask(b"/hold")
    client.send(frame(Kind.PRIORITY, bytes(size), stream=stream))
    client.expect_stream_error(stream, Code.FRAME_SIZE_ERROR)


def test_priority_of_a_wrong_length_on_an_idle_stream(client: Client) -> None:
    """6.3: RST_STREAM cannot be sent on an idle stream, so the error is the connection's, or ends that stream."""
    client.send(frame(Kind.PRIORITY, bytes(4), stream=1))
    client.expect_error(1, Code.FRAME_SIZE_ERROR)


# 6.4 RST_STREAM


def test_rst_stream_on_no_stream(client: Client) -> None:
    """6.4: a connection error of type PROTOCOL_ERROR."""
    client.send(frames.rst_stream(0))
    client.expect_goaway(Code.PROTOCOL_ERROR)


@pytest.mark.parametrize("size", [0, 3, 5, 8])
def test_rst_stream_of_a_wrong_length(client: Client, size: int) -> None:
    """6.4: a connection error of type FRAME_SIZE_ERROR."""
    stream = client.ask(b"/hold")
    client.send(frame(Kind.RST_STREAM, bytes(size), stream=stream))
    client.expect_goaway(Code.FRAME_SIZE_ERROR)


@pytest.mark.parametrize("path", [b"/hold", b"/begun", b"/bytes?1000000"])
def test_nothing_is_sent_behind_rst_stream(client: Client, path: bytes) -> None:
    """6.4: whatever the server had for the stream."""
    stream = client.ask(path)
    client.sync()
    client.send(frames.rst_stream(stream))
    client.sync()
    before = len(client.ledger.answer(stream).body)
    client.grant(0, 1_000_000)
    client.ledger.grant(stream, 1_000_000)
    client.send(frames.window_update(stream, 1_000_000))
    client.expect_alive()
    answer = client.ledger.answer(stream)
    assert not answer.ended
    assert len(answer.body) == before


def test_an_application_is_told_of_rst_stream(local: Client) -> None:
    """6.4: with its code."""
    stream = local.post(b"/hold", b"half", end=False)
    local.send(frames.rst_stream(stream, Code.CANCEL))
    local.expect_alive()
    assert local.pipe.exchanges[stream].lost == Code.CANCEL  # type: ignore[attr-defined]


@pytest.mark.parametrize("code", [*Code, 0xE, 0xFF, 0xFFFF_FFFF])
def test_any_error_code_in_rst_stream(client: Client, code: int) -> None:
    """7: unknown codes trigger nothing special."""
    stream = client.ask(b"/hold")
    client.send(frames.rst_stream(stream, code))
    client.expect_alive()


# 6.6 PUSH_PROMISE


@pytest.mark.parametrize("stream", [0, 1, 2, 3])
def test_a_client_cannot_push(client: Client, stream: int) -> None:
    """6.6, 8.4: a connection error of type PROTOCOL_ERROR."""
    client.ask(b"/hold")
    client.send(frame(Kind.PUSH_PROMISE, b"\0\0\0\2" + REQUEST, stream=stream, flags=Flag.END_HEADERS))
    client.expect_goaway(Code.PROTOCOL_ERROR)


# 6.7 PING


@pytest.mark.parametrize("payload", [b"payload.", bytes(8), b"\xff" * 8])
def test_ping_is_answered(client: Client, payload: bytes) -> None:
    """6.7: with the same payload."""
    client.send(frames.ping(payload))
    client.until(lambda: payload in client.ledger.pongs, "the answer to PING")


def test_each_ping_is_answered_once_and_in_order(client: Client) -> None:
    """6.7."""
    payloads = [b"order%03d" % number for number in range(20)]
    client.send(*map(frames.ping, payloads))
    client.sync()
    assert client.ledger.pongs[:-1] == payloads


def test_an_answer_to_ping_is_not_answered(client: Client) -> None:
    """6.7: one that was never asked for is nothing either."""
    client.send(frames.ping(b"no ping!", ack=True))
    client.sync()
    assert b"no ping!" not in client.ledger.pongs
    client.expect_alive()


def test_ping_is_answered_while_an_answer_waits(client: Client) -> None:
    """6.7: windows do not hold it up."""
    client.ask(b"/bytes?1000000")
    client.sync()
    client.sync()


@pytest.mark.parametrize("ack", [False, True])
def test_ping_on_a_stream(client: Client, ack: bool) -> None:
    """6.7: a connection error of type PROTOCOL_ERROR."""
    client.send(frame(Kind.PING, bytes(8), stream=1, flags=Flag.ACK if ack else Flag.NONE))
    client.expect_goaway(Code.PROTOCOL_ERROR)


@pytest.mark.parametrize("ack", [False, True])
@pytest.mark.parametrize("size", [0, 6, 7, 9, 16])
def test_ping_of_a_wrong_length(client: Client, size: int, ack: bool) -> None:
    """6.7: a connection error of type FRAME_SIZE_ERROR."""
    client.send(frame(Kind.PING, bytes(size), flags=Flag.ACK if ack else Flag.NONE))
    client.expect_goaway(Code.FRAME_SIZE_ERROR)


# 6.8 GOAWAY


@pytest.mark.parametrize("stream", [1, 2, 3])
def test_goaway_on_a_stream(client: Client, stream: int) -> None:
    """6.8: a connection error of type PROTOCOL_ERROR."""
    client.send(frame(Kind.GOAWAY, bytes(8), stream=stream))
    client.expect_goaway(Code.PROTOCOL_ERROR)


@pytest.mark.parametrize("size", [0, 4, 7])
def test_goaway_that_is_too_short(client: Client, size: int) -> None:
    """4.2: too small for its mandatory fields: a connection error of type FRAME_SIZE_ERROR."""
    client.send(frame(Kind.GOAWAY, bytes(size)))
    client.expect_goaway(Code.FRAME_SIZE_ERROR)


@pytest.mark.parametrize("code", [Code.NO_ERROR, Code.INTERNAL_ERROR, 0xE, 0xFFFF_FFFF])
def test_what_is_under_way_is_finished_behind_goaway(client: Client, code: int) -> None:
    """6.8, 7: whatever the code; then the server closes."""
    stream = client.post(b"/", b"one ", end=False)
    client.send(frames.goaway(code, debug=b"\xff debug"), frames.data(stream, b"two", end=True))
    assert client.expect_answer(stream).told["body"] == "one two"
    client.expect_closed()


def test_an_idle_connection_is_closed_behind_goaway(client: Client) -> None:
    """6.8: nothing more is to come of it."""
    client.expect_answer(client.ask())
    client.send(frames.goaway())
    client.expect_closed()


def test_goaway_again(client: Client) -> None:
    """6.8: more than one may come, as long as the last stream does not grow."""
    stream = client.post(b"/", b"one ", end=False)
    client.send(frames.goaway(last=2), frames.goaway(last=0))
    client.send(frames.ping(), frames.data(stream, b"two", end=True))
    assert client.expect_answer(stream).told["body"] == "one two"
    client.expect_closed()


# 8.4 push by the server


def test_a_client_that_wants_no_push_gets_none(client: Client) -> None:
    """6.5.2, 6.6: the ledger looks at every PUSH_PROMISE."""
    client.set({Setting.ENABLE_PUSH: 0})
    client.expect_answer(client.ask(b"/push"), body=b"pushing")
    client.expect_alive()


def test_a_push(client: Client) -> None:
    """8.4: a promise on the stream of the request, before its answer ends; the promised answer on its own stream."""
    stream = client.ask(b"/push")
    client.expect_answer(stream, body=b"pushing")
    answer = client.answer(2)
    assert dict(answer.promised) == {
        b":method": b"GET",
        b":scheme": client.pipe.scheme,
        b":authority": b"a.example",
        b":path": b"/pushed",
        b"accept": b"*/*",
    }
    assert answer.told["path"] == "/pushed"
    client.expect_alive()


def test_a_push_that_is_not_wanted(client: Client) -> None:
    """8.4: the client resets the promised stream; the rest goes on."""
    client.ask(b"/push")
    client.until(lambda: 2 in client.ledger.answers, "a promise")
    client.send(frames.rst_stream(2, Code.REFUSED_STREAM))
    client.expect_alive()


def test_frames_on_a_promised_stream(client: Client) -> None:
    """5.1 reserved (local): a request there is a connection error of type PROTOCOL_ERROR."""
    client.ask(b"/push")
    client.until(lambda: 2 in client.ledger.answers, "a promise")
    client.send(frames.headers(2, REQUEST))
    client.expect_goaway(Code.PROTOCOL_ERROR, Code.STREAM_CLOSED)
