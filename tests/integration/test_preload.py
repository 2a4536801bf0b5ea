"""--preload: the application is imported once, by a process that forks workers; they are workers like all others."""

import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.servers import APPS, COMMAND, Starter, run
from tests.integration.test_workers import events, hold, starts
from tests.integration.workers import Crew, eventually, find_children, is_alive

Begin = Callable[..., Crew]

MODEL: Final = 100
"""MiB."""

SHOP: Final = f"""
import sys
sys.path.append({str(APPS)!r})
from behaviour import answer, app as behave

async def app(scope, receive, send):
    if scope["type"] == "http" and scope["path"] == "/version":
        await answer(send, b"VERSION")
    else:
        await behave(scope, receive, send)
"""


@pytest.fixture
def begin(serve: Starter, tmp_path: Path) -> Begin:
    """Starts a master with workers that are forked, and a control socket."""
    control = tmp_path / "control.sock"

    def start(workers: int | None, *arguments: str | Path, app: str = "preloaded:app", **options: Any) -> Crew:
        variables = {"SHOP_FOLDER": str(tmp_path), **options.pop("variables", {})}
        number = () if workers is None else ("--workers", str(workers))
        words = ("--preload", *number, "--control", f"unix:{control}", *arguments)
        return Crew(serve(app, *words, variables=variables, **options), control)

    return start


def imports(folder: Path) -> int:
    """How often tests/apps/preloaded.py was imported."""
    return sum(1 for _ in folder.glob("import-*"))


def find_preloader(crew: Crew) -> int:
    (preloader,) = crew.report()["preloaders"]
    pid: int = preloader["pid"]
    return pid


def chances(crew: Crew, count: int) -> dict[int, dict[str, Any]]:
    """What so many workers have drawn, by their pids."""
    found: dict[int, dict[str, Any]] = {}

    def ask() -> bool:
        status, body = crew.server.get("/chances")
        assert status == 200
        told = json.loads(body)
        found.setdefault(told["pid"], told)
        return len(found) == count

    eventually(ask, f"answers of {count} workers")
    return found


# --- what is shared ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_the_application_is_imported_once_and_started_in_each_worker(loop: str, begin: Begin, tmp_path: Path) -> None:
    crew = begin(3, "--loop", loop)
    pids = crew.settle(3)
    assert (imports(tmp_path), starts(tmp_path)) == (1, 3)
    told = chances(crew, 3)
    assert set(told) == pids
    assert {one["imported_by"] for one in told.values()} == {find_preloader(crew)}
    # Copies draw numbers of their own, also for the ids of requests.
    for drawn in zip(*(one["drawn"] for one in told.values()), strict=True):
        assert len(set(drawn)) == 3
    # Children of the master, each in a group of its own and with a name to be told apart by.
    assert {(child.pid, child.group) for child in find_children(crew.pid)} >= {(pid, pid) for pid in pids}
    names = {Path(f"/proc/{pid}/comm").read_text().strip() for pid in pids}
    assert names == {"appserver 1.1", "appserver 1.2", "appserver 1.3"}
    assert [b"uvloop" in Path(f"/proc/{pid}/maps").read_bytes() for pid in pids] == [loop == "uvloop"] * 3
    crew.assert_tidy()
    # Of an import that leaves nothing behind nothing is said.
    assert [record for record in crew.server.records if record["level"] == "warning"] == []
    assert crew.server.stop() == 0
    # What was printed and not yet written is not written again by each.
    assert (tmp_path / "output").read_text() == "imported\n"


def test_four_workers_with_a_large_model_take_little_more_memory_than_one(begin: Begin, tmp_path: Path) -> None:
    def measure(workers: int) -> int:
        """PSS of all processes, in MiB, when each worker has read the model."""
        crew = begin(workers, variables={"SHOP_MODEL": str(MODEL)})
        serving, read = crew.settle(workers), set[int]()

        def ask() -> bool:
            read.add(json.loads(crew.server.get("/read")[1])["pid"])
            return read == serving

        eventually(ask, "each worker has read it")
        pids = serving | {crew.pid, find_preloader(crew)}
        told = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids]
        assert crew.server.stop() == 0
        return sum(int(size) for text in told for size in re.findall(r"^Pss: +(\d+) kB", text, re.MULTILINE)) // 1024

    one, four = measure(1), measure(4)
    print(f"PSS of one worker {one} MiB, of four {four} MiB")
    assert one > MODEL
    assert four < 1.5 * one  # 1.3 with 300 MiB: docs/workers.md


