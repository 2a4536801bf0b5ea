"""How a stream becomes a WebSocket: in HTTP/1.1 (RFC 6455 section 4), in HTTP/2 (RFC 8441)."""

from base64 import urlsafe_b64encode
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appserver.wire.engine import Body, Closed, Engine, Event, Head, Headers, Limits, Refused, Reset, Switch
from appserver.wire.http1 import DISCARD_LIMIT
from appserver.wire.http2 import CONNECTION_WINDOW, STREAM_WINDOW
from appserver.wire.select import MakeEngine, MakeHttp2
from tests.conformance.http2 import frames
from tests.conformance.http2.fields import Fields, text
from tests.conformance.http2.frames import Code, Kind, Setting
from tests.contract.driver import cut, written
from tests.contract.exchange import begin, read, request, still_serves
from tests.contract.http2_peer import Answer
from tests.contract.http2_talk import Talk, bodies, talk

KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
BYTES = bytes(range(256))
ACCEPT: Headers = [(b"upgrade", b"websocket"), (b"connection", b"Upgrade"), (b"sec-websocket-accept", b"x")]


def ask(
    upgrade: bytes = b"websocket",
    connection: bytes = b"Upgrade",
    *,
    method: str = "GET",
    version: str = "1.1",
    more: bytes = b"",
) -> bytes:
    host = b"" if version == "1.1" else b"Host: a.example\r\n"
    fields = host + b"Upgrade: " + upgrade + b"\r\nConnection: " + connection + b"\r\n" + KEY + more
    return request(method, fields=fields, target="/chat?a=b", version=version)


def asks(engine: Engine, data: bytes) -> Head:
    """The head of a request for a WebSocket."""
    head = begin(engine, data)
    assert head.websocket
    return head


def given_one(make: MakeEngine, *, limits: Limits | None = None) -> tuple[Engine, int]:
    """An engine on which a WebSocket has been given, and its stream."""
    engine = make(limits or Limits(), websocket=True)
    head = asks(engine, ask())
    engine.accept(head.stream, ACCEPT)
    assert written(engine).startswith(b"HTTP/1.1 101 ")
    return engine, head.stream


def data_of(events: list[Event]) -> bytes:
    assert {type(event) for event in events} <= {Body}
    return b"".join(event.data for event in events if isinstance(event, Body))


# HTTP/1.1: who asks for one


def test_a_request_for_a_websocket_is_one(engine: MakeEngine) -> None:
    head = asks(engine(Limits(), websocket=True), ask())
    assert (head.method, head.target, head.version, head.end) == ("GET", b"/chat?a=b", "1.1", True)
    assert (b"sec-websocket-version", b"13") in head.headers


@pytest.mark.parametrize(
    "upgrade", [b"websocket", b"WebSocket", b"WEBSOCKET", b"h2c, websocket", b"websocket,foo", b"foo ,\twebsocket"]
)
@pytest.mark.parametrize("connection", [b"Upgrade", b"upgrade", b"keep-alive, Upgrade", b"UPGRADE,foo"])
def test_it_may_be_one_of_a_list(engine: MakeEngine, upgrade: bytes, connection: bytes) -> None:
    asks(engine(Limits(), websocket=True), ask(upgrade, connection))


def test_it_may_be_in_a_field_of_its_own(engine: MakeEngine) -> None:
    asks(engine(Limits(), websocket=True), ask(b"foo", more=b"Upgrade: websocket\r\n"))
    asks(engine(Limits(), websocket=True), ask(connection=b"keep-alive", more=b"Connection: Upgrade\r\n"))


def answered_as_any_other(engine: Engine, data: bytes, method: str = "GET") -> None:
    head = begin(engine, data)
    assert not head.websocket
    engine.respond(head.stream, 200, [(b"content-length", b"2")], b"ok", end=True)
    assert read(engine, method).body == b"ok"


