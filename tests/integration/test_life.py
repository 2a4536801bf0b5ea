"""The life of a process as its service manager and its clients see it: ready, serving, draining, stopped."""

import http.client
import signal
import socket
import time
from contextlib import ExitStack, closing
from itertools import pairwise
from pathlib import Path
from time import monotonic

import pytest

from tests.integration.servers import PATIENCE, Server, Starter, UnixConnection, ask, get, listening, receive

STOPS = [signal.SIGTERM, signal.SIGINT]


def begin(server: Server, target: str) -> http.client.HTTPConnection:
    """Send a request and wait until the application has it."""
    connection = server.connect()
    connection.request("GET", target)
    server.record(message="begun")
    return connection


# --- start ------------------------------------------------------------------------------------------------------------


def test_ready_is_said_after_a_slow_startup_and_nothing_is_served_before(serve: Starter) -> None:
    with listening() as listener, socket.create_connection(listener.getsockname(), timeout=PATIENCE) as early:
        server = serve(
            "startup:slow",
            *("--fd", str(listener.fileno())),
            bind=False,
            ready=False,
            pass_fds=[listener.fileno()],
            variables={"STARTUP_SECONDS": "4"},
        )
        server.record(message="starting")
        early.sendall(b"GET /scope HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        asked = monotonic()
        assert not any("READY" in message.fields for message in server.notified.messages)
        ready = server.told("READY", "1")
        assert ready.at > asked
        assert ready.fields["STATUS"] == "Serving: 0 connections, 0 requests in flight, 0 answered, 0 failed"
        # It waited in the backlog meanwhile, and gets the state that the startup made.
        assert b'"pool": "filled"' in receive(early)


def test_the_state_of_the_startup_is_each_requests_own_copy(serve: Starter) -> None:
    server = serve("startup:good")
    with closing(server.connect()) as connection:
        states = [ask(connection, "/scope")["state"] for _ in range(2)]
    assert [state["pool"] for state in states] == ["filled", "filled"]
    assert states[0]["request_id"] != states[1]["request_id"]
    server.stop()
    server.record(message="shut down")


@pytest.mark.parametrize(
    ("app", "cause"),
    [
        ("startup:failing", "RuntimeError: no database"),
        ("startup:exiting", "SystemExit: 0"),
        ("startup:refusing", "no database"),
    ],
)
def test_a_startup_that_fails_is_exit_code_3_and_told(app: str, cause: str, serve: Starter) -> None:
    server = serve(app, ready=False, expected=3, tracebacks=True)
    assert server.wait() == 3
    record = server.record(event="application_failed", level="critical")
    assert cause in record["message"] + record.get("traceback", "")
    assert f"startup failed: {cause}" in server.told("EXIT_STATUS", "3").fields["STATUS"]
    assert not any("READY" in message.fields for message in server.notified.messages)


def test_a_setting_that_is_wrong_is_told_too(serve: Starter) -> None:
    server = serve("behaviour:app", "--keep-alive", "soon", ready=False, expected=2)
    assert server.wait() == 2
    assert server.told("EXIT_STATUS", "2").fields["STATUS"].startswith("--keep-alive: 'soon': expected a time")


def test_lifespan_on_refuses_an_application_without_it(serve: Starter) -> None:
    server = serve("behaviour:app", "--lifespan", "on", ready=False, expected=3, tracebacks=True)
    assert server.wait() == 3
    assert "does not support lifespan" in server.record(event="application_failed")["message"]


def test_lifespan_off_starts_nothing(serve: Starter) -> None:
    assert serve("startup:failing", "--lifespan", "off").get("/") == (200, b"hello")


@pytest.mark.parametrize("stop", STOPS)
def test_a_signal_during_the_import_is_a_clean_stop(stop: signal.Signals, serve: Starter) -> None:
    server = serve("slow_import:app", ready=False)
    server.record(message="importing")
    assert server.stop(stop) == 0
    server.record(event="stopped")


@pytest.mark.parametrize("stop", STOPS)
def test_a_signal_during_the_startup_is_a_clean_stop(stop: signal.Signals, serve: Starter) -> None:
    server = serve("startup:hanging", ready=False)
    server.record(message="starting")
    assert server.stop(stop) == 0
    server.record(event="stopped")


STOPPED_WHILE_IT_TELLS = """
import os, signal, sys

def look(frame, event, _):
    if (event, frame.f_code.co_name) == ("call", "failed"):
        os.kill(os.getpid(), signal.SIGTERM)

sys.setprofile(look)
import nothing_at_all
"""


@pytest.mark.parametrize("workers", [(), ("--workers", "1"), ("--workers", "1", "--preload")], ids=" ".join)
def test_a_stop_while_a_failed_start_is_told_changes_neither_what_is_told_nor_the_exit_code(
    workers: tuple[str, ...], serve: Starter, tmp_path: Path
) -> None:
    (tmp_path / "shop.py").write_text(STOPPED_WHILE_IT_TELLS)
    server = serve("shop:app", *workers, "--app-dir", tmp_path, ready=False, expected=3, tracebacks=True)
    assert server.wait() == 3
    assert "nothing_at_all" in server.told("EXIT_STATUS", "3").fields["STATUS"]
    assert server.stderr.count("Traceback") == 1


def test_a_shutdown_that_fails_is_told_and_changes_no_exit_code(serve: Starter) -> None:
    server = serve("startup:failing_shutdown", tracebacks=True)
    assert server.stop() == 0
    assert "RuntimeError: no database" in server.record(event="application_failed")["traceback"]


# --- serving ----------------------------------------------------------------------------------------------------------


def test_status_has_live_figures(serve: Starter) -> None:
    server = serve("behaviour:app", tracebacks=True)
    with closing(server.connect()) as waiting, closing(server.connect()) as idle:
        waiting.sock.sendall(b"POST /attend HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n")
        ask(idle, "/whoami")
        server.get("/fail")
        assert server.status("2 connections, 1 request in flight, 2 answered, 1 failed").startswith("Serving: ")
        waiting.sock.sendall(b"x")
        receive(waiting.sock, lambda data: data.endswith(b"waited"))
    server.status("0 connections, 0 requests in flight, 3 answered, 1 failed")


def test_the_watchdog_is_told_from_the_event_loop(serve: Starter) -> None:
    server = serve("behaviour:app", variables={"WATCHDOG_USEC": "400000"})
    told = [server.told("WATCHDOG", "1")]
    for _ in range(5):
        told.append(server.told("WATCHDOG", "1", after=told[-1].at))
    # The soonest of some, because others may want the processor for a while.
    assert min(later.at - earlier.at for earlier, later in pairwise(told)) < 0.4
    began = monotonic()
    assert server.get("/block?seconds=1")[0] == 200
    ended = monotonic()
    last = server.told("WATCHDOG", "1", after=ended)
    beats = [message.at for message in server.notified.messages if "WATCHDOG" in message.fields]
    # While the loop is blocked nobody says that it is well.
    during = [(earlier, later) for earlier, later in pairwise(beats) if earlier < ended and later > began]
    assert max(later - earlier for earlier, later in during) > 0.8
    assert last.at == during[-1][1]


def test_the_watchdog_of_another_process_is_not_fed(serve: Starter) -> None:
    server = serve("behaviour:app", variables={"WATCHDOG_USEC": "100000", "WATCHDOG_PID": "1"})
    server.get("/wait?seconds=0.5")
    assert not any("WATCHDOG" in message.fields for message in server.notified.messages)


def test_the_loop_goes_on_after_an_application_that_blocks_it(serve: Starter) -> None:
    server = serve("behaviour:app")
    with closing(begin(server, "/block?seconds=1")) as blocking, closing(server.connect()) as other:
        other.request("GET", "/")
        assert blocking.getresponse().status == 200
        assert other.getresponse().read() == b"hello"


def test_sys_exit_in_a_request_is_an_answer_500_and_no_end(serve: Starter) -> None:
    server = serve("behaviour:app", tracebacks=True)
    assert server.get("/exit")[0] == 500
    assert server.get("/") == (200, b"hello")
    assert server.record(event="application_error")["exception_type"] == "SystemExit"


def test_serving_goes_on_when_the_service_manager_has_gone(serve: Starter) -> None:
    server = serve("behaviour:app", variables={"WATCHDOG_USEC": "200000"})
    server.notified.close()
    # Long enough for some messages that nobody takes.
    assert server.get("/wait?seconds=1.2") == (200, b"waited")
    assert server.stop() == 0


def test_an_abstract_notify_socket_is_told_too(serve: Starter, tmp_path: Path) -> None:
    server = serve("behaviour:app", notify=f"@{tmp_path}/notify")
    server.stop()
    server.told("STOPPING", "1")


# --- draining ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", STOPS)
def test_a_request_of_3_seconds_is_answered_before_the_end(stop: signal.Signals, serve: Starter) -> None:
    server = serve("startup:good")
    with closing(begin(server, "/wait?seconds=3")) as connection:
        server.send_signal(stop)
        stopping = server.told("STOPPING", "1")
        assert "Draining: 1 connection, 1 request in flight" in stopping.fields["STATUS"]
        # Each buys time from the manager before the last one is used up.
        extended = server.told("EXTEND_TIMEOUT_USEC", after=stopping.at)
        again = server.told("EXTEND_TIMEOUT_USEC", after=extended.at)
        assert again.at - extended.at < int(extended.fields["EXTEND_TIMEOUT_USEC"]) / 1_000_000
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, b"waited")
        assert response.headers["connection"] == "close"
    assert server.wait() == 0
    assert server.record(event="stopped")["requests_cut"] == 0
    # In this order: the lifespan's shutdown has everything behind it.
    messages = [record["message"] for record in server.records]
    assert messages.index("shut down") > next(i for i, text in enumerate(messages) if text.startswith("GET /wait"))


