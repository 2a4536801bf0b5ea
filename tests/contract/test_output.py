"""What engines write: framing, persistence and cuts, read back by two clients' parsers: h11's and http.client's."""

import http.client
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import h11
import pytest
from tests.corpus.responses import Response, parse

from appserver.wire.engine import Body, Closed, Engine, Event, Head, Headers, Limits, Refused

TEXT: Headers = [(b"content-type", b"text/plain")]


@contextmanager
def read_by_http_client(raw: bytes, method: str) -> Iterator[http.client.HTTPResponse]:
    """The response with its head read, the connection ended behind it."""
    server, client = socket.socketpair()
    with server, client:
        server.sendall(raw)
        server.shutdown(socket.SHUT_WR)
        with http.client.HTTPResponse(client, method=method) as response:
            response.begin()
            yield response


def request(
    method: str = "GET", *, version: str = "1.1", fields: bytes = b"", body: bytes = b"", target: str = "/"
) -> bytes:
    host = b"Host: a.example\r\n" if version == "1.1" else b""
    return f"{method} {target} HTTP/{version}\r\n".encode() + host + fields + b"\r\n" + body


def begin(engine: Engine, raw: bytes) -> Head:
    head = engine.receive(raw)[0]
    assert isinstance(head, Head)
    return head


def read(engine: Engine, method: str = "GET") -> Response:
    """The one response that was written, as both parsers read it."""
    raw = engine.take()
    (response,), rest = parse(raw, [method], ended=engine.closing)
    assert rest == b""
    with read_by_http_client(raw, method) as other:
        assert (other.status, other.read()) == (response.status, response.body)
        assert len(other.headers) == len(response.headers)
        # A response that http.client wants to close after and that we keep, or the reverse, strands a connection.
        assert other.will_close == engine.closing
    return response


def targets(events: list[Event]) -> list[bytes]:
    return [event.target for event in events if isinstance(event, Head)]


def still_serves(engine: Engine) -> None:
    """The connection is open, and the next request on it is a new stream with a whole answer."""
    assert not engine.closing
    assert engine.idle
    head = begin(engine, request(target="/next"))
    assert head.target == b"/next"
    engine.respond(head.stream, 200, [(b"content-length", b"4")], b"next", end=True)
    assert read(engine).body == b"next"


def serves_no_more(engine: Engine) -> None:
    assert engine.closing
    assert engine.receive(request(target="/next")) == []


# Framing


def test_a_known_length(engine: Callable[[Limits], Engine]) -> None:
    one = engine(Limits())
    head = begin(one, request())
    one.respond(head.stream, 200, [*TEXT, (b"content-length", b"5")], b"hello", end=True)
    response = read(one)
    assert (response.status, response.version, response.body) == (200, "1.1", b"hello")
    assert response.values(b"content-length") == [b"5"]
    assert response.values(b"transfer-encoding") == []
    still_serves(one)


def test_a_known_length_in_pieces(engine: Callable[[Limits], Engine]) -> None:
    one = engine(Limits())
    head = begin(one, request())
    one.respond(head.stream, 200, [(b"content-length", b"10")], b"", end=False)
    for piece in (b"hello", b"", b"world"):
        one.body(head.stream, piece, end=False)
    one.body(head.stream, b"", end=True)
    assert read(one).body == b"helloworld"
    still_serves(one)


def test_an_unknown_length_is_chunked(engine: Callable[[Limits], Engine]) -> None:
    one = engine(Limits())
    head = begin(one, request())
    one.respond(head.stream, 200, TEXT, b"first,", end=False)
    one.body(head.stream, b"", end=False)  # an empty chunk would be the last
    one.body(head.stream, b"second", end=False)
    one.body(head.stream, b",third", end=True)
    response = read(one)
    assert response.body == b"first,second,third"
    assert response.values(b"transfer-encoding") == [b"chunked"]
    assert response.values(b"content-length") == []
    still_serves(one)


@pytest.mark.parametrize("body", [b"", b"all of it"])
def test_no_length_named_and_all_at_once(engine: Callable[[Limits], Engine], body: bytes) -> None:
    one = engine(Limits())
    head = begin(one, request())
    one.respond(head.stream, 200, TEXT, body, end=True)
    response = read(one)
    assert response.body == body
    assert len(response.values(b"transfer-encoding") + response.values(b"content-length")) == 1
    still_serves(one)


def test_a_large_body_leaves_byte_for_byte(engine: Callable[[Limits], Engine]) -> None:
    one = engine(Limits())
    head = begin(one, request())
    block = bytes(range(256)) * 256
    one.respond(head.stream, 200, [], block, end=False)
    raw = one.take()
    for _ in range(15):
        one.body(head.stream, block, end=False)
        raw += one.take()
    one.body(head.stream, b"", end=True)
    (response,), rest = parse(raw + one.take(), ["GET"], ended=False)
    assert (response.body, rest) == (block * 16, b"")