@pytest.mark.parametrize(
    "upgrade", [b"h2c", b"websockets", b"xwebsocket", b"websocket/13", b"web, socket", b'"websocket"']
)
def test_who_asks_for_something_else_is_answered(engine: MakeEngine, upgrade: bytes) -> None:
    one = engine(Limits(), websocket=True)
    answered_as_any_other(one, ask(upgrade))
    still_serves(one)


@pytest.mark.parametrize("connection", [b"keep-alive", b"Upgrade-Insecure-Requests", b"websocket", b"xupgrade"])
def test_without_the_connection_option_the_field_is_no_word(engine: MakeEngine, connection: bytes) -> None:
    one = engine(Limits(), websocket=True)
    answered_as_any_other(one, ask(connection=connection))
    still_serves(one)


@pytest.mark.parametrize("method", ["POST", "PUT", "OPTIONS", "DELETE"])
def test_who_asks_by_another_method_is_answered(engine: MakeEngine, method: str) -> None:
    one = engine(Limits(), websocket=True)
    answered_as_any_other(one, ask(method=method), method)
    still_serves(one)


def test_http_1_0_knows_no_upgrade(engine: MakeEngine) -> None:
    # RFC 9110 section 7.8
    answered_as_any_other(engine(Limits(), websocket=True), ask(version="1.0"))


def test_where_it_is_not_served_the_request_is_as_any_other(engine: MakeEngine) -> None:
    one = engine(Limits())
    answered_as_any_other(one, ask())
    still_serves(one)


def h2c(upgrade: bytes) -> bytes:
    settings_ = urlsafe_b64encode(b"\0\3\0\0\0\x64")
    return ask(upgrade, b"Upgrade, HTTP2-Settings", more=b"HTTP2-Settings: " + settings_ + b"\r\n")


def test_of_h2c_and_websocket_the_websocket_is_given(engine: MakeEngine) -> None:
    # A handshake for the one is none for the other; and the one is what a browser asks for.
    asks(engine(Limits(), http2=True, upgrade=True, websocket=True), h2c(b"h2c, websocket"))
    [switch] = engine(Limits(), http2=True, upgrade=True, websocket=True).receive(h2c(b"h2c"))
    assert isinstance(switch, Switch)