def test_an_idle_connection_gets_one_more_answer_while_draining(serve: Starter) -> None:
    server = serve("behaviour:app", "--linger", "20")
    with closing(server.connect()) as connection:
        ask(connection, "/whoami")
        server.send_signal(signal.SIGTERM)
        server.told("STOPPING", "1")
        connection.request("GET", "/")
        response = connection.getresponse()
        assert (response.read(), response.headers["connection"]) == (b"hello", "close")
    assert server.wait() == 0


def test_an_idle_connection_that_asks_nothing_more_is_closed_after_the_linger_time(serve: Starter) -> None:
    server = serve("behaviour:app", "--linger", "0.3")
    with closing(server.connect()) as connection:
        ask(connection, "/whoami")
        asked = monotonic()
        assert server.stop() == 0
        assert 0.3 <= monotonic() - asked < 15  # and not the graceful timeout
        assert connection.sock.recv(1) == b""


def test_what_waits_in_the_backlog_of_a_socket_of_our_own_is_answered(serve: Starter) -> None:
    server = serve("behaviour:app")
    with ExitStack() as stack:
        blocking = stack.enter_context(closing(begin(server, "/block?seconds=1")))
        # The loop is blocked: it learns of the connections and of the signal at the same time.
        waiting = [stack.enter_context(closing(server.connect())) for _ in range(16)]
        for connection in waiting:
            connection.request("GET", "/")
        server.send_signal(signal.SIGTERM)
        assert blocking.getresponse().status == 200
        assert [connection.getresponse().read() for connection in waiting] == [b"hello"] * len(waiting)
    assert server.wait() == 0