def test_an_unknown_length_to_1_0_ends_with_the_connection(engine: Callable[[Limits], Engine]) -> None:
    one = engine(Limits())
    head = begin(one, request(version="1.0"))
    assert head.version == "1.0"
    one.respond(head.stream, 200, TEXT, b"first,", end=False)
    one.body(head.stream, b"second", end=True)
    response = read(one)
    assert response.body == b"first,second"
    assert response.values(b"transfer-encoding") == []  # RFC 9112 section 6.1: never to HTTP/1.0
    serves_no_more(one)


def test_trailers_end_a_chunked_body(engine: Callable[[Limits], Engine]) -> None:
    one = engine(Limits())
    head = begin(one, request(fields=b"TE: trailers\r\n"))
    one.respond(head.stream, 200, TEXT, b"hello", end=False)
    one.trailers(head.stream, [(b"x-sum", b"1"), (b"x-sum", b"2")])
    response = read(one)
    assert response.body == b"hello"
    assert response.trailers == ((b"x-sum", b"1"), (b"x-sum", b"2"))
    still_serves(one)


def test_trailers_are_dropped_where_a_length_is_named(engine: Callable[[Limits], Engine]) -> None:
    one = engine(Limits())
    head = begin(one, request())
    one.respond(head.stream, 200, [(b"content-length", b"5")], b"hello", end=False)
    one.trailers(head.stream, [(b"x-sum", b"1")])
    response = read(one)
    assert (response.body, response.trailers) == (b"hello", ())
    still_serves(one)


def test_trailers_are_dropped_for_1_0(engine: Callable[[Limits], Engine]) -> None:
    one = engine(Limits())
    head = begin(one, request(version="1.0"))
    one.respond(head.stream, 200, TEXT, b"hello", end=False)
    one.trailers(head.stream, [(b"x-sum", b"1")])
    assert read(one).body == b"hello"
    serves_no_more(one)


def test_fields_keep_their_order_and_bytes(engine: Callable[[Limits], Engine]) -> None:
    one = engine(Limits())
    head = begin(one, request())
    fields = [(b"set-cookie", b"a=1"), (b"x-name", b"J\xf6rg"), (b"set-cookie", b"b=2"), (b"x-empty", b"")]
    one.respond(head.stream, 200, [*fields, (b"content-length", b"0")], b"", end=True)
    assert [field for field in read(one).headers if field in fields] == fields


@pytest.mark.parametrize("status", [200, 299, 404, 418, 500, 599])
def test_any_status_can_be_written(engine: Callable[[Limits], Engine], status: int) -> None:
    one = engine(Limits())
    head = begin(one, request())
    one.respond(head.stream, status, [(b"content-length", b"2")], b"ok", end=True)
    assert read(one).status == status
    still_serves(one)


# Responses without a body


@pytest.mark.parametrize("fields", [[(b"content-length", b"5")], TEXT])
def test_head_has_no_body(engine: Callable[[Limits], Engine], fields: Headers) -> None:
    one = engine(Limits())
    head = begin(one, request("HEAD"))
    one.respond(head.stream, 200, fields, b"", end=True)
    response = read(one, "HEAD")
    assert response.body == b""
    # RFC 9110 section 8.6: the length that GET would have, as the application named it, or none; never another.
    assert response.values(b"content-length") == [value for name, value in fields if name == b"content-length"]
    still_serves(one)


@pytest.mark.parametrize("fields", [[(b"x-a", b"1")], [(b"x-a", b"1"), (b"content-length", b"0")]])
def test_204_has_no_body_and_no_framing(engine: Callable[[Limits], Engine], fields: Headers) -> None:
    one = engine(Limits())
    head = begin(one, request())
    one.respond(head.stream, 204, fields, b"", end=True)
    response = read(one)
    assert response.body == b""
    # RFC 9110 section 8.6 and RFC 9112 section 6.1: neither field in a 204.
    assert response.values(b"content-length") + response.values(b"transfer-encoding") == []
    still_serves(one)


@pytest.mark.parametrize("fields", [[(b"content-length", b"5"), (b"etag", b'"a"')], [(b"etag", b'"a"')]])
def test_304_has_no_body(engine: Callable[[Limits], Engine], fields: Headers) -> None:
    one = engine(Limits())
    head = begin(one, request(fields=b'If-None-Match: "a"\r\n'))
    one.respond(head.stream, 304, fields, b"", end=True)
    response = read(one)
    assert (response.body, response.values(b"etag")) == (b"", [b'"a"'])
    still_serves(one)


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_a_body_where_none_may_be_is_not_written(engine: Callable[[Limits], Engine], method: str, status: int) -> None:
    # A client would take it for the beginning of the next response.
    one = engine(Limits())
    head = begin(one, request(method))
    one.respond(head.stream, status, TEXT, b"hello", end=False)
    one.body(head.stream, b"world", end=True)
    assert read(one, method).body == b""
    still_serves(one)


# Interim responses


