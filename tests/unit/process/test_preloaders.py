"""Preloaders as their master sees them: real ones, whose clock alone is not waited for."""

import asyncio
import ctypes
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from time import monotonic

import pytest

from appserver.errors import Exit
from appserver.net.listeners import Listener
from appserver.process.preloaders import END_SECONDS, ORDER_SECONDS, Preloaders
from appserver.process.spawn import Worker
from appserver.settings import Settings
from appserver.telemetry.log import build

PATIENCE = 20.0
PR_SET_CHILD_SUBREAPER = 36
SHOP = "async def app(scope, receive, send): raise NotImplementedError\n"


@pytest.fixture(autouse=True)
def no_subreaper() -> Iterator[None]:
    """Other tests in this process are not to get the orphans of theirs."""
    yield
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


class Parent:
    """Takes what comes of one generation's preloaders."""

    def __init__(self, folder: Path, level: str = "critical") -> None:
        (folder / "shop.py").write_text(SHOP)
        self.settings = Settings(app="shop:app", app_dir=str(folder), log_level="critical", log_format="json")
        self.voice = os.eventfd(1, os.EFD_NONBLOCK)
        self.workers: list[tuple[Worker, int]] = []
        self.failed: list[tuple[str, Exit, dict[int, int]]] = []
        self.sock = socket.create_server(("127.0.0.1", 0))
        listeners = [Listener(self.sock, "web")]
        self.preloaders = Preloaders(
            listeners, build(level, "json"), asyncio.get_running_loop(), self.admit, self.fail, lambda: None
        )

    def admit(self, worker: Worker, failures: int) -> None:
        self.workers.append((worker, failures))

    def fail(self, generation: int, why: str, code: Exit, missed: Mapping[int, int]) -> None:
        assert generation == 1
        self.failed.append((why, code, dict(missed)))

    def order(self, number: int, failures: int = 0) -> None:
        self.preloaders.order(1, number, failures, self.settings, os.environ, self.voice)

    @property
    def pid(self) -> int:
        (pid,) = self.preloaders.pids
        return pid

    async def until(self, find: Callable[[], bool], what: str) -> None:
        end = monotonic() + PATIENCE
        while not find():
            assert monotonic() < end, f"waited for {what}"
            await asyncio.sleep(0.02)

    async def end(self) -> None:
        self.preloaders.retire(1)
        for worker, _ in self.workers:
            worker.signal(signal.SIGKILL)
            assert worker.reap() == -signal.SIGKILL
        await self.until(lambda: not self.preloaders.pids, "the end of the preloader")
        os.close(self.voice)
        self.sock.close()


def test_a_preloader_that_does_not_fork_in_time_is_killed_and_what_was_ordered_has_failed(tmp_path: Path) -> None:
    async def live() -> None:
        parent = Parent(tmp_path)
        parent.order(1, failures=2)
        parent.order(1)  # the same one
        await parent.until(lambda: len(parent.workers) == 1, "a worker")
        assert [(worker.number, failures) for worker, failures in parent.workers] == [(1, 2)]
        settled = [parent.preloaders.settled]
        os.kill(parent.pid, signal.SIGSTOP)
        ordered = monotonic()
        parent.order(2, failures=3)
        parent.order(3)
        settled.append(parent.preloaders.settled)
        assert settled == [True, False]
        parent.preloaders.look(ordered + ORDER_SECONDS - 1, 0.0)
        # The master itself stood still: that is not its preloader's fault.
        parent.preloaders.look(ordered + ORDER_SECONDS + 4, 5.0)
        assert parent.failed == []
        parent.preloaders.look(monotonic() + ORDER_SECONDS + 6, 0.0)
        await parent.until(lambda: bool(parent.failed), "the end of the preloader")
        assert parent.failed == [("the preloader did not fork in time", Exit.STARTUP, {2: 3, 3: 0})]
        # And the next order is another one's.
        parent.order(2)
        await parent.until(lambda: len(parent.workers) == 2, "a worker of another preloader")
        await parent.end()

    asyncio.run(live())


def test_a_preloader_that_takes_no_signal_is_killed(tmp_path: Path) -> None:
    async def live() -> None:
        parent = Parent(tmp_path)
        parent.order(1)
        await parent.until(lambda: len(parent.workers) == 1, "a worker")
        os.kill(parent.pid, signal.SIGSTOP)
        parent.preloaders.retire(1)
        assert [one["state"] for one in parent.preloaders.report()] == ["leaving"]
        parent.preloaders.look(monotonic() + END_SECONDS + 1, 0.0)
        await parent.end()
        assert parent.failed == []

    asyncio.run(live())


