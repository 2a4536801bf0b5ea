"""How a connection goes on in HTTP/2: by prior knowledge (RFC 9113 section 3.3), or h2c (RFC 7540 section 3.2)."""

from base64 import urlsafe_b64encode

import pytest

from appserver.wire.engine import Closed, Engine, Event, Head, Limits, Refused, Switch
from appserver.wire.http1_switch import SWITCHING
from appserver.wire.select import MakeEngine, MakeHttp2
from tests.conformance.http2.frames import PREFACE
from tests.conformance.http2.memory import Clock
from tests.contract.driver import cut, written
from tests.contract.exchange import begin, read, request
from tests.contract.http2_peer import Http2Peer
from tests.contract.http2_talk import Talk

SETTINGS = b"\0\3\0\0\0\x64\0\4\0\1\0\0"
BEHIND = b"\0\0\0\4\0\0\0\0\0"  # SETTINGS of a client, which are not the HTTP/1.1 engine's to read


def h2c(
    *,
    method: str = "GET",
    connection: bytes | None = b"Upgrade, HTTP2-Settings",
    upgrade: bytes | None = b"h2c",
    settings: bytes | None = urlsafe_b64encode(SETTINGS).rstrip(b"="),
    fields: bytes = b"",
    version: str = "1.1",
    body: bytes = b"",
) -> bytes:
    """A request that asks for h2c."""
    for name, value in ((b"Connection", connection), (b"Upgrade", upgrade), (b"HTTP2-Settings", settings)):
        if value is not None:
            fields += name + b": " + value + b"\r\n"
    return request(method, target="/path?query", fields=fields, version=version, body=body)


def feed(engine: Engine, pieces: list[bytes]) -> list[Event]:
    """What pieces bring, with those behind a switch put where the connection would put them."""
    events: list[Event] = []
    received = b""
    for piece in pieces:
        if events and isinstance(events[-1], Switch):
            received += piece
        else:
            events += engine.receive(piece)
    if events and isinstance(events[-1], Switch):
        events[-1] = events[-1]._replace(received=events[-1].received + received)
    return events


def answer_of_http_1(engine: Engine, data: bytes) -> None:
    """A request is answered as if nobody had asked for anything else, and the next one too."""
    head = begin(engine, data)
    assert head.version == "1.1"
    engine.respond(head.stream, 200, [(b"content-length", b"2")], b"ok", end=True)
    assert read(engine, head.method).status == 200
    head = begin(engine, request(target="/next"))
    engine.respond(head.stream, 200, [(b"content-length", b"4")], b"next", end=True)
    assert read(engine).body == b"next"


# Prior knowledge


def test_the_preface_is_handed_on_whole(engine: MakeEngine) -> None:
    one = engine(Limits(), http2=True, upgrade=True)
    assert one.receive(PREFACE + BEHIND) == [Switch(PREFACE + BEHIND, None, None)]
    assert one.take() == []
    assert (one.receive(b"more"), one.take()) == ([], [])


@pytest.mark.parametrize("place", range(1, len(PREFACE + BEHIND)))
def test_the_preface_may_be_cut_anywhere(engine: MakeEngine, place: int) -> None:
    one = engine(Limits(), http2=True, upgrade=True)
    assert feed(one, cut(PREFACE + BEHIND, [place])) == [Switch(PREFACE + BEHIND, None, None)]


def test_the_preface_may_come_byte_by_byte(engine: MakeEngine) -> None:
    one = engine(Limits(), http2=True, upgrade=True)
    data = PREFACE + BEHIND
    assert feed(one, cut(data, range(len(data)))) == [Switch(data, None, None)]


def test_the_preface_is_refused_where_http_2_is_not_spoken(engine: MakeEngine) -> None:
    one = engine(Limits())
    [refused] = one.receive(PREFACE + BEHIND)
    assert isinstance(refused, Refused)
    assert refused.status == 505
    one.respond(refused.stream, 505, [], b"", end=True)
    assert one.take()
    assert one.closing