# --- replaced ---------------------------------------------------------------------------------------------------------


def test_a_worker_that_ends_or_is_killed_is_replaced_without_another_import(begin: Begin, tmp_path: Path) -> None:
    crew = begin(2)
    first = min(crew.settle(2))
    os.kill(first, signal.SIGKILL)
    second = min(crew.settle(2, without=first))
    told = crew.server.record(event="worker_lost", worker_pid=first)
    assert "was killed by SIGKILL" in told["message"]
    os.kill(second, signal.SIGABRT)
    crew.settle(2, without=second)
    assert "was killed by SIGABRT" in crew.server.record(event="worker_lost", worker_pid=second)["message"]
    # One that is told to leave is none that is lost.
    third = max(crew.pids())
    os.kill(third, signal.SIGTERM)
    crew.settle(2, without=third)
    crew.server.send_signal(signal.SIGTTIN)
    crew.settle(3)
    assert crew.report()["workers_lost"] == 2
    assert imports(tmp_path) == 1
    crew.assert_tidy()


def test_whoever_started_the_master_may_have_ignored_the_ends_of_children(begin: Begin) -> None:
    ignore = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    )
    crew = begin(2, command=(sys.executable, "-c", ignore, *COMMAND))
    killed = min(crew.settle(2))
    os.kill(killed, signal.SIGKILL)
    crew.settle(2, without=killed)
    crew.assert_tidy()
    assert crew.server.stop() == 0


def test_the_exit_code_of_a_worker_is_its_own(begin: Begin, tmp_path: Path) -> None:
    crew = begin(1, app="several:crashing")
    (pid,) = crew.settle(1)
    (tmp_path / "go").touch()
    told = crew.server.record(event="worker_lost", worker_pid=pid)
    assert "ended with exit code 9;" in told["message"]
    (tmp_path / "mended").touch()
    crew.settle(1, without=pid)


def test_a_worker_that_hangs_is_explained_and_replaced(begin: Begin, tmp_path: Path) -> None:
    crew = begin(2, "--timeout-worker", "3")
    crew.settle(2)
    with closing(hold(crew.server, "/block?seconds=60")):
        told = crew.server.record(event="worker_hung")
    assert re.search(r"it stands at .*behaviour.py:\d+ in block", told["message"])
    assert "in block" in told["stacks"]
    crew.settle(2, without=told["worker_pid"])
    assert imports(tmp_path) == 1


def test_a_worker_that_has_done_enough_is_succeeded_without_another_import(begin: Begin, tmp_path: Path) -> None:
    crew = begin(1, "--max-requests", "3")
    (first,) = crew.settle(1)
    for _ in range(3):
        assert crew.server.get("/")[0] == 200
    crew.settle(1, without=first)
    assert imports(tmp_path) == 1
    assert crew.report()["workers_lost"] == 0


def test_when_the_preloader_is_killed_its_workers_go_on_and_another_one_forks_the_next(
    begin: Begin, tmp_path: Path
) -> None:
    crew = begin(2)
    pids, first = crew.settle(2), find_preloader(crew)
    os.kill(first, signal.SIGKILL)
    told = crew.server.record(event="preloader_lost", worker_pid=first)
    assert "was killed by SIGKILL" in told["message"]
    assert crew.settle(2) == pids
    assert crew.report()["preloaders"] == []  # not before it is needed
    os.kill(min(pids), signal.SIGKILL)
    crew.settle(2, without=min(pids))
    assert find_preloader(crew) != first
    assert imports(tmp_path) == 2
    crew.assert_tidy()


