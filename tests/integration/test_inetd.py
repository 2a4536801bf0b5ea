"""One connection on descriptor 0 and one process for it, as inetd and Accept=yes start them."""

import socket
import struct
from collections.abc import Callable, Iterator

import pytest

from tests.corpus.responses import parse
from tests.integration.servers import COMMAND, PATIENCE, Starter, listening, receive

REQUEST = "GET {} HTTP/1.1\r\nHost: a\r\n{}\r\n"
CLOSE = "Connection: close\r\n"


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The client's end of a connection and the server's."""
    with listening() as listener, socket.create_connection(listener.getsockname(), timeout=PATIENCE) as ours:
        theirs, _ = listener.accept()
        with theirs:
            yield ours, theirs


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def test_what_the_application_does_after_its_answer_is_waited_for(
    ends: tuple[socket.socket, socket.socket], serve: Starter
) -> None:
    ours, theirs = ends
    server = serve("astray:app", "--fd", "0", bind=False, stdin=theirs.fileno())
    theirs.close()
    ours.sendall(REQUEST.format("/work-on", CLOSE).encode())
    assert receive(ours).endswith(b"\r\n\r\nat once")
    ours.close()
    assert server.wait(10) == 0
    server.record(message="worked")


@pytest.mark.parametrize("go", [socket.socket.close, reset])
def test_the_process_ends_with_its_client_while_the_application_waits(
    go: Callable[[socket.socket], None], ends: tuple[socket.socket, socket.socket], serve: Starter
) -> None:
    ours, theirs = ends
    server = serve("astray:app", "--fd", "0", bind=False, stdin=theirs.fileno())
    theirs.close()
    ours.sendall(REQUEST.format("/poll", "").encode())
    server.record(message="begun")
    go(ours)
    assert server.wait(10) == 0
    server.record(message="heard")
    server.record(http_target="/poll", outcome="client_gone")
    assert server.record(event="stopped")["requests_cut"] == 0


def test_the_client_sees_http_and_nothing_else_when_it_is_all_standard_descriptors(
    ends: tuple[socket.socket, socket.socket], serve: Starter
) -> None:
    ours, theirs = ends
    command = ["/bin/sh", "-c", 'exec "$@" 1>&0 2>&0', "sh", *COMMAND]
    variables = {"APPSERVER_X": "told in a warning"}
    server = serve("astray:app", "--fd", "0", bind=False, stdin=theirs.fileno(), command=command, variables=variables)
    theirs.close()
    ours.sendall((REQUEST.format("/log?x", "") + REQUEST.format("/", CLOSE)).encode())
    answers, left = parse(receive(ours), ("GET", "GET"), ended=True)
    assert ([answer.body for answer in answers], left) == ([b"logged", b"hello"], b"")
    ours.close()
    assert server.wait(10) == 0
