"""What engines write: framing, responses without a body, interim responses."""

from collections.abc import Callable

import pytest

from appserver.wire.engine import Body, Engine, Headers, Limits
from tests.contract.driver import written
from tests.contract.exchange import (
    TEXT,
    begin,
    read,
    request,
    serves_no_more,
    still_serves,
)
from tests.corpus.responses import parse

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
    raw = written(one)
    for _ in range(15):
        one.body(head.stream, block, end=False)
        raw += written(one)
    one.body(head.stream, b"", end=True)
    (response,), rest = parse(raw + written(one), ["GET"], ended=False)
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
    assert written(one).startswith(b"HTTP/1.1 100 ")
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
    responses, rest = parse(written(one), ["POST"], ended=False)
    assert [response.status for response in responses] in ([200], [100, 200])
    assert rest == b""
    still_serves(one)


def test_early_hints(engine: Callable[[Limits], Engine]) -> None:
    one = engine(Limits())
    head = begin(one, request())
    one.inform(head.stream, 103, [(b"link", b"</a.css>; rel=preload")])
    one.respond(head.stream, 200, [(b"content-length", b"2")], b"ok", end=True)
    (hints, final), rest = parse(written(one), ["GET"], ended=False)
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
    assert written(one) == b""


# Bytes past the engine


@pytest.mark.parametrize(
    ("version", "method", "fields", "raw"),
    [
        ("1.1", "GET", [(b"content-length", b"6")], True),
        ("1.1", "GET", [], False),
        ("1.0", "GET", [], True),
        ("1.1", "HEAD", [(b"content-length", b"6")], False),
    ],
    ids=["length", "chunks", "until the end", "no body"],
)
def test_bytes_may_pass_the_engine_where_framing_adds_none(
    engine: Callable[[Limits], Engine], version: str, method: str, fields: Headers, raw: bool
) -> None:
    one = engine(Limits())
    head = begin(one, request(method, version=version))
    assert not one.raw(head.stream)  # the head is not written yet
    one.respond(head.stream, 200, fields, b"", end=False)
    assert one.raw(head.stream) is raw
    assert not one.raw(head.stream + 1)
    before = written(one)
    past = b"hidden" if raw else b""
    one.body(head.stream, b"", end=True)
    (response,), rest = parse(before + past + written(one), [method], ended=one.closing)
    assert (response.body, rest) == (past, b"")
    assert not one.raw(head.stream)
    if version == "1.1":
        still_serves(one)
    else:
        serves_no_more(one)
