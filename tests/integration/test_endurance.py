"""What applications and clients do that must not harm the process, nor any other request."""

import fcntl
import http.client
import json
import os
import signal
import socket
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from appserver.net.connection import PATIENCE
from tests.integration.servers import Server, Starter, UnixConnection, ask, get, receive

RESET = struct.pack("ii", 1, 0)


def begin(server: Server, target: str) -> http.client.HTTPConnection:
    """Send a request and wait until the application has it."""
    connection = server.connect()
    connection.request("GET", target)
    server.record(message="begun")
    return connection


def reset(connection: http.client.HTTPConnection) -> None:
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    connection.close()


def faults(server: Server) -> list[dict[str, Any]]:
    return [record for record in server.records if record["level"] in ("error", "critical") or "traceback" in record]


# --- the event loop ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize(("target", "status"), [("/exit-in-task", 500), ("/stop-loop", 200)])
def test_an_application_that_ends_the_loop_ends_nothing_else(
    target: str, status: int, loop: str, serve: Starter
) -> None:
    server = serve("astray:app", "--loop", loop, tracebacks=True)
    with closing(begin(server, "/wait?seconds=0.3")) as other:
        assert server.get(target)[0] == status
        assert other.getresponse().read() == b"waited"
    server.record(message="The application tried to stop the event loop", event="application_error")
    assert server.get("/") == (200, b"hello")
    assert server.stop() == 0
    assert server.record(event="stopped")["requests_cut"] == 0


def test_a_lifespan_that_does_not_hear_the_shutdown_lets_the_process_stop(serve: Starter) -> None:
    server = serve("astray:deaf")
    server.send_signal(signal.SIGTERM)
    server.told("STOPPING", "1")
    # Its shutdown has ten seconds. A loop that turns takes a second signal meanwhile.
    assert server.stop(timeout=9) == 0
    assert "shutdown did not end in time" in server.record(event="drain_cut")["message"]


def test_a_request_that_never_stops_to_ask_for_more_blocks_nobody(serve: Starter) -> None:
    server = serve("astray:app", "--graceful-timeout", "0.3")
    reset(begin(server, "/spin"))
    server.record(message="spinning")
    assert [server.get("/") for _ in range(3)] == [(200, b"hello")] * 3
    assert server.stop() == 0


# --- the scope --------------------------------------------------------------------------------------------------------


def test_a_scope_that_the_application_tears_is_answered_and_recorded_whole(serve: Starter) -> None:
    server = serve("astray:app")
    assert server.get("/torn-scope") == (200, b"torn")
    record = server.access("/torn-scope")
    assert (record["client_addr"], record["http_status"], record["bytes_sent"]) == ("127.0.0.1", 200, 4)
    assert record["request_id"]


def test_a_scope_that_the_application_tears_leaks_no_connection(serve: Starter, tmp_path: Path) -> None:
    control = tmp_path / "control.sock"
    server = serve("astray:app", "--control", f"unix:{control}")
    reset(begin(server, "/torn-scope-and-wait"))
    record = server.record(http_target="/torn-scope-and-wait", outcome="client_gone")
    assert record["client_addr"] == "127.0.0.1"
    with closing(UnixConnection(control)) as connection:
        report = ask(connection, "/status")
    assert (report["connections"], report["requests"], report["answered"]) == (0, 0, 1)
    assert faults(server) == []


# --- clients that go --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("go", [http.client.HTTPConnection.close, reset])
def test_a_client_that_leaves_a_stream_is_no_error_of_the_framework(go: Any, serve: Starter) -> None:
    server = serve("starlette_app:app")
    connection = server.connect()
    connection.request("GET", "/endless")
    with connection.getresponse() as response:
        assert response.read(5) == b"more\n"
        go(connection)
    server.record(http_target="/endless", outcome="client_gone")
    server.record(message="client gone")
    assert server.stop() == 0
    assert faults(server) == []


def test_a_client_that_half_closed_is_answered_by_who_listens_for_its_going(serve: Starter) -> None:
    server = serve("astray:app", "--linger", "0")
    with closing(server.connect()) as connection:
        connection.request("GET", "/attend")
        connection.sock.shutdown(socket.SHUT_WR)
        answer = receive(connection.sock)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"\r\n\r\nworked")
    assert server.access("/attend")["duration_us"] >= 500_000


def test_a_long_poll_hears_of_a_half_closed_client_after_a_while(serve: Starter) -> None:
    server = serve("astray:app", "--linger", "0")
    with closing(begin(server, "/poll")) as connection:
        asked = monotonic()
        connection.sock.shutdown(socket.SHUT_WR)
        server.record(message="heard")
        assert monotonic() - asked >= PATIENCE
        server.record(http_target="/poll", outcome="client_gone")
        assert receive(connection.sock) == b""
    assert faults(server) == []


# --- what operators see and say ---------------------------------------------------------------------------------------


@pytest.fixture
def unread() -> Iterator[int]:
    """The writing end of a small pipe that is open and that nobody reads."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    yield writing
    os.close(writing)
    os.close(reading)


def test_a_log_that_nobody_reads_stops_neither_serving_nor_the_stop(
    unread: int, serve: Starter, tmp_path: Path
) -> None:
    path = tmp_path / "web.sock"
    server = serve("behaviour:app", "--uds", path, bind=False, stderr=unread)
    begun = monotonic()
    assert {get(UnixConnection(path), "/log?x") for _ in range(60)} == {(200, b"logged")}
    assert monotonic() - begun < 30  # one line has waited for a second, and the 300 others have not
    assert server.stop() == 0


def test_probes_tell_a_process_that_starts_from_one_that_is_not_there(serve: Starter, tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    server = serve("startup:slow", "--control", f"unix:{path}", ready=False, variables={"STARTUP_SECONDS": "4"})
    server.record(message="starting")
    status, body = get(UnixConnection(path), "/readyz")
    assert (status, json.loads(body)) == (503, {"ready": False, "state": "starting", "drained": False})
    assert get(UnixConnection(path), "/livez")[0] == 200
    assert not any("READY" in message.fields for message in server.notified.messages)
    server.told("READY", "1")
    assert get(UnixConnection(path), "/readyz")[0] == 200


def test_an_operators_field_gives_way_to_the_applications_own(serve: Starter) -> None:
    server = serve("behaviour:app", "--header", "Content-Type: text/html", "--header", "X-Frame-Options: DENY")
    with closing(server.connect()) as connection:
        connection.request("GET", "/")
        headers = connection.getresponse().headers
    assert headers.get_all("content-type") == ["text/plain"]
    assert headers.get_all("x-frame-options") == ["DENY"]
