"""How long a connection lives: close and keep-alive, draining, cuts, pipelining, bodies that are answered early."""

import http.client
from collections.abc import Callable

import h11
import pytest

from appserver.wire.chunked import CHUNKS_AT_ONCE
from appserver.wire.engine import Body, Closed, Engine, Event, Head, Headers, Limits, Refused
from appserver.wire.http1 import DISCARD_LIMIT
from tests.contract.driver import written
from tests.contract.exchange import (
    TEXT,
    begin,
    read,
    read_by_http_client,
    request,
    serves_no_more,
    still_serves,
    targets,
)
from tests.corpus.responses import parse

# Persistence


@pytest.mark.parametrize("where", ["request", "response"])
def test_close_is_kept_to_by_both_sides(engine: Callable[[Limits], Engine], where: str) -> None:
    one = engine(Limits())
    head = begin(one, request(fields=b"Connection: close\r\n" if where == "request" else b""))
    asked: Headers = [(b"connection", b"close")] if where == "response" else []
    one.respond(head.stream, 200, [*asked, (b"content-length", b"2")], b"ok", end=True)
    assert [value.lower() for value in read(one).values(b"connection")] == [b"close"]
    serves_no_more(one)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([b"Upgrade"], b"Upgrade, close"),  # RFC 9110 section 7.8: whoever sends Upgrade has to list it
        ([b"x-foo"], b"x-foo, close"),  # x-foo is for the next hop alone, and a proxy knows it by this
        ([b"x-foo, ,x-bar ", b"x-foo-close"], b"x-foo, x-bar, x-foo-close, close"),
        ([b"Close, x-foo"], b"x-foo, close"),
        ([b"keep-alive"], b"close"),
        ([b""], b"close"),
    ],
)
def test_close_stands_beside_what_else_the_answer_lists(
    engine: Callable[[Limits], Engine], values: list[bytes], expected: bytes
) -> None:
    one = engine(Limits())
    head = begin(one, request(fields=b"Connection: close\r\n"))
    fields = [(b"connection", value) for value in values]
    one.respond(head.stream, 200, [*fields, (b"content-length", b"2")], b"ok", end=True)
    assert read(one).values(b"connection") == [expected]
    serves_no_more(one)


def test_requests_that_are_there_are_read_behind_the_end_of_the_input(engine: Callable[[Limits], Engine]) -> None:
    one = engine(Limits())
    head = begin(one, request() + request(target="/second") + b"GET /third HTTP/1.1\r\nHost: ")
    one.respond(head.stream, 200, [], b"first", end=True)
    assert one.eof() == [Closed()]
    [second] = one.receive(b"")
    assert isinstance(second, Head)
    assert second.target == b"/second"
    one.respond(second.stream, 200, [], b"second", end=True)
    [third] = one.receive(b"")
    assert isinstance(third, Refused)
    assert "ended inside a head" in third.reason


def test_what_only_looks_like_close_closes_nothing(engine: Callable[[Limits], Engine]) -> None:
    one = engine(Limits())
    head = begin(one, request())
    one.respond(head.stream, 200, [(b"connection", b"x-close"), (b"content-length", b"2")], b"ok", end=True)
    [response], _ = parse(written(one), ["GET"], ended=False)  # http.client takes it for close
    assert response.values(b"connection") == [b"x-close"]
    still_serves(one)


def test_1_0_is_kept_only_when_the_answer_says_so(engine: Callable[[Limits], Engine]) -> None:
    # RFC 9112 section 9.3: keeping it is the server's choice, but the client must be able to tell.
    one = engine(Limits())
    head = begin(one, request(version="1.0", fields=b"Connection: keep-alive\r\n"))
    one.respond(head.stream, 200, [(b"content-length", b"2")], b"ok", end=True)
    said = [value.lower() for value in read(one).values(b"connection")]
    assert said == ([b"close"] if one.closing else [b"keep-alive"])


