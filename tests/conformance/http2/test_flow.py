"""RFC 9113 sections 5.2, 6.9: windows.

That the server never sends more than it may is looked at in every test, by the client's ledger.
"""

from collections.abc import Callable

import pytest

from tests.conformance.http2 import frames
from tests.conformance.http2.client import Client
from tests.conformance.http2.frames import MAX_WINDOW, WINDOW, Code, Kind, Setting, frame
from tests.conformance.http2.memory import Memory

Connect = Callable[[], Client]

BODY = 200_000


def sent(client: Client, stream: int) -> int:
    """Bytes of the body that have come once the server has nothing more to say."""
    client.sync()
    client.sync()  # what it began to send before it saw the first PING
    return len(client.ledger.answer(stream).body)


# 6.9 WINDOW_UPDATE


def test_an_increment_of_nothing_for_the_connection(client: Client) -> None:
    """6.9: a connection error of type PROTOCOL_ERROR."""
    client.send(frames.window_update(0, 0))
    client.expect_goaway(Code.PROTOCOL_ERROR)


@pytest.mark.parametrize("path", [b"/hold", b"/begun"])
def test_an_increment_of_nothing_for_a_stream(client: Client, path: bytes) -> None:
    """6.9: a stream error of type PROTOCOL_ERROR."""
    stream = client.ask(path)
    client.send(frames.window_update(stream, 0))
    client.expect_stream_error(stream, Code.PROTOCOL_ERROR, before=False)


@pytest.mark.parametrize("size", [0, 3, 5, 8])
@pytest.mark.parametrize("on", ["connection", "stream"])
def test_window_update_of_a_wrong_length(client: Client, size: int, on: str) -> None:
    """6.9: a connection error of type FRAME_SIZE_ERROR."""
    stream = client.ask(b"/hold") if on == "stream" else 0
    client.send(frame(Kind.WINDOW_UPDATE, b"\1" * size, stream=stream))
    client.expect_goaway(Code.FRAME_SIZE_ERROR)


def test_a_window_update_behind_the_answer(client: Client) -> None:
    """6.9: it may have been under way."""
    stream = client.ask()
    client.expect_answer(stream)
    client.send(frames.window_update(stream, 1000))
    client.expect_alive()


# 6.9.1 the server's sending


def test_no_more_than_the_streams_window(client: Client) -> None:
    """6.9.1: exactly as much as there is, and the rest as it is granted."""
    stream = client.ask(b"/bytes?%d" % BODY)
    client.grant(0, BODY)
    assert sent(client, stream) == WINDOW
    client.grant(stream, 1)
    assert sent(client, stream) == WINDOW + 1
    client.grant(stream, 30_000)
    assert sent(client, stream) == WINDOW + 30_001
    client.grant(stream, BODY)
    assert len(client.expect_answer(stream).body) == BODY


def test_no_more_than_the_connections_window(client: Client) -> None:
    """6.9.1."""
    client.set({Setting.INITIAL_WINDOW_SIZE: BODY})
    stream = client.ask(b"/bytes?%d" % BODY)
    assert sent(client, stream) == WINDOW
    client.grant(0, 1)
    assert sent(client, stream) == WINDOW + 1
    client.grant(0, BODY)
    assert len(client.expect_answer(stream).body) == BODY


def test_streams_share_the_connections_window(client: Client) -> None:
    """6.9.1: and none of them is left out when it grows."""
    streams = [client.ask(b"/bytes?40000") for _ in range(4)]
    assert sum(sent(client, stream) for stream in streams) == WINDOW
    client.grant(0, 4 * 40_000 - WINDOW)
    for stream in streams:
        assert len(client.expect_answer(stream).body) == 40_000


def test_a_stream_without_window_does_not_hold_up_others(client: Client) -> None:
    """5.2: the connection's window is there for the others."""
    client.set({Setting.INITIAL_WINDOW_SIZE: 0})
    held = client.ask(b"/bytes?10")
    free = client.ask(b"/bytes?10")
    client.grant(free, 10)
    assert len(client.expect_answer(free).body) == 10
    assert sent(client, held) == 0
    assert client.ledger.answer(held).status == 200


def test_answers_without_content_need_no_window(client: Client) -> None:
    """6.9.1: HEADERS are not flow-controlled, nor is an empty DATA that ends the stream."""
    client.set({Setting.INITIAL_WINDOW_SIZE: 0})
    assert client.expect_answer(client.ask(method=b"HEAD")).body == b""
    assert client.expect_answer(client.ask(b"/bytes?0")).body == b""