@pytest.mark.parametrize(("number", "told"), [(signal.SIGTERM, []), (signal.SIGKILL, ["preloader_lost"])])
def test_a_preloader_that_is_told_to_end_is_no_loss_also_where_a_worker_was_ordered(
    number: signal.Signals, told: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Where systemd stops all of a service, the master may hear of its preloader's end before it hears of its own."""

    async def live() -> None:
        parent = Parent(tmp_path, "info")
        parent.order(1)
        await parent.until(lambda: len(parent.workers) == 1, "a worker")
        os.kill(parent.pid, signal.SIGSTOP)
        os.kill(parent.pid, number)
        parent.order(2)
        os.kill(parent.pid, signal.SIGCONT)
        await parent.until(lambda: bool(parent.failed), "the end of the preloader")
        assert [missed for _, _, missed in parent.failed] == [{2: 0}]
        await parent.end()

    asyncio.run(live())
    assert [json.loads(line).get("event") for line in capfd.readouterr().err.splitlines()] == told


SLOW = """
import atexit, os, sys, time

class Output:
    def flush(self):
        open("flushes", "a").close()
        time.sleep(1)

os.chdir(os.path.dirname(__file__))
sys.stdout, pid = Output(), os.getpid()
atexit.register(lambda: os.getpid() == pid and open("cleared", "w").close())
"""


def test_a_preloader_that_is_told_twice_to_end_leaves_alone_what_its_workers_still_need(tmp_path: Path) -> None:
    """systemd tells all processes of a service, and the master its preloaders."""

    async def live() -> None:
        parent = Parent(tmp_path)
        (tmp_path / "shop.py").write_text(SLOW + SHOP)
        parent.order(1)
        await parent.until(lambda: len(parent.workers) == 1, "a worker")
        (tmp_path / "flushes").unlink()
        (preloader,) = parent.preloaders._preloaders
        os.kill(parent.pid, signal.SIGTERM)
        await parent.until((tmp_path / "flushes").exists, "the end of the preloader has begun")
        await parent.end()
        assert preloader.process.exit_code == 0
        assert not (tmp_path / "cleared").exists()

    asyncio.run(live())


FULL = """
import os
fork, left = os.fork, [LEFT]

def refuse():
    if not left[0]:
        raise BlockingIOError(11, "no more processes")
    left[0] -= 1
    return fork()

os.fork = refuse
"""


@pytest.mark.parametrize("left", [0, 1], ids=["the one between", "the worker"])
def test_a_fork_that_the_kernel_refuses_is_told_with_its_reason(left: int, tmp_path: Path) -> None:
    """Of which the limits cannot be lowered for root: the application does it in the kernel's place."""

    async def live() -> None:
        parent = Parent(tmp_path)
        (tmp_path / "shop.py").write_text(SHOP + FULL.replace("LEFT", str(left)))
        parent.order(4, failures=1)
        await parent.until(lambda: bool(parent.failed), "a fork that fails")
        why = "a worker cannot be forked: Resource temporarily unavailable"
        assert parent.failed == [(why, Exit.STARTUP, {4: 1})]
        # It is still there for the next one.
        assert [one["state"] for one in parent.preloaders.report()] == ["ready"]
        await parent.end()

    asyncio.run(live())


def test_a_preloader_without_descriptors_tells_the_reason(tmp_path: Path) -> None:
    async def live() -> None:
        parent = Parent(tmp_path)
        full = "import os\ndef refuse(): raise OSError(24, 'too many')\nos.pipe = refuse\n"
        (tmp_path / "shop.py").write_text(SHOP + full)
        parent.order(4, failures=1)
        await parent.until(lambda: bool(parent.failed), "a fork that fails")
        assert parent.failed == [("a worker cannot be forked: Too many open files", Exit.STARTUP, {4: 1})]
        assert [one["state"] for one in parent.preloaders.report()] == ["ready"]
        await parent.end()

    asyncio.run(live())


def test_what_is_no_answer_to_an_order_is_taken_for_none(tmp_path: Path) -> None:
    """The application can get hold of the line, and say what it likes."""

    async def live() -> None:
        parent = Parent(tmp_path)
        liar = """
import os, socket, stat
for fd in range(3, 30):
    try:
        line = socket.socket(fileno=os.dup(fd))
        if line.type == socket.SOCK_SEQPACKET:
            for word in ("1 1 0", "one", "", f"1 {os.getppid()} 0", "2 0 0", "9" * 5000):
                line.send(f"X_FORKED={word}".encode())
    except OSError:
        pass
"""
        (tmp_path / "shop.py").write_text(SHOP + liar)
        parent.order(1)
        await parent.until(lambda: bool(parent.workers), "a worker")
        assert [worker.number for worker, _ in parent.workers] == [1]
        assert parent.failed == []
        await parent.end()

    asyncio.run(live())
