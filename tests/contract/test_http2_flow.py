"""Windows, both ways: what waits in an HTTP/2 engine, whose turn it is, and who gets credit for what."""

import pytest
from h2.settings import SettingCodes
from hpack import Encoder

from appserver.wire.engine import Body, Event, Head, Limits, Refused
from appserver.wire.http2 import CONNECTION_WINDOW, STREAM_WINDOW, TAKE_SIZE
from appserver.wire.select import MakeHttp2
from tests.conformance.http2 import frames
from tests.conformance.http2.fields import REQUEST
from tests.conformance.http2.frames import MAX_FRAME_SIZE, WINDOW, Code, Kind
from tests.contract.http2_talk import Talk, bodies, talk

WIDE: dict[int, int] = {SettingCodes.INITIAL_WINDOW_SIZE: 1 << 24}

_FRAMING = 1024  # of what one take() gives: the headers of its frames


def credit(made: Talk, stream: int) -> int:
    """What the server has given back of a window."""
    return sum(got.number for got in made.peer.frames if got.kind == Kind.WINDOW_UPDATE and got.stream == stream)


# Out


def test_what_the_window_holds_back_is_queued_and_told(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    head = made.ask()
    made.peer.slow.add(head.stream)
    assert (made.engine.queued(head.stream), made.engine.waiting()) == (0, {})
    made.engine.respond(head.stream, 200, [], bytes(100_000), False)
    assert made.engine.queued(head.stream) == 100_000
    made.turn()
    assert made.engine.queued(head.stream) == 100_000 - WINDOW
    assert made.engine.waiting() == {head.stream: WINDOW}
    made.engine.body(head.stream, bytes(1_000), True)
    assert made.engine.queued(head.stream) == 101_000 - WINDOW
    made.peer.grant(head.stream, 500)
    made.turn()
    assert made.engine.waiting() == {head.stream: WINDOW + 500}
    assert len(made.peer.answers[head.stream].body) == WINDOW + 500
    made.peer.grant(head.stream, 1 << 20)
    made.turn()
    assert (len(made.peer.answers[head.stream].body), made.peer.answers[head.stream].ended) == (101_000, True)
    assert (made.engine.queued(head.stream), made.engine.waiting(), made.engine.idle) == (0, {}, True)


def test_a_stream_that_is_not_read_holds_up_no_other(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    slow, quick = made.ask("/slow").stream, made.ask("/quick").stream
    made.peer.slow.add(slow)
    for stream in (slow, quick):
        made.engine.respond(stream, 200, [], bytes(300_000), True)
    made.turn()
    assert (len(made.peer.answers[quick].body), made.peer.answers[quick].ended) == (300_000, True)
    assert made.engine.waiting() == {slow: WINDOW}


def test_the_connections_window_holds_all_back_and_none_is_forgotten(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine, settings=WIDE, room=WINDOW)
    streams = [made.ask().stream for _ in range(3)]
    made.peer.slow.update(streams)
    for stream in streams:
        made.engine.respond(stream, 200, [], bytes(50_000), True)
    made.turn()
    came = [len(made.peer.answers[stream].body) for stream in streams]
    assert sum(came) == WINDOW
    assert sum(made.engine.waiting().values()) == WINDOW - sum(count for count in came if count == 50_000)
    made.peer.library.increment_flow_control_window(100_000)
    made.turn()
    assert [len(made.peer.answers[stream].body) for stream in streams] == [50_000] * 3
    assert made.engine.idle


def test_a_window_may_become_smaller_than_nothing(http2_engine: MakeHttp2) -> None:
    # RFC 9113 section 6.9.2
    made = talk(http2_engine)
    head = made.ask()
    made.peer.slow.add(head.stream)
    made.engine.respond(head.stream, 200, [], bytes(1_000), False)
    made.turn()
    made.peer.library.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 10})
    made.turn()
    made.turn()
    made.engine.body(head.stream, bytes(100), True)
    made.turn()
    assert (len(made.peer.answers[head.stream].body), made.engine.queued(head.stream)) == (1_000, 100)
    made.peer.library.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1_100})
    made.turn()
    assert (len(made.peer.answers[head.stream].body), made.peer.answers[head.stream].ended) == (1_100, True)


def test_take_gives_bounded_pieces(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine, settings=WIDE)
    streams = [made.ask().stream for _ in range(20)]
    for stream in streams:
        made.engine.respond(stream, 200, [], bytes(200_000), True)
    sizes = []
    while pieces := made.engine.take():
        [piece] = pieces
        sizes.append(len(piece))
        made.peer.feed(piece)
    assert max(sizes) <= TAKE_SIZE + _FRAMING
    assert sum(sizes) > 20 * 200_000
    assert all(len(made.peer.answers[stream].body) == 200_000 for stream in streams)


def test_take_gives_bounded_pieces_also_where_requests_go_on_behind_their_answers(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine, settings=WIDE)
    streams = [made.ask(method="POST", end=False).stream for _ in range(20)]
    for stream in streams:
        made.engine.respond(stream, 200, [], bytes(50_000), True)
    sizes = []
    while pieces := made.engine.take():
        sizes.append(len(pieces[0]))
        made.peer.feed(pieces[0])
    assert max(sizes) <= TAKE_SIZE + _FRAMING
    assert {made.peer.answers[stream].reset for stream in streams} == {Code.NO_ERROR}


