"""Several workers under a master: started, watched, replaced, and ended together."""

import http.client
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Issuer
from tests.integration.servers import PATIENCE, Server, Starter, UnixConnection, get, listening, run
from tests.integration.test_sockets import get_from, handed
from tests.integration.workers import Crew, Process, count_fds, eventually, find_children, is_alive

Begin = Callable[..., Crew]


@pytest.fixture
def begin(serve: Starter, tmp_path: Path) -> Begin:
    """Starts a master with workers and a control socket."""
    control = tmp_path / "control.sock"

    def start(app: str, workers: int | str, *arguments: str | Path, **options: Any) -> Crew:
        variables = {"SHOP_FOLDER": str(tmp_path), **options.pop("variables", {})}
        words = ("--workers", str(workers), "--control", f"unix:{control}", *arguments)
        return Crew(serve(app, *words, variables=variables, **options), control)

    return start


def starts(folder: Path) -> int:
    """How many workers of tests/apps/several.py have run their startup."""
    return sum(1 for _ in folder.glob("start-*"))


def hold(server: Server, target: str = "") -> http.client.HTTPConnection:
    """Send a request and wait until an application has it; without a target one that `let_go` ends."""
    begun = sum(record["message"] == "begun" for record in server.records)
    connection = server.connect()
    if target:
        connection.request("GET", target)
    else:
        connection.putrequest("POST", "/attend")
        connection.putheader("Content-Length", "1")
        connection.endheaders()
    server.until(
        lambda: sum(record["message"] == "begun" for record in server.records) > begun or None, "the request has begun"
    )
    return connection


def let_go(connection: http.client.HTTPConnection) -> http.client.HTTPResponse:
    """The answer to a request that is held."""
    connection.send(b"x")
    return connection.getresponse()


def events(server: Server, name: str) -> list[dict[str, Any]]:
    return [record for record in server.records if record.get("event") == name]


# --- start ------------------------------------------------------------------------------------------------------------


def test_each_of_three_workers_serves(begin: Begin) -> None:
    crew = begin("behaviour:app", 3)
    assert crew.answering(3) == crew.settle(3)
    assert crew.server.record(event="ready")["workers"] == 3
    # Of their own starts nothing is told: the service is one.
    assert len(events(crew.server, "ready")) == 1
    crew.assert_tidy()


def test_ready_is_said_when_the_slowest_has_started(begin: Begin) -> None:
    crew = begin("several:one_slow", 3, ready=False, variables={"SHOP_SECONDS": "5"})
    began = time.monotonic()
    eventually(lambda: crew.control.exists() and len(crew.pids()) == 2, "two workers that are quick")
    assert not any("READY" in message.fields for message in crew.server.notified.messages)
    assert crew.report()["state"] == "starting"
    assert get(UnixConnection(crew.control), "/readyz")[0] == 503
    ready = crew.server.told("READY", "1")
    assert ready.at - began > 1
    # The service manager is asked for the time that it takes.
    assert any("EXTEND_TIMEOUT_USEC" in one.fields for one in crew.server.notified.messages if one.at < ready.at)
    assert ready.fields["STATUS"].startswith("Serving: 3 of 3 workers, ")
    assert get(UnixConnection(crew.control), "/readyz")[0] == 200


def test_one_worker_is_a_master_and_a_worker(begin: Begin) -> None:
    crew = begin("behaviour:app", 1)
    assert crew.answering(1) == crew.settle(1)
    assert crew.pid not in crew.settle(1)


def test_auto_is_a_worker_for_each_cpu(begin: Begin) -> None:
    crew = begin("behaviour:app", "auto")
    assert 1 <= len(crew.pids()) <= len(os.sched_getaffinity(0))


def test_the_number_may_stand_in_the_environment(serve: Starter) -> None:
    server = serve("behaviour:app", variables={"WEB_CONCURRENCY": "2"})
    assert server.record(event="ready")["workers"] == 2
    assert len(find_children(server.process.pid)) == 2


@pytest.mark.parametrize("number", ["0", "-1", "many", "513", "1.5"])
def test_a_number_that_cannot_be_is_a_usage_error(number: str) -> None:
    ended = run("behaviour:app", f"--workers={number}")
    assert ended.returncode == 2
    assert "expected a number from 1 to 512, or auto" in ended.stderr


