"""RFC 9113 section 8.1: requests and responses as wholes."""

import pytest

from tests.conformance.http2 import frames
from tests.conformance.http2.client import Client
from tests.conformance.http2.fields import Fields, request
from tests.conformance.http2.frames import Code

LENGTH = b"content-length"


def test_a_get(client: Client) -> None:
    """8.1, 8.3.2."""
    answer = client.expect_answer(client.ask(b"/a%20b?c=d&e"))
    assert answer.told == {
        "method": "GET",
        "path": "/a%20b",
        "query": "c=d&e",
        "version": "2",
        "headers": [["host", "a.example"]],
        "body": "",
    }
    fields = dict(answer.fields)
    assert fields[b"content-type"] == b"application/json"
    assert int(fields[LENGTH]) == len(answer.body)


def test_a_head(client: Client) -> None:
    """RFC 9110 section 9.3.2: fields and no content; END_STREAM on HEADERS."""
    answer = client.expect_answer(client.ask(method=b"HEAD"))
    assert answer.body == b""
    assert int(dict(answer.fields)[LENGTH]) > 0
    client.expect_alive()


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"PATCH", b"DELETE", b"GET", b"OPTIONS", b"M-SEARCH"])
def test_a_body(client: Client, method: bytes) -> None:
    """8.1: with any method."""
    stream = client.ask(method=method, end=False)
    client.send(frames.data(stream, b"body", end=True))
    told = client.expect_answer(stream).told
    assert (told["method"], told["body"]) == (method.decode(), "body")


def test_trailers_of_a_request(client: Client) -> None:
    """8.1: they end the request; ASGI has no place for what they say."""
    stream = client.post(b"/", b"body", end=False)
    client.headers(stream, [(b"x-sum", b"4")])
    told = client.expect_answer(stream).told
    assert told["body"] == "body"
    assert not any(name == "x-sum" for name, _ in told["headers"])
    client.expect_alive()


def test_trailers_of_a_request_without_a_body(client: Client) -> None:
    """8.1."""
    stream = client.ask(method=b"POST", end=False)
    client.headers(stream, [(b"x-sum", b"0")])
    assert client.expect_answer(stream).told["body"] == ""


def test_empty_trailers(client: Client) -> None:
    """8.1: a block without fields ends the stream as well."""
    stream = client.post(b"/", b"body", end=False)
    client.headers(stream, [])
    assert client.expect_answer(stream).told["body"] == "body"


def test_trailers_that_do_not_end_the_stream(client: Client) -> None:
    """8.1: a second HEADERS without END_STREAM makes the request malformed."""
    stream = client.post(b"/", b"body", end=False)
    client.headers(stream, [(b"x-sum", b"4")], end=False)
    client.expect_malformed(stream)


def test_a_second_request_on_a_stream(client: Client) -> None:
    """8.1, 8.3: pseudo-fields may not stand in trailers."""
    stream = client.ask(method=b"POST", end=False)
    client.headers(stream)
    client.expect_malformed(stream)


BAD_TRAILERS: dict[str, Fields] = {
    "method": [(b":method", b"GET")],
    "path": [(b"x-sum", b"1"), (b":path", b"/")],
    "status": [(b":status", b"200")],
    "unknown-pseudo": [(b":x", b"200")],
    "upper-case": [(b"X-Sum", b"1")],
    "connection": [(b"connection", b"close")],
    "transfer-encoding": [(b"transfer-encoding", b"chunked")],
    "empty-name": [(b"", b"1")],
    "space-in-name": [(b"x sum", b"1")],
    "line-feed": [(b"x-sum", b"1\n2")],
    "nul": [(b"x-sum", b"1\x002")],
    "space-around": [(b"x-sum", b" 1")],
}


@pytest.mark.parametrize("fields", BAD_TRAILERS.values(), ids=BAD_TRAILERS)
def test_malformed_trailers(client: Client, fields: Fields) -> None:
    """8.1, 8.2, 8.3: held to the same rules as the head."""
    stream = client.post(b"/", b"body", end=False)
    client.headers(stream, fields)
    client.expect_malformed(stream)


# Content-Length (8.1.1)


@pytest.mark.parametrize(
    ("length", "pieces"),
    [
        (b"0", [b""]),
        (b"4", [b"body"]),
        (b"4", [b"bo", b"dy"]),
        (b"4", [b"body", b""]),
        (b"4", [b"", b"b", b"ody", b""]),
        (b"0004", [b"body"]),
    ],
)
def test_a_length_that_fits(client: Client, length: bytes, pieces: list[bytes]) -> None:
    """8.1.1."""
    stream = client.ask(b"/", (LENGTH, length), method=b"POST", end=False)
    for place, piece in enumerate(pieces):
        client.send(frames.data(stream, piece, end=place == len(pieces) - 1))
    assert client.expect_answer(stream).told["body"] == b"".join(pieces).decode()


def test_a_length_that_fits_with_padding(client: Client) -> None:
    """8.1.1: padding is no content."""
    stream = client.ask(b"/", (LENGTH, b"4"), method=b"POST", end=False)
    client.send(frames.data(stream, b"body", end=True, padding=50))
    client.expect_answer(stream)


def test_a_length_that_fits_with_trailers(client: Client) -> None:
    """8.1.1."""
    stream = client.ask(b"/", (LENGTH, b"4"), method=b"POST", end=False)
    client.send(frames.data(stream, b"body"))
    client.headers(stream, [(b"x-sum", b"4")])
    client.expect_answer(stream)


def test_a_length_of_nothing(client: Client) -> None:
    """8.1.1: without a body."""
    client.expect_answer(client.ask(b"/", (LENGTH, b"0")))