def test_a_preloader_that_is_broken_by_then_is_tried_again_and_the_others_serve(begin: Begin, tmp_path: Path) -> None:
    shop = tmp_path / "shop.py"
    shop.write_text(SHOP)
    crew = begin(2, "--app-dir", tmp_path, app="shop:app", tracebacks=True)
    pids = crew.settle(2)
    shop.write_text("import nothing_at_all")
    os.kill(find_preloader(crew), signal.SIGKILL)
    crew.server.record(event="preloader_lost")
    os.kill(min(pids), signal.SIGKILL)
    failed = crew.server.record(event="worker_failed")
    assert "ended with exit code 3: it was not ready" in failed["message"]
    assert crew.settle(1) == {max(pids)}
    shop.write_text(SHOP)
    crew.settle(2)


# --- reload -----------------------------------------------------------------------------------------------------------


def test_a_reload_takes_up_new_code_and_settings_and_a_broken_one_changes_nothing(begin: Begin, tmp_path: Path) -> None:
    def deploy(version: str, workers: int) -> None:
        shop.write_text(SHOP.replace("VERSION", version))
        settings.write_text(f"workers = {workers}\n")

    def reload() -> int:
        return run("reload", "--control", f"unix:{crew.control}", program="appserverctl").returncode

    shop, settings = tmp_path / "shop.py", tmp_path / "settings.toml"
    deploy("one", 2)
    words = ("--config", settings, "--app-dir", tmp_path, "--timeout-worker-start", "15")
    crew = begin(None, *words, app="shop:app", tracebacks=True)
    old, preloader = crew.settle(2), find_preloader(crew)
    for broken in ("import nothing_at_all", "import os; os._exit(1)", "import time; time.sleep(600)"):
        shop.write_text(broken)
        assert reload() == 3
        assert crew.settle(2) == old
        assert find_preloader(crew) == preloader
        assert crew.server.get("/version")[1] == b"one"
    failed = [record["message"] for record in events(crew.server, "reload_failed")]
    assert [
        "exit code 3 before it was ready" in failed[0],
        "exit code 1 before it was ready" in failed[1],
        "the preloader did not start in time" in failed[2],
    ] == [True] * 3
    assert len(events(crew.server, "application_failed")) == 1
    deploy("two", 3)
    assert reload() == 0
    assert not crew.settle(3) & old
    assert crew.server.get("/version")[1] == b"two"
    # The one from before has ended with its generation.
    assert find_preloader(crew) != preloader
    eventually(lambda: not is_alive(preloader), "the end of the one before")
    crew.assert_tidy()


@pytest.mark.parametrize(
    ("head", "answer"),
    [
        ("TOLD = []", b""),
        ("import signal\nTOLD = []\nsignal.signal(signal.SIGUSR2, lambda *_: TOLD.append(b'told'))\n", b"told"),
    ],
    ids=["unused", "used"],
)
def test_the_signal_for_an_upgrade_ends_no_preloader_and_may_have_a_use_of_the_applications(
    head: str, answer: bytes, begin: Begin, tmp_path: Path
) -> None:
    (tmp_path / "shop.py").write_text(head + SHOP.replace('b"VERSION"', 'b"".join(TOLD)'))
    crew = begin(1, "--app-dir", tmp_path, app="shop:app")
    (worker,), preloader = crew.settle(1), find_preloader(crew)
    for pid in (preloader, worker):
        os.kill(pid, signal.SIGUSR2)
    eventually(lambda: crew.server.get("/version")[1] == answer, f"the answer {answer!r}")
    os.kill(worker, signal.SIGKILL)
    crew.settle(1, without=worker)
    assert find_preloader(crew) == preloader
    assert events(crew.server, "preloader_lost") == []


def test_signals_for_more_and_fewer_workers_stop_no_process_but_count_for_the_master(begin: Begin) -> None:
    crew = begin(1)
    everybody = {*crew.settle(1), find_preloader(crew), crew.pid}
    for pid in everybody:
        os.kill(pid, signal.SIGTTIN)
    crew.answering(2)
    assert crew.settle(2) > everybody - {find_preloader(crew), crew.pid}
    for pid in everybody:
        os.kill(pid, signal.SIGTTOU)
    crew.settle(1)
    crew.assert_tidy()
    assert [process.state for process in find_children(crew.pid) if process.state == "T"] == []


# --- starts that fail -------------------------------------------------------------------------------------------------


