"""Every case of the corpus over a real TCP socket to one real `appserver` process."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.corpus.cases import CASES, LIMITS, Case, ExpectedRequest
from tests.corpus.responses import Response, parse

APPS = Path(__file__).parents[1] / "apps"
PATIENCE = 5.0  # seconds; a case that is right takes milliseconds

GOOD = b"GET /good HTTP/1.1\r\nHost: a.example\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Server:
    """The process under test, and where it listens."""

    process: subprocess.Popen[str]
    address: tuple[str, int]

    def connect(self) -> "Client":
        sock = socket.create_connection(self.address, timeout=PATIENCE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return Client(sock)


@dataclass(slots=True)
class Client:
    """One connection, and all that came back on it."""

    sock: socket.socket
    methods: list[str] = field(default_factory=list)
    raw: bytes = b""
    ended: bool = False

    def send(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            self.ended = True  # closed on us after its answer: what was answered is still there to be read

    def receive(self) -> None:
        """Take what comes next, or the end."""
        try:
            data = self.sock.recv(65536)
        except ConnectionResetError:
            data = b""
        self.raw += data
        self.ended = not data

    def responses(self) -> list[Response]:
        """All whole responses so far."""
        found, rest = parse(self.raw, self.methods, ended=self.ended)
        assert not (rest and self.ended), f"bytes that belong to no response: {rest!r}"
        return found

    def final(self) -> list[Response]:
        return [response for response in self.responses() if response.status >= 200]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        fd = listener.fileno()
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "appserver", "echo:app", "--app-dir", APPS),
                *("--fd", str(fd), "--limit-request-body", str(LIMITS.body), "--no-access-log"),
            ],
            pass_fds=[fd],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        address = listener.getsockname()
    try:
        yield Server(process, address)
    finally:
        process.terminate()
        try:
            _, errors = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    # Hundreds of bad inputs later it is the same process, it ends as asked, and nothing in it was surprised.
    assert process.returncode == 0, errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(server: Server, case: Case) -> None:
    client = server.connect()
    with client.sock:
        client.methods = [request.method for request in case.requests]
        for index, step in enumerate(case.steps):
            if index:
                client.receive()
            client.send(step)
        if case.eof:
            client.sock.shutdown(socket.SHUT_WR)

        final = [right for right in case.statuses if min(right) >= 200]
        while len(client.final()) < len(final) and not client.ended:
            client.receive()
        if case.closes is not False:
            stays = case.closes is None and not asks_to_close(client.final()[-1])
            while not client.ended and not stays:
                client.receive()
        if case.closes is False:
            client.send(GOOD)
            while len(client.final()) <= len(final) and not client.ended:
                client.receive()
            final = [*final, frozenset({200})]

    found = client.responses()
    if case.statuses and 100 in case.statuses[0]:
        assert found[0].status == 100
    answers = [response for response in found if response.status >= 200]
    assert len(answers) == len(final)
    assert all(answer.status in right for answer, right in zip(answers, final, strict=True))
    for request, answer in zip(case.requests, answers, strict=False):
        if request.whole and request.method != "HEAD":
            check_told(request, answer)
    if not case.statuses:
        assert client.raw == b""
    elif case.closes and (case.refused or not case.eof):  # whoever ended its own input need not be told
        assert asks_to_close(answers[-1])

    assert serves(server)


def asks_to_close(response: Response) -> bool:
    return b"close" in [value.lower() for value in response.values(b"connection")]


def check_told(request: ExpectedRequest, answer: Response) -> None:
    """The application saw the request that the case names."""
    told = json.loads(answer.body)
    path, _, query = request.target.decode("latin-1").partition("?")
    assert (told["method"], told["path"], told["query"]) == (request.method, path, query)
    assert told["body"] == request.body.decode("latin-1")
    assert request.version in (None, told["version"])


def serves(server: Server) -> bool:
    """A good request on a new connection is answered."""
    client = server.connect()
    with client.sock:
        client.send(GOOD)
        while not client.final() and not client.ended:
            client.receive()
    return [answer.status for answer in client.final()] == [200]