def test_one_byte_at_a_time(client: Client) -> None:
    """6.9.1: a window of one byte gets one byte."""
    client.set({Setting.INITIAL_WINDOW_SIZE: 1})
    stream = client.ask(b"/bytes?5")
    for count in range(1, 5):
        assert sent(client, stream) == count
        client.grant(stream, 1)
    client.expect_answer(stream)


def test_trailers_wait_for_the_content(client: Client) -> None:
    """6.9.1, 8.1: they are not flow-controlled, but come last."""
    client.set({Setting.INITIAL_WINDOW_SIZE: 0})
    stream = client.ask(b"/trailers", (b"te", b"trailers"))
    assert sent(client, stream) == 0
    client.grant(stream, 100)
    answer = client.expect_answer(stream, body=b"body")
    assert answer.trailers == [(b"x-sum", b"4")]


@pytest.mark.parametrize("pieces", [[MAX_WINDOW], [MAX_WINDOW - WINDOW, 1], [2**30, 2**30]])
def test_the_connections_window_over_its_maximum(client: Client, pieces: list[int]) -> None:
    """6.9.1: a connection error of type FLOW_CONTROL_ERROR."""
    client.send(*(frames.window_update(0, piece) for piece in pieces))
    client.expect_goaway(Code.FLOW_CONTROL_ERROR)


@pytest.mark.parametrize("pieces", [[MAX_WINDOW], [MAX_WINDOW - WINDOW, 1], [2**30, 2**30]])
@pytest.mark.parametrize("path", [b"/hold", b"/begun"])
def test_a_streams_window_over_its_maximum(client: Client, pieces: list[int], path: bytes) -> None:
    """6.9.1: a stream error of type FLOW_CONTROL_ERROR."""
    stream = client.ask(path)
    client.sync()
    increment = [piece + (5 if path == b"/begun" else 0) for piece in pieces[:1]] + pieces[1:]
    client.send(*(frames.window_update(stream, min(piece, MAX_WINDOW)) for piece in increment))
    client.expect_stream_error(stream, Code.FLOW_CONTROL_ERROR, before=False)


def test_windows_at_their_maximum(client: Client) -> None:
    """6.9.1: they may be 2^31 - 1."""
    stream = client.ask(b"/hold")
    client.grant(0, MAX_WINDOW - WINDOW)
    client.grant(stream, MAX_WINDOW - WINDOW)
    client.sync()
    client.send(frames.rst_stream(stream))
    client.sync()
    assert not client.ledger.goaways
    assert client.ledger.answer(stream).reset is None


def test_an_answer_that_can_never_leave(client: Client) -> None:
    """5.2: once the client has ended its input no window grows any more: the connection is over."""
    client.set({Setting.INITIAL_WINDOW_SIZE: 0})
    client.ask(b"/bytes?10")
    client.sync()
    client.pipe.end()
    client.expect_closed()


# 6.9.2


def test_a_window_that_grows_while_an_answer_waits(client: Client) -> None:
    """6.9.2: by the difference, for streams that are open too."""
    client.set({Setting.INITIAL_WINDOW_SIZE: 1})
    stream = client.ask(b"/bytes?10")
    assert sent(client, stream) == 1
    client.set({Setting.INITIAL_WINDOW_SIZE: 4})
    assert sent(client, stream) == 4
    client.set({Setting.INITIAL_WINDOW_SIZE: 100})
    client.expect_answer(stream)


def test_a_window_that_becomes_negative(client: Client) -> None:
    """6.9.2: it is remembered, and nothing is sent until it is positive again."""
    stream = client.ask(b"/bytes?%d" % BODY)
    assert sent(client, stream) == WINDOW
    client.grant(0, BODY)
    client.set({Setting.INITIAL_WINDOW_SIZE: 1000})  # now at 1000 - 65535
    client.grant(stream, WINDOW - 1000)  # now at 0
    assert sent(client, stream) == WINDOW
    client.grant(stream, 7)
    assert sent(client, stream) == WINDOW + 7
    client.grant(stream, BODY)
    client.expect_answer(stream)


def test_a_negative_window_that_the_settings_lift(client: Client) -> None:
    """6.9.2."""
    client.set({Setting.INITIAL_WINDOW_SIZE: 3})
    stream = client.ask(b"/bytes?10")
    assert sent(client, stream) == 3
    client.set({Setting.INITIAL_WINDOW_SIZE: 2})
    client.grant(stream, 2)
    assert sent(client, stream) == 4
    client.set({Setting.INITIAL_WINDOW_SIZE: 8})
    client.expect_answer(stream)


def test_settings_that_lift_a_window_over_its_maximum(client: Client) -> None:
    """6.9.2: a connection error of type FLOW_CONTROL_ERROR."""
    stream = client.ask(b"/hold")
    client.send(frames.window_update(stream, MAX_WINDOW - WINDOW))
    client.send(frames.settings({Setting.INITIAL_WINDOW_SIZE: WINDOW + 1}))
    client.expect_goaway(Code.FLOW_CONTROL_ERROR)


