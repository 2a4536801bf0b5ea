"""RFC 9113 sections 5.1, 5.3, 5.4: the states of streams, their numbers, and errors."""

from collections.abc import Callable

import pytest

from tests.conformance.http2 import frames
from tests.conformance.http2.client import Client
from tests.conformance.http2.fields import REQUEST
from tests.conformance.http2.frames import Code, Flag, Kind, Setting, frame

Prepare = Callable[[Client], int]

# 5.1 idle


@pytest.mark.parametrize(
    "sent",
    [
        frames.data(1, b"x", end=True),
        frames.data(1),
        frames.rst_stream(1),
        frames.window_update(1, 1),
        frames.continuation(1, REQUEST),
    ],
    ids=["DATA", "empty-DATA", "RST_STREAM", "WINDOW_UPDATE", "CONTINUATION"],
)
def test_on_an_idle_stream_only_headers_and_priority(client: Client, sent: bytes) -> None:
    """5.1 idle, 6.1, 6.4, 6.9, 6.10: all else is a connection error of type PROTOCOL_ERROR."""
    client.send(sent)
    client.expect_goaway(Code.PROTOCOL_ERROR)


@pytest.mark.parametrize("sent", [frames.data(7, b"x"), frames.rst_stream(7), frames.window_update(7, 1)])
def test_on_an_idle_stream_behind_others(client: Client, sent: bytes) -> None:
    """5.1 idle: a stream above the last one is idle."""
    client.expect_answer(client.ask())
    client.send(sent)
    client.expect_goaway(Code.PROTOCOL_ERROR)


@pytest.mark.parametrize("sent", [frames.data(2, b"x"), frames.rst_stream(2), frames.window_update(2, 1)])
def test_on_a_stream_that_only_the_server_could_open(client: Client, sent: bytes) -> None:
    """5.1 idle: even numbers too."""
    client.send(sent)
    client.expect_goaway(Code.PROTOCOL_ERROR)


def test_priority_on_an_idle_stream(client: Client) -> None:
    """5.1 idle, 6.3: it may come, and opens nothing."""
    client.send(frames.priority(1), frames.priority(5, on=3), frames.priority(2))
    client.expect_answer(client.ask(stream=3))
    client.expect_alive()


# 5.1 half-closed (remote)


@pytest.mark.parametrize("path", [b"/hold", b"/begun"])
def test_data_on_a_stream_that_the_client_has_ended(client: Client, path: bytes) -> None:
    """5.1 half-closed (remote), 6.1: a stream error of type STREAM_CLOSED."""
    stream = client.ask(path)
    client.send(frames.data(stream, b"late", end=True))
    client.expect_stream_error(stream, Code.STREAM_CLOSED, before=False)


@pytest.mark.parametrize("path", [b"/hold", b"/begun"])
def test_headers_on_a_stream_that_the_client_has_ended(client: Client, path: bytes) -> None:
    """5.1 half-closed (remote): a stream error of type STREAM_CLOSED."""
    stream = client.ask(path)
    client.headers(stream, [(b"x-late", b"1")])
    client.expect_stream_error(stream, Code.STREAM_CLOSED, before=False)


def test_continuation_on_a_stream_that_the_client_has_ended(client: Client) -> None:
    """5.1, 6.10: behind END_HEADERS it is a connection error of type PROTOCOL_ERROR."""
    stream = client.ask(b"/hold")
    client.send(frames.continuation(stream, REQUEST))
    client.expect_goaway(Code.PROTOCOL_ERROR)


def test_what_may_come_on_a_stream_that_the_client_has_ended(client: Client) -> None:
    """5.1 half-closed (remote), 6.9: WINDOW_UPDATE, PRIORITY and RST_STREAM."""
    stream = client.ask(b"/hold")
    client.grant(stream, 10)
    client.send(frames.priority(stream), frames.rst_stream(stream))
    client.expect_alive()


# 5.1 closed


def _answered(client: Client) -> int:
    stream = client.ask()
    client.expect_answer(stream)
    return stream


def _cancelled(client: Client) -> int:
    stream = client.ask(b"/hold")
    client.send(frames.rst_stream(stream))
    return stream


def _cancelled_half_way(client: Client) -> int:
    stream = client.post(b"/hold", b"half", end=False)
    client.send(frames.rst_stream(stream))
    return stream


CLOSED = pytest.mark.parametrize("close", [_answered, _cancelled, _cancelled_half_way])