@pytest.mark.parametrize("framing", [b"Content-Length: 4\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_a_request_for_one_may_have_a_body_and_is_told_so(engine: MakeEngine, framing: bytes) -> None:
    one = engine(Limits(), websocket=True)
    head = asks(one, ask(more=framing))
    assert not head.end
    one.accept(head.stream, ACCEPT)  # whoever does that all the same gets nothing
    assert written(one) == b""
    one.respond(head.stream, 400, [(b"content-length", b"2")], b"no", end=True)
    assert read(one).status == 400


@pytest.mark.parametrize("bad", [b"Host: b.example\r\n", b"Bad Name: x\r\n", b"Content-Length: x\r\n", b"X: \0\r\n"])
def test_a_bad_request_for_one_is_refused(engine: MakeEngine, bad: bytes) -> None:
    [event] = engine(Limits(), websocket=True).receive(ask(more=bad))
    assert isinstance(event, Refused)
    assert event.status == 400


# HTTP/1.1: given


def test_it_is_given_by_101_with_the_fields_of_the_answer(engine: MakeEngine) -> None:
    one = engine(Limits(), websocket=True)
    head = asks(one, ask())
    one.accept(head.stream, [*ACCEPT, (b"x-one", b"1")])
    assert written(one) == (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"upgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: x\r\nx-one: 1\r\n\r\n"
    )
    assert not one.closing
    assert not one.idle


def test_bytes_pass_both_ways_as_they_are(engine: MakeEngine) -> None:
    one, stream = given_one(engine)
    for data in (BYTES, b"GET / HTTP/1.1\r\n\r\n", b"\r\n", bytes(100_000)):
        assert one.receive(data) == [Body(stream, data, False)]
        one.body(stream, data, False)
        assert written(one) == data
    one.body(stream, b"last", True)
    assert written(one) == b"last"
    assert one.closing
    assert one.receive(b"more") == []


@given(place=st.lists(st.integers(0, 1000), max_size=6))
def test_bytes_may_be_cut_anywhere(engine: MakeEngine, place: list[int]) -> None:
    one = engine(Limits(), websocket=True)
    data = ask()
    head, *early = [event for piece in cut(data, place) for event in one.receive(piece)]
    assert isinstance(head, Head)
    assert early == []
    one.accept(head.stream, ACCEPT)
    one.take()
    assert data_of([event for piece in cut(BYTES, place) for event in one.receive(piece)]) == BYTES


@given(place=st.integers(0, 500), other=st.integers(0, 500))
def test_bytes_that_came_before_it_was_given_are_told_once_it_is(engine: MakeEngine, place: int, other: int) -> None:
    one = engine(Limits(), websocket=True)
    pieces = cut(ask() + BYTES, [place, other])
    events = [event for piece in pieces for event in one.receive(piece)]
    [head] = events
    assert isinstance(head, Head)
    assert one.pending == len(BYTES)
    one.accept(head.stream, ACCEPT)
    assert one.receive(b"") == [Body(head.stream, BYTES, False)]
    assert one.pending == 0
    assert one.receive(b"") == []


def test_nothing_is_drained_or_limited_in_it(engine: MakeEngine) -> None:
    one, stream = given_one(engine, limits=Limits(body=10, head=200))
    one.drain()
    assert one.receive(bytes(100_000)) == [Body(stream, bytes(100_000), False)]
    one.body(stream, b"answer", False)
    assert written(one) == b"answer"
    assert not one.closing


def test_the_end_of_input_is_told_behind_the_last_bytes(engine: MakeEngine) -> None:
    one, stream = given_one(engine)
    assert one.eof() == [Closed()]
    one.body(stream, b"still", False)
    assert written(one) == b"still"
    assert not one.closing
    one.body(stream, b"", True)
    assert one.closing


def test_the_end_of_input_before_it_is_given_is_told_behind_what_came(engine: MakeEngine) -> None:
    one = engine(Limits(), websocket=True)
    head = asks(one, ask())
    assert one.receive(b"early") == []
    assert one.eof() == [Closed()]
    one.accept(head.stream, ACCEPT)
    assert one.receive(b"") == [Body(head.stream, b"early", False)]


def test_a_reset_ends_it(engine: MakeEngine) -> None:
    one, stream = given_one(engine)
    one.reset(stream, 0)
    assert one.closing
    assert one.receive(b"more") == []


def test_nothing_but_its_bytes_is_written_into_it(engine: MakeEngine) -> None:
    one, stream = given_one(engine)
    one.accept(stream, ACCEPT)
    one.inform(stream, 103, [(b"link", b"x")])
    one.body(stream + 1, b"of another", True)
    assert written(one) == b""
    one.body(stream, b"", False)
    assert written(one) == b""
    assert not one.closing


def test_it_is_not_given_twice_nor_to_others(engine: MakeEngine) -> None:
    one = engine(Limits(), websocket=True)
    head = asks(one, ask())
    one.accept(head.stream + 1, ACCEPT)
    assert written(one) == b""
    one.respond(head.stream, 403, [(b"content-length", b"0")], b"", end=True)
    assert written(one).startswith(b"HTTP/1.1 403 ")
    one.accept(head.stream, ACCEPT)
    assert written(one) == b""
    still_serves(one)


# HTTP/1.1: denied


@pytest.mark.parametrize("status", [400, 403, 404, 426, 500])
def test_a_denial_is_an_answer_as_any_other_and_the_connection_goes_on(engine: MakeEngine, status: int) -> None:
    one = engine(Limits(), websocket=True)
    head = asks(one, ask() + request(target="/behind"))
    one.respond(head.stream, status, [(b"content-length", b"6")], b"denied", end=True)
    assert read(one).body == b"denied"
    assert not one.closing
    [behind] = one.receive(b"")
    assert isinstance(behind, Head)
    assert behind.target == b"/behind"
    one.respond(behind.stream, 200, [(b"content-length", b"0")], b"", end=True)
    assert read(one).status == 200
    still_serves(one)


def test_a_denial_may_be_streamed(engine: MakeEngine) -> None:
    one = engine(Limits(), websocket=True)
    head = asks(one, ask())
    one.respond(head.stream, 403, [], b"de", end=False)
    one.body(head.stream, b"nied", True)
    assert read(one).body == b"denied"
    still_serves(one)


def test_frames_that_came_before_a_denial_are_no_request(engine: MakeEngine) -> None:
    one = engine(Limits(), websocket=True)
    head = asks(one, ask() + b"\x81\x85\0\0\0\0hello\r\n\r\n")
    one.respond(head.stream, 403, [(b"content-length", b"0")], b"", end=True)
    assert written(one)
    [refused] = one.receive(b"")
    assert isinstance(refused, Refused)
    assert refused.status == 400


def test_a_second_request_of_a_connection_may_ask_for_one(engine: MakeEngine) -> None:
    one = engine(Limits(), websocket=True)
    answered_as_any_other(one, request())
    head = asks(one, ask())
    one.respond(head.stream, 403, [(b"content-length", b"0")], b"", end=True)
    assert read(one).status == 403
    head = asks(one, ask())
    one.accept(head.stream, ACCEPT)
    written(one)
    assert one.receive(b"x") == [Body(head.stream, b"x", False)]


def test_a_body_of_a_refused_handshake_is_thrown_away(engine: MakeEngine) -> None:
    one = engine(Limits(), websocket=True)
    head = asks(one, ask(more=b"Content-Length: 4\r\n"))
    one.respond(head.stream, 400, [(b"content-length", b"0")], b"", end=True)
    assert written(one)
    assert one.receive(b"body") == []
    still_serves(one)
    assert DISCARD_LIMIT > 4


# HTTP/2

LINE: Fields = [
    (b":method", b"CONNECT"),
    (b":scheme", b"https"),
    (b":authority", b"a.example"),
    (b":path", b"/chat?a=b"),
    (b":protocol", b"websocket"),
]
VERSION: Fields = [(b"sec-websocket-version", b"13")]


def block(fields: Fields) -> bytes:
    return b"".join(b"\0" + text(name) + text(value) for name, value in fields)


def talks(
    make: MakeHttp2, limits: Limits | None = None, settings_: dict[int, int] | None = None, *, on: bool = True
) -> Talk:
    made = partial(make, websocket=on)
    return talk(made, limits, settings_)  # type: ignore[arg-type]


def connect(made: Talk, *fields: tuple[bytes, bytes], end: bool = False) -> int:
    """Ask for a WebSocket; its stream."""
    stream = made.peer.library.get_next_available_stream_id()
    made.peer.library.send_headers(stream, [*LINE, *VERSION, *fields], end_stream=end)
    made.peer.answers[stream] = Answer()
    return stream


def connected(made: Talk) -> int:
    """The stream of a WebSocket that has been given."""
    stream = connect(made)
    [head] = made.turn()
    assert isinstance(head, Head)
    assert head.websocket
    made.engine.accept(stream, [])
    made.turn()
    assert made.peer.answers[stream].status == 200
    return stream


@pytest.mark.parametrize("on", [False, True])
def test_http_2_says_whether_it_can_be_asked(http2_engine: MakeHttp2, on: bool) -> None:
    made = talks(http2_engine, on=on)
    said = made.peer.library.remote_settings
    assert said.enable_connect_protocol == int(on)
    [first] = [got for got in made.peer.frames if got.kind == Kind.SETTINGS and got.payload]
    told = {int.from_bytes(first.payload[at : at + 2]) for at in range(0, len(first.payload), 6)}
    assert on is False or Setting.ENABLE_CONNECT_PROTOCOL in told


def test_an_extended_connect_asks_for_one(http2_engine: MakeHttp2) -> None:
    made = talks(http2_engine)
    stream = connect(made, (b"origin", b"https://a.example"))
    [head] = made.turn()
    assert head == Head(
        stream,
        "CONNECT",
        b"/chat?a=b",
        [(b"host", b"a.example"), *VERSION, (b"origin", b"https://a.example")],
        "2",
        True,
        False,
        True,
    )


def test_every_one_of_a_connection_is_asked_for_alike(http2_engine: MakeHttp2) -> None:
    made = talks(http2_engine)
    streams = [connected(made) for _ in range(3)]
    for stream in streams:
        made.peer.send(stream, b"%d" % stream)
    events = made.turn()
    assert [(event.stream, event.data) for event in events if isinstance(event, Body)] == [
        (stream, b"%d" % stream) for stream in streams
    ]
    assert made.is_alive()


def test_behind_one_a_request_is_a_request(http2_engine: MakeHttp2) -> None:
    made = talks(http2_engine)
    connected(made)
    head = made.ask("/plain")
    assert (head.method, head.target, head.websocket) == ("GET", b"/plain", False)


def told(http2_engine: MakeHttp2, fields: Fields, *, on: bool = True, end: bool = False) -> list[Event]:
    """What the engine tells of a request; the connection goes on."""
    made = talks(http2_engine, on=on)
    events, sent = made.say(frames.headers(1, block(fields), end=end))
    assert Kind.GOAWAY not in [got.kind for got in sent]
    return events


def without(name: bytes) -> Fields:
    return [field for field in LINE if field[0] != name]


@pytest.mark.parametrize("protocol", [b"websockets", b"WebSocket", b"connect-udp", b"webtransport", b"websocket, x"])
def test_another_protocol_is_answered_501(http2_engine: MakeHttp2, protocol: bytes) -> None:
    [event] = told(http2_engine, [*without(b":protocol"), (b":protocol", protocol), *VERSION])
    assert isinstance(event, Refused)
    assert event.status == 501


def test_connect_without_a_protocol_is_answered_501(http2_engine: MakeHttp2) -> None:
    [event] = told(http2_engine, [(b":method", b"CONNECT"), (b":authority", b"a.example:443")])
    assert isinstance(event, Refused)
    assert event.status == 501


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(without(b":path"), id="no :path"),
        pytest.param(without(b":scheme"), id="no :scheme"),
        pytest.param(without(b":authority"), id="no :authority"),
        pytest.param([*LINE, (b":protocol", b"websocket")], id=":protocol twice"),
        pytest.param([*without(b":protocol"), *VERSION, (b":protocol", b"websocket")], id=":protocol behind a field"),
        pytest.param([*without(b":path"), (b":path", b"*")], id="a :path that is an asterisk"),
        pytest.param([*without(b":path"), (b":path", b"")], id="an empty :path"),
        pytest.param([(b":method", b"GET"), *LINE[1:]], id=":protocol without CONNECT"),
        pytest.param([(b":method", b"POST"), *LINE[1:]], id=":protocol with POST"),
        pytest.param([*without(b":protocol"), (b":protocol", b"")], id="an empty :protocol"),
        pytest.param([*LINE, (b"upgrade", b"websocket")], id="Upgrade"),
        pytest.param([*LINE, (b"connection", b"upgrade")], id="Connection"),
    ],
)
def test_what_is_malformed_is_reset(http2_engine: MakeHttp2, fields: Fields) -> None:
    for end in (False, True):
        [event] = told(http2_engine, fields, end=end)
        assert isinstance(event, Refused)
        assert event.status == 0