def test_continue_when_asked_for(engine: Callable[[Limits], Engine]) -> None:
    one = engine(Limits())
    head = begin(one, request("POST", fields=b"Expect: 100-continue\r\nContent-Length: 5\r\n"))
    assert head.expects
    one.inform(head.stream, 100, [])
    assert one.take().startswith(b"HTTP/1.1 100 ")
    assert one.receive(b"hello") == [Body(head.stream, b"hello", end=True)]
    one.respond(head.stream, 200, [(b"content-length", b"2")], b"ok", end=True)
    assert read(one, "POST").body == b"ok"
    still_serves(one)


def test_no_continue_once_the_body_has_come(engine: Callable[[Limits], Engine]) -> None:
    # RFC 9110 section 10.1.1 lets a server omit it then; what is written must be a valid answer in either case.
    one = engine(Limits())
    head = begin(one, request("POST", fields=b"Expect: 100-continue\r\nContent-Length: 5\r\n", body=b"hello"))
    one.inform(head.stream, 100, [])
    one.respond(head.stream, 200, [(b"content-length", b"2")], b"ok", end=True)
    responses, rest = parse(one.take(), ["POST"], ended=False)
    assert [response.status for response in responses] in ([200], [100, 200])
    assert rest == b""
    still_serves(one)


def test_early_hints(engine: Callable[[Limits], Engine]) -> None:
    one = engine(Limits())
    head = begin(one, request())
    one.inform(head.stream, 103, [(b"link", b"</a.css>; rel=preload")])
    one.respond(head.stream, 200, [(b"content-length", b"2")], b"ok", end=True)
    (hints, final), rest = parse(one.take(), ["GET"], ended=False)
    assert (hints.status, hints.values(b"link")) == (103, [b"</a.css>; rel=preload"])
    # An interim response ends with its fields: framing ones would make a client wait for a body.
    assert hints.values(b"content-length") + hints.values(b"transfer-encoding") == []
    assert (final.status, final.body, rest) == (200, b"ok", b"")


@pytest.mark.parametrize("status", [100, 103])
def test_no_interim_response_to_1_0(engine: Callable[[Limits], Engine], status: int) -> None:
    # RFC 9110 section 15.2: a server must not send one to an HTTP/1.0 client, which would take it for the answer.
    one = engine(Limits())
    head = begin(one, request("POST", version="1.0", fields=b"Expect: 100-continue\r\nContent-Length: 5\r\n"))
    one.inform(head.stream, status, [])
    assert one.take() == b""


# Persistence


@pytest.mark.parametrize("where", ["request", "response"])
def test_close_is_kept_to_by_both_sides(engine: Callable[[Limits], Engine], where: str) -> None:
    one = engine(Limits())
    head = begin(one, request(fields=b"Connection: close\r\n" if where == "request" else b""))
    asked: Headers = [(b"connection", b"close")] if where == "response" else []
    one.respond(head.stream, 200, [*asked, (b"content-length", b"2")], b"ok", end=True)
    assert [value.lower() for value in read(one).values(b"connection")] == [b"close"]
    serves_no_more(one)


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
    (response,), rest = parse(one.take(), ["GET"], ended=False)
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
    raw = one.take()
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
    responses, rest = parse(one.take(), ["GET", "GET"], ended=False)
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
    responses, _ = parse(one.take(), ["GET", "GET"], ended=True)
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
    first, _ = parse(one.take(), ["POST"], ended=one.closing)
    assert [response.status for response in first] == [403]
    for piece in (b"", SMUGGLED[arrived:], request(target="/2")):
        seen += targets(one.receive(piece))
    # Either the rest of the body is read over, or the connection has ended.
    assert seen == ([b"/1"] if one.closing else [b"/1", b"/2"])


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
        parse(one.take(), ["POST"], ended=True)
    serves_no_more(one)


# Facts


def test_the_facts_of_a_connection(engine: Callable[[Limits], Engine]) -> None:
    one = engine(Limits())
    assert (one.version, one.idle, one.closing, one.pending) == ("1.1", True, False, 0)
    assert one.take() == b""
    one.receive(b"GET / HT")
    in_head = one.idle
    head = begin(one, b"TP/1.1\r\nHost: a.example\r\n\r\n")
    in_request = one.idle
    assert one.window(head.stream) > 0
    one.respond(head.stream, 200, [(b"content-length", b"2")], b"ok", end=True)
    assert (in_head, in_request, one.idle) == (False, False, True)
    assert (one.take() != b"", one.take()) == (True, b"")


def test_calls_for_a_stream_that_is_gone_write_nothing(engine: Callable[[Limits], Engine]) -> None:
    # The application of a request that was answered may still run and call.
    one = engine(Limits())
    first = begin(one, request(target="/1"))
    one.respond(first.stream, 200, [(b"content-length", b"2")], b"ok", end=True)
    one.take()
    second = begin(one, request(target="/2"))
    one.body(first.stream, b"late", end=True)
    one.inform(first.stream, 103, [])
    one.trailers(first.stream, [])
    one.respond(first.stream, 500, [], b"late", end=True)
    one.reset(first.stream, 0)
    assert one.take() == b""
    assert one.window(first.stream) == 0
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