@CLOSED
@pytest.mark.parametrize("end", [False, True])
def test_data_on_a_closed_stream(client: Client, close: Prepare, end: bool) -> None:
    """5.1 closed, 6.1: STREAM_CLOSED, of the stream or the connection."""
    stream = close(client)
    client.send(frames.data(stream, b"late", end=end))
    _expect_stream_closed(client, stream)


@CLOSED
@pytest.mark.parametrize("fields", [None, [(b"x-late", b"1")]], ids=["request", "trailers"])
def test_headers_on_a_closed_stream(client: Client, close: Prepare, fields: list[tuple[bytes, bytes]] | None) -> None:
    """5.1 closed, 5.1.1: STREAM_CLOSED, of the stream or the connection."""
    stream = close(client)
    client.headers(stream, fields)
    _expect_stream_closed(client, stream)


@CLOSED
def test_continuation_on_a_closed_stream(client: Client, close: Prepare) -> None:
    """6.10: a connection error of type PROTOCOL_ERROR."""
    stream = close(client)
    client.send(frames.continuation(stream, REQUEST))
    client.expect_goaway(Code.PROTOCOL_ERROR)


@CLOSED
def test_what_may_come_on_a_closed_stream(client: Client, close: Prepare) -> None:
    """5.1 closed, 6.9: PRIORITY always; WINDOW_UPDATE and RST_STREAM may have been under way."""
    stream = close(client)
    client.send(frames.window_update(stream, 10), frames.priority(stream), frames.rst_stream(stream))
    client.expect_alive()


def _expect_stream_closed(client: Client, stream: int) -> None:
    client.ledger.answers.pop(stream, None)  # what is looked for comes behind the end of its answer
    client.expect_error(stream, Code.STREAM_CLOSED)


def test_frames_on_a_stream_that_the_server_has_reset(client: Client) -> None:
    """5.1 closed, 5.4.2: they may have been under way, and are ignored; HPACK and the window go on with them."""
    stream = client.ask(b"/", (b"x y", b"malformed"), method=b"POST", end=False)
    client.send(frames.data(stream, b"under way"))
    client.headers(stream, [(b"x-sum", b"1"), (b"x-new", b"into the table")])
    client.expect_malformed(stream)
    other = client.ask(b"/", (b"x-new", b"into the table"))
    assert ["x-new", "into the table"] in client.expect_answer(other).told["headers"]


# 5.1.1


@pytest.mark.parametrize("stream", [2, 4, 2**31 - 2])
def test_a_request_on_an_even_stream(client: Client, stream: int) -> None:
    """5.1.1: a connection error of type PROTOCOL_ERROR."""
    client.send(frames.headers(stream, REQUEST))
    client.expect_goaway(Code.PROTOCOL_ERROR)


def test_a_stream_below_the_last(client: Client) -> None:
    """5.1.1: one that was skipped is closed: a connection error of type PROTOCOL_ERROR."""
    client.expect_answer(client.ask(stream=5))
    client.send(frames.headers(3, REQUEST))
    client.expect_goaway(Code.PROTOCOL_ERROR)


@pytest.mark.parametrize("kind", [Kind.DATA, Kind.RST_STREAM, Kind.WINDOW_UPDATE])
def test_frames_on_a_stream_that_was_skipped(client: Client, kind: Kind) -> None:
    """5.1.1: it is closed, not idle; only DATA has no business there."""
    client.expect_answer(client.ask(stream=5))
    client.send(frame(kind, b"\0\0\0\1", stream=3))
    if kind == Kind.DATA:
        _expect_stream_closed(client, 3)
    else:
        client.expect_alive()


def test_numbers_may_be_skipped(client: Client) -> None:
    """5.1.1."""
    for stream in (1, 7, 101, 2**30 + 1):
        client.expect_answer(client.ask(stream=stream))


def test_the_last_number(client: Client) -> None:
    """5.1.1: 2^31 - 1 is served; behind it nothing can be opened."""
    client.expect_answer(client.ask(stream=2**31 - 1))
    client.sync()


# 5.1.2


def test_as_many_streams_as_allowed(client: Client) -> None:
    """5.1.2: all of them are served."""
    limit = client.ledger.settings[Setting.MAX_CONCURRENT_STREAMS]
    streams = [client.ask(method=b"POST", end=False) for _ in range(limit)]
    for stream in streams:
        client.send(frames.data(stream, b"body", end=True))
    for stream in streams:
        client.expect_answer(stream)
    client.expect_alive()