def test_a_broken_application_is_exit_code_3_and_told_once(begin: Begin) -> None:
    crew = begin("broken_import:app", 4, ready=False, expected=3, tracebacks=True)
    assert crew.server.wait() == 3
    assert len(events(crew.server, "application_failed")) == 1
    assert crew.server.stderr.count("Traceback") == 1
    assert not any("READY" in message.fields for message in crew.server.notified.messages)
    told = crew.server.told("EXIT_STATUS", "3")
    reason = "before it was ready: broken_import:app: importing it raised"
    assert told.fields["STATUS"].startswith(f"Not started: a worker ended with exit code 3 {reason}")
    # That is what `systemctl status` goes on to show.
    last = [message.fields["STATUS"] for message in crew.server.notified.messages if "STATUS" in message.fields][-1]
    assert last == told.fields["STATUS"]


def test_a_startup_that_fails_is_exit_code_3_and_told_once(begin: Begin) -> None:
    crew = begin("startup:failing", 3, ready=False, expected=3, tracebacks=True)
    assert crew.server.wait() == 3
    assert crew.server.stderr.count("no database") == 3  # the message, and the first and last line of one traceback
    assert crew.server.stderr.count("Traceback") == 1


def test_workers_that_are_late_to_start_are_the_end_of_a_first_start(begin: Begin, tmp_path: Path) -> None:
    crew = begin(
        "several:slow",
        2,
        *("--timeout-worker-start", "1"),
        ready=False,
        expected=3,
        variables={"SHOP_SECONDS": "60"},
    )
    assert crew.server.wait() == 3
    assert "did not start in time" in crew.server.told("EXIT_STATUS", "3").fields["STATUS"]
    assert "did not start in time" in events(crew.server, "worker_failed")[0]["message"]


def test_a_worker_whose_import_hangs_is_told_of_with_the_line(begin: Begin, tmp_path: Path) -> None:
    (tmp_path / "stands.py").write_text("import time\ntime.sleep(600)\n")
    words = ("--app-dir", tmp_path, "--timeout-worker-start", "1")
    crew = begin("stands:app", 1, *words, ready=False, expected=3)
    assert crew.server.wait() == 3
    [told] = events(crew.server, "worker_failed")
    assert told["message"].endswith(f"it was not ready, and stood at {tmp_path}/stands.py:2 in <module>")
    assert "stands.py" in told["stacks"]


def test_a_signal_that_reopens_logs_ends_nobody(begin: Begin) -> None:
    crew = begin("behaviour:app", 1)
    [pid] = crew.settle(1)
    crew.server.send_signal(signal.SIGUSR1)
    os.kill(pid, signal.SIGUSR1)
    assert "no log is reopened" in crew.server.record(level="warning")["message"]
    assert crew.server.get("/") == (200, b"hello")
    assert crew.settle(1) == {pid}