def test_a_get_with_a_protocol_is_malformed_behind_a_good_one_too(http2_engine: MakeHttp2) -> None:
    made = talks(http2_engine)
    events, _ = made.say(frames.headers(1, block([*LINE, *VERSION]), end=False))
    assert [type(event) for event in events] == [Head]
    events, _ = made.say(frames.headers(3, block([(b":method", b"GET"), *LINE[1:], *VERSION])))
    [event] = events
    assert isinstance(event, Refused)
    assert event.status == 0


@pytest.mark.parametrize("fields", [LINE, without(b":protocol")])
def test_where_it_is_not_served_nobody_can_ask(http2_engine: MakeHttp2, fields: Fields) -> None:
    [event] = told(http2_engine, [*fields, *VERSION], on=False)
    assert isinstance(event, Refused)
    assert event.status == 0


def test_one_that_ends_with_its_head_is_refused(http2_engine: MakeHttp2) -> None:
    made = talks(http2_engine)
    stream = connect(made, end=True)
    [event] = made.turn()
    assert isinstance(event, Refused)
    assert event.status == 400
    made.engine.respond(stream, 400, [], b"no", True)
    made.turn()
    assert (made.peer.answers[stream].status, made.peer.answers[stream].ended) == (400, True)
    assert made.is_alive()