def test_the_backlog_of_an_inherited_socket_is_left_to_the_next_process(serve: Starter) -> None:
    with listening() as listener:
        fd = listener.fileno()
        options = {"bind": False, "pass_fds": [fd]}
        first = serve("behaviour:app", "--fd", str(fd), **options)  # type: ignore[arg-type]
        with closing(begin(first, "/wait?seconds=1")) as running:
            first.send_signal(signal.SIGTERM)
            first.told("STOPPING", "1")
            with closing(first.connect()) as late:
                late.request("GET", "/whoami")
                assert running.getresponse().status == 200
                assert first.wait() == 0
                second = serve("behaviour:app", "--fd", str(fd), **options)  # type: ignore[arg-type]
                assert str(second.process.pid).encode() in late.getresponse().read()


def test_a_second_signal_stops_at_once(serve: Starter) -> None:
    server = serve("behaviour:app", expected=4)
    with closing(begin(server, "/wait?seconds=60")) as connection:
        server.send_signal(signal.SIGTERM)
        server.told("STOPPING", "1")
        second = monotonic()
        assert server.stop(signal.SIGTERM) == 4
        assert monotonic() - second < 15  # and not the graceful timeout
        assert connection.getresponse().status == 503
    assert server.record(event="drain_cut")["requests_cut"] == 1


