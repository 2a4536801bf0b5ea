"""What happens to processes before they serve, and when they do no more."""

import os
import signal
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

import pytest

from appserver.system.image import SIGNALS
from tests.integration.servers import APPS, COMMAND, Server, Starter, UnixConnection, get
from tests.integration.test_reload import reload
from tests.integration.test_workers import Begin, begin, hold, let_go
from tests.integration.workers import Crew, eventually, find_children

__all__ = ["begin"]

SHOP: Final = f"""
import os, sys, time
from pathlib import Path

folder = Path(__file__).parent
folder.joinpath(f"importing-{{os.getpid()}}").touch()
while not folder.joinpath("go").exists():
    time.sleep(0.02)
reason = folder / "reason"
if reason.exists():
    raise RuntimeError(reason.read_text())
sys.path.append({str(APPS)!r})
from behaviour import app
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The application's: its import waits for the file `go`, and fails for what is in the file `reason`."""
    (tmp_path / "shop.py").write_text(SHOP)
    return tmp_path


def descend(pid: int) -> Iterator[int]:
    """A process and all below it."""
    yield pid
    for child in find_children(pid):
        yield from descend(child.pid)


def errors(server: Server) -> list[str]:
    return [record["message"] for record in server.records if record["level"] in ("error", "critical")]


@pytest.mark.parametrize(
    ("words", "importing"),
    [((), 1), (("--workers", "2"), 2), (("--workers", "2", "--preload"), 1)],
    ids=["single", "workers", "preload"],
)
def test_orders_to_all_end_nobody_who_starts(
    words: tuple[str, ...], importing: int, serve: Starter, folder: Path
) -> None:
    server = serve("shop:app", "--app-dir", folder, *words, ready=False)

    def all_import() -> bool:
        # Those below the main process from their first moment on, when Python itself has not started yet.
        for pid in list(descend(server.process.pid))[1:]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGHUP)
        return sum(1 for _ in folder.glob("importing-*")) == importing

    eventually(all_import, "the import of all")
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        for pid in descend(server.process.pid):
            os.kill(pid, number)
    (folder / "go").touch()
    server.told("READY", "1")
    assert errors(server) == []
    told = "the server is starting" if words else "a single process has no reload"
    assert any(told in record["message"] for record in server.records if "SIGHUP ignored" in record["message"])


@pytest.mark.parametrize("number", [signal.SIGTTIN, signal.SIGTTOU])
def test_a_number_of_workers_is_not_changed_before_they_serve(
    number: signal.Signals, serve: Starter, folder: Path
) -> None:
    server = serve("shop:app", "--app-dir", folder, "--workers", "1", ready=False)
    eventually(lambda: list(folder.glob("importing-*")), "the import")
    server.send_signal(number)
    server.record(message=f"{number.name} ignored: the server is starting")
    (folder / "go").touch()
    assert server.record(event="ready")["workers"] == 1


@pytest.mark.parametrize("words", [(), ("--workers", "1"), ("--workers", "1", "--preload")])
def test_streams_that_are_closed_are_nobody_elses(words: tuple[str, ...], serve: Starter) -> None:
    server = serve("behaviour:app", *words, command=("sh", "-c", 'exec "$@" <&-', "sh", *COMMAND))
    assert server.get("/") == (200, b"hello")
    assert errors(server) == []


def test_each_reason_why_a_worker_does_not_start_is_told(serve: Starter, folder: Path) -> None:
    (folder / "go").touch()
    server = serve("shop:app", "--app-dir", folder, "--workers", "1", tracebacks=True)
    reason = folder / "reason"
    reason.write_text("the database is down")
    (worker,) = find_children(server.process.pid)
    os.kill(worker.pid, signal.SIGKILL)
    server.until(lambda: "RuntimeError: the database is down" in server.stderr or None, "the first reason")
    reason.write_text("there is no table")
    server.until(lambda: "RuntimeError: there is no table" in server.stderr or None, "the second reason")
    reason.unlink()
    eventually(lambda: find_children(server.process.pid), "a worker")
    assert server.get("/") == (200, b"hello")


def test_no_thread_of_a_master_takes_its_signals(begin: Begin) -> None:
    """One that is taken by another thread in the moment of an upgrade's exec is gone with that thread."""
    crew = begin("behaviour:app", 1)
    assert get(UnixConnection(crew.control), "/metrics")[0] == 200  # a thread imports what makes them
    others = [task for task in Path(f"/proc/{crew.pid}/task").iterdir() if int(task.name) != crew.pid]
    assert others
    wanted = sum(1 << (number - 1) for number in SIGNALS)
    for task in others:
        (blocked,) = (line for line in (task / "status").read_text().splitlines() if line.startswith("SigBlk:"))
        assert int(blocked.split()[1], 16) & wanted == wanted


def test_a_master_that_is_aborted_shows_where_it_stood(begin: Begin) -> None:
    """systemd's watchdog ends the main process so (systemd.service(5), WatchdogSignal=)."""
    crew = begin("behaviour:app", 1, expected=-signal.SIGABRT, tracebacks=True)
    crew.server.send_signal(signal.SIGABRT)
    assert crew.server.wait() == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in crew.server.stderr
    assert "process/supervise.py" in crew.server.stderr


def test_who_orders_while_the_server_stops_is_told_so(begin: Begin) -> None:
    crew: Crew = begin("behaviour:app", 1)
    waiting = hold(crew.server)
    crew.server.send_signal(signal.SIGTERM)
    eventually(lambda: crew.report()["state"] == "draining", "the drain")
    ended = reload(crew)
    assert ended.returncode == 3
    assert "the server is draining" in ended.stderr
    assert "go on" not in ended.stderr
    with closing(waiting):
        assert let_go(waiting).read() == b"waited"
    assert crew.server.wait() == 0
