"""Clients that hold an HTTP/2 connection or a TLS handshake open, live: the deadlines that end each, and what it costs.

pytest -rP shows the figures.
"""

import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from tests.apps.behaviour import BLOCK
from tests.conformance.http2 import frames
from tests.conformance.http2.client import Client
from tests.conformance.http2.fields import REQUEST, plain, request
from tests.conformance.http2.frames import MAX_WINDOW, WINDOW, Code, Setting
from tests.conformance.http2.live import Wire
from tests.integration.http2 import ENGINES, Site, remarks, serving
from tests.integration.neighbours import ROUNDS, Neighbours
from tests.integration.servers import PATIENCE

HELD: Final = 20
"""Connections of one client."""

DEADLINE: Final = 2
"""Seconds, of each kind."""


def make_client_hello() -> bytes:
    """What a handshake begins with."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


CLIENT_HELLO: Final = make_client_hello()
BLOCKS: Final = 64
DOWNLOAD: Final = frames.headers(1, plain(request(b"/repeat?blocks=%d" % BLOCKS)))


@contextmanager
def serving_with_deadlines(folder: Path, way: str) -> Iterator[Site]:
    deadlines = [f"--timeout-{kind}={DEADLINE}" for kind in ("header", "body", "write", "tls", "keep-alive")]
    with serving(folder, way, "behaviour:app", "--no-access-log", *deadlines, quiet=False) as site:
        yield site


@pytest.fixture(scope="module", params=ENGINES)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    way = f"plain-{request.param}"
    with serving_with_deadlines(tmp_path_factory.mktemp(way), way) as site:
        yield site


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    way = f"tls-{ENGINES[0]}"
    with serving_with_deadlines(tmp_path_factory.mktemp(way), way) as site:
        yield site


@contextmanager
def connecting(site: Site) -> Iterator[list[socket.socket]]:
    """The connections, with as little room for what comes as the kernel gives."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(HELD)]
        for sock in sockets:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            sock.connect(site.server.address)
        yield sockets


@contextmanager
def compared(site: Site, folder: Path, what: str, message: str = "") -> Iterator[Neighbours]:
    """Others ask before the block, and in it as it says; at its end the server has said this of each connection.

    Args:
        site: What is asked.
        folder: For files.
        what: The client that is slow, in words.
        message: What the records begin with; without one there are none.
    """
    neighbours = Neighbours(site, folder)
    for _ in range(ROUNDS):
        neighbours.ask_in_quiet()
    said = len(remarks(site.server))
    yield neighbours

    def find() -> list[str] | None:
        found = [record["message"] for record in remarks(site.server)[said:]]
        return found if len(found) >= (HELD if message else 0) else None

    found = site.server.until(find, f"{HELD} lines")
    assert len(found) == (HELD if message else 0)
    assert all(text.startswith(message) for text in found), found
    neighbours.check(f"{what}: {HELD} connections, {repr(message) if message else 'no line'}")


def greet(sock: socket.socket, site: Site, window: int, *pieces: bytes) -> Client:
    """Begin with HTTP/2 and so large a window for answers, and send these bytes."""
    client = Client(Wire(sock, site.engine, None))
    client.start({Setting.INITIAL_WINDOW_SIZE: window})
    client.send(*pieces)
    return client


def test_a_window_held_at_zero_costs_one_answer(site: Site, tmp_path: Path) -> None:
    message = "Cut a response: the client reads it too slowly"
    with compared(site, tmp_path, "zero window", message) as neighbours, connecting(site) as sockets:
        clients = [greet(sock, site, 0, DOWNLOAD) for sock in sockets]
        for _ in range(ROUNDS):
            neighbours.ask_meanwhile()
        for client in clients:
            # The stream is reset; the connection goes on, and takes its leave when it has been idle.
            client.expect_closed()
            answer = client.ledger.answer(1)
            assert (answer.status, answer.body, answer.reset) == (200, b"", Code.CANCEL)
            assert {code for _, code, _ in client.ledger.goaways} == {Code.NO_ERROR}


