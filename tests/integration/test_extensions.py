"""Trailers, early hints and promises on the wire: HTTP/1.1 by its bytes, HTTP/2 by h2 as a client."""

import hashlib
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    Event,
    InformationalResponseReceived,
    PushedStreamReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.settings import SettingCodes

from appserver.wire.select import http2_engines
from tests.apps.extensions import PIECE
from tests.integration.servers import PATIENCE, Server, Starter, receive

ALWAYS: Final = {
    "http.response.pathsend",
    "http.response.zerocopysend",
    "http.response.trailers",
    "http.response.early_hint",
}
LINKS: Final = [b"</a.css>; rel=preload", b"</b.css>; rel=preload"]


def ask(target: str, *fields: str, version: str = "1.1") -> bytes:
    lines = [f"GET {target} HTTP/{version}", "Host: a.example", *fields, "", ""]
    return "\r\n".join(lines).encode()


def digest(pieces: int) -> str:
    return hashlib.sha256(PIECE * pieces).hexdigest()


@pytest.fixture
def server(serve: Starter) -> Server:
    return serve("extensions:app")


@pytest.fixture
def client(server: Server) -> Iterator[socket.socket]:
    """A connection of HTTP/1.1."""
    with socket.create_connection(server.address, PATIENCE) as client:
        yield client


# HTTP/1.1


def unchunk(data: bytes) -> tuple[bytes, list[bytes], bytes]:
    """The body in chunks, the trailers behind it, and the rest."""
    body = b""
    while True:
        size, _, data = data.partition(b"\r\n")
        count = int(size, 16)
        if not count:
            break
        body += data[:count]
        assert data[count : count + 2] == b"\r\n"
        data = data[count + 2 :]
    trailers: list[bytes] = []
    while True:
        line, mark, data = data.partition(b"\r\n")
        assert mark
        if not line:
            return body, trailers, data
        trailers.append(line)


@pytest.mark.parametrize("pieces", [0, 1, 100])
def test_trailers_stand_behind_the_last_chunk_and_the_connection_goes_on(client: socket.socket, pieces: int) -> None:
    target = f"/summed?pieces={pieces}"
    client.sendall(ask(target, "TE: trailers") + ask(target) + ask("/", "Connection: close"))
    got = receive(client)
    for trailers in ([f"x-sha256: {digest(pieces)}".encode()], []):
        head, _, rest = got.partition(b"\r\n\r\n")
        assert b"transfer-encoding: chunked" in head
        assert b"content-length" not in head
        body, found, got = unchunk(rest)
        assert (body, found) == (PIECE * pieces, trailers)
    head, _, body = got.partition(b"\r\n\r\n")
    assert set(body.decode().split()) == ALWAYS


@pytest.mark.parametrize("size", [0, 10, 1_000_000])
def test_trailers_stand_behind_a_file(client: socket.socket, tmp_path: Path, size: int) -> None:
    (tmp_path / "file").write_bytes(b"x" * size)
    client.sendall(ask(f"/summed?file={tmp_path}/file&sum=abc", "TE: trailers", "Connection: close"))
    head, _, rest = receive(client).partition(b"\r\n\r\n")
    assert b"content-length" not in head
    assert unchunk(rest) == (b"x" * size, [b"x-sha256: abc"], b"")


def test_http_1_0_has_no_trailers_and_no_hints(server: Server, client: socket.socket) -> None:
    client.sendall(ask("/summed?pieces=1", "TE: trailers", version="1.0"))
    head, _, body = receive(client).partition(b"\r\n\r\n")
    assert (head.split()[1], body) == (b"200", PIECE)
    with socket.create_connection(server.address, PATIENCE) as other:
        other.sendall(ask("/hinted", version="1.0"))
        while server.get("/release")[0] != 200:
            pass
        head, _, body = receive(other).partition(b"\r\n\r\n")
    assert (head.split()[1], body) == (b"200", b"hinted")


def test_head_has_no_trailers(client: socket.socket) -> None:
    head = ask("/summed?pieces=1", "TE: trailers").replace(b"GET", b"HEAD")
    client.sendall(head + head + ask("/", "Connection: close"))
    answers = receive(client).split(b"HTTP/1.1 200 ")
    assert [answer.partition(b"\r\n\r\n")[2] for answer in answers[1:3]] == [b"", b""]
    assert len(answers) == 4


def test_trailers_that_never_come_leave_the_body_without_its_end(server: Server, client: socket.socket) -> None:
    client.sendall(ask("/broken", "TE: trailers"))
    head, _, body = receive(client).partition(b"\r\n\r\n")
    assert (head.split()[1], body) == (b"200", b"5\r\nwhole\r\n")
    assert "expected http.response.trailers" in server.record(event="misuse")["message"]
    assert server.record(http_target="/broken", outcome="cut")["bytes_sent"] == 5


def test_hints_come_while_the_application_still_works(server: Server, client: socket.socket) -> None:
    client.sendall(ask("/hinted", "Connection: close"))
    got = receive(client, lambda data: data.endswith(b"\r\n\r\n"))
    status, *fields = got.removesuffix(b"\r\n\r\n").split(b"\r\n")
    assert status.split()[:2] == [b"HTTP/1.1", b"103"]
    assert fields == [b"link: " + link for link in LINKS]
    assert server.get("/release") == (200, b"released")
    head, _, body = receive(client).partition(b"\r\n\r\n")
    assert (head.split()[1], body) == (b"200", b"hinted")


def test_nothing_is_promised_over_http_1_1(server: Server) -> None:
    assert server.get("/promising")[0] == 500
    assert "http.response.push is not among the extensions" in server.record(event="misuse")["message"]