def test_what_is_urgent_overtakes_a_large_answer(http2_engine: MakeHttp2) -> None:
    # By priority where the engine has that (RFC 9218), else because streams take turns.
    made = talk(http2_engine, settings=WIDE)
    large = made.ask("/large").stream
    made.engine.respond(large, 200, [], bytes(2_000_000), True)
    made.peer.feed(b"".join(made.engine.take()))
    urgent = made.ask_without_answers("/urgent", ("priority", "u=0"))
    made.engine.respond(urgent, 200, [], b"urgent", True)
    made.peer.feed(b"".join(made.engine.take()))
    assert made.peer.answers[urgent].ended
    assert len(made.peer.answers[large].body) < 4 * TAKE_SIZE
    made.turn()
    assert len(made.peer.answers[large].body) == 2_000_000


def test_streams_that_may_be_mixed_take_turns(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine, settings=WIDE)
    streams = [made.ask("/", ("priority", "i")).stream for _ in range(4)]
    for stream in streams:
        made.engine.respond(stream, 200, [], bytes(500_000), True)
    for _ in range(4):
        made.peer.feed(b"".join(made.engine.take()))
    came = [len(made.peer.answers[stream].body) for stream in streams]
    assert max(came) - min(came) <= 2 * MAX_FRAME_SIZE
    made.turn()
    assert all(made.peer.answers[stream].ended for stream in streams)


# In


