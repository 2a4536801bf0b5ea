"""What HTTP/2 engines write: responses, what goes before and behind them, and how one is cut short."""

import pytest
from h2.settings import SettingCodes

from appserver.wire.engine import Head, Headers, Limits, Reset
from appserver.wire.select import MakeHttp2
from tests.conformance.http2 import frames
from tests.conformance.http2.frames import Code, Kind
from tests.contract.driver import written
from tests.contract.http2_talk import TEXT, Talk, talk

LINK: Headers = [(b"link", b"</style.css>; rel=preload")]


def answered(made: Talk, head: Head, status: int, headers: Headers, body: bytes) -> bytes:
    """Give a whole response; the body that the client gets, which must be all that was sent on the stream."""
    made.engine.respond(head.stream, status, headers, body, True)
    made.turn()
    answer = made.peer.answers[head.stream]
    assert (answer.status, answer.ended, answer.reset) == (status, True, None)
    return answer.body


def test_a_response_is_its_head_and_its_body(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    head = made.ask("/path?query")
    assert head == Head(1, "GET", b"/path?query", [(b"host", b"a.example")], "2", True, False, kept=True)
    assert answered(made, head, 200, TEXT, b"content") == b"content"
    assert made.peer.answers[1].fields == TEXT
    assert made.peer.kinds(1) == [Kind.HEADERS, Kind.DATA]
    assert made.engine.idle


def test_a_response_without_a_body_is_one_frame(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    answered(made, made.ask(), 200, [], b"")
    assert made.peer.kinds(1) == [Kind.HEADERS]


@pytest.mark.parametrize("status", [200, 299, 404, 599, 600, 999])
def test_any_status_that_an_application_may_name(http2_engine: MakeHttp2, status: int) -> None:
    made = talk(http2_engine)
    answered(made, made.ask(), status, [], b"content")
    assert made.is_alive()


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304), ("HEAD", 304)])
@pytest.mark.parametrize("whole", [True, False])
def test_no_body_where_none_may_be(http2_engine: MakeHttp2, method: str, status: int, whole: bool) -> None:
    made = talk(http2_engine)
    head = made.ask(method=method)
    length: Headers = [] if status == 204 else [(b"content-length", b"7")]
    made.engine.respond(head.stream, status, length, b"content", whole)
    if not whole:
        made.engine.body(head.stream, b"more", False)
        made.engine.body(head.stream, b"last", True)
    made.turn()
    answer = made.peer.answers[1]
    assert (answer.status, answer.fields, answer.body, answer.ended) == (status, length, b"", True)
    assert made.engine.idle