# HTTP/2


class Conversation:
    """One connection of HTTP/2, and what has come on it."""

    def __init__(self, sock: socket.socket, *, push: bool) -> None:
        self._sock = sock
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self._h2.initiate_connection()
        if not push:
            self._h2.update_settings({SettingCodes.ENABLE_PUSH: 0})
        self.events: list[Event] = []

    def ask(self, target: str, *fields: tuple[str, str]) -> int:
        stream = self._h2.get_next_available_stream_id()
        pseudo = [(":method", "GET"), (":scheme", "http"), (":authority", "a.example"), (":path", target)]
        self._h2.send_headers(stream, [*pseudo, *fields], end_stream=True)
        self._flush()
        return stream

    def _flush(self) -> None:
        self._sock.sendall(self._h2.data_to_send())

    def until(self, end: Callable[[Event], bool]) -> None:
        """Take what comes until an event is the one."""
        while not any(map(end, self.events)):
            data = self._sock.recv(65536)
            assert data, f"ended after {self.events}"
            for event in self._h2.receive_data(data):
                if isinstance(event, DataReceived):
                    self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                self.events.append(event)
            self._flush()

    def finish(self, *streams: int) -> None:
        """Take what comes until these streams have ended."""
        for stream in streams:
            self.until(partial(ends, stream))

    def of(self, stream: int, *kinds: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kinds) and getattr(event, "stream_id", 0) == stream]

    def body(self, stream: int) -> bytes:
        return b"".join(event.data for event in self.of(stream, DataReceived))


def ends(stream: int, event: Event) -> bool:
    return isinstance(event, StreamEnded | StreamReset) and bool(event.stream_id == stream)


@pytest.fixture(params=http2_engines())
def http2(request: pytest.FixtureRequest, serve: Starter) -> Server:
    return serve("extensions:app", "--http2-engine", request.param)


@pytest.fixture
def conversation(http2: Server, request: pytest.FixtureRequest) -> Iterator[Conversation]:
    with socket.create_connection(http2.address, PATIENCE) as sock:
        yield Conversation(sock, push=getattr(request, "param", True))


@pytest.mark.parametrize("pieces", [0, 1, 500])
def test_trailers_end_a_stream_when_all_its_data_has_come(conversation: Conversation, pieces: int) -> None:
    willing = conversation.ask(f"/summed?pieces={pieces}", ("te", "trailers"))
    conversation.finish(willing)
    unwilling = conversation.ask(f"/summed?pieces={pieces}")
    conversation.finish(unwilling)
    assert conversation.body(willing) == conversation.body(unwilling) == PIECE * pieces
    [trailers] = conversation.of(willing, TrailersReceived)
    assert [tuple(field) for field in trailers.headers] == [(b"x-sha256", digest(pieces).encode())]
    assert conversation.of(unwilling, TrailersReceived) == []
    assert [type(event) for event in conversation.of(willing, TrailersReceived, StreamEnded, StreamReset)] == [
        TrailersReceived,
        StreamEnded,
    ]


def test_trailers_come_behind_a_file_over_http2_too(conversation: Conversation, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 1_000_000)
    stream = conversation.ask(f"/summed?file={tmp_path}/file&sum=abc", ("te", "trailers"))
    conversation.finish(stream)
    assert conversation.body(stream) == b"x" * 1_000_000
    assert [event.headers for event in conversation.of(stream, TrailersReceived)] == [[(b"x-sha256", b"abc")]]


def test_trailers_that_never_come_reset_the_stream(http2: Server, conversation: Conversation) -> None:
    stream = conversation.ask("/broken", ("te", "trailers"))
    conversation.finish(stream)
    assert len(conversation.of(stream, StreamReset)) == 1
    assert "expected http.response.trailers" in http2.record(event="misuse")["message"]


def test_hints_come_before_the_head_over_http2_too(conversation: Conversation) -> None:
    stream = conversation.ask("/hinted")
    conversation.until(lambda event: isinstance(event, InformationalResponseReceived))
    [hint] = conversation.of(stream, InformationalResponseReceived)
    assert [tuple(field) for field in hint.headers] == [(b":status", b"103"), *((b"link", link) for link in LINKS)]
    assert conversation.of(stream, ResponseReceived) == []
    conversation.ask("/release")
    conversation.finish(stream)
    assert conversation.body(stream) == b"hinted"


def test_a_promise_is_kept(conversation: Conversation) -> None:
    stream = conversation.ask("/promising")
    conversation.until(lambda event: isinstance(event, PushedStreamReceived))
    [promise] = [event for event in conversation.events if isinstance(event, PushedStreamReceived)]
    pushed = promise.pushed_stream_id
    assert pushed is not None
    conversation.finish(stream, pushed)
    assert promise.parent_stream_id == stream
    assert [tuple(field) for field in promise.headers or ()] == [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":authority", b"a.example"),
        (b":path", b"/promised?by=push"),
        (b"x-promise", b"kept"),
    ]
    assert (conversation.body(stream), conversation.body(pushed)) == (b"promising", b"push kept")


@pytest.mark.parametrize("conversation", [False, True], indirect=True)
def test_promises_are_offered_to_clients_that_take_them(
    conversation: Conversation, request: pytest.FixtureRequest
) -> None:
    stream = conversation.ask("/")
    conversation.finish(stream)
    pushes = request.node.callspec.params["conversation"]
    assert set(conversation.body(stream).decode().split()) == ALWAYS | ({"http.response.push"} if pushes else set())