def test_a_broken_application_is_exit_code_3_and_told_once(begin: Begin) -> None:
    crew = begin(4, app="broken_import:app", ready=False, expected=3, tracebacks=True)
    assert crew.server.wait() == 3
    assert len(events(crew.server, "application_failed")) == 1
    assert crew.server.stderr.count("Traceback") == 1
    assert not any("READY" in message.fields for message in crew.server.notified.messages)
    told = crew.server.told("EXIT_STATUS", "3")
    assert "the preloader ended with exit code 3 before it was ready" in told.fields["STATUS"]


def test_a_startup_that_fails_is_exit_code_3_and_told_once(begin: Begin) -> None:
    crew = begin(3, app="startup:failing", ready=False, expected=3, tracebacks=True)
    assert crew.server.wait() == 3
    assert crew.server.stderr.count("Traceback") == 1
    assert "a worker ended with exit code 3 before it was ready" in crew.server.told("EXIT_STATUS").fields["STATUS"]


def test_an_import_that_takes_too_long_is_the_end_of_a_first_start(begin: Begin) -> None:
    crew = begin(2, "--timeout-worker-start", "1", app="slow_import:app", ready=False, expected=3)
    assert crew.server.wait() == 3
    assert "the preloader did not start in time" in crew.server.told("EXIT_STATUS").fields["STATUS"]


def test_a_stop_during_the_import_is_clean(begin: Begin) -> None:
    crew = begin(2, app="slow_import:app", ready=False)
    crew.server.record(message="importing")
    assert crew.server.stop() == 0
    assert find_children(crew.pid) == []


def test_what_workers_cannot_share_is_named(begin: Begin, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as database:
        port = database.getsockname()[1]
        crew = begin(1, variables={"SHOP_LEFTOVERS": str(port)})
        crew.settle(1)
    warned = [record["message"] for record in crew.server.records if record["level"] == "warning"]
    assert [message.partition(":app ")[2].partition(":")[0] for message in warned] == [
        "has started threads (refresher), which workers do not have",
        "has left an event loop open, which workers share",
        "has connected to 127.0.0.1",
    ]
    assert f"127.0.0.1:{port}, and workers share that" in warned[2]


def test_without_workers_there_is_nothing_to_share(serve: Starter) -> None:
    server = serve("behaviour:app", "--preload")
    server.record(message="--preload has no effect without --workers", level="warning")
    assert server.get("/") == (200, b"hello")


# --- the end ----------------------------------------------------------------------------------------------------------


def test_a_second_signal_cuts_what_runs_and_is_exit_code_4(begin: Begin) -> None:
    crew = begin(2, expected=4)
    with closing(hold(crew.server, "/wait?seconds=60")):
        crew.server.send_signal(signal.SIGTERM)
        crew.server.told("STOPPING", "1")
        time.sleep(0.3)
        assert crew.server.stop(signal.SIGTERM) == 4


def test_when_the_master_is_killed_all_end_and_what_runs_is_answered(begin: Begin) -> None:
    crew = begin(2, expected=-signal.SIGKILL)
    family = {*crew.settle(2), find_preloader(crew)}
    with closing(hold(crew.server, "/wait?seconds=1")) as waiting:
        crew.server.process.kill()
        assert waiting.getresponse().read() == b"waited"
    eventually(lambda: not any(map(is_alive, family)), "the end of all")


def test_an_import_that_hangs_ends_when_the_master_is_killed(begin: Begin) -> None:
    crew = begin(1, app="slow_import:app", ready=False, expected=-signal.SIGKILL)
    crew.server.record(message="importing")
    (child,) = find_children(crew.pid)
    crew.server.process.kill()
    eventually(lambda: not is_alive(child.pid), "the end of the preloader")


def test_what_the_application_leaves_behind_is_reaped(begin: Begin) -> None:
    crew = begin(1)
    crew.settle(1)
    for _ in range(3):
        assert crew.server.get("/orphan")[0] == 200
    known = {child.pid for child in find_children(crew.pid)}
    eventually(lambda: len(find_children(crew.pid)) == 2, f"nobody else of {known}")
    crew.assert_tidy()
