"""Workers that have done enough are succeeded by others, and a service that nobody uses ends."""

import os
import signal
import socket
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.integration.servers import PATIENCE, Starter, listening
from tests.integration.test_sockets import get_from, handed
from tests.integration.test_workers import Begin, begin, hold
from tests.integration.workers import Crew, eventually, is_alive

__all__ = ["begin"]


def load(crew: Crew, stop: threading.Event, lost: list[str]) -> None:
    """One client that keeps its connection until it is told that it ends."""
    connection = crew.server.connect()
    while not stop.is_set():
        try:
            connection.request("GET", "/")
            response = connection.getresponse()
            response.read()
            if response.status != 200:
                lost.append(str(response.status))
            if response.will_close:
                connection.close()
        except OSError as error:
            lost.append(repr(error))
            connection.close()
    connection.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--max-requests", "50", "--max-requests-jitter", "20"), "--max-requests"),
        (("--max-age", "6"), "--max-age"),
        (("--max-memory", "1M"), "--max-memory"),
    ],
    ids=["requests", "age", "memory"],
)
def test_a_worker_that_has_done_enough_is_succeeded_without_a_lost_request(
    options: tuple[str, ...], said: str, begin: Begin
) -> None:
    crew = begin("behaviour:app", 2, "--no-access-log", *options)
    before = crew.pids()
    stop, lost = threading.Event(), list[str]()
    clients = [threading.Thread(target=load, args=(crew, stop, lost)) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        eventually(lambda: not any(map(is_alive, before)) and len(crew.pids()) == 2, "two others")
    finally:
        stop.set()
        for client in clients:
            client.join()
    assert lost == []
    assert said in crew.server.record(worker_pid=min(before), level="info")["message"]
    assert crew.report()["workers_lost"] == 0
    assert crew.server.process.poll() is None


def test_a_limit_that_every_worker_exceeds_is_no_storm(begin: Begin) -> None:
    crew = begin("behaviour:app", 2, "--max-memory", "1M")
    eventually(lambda: crew.report()["uptime"] > 9, "nine seconds")
    replaced = [record for record in crew.server.records if "is replaced" in record["message"]]
    assert 1 <= len(replaced) <= 3


def test_a_worker_is_not_succeeded_while_the_one_before_it_still_answers(begin: Begin) -> None:
    crew = begin("behaviour:app", 1, "--max-memory", "1M")
    (first,) = crew.settle(1)
    with closing(hold(crew.server, "/wait?seconds=8")) as waiting:
        os.kill(first, signal.SIGTERM)
        assert waiting.getresponse().read() == b"waited"
    assert [record for record in crew.server.records if "is replaced" in record["message"]] == []
    crew.server.until(lambda: [one for one in crew.server.records if "is replaced" in one["message"]] or None, "now")


def test_a_single_process_that_has_answered_enough_ends_well(serve: Starter) -> None:
    server = serve("behaviour:app", "--max-requests", "3")
    for _ in range(3):
        assert server.get("/")[0] == 200
    assert server.wait() == 0
    assert "--max-requests" in server.record(event="stopping")["message"]


@pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["single", "workers"])
def test_a_service_that_nobody_uses_ends_and_leaves_its_socket(workers: tuple[str, ...], serve: Starter) -> None:
    with listening() as listener:
        server = serve("behaviour:app", "--idle-exit", "2", *workers, **handed("http", listener))
        assert get_from(listener) == (200, b"hello")
        assert server.wait() == 0
        assert "--idle-exit" in server.record(event="stopping")["message"]
        # What comes now waits for the next process.
        with socket.create_connection(listener.getsockname(), timeout=PATIENCE):
            pass


@pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["single", "workers"])
def test_the_first_signal_is_no_second_one_where_a_service_leaves_by_itself_already(
    workers: tuple[str, ...], serve: Starter
) -> None:
    with listening() as listener:
        variables = {"STARTUP_SECONDS": "1.5"}
        server = serve(
            "startup:slow_shutdown", "--idle-exit", "1", *workers, variables=variables, **handed("http", listener)
        )
        assert "--idle-exit" in server.record(event="stopping")["message"]
        assert server.stop() == 0
        assert [record["message"] for record in server.records].count("shut down") == max(1, len(workers))


@pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["single", "workers"])
def test_a_start_is_no_time_in_which_nobody_came(workers: tuple[str, ...], serve: Starter) -> None:
    with listening() as listener:
        variables = {"STARTUP_SECONDS": "2.5"}
        server = serve("startup:slow", "--idle-exit", "1", *workers, variables=variables, **handed("http", listener))
        ready = server.told("READY", "1")
        stopping = server.told("STOPPING", "1")
        assert stopping.at - ready.at > 0.9
        assert server.wait() == 0


def test_a_reload_changes_when_a_service_that_nobody_uses_ends(serve: Starter, tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text('idle_exit = "1h"\n')
    with listening() as listener:
        server = serve("behaviour:app", "--workers", "1", "--config", settings, **handed("http", listener))
        settings.write_text('idle_exit = "1s"\n')
        server.send_signal(signal.SIGHUP)
        server.record(event="reloaded")
        assert server.wait() == 0
        assert "no connection for 1 s" in server.record(event="stopping")["message"]


def test_idle_exit_without_a_service_manager_is_a_doubt(serve: Starter) -> None:
    server = serve("behaviour:app", "--idle-exit", "1")
    assert "--idle-exit has no effect" in server.record(level="warning")["message"]


def test_a_descriptor_from_a_manager_that_only_holds_the_socket_is_nothing_to_leave_for(serve: Starter) -> None:
    """Supervisor's fcgi-program starts nothing for the next connection."""
    with listening() as listener:
        server = serve("behaviour:app", "--fd", "0", "--idle-exit", "1", bind=False, stdin=listener.fileno())
        assert "--idle-exit has no effect" in server.record(level="warning")["message"]
        time.sleep(1.5)
        assert get_from(listener) == (200, b"hello")