@pytest.mark.parametrize("app", ["slow_import:app", "startup:hanging"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_the_start_is_a_clean_stop(app: str, number: signal.Signals, begin: Begin) -> None:
    crew = begin(app, 2, ready=False)
    crew.server.until(
        lambda: sum(record["message"] in ("importing", "starting") for record in crew.server.records) == 2 or None,
        "two workers that start",
    )
    assert crew.server.stop(number) == 0


def test_a_signal_to_all_during_the_start_is_a_clean_stop_also_where_the_workers_are_quicker(begin: Begin) -> None:
    crew = begin("startup:hanging", 2, ready=False)
    starting = crew.server.until(
        lambda: sum(record["message"] == "starting" for record in crew.server.records) == 2 or None, "two workers"
    )
    assert starting
    workers = [child.pid for child in find_children(crew.pid)]
    crew.server.send_signal(signal.SIGSTOP)
    for pid in (*workers, crew.pid):
        os.kill(pid, signal.SIGTERM)
    eventually(lambda: not any(is_alive(pid) for pid in workers), "the end of the workers")
    crew.server.send_signal(signal.SIGCONT)
    assert crew.server.wait() == 0


def test_a_worker_that_is_lost_before_all_have_started_is_the_end_of_a_first_start(
    begin: Begin, tmp_path: Path
) -> None:
    (tmp_path / "go").touch()
    crew = begin("several:crashing_beside_slow", 2, ready=False, expected=3, variables={"SHOP_SECONDS": "30"})
    assert crew.server.wait(25) == 3
    assert "as soon as it was ready" in crew.server.told("EXIT_STATUS", "3").fields["STATUS"]
    assert starts(tmp_path) <= 2  # the other one may not have come so far


def has_ended(pid: int) -> bool:
    """Whether it can be waited for (pidfd_open(2)); it may be another's child."""
    descriptor = os.pidfd_open(pid)
    try:
        return bool(select.select([descriptor], [], [], 0)[0])
    finally:
        os.close(descriptor)


@contextmanager
def standing_still(crew: Crew, workers: int) -> Iterator[None]:
    """The master stands still once it has so many workers, and goes on when all of them have ended."""
    eventually(lambda: len(find_children(crew.pid)) == workers, f"{workers} workers")
    crew.server.send_signal(signal.SIGSTOP)
    try:
        yield
        # Not by the state: a process of several threads is called a zombie before the last of them has ended.
        eventually(lambda: all(has_ended(child.pid) for child in find_children(crew.pid)), "the end of the workers")
    finally:
        crew.server.send_signal(signal.SIGCONT)


def test_a_worker_that_ends_as_soon_as_it_is_ready_is_the_end_of_a_first_start(begin: Begin, tmp_path: Path) -> None:
    """Its readiness and its end are heard in one turn of the master's loop."""
    (tmp_path / "go").touch()
    crew = begin("several:crashing", 1, ready=False, expected=3)
    with standing_still(crew, 1):
        pass
    assert crew.server.wait() == 3
    assert "as soon as it was ready" in crew.server.told("EXIT_STATUS", "3").fields["STATUS"]


def test_a_reload_whose_worker_ends_as_soon_as_it_is_ready_fails(begin: Begin, tmp_path: Path) -> None:
    crew = begin("several:crashing", 1)
    crew.server.send_signal(signal.SIGHUP)
    with standing_still(crew, 2):
        eventually(lambda: starts(tmp_path) == 2, "the startup of the second")
        (tmp_path / "go").touch()
    (tmp_path / "mended").touch()
    assert "as soon as it was ready" in crew.server.record(event="reload_failed")["message"]
    crew.settle(1)
    assert crew.server.get("/") == (200, b"hello")


# --- workers that end -------------------------------------------------------------------------------------------------


def test_a_worker_that_is_killed_is_replaced_while_the_others_serve(begin: Begin) -> None:
    crew = begin("behaviour:app", 2)
    pids = crew.settle(2)
    victim = min(pids)
    with closing(crew.server.connect()) as kept:
        kept.request("GET", "/whoami")
        held = json.loads(kept.getresponse().read())["pid"]
        victim = (pids - {held}).pop()
        os.kill(victim, signal.SIGKILL)
        killed = time.monotonic()
        lost = crew.server.record(event="worker_lost")
        kept.request("GET", "/whoami")
        assert json.loads(kept.getresponse().read())["pid"] == held
    assert lost["worker_pid"] == victim
    assert "SIGKILL" in lost["message"]
    assert held in crew.settle(2, without=victim)
    assert time.monotonic() - killed < 15
    assert crew.report()["workers_lost"] == 1
    crew.assert_tidy()


def test_twenty_workers_killed_leave_no_zombie_and_no_descriptor(begin: Begin) -> None:
    # Those that live shorter than ten seconds wait for each other: many workers, so that each is lost seldom.
    crew = begin("behaviour:app", 7)
    begun = count_fds(crew.pid)
    for lost in range(0, 21, 7):
        for pid in crew.settle(7):
            os.kill(pid, signal.SIGKILL)
        crew.until_lost(lost + 7)
    crew.settle(7)
    crew.assert_tidy()
    # The connection that has asked the control socket may take a moment to close.
    eventually(lambda: count_fds(crew.pid) <= begun, "descriptors as before")
    assert crew.server.get("/") == (200, b"hello")


def test_an_application_that_crashes_after_its_start_makes_no_storm(begin: Begin, tmp_path: Path) -> None:
    crew = begin("several:crashing", 2)
    (tmp_path / "go").touch()
    crew.server.record(event="worker_lost")
    time.sleep(5)
    # At once, after half a second, after one, after two: each of the two was started five times or six.
    assert starts(tmp_path) <= 14
    eventually(lambda: starts(tmp_path) >= 6, "six starts")
    # As soon as it is mended a reload is all it takes, and what had been planned before is forgotten.
    (tmp_path / "mended").touch()
    assert run("reload", "--control", f"unix:{crew.control}", program="appserverctl").returncode == 0
    time.sleep(5)
    crew.settle(2)
    assert {worker["generation"] for worker in crew.report()["workers"]} == {2}
    assert crew.server.get("/") == (200, b"hello")


def test_an_application_that_leaves_after_its_start_makes_no_storm(begin: Begin, tmp_path: Path) -> None:
    crew = begin("several:leaving", 1)
    (tmp_path / "go").touch()
    time.sleep(5)
    assert starts(tmp_path) <= 7
    eventually(lambda: starts(tmp_path) >= 3, "three starts")
    (tmp_path / "mended").touch()
    crew.settle(1)


def test_a_worker_told_to_stop_by_an_operator_drains_and_is_replaced(begin: Begin) -> None:
    crew = begin("behaviour:app", 2)
    pids = crew.settle(2)
    with closing(hold(crew.server)) as waiting:
        busy = eventually(
            lambda: next((worker["pid"] for worker in crew.report()["workers"] if worker["requests"]), None), "busy"
        )
        os.kill(busy, signal.SIGTERM)
        # The other one takes its place before it has gone.
        eventually(lambda: len(crew.pids()) == 2 and busy in crew.pids("leaving"), "a successor")
        assert let_go(waiting).read() == b"waited"
    assert crew.settle(2) & pids == pids - {busy}
    assert crew.report()["workers_lost"] == 0
    assert events(crew.server, "worker_lost") == []


def test_a_worker_that_ends_by_itself_at_once_is_not_called_lost(begin: Begin) -> None:
    crew = begin("behaviour:app", 3)
    for pid in crew.settle(3):
        os.kill(pid, signal.SIGTERM)  # idle, so the word of it and its end are nearly one
    eventually(lambda: len(find_children(crew.pid)) >= 3 and crew.settle(3), "three others")
    assert crew.report()["workers_lost"] == 0


# --- workers that hang ------------------------------------------------------------------------------------------------


def test_a_worker_that_hangs_is_explained_and_replaced_while_the_other_serves(begin: Begin) -> None:
    crew = begin("behaviour:app", 2, "--timeout-worker", "3")
    crew.settle(2)
    with closing(hold(crew.server, "/block?seconds=60")) as hung:
        hung_at, answered = time.monotonic(), 0
        while not events(crew.server, "worker_hung"):
            # The other one answers; what the hung one has accepted is its own.
            with closing(crew.server.connect()) as other:
                other.sock.settimeout(1)
                other.request("GET", "/")
                with suppress(TimeoutError, ConnectionError):
                    assert other.getresponse().status == 200
                    answered += 1
            assert time.monotonic() - hung_at < PATIENCE
        assert answered > 3
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            hung.getresponse()
    told = crew.server.record(event="worker_hung")
    assert "/behaviour.py:" in told["message"]
    assert told["message"].endswith(" in block")
    assert told["stacks"].count("most recent call first") >= 1
    assert "in block" in told["stacks"]
    crew.settle(2, without=told["worker_pid"])
    assert crew.report()["workers_lost"] == 1
    crew.assert_tidy()


def test_all_threads_of_a_worker_that_hangs_are_told(begin: Begin) -> None:
    crew = begin("behaviour:app", 1, "--timeout-worker", "3")
    assert crew.server.get("/thread")[0] == 200
    with closing(hold(crew.server, "/block?seconds=60")):
        told = crew.server.record(event="worker_hung")
    # The application's two, and the one that looks who blocks.
    assert told["stacks"].count("most recent call first") == 3
    assert "threading.py" in told["stacks"]
    assert "/behaviour.py:" in told["message"]
    crew.settle(1)


def test_a_worker_that_is_stopped_is_replaced(begin: Begin) -> None:
    crew = begin("behaviour:app", 2, "--timeout-worker", "3")
    victim = min(crew.settle(2))
    os.kill(victim, signal.SIGSTOP)
    told = crew.server.record(event="worker_hung")
    assert told["worker_pid"] == victim
    crew.settle(2, without=victim)
    crew.assert_tidy()


def test_a_master_that_stood_still_blames_nobody_and_keeps_nobody_waiting(begin: Begin) -> None:
    crew = begin("behaviour:app", 2, "--timeout-worker", "4")
    pids = crew.settle(2)
    crew.server.send_signal(signal.SIGSTOP)
    try:
        # Long enough for its queue of notifications to be full.
        end = time.monotonic() + 8
        while time.monotonic() < end:
            assert crew.server.get("/")[0] == 200
            time.sleep(0.05)
    finally:
        crew.server.send_signal(signal.SIGCONT)
    time.sleep(1)
    assert crew.settle(2) == pids
    assert events(crew.server, "worker_hung") == []


def test_the_watchdog_is_fed_but_for_the_time_that_a_worker_hangs(begin: Begin) -> None:
    crew = begin("behaviour:app", 2, "--timeout-worker", "3", variables={"WATCHDOG_USEC": "1000000"})
    crew.settle(2)
    told = [crew.server.told("WATCHDOG", "1")]
    for _ in range(5):
        told.append(crew.server.told("WATCHDOG", "1", after=told[-1].at))
    # The soonest of some, because others may want the processor for a while.
    assert min(later.at - earlier.at for earlier, later in pairwise(told)) < 1
    victim = min(crew.pids())
    os.kill(victim, signal.SIGSTOP)
    stopped = time.monotonic()
    replaced = crew.server.record(event="worker_hung")
    assert replaced["worker_pid"] == victim
    crew.settle(2, without=victim)
    crew.server.told("WATCHDOG", "1", after=time.monotonic())
    beats = [message.at for message in crew.server.notified.messages if "WATCHDOG" in message.fields]
    # It hangs for the second that it has to tell where it stands.
    assert max(later - earlier for earlier, later in pairwise(beats) if later > stopped) > 0.9


# --- more and fewer ---------------------------------------------------------------------------------------------------


def test_sigttin_and_sigttou_are_one_more_and_one_less(begin: Begin) -> None:
    crew = begin("behaviour:app", 1)
    first = crew.settle(1)
    crew.server.send_signal(signal.SIGTTIN)
    assert first < crew.settle(2)
    crew.server.send_signal(signal.SIGTTOU)
    assert crew.settle(1) == first
    # There is always one.
    crew.server.send_signal(signal.SIGTTOU)
    crew.server.status("1 of 1 worker")
    assert crew.settle(1) == first
    crew.assert_tidy()


def test_one_more_while_a_reload_runs_is_one_more_after_it(begin: Begin, tmp_path: Path) -> None:
    crew = begin("several:one_slow", 2, variables={"SHOP_SECONDS": "1"})
    old = crew.settle(2)
    (tmp_path / "slow").unlink()
    crew.server.send_signal(signal.SIGHUP)
    crew.server.told("RELOADING", "1")
    crew.server.send_signal(signal.SIGTTIN)
    crew.server.record(event="reloaded")
    assert not crew.settle(3) & old


def test_fewer_and_more_while_all_crash_is_no_more_than_was_wanted(begin: Begin, tmp_path: Path) -> None:
    crew = begin("several:crashing", 2)
    (tmp_path / "go").touch()
    crew.server.until(lambda: len(events(crew.server, "worker_lost")) >= 6 or None, "six that are lost")
    for number, count in [(signal.SIGTTOU, 1), (signal.SIGTTIN, 2)] * 3:
        crew.server.send_signal(number)
        eventually(lambda count=count: crew.report()["workers_wanted"] == count, f"{count} wanted")  # type: ignore[misc]
    (tmp_path / "mended").touch()
    time.sleep(5)
    crew.settle(2)


# --- stop -------------------------------------------------------------------------------------------------------------


def test_a_stop_answers_what_runs_and_refuses_what_comes(begin: Begin) -> None:
    crew = begin("behaviour:app", 2)
    pids = crew.settle(2)
    with closing(hold(crew.server)) as waiting:
        crew.server.send_signal(signal.SIGTERM)
        crew.server.told("STOPPING", "1")

        def refused() -> bool:
            try:
                socket.create_connection(crew.server.address).close()
            except ConnectionRefusedError:
                return True
            return False

        # A connection that is taken by nobody would wait until the end, and then be reset.
        eventually(refused, "refusal")
        crew.server.status("Draining: 1 worker left, 1 request in flight")
        response = let_go(waiting)
        assert (response.status, response.getheader("connection")) == (200, "close")
        assert response.read() == b"waited"
    assert crew.server.wait() == 0
    assert not any(is_alive(pid) for pid in pids)
    assert not crew.control.exists()


def test_a_stop_that_all_processes_are_told_of_cuts_nothing(begin: Begin) -> None:
    """systemd signals all of a service, and the master its workers too."""
    crew = begin("behaviour:app", 2)
    pids = crew.settle(2)
    with closing(hold(crew.server)) as waiting:
        crew.server.send_signal(signal.SIGTERM)
        crew.server.status("Draining: 1 worker left, 1 request in flight")
        for pid in pids:
            with suppress(ProcessLookupError):  # the one without a request
                os.kill(pid, signal.SIGTERM)
        response = let_go(waiting)
        assert (response.status, response.read()) == (200, b"waited")
    assert crew.server.wait() == 0


def test_workers_of_a_killed_master_that_are_told_to_stop_cut_nothing(begin: Begin) -> None:
    crew = begin("behaviour:app", 2, expected=-signal.SIGKILL)
    pids = crew.settle(2)
    with closing(hold(crew.server)) as waiting:
        crew.server.send_signal(signal.SIGKILL)
        crew.server.record(message="Stopping: the master is gone")
        for pid in pids:
            with suppress(ProcessLookupError):  # the one without a request
                os.kill(pid, signal.SIGTERM)
        response = let_go(waiting)
        assert (response.status, response.read()) == (200, b"waited")
    eventually(lambda: not any(is_alive(pid) for pid in pids), "the end of the workers")


def test_a_second_signal_cuts_what_runs_and_is_exit_code_4(begin: Begin) -> None:
    crew = begin("behaviour:app", 2, expected=4)
    with closing(hold(crew.server, "/wait?seconds=60")) as waiting:
        crew.server.send_signal(signal.SIGTERM)
        crew.server.told("STOPPING", "1")
        time.sleep(0.3)
        assert crew.server.stop(signal.SIGTERM) == 4
        with suppress(http.client.HTTPException, ConnectionError):
            assert waiting.getresponse().status >= 500
    assert crew.server.record(event="drain_cut")["requests_cut"] == 1


def test_a_second_signal_with_nothing_to_cut_is_a_clean_end(begin: Begin) -> None:
    crew = begin("behaviour:app", 2)
    crew.server.send_signal(signal.SIGTERM)
    crew.server.told("STOPPING", "1")
    crew.server.send_signal(signal.SIGTERM)
    assert crew.server.wait() == 0


def test_the_graceful_timeout_cuts_and_is_exit_code_4(begin: Begin) -> None:
    crew = begin("behaviour:app", 2, "--graceful-timeout", "1", expected=4)
    with closing(hold(crew.server, "/wait?seconds=60")):
        assert crew.server.stop() == 4


def test_a_worker_that_hangs_when_the_stop_begins_is_a_cut(begin: Begin) -> None:
    crew = begin("behaviour:app", 2, "--timeout-worker", "2", expected=4)
    with closing(hold(crew.server, "/block?seconds=60")):
        eventually(lambda: crew.pids("hung"), "a worker that hangs")
        assert crew.server.stop() == 4


def test_a_worker_that_hangs_while_it_leaves_is_explained_and_killed_after_a_second_signal(begin: Begin) -> None:
    crew = begin("behaviour:app", 2, expected=4)
    with closing(hold(crew.server, "/block?seconds=60")):
        crew.server.send_signal(signal.SIGTERM)
        crew.server.told("STOPPING", "1")
        assert crew.server.stop(signal.SIGTERM) == 4
    told = crew.server.record(event="worker_hung")
    assert "was killed, it did not leave: it stands at " in told["message"]
    assert "in block" in told["stacks"]


def test_two_signals_at_once_are_two(begin: Begin) -> None:
    """The master hears of both in one turn, before it has told any worker to leave."""
    crew = begin("behaviour:app", 2, expected=4)
    with closing(hold(crew.server, "/wait?seconds=60")):
        crew.server.send_signal(signal.SIGSTOP)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCONT):
            crew.server.send_signal(number)
        assert crew.server.wait() == 4
    crew.server.record(event="drain_cut", requests_cut=1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_up_to_the_very_end_do_not_change_the_exit_code(number: signal.Signals, begin: Begin) -> None:
    crew = begin("behaviour:app", 1)
    while not crew.server.ended:
        crew.server.send_signal(number)
        time.sleep(0.001)
    assert crew.server.wait() == 0


def test_ctrl_c_in_a_terminal_answers_what_runs(begin: Begin) -> None:
    leader = [sys.executable, "-c", "import os, sys; os.setsid(); os.execvp(sys.argv[1], sys.argv[1:])"]
    crew = begin("behaviour:app", 2, command=[*leader, sys.executable, "-m", "appserver"])
    pids = crew.settle(2)
    with closing(hold(crew.server, "/wait?seconds=1")) as waiting:
        # The kernel signals the whole group in the foreground; not the master alone.
        assert Process(crew.pid).group == crew.pid
        os.killpg(crew.pid, signal.SIGINT)
        crew.server.told("STOPPING", "1")
        assert waiting.getresponse().read() == b"waited"
    assert crew.server.wait() == 0
    assert not any(is_alive(pid) for pid in pids)


@pytest.mark.parametrize("app", ["behaviour:app", "startup:slow"])
def test_a_stop_during_a_reload_is_clean(app: str, begin: Begin) -> None:
    crew = begin(app, 2, variables={"STARTUP_SECONDS": "1"})
    crew.settle(2)
    crew.server.send_signal(signal.SIGHUP)
    crew.server.told("RELOADING", "1")
    time.sleep(0.2)
    assert crew.server.stop() == 0
    assert find_children(crew.pid) == []


def test_who_waits_for_a_reload_is_told_of_the_stop(begin: Begin, tmp_path: Path) -> None:
    (tmp_path / "mended").touch()
    crew = begin("several:slow", 1, variables={"SHOP_SECONDS": "60"})
    (tmp_path / "mended").unlink()
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(run, "reload", "--control", f"unix:{crew.control}", program="appserverctl")
        crew.server.told("RELOADING", "1")
        assert crew.server.stop() == 0
    assert asked.result().returncode == 3
    assert "the server is draining" in asked.result().stderr
    assert [record for record in crew.server.records if record["level"] == "error"] == []


def test_when_the_master_is_killed_its_workers_answer_what_runs_and_end(begin: Begin) -> None:
    crew = begin("behaviour:app", 2, expected=-signal.SIGKILL)
    pids = crew.settle(2)
    with closing(hold(crew.server)) as waiting:
        address = crew.server.address
        crew.server.process.kill()

        def refused() -> bool:
            try:
                socket.create_connection(address).close()
            except ConnectionRefusedError:
                return True
            return False

        # Nothing of theirs keeps a successor from the address.
        eventually(refused, "refusal")
        assert let_go(waiting).read() == b"waited"
    eventually(lambda: not any(is_alive(pid) for pid in pids), "the end of the workers")
    crew.server.record(message="Stopping: the master is gone")


def test_workers_that_start_end_as_well_when_the_master_is_killed(begin: Begin) -> None:
    crew = begin("startup:slow", 2, ready=False, expected=-signal.SIGKILL, variables={"STARTUP_SECONDS": "1"})
    crew.server.until(
        lambda: sum(record["message"] == "starting" for record in crew.server.records) == 2 or None, "two that start"
    )
    pids = [child.pid for child in find_children(crew.pid)]
    assert len(pids) == 2
    crew.server.process.kill()
    eventually(lambda: not any(is_alive(pid) for pid in pids), "the end of the workers")


def test_an_import_that_hangs_ends_when_the_master_is_killed(begin: Begin) -> None:
    crew = begin("slow_import:app", 1, ready=False, expected=-signal.SIGKILL)
    crew.server.record(message="importing")
    (child,) = find_children(crew.pid)
    crew.server.process.kill()
    eventually(lambda: not is_alive(child.pid), "the end of the worker")


def test_retired_workers_do_not_keep_the_address(begin: Begin) -> None:
    crew = begin("behaviour:app", 1)
    with closing(hold(crew.server)) as waiting:
        crew.server.send_signal(signal.SIGHUP)
        crew.server.record(event="reloaded")
        crew.server.send_signal(signal.SIGTERM)
        crew.server.told("STOPPING", "1")

        def bound() -> bool:
            with closing(socket.socket()) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    sock.bind(crew.server.address)
                    sock.listen()
                except OSError:
                    return False
                return True

        eventually(bound, "the address is free")
        assert let_go(waiting).read() == b"waited"
    assert crew.server.wait() == 0


# --- sockets ----------------------------------------------------------------------------------------------------------


def test_several_addresses_of_several_kinds(begin: Begin, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    crew = begin(
        "behaviour:app", 2, "-b", "127.0.0.1:0", "-b", f"unix:{path}", "-b", "unix:@" + tmp_path.name, bind=False
    )
    assert crew.server.get("/") == (200, b"hello")
    for address in (str(path), "@" + tmp_path.name):
        assert get(UnixConnection(address), "/") == (200, b"hello")
    # A worker that is replaced does not take the path along, and neither does a reload.
    victim = min(crew.settle(2))
    os.kill(victim, signal.SIGTERM)
    crew.settle(2, without=victim)
    crew.server.send_signal(signal.SIGHUP)
    crew.server.record(event="reloaded")
    crew.settle(2)
    for _ in range(5):
        assert get(UnixConnection(path), "/") == (200, b"hello")
    assert crew.server.stop() == 0
    assert not path.exists()


def test_a_socket_that_is_handed_over_is_served_by_all_and_left_open(begin: Begin) -> None:
    with listening() as listener:
        crew = begin("behaviour:app", 2, **handed("http", listener))
        crew.settle(2)
        for _ in range(8):
            assert get_from(listener) == (200, b"hello")
        assert crew.server.stop() == 0
        # It is the service manager's: who comes now waits for the next process.
        with socket.create_connection(listener.getsockname(), timeout=PATIENCE):
            pass


def test_fd_0_is_served_by_all(begin: Begin) -> None:
    with listening() as listener:
        crew = begin("behaviour:app", 2, "--fd", "0", bind=False, stdin=listener.fileno())
        crew.settle(2)
        for _ in range(8):
            assert get_from(listener) == (200, b"hello")


def test_one_connection_that_is_handed_over_is_nothing_for_several(begin: Begin) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        crew = begin("behaviour:app", 2, "--fd", "0", bind=False, stdin=theirs.fileno(), ready=False, expected=3)
        assert crew.server.wait() == 3
        assert "--workers has none to share" in crew.server.stderr


def test_workers_speak_tls(begin: Begin, tmp_path: Path) -> None:
    issuer = Issuer()
    pair = issuer.issue(tmp_path / "a.pem", "127.0.0.1")
    crew = begin("behaviour:app", 2, "--tls-cert", pair.certificate, "--tls-key", pair.key)
    crew.settle(2)
    for _ in range(8):
        connection = http.client.HTTPSConnection(*crew.server.address, timeout=PATIENCE, context=issuer.client())
        assert get(connection, "/") == (200, b"hello")


# --- what operators see -----------------------------------------------------------------------------------------------


def test_the_status_sums_over_all_workers_and_those_before(begin: Begin) -> None:
    crew = begin("behaviour:app", 2)
    crew.settle(2)
    for _ in range(10):
        crew.server.get("/")
    crew.server.status("10 answered, 0 failed")
    report = eventually(lambda: (found := crew.report())["answered"] == 10 and found, "ten answers")
    assert sum(worker["answered"] for worker in report["workers"]) == 10
    assert (report["state"], report["workers_wanted"], report["generation"]) == ("serving", 2, 1)
    assert report["listeners"] == crew.server.listeners[:1]
    crew.server.get("/")
    crew.server.send_signal(signal.SIGHUP)
    crew.server.record(event="reloaded")
    crew.settle(2)
    # Not one is forgotten with the workers that have gone.
    eventually(lambda: crew.report()["answered"] == 11, "eleven answers")
    assert crew.report()["reloads"] == 1


def test_appserverctl_shows_workers(begin: Begin) -> None:
    crew = begin("behaviour:app", 2)
    pids = crew.settle(2)
    shown = run("status", "--control", f"unix:{crew.control}", program="appserverctl")
    assert shown.returncode == 0
    assert all(f"pid {pid}  state serving  generation 1" in shown.stdout for pid in pids)
    told = run("status", "--json", "--control", f"unix:{crew.control}", program="appserverctl")
    assert {worker["pid"] for worker in json.loads(told.stdout)["workers"]} == pids


def test_nobody_else_can_reach_the_line_between_master_and_worker(begin: Begin) -> None:
    """It has no name, and the children of a worker do not inherit it."""
    crew = begin("environment:app", 1)
    (pid,) = crew.settle(1)
    names = Path("/proc/net/unix").read_text()
    assert f"@appserver-{crew.pid}" not in names
    # What the application says to a service manager is not for its master.
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & set(json.loads(crew.server.get("/")[1]))
    variables = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"NOTIFY_SOCKET" not in variables


def test_the_application_sees_nothing_of_the_master(begin: Begin) -> None:
    crew = begin("environment:app", 1, variables={"SHOP_COLOUR": "red"})
    names = json.loads(crew.server.get("/")[1])
    assert "SHOP_COLOUR" in names
    assert [name for name in names if name.startswith("APPSERVER_")] == []


def test_the_flags_of_the_interpreter_are_the_workers_too(begin: Begin) -> None:
    flags = ["-O", "-Wignore::UserWarning", "-X", "utf8"]
    crew = begin("behaviour:app", 1, command=[sys.executable, *flags, "-m", "appserver"])
    (pid,) = crew.settle(1)
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    assert set(flags) <= set(words[: words.index("-m")])


def test_without_workers_a_reload_is_refused_in_words(serve: Starter, tmp_path: Path) -> None:
    control = tmp_path / "control.sock"
    serve("behaviour:app", "--control", f"unix:{control}")
    ended = run("reload", "--control", f"unix:{control}", program="appserverctl")
    assert ended.returncode == 3
    assert "there is no reload: a single process has no workers" in ended.stderr
