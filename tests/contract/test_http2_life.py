"""How an HTTP/2 connection begins and ends: upgrade, leaving in two steps, peers that leave, refusals, broken peers."""

import pytest
from h2.settings import SettingCodes

from appserver.wire.engine import Body, Broken, Closed, Head, Limits, Refused
from appserver.wire.http2 import CONNECTION_WINDOW, STREAM_WINDOW
from appserver.wire.select import MakeHttp2
from tests.conformance.http2 import frames
from tests.conformance.http2.fields import REQUEST
from tests.conformance.http2.frames import MAX_WINDOW, PREFACE, Code, Flag, Kind
from tests.conformance.http2.memory import Clock
from tests.contract.driver import written
from tests.contract.http2_peer import Http2Peer
from tests.contract.http2_talk import TEXT, Talk, bodies, talk

UPGRADED = Head(
    1,
    "GET",
    b"/path",
    [
        (b"host", b"a.example"),
        (b"connection", b"Upgrade, HTTP2-Settings"),
        (b"upgrade", b"h2c"),
        (b"http2-settings", b""),
        (b"accept", b"*/*"),
    ],
    "1.1",
    True,
    False,
)


def respond(made: Talk, head: Head, body: bytes = b"content") -> None:
    made.engine.respond(head.stream, 200, TEXT, body, True)
    made.turn()
    assert made.peer.answers[head.stream].body == body
    assert made.peer.answers[head.stream].ended


# The beginning


def test_the_server_speaks_first_where_it_is_asked_to_write(http2_engine: MakeHttp2) -> None:
    made = Talk(http2_engine(Limits(streams=7), Clock()), Http2Peer())
    made.peer.start()
    made.answer()
    said = made.peer.library.remote_settings
    assert (said.max_concurrent_streams, said.initial_window_size) == (7, STREAM_WINDOW)
    assert said.max_header_list_size is not None
    assert made.peer.library.outbound_flow_control_window == CONNECTION_WINDOW
    assert [got.kind for got in made.peer.frames] == [Kind.SETTINGS, Kind.WINDOW_UPDATE]
    assert made.turn() == []
    assert made.is_alive()


