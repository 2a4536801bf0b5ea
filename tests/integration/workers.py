"""The workers of a master, as its control socket and the kernel tell of them."""

import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from tests.integration.servers import PATIENCE, Server, UnixConnection, get

T = TypeVar("T")
LOOK_SECONDS: Final = 0.05
"""What other processes become tells nobody: it is looked at so often."""


def eventually(find: Callable[[], T | None], what: str, timeout: float = PATIENCE) -> T:
    """Wait until `find` finds something."""
    end = time.monotonic() + timeout
    while not (found := find()):
        assert time.monotonic() < end, f"waited for {what}: not in {timeout} s"
        time.sleep(LOOK_SECONDS)
    return found


class Process:
    """A process, of proc_pid_stat(5)."""

    def __init__(self, pid: int) -> None:
        # Behind the name, which may have any character in it.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        self.pid, self.state, self.parent, self.group = pid, fields[0], int(fields[1]), int(fields[2])


def find_children(pid: int) -> list[Process]:
    """Its children, zombies too."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                found.append(Process(int(entry.name)))
    return [process for process in found if process.parent == pid]


def is_alive(pid: int) -> bool:
    with suppress(OSError):
        return Process(pid).state != "Z"
    return False


def count_fds(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def read_memory(pid: int) -> int:
    """Bytes of it that are resident."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


class Crew:
    """A server with workers, and its control socket."""

    def __init__(self, server: Server, control: Path) -> None:
        self.server, self.control = server, control

    @property
    def pid(self) -> int:
        return self.server.process.pid

    def report(self) -> dict[str, Any]:
        status, body = get(UnixConnection(self.control), "/status")
        assert status == 200
        report: dict[str, Any] = json.loads(body)
        return report

    def pids(self, state: str = "serving") -> set[int]:
        return {worker["pid"] for worker in self.report()["workers"] if worker["state"] == state}

    def settle(self, count: int, *, without: int | None = None, timeout: float = PATIENCE) -> set[int]:
        """Wait until exactly so many workers serve, and no others are there; their pids."""

        def find() -> set[int] | None:
            workers = self.report()["workers"]
            pids = {worker["pid"] for worker in workers if worker["state"] == "serving"}
            return pids if len(pids) == len(workers) == count and without not in pids else None

        return eventually(find, f"{count} workers that serve", timeout)

    def until_lost(self, count: int) -> None:
        """Wait until so many workers have been lost since the start."""
        eventually(lambda: self.report()["workers_lost"] == count, f"{count} workers that are lost")

    def answering(self, count: int) -> set[int]:
        """The workers that answer, once so many have."""
        found: set[int] = set()

        def ask(_: int) -> None:
            # Each request keeps its worker to itself for a moment, so that the others get some too.
            status, body = self.server.get("/block?seconds=0.02")
            assert status == 200
            found.add(json.loads(body)["pid"])

        def enough() -> set[int] | None:
            list(pool.map(ask, range(8)))
            return found if len(found) >= count else None

        with ThreadPoolExecutor(8) as pool:
            return eventually(enough, f"answers of {count} workers")

    def assert_tidy(self) -> None:
        """No child but the workers and what forks them, and no zombie."""
        children = find_children(self.pid)
        assert [child.pid for child in children if child.state == "Z"] == []
        report = self.report()
        assert {child.pid for child in children} == {one["pid"] for one in report["workers"] + report["preloaders"]}
