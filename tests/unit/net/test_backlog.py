"""How full real listening sockets are."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from appserver.net.backlog import read_backlog, read_backlogs
from appserver.net.listeners import Listener
from appserver.telemetry.metrics import Backlog


@pytest.fixture
def clients() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def listen(family: socket.AddressFamily, host: str, backlog: int) -> Listener:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.bind((host, 0))
    sock.listen(backlog)
    return Listener(sock, "http")


def knock(listener: Listener, clients: ExitStack) -> socket.socket:
    client = clients.enter_context(socket.socket(listener.sock.family, socket.SOCK_STREAM))
    client.setblocking(False)
    client.connect_ex(listener.sock.getsockname())
    return client


def waiting(listener: Listener) -> Backlog:
    backlog = read_backlog(listener)
    assert backlog is not None
    return backlog


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")], ids=["IPv4", "IPv6"]
)
def test_what_waits_for_accept_is_told_with_the_limit(
    family: socket.AddressFamily, host: str, clients: ExitStack
) -> None:
    listener = listen(family, host, 5)
    assert waiting(listener) == Backlog(listener.url, 0, 5, 0)
    for _ in range(3):
        knock(listener, clients)
    assert waiting(listener) == Backlog(listener.url, 3, 5, 0)
    listener.sock.accept()[0].close()
    assert waiting(listener).waiting == 2
    listener.close()


def test_what_the_kernel_does_not_let_in_is_counted(clients: ExitStack) -> None:
    listener = listen(socket.AF_INET, "127.0.0.1", 1)
    for _ in range(6):
        knock(listener, clients)
    backlog = waiting(listener)
    assert backlog.waiting == 2  # Linux lets one in beyond the limit
    assert backlog.dropped >= 4
    listener.close()


def test_a_unix_socket_and_one_that_is_closed_tell_nothing(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as unix:
        unix.bind(str(tmp_path / "a.sock"))
        unix.listen(5)
        closed = listen(socket.AF_INET, "127.0.0.1", 5)
        closed.close()
        assert read_backlogs([Listener(unix, "http"), closed]) == ()


def test_the_control_socket_and_a_connection_have_no_backlog() -> None:
    listener = listen(socket.AF_INET, "127.0.0.1", 5)
    listener.control = True
    assert read_backlogs([listener]) == ()
    listener.control, listener.connected = False, True
    assert read_backlogs([listener]) == ()
    listener.close()
