"""Every case of the corpus over a real TCP socket to one real `appserver` process.

Each must be answered as its file says, leave one log record that names the cause where input was refused, leave no
connection behind, and disturb no other client.
"""

import contextlib
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.corpus.cases import CASES, LIMITS, Case, ExpectedRequest
from tests.corpus.responses import Response, parse

APPS = Path(__file__).parents[1] / "apps"
PATIENCE = 20.0  # seconds; a case that is right takes milliseconds
LINGER = 60

GOOD = b"GET /good HTTP/1.1\r\nHost: a.example\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Server:
    """The process under test, and where it listens."""

    process: subprocess.Popen[bytes]
    address: tuple[str, int]
    log: Path

    def refusals(self, since: int) -> list[dict[str, Any]]:
        """The records of refused input, from an offset in the log on."""
        lines = self.log.read_bytes()[since:].splitlines()
        return [record for record in map(json.loads, lines) if record["event"] == "refused"]

    def sockets(self) -> int:
        """How many sockets the process has open."""
        links = Path(f"/proc/{self.process.pid}/fd").iterdir()
        count = 0
        for link in links:
            with contextlib.suppress(FileNotFoundError):
                count += link.readlink().name.startswith("socket:")
        return count

    def let_go(self, before: int) -> float:
        """Wait until no more than `before` sockets are open; how long that took, in seconds."""
        start = time.monotonic()
        while self.sockets() > before and time.monotonic() - start < PATIENCE:
            time.sleep(0.005)
        return time.monotonic() - start

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
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("live") / "stderr"
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener, log.open("w") as stderr:
        fd = listener.fileno()
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "appserver", "echo:app", "--app-dir", APPS),
                *("--fd", str(fd), "--limit-request-body", str(LIMITS.body), "--no-access-log", "--no-http2"),
                *("--linger", str(LINGER)),
            ],
            pass_fds=[fd],
            stdin=subprocess.DEVNULL,
            stderr=stderr,
        )
        address = listener.getsockname()
    try:
        started = Server(process, address, log)
        assert serves(started)
        yield started
        # Hundreds of bad inputs later it is the same process, it ends as asked, and nothing in it was surprised.
        process.terminate()
        assert process.wait(PATIENCE) == 0
        assert "Traceback" not in log.read_text()
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(server: Server, case: Case) -> None:
    before, logged = server.sockets(), server.log.stat().st_size
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

    # Far less than a connection may linger: its client is gone, so there is nothing to wait for.
    assert server.let_go(before) < PATIENCE
    refusals = server.refusals(logged)
    assert [record["http_status"] for record in refusals] == ([answers[-1].status] if case.refused else [])
    assert all(re.search(case.reason or "", record["message"]) for record in refusals)
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