def test_drain_closes_after_the_next_answer(engine: Callable[[Limits], Engine]) -> None:
    one = engine(Limits())
    one.drain()
    assert not one.closing  # an idle connection stays for one more request: closing it now would lose that
    head = begin(one, request())
    one.respond(head.stream, 200, [(b"content-length", b"2")], b"ok", end=True)
    assert read(one).values(b"connection") == [b"close"]
    serves_no_more(one)


def test_drain_while_a_request_is_served(engine: Callable[[Limits], Engine]) -> None:
    one = engine(Limits())
    head = begin(one, request())
    one.drain()
    assert not one.closing
    one.respond(head.stream, 200, [(b"content-length", b"2")], b"ok", end=True)
    assert read(one).values(b"connection") == [b"close"]
    serves_no_more(one)


def test_drain_after_the_head_has_left_lets_the_body_end(engine: Callable[[Limits], Engine]) -> None:
    one = engine(Limits())
    head = begin(one, request())
    one.respond(head.stream, 200, [], b"first,", end=False)
    one.drain()
    one.body(head.stream, b"second", end=True)
    (response,), rest = parse(written(one), ["GET"], ended=False)
    assert (response.body, rest) == (b"first,second", b"")
    # Nothing said close, so a next request may be under way: it is answered, and told.
    if not one.closing:
        head = begin(one, request())
        one.respond(head.stream, 200, [(b"content-length", b"2")], b"ok", end=True)
        assert read(one).values(b"connection") == [b"close"]
    serves_no_more(one)


# Cuts


@pytest.mark.parametrize("fields", [[], [(b"content-length", b"10")]])
def test_a_reset_shows(engine: Callable[[Limits], Engine], fields: Headers) -> None:
    one = engine(Limits())
    head = begin(one, request())
    one.respond(head.stream, 200, fields, b"hello", end=False)
    one.reset(head.stream, 0)
    raw = written(one)
    with pytest.raises(h11.RemoteProtocolError):
        parse(raw, ["GET"], ended=True)
    with read_by_http_client(raw, "GET") as other, pytest.raises(http.client.IncompleteRead):
        other.read()
    assert not one.abrupt  # the framing shows it
    serves_no_more(one)


def test_a_reset_that_no_framing_shows(engine: Callable[[Limits], Engine]) -> None:
    one = engine(Limits())
    head = begin(one, request(version="1.0"))
    one.respond(head.stream, 200, [], b"hello", end=False)
    one.reset(head.stream, 0)
    assert one.abrupt
    serves_no_more(one)


# Pipelining and early answers


def test_a_pipelined_request_waits_its_turn(engine: Callable[[Limits], Engine]) -> None:
    one = engine(Limits())
    second = request(target="/2")
    events = one.receive(request(target="/1") + second)
    assert targets(events) == [b"/1"]
    assert one.pending == len(second)
    assert not one.idle
    assert one.receive(b"") == []  # the first is not answered yet
    (head,) = [event for event in events if isinstance(event, Head)]
    one.respond(head.stream, 200, [(b"content-length", b"1")], b"1", end=False)
    assert one.receive(b"") == []  # nor is it now
    one.body(head.stream, b"", end=True)
    later = one.receive(b"")
    assert targets(later) == [b"/2"]
    assert one.pending == 0
    (head,) = [event for event in later if isinstance(event, Head)]
    one.respond(head.stream, 200, [(b"content-length", b"1")], b"2", end=True)
    responses, rest = parse(written(one), ["GET", "GET"], ended=False)
    assert [response.body for response in responses] == [b"1", b"2"]
    assert rest == b""