@pytest.mark.parametrize("answered", [False, True])
def test_the_preface_behind_a_request_is_refused(engine: MakeEngine, answered: bool) -> None:
    # A peer that makes up its mind so late is somebody who got bytes into another's connection.
    one = engine(Limits(), http2=True, upgrade=True)
    head = begin(one, request() + (b"" if answered else PREFACE))
    one.respond(head.stream, 200, [(b"content-length", b"2")], b"ok", end=True)
    [refused] = one.receive(PREFACE if answered else b"")
    assert isinstance(refused, Refused)
    assert refused.status == 505


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n" + PREFACE,
        b"PRI * HTTP/2.0\r\nHost: a.example\r\n\r\nSM\r\n\r\n",
        b"PRI / HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PRI * HTTP/2.1\r\n\r\nSM\r\n\r\n",
        b"PRI * HTTP/1.1\r\n\r\nSM\r\n\r\n",
        b"pri * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_is_almost_the_preface_is_refused(engine: MakeEngine, data: bytes) -> None:
    one = engine(Limits(), http2=True, upgrade=True)
    events = one.receive(data)
    assert [type(event) for event in events] == [Refused]


@pytest.mark.parametrize("place", range(1, 18))
def test_the_end_inside_the_preface_is_no_switch(engine: MakeEngine, place: int) -> None:
    one = engine(Limits(), http2=True, upgrade=True)
    assert one.receive(PREFACE[:place]) == []
    [refused] = one.eof()
    assert isinstance(refused, Refused)
    assert refused.status == 400


# h2c


def test_h2c_is_not_for_everybody(engine: MakeEngine) -> None:
    # A proxy that passes the request on becomes a tunnel, and the client a trusted peer.
    answer_of_http_1(engine(Limits(), http2=True), h2c())


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_h2c_is_answered_101_and_its_request_handed_on(engine: MakeEngine, method: str) -> None:
    one = engine(Limits(), http2=True, upgrade=True)
    [switch] = one.receive(h2c(method=method))
    assert isinstance(switch, Switch)
    assert (switch.received, switch.settings) == (b"", SETTINGS)
    assert switch.head is not None
    assert (switch.head[:3], switch.head.end) == ((1, method, b"/path?query"), True)
    assert written(one) == SWITCHING
    assert (one.receive(PREFACE), one.take()) == ([], [])


@pytest.mark.parametrize("place", range(1, len(h2c() + PREFACE)))
def test_h2c_may_be_cut_anywhere(engine: MakeEngine, place: int) -> None:
    one = engine(Limits(), http2=True, upgrade=True)
    [switch] = feed(one, cut(h2c() + PREFACE, [place]))
    assert isinstance(switch, Switch)
    assert (switch.received, switch.settings) == (PREFACE, SETTINGS)
    assert written(one) == SWITCHING


@pytest.mark.parametrize(
    "fields",
    [
        {"upgrade": b"websocket, h2c"},
        {"upgrade": b"h2c,h2c-17"},
        {"connection": b"http2-settings,upgrade"},
        {"connection": b"UPGRADE, HTTP2-SETTINGS"},
        {"connection": b"Upgrade", "fields": b"Connection: HTTP2-Settings\r\n"},
        {"upgrade": b"websocket", "fields": b"Upgrade: h2c\r\n"},
        {"settings": b""},
        {"settings": urlsafe_b64encode(b"\0\3\0\0\0\x64\0\3\0\0\0\x65")},
        {"settings": urlsafe_b64encode(b"\xfb\xef\xbe\xff\xff\xff")},
    ],
)
def test_h2c_may_be_asked_for_in_many_ways(engine: MakeEngine, fields: dict[str, bytes]) -> None:
    one = engine(Limits(), http2=True, upgrade=True)
    [switch] = one.receive(h2c(**fields))  # type: ignore[arg-type]
    assert isinstance(switch, Switch)
    assert switch.settings is not None
    assert len(switch.settings) % 6 == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"settings": None},
        {"settings": b"AAMAAABk", "fields": b"HTTP2-Settings: AAMAAABk\r\n"},
        {"settings": b"AAMAAAB"},
        {"settings": b"A"},
        {"settings": b"AAMAAABkAA"},
        {"settings": b"AAMAAABkAAM"},
        {"settings": urlsafe_b64encode(bytes(6 * 33))},
        {"connection": b"Upgrade"},
        {"connection": b"HTTP2-Settings"},
        {"connection": None},
        {"upgrade": None},
        {"upgrade": b"h2"},
        {"upgrade": b"websocket"},
        {"upgrade": b"xh2c"},
    ],
)
def test_h2c_that_is_asked_for_in_a_wrong_way_is_no_word(engine: MakeEngine, fields: dict[str, bytes | None]) -> None:
    answer_of_http_1(engine(Limits(), http2=True, upgrade=True), h2c(**fields))  # type: ignore[arg-type]


