"""Clients of our own: one that checks an answer, one that waits for the first, and one that keeps connections idle."""

import select
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPException, HTTPResponse
from time import monotonic, sleep
from typing import Final

from bench.addresses import Address, open_connection
from bench.errors import ContenderError
from bench.http2 import OPENING, Http2Client
from bench.websocket import WebSocketClient, write_handshake
from bench.workloads import Workload

PATIENCE: Final = 15.0
"""Seconds that a start and an answer may take."""
_POLL: Final = 0.001
"""Seconds between two attempts to connect: what a cold start is too long by, at most."""
_BATCH: Final = 100
"""Idle connections are opened so many at a time: fewer than wait for accept() in any backlog."""


def connect(address: Address, workload: Workload) -> socket.socket:
    """Connect, with TLS where the workload has it.

    Raises:
        OSError: Nobody listens there, it took too long, or there is no TLS 1.3.
    """
    connection = open_connection(address, PATIENCE)
    if not workload.tls:
        return connection
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.set_alpn_protocols(["h2" if workload.http2 else "http/1.1"])
        return context.wrap_socket(connection)
    except BaseException:
        connection.close()
        raise


def write_request(workload: Workload) -> bytes:
    """The request of a workload for HTTP/1.1, as bytes."""
    method = "POST" if workload.upload else "GET"
    lines = [f"{method} {workload.target} HTTP/1.1", "host: 127.0.0.1"]
    lines += [f"{name}: {value}" for name, value in workload.fields]
    if workload.upload:
        lines.append(f"content-length: {workload.upload}")
    return "\r\n".join([*lines, "", ""]).encode() + b"x" * workload.upload


def check_answer(address: Address, workload: Workload) -> None:
    """Ask once.

    Raises:
        ContenderError: The answer is not what the application gives.
    """
    if workload.websocket:
        _check_websocket(address, workload)
        return
    try:
        with connect(address, workload) as connection:
            if workload.http2:
                status, body = Http2Client(connection, workload).ask()
            else:
                connection.sendall(write_request(workload))
                response = HTTPResponse(connection)
                response.begin()
                status, body = response.status, response.read()
    except (OSError, HTTPException) as error:
        raise ContenderError(f"no answer: {type(error).__name__}: {error}") from error
    if status != 200:
        raise ContenderError(f"wrong answer: status {status}")
    if body != workload.expected:
        raise ContenderError(f"wrong answer: {len(body)} bytes that are not the {len(workload.expected)} expected")


def _check_websocket(address: Address, workload: Workload) -> None:
    try:
        client = WebSocketClient(address, workload, PATIENCE)
        try:
            client.ask()
            client.open()
            client.say()
            while not client.hear():
                pass
            client.finish()
            while client.connection.recv(65536):
                pass
        finally:
            client.close()
    except OSError as error:
        raise ContenderError(f"no answer: {type(error).__name__}: {error}") from error


def wait_for_answer(address: Address, workload: Workload, running: Callable[[], bool]) -> None:
    """Try until there is an answer; with HTTP/2, until the server opens the connection, too.

    Args:
        address: Where.
        workload: Its request is answered with status 200; with 101 where it asks for a WebSocket.
        running: Whether it is still worth it, asked between two attempts.

    Raises:
        ContenderError: It is not running any more, the patience ended, or the answer is another one.
    """
    if workload.http2:
        request = OPENING
    else:
        request = write_handshake(workload) if workload.websocket else write_request(workload)
    end = monotonic() + PATIENCE
    while True:
        try:
            with connect(address, workload) as connection:
                connection.sendall(request)
                answer = connection.recv(65536)
        except OSError:
            # Nobody listens yet; or somebody does not any more.
            answer = b""
        if answer:
            break
        if not running():
            raise ContenderError("ended while starting")
        if monotonic() > end:
            raise ContenderError(f"no answer within {PATIENCE:.0f} s of its start")
        sleep(_POLL)
    if not workload.http2 and not answer.startswith(b"HTTP/1.1 101" if workload.websocket else b"HTTP/1.1 200 "):
        raise ContenderError(f"wrong answer: {answer.decode('latin-1').splitlines()[0]}")


@contextmanager
def hold_connections(address: Address, workload: Workload) -> Iterator[list[socket.socket]]:
    """Open the workload's connections, have one request answered on each, and close them at the end.

    Raises:
        ContenderError: One was refused, or not answered.
    """
    request = write_request(workload)
    with ExitStack() as stack:
        connections: list[socket.socket] = []
        try:
            while len(connections) < workload.connections:
                count = min(_BATCH, workload.connections - len(connections))
                batch = [stack.enter_context(connect(address, workload)) for _ in range(count)]
                if workload.http2:
                    for client in [Http2Client(connection, workload) for connection in batch]:
                        client.ask()
                else:
                    for connection in batch:
                        connection.sendall(request)
                    for connection in batch:
                        _read_answer(connection, workload.expected)
                connections += batch
        except OSError as error:
            raise ContenderError(f"connection {len(connections)}: {error}") from error
        yield connections


def _read_answer(connection: socket.socket, body: bytes) -> None:
    answer = b""
    while not answer.endswith(body):
        data = connection.recv(65536)
        if not data:
            raise ContenderError("a connection was closed instead of kept")
        answer += data


def count_closed(connections: list[socket.socket]) -> int:
    """How many of the idle connections the server has closed. With HTTP/2 it may have something to say on others."""
    poll = select.poll()
    for connection in connections:
        poll.register(connection, select.POLLIN)
    readable = {descriptor for descriptor, _ in poll.poll(0)}
    return sum(_is_closed(connection) for connection in connections if connection.fileno() in readable)


def _is_closed(connection: socket.socket) -> bool:
    try:
        return not connection.recv(65536)
    except OSError:
        return True