def test_http_2_bytes_pass_both_ways_as_they_are(http2_engine: MakeHttp2) -> None:
    made = talks(http2_engine)
    stream = connected(made)
    answer = made.peer.answers[stream]
    for data in (BYTES, b"", bytes(50_000)):
        made.peer.send(stream, data)
        assert bodies(made.turn(), stream) == data
        made.engine.consumed(stream, len(data))
        made.engine.body(stream, data, False)
        made.turn()
        assert answer.body.endswith(data)
        assert not answer.ended
    made.engine.body(stream, b"last", True)
    made.turn()
    assert (answer.body[-4:], answer.ended) == (b"last", True)
    assert made.is_alive()


@settings(max_examples=50)
@given(place=st.lists(st.integers(0, 2000), max_size=6))
def test_http_2_bytes_may_be_cut_anywhere(http2_engine: MakeHttp2, place: list[int]) -> None:
    made = talks(http2_engine)
    stream = connect(made)
    for at in range(0, len(BYTES), 50):
        made.peer.send(stream, BYTES[at : at + 50])
    head, *rest = [event for piece in cut(made.peer.take(), place) for event in made.engine.receive(piece)]
    assert isinstance(head, Head)
    assert (head.stream, head.websocket) == (stream, True)
    assert bodies(rest, stream) == BYTES