def test_at_the_deadline_what_has_not_begun_its_answer_gets_503(serve: Starter) -> None:
    server = serve("behaviour:app", "--graceful-timeout", "0.5", expected=4)
    with closing(begin(server, "/wait?seconds=60")) as connection:
        server.send_signal(signal.SIGTERM)
        assert connection.getresponse().status == 503
    assert server.wait() == 4
    assert "the graceful timeout has passed" in server.record(event="drain_cut")["message"]


def test_at_the_deadline_an_answer_that_has_begun_is_cut_so_that_it_shows(serve: Starter) -> None:
    server = serve("behaviour:app", "--graceful-timeout", "0.5", expected=4)
    with closing(begin(server, "/stream?seconds=60")) as connection:
        server.send_signal(signal.SIGTERM)
        response = connection.getresponse()
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            response.read()
    assert server.wait() == 4


def test_an_application_that_ignores_its_cancellation_does_not_keep_the_process(serve: Starter) -> None:
    server = serve("behaviour:app", "--graceful-timeout", "0.3", expected=4)
    with closing(begin(server, "/ignore-cancellation?seconds=60")) as connection:
        assert server.stop() == 4
        server.record(message="not now")
        assert connection.getresponse().status == 503


def test_a_thread_that_an_application_leaves_behind_does_not_keep_the_process(serve: Starter) -> None:
    server = serve("behaviour:app")
    assert server.get("/thread") == (200, b"started")
    assert server.stop() == 0
    assert "for threads of the application: " in server.record(level="warning")["message"]


def test_a_second_signal_does_not_wait_for_such_a_thread(serve: Starter) -> None:
    server = serve("behaviour:app")
    assert server.get("/thread") == (200, b"started")
    server.send_signal(signal.SIGTERM)
    server.record(message="Stopped")
    time.sleep(0.5)  # nothing tells of it, but nothing is left to do then
    assert server.stop() == 0


@pytest.mark.parametrize("stop", STOPS)
def test_signals_up_to_the_very_end_do_not_change_the_exit_code(stop: signal.Signals, serve: Starter) -> None:
    server = serve("behaviour:app")
    while not server.ended:
        server.send_signal(stop)
        time.sleep(0.001)
    assert server.wait() == 0


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_sys_exit_in_what_an_application_has_left_running_does_not_change_the_exit_code(
    loop: str, serve: Starter
) -> None:
    server = serve("behaviour:app", "--loop", loop, tracebacks=True)
    assert server.get("/leave-behind") == (200, b"started")
    assert server.stop() == 0
    assert server.record(message="put away")


def test_a_signal_while_the_loop_is_blocked_is_taken_when_it_turns_again(serve: Starter) -> None:
    server = serve("behaviour:app")
    with closing(begin(server, "/block?seconds=1")) as connection:
        server.send_signal(signal.SIGINT)
        assert connection.getresponse().status == 200
    assert server.wait() == 0


def test_sighup_ends_nothing(serve: Starter) -> None:
    server = serve("behaviour:app")
    server.send_signal(signal.SIGHUP)
    server.record(level="warning")
    assert server.get("/") == (200, b"hello")


def test_a_client_that_goes_away_is_told_to_the_application_and_no_error(serve: Starter, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    server = serve("behaviour:app", "--uds", path, bind=False)
    with closing(UnixConnection(path)) as connection:
        connection.connect()
        connection.sock.sendall(b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
        # The request has reached the application once the server reads on.
        assert get(UnixConnection(path), "/") == (200, b"hello")
    server.record(message="disconnected")
    assert not [record for record in server.records if record["level"] in ("error", "critical")]