def test_nothing_is_written_when_there_is_nothing_to_say(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    assert made.engine.take() == []
    assert (made.engine.idle, made.engine.closing, made.engine.pending) == (True, False, 0)
    assert (made.engine.multiplexed, made.engine.abrupt, made.engine.raw(1)) == (True, False, False)


def test_requests_may_come_with_the_preface(http2_engine: MakeHttp2) -> None:
    made = Talk(http2_engine(Limits(), Clock()), Http2Peer())
    made.peer.start()
    streams = [made.peer.ask(f"/{number}") for number in range(3)]
    heads = [event for event in made.turn() if isinstance(event, Head)]
    assert [(head.stream, head.target) for head in heads] == [(stream, b"/%d" % (stream // 2)) for stream in streams]


def test_bytes_may_come_one_by_one(http2_engine: MakeHttp2) -> None:
    made = Talk(http2_engine(Limits(), Clock()), Http2Peer())
    made.peer.start()
    stream = made.peer.post("/slow", b"first,", b"last")
    events = [event for byte in made.peer.take() for event in made.engine.receive(bytes([byte]))]
    assert isinstance(events[0], Head)
    assert (events[0].target, bodies(events, stream)) == (b"/slow", b"first,last")


def test_a_head_that_is_not_whole_is_not_idle(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    made.engine.receive(frames.headers(1, b"\x82", whole=False))
    assert not made.engine.idle


# Upgrade from HTTP/1.1


def upgraded(http2_engine: MakeHttp2, settings: dict[int, int] | None = None, head: Head = UPGRADED) -> Talk:
    made = Talk(http2_engine(Limits(), Clock()), Http2Peer(settings))
    made.peer.upgrade()
    payload = b"".join(code.to_bytes(2) + value.to_bytes(4) for code, value in (settings or {}).items())
    [adopted] = made.engine.upgrade(payload, head)
    assert isinstance(adopted, Head)
    assert adopted == Head(1, head.method, b"/path", [(b"host", b"a.example"), (b"accept", b"*/*")], "2", True, False)
    return made


def test_an_upgraded_request_is_the_first_stream(http2_engine: MakeHttp2) -> None:
    made = upgraded(http2_engine)
    assert made.turn() == []
    made.engine.respond(1, 200, TEXT, b"content", True)
    made.turn()
    assert (made.peer.answers[1].body, made.peer.answers[1].ended) == (b"content", True)
    assert made.engine.idle
    assert made.ask("/next").stream == 3


def test_an_upgraded_request_may_be_answered_before_the_preface(http2_engine: MakeHttp2) -> None:
    made = upgraded(http2_engine)
    made.engine.respond(1, 200, TEXT, b"content", True)
    made.answer()
    assert made.peer.answers[1].ended
    made.turn()
    assert made.is_alive()


def test_an_upgraded_head_request_gets_no_body(http2_engine: MakeHttp2) -> None:
    made = upgraded(http2_engine, head=UPGRADED._replace(method="HEAD"))
    made.engine.respond(1, 200, [], b"content", True)
    data = written(made.engine)
    assert [got.kind for got in frames.read(data) if got.stream == 1] == [Kind.HEADERS]


def test_the_settings_of_an_upgrade_are_kept_to(http2_engine: MakeHttp2) -> None:
    made = upgraded(http2_engine, {SettingCodes.ENABLE_PUSH: 0, SettingCodes.INITIAL_WINDOW_SIZE: 5})
    assert not made.engine.pushes
    made.engine.respond(1, 200, [], b"content", True)
    made.answer()
    assert (made.peer.answers[1].body, made.engine.queued(1)) == (b"conte", 2)


def test_settings_of_an_upgrade_that_cannot_be_are_an_error(http2_engine: MakeHttp2) -> None:
    engine = http2_engine(Limits(), Clock())
    payload = SettingCodes.INITIAL_WINDOW_SIZE.to_bytes(2) + (MAX_WINDOW + 1).to_bytes(4)
    events = engine.upgrade(payload, UPGRADED)
    assert isinstance(events[-1], Broken)
    assert engine.closing
    engine.respond(1, 200, [], b"in vain", True)
    assert all(got.stream == 0 for got in frames.read(written(engine)))


# Leaving, in two steps (RFC 9113 section 6.8)


def test_leaving_begins_with_a_notice_that_ends_nothing(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    head = made.ask()
    made.engine.drain()
    late = made.peer.ask()  # before the notice is seen
    sent = made.peer.take()
    made.answer()
    assert made.peer.goaways == [(MAX_WINDOW, Code.NO_ERROR)]
    assert [type(event) for event in made.engine.receive(sent)] == [Head]
    assert not made.engine.closing
    for stream in (head.stream, late):
        made.engine.respond(stream, 200, TEXT, b"content", True)
    made.answer()
    assert all(made.peer.answers[stream].ended for stream in (head.stream, late))
    assert not made.engine.closing


def test_the_second_step_names_the_last_request_that_is_served(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    heads = [made.ask(), made.ask()]
    made.engine.drain()
    made.turn()
    assert made.peer.goaways == [(MAX_WINDOW, Code.NO_ERROR), (heads[1].stream, Code.NO_ERROR)]
    assert not made.engine.closing
    for head in heads:
        respond(made, head)
    assert made.engine.take() == []
    assert made.engine.closing


def test_what_comes_behind_the_second_step_is_refused_and_may_be_sent_again(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    head = made.ask()
    made.engine.drain()
    made.turn()
    late = made.peer.ask("/late")
    assert made.turn() == []
    assert made.peer.answers[late].reset in (Code.REFUSED_STREAM, None)  # or ignored, as the GOAWAY has said
    respond(made, head)
    assert made.engine.closing


def test_an_idle_connection_leaves_once_the_notice_has_been_seen(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    made.engine.drain()
    made.answer()
    assert (made.engine.closing, len(made.peer.goaways)) == (False, 1)
    made.turn()
    assert made.peer.goaways == [(MAX_WINDOW, Code.NO_ERROR), (0, Code.NO_ERROR)]
    assert made.engine.closing
    assert made.engine.receive(b"more") == []


def test_leaving_twice_is_leaving_once(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    head = made.ask()
    made.engine.drain()
    made.engine.drain()
    made.turn()
    made.engine.drain()
    made.turn()
    assert len(made.peer.goaways) == 2
    respond(made, head)
    assert made.engine.closing


def test_leaving_before_anything_was_said(http2_engine: MakeHttp2) -> None:
    made = Talk(http2_engine(Limits(), Clock()), Http2Peer())
    made.engine.drain()
    made.peer.start()
    made.peer.ask()
    [head] = made.turn()
    assert isinstance(head, Head)
    assert made.peer.frames[0].kind == Kind.SETTINGS
    respond(made, head)
    assert made.engine.closing


def test_an_answer_to_another_ping_is_not_the_sign(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    made.engine.drain()
    made.answer()
    made.peer.take()
    made.engine.receive(frames.ping(b"12345678", ack=True))
    made.answer()
    assert len(made.peer.goaways) == 1
    assert not made.engine.closing


def test_a_body_and_an_answer_go_on_while_leaving(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    head = made.ask(method="POST", end=False)
    made.peer.slow.add(head.stream)
    made.engine.drain()
    made.turn()
    made.peer.send(head.stream, b"content", end=True)
    assert bodies(made.turn(), head.stream) == b"content"
    made.engine.respond(head.stream, 200, [], bytes(100_000), True)
    made.turn()
    assert not made.engine.closing
    made.peer.grant(head.stream, 100_000)
    made.turn()
    assert len(made.peer.answers[head.stream].body) == 100_000
    assert made.engine.closing


# The peer leaves


def test_a_peer_that_leaves_gets_its_answers(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    head = made.ask(method="POST", end=False)
    made.engine.receive(frames.goaway())
    assert not made.engine.closing
    made.peer.send(head.stream, b"the rest", end=True)
    assert bodies(made.turn(), head.stream) == b"the rest"
    respond(made, head)
    assert made.engine.closing


def test_an_idle_connection_that_the_peer_leaves_is_over(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    assert made.engine.receive(frames.goaway(Code.INTERNAL_ERROR, debug=b"\xff")) == [Closed()]
    made.answer()
    assert made.engine.closing


@pytest.mark.parametrize("served", [False, True])
def test_the_end_of_input_ends_an_idle_connection(http2_engine: MakeHttp2, served: bool) -> None:
    made = talk(http2_engine)
    if served:
        respond(made, made.ask())
    assert made.engine.eof() == [Closed()]
    assert made.engine.closing


def test_the_end_of_input_lets_answers_leave(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    head = made.ask()
    assert made.engine.eof() == [Closed()]
    assert not made.engine.closing
    respond(made, head)
    assert made.engine.closing


@pytest.mark.parametrize("responding", [False, True])
def test_the_end_of_input_inside_a_body_is_refused(http2_engine: MakeHttp2, responding: bool) -> None:
    made = talk(http2_engine)
    whole, half = made.ask(), made.ask(method="POST", end=False)
    if responding:
        made.engine.respond(half.stream, 200, [], b"first,", False)
    assert made.engine.eof() == [Refused(half.stream, 400, "the connection ended inside a body"), Closed()]
    if responding:
        made.engine.reset(half.stream, 0)
    else:
        made.engine.respond(half.stream, 400, [], b"half", True)
    respond(made, whole)
    assert made.engine.closing
    assert made.peer.answers[half.stream].ended is not responding


def test_the_end_of_input_inside_the_preface(http2_engine: MakeHttp2) -> None:
    engine = http2_engine(Limits(), Clock())
    assert engine.receive(PREFACE[:10]) == []
    assert engine.eof() == [Closed()]
    assert engine.closing


# Refusals of ours


def test_a_deadline_of_one_stream_refuses_that_one(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    late, other = made.ask(method="POST", end=False), made.ask(method="POST", end=False)
    assert made.engine.refuse(408, "too slow", late.stream) == [Refused(late.stream, 408, "too slow")]
    made.engine.respond(late.stream, 408, TEXT, b"late", True)
    made.peer.send(late.stream, b"too late")
    assert made.turn() == []
    answer = made.peer.answers[late.stream]
    assert (answer.status, answer.body, answer.ended, answer.reset) == (408, b"late", True, Code.NO_ERROR)
    made.peer.send(other.stream, b"in time", end=True)
    assert bodies(made.turn(), other.stream) == b"in time"
    respond(made, other)


def test_a_stream_that_is_gone_cannot_be_refused(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    assert made.engine.refuse(408, "too slow", 1) == []
    assert made.is_alive()


def test_a_deadline_of_the_connection_ends_it(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    made.ask()
    assert made.engine.refuse(408, "too slow") == [Broken(Code.ENHANCE_YOUR_CALM, "too slow")]
    assert made.engine.closing
    made.answer()
    assert made.peer.goaways == [(1, Code.ENHANCE_YOUR_CALM)]
    assert made.engine.receive(frames.headers(3, REQUEST)) == []


# What peers do wrong


def test_a_malformed_request_is_told_once_and_the_others_go_on(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    other = made.ask()
    bad = made.peer.library.get_next_available_stream_id()
    events, sent = made.say(frames.headers(bad, REQUEST + b"\0\x05Upper\1x"))
    assert [event[:2] for event in events] == [(bad, 0)]
    assert [(got.kind, got.stream, got.number) for got in sent] == [(Kind.RST_STREAM, bad, Code.PROTOCOL_ERROR)]
    respond(made, other)


def test_a_body_of_another_length_than_was_said_is_malformed(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    head = made.ask("/", ("content-length", "7"), method="POST", end=False)
    events, _ = made.say(frames.data(head.stream, b"short", end=True))
    assert not any(isinstance(event, Body) and event.end for event in events)
    refused = [event for event in events if isinstance(event, Refused | Broken)]
    assert len(refused) == 1


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frames.frame(Kind.DATA, b"x", stream=1), Code.PROTOCOL_ERROR),
        (frames.headers(2, REQUEST), Code.PROTOCOL_ERROR),
        (frames.frame(Kind.PING, b"short"), Code.FRAME_SIZE_ERROR),
        (frames.continuation(1, b""), Code.PROTOCOL_ERROR),
        (frames.frame(Kind.SETTINGS, b"", flags=Flag.ACK, stream=1), Code.PROTOCOL_ERROR),
    ],
)
def test_a_peer_that_breaks_the_protocol_gets_goaway_and_no_more(
    http2_engine: MakeHttp2, data: bytes, code: Code
) -> None:
    made = talk(http2_engine)
    events, sent = made.say(data)
    [broken] = events
    assert isinstance(broken, Broken)
    assert broken.code == code
    assert broken.reason.isascii()
    assert broken.reason.isprintable()
    assert made.engine.closing
    assert [(got.kind, got.payload[:8]) for got in sent] == [(Kind.GOAWAY, bytes(4) + code.to_bytes(4))]
    assert (made.engine.receive(data), made.engine.take(), made.engine.eof()[-1:]) == ([], [], [Closed()])


def test_whatever_is_asked_of_an_engine_behind_the_end_is_nothing(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    head = made.ask(method="POST", end=False)
    made.peer.send(head.stream, bytes(1_000))
    made.turn()
    made.say(frames.frame(Kind.PING, b"short"))
    engine, stream = made.engine, head.stream
    late = (
        lambda: engine.inform(stream, 103, []),
        lambda: engine.respond(stream, 200, [], b"content", True),
        lambda: engine.body(stream, b"content", True),
        lambda: engine.trailers(stream, [(b"x", b"y")]),
        lambda: engine.reset(stream, 0),
        lambda: engine.consumed(stream, 1_000),
        lambda: engine.push(stream, b"/", []),
        lambda: engine.refuse(408, "late", stream),
        engine.drain,
        lambda: engine.queued(stream),
        engine.waiting,
    )
    for call in late:
        assert call() in (None, [], {}, 0)
    assert engine.take() == []


# Floods (the costs of all kinds of frames: tests/conformance/http2/test_floods.py)


def test_a_client_that_gives_up_its_requests_now_and_then_may(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    for _ in range(30):
        for _ in range(20):
            made.peer.reset(made.ask().stream)
            made.turn()
        made.clock.now += 11
    assert made.is_alive()


def test_a_server_that_gives_up_streams_holds_that_against_nobody(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    for _ in range(500):
        made.engine.reset(made.ask().stream, Code.CANCEL)
        assert made.turn() == []
    assert made.is_alive()