def test_a_client_that_reads_byte_by_byte_is_cut(site: Site, tmp_path: Path) -> None:
    message = "Cut a connection: the client reads too slowly"
    grant = frames.window_update(0, MAX_WINDOW - WINDOW)
    with compared(site, tmp_path, "slow reader", message) as neighbours, connecting(site) as sockets:
        for sock in sockets:
            greet(sock, site, MAX_WINDOW, grant, DOWNLOAD)
            sock.setblocking(True)
        for _ in range(ROUNDS):
            neighbours.ask_meanwhile()
            for sock in sockets:
                assert sock.recv(1)

        def find() -> list[object] | None:
            cut: list[object] = [record for record in remarks(site.server) if record["message"] == message]
            return cut if len(cut) >= len(sockets) else None

        site.server.until(find, message)
        for sock in sockets:
            # What the kernel has already taken still comes: less than what was asked for.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BLOCK)
            assert count_rest(sock) < BLOCKS * BLOCK


def count_rest(sock: socket.socket) -> int:
    """How many bytes still come until the server has closed."""
    sock.settimeout(PATIENCE)
    count = 0
    with suppress(ConnectionResetError):
        while data := sock.recv(BLOCK):
            count += len(data)
    return count


def test_a_header_block_that_trickles_is_an_error(site: Site, tmp_path: Path) -> None:
    message = "Closed an HTTP/2 connection: its head did not arrive in time (ENHANCE_YOUR_CALM)"
    head = frames.headers(1, REQUEST, whole=False) + frames.continuation(1, bytes(1000))
    with compared(site, tmp_path, "trickled header block", message) as neighbours, connecting(site) as sockets:
        for client in trickle(site, neighbours, sockets, head[: len(head) - 900]):
            client.expect_goaway(Code.ENHANCE_YOUR_CALM)


def test_a_frame_that_trickles_is_no_more_than_silence(site: Site, tmp_path: Path) -> None:
    head = frames.headers(1, REQUEST + bytes(1000))
    with compared(site, tmp_path, "trickled frame") as neighbours, connecting(site) as sockets:
        for client in trickle(site, neighbours, sockets, head[: len(head) - 900]):
            client.expect_closed()
            assert {code for _, code, _ in client.ledger.goaways} == {Code.NO_ERROR}


def trickle(site: Site, neighbours: Neighbours, sockets: list[socket.socket], begun: bytes) -> list[Client]:
    """Send some bytes, and one more from time to time."""
    clients = [greet(sock, site, 0, begun) for sock in sockets]
    for _ in range(ROUNDS):
        for client in clients:
            client.send(b"\0")
        neighbours.ask_meanwhile()
    return clients


# TLS


def test_a_handshake_that_stalls_is_given_up(secure: Site, tmp_path: Path) -> None:
    message = "A TLS handshake failed: "
    with compared(secure, tmp_path, "stalled handshake", message) as neighbours, connecting(secure) as sockets:
        for number, sock in enumerate(sockets):
            sock.sendall(CLIENT_HELLO[: number % 2 * 100])  # half of them say nothing at all
        for _ in range(ROUNDS):
            neighbours.ask_meanwhile()
        for sock in sockets:
            assert count_rest(sock) == 0


def test_a_renegotiation_is_refused(secure: Site) -> None:
    """CVE-2011-1473: a handshake costs the server more than the client, and one connection could ask for many."""
    host, port = secure.server.address
    with subprocess.Popen(
        ["openssl", "s_client", "-connect", f"{host}:{port}", "-tls1_2", "-CAfile", secure.root],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as client:
        output, _ = client.communicate(b"R\n", PATIENCE)
    assert b"RENEGOTIATING" in output
    assert b"no renegotiation" in output
    assert secure.server.process.poll() is None
