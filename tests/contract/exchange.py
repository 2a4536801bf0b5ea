"""One request and its response: made, begun, and read back by two clients' parsers, h11's and http.client's."""

import http.client
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from appserver.wire.engine import Engine, Event, Head, Headers
from tests.contract.driver import written
from tests.corpus.responses import Response, parse

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
    raw = written(engine)
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