@pytest.mark.parametrize("settings", [b"!!!!", b"AAMA*AABk", b"AAMAAABk!!!!", b"AAMA ABk", b"AA==AAAA"])
def test_settings_that_are_no_base64_are_no_word(engine: MakeEngine, settings: bytes) -> None:
    answer_of_http_1(engine(Limits(), http2=True, upgrade=True), h2c(settings=settings))


def test_h2c_is_no_word_where_http_2_is_not_spoken(engine: MakeEngine) -> None:
    answer_of_http_1(engine(Limits()), h2c())


def test_h2c_is_no_word_behind_another_request(engine: MakeEngine) -> None:
    one = engine(Limits(), http2=True, upgrade=True)
    head = begin(one, request())
    one.respond(head.stream, 200, [(b"content-length", b"2")], b"ok", end=True)
    assert read(one).body == b"ok"
    answer_of_http_1(one, h2c())


def test_h2c_is_no_word_while_leaving(engine: MakeEngine) -> None:
    one = engine(Limits(), http2=True, upgrade=True)
    one.drain()
    head = begin(one, h2c())
    one.respond(head.stream, 200, [(b"content-length", b"2")], b"ok", end=True)
    assert read(one).values(b"connection") == [b"close"]


@pytest.mark.parametrize("framing", [b"Content-Length: 4\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_h2c_with_a_body_is_answered_in_http_1(engine: MakeEngine, framing: bytes) -> None:
    # It would have to be read whole before the 101 (RFC 7540 section 3.2): up to any size, by whoever asks for it.
    body = b"body" if framing.startswith(b"Content") else b"4\r\nbody\r\n0\r\n\r\n"
    answer_of_http_1(engine(Limits(), http2=True, upgrade=True), h2c(method="POST", fields=framing, body=body))


def test_http_1_0_cannot_ask_for_h2c(engine: MakeEngine) -> None:
    # RFC 9110 section 7.8
    one = engine(Limits(), http2=True, upgrade=True)
    head = begin(one, h2c(version="1.0", fields=b"Host: a.example\r\n"))
    one.respond(head.stream, 200, [(b"content-length", b"2")], b"ok", end=True)
    assert read(one).body == b"ok"


def test_a_bad_request_that_asks_for_h2c_is_refused(engine: MakeEngine) -> None:
    one = engine(Limits(), http2=True, upgrade=True)
    assert [type(event) for event in one.receive(h2c(fields=b"Host: b.example\r\n"))] == [Refused]


def test_the_end_of_input_behind_a_switch_is_no_refusal(engine: MakeEngine) -> None:
    one = engine(Limits(), http2=True, upgrade=True)
    one.receive(h2c())
    assert one.eof() == [Closed()]


# Both engines together


def test_http_2_goes_on_where_http_1_has_left_off(engine: MakeEngine, http2_engine: MakeHttp2) -> None:
    one = engine(Limits(), http2=True, upgrade=True)
    made = Talk(http2_engine(Limits(), Clock()), Http2Peer())
    made.peer.start()
    made.peer.ask("/first")
    [switch] = one.receive(made.peer.take())
    assert isinstance(switch, Switch)
    [head] = made.engine.receive(switch.received)
    assert isinstance(head, Head)
    made.engine.respond(head.stream, 200, [], b"first", True)
    made.turn()
    assert made.peer.answers[1].body == b"first"
    assert made.is_alive()


def test_the_request_of_h2c_is_answered_in_http_2(engine: MakeEngine, http2_engine: MakeHttp2) -> None:
    one = engine(Limits(), http2=True, upgrade=True)
    made = Talk(http2_engine(Limits(), Clock()), Http2Peer())
    value = made.peer.upgrade()
    [switch] = one.receive(h2c(settings=value) + made.peer.take())
    assert isinstance(switch, Switch)
    assert switch.settings is not None
    assert switch.head is not None
    [head] = made.engine.upgrade(switch.settings, switch.head)
    assert isinstance(head, Head)
    assert head == Head(1, "GET", b"/path?query", [(b"host", b"a.example")], "2", True, False, False)
    assert made.engine.receive(switch.received) == []
    made.engine.respond(1, 200, [], b"first", True)
    made.turn()
    assert made.peer.answers[1].body == b"first"
    assert made.is_alive()