def test_requests_before_the_end_of_input_are_served(engine: Callable[[Limits], Engine]) -> None:
    # RFC 9112 section 9.6: a client may half-close once it has sent all it has; what it sent is owed an answer.
    one = engine(Limits())
    events = one.receive(request(target="/1") + request(target="/2"))
    assert targets(events) == [b"/1"]
    assert not [event for event in one.eof() if not isinstance(event, Closed)]
    for name in (b"/1", b"/2"):
        (head,) = [event for event in events if isinstance(event, Head)]
        assert head.target == name
        one.respond(head.stream, 200, [(b"content-length", b"2")], name, end=True)
        events = one.receive(b"")
    responses, _ = parse(written(one), ["GET", "GET"], ended=True)
    assert [response.body for response in responses] == [b"/1", b"/2"]
    assert one.closing


def test_an_answer_of_its_own_length_is_not_cut_by_half_close(engine: Callable[[Limits], Engine]) -> None:
    one = engine(Limits())
    head = begin(one, request())
    assert one.eof() == [Closed()]
    assert not one.closing
    one.respond(head.stream, 200, TEXT, b"first,", end=False)
    one.body(head.stream, b"second", end=True)
    assert read(one).body == b"first,second"
    serves_no_more(one)


SMUGGLED = request(target="/smuggled")


@pytest.mark.parametrize("arrived", range(0, len(SMUGGLED) + 1, 7))
def test_a_body_answered_early_is_never_a_request(engine: Callable[[Limits], Engine], arrived: int) -> None:
    one = engine(Limits())
    fields = b"Content-Length: %d\r\n" % len(SMUGGLED)
    seen = targets(one.receive(request("POST", target="/1", fields=fields, body=SMUGGLED[:arrived])))
    one.respond(1, 403, [(b"content-length", b"2")], b"no", end=True)
    first, _ = parse(written(one), ["POST"], ended=one.closing)
    assert [response.status for response in first] == [403]
    for piece in (b"", SMUGGLED[arrived:], request(target="/2")):
        seen += targets(one.receive(piece))
    # Either the rest of the body is read over, or the connection has ended.
    assert seen == ([b"/1"] if one.closing else [b"/1", b"/2"])


@pytest.mark.parametrize(("length", "kept"), [(DISCARD_LIMIT, True), (DISCARD_LIMIT + 1, False)])
def test_an_answer_before_a_body_that_is_not_waited_for_says_close(
    engine: Callable[[Limits], Engine], length: int, *, kept: bool
) -> None:
    one = engine(Limits())
    head = begin(one, request("POST", fields=b"Content-Length: %d\r\n" % (length + 4), body=b"some"))
    one.respond(head.stream, 403, [(b"content-length", b"2")], b"no", end=True)
    assert read(one, "POST").values(b"connection") == ([] if kept else [b"close"])
    if kept:
        one.receive(bytes(length))
        still_serves(one)
    else:
        serves_no_more(one)


def test_an_answer_that_begins_before_a_large_body_has_come_may_still_read_it(
    engine: Callable[[Limits], Engine],
) -> None:
    one = engine(Limits())
    size = 2 * DISCARD_LIMIT
    head = begin(one, request("POST", fields=b"Content-Length: %d\r\n" % size))
    one.respond(head.stream, 200, [(b"content-length", b"2")], b"o", end=False)
    assert [event for event in one.receive(bytes(size)) if isinstance(event, Body) and event.end]
    one.body(head.stream, b"k", end=True)
    assert read(one, "POST").values(b"connection") == []
    still_serves(one)


def test_a_chunked_body_answered_early_is_never_a_request(engine: Callable[[Limits], Engine]) -> None:
    one = engine(Limits())
    seen = targets(one.receive(request("POST", target="/1", fields=b"Transfer-Encoding: chunked\r\n")))
    one.respond(1, 403, [(b"content-length", b"2")], b"no", end=True)
    for piece in (b"%x\r\n" % len(SMUGGLED), SMUGGLED, b"\r\n0\r\n\r\n" + request(target="/2")):
        seen += targets(one.receive(piece))
    assert seen == ([b"/1"] if one.closing else [b"/1", b"/2"])