def test_one_stream_more_than_allowed(client: Client) -> None:
    """5.1.2: a stream error of type REFUSED_STREAM, so that it may be tried again; the others go on."""
    limit = client.ledger.settings[Setting.MAX_CONCURRENT_STREAMS]
    streams = [client.ask(method=b"POST", end=False) for _ in range(limit)]
    extra = client.ask()
    refused = client.ledger.answer(extra)
    client.until(lambda: refused.reset is not None, "RST_STREAM")
    assert refused.reset == Code.REFUSED_STREAM
    for stream in streams:
        client.send(frames.data(stream, b"body", end=True))
    for stream in streams:
        client.expect_answer(stream)
    client.expect_alive()


def test_streams_that_are_over_do_not_count(client: Client) -> None:
    """5.1.2: answered ones and cancelled ones."""
    limit = client.ledger.settings[Setting.MAX_CONCURRENT_STREAMS]
    held = [client.ask(b"/hold") for _ in range(limit)]
    client.send(*(frames.rst_stream(stream) for stream in held))
    for _ in range(limit + 1):
        client.expect_answer(client.ask())


# 5.3: deprecated priorities


def test_dependencies_are_taken(client: Client) -> None:
    """5.3.2, 6.2: with HEADERS, exclusive or not, on what there is or not."""
    for number, on in enumerate((0, 1, 99, 2)):
        stream = 2 * number + 1
        if on == stream:
            continue
        flags = Flag.END_HEADERS | Flag.END_STREAM | Flag.PRIORITY
        payload = frames.dependency(on, exclusive=bool(number % 2)) + REQUEST
        client.send(frame(Kind.HEADERS, payload, stream=stream, flags=flags))
        client.expect_answer(stream)


def test_headers_that_depend_on_themselves(client: Client) -> None:
    """RFC 7540 section 5.3.1: PROTOCOL_ERROR. RFC 9113 has priorities ignored, but a client that errs here errs."""
    flags = Flag.END_HEADERS | Flag.END_STREAM | Flag.PRIORITY
    client.send(frame(Kind.HEADERS, frames.dependency(1) + REQUEST, stream=1, flags=flags))
    client.expect_error(1, Code.PROTOCOL_ERROR)


def test_priority_that_depends_on_itself(client: Client) -> None:
    """RFC 7540 section 5.3.1: as before, on a stream that is open."""
    stream = client.ask(b"/hold")
    client.send(frames.priority(stream, on=stream))
    client.expect_error(stream, Code.PROTOCOL_ERROR)


# 5.4


def test_the_connection_is_closed_behind_goaway(client: Client) -> None:
    """5.4.1: and nothing that comes later is served."""
    client.send(frame(Kind.PING, bytes(8), stream=1))
    client.expect_goaway(Code.PROTOCOL_ERROR)
    client.ask()
    assert client.ledger.answer(1).status == 0


def test_the_last_stream_is_told(client: Client) -> None:
    """5.4.1, 6.8: GOAWAY names the last stream that was begun."""
    client.expect_answer(client.ask(stream=5))
    client.send(frame(Kind.PING, bytes(8), stream=1))
    client.expect_goaway(Code.PROTOCOL_ERROR)
    assert client.ledger.goaways[-1][0] == 5


def test_a_stream_error_leaves_the_others(client: Client) -> None:
    """5.4.2."""
    good = client.ask(method=b"POST", end=False)
    bad = client.ask(b"/", (b"Upper", b"1"))
    client.expect_malformed(bad)
    client.send(frames.data(good, b"body", end=True))
    assert client.expect_answer(good).told["body"] == "body"


def test_rst_stream_is_not_answered_with_rst_stream(client: Client) -> None:
    """5.4.2: nor with anything else on that stream."""
    stream = client.ask(b"/hold")
    client.send(frames.rst_stream(stream))
    client.sync()
    assert client.ledger.answer(stream).reset is None
    client.send(frames.rst_stream(stream))
    client.expect_alive()
    assert client.ledger.answer(stream).reset is None


def test_interleaved_requests(client: Client) -> None:
    """5: streams are independent of each other."""
    streams = [client.ask(method=b"POST", end=False) for _ in range(5)]
    for part in (b"a", b"b", b"c"):
        for stream in reversed(streams):
            client.send(frames.data(stream, part))
    client.send(*(frames.data(stream, end=True) for stream in streams))
    for stream in streams:
        assert client.expect_answer(stream).told["body"] == "abc"


def test_a_request_behind_a_malformed_one_in_the_same_bytes(client: Client) -> None:
    """5.4.2: the rest of what was read is not lost."""
    bad = REQUEST + b"\x00\x01A\x01b"
    client.send(frames.headers(1, bad), frames.headers(3, REQUEST))
    client.expect_answer(3)
    client.expect_malformed(1)