@pytest.mark.parametrize(
    ("length", "pieces"),
    [
        (b"1", [b""]),
        (b"5", [b"body"]),
        (b"3", [b"body"]),
        (b"0", [b"body"]),
        (b"3", [b"bo", b"dy"]),
        (b"5", [b"bo", b"dy"]),
        (b"5", [b"body", b""]),
        (b"4", [b"body", b"", b"more"]),
        (b"9223372036854775807", [b"body"]),
    ],
)
@pytest.mark.parametrize("how", ["data", "trailers"])
def test_a_length_that_does_not_fit(client: Client, length: bytes, pieces: list[bytes], how: str) -> None:
    """8.1.1: the request is malformed, however its body comes and ends."""
    stream = client.ask(b"/", (LENGTH, length), method=b"POST", end=False)
    for place, piece in enumerate(pieces):
        client.send(frames.data(stream, piece, end=how == "data" and place == len(pieces) - 1))
    if how == "trailers":
        client.headers(stream, [(b"x-sum", b"4")])
    client.expect_malformed(stream)


def test_more_than_its_length_is_refused_before_the_end(client: Client) -> None:
    """8.1.1: as soon as it shows."""
    stream = client.ask(b"/", (LENGTH, b"3"), method=b"POST", end=False)
    client.send(frames.data(stream, b"body"))
    client.expect_malformed(stream)


def test_a_length_without_a_body(client: Client) -> None:
    """8.1.1: END_STREAM on HEADERS."""
    client.expect_malformed(client.ask(b"/", (LENGTH, b"1"), method=b"POST"))


@pytest.mark.parametrize(
    "values",
    [[b"4", b"4"], [b"4", b"5"], [b"4, 4"], [b"+4"], [b"-4"], [b"4x"], [b"0x4"], [b""], [b"4 4"], [b"1" * 30]],
)
def test_a_length_that_is_none(client: Client, values: list[bytes]) -> None:
    """RFC 9110 section 8.6: no number, or several."""
    stream = client.ask(b"/", *((LENGTH, value) for value in values), method=b"POST", end=False)
    client.send(frames.data(stream, b"body", end=True))
    client.expect_malformed(stream)


def test_no_application_sees_the_end_of_a_body_that_does_not_fit(local: Client) -> None:
    """8.1.1: it must not take the request for whole."""
    stream = local.ask(b"/", (LENGTH, b"5"), method=b"POST", end=False)
    local.send(frames.data(stream, b"body", end=True))
    local.expect_malformed(stream)
    assert not local.pipe.exchanges[stream].whole  # type: ignore[attr-defined]


# Answers


def test_trailers_of_a_response(client: Client) -> None:
    """8.1: HEADERS with END_STREAM behind the content."""
    answer = client.expect_answer(client.ask(b"/trailers", (b"te", b"trailers")), body=b"body")
    assert answer.trailers == [(b"x-sum", b"4")]


def test_an_interim_response(client: Client) -> None:
    """8.1, 8.3.2: 103 before the answer."""
    answer = client.expect_answer(client.ask(b"/hints"), body=b"hinted")
    assert [dict(fields)[b":status"] for fields in answer.interim] == [b"103"]


def test_expect_continue(client: Client) -> None:
    """8.1, RFC 9110 section 10.1.1: 100 once the application reads."""
    stream = client.ask(b"/", (b"expect", b"100-continue"), method=b"POST", end=False)
    answer = client.ledger.answer(stream)
    client.until(lambda: bool(answer.interim), "100 Continue")
    assert dict(answer.interim[0])[b":status"] == b"100"
    client.send(frames.data(stream, b"body", end=True))
    assert client.expect_answer(stream).told["body"] == "body"


def test_an_answer_before_the_request_has_ended(client: Client) -> None:
    """8.1: whole; then RST_STREAM with NO_ERROR may ask for no more, and what is under way is ignored."""
    stream = client.post(b"/early", b"some", end=False)
    client.expect_answer(stream, body=b"early")
    client.send(frames.data(stream, b"more", end=True))
    client.expect_alive()
    assert client.ledger.answer(stream).reset in (None, Code.NO_ERROR)


def test_an_answer_while_the_request_goes_on(client: Client) -> None:
    """8.1: both directions are independent."""
    stream = client.post(b"/begun", b"some", end=False)
    answer = client.ledger.answer(stream)
    client.until(lambda: answer.body == b"begun", "the beginning of the answer")
    client.send(frames.data(stream, b"more", end=True))
    client.expect_alive()


def test_the_status_comes_first(client: Client) -> None:
    """8.3.2: alone among the pseudo-fields; fields that HTTP/2 has no place for are not sent. The ledger looks."""
    answer = client.expect_answer(client.ask())
    assert answer.fields[0] == (b":status", b"200")
    assert sum(name.startswith(b":") for name, _ in answer.fields) == 1


def test_many_requests_on_one_connection(client: Client) -> None:
    """8.1: one after the other, with and without bodies."""
    for number in range(50):
        if number % 2:
            assert client.expect_answer(client.post(b"/", b"%d" % number)).told["body"] == str(number)
        else:
            client.expect_answer(client.ask(b"/%d" % number))


def test_requests_and_bodies_in_the_same_bytes(client: Client) -> None:
    """4.1: frames are not writes."""
    data = b""
    for stream in range(1, 20, 2):
        block = client.encoder.encode(request(b"/", b"POST"), huffman=True)
        data += frames.headers(stream, block, end=False) + frames.data(stream, b"body", end=True)
    client.send(data)
    for stream in range(1, 20, 2):
        assert client.expect_answer(stream).told["body"] == "body"