def test_a_body_that_was_not_asked_for_is_never_a_request(engine: Callable[[Limits], Engine]) -> None:
    # A client that waits for 100 and gets a final answer may send the body or leave it out (RFC 9110 section 10.1.1).
    one = engine(Limits())
    fields = b"Expect: 100-continue\r\nContent-Length: %d\r\n" % len(SMUGGLED)
    head = begin(one, request("POST", fields=fields))
    one.respond(head.stream, 403, [(b"content-length", b"2")], b"no", end=True)
    assert read(one, "POST").values(b"connection") == [b"close"]
    serves_no_more(one)


def test_an_endless_body_is_not_read_over_for_ever(engine: Callable[[Limits], Engine]) -> None:
    one = engine(Limits())
    begin(one, request("POST", fields=b"Transfer-Encoding: chunked\r\n"))
    one.respond(1, 403, [(b"content-length", b"2")], b"no", end=True)
    for _ in range(1024):
        one.receive(b"400\r\n" + b"x" * 1024 + b"\r\n")
        if one.closing:
            break
    assert one.closing


@pytest.mark.parametrize(("chunks", "kept"), [(10_000, True), (11_500, False)])
def test_a_body_in_small_chunks_answered_early_is_read_over_in_pieces(
    engine: Callable[[Limits], Engine], chunks: int, *, kept: bool
) -> None:
    # 6 bytes each: what counts is what has come, however often it is looked at.
    one = engine(Limits())
    begin(one, request("POST", fields=b"Transfer-Encoding: chunked\r\n"))
    one.respond(1, 403, [(b"content-length", b"2")], b"no", end=True)
    written(one)
    assert one.receive(b"1\r\nx\r\n" * chunks + b"0\r\n\r\n" + request(target="/2")) == []
    calls, events = 1, list[Event]()
    while one.more and not one.closing:
        before = one.pending
        events = one.receive(b"")
        assert before - one.pending <= 6 * CHUNKS_AT_ONCE + len(request(target="/2"))
        calls += 1
    assert one.closing is not kept
    assert targets(events) == ([b"/2"] if kept else [])
    assert calls > DISCARD_LIMIT // 6 // CHUNKS_AT_ONCE - 100


def test_a_bad_chunk_while_the_answer_is_being_written(engine: Callable[[Limits], Engine]) -> None:
    one = engine(Limits())
    head = begin(one, request("POST", fields=b"Transfer-Encoding: chunked\r\n"))
    one.respond(head.stream, 200, [], b"hello", end=False)
    (refused,) = one.receive(b"zz\r\n")
    assert isinstance(refused, Refused)
    assert (refused.stream, refused.status) == (head.stream, 400)
    # The head has left, so no 400 can be given: the connection ends, and the cut must be visible.
    one.reset(head.stream, 0)
    with pytest.raises(h11.RemoteProtocolError):
        parse(written(one), ["POST"], ended=True)
    serves_no_more(one)


# Much at once


def test_small_chunks_are_taken_in_pieces(engine: Callable[[Limits], Engine]) -> None:
    one = engine(Limits())
    count = 10 * CHUNKS_AT_ONCE + 1
    body = b"1\r\nx\r\n" * count + b"0\r\n\r\n"
    events = one.receive(request("POST", fields=b"Transfer-Encoding: chunked\r\n", body=body + request(target="/2")))
    while one.more:
        assert one.pending
        events += one.receive(b"")
    (_, *pieces) = events
    assert all(isinstance(piece, Body) and len(piece.data) <= CHUNKS_AT_ONCE for piece in pieces)
    assert sum(len(piece.data) for piece in pieces if isinstance(piece, Body)) == count
    assert [piece.end for piece in pieces if isinstance(piece, Body)] == [False] * (len(pieces) - 1) + [True]
    one.respond(1, 200, [(b"content-length", b"2")], b"ok", end=True)
    assert targets(one.receive(b"")) == [b"/2"]