def test_settings_leave_the_connections_window(client: Client) -> None:
    """6.9.2: only WINDOW_UPDATE changes that."""
    client.set({Setting.INITIAL_WINDOW_SIZE: 0})
    client.set({Setting.INITIAL_WINDOW_SIZE: BODY})
    stream = client.ask(b"/bytes?%d" % BODY)
    assert sent(client, stream) == WINDOW


def test_the_initial_window_before_the_first_request(connect: Connect) -> None:
    """6.5.3: settings hold for what comes behind them in the same bytes."""
    client = connect()
    client.ledger.resize(5)
    client.send(frames.PREFACE, frames.settings({Setting.INITIAL_WINDOW_SIZE: 5}))
    stream = client.ask(b"/bytes?10")
    assert sent(client, stream) == 5


# The server's own windows


def test_credit_comes_back_as_the_application_reads(client: Client) -> None:
    """5.2, 6.9: an upload of several windows gets through."""
    stream = client.ask(b"/count", method=b"POST", end=False)
    total, piece = 0, bytes(frames.MAX_FRAME_SIZE)
    initial = client.ledger.settings.get(Setting.INITIAL_WINDOW_SIZE, WINDOW)
    answer, ledger = client.ledger.answer(stream), client.ledger
    for _ in range(200):
        total += len(piece)
        client.until(
            lambda total=total: total <= initial + answer.updates and total <= WINDOW + ledger.updates,  # type: ignore[misc]
            "credit",
        )
        client.send(frames.data(stream, piece))
    client.send(frames.data(stream, end=True))
    client.expect_answer(stream, body=b"%d" % total)


def test_no_credit_before_the_application_has_read(local: Client, memory: Memory) -> None:
    """5.2: the stream's window is what a peer can make the server hold."""
    stream = local.ask(b"/unread", method=b"POST", end=False)
    initial = local.ledger.settings.get(Setting.INITIAL_WINDOW_SIZE, WINDOW)
    left = initial
    while left:
        size = min(left, frames.MAX_FRAME_SIZE)
        local.send(frames.data(stream, bytes(size)))
        left -= size
    local.sync()
    assert local.ledger.answer(stream).updates == 0
    memory.engine_made.consumed(stream, initial)
    local.sync()
    assert local.ledger.answer(stream).updates == initial
    assert local.ledger.updates >= initial


def test_more_data_than_the_streams_window(local: Client) -> None:
    """6.9.1: an error of type FLOW_CONTROL_ERROR, of the stream or the connection."""
    stream = local.ask(b"/unread", method=b"POST", end=False)
    initial = local.ledger.settings.get(Setting.INITIAL_WINDOW_SIZE, WINDOW)
    for _ in range(initial // frames.MAX_FRAME_SIZE + 1):
        local.send(frames.data(stream, bytes(frames.MAX_FRAME_SIZE)))
    local.expect_error(stream, Code.FLOW_CONTROL_ERROR)


def test_more_data_than_the_connections_window(local: Client) -> None:
    """6.9.1: a connection error of type FLOW_CONTROL_ERROR."""
    initial = local.ledger.settings.get(Setting.INITIAL_WINDOW_SIZE, WINDOW)
    left = WINDOW + local.ledger.updates
    while left >= 0:
        stream = local.ask(b"/unread", method=b"POST", end=False)
        share = min(initial, left + 1)
        left -= share
        while share:
            size = min(share, frames.MAX_FRAME_SIZE)
            local.send(frames.data(stream, bytes(size)))
            share -= size
    local.expect_goaway(Code.FLOW_CONTROL_ERROR)


@pytest.mark.parametrize("how", ["reset", "malformed", "answered"])
def test_credit_of_the_connection_is_never_lost(local: Client, how: str) -> None:
    """5.1, 6.9: whatever becomes of the streams on which its bytes came, read or not."""
    size = frames.MAX_FRAME_SIZE
    rounds = 2 * (WINDOW + local.ledger.updates) // size
    for number in range(min(rounds, 190)):
        path = b"/early" if how == "answered" else b"/unread"
        stream = local.ask(path, method=b"POST", end=False)
        local.send(frames.data(stream, bytes(size)))
        if how == "reset":
            local.send(frames.rst_stream(stream))
        elif how == "malformed":
            local.headers(stream, [(b"Upper", b"1")])
        else:
            local.send(frames.data(stream, end=True))
        local.sync()
        assert local.ledger.updates + WINDOW >= (number + 1) * size, f"after {number + 1} streams"
    assert not local.ledger.goaways
