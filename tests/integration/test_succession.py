"""One process takes over from another that still drains, on an address that each makes for itself."""

import signal
import socket
from contextlib import closing
from pathlib import Path

import pytest

from tests.integration.servers import PATIENCE, Server, Starter, UnixConnection, get, receive


def connect(address: str) -> socket.socket:
    """A connection to a listener as the server names it: `http://HOST:PORT` or `unix:PATH`."""
    if address.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(address.removeprefix("unix:"))
        except OSError:
            sock.close()
            raise
    else:
        host, _, port = address.removeprefix("http://").partition(":")
        sock = socket.create_connection((host, int(port)))
    sock.settimeout(PATIENCE)
    return sock


def drain(server: Server, control: Path) -> None:
    """Tell it to stop, and wait until it has begun to."""
    server.send_signal(signal.SIGTERM)
    server.told("STOPPING", "1")
    assert get(UnixConnection(control), "/readyz")[0] == 503  # answered by the loop, which has closed its listeners


def pid_behind(address: str) -> int:
    with closing(connect(address)) as sock:
        sock.sendall(b"GET /whoami HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        _, _, body = receive(sock).partition(b"\r\n\r\n")
    return int(body.partition(b'"pid": ')[2].partition(b",")[0])


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_successor_takes_the_address_while_the_first_one_still_drains(
    kind: str, serve: Starter, tmp_path: Path
) -> None:
    path, control = tmp_path / "web.sock", tmp_path / "control.sock"
    bind = "127.0.0.1:0" if kind == "tcp" else f"unix:{path}"
    first = serve("astray:app", "-b", bind, "--control", f"unix:{control}", bind=False)
    address = next(listener for listener in first.listeners if str(control) not in listener)
    with closing(connect(address)) as running:
        running.sendall(b"POST /take HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n")
        first.record(message="begun")
        drain(first, control)
        with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
            connect(address).close()
        second = serve("astray:app", "-b", address.removeprefix("http://"), bind=False)
        assert pid_behind(address) == second.process.pid
        running.sendall(b"body")
        assert receive(running).endswith(b"\r\n\r\ntaken")
    assert first.wait() == 0
    assert pid_behind(address) == second.process.pid
    assert path.is_socket() == (kind == "unix")