def test_a_body_comes_whole_and_in_order(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    content = bytes(range(256)) * 100
    stream = made.peer.post("/", content[:10], content[10:20_000], content[20_000:])
    events = made.turn()
    assert bodies(events, stream) == content
    assert [event.end for event in events if isinstance(event, Body)].count(True) == 1
    assert events[-1] == Body(stream, events[-1].data, True) if isinstance(events[-1], Body) else False


def test_an_empty_last_frame_ends_a_body(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    head = made.ask(method="POST", end=False)
    made.peer.send(head.stream, b"content")
    made.turn()
    made.peer.send(head.stream, b"", end=True)
    assert made.turn() == [Body(head.stream, b"", True)]


def test_trailers_of_a_request_end_it_and_are_dropped(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    head = made.ask(method="POST", end=False)
    made.peer.send(head.stream, b"content")
    made.peer.library.send_headers(head.stream, [("x-sum", "7")], end_stream=True)
    events = made.turn()
    assert events[-1] == Body(head.stream, b"", True)
    assert bodies(events, head.stream) == b"content"


def test_credit_is_given_back_only_for_what_was_read(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    head = made.ask(method="POST", end=False)
    before = credit(made, 0)
    made.peer.send(head.stream, bytes(STREAM_WINDOW))
    made.turn()
    assert made.peer.library.local_flow_control_window(head.stream) == 0
    assert (credit(made, head.stream), credit(made, 0)) == (0, before)
    made.engine.consumed(head.stream, STREAM_WINDOW // 4 * 3)
    made.turn()
    assert made.peer.library.local_flow_control_window(head.stream) == STREAM_WINDOW // 4 * 3
    made.engine.consumed(head.stream, STREAM_WINDOW // 4)
    made.turn()
    assert made.peer.library.local_flow_control_window(head.stream) >= STREAM_WINDOW // 4 * 3


def test_an_upload_of_many_windows_goes_on_while_it_is_read(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    head = made.ask(method="POST", end=False)
    left = total = 5 * CONNECTION_WINDOW
    came = 0
    while left:
        size = min(made.peer.library.local_flow_control_window(head.stream), left)
        assert size > 0, "no more credit comes"
        left -= size
        made.peer.send(head.stream, bytes(size), end=not left)
        for event in made.turn():
            assert isinstance(event, Body)
            came += len(event.data)
            if event.data:
                made.engine.consumed(head.stream, len(event.data))
        made.turn()
    assert came == total


@pytest.mark.parametrize("ending", ["reset by the peer", "reset", "answered", "refused", "too long"])
def test_whatever_ends_a_request_gives_its_credit_back(http2_engine: MakeHttp2, ending: str) -> None:
    # Else the connection's window would shrink with each of them, until no upload goes on.
    made = talk(http2_engine, Limits(body=150_000))
    for _ in range(20):
        head = made.ask(method="POST", end=False)
        made.peer.send(head.stream, bytes(100_000))
        events = made.turn()
        assert len(bodies(events, head.stream)) == 100_000
        end(made, head, ending)
        made.engine.consumed(head.stream, 100_000)  # the application reads what it has; it counts for nothing more
        made.turn()
        assert made.engine.idle
    assert made.peer.library.outbound_flow_control_window >= CONNECTION_WINDOW // 2
    assert made.is_alive()


def end(made: Talk, head: Head, how: str) -> None:
    engine, stream = made.engine, head.stream
    if how == "reset by the peer":
        made.peer.reset(stream)
        made.turn()
    elif how == "reset":
        engine.reset(stream, Code.CANCEL)
    elif how == "answered":
        engine.respond(stream, 200, [], b"early", True)
    else:
        events: list[Event]
        if how == "refused":
            events = engine.refuse(408, "too slow", stream)
        else:
            made.peer.send(stream, bytes(50_001))
            events = [event for event in made.hear() if isinstance(event, Refused)]
        assert events == [Refused(stream, 408 if how == "refused" else 413, events[0].reason)]  # type: ignore[union-attr]
        engine.respond(stream, 400, [], b"refused", True)


def test_what_comes_behind_a_refusal_is_credited_to_the_connection(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine, Limits(body=1_000))
    for _ in range(12):
        stream = made.peer.post("/", bytes(STREAM_WINDOW), end=False)
        events = made.turn()
        assert [event[1] for event in events if isinstance(event, Refused)] == [413]
        assert len(bodies(events, stream)) <= 1_000
        made.engine.respond(stream, 413, [], b"too long", True)
        made.turn()
        made.turn()
        assert (made.peer.answers[stream].status, made.peer.answers[stream].reset) == (413, Code.NO_ERROR)
    assert made.peer.library.outbound_flow_control_window >= CONNECTION_WINDOW // 2


@pytest.mark.parametrize("size", [1_000, 1_001])
def test_a_body_may_be_as_long_as_the_limit(http2_engine: MakeHttp2, size: int) -> None:
    made = talk(http2_engine, Limits(body=1_000))
    made.peer.post("/", bytes(size - 1), b"x")
    refused = [event[1] for event in made.turn() if isinstance(event, Refused)]
    assert refused == [413] * (size > 1_000)


def test_padding_is_credited_at_once(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    head = made.ask(method="POST", end=False)
    for _ in range(3_000):  # 750 KiB of padding, three times the window; and no flood of empty frames
        made.peer.library.send_data(head.stream, b"x" * 10, pad_length=255)
        assert [type(event) for event in made.turn()] == [Body]
    assert made.peer.library.local_flow_control_window(head.stream) >= STREAM_WINDOW // 2 - 30_000
    assert not made.peer.goaways


def test_no_more_streams_than_the_limit(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine, Limits(streams=3))
    assert made.peer.library.remote_settings.max_concurrent_streams == 3
    heads = [made.ask() for _ in range(3)]
    events, sent = made.say(frames.headers(7, REQUEST))
    assert [event[:2] for event in events] == [(7, 0)]
    assert [(got.kind, got.number) for got in sent] == [(Kind.RST_STREAM, Code.REFUSED_STREAM)]
    for head in heads:
        made.engine.respond(head.stream, 200, [], b"content", True)
    made.turn()
    assert all(made.peer.answers[head.stream].ended for head in heads)


def test_promised_streams_are_none_of_the_clients(http2_engine: MakeHttp2) -> None:
    # RFC 9113 section 5.1.2: each side limits those of the other.
    made = talk(http2_engine, Limits(streams=3))
    head = made.ask()
    assert all(made.engine.push(head.stream, b"/", [(b"host", b"a.example")]) for _ in range(3))
    assert [type(made.ask()) for _ in range(2)] == [Head, Head]


@pytest.mark.parametrize(
    ("trailers", "status"),
    [
        ([("x-sum", "7")], None),
        ([("X-Sum", "7")], 0),
        ([("connection", "close")], 0),
        ([("x-sum", " 7")], 0),
        ([("x-long", "7" * 2_000)], 431),
    ],
)
def test_trailers_of_a_request_are_held_to_the_same_rules(
    http2_engine: MakeHttp2, trailers: list[tuple[str, str]], status: int | None
) -> None:
    made = talk(http2_engine, Limits(field=1_000))
    head = made.ask(method="POST", end=False)
    block = Encoder().encode(trailers, huffman=False)
    events, _ = made.say(frames.headers(head.stream, block))
    if status is None:
        assert events == [Body(head.stream, b"", True)]
    else:
        assert [event[:2] for event in events] == [(head.stream, status)]
    if status == 431:
        made.engine.respond(head.stream, 431, [], b"long", True)
        _, sent = made.say(b"")
        assert [got.kind for got in sent] == [Kind.HEADERS, Kind.DATA]


@pytest.mark.parametrize("size", [6, 8])
@pytest.mark.parametrize("ending", ["data", "trailers"])
def test_a_body_is_as_long_as_was_said(http2_engine: MakeHttp2, size: int, ending: str) -> None:
    made = talk(http2_engine)
    head = made.ask("/", ("content-length", "7"), method="POST", end=False)
    last = frames.headers(head.stream, b"\0\1x\1y") if ending == "trailers" else frames.data(head.stream, end=True)
    events, sent = made.say(frames.data(head.stream, bytes(size)) + last)
    assert [event[:2] for event in events if isinstance(event, Refused)] == [(head.stream, 0)]
    assert not any(isinstance(event, Body) and event.end for event in events)
    assert (Kind.RST_STREAM, Code.PROTOCOL_ERROR) in [(got.kind, got.number) for got in sent]