@pytest.mark.parametrize(("end", "refused"), [(b"0\r\n\r\n", []), (b"0\r\n", [400]), (b"", [400]), (b"zz\r\n", [400])])
def test_what_is_kept_is_judged_when_its_turn_comes_though_the_input_has_ended(
    engine: Callable[[Limits], Engine], end: bytes, refused: list[int]
) -> None:
    one = engine(Limits())
    body = b"1\r\nx\r\n" * 3 * CHUNKS_AT_ONCE + end
    one.receive(request() + request("POST", fields=b"Transfer-Encoding: chunked\r\n", body=body))
    assert one.eof() == [Closed()]
    one.respond(1, 200, [(b"content-length", b"2")], b"ok", end=True)
    events = one.receive(b"")
    assert one.pending
    while one.more:
        events += one.receive(b"")
    assert [event.status for event in events if isinstance(event, Refused)] == refused
    assert [event.end for event in events if isinstance(event, Body)].count(True) == (not refused)


def test_a_deadline_gives_up_what_was_kept(engine: Callable[[Limits], Engine]) -> None:
    one = engine(Limits())
    one.receive(request("POST", fields=b"Transfer-Encoding: chunked\r\n", body=b"1\r\nx\r\n" * 3 * CHUNKS_AT_ONCE))
    assert one.more
    (refused,) = one.refuse(408, "the request took too long")
    assert isinstance(refused, Refused)
    assert (one.more, one.pending) == (False, 0)


# Facts


def test_the_facts_of_a_connection(engine: Callable[[Limits], Engine]) -> None:
    one = engine(Limits())
    assert (one.version, one.idle, one.closing, one.pending) == ("1.1", True, False, 0)
    assert written(one) == b""
    one.receive(b"GET / HT")
    in_head = one.idle
    head = begin(one, b"TP/1.1\r\nHost: a.example\r\n\r\n")
    in_request = one.idle
    one.respond(head.stream, 200, [(b"content-length", b"2")], b"ok", end=True)
    assert (in_head, in_request, one.idle) == (False, False, True)
    assert (written(one) != b"", written(one)) == (True, b"")


def test_calls_for_a_stream_that_is_gone_write_nothing(engine: Callable[[Limits], Engine]) -> None:
    # The application of a request that was answered may still run and call.
    one = engine(Limits())
    first = begin(one, request(target="/1"))
    one.respond(first.stream, 200, [(b"content-length", b"2")], b"ok", end=True)
    written(one)
    second = begin(one, request(target="/2"))
    one.body(first.stream, b"late", end=True)
    one.inform(first.stream, 103, [])
    one.trailers(first.stream, [])
    one.respond(first.stream, 500, [], b"late", end=True)
    one.reset(first.stream, 0)
    assert written(one) == b""
    one.respond(second.stream, 200, [(b"content-length", b"2")], b"ok", end=True)
    assert read(one).body == b"ok"
    still_serves(one)


# Refusals that only the caller sees


@pytest.mark.parametrize("arrived", [b"", b"GET / HT", request("POST", fields=b"Content-Length: 9\r\n", body=b"half")])
def test_a_deadline_is_answered_and_closes(engine: Callable[[Limits], Engine], arrived: bytes) -> None:
    one = engine(Limits())
    one.receive(arrived)
    (refused,) = one.refuse(408, "the request took too long")
    assert isinstance(refused, Refused)
    assert one.receive(b"more") == []
    one.respond(refused.stream, 408, [(b"content-length", b"4")], b"late", end=True)
    response = read(one)
    assert (response.status, response.body, response.values(b"connection")) == (408, b"late", [b"close"])
    serves_no_more(one)


def test_a_pipelined_body_that_ended_with_the_input_is_refused(engine: Callable[[Limits], Engine]) -> None:
    one = engine(Limits())
    [head] = one.receive(request(target="/1") + b"POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf")
    assert isinstance(head, Head)
    assert one.eof() == [Closed()]
    one.respond(head.stream, 200, [(b"content-length", b"0")], b"", end=True)
    assert [event.status for event in one.receive(b"") if isinstance(event, Refused)] == [400]