def test_a_response_in_pieces_comes_in_order(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    head = made.ask()
    made.engine.respond(head.stream, 200, [], b"", False)
    made.turn()
    assert made.peer.answers[1].status == 200
    for piece in (b"a" * 20_000, b"", b"b", b"c" * 40_000):
        made.engine.body(head.stream, piece, False)
    made.turn()
    answer = made.peer.answers[1]
    assert (answer.body, answer.ended) == (b"a" * 20_000 + b"b" + b"c" * 40_000, False)
    made.engine.body(head.stream, b"", True)
    made.turn()
    assert (len(answer.body), answer.ended) == (60_001, True)
    assert made.engine.idle


def test_fields_of_the_http_1_connection_are_dropped(http2_engine: MakeHttp2) -> None:
    # RFC 9113 section 8.2.2
    made = talk(http2_engine)
    dropped: Headers = [
        (b"connection", b"close, x-option"),
        (b"keep-alive", b"timeout=5"),
        (b"proxy-connection", b"close"),
        (b"transfer-encoding", b"chunked"),
        (b"upgrade", b"websocket"),
    ]
    answered(made, made.ask(), 200, [*dropped[:3], *TEXT, *dropped[3:]], b"content")
    assert made.peer.answers[1].fields == TEXT
    assert made.is_alive()  # `Connection: close` is no word to HTTP/2


def test_many_fields_and_large_ones(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    fields = [(b"set-cookie", b"n%d=" % number + b"v" * 2_000) for number in range(20)]
    answered(made, made.ask(), 200, fields, b"content")
    assert made.peer.answers[1].fields == fields
    assert Kind.CONTINUATION in made.peer.kinds(1)


def test_a_second_response_and_a_body_before_or_behind_are_nothing(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    head = made.ask()
    made.engine.body(head.stream, b"too soon", False)
    made.engine.trailers(head.stream, [(b"x-too", b"soon")])
    assert answered(made, head, 200, [], b"content") == b"content"
    made.engine.respond(head.stream, 500, [], b"again", True)
    made.engine.body(head.stream, b"too late", True)
    made.engine.trailers(head.stream, [(b"x-too", b"late")])
    made.engine.inform(head.stream, 103, LINK)
    made.engine.reset(head.stream, 0)
    made.turn()
    assert made.peer.kinds(1) == [Kind.HEADERS, Kind.DATA]
    assert made.is_alive()


# Interim responses


def test_interim_responses_come_before_the_final_one(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    head = made.ask()
    made.engine.inform(head.stream, 103, LINK)
    made.turn()
    assert made.peer.answers[1].interim == [(103, LINK)]
    made.engine.inform(head.stream, 103, LINK)
    answered(made, head, 200, TEXT, b"content")
    assert made.peer.answers[1].interim == [(103, LINK), (103, LINK)]


def test_no_interim_response_behind_the_final_head(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    head = made.ask()
    made.engine.respond(head.stream, 200, [], b"first", False)
    made.engine.inform(head.stream, 103, LINK)
    made.engine.body(head.stream, b"", True)
    made.turn()
    assert made.peer.answers[1].interim == []


def test_100_continue_only_to_whoever_waits_for_it_and_once(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    for expects in (False, True):
        fields = [("expect", "100-continue")] if expects else []
        head = made.ask("/", *fields, method="POST", end=False)
        assert head.expects is expects
        made.engine.inform(head.stream, 100, [])
        made.engine.inform(head.stream, 100, [])
        made.turn()
        assert made.peer.answers[head.stream].interim == [(100, [])] * expects


def test_no_100_continue_once_the_body_has_begun(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    head = made.ask("/", ("expect", "100-continue"), method="POST", end=False)
    made.peer.send(head.stream, b"did not wait")
    made.turn()
    made.engine.inform(head.stream, 100, [])
    made.turn()
    assert made.peer.answers[head.stream].interim == []


# Trailers


@pytest.mark.parametrize("size", [0, 4, 100_000])
def test_trailers_come_behind_all_of_the_body(http2_engine: MakeHttp2, size: int) -> None:
    made = talk(http2_engine)
    head = made.ask()
    made.engine.respond(head.stream, 200, [(b"trailer", b"x-sum")], b"b" * size, False)
    made.engine.trailers(head.stream, [(b"x-sum", b"1"), (b"x-more", b"2")])
    made.turn()
    answer = made.peer.answers[1]
    assert (len(answer.body), answer.ended) == (size, True)
    assert answer.trailers == [(b"x-sum", b"1"), (b"x-more", b"2")]
    assert made.peer.kinds(1)[-1] is Kind.HEADERS
    assert made.engine.idle


# Cuts


def test_a_reset_shows_and_touches_no_other_stream(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    cut, other = made.ask("/cut"), made.ask("/other")
    for head in (cut, other):
        made.engine.respond(head.stream, 200, [(b"content-length", b"10")], b"first", False)
    made.turn()
    made.engine.reset(cut.stream, 0)
    made.engine.body(cut.stream, b"later", True)
    made.engine.body(other.stream, b"later", True)
    assert made.turn() == []
    assert (made.peer.answers[cut.stream].reset, made.peer.answers[cut.stream].ended) == (Code.INTERNAL_ERROR, False)
    assert made.peer.answers[other.stream].body == b"firstlater"
    assert made.engine.idle


def test_a_reset_forgets_what_was_queued(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    head = made.ask()
    made.peer.slow.add(head.stream)
    made.engine.respond(head.stream, 200, [], bytes(200_000), False)
    made.turn()
    assert made.engine.queued(head.stream) > 0
    made.engine.reset(head.stream, Code.CANCEL)
    made.turn()
    assert made.peer.answers[head.stream].reset == Code.CANCEL
    assert (made.engine.queued(head.stream), made.engine.waiting()) == (0, {})
    assert made.is_alive()


def test_a_request_may_be_refused_before_it_is_looked_at(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    head = made.ask("/", method="POST", end=False)
    made.engine.reset(head.stream, Code.REFUSED_STREAM)
    assert made.turn() == []
    assert made.peer.answers[head.stream].reset == Code.REFUSED_STREAM
    assert made.is_alive()


@pytest.mark.parametrize("responding", [False, True])
def test_a_reset_of_the_peers_is_told_once(http2_engine: MakeHttp2, responding: bool) -> None:
    made = talk(http2_engine)
    head = made.ask("/", method="POST", end=False)
    if responding:
        made.peer.slow.add(head.stream)
        made.engine.respond(head.stream, 200, [], bytes(200_000), False)
        made.turn()
    made.peer.reset(head.stream, Code.CANCEL)
    assert made.turn() == [Reset(head.stream, Code.CANCEL)]
    assert made.engine.idle
    made.engine.body(head.stream, b"in vain", True)
    made.engine.consumed(head.stream, 10)
    assert made.turn() == []
    assert made.is_alive()


def test_the_peer_may_give_up_a_stream_that_has_been_reset_already(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    head = made.ask()
    made.peer.reset(head.stream)
    made.engine.reset(head.stream, 0)
    assert made.turn() == []
    assert made.is_alive()


# Answers before the end of their request


@pytest.mark.parametrize("status", [200, 413])
def test_an_early_answer_is_whole_and_then_the_request_is_reset(http2_engine: MakeHttp2, status: int) -> None:
    # RFC 9113 section 8.1: with NO_ERROR, which tells the client not to send the rest, and to take the answer.
    made = talk(http2_engine)
    head = made.ask("/", method="POST", end=False)
    made.peer.send(head.stream, b"some of it")
    made.turn()
    made.engine.respond(head.stream, status, TEXT, b"early", True)
    made.turn()
    answer = made.peer.answers[head.stream]
    assert (answer.status, answer.body, answer.ended, answer.reset) == (status, b"early", True, Code.NO_ERROR)
    assert made.engine.idle
    assert made.is_alive()


def test_an_early_answer_that_waits_for_its_window_is_not_cut(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    head = made.ask("/", method="POST", end=False)
    made.peer.slow.add(head.stream)
    made.engine.respond(head.stream, 200, [], bytes(100_000), True)
    made.turn()
    answer = made.peer.answers[head.stream]
    assert (answer.ended, answer.reset) == (False, None)
    made.peer.grant(head.stream, 100_000)
    made.turn()
    assert (len(answer.body), answer.ended, answer.reset) == (100_000, True, Code.NO_ERROR)


@pytest.mark.parametrize("place", [0, 10, 20])
@pytest.mark.parametrize("ending", ["body", "trailers"])
def test_an_early_answer_on_a_busy_connection_is_not_cut(http2_engine: MakeHttp2, place: int, ending: str) -> None:
    made = talk(http2_engine)
    others = [made.ask("/other").stream for _ in range(place)]
    early = made.ask("/early", method="POST", end=False).stream
    others += [made.ask("/other").stream for _ in range(20 - place)]
    made.engine.respond(early, 200, [], b"early", False)
    made.turn()
    for stream in others:
        made.engine.respond(stream, 200, [], bytes(50_000), True)
    made.peer.feed(b"".join(made.engine.take()))
    if ending == "body":
        made.engine.body(early, b"", True)
    else:
        made.engine.trailers(early, [(b"x-sum", b"5")])
    made.turn()
    answer = made.peer.answers[early]
    assert (answer.body, answer.ended, answer.reset) == (b"early", True, Code.NO_ERROR)
    assert answer.trailers == [(b"x-sum", b"5")] * (ending == "trailers")
    assert all(made.peer.answers[stream].ended for stream in others)


def test_what_still_comes_behind_an_early_answer_is_dropped(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    head = made.ask("/", method="POST", end=False)
    made.engine.respond(head.stream, 200, [], b"early", True)
    made.peer.send(head.stream, b"sent before the answer was seen", end=True)
    made.answer()
    assert made.turn() == []
    assert made.is_alive()


# Promises


def test_a_promised_answer_comes_on_a_stream_of_its_own(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    head = made.ask()
    assert made.engine.pushes
    fields: Headers = [(b"host", b"a.example"), (b"accept", b"text/css"), (b"connection", b"close")]
    promised = made.engine.push(head.stream, b"/style.css?v=1", fields)
    assert promised is not None
    assert promised == Head(promised.stream, "GET", b"/style.css?v=1", fields[:2], "2", True, False)
    assert answered(made, head, 200, TEXT, b"content") == b"content"
    assert answered(made, promised, 200, TEXT, b"pushed") == b"pushed"
    assert dict(made.peer.answers[promised.stream].promised)[b":path"] == b"/style.css?v=1"
    assert made.peer.kinds(1)[0] is Kind.PUSH_PROMISE
    assert made.engine.idle


def test_no_promise_to_a_client_that_wants_none(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine, settings={SettingCodes.ENABLE_PUSH: 0})
    head = made.ask()
    assert not made.engine.pushes
    assert made.engine.push(head.stream, b"/style.css", []) is None
    assert answered(made, head, 200, [], b"content") == b"content"


def test_no_promise_on_a_promised_stream_nor_behind_the_end_nor_while_leaving(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    head = made.ask()
    promised = made.engine.push(head.stream, b"/1", [(b"host", b"a.example")])
    assert promised is not None
    assert made.engine.push(promised.stream, b"/2", [(b"host", b"a.example")]) is None
    answered(made, head, 200, [], b"content")
    assert made.engine.push(head.stream, b"/3", [(b"host", b"a.example")]) is None
    head = made.ask()
    made.engine.drain()
    assert made.engine.push(head.stream, b"/4", [(b"host", b"a.example")]) is None


def test_no_more_promises_than_the_client_takes_streams(http2_engine: MakeHttp2) -> None:
    # RFC 9113 section 5.1.2
    made = talk(http2_engine, settings={SettingCodes.MAX_CONCURRENT_STREAMS: 2})
    head = made.ask()
    promises = [made.engine.push(head.stream, b"/%d" % number, [(b"host", b"a.example")]) for number in range(4)]
    assert [promised is not None for promised in promises] == [True, True, False, False]
    assert promises[0] is not None
    answered(made, promises[0], 200, [], b"pushed")
    assert made.engine.push(head.stream, b"/4", [(b"host", b"a.example")]) is not None


def test_a_promise_may_be_turned_down(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    head = made.ask()
    promised = made.engine.push(head.stream, b"/style.css", [(b"host", b"a.example")])
    assert promised is not None
    made.turn()
    made.peer.reset(promised.stream, Code.REFUSED_STREAM)
    assert made.turn() == [Reset(promised.stream, Code.REFUSED_STREAM)]
    made.engine.respond(promised.stream, 200, [], b"in vain", True)
    assert answered(made, head, 200, [], b"content") == b"content"
    assert made.engine.idle


def test_a_promise_outlives_its_request(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    head = made.ask()
    promised = made.engine.push(head.stream, b"/style.css", [(b"host", b"a.example")])
    assert promised is not None
    made.peer.reset(head.stream)  # before anything of the promise has left the server
    assert made.hear() == [Reset(head.stream, Code.CANCEL)]
    sent = written(made.engine)
    made.engine.respond(promised.stream, 200, [], b"pushed", True)
    sent += written(made.engine)
    assert Kind.GOAWAY not in [frame.kind for frame in frames.read(sent)]
    assert not made.engine.closing


def test_a_promised_answer_has_no_hint_before_it(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine)
    head = made.ask()
    promised = made.engine.push(head.stream, b"/style.css", [(b"host", b"a.example")])
    assert promised is not None
    made.engine.inform(promised.stream, 103, [(b"link", b"</a.css>; rel=preload")])
    assert answered(made, promised, 200, [], b"pushed") == b"pushed"
    assert answered(made, head, 200, [], b"content") == b"content"
    assert made.is_alive()


# Limits


def test_a_refused_request_is_answered_and_its_body_dropped(http2_engine: MakeHttp2) -> None:
    made = talk(http2_engine, Limits(request_line=20))
    stream = made.peer.post("/" + "a" * 20, b"content", end=False)
    [refused] = made.turn()
    assert refused[:2] == (stream, 414)
    made.engine.respond(stream, 414, TEXT, b"too long", True)
    made.turn()
    answer = made.peer.answers[stream]
    assert (answer.status, answer.body, answer.reset) == (414, b"too long", Code.NO_ERROR)
    assert made.is_alive()
