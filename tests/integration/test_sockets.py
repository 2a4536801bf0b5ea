"""Every kind of socket that the server can be handed or told to make."""

import grp
import http.client
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.integration.servers import (
    COMMAND,
    PATIENCE,
    Starter,
    UnixConnection,
    ask,
    clean_environment,
    get,
    listening,
    receive,
    run,
)

EXECUTE = str(Path(__file__).with_name("execute.py"))


def handed(names: str, *sockets: socket.socket, pid: str = "own") -> dict[str, Any]:
    """How to start a server that gets sockets as a socket unit hands them over."""
    fds = [sock.fileno() for sock in sockets]
    numbers = ",".join(map(str, fds))
    return {"command": [sys.executable, EXECUTE, pid, names, numbers, *COMMAND], "pass_fds": fds, "bind": False}


def get_from(listener: socket.socket, target: str = "/") -> tuple[int, bytes]:
    """One GET to whoever serves a listener."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return get(UnixConnection(os.fsdecode(name).replace("\0", "@")), target)
    return get(http.client.HTTPConnection(name[0], name[1], timeout=PATIENCE), target)


# --- --fd -------------------------------------------------------------------------------------------------------------


def test_settings_for_sockets_of_ones_own_are_told_to_have_no_effect(serve: Starter) -> None:
    with listening() as sock:
        server = serve("behaviour:app", "--uds-mode", "0666", "--backlog", "7", **handed("http", sock))
        told = {record["message"] for record in server.records if record["level"] == "warning"}
        why = "has no effect: all sockets are inherited; in a socket unit it is"
        assert told == {f"--uds-mode {why} SocketMode=", f"--backlog {why} Backlog="}


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
def test_fd_0_listening_is_served_whatever_its_family(
    family: socket.AddressFamily, serve: Starter, tmp_path: Path
) -> None:
    address = {socket.AF_INET: ("127.0.0.1", 0), socket.AF_INET6: ("::1", 0)}.get(family, str(tmp_path / "web.sock"))
    with listening(family, address) as listener:
        server = serve("behaviour:app", "--fd", "0", bind=False, stdin=listener.fileno())
        assert get_from(listener) == (200, b"hello")
        server.stop()
        # It is the service manager's: it goes on listening, and its path stays.
        with socket.socket(family, socket.SOCK_STREAM) as client:
            client.connect(listener.getsockname())


def test_fd_0_connected_is_served_as_one_connection_and_then_the_process_ends(serve: Starter) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        server = serve("behaviour:app", "--fd", "0", bind=False, stdin=theirs.fileno())
        theirs.close()
        ours.settimeout(PATIENCE)
        ours.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 2)
        answers = receive(ours, lambda data: data.count(b"hello") == 2)
        assert answers.count(b"HTTP/1.1 200 ") == 2
        ours.shutdown(socket.SHUT_WR)
        assert receive(ours) == b""
    assert server.wait() == 0
    server.told("STOPPING", "1")


def test_fd_0_connected_over_tcp_knows_its_client(serve: Starter) -> None:
    with listening() as listener, socket.create_connection(listener.getsockname()) as ours:
        theirs, client = listener.accept()
        with theirs:
            server = serve("behaviour:app", "--fd", "0", bind=False, stdin=theirs.fileno())
        connection = http.client.HTTPConnection("a")
        connection.sock = ours
        assert ask(connection, "/scope")["client"] == list(client)
        connection.close()
        ours.close()
        assert server.wait() == 0


def test_output_of_the_application_does_not_reach_the_client_of_inetd(serve: Starter) -> None:
    # inetd gives the connection as all three standard descriptors.
    ours, theirs = socket.socketpair()
    with ours, theirs:
        server = serve("behaviour:app", "--fd", "0", bind=False, stdin=theirs.fileno(), stderr=theirs.fileno())
        theirs.close()
        ours.settimeout(PATIENCE)
        ours.sendall(b"GET /log?x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answer = receive(ours)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"\r\n\r\nlogged")
    assert server.wait() == 0


@pytest.fixture
def datagram() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        yield sock


def test_a_datagram_socket_is_refused_by_name_and_kind(datagram: socket.socket, serve: Starter) -> None:
    server = serve("behaviour:app", "--fd", "0", bind=False, ready=False, stdin=datagram.fileno(), expected=3)
    assert server.wait() == 3
    assert "fd 0 (fd0): a datagram socket" in server.record(event="listen_failed")["message"]


def test_a_descriptor_that_is_no_socket_is_refused_with_what_it_is(serve: Starter) -> None:
    server = serve("behaviour:app", "--fd", "0", bind=False, ready=False, expected=3)
    assert server.wait() == 3
    message = server.record(event="listen_failed")["message"]
    assert message == "fd 0 (fd0): not a socket but a character device (/dev/null)"


def test_a_descriptor_that_is_not_open_is_refused(serve: Starter) -> None:
    server = serve("behaviour:app", "-b", "fd://77", bind=False, ready=False, expected=3)
    assert server.wait() == 3
    assert server.record(event="listen_failed")["message"] == "fd 77 (fd77): not open"


def test_a_socket_that_neither_listens_nor_is_connected_is_refused(serve: Starter) -> None:
    with socket.socket() as idle:
        server = serve("behaviour:app", "--fd", "0", bind=False, ready=False, stdin=idle.fileno(), expected=3)
        assert server.wait() == 3
    assert "neither listening nor connected" in server.record(event="listen_failed")["message"]


# --- LISTEN_FDS -------------------------------------------------------------------------------------------------------


def test_inherited_sockets_take_the_roles_of_their_names(serve: Starter, tmp_path: Path) -> None:
    control = str(tmp_path / "control.sock")
    with listening() as one, listening(socket.AF_UNIX, control) as two:
        # The order over several socket units is undefined: the control socket comes first here.
        server = serve("behaviour:app", **handed("control:http", two, one))
        assert get_from(one) == (200, b"hello")
        assert json.loads(get_from(two)[1])["server"] == "appserver"
        status, body = get_from(two, "/status")
    assert (status, json.loads(body)["state"]) == (200, "serving")
    assert server.access("/")["listener"] == "http"
    # What operators ask is no traffic.
    assert not any(record.get("http_target") == "/status" for record in server.records)


def test_all_inherited_sockets_are_served_without_names(serve: Starter, tmp_path: Path) -> None:
    with listening() as one, listening(socket.AF_UNIX, str(tmp_path / "web.sock")) as two:
        serve("behaviour:app", **handed("", one, two))
        assert get_from(one) == get_from(two) == (200, b"hello")


def test_the_application_does_not_inherit_the_variables(serve: Starter) -> None:
    with listening() as listener:
        server = serve("environment:app", **handed("http", listener))
        with server.browser() as browser:
            names = browser.get("/").json()
    assert "PATH" in names
    assert not [name for name in names if name.startswith("LISTEN_")]


def test_a_bind_can_pick_an_inherited_socket_by_name_and_says_which_it_leaves(serve: Starter) -> None:
    with listening() as one, listening() as two:
        server = serve("behaviour:app", "-b", "fd://http", **handed("spare:http", one, two))
        assert get_from(two) == (200, b"hello")
        assert "spare (fd 3) is not used" in server.record(event="socket_ignored")["message"]


def test_a_name_that_nobody_handed_over_is_refused_with_those_that_there_are(serve: Starter) -> None:
    with listening() as listener:
        options = handed("https", listener)
        server = serve("behaviour:app", "-b", "fd://http", **options, ready=False, expected=3)
        assert server.wait() == 3
    message = server.record(event="listen_failed")["message"]
    assert message == "fd://http: no inherited socket has that name; there are: https"


def test_sockets_of_another_process_are_ignored_and_said(serve: Starter) -> None:
    with listening() as listener:
        options = handed("http", listener, pid="1") | {"bind": True}
        server = serve("behaviour:app", **options)
        assert server.listeners != [f"http://127.0.0.1:{listener.getsockname()[1]}"]
        assert server.get("/") == (200, b"hello")
    assert server.record(event="socket_ignored")["message"].startswith("LISTEN_FDS ignored: it is for process '1'")


def test_an_inherited_datagram_socket_is_refused(datagram: socket.socket, serve: Starter) -> None:
    server = serve("behaviour:app", **handed("http", datagram), ready=False, expected=3)
    assert server.wait() == 3
    assert "fd 3 (http): a datagram socket" in server.record(event="listen_failed")["message"]


def test_systemd_itself_hands_over_a_socket(serve: Starter, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    # It starts the program on the first connection, and keeps only the variables that it is told to.
    kept = [name for name in (*clean_environment(), "NOTIFY_SOCKET") if name.startswith(("COVERAGE", "NOTIFY"))]
    options = [f"--setenv={name}" for name in kept]
    activate = ["systemd-socket-activate", "--fdname=http", f"--listen={path}", *options]
    server = serve("behaviour:app", command=[*activate, *COMMAND], bind=False, ready=False)
    server.until(lambda: "Listening on" in server.stderr or None, "the socket")
    assert get(UnixConnection(path), "/") == (200, b"hello")
    server.told("READY", "1")
    assert server.access("/")["listener"] == "http"


def test_systemd_itself_hands_over_a_connection(tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    activate = ["systemd-socket-activate", "--accept", "--inetd", f"--listen={path}"]
    # It stays and starts one process a connection, so it is not a server that ends with 0.
    words = [*activate, *COMMAND, "behaviour:app", "--app-dir", str(Path(__file__).parents[1] / "apps"), "--fd", "0"]
    manager = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=clean_environment())
    with manager:
        assert manager.stderr is not None
        try:
            assert "Listening on" in manager.stderr.readline()
            assert [get(UnixConnection(path), "/") for _ in range(2)] == [(200, b"hello")] * 2
        finally:
            manager.terminate()


# --- sockets of our own -----------------------------------------------------------------------------------------------


def test_tcp_and_unix_are_served_at_once(serve: Starter, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    server = serve("behaviour:app", "-b", "127.0.0.1:0", "-b", f"unix:{path}", "-b", f"unix:@{path}", bind=False)
    assert server.get("/") == (200, b"hello")
    with closing(UnixConnection(path)) as connection:
        scope = ask(connection, "/scope")
    assert (scope["server"], scope["client"]) == ([str(path), None], None)
    with closing(UnixConnection(f"@{path}")) as connection:
        assert ask(connection, "/scope")["server"] == [f"@{path}", None]
    assert server.record(http_target="/scope")["client_addr"] == "unix"


def test_ipv4_and_ipv6_are_served_together_on_one_port(serve: Starter) -> None:
    with listening() as free:
        port = free.getsockname()[1]
    server = serve("behaviour:app", "-b", f"0.0.0.0:{port}", "-b", f"[::]:{port}", bind=False)
    assert server.listeners == [f"http://0.0.0.0:{port}", f"http://[::]:{port}"]
    for host in ("127.0.0.1", "::1"):
        with closing(http.client.HTTPConnection(host, port, timeout=PATIENCE)) as connection:
            assert ask(connection, "/scope")["client"][0] == host


def test_a_unix_socket_has_the_mode_0660_and_is_removed_at_exit(serve: Starter, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    server = serve("behaviour:app", "--uds", path, bind=False)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert [entry.name for entry in tmp_path.glob("*.sock*")] == ["web.sock"]
    server.stop()
    assert not path.exists()


def test_a_unix_socket_gets_mode_and_group_as_told(serve: Starter, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    group = grp.getgrgid(os.getgroups()[-1] if os.getgroups() else os.getgid())
    serve("behaviour:app", "--uds", path, "--uds-mode", "0600", "--uds-group", group.gr_name, bind=False)
    status = path.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o600, group.gr_gid)


def test_a_stale_unix_socket_is_replaced(serve: Starter, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    with listening(socket.AF_UNIX, str(path)):
        pass
    assert path.is_socket()
    serve("behaviour:app", "--uds", path, bind=False)
    assert get(UnixConnection(path), "/") == (200, b"hello")


def test_a_live_unix_socket_is_refused_and_left_alone(serve: Starter, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    first = serve("behaviour:app", "--uds", path, bind=False)
    second = serve("behaviour:app", "--uds", path, bind=False, ready=False, expected=3)
    assert second.wait() == 3
    message = second.record(event="listen_failed")["message"]
    other = f"another process (PID {first.process.pid})"
    assert message == f"unix:{path}: {other} is listening there; stop it, or choose another path"
    assert get(UnixConnection(path), "/") == (200, b"hello")


def test_a_file_that_is_no_socket_is_not_touched(serve: Starter, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    path.write_text("mine")
    server = serve("behaviour:app", "--uds", path, bind=False, ready=False, expected=3)
    assert server.wait() == 3
    assert path.read_text() == "mine"


def test_a_socket_that_another_process_made_at_our_path_is_not_removed(serve: Starter, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    server = serve("behaviour:app", "--uds", path, bind=False)
    path.unlink()
    with listening(socket.AF_UNIX, str(path)):
        server.stop()
        assert path.is_socket()


# --- the control socket -----------------------------------------------------------------------------------------------


def test_appserverctl_asks_the_control_socket(serve: Starter, tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    server = serve("behaviour:app", "--control", f"unix:{path}", tracebacks=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    connection = server.connect()
    assert get(server.connect(), "/exit")[0] == 500
    ask(connection, "/whoami")
    ended = run("status", "--json", "--control", path, program="appserverctl")
    assert ended.returncode == 0
    report = json.loads(ended.stdout)
    expected = {"state": "serving", "application": "behaviour:app", "lifespan": False, "connections": 1}
    expected |= {"requests": 0, "answered": 2, "failed": 1, "refused": 0}
    assert expected.items() <= report.items()
    connection.close()
    table = run("status", "--control", f"unix:{path}", program="appserverctl")
    assert (table.returncode, table.stderr) == (0, "")
    assert ["state", "serving"] in [line.split() for line in table.stdout.splitlines()]
    server.stop()
    assert not path.exists()
    assert run("status", "--control", path, program="appserverctl").returncode == 3


def test_a_probe_is_told_that_the_server_drains(serve: Starter, tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    server = serve("behaviour:app", "--control", f"unix:{path}", "--graceful-timeout", "20")
    assert get(UnixConnection(path), "/readyz")[0] == 200
    connection = server.connect()
    connection.request("GET", "/wait?seconds=1")
    server.record(message="begun")
    server.send_signal(15)
    server.told("STOPPING", "1")
    assert get(UnixConnection(path), "/readyz")[0] == 503
    assert get(UnixConnection(path), "/livez")[0] == 200
    assert connection.getresponse().status == 200
    connection.close()