def test_http_2_bytes_that_came_before_it_was_given_are_told_at_once(http2_engine: MakeHttp2) -> None:
    made = talks(http2_engine)
    stream = connect(made)
    made.peer.send(stream, b"early")
    head, body = made.turn()
    assert isinstance(head, Head)
    assert body == Body(stream, b"early", False)
    made.engine.accept(stream, [(b"sec-websocket-protocol", b"chat")])
    made.turn()
    answer = made.peer.answers[stream]
    assert (answer.status, answer.fields, answer.ended) == (200, [(b"sec-websocket-protocol", b"chat")], False)


def test_http_2_it_is_given_once_and_to_nobody_else(http2_engine: MakeHttp2) -> None:
    made = talks(http2_engine)
    stream = connected(made)
    made.engine.accept(stream, [])
    made.engine.accept(stream + 2, [])
    made.engine.respond(stream, 500, [], b"no", True)
    made.turn()
    answer = made.peer.answers[stream]
    assert (answer.status, answer.body, answer.ended) == (200, b"", False)


def test_no_limit_of_a_body_is_about_it(http2_engine: MakeHttp2) -> None:
    made = talks(http2_engine, Limits(body=10))
    stream = connected(made)
    made.peer.send(stream, bytes(1000))
    assert bodies(made.turn(), stream) == bytes(1000)
    head = made.ask("/", method="POST", end=False)
    made.peer.send(head.stream, bytes(11))
    [refused] = made.turn()
    assert isinstance(refused, Refused)
    assert refused.status == 413


def test_what_is_not_read_is_not_sent_more_of(http2_engine: MakeHttp2) -> None:
    made = talks(http2_engine)
    stream = connected(made)
    library = made.peer.library
    sent = 0
    while room := min(library.local_flow_control_window(stream), 16_384):
        made.peer.send(stream, bytes(room))
        made.turn()
        sent += room
    assert sent == STREAM_WINDOW < CONNECTION_WINDOW
    made.engine.consumed(stream, sent)
    made.turn()
    assert library.local_flow_control_window(stream) == STREAM_WINDOW


def test_what_the_client_does_not_read_is_kept(http2_engine: MakeHttp2) -> None:
    made = talks(http2_engine)
    stream = connected(made)
    made.peer.slow.add(stream)
    made.engine.body(stream, bytes(200_000), False)
    made.turn()
    held = made.engine.queued(stream)
    assert held == 200_000 - len(made.peer.answers[stream].body) > 0
    assert made.engine.waiting() == {stream: 200_000 - held}
    made.peer.grant(stream, 200_000)
    made.turn()
    assert made.engine.queued(stream) == 0
    assert len(made.peer.answers[stream].body) == 200_000


def test_the_client_may_end_its_side(http2_engine: MakeHttp2) -> None:
    made = talks(http2_engine)
    stream = connected(made)
    made.peer.send(stream, b"last", end=True)
    assert made.turn() == [Body(stream, b"last", True)]
    made.engine.body(stream, b"bye", True)
    made.turn()
    assert made.peer.answers[stream].ended
    assert made.is_alive()


def test_the_client_may_give_it_up(http2_engine: MakeHttp2) -> None:
    made = talks(http2_engine)
    stream = connected(made)
    made.peer.send(stream, b"some")
    made.peer.reset(stream)
    assert made.turn()[-1] == Reset(stream, Code.CANCEL)
    made.engine.body(stream, b"more", False)
    made.turn()
    assert made.is_alive()


def test_we_may_give_it_up(http2_engine: MakeHttp2) -> None:
    made = talks(http2_engine)
    stream = connected(made)
    made.engine.reset(stream, Code.INTERNAL_ERROR)
    made.turn()
    assert made.peer.answers[stream].reset == Code.INTERNAL_ERROR
    assert made.is_alive()


def test_http_2_a_denial_is_an_answer_as_any_other(http2_engine: MakeHttp2) -> None:
    made = talks(http2_engine)
    stream = connect(made)
    made.turn()
    made.engine.respond(stream, 403, [(b"content-length", b"6")], b"denied", True)
    made.turn()
    answer = made.peer.answers[stream]
    assert (answer.status, answer.body, answer.ended) == (403, b"denied", True)
    assert made.is_alive()


def test_the_end_of_input_is_the_end_of_the_clients_side_and_no_fault(http2_engine: MakeHttp2) -> None:
    made = talks(http2_engine)
    stream = connected(made)
    assert made.engine.eof() == [Body(stream, b"", True), Closed()]
    made.engine.body(stream, b"bye", True)
    made.answer()
    assert (made.peer.answers[stream].body, made.peer.answers[stream].ended) == (b"bye", True)
    assert made.engine.closing


def test_leaving_lets_it_go_on(http2_engine: MakeHttp2) -> None:
    made = talks(http2_engine)
    stream = connected(made)
    made.engine.drain()
    made.turn()
    assert made.peer.goaways
    made.peer.send(stream, b"more")
    assert bodies(made.turn(), stream) == b"more"
    made.engine.body(stream, b"bye", True)
    made.turn()
    assert made.peer.answers[stream].body == b"bye"
