"""A long time in short: traffic of all kinds, reloads, workers that are killed. Nothing may grow by it.

FULL is an hour's worth: at a hundred requests a second it would be 360,000.
"""

import os
import signal
import statistics
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from tests.certificates import Issuer
from tests.integration.servers import Starter
from tests.integration.test_reload import SHOP, clients, reload
from tests.integration.workers import Crew, count_fds, eventually, read_memory

FULL: Final = bool(os.environ.get("FULL"))
SECONDS: Final = 300 if FULL else 8
"""Of traffic without a reload."""
RELOADS: Final = 100 if FULL else 4
KILLS: Final = 30 if FULL else 4
"""Of workers, whose successors are held back for longer each time."""
CLIENTS: Final = 32
WORKERS: Final = 2
GROWTH: Final = 3 * 1024 * 1024
"""Bytes that a process may take more at the end; what grows with each request would be far over it."""


def watch(pids: set[int], seconds: float) -> list[float]:
    """Resident memory of each worker over so many seconds: the median of each, for uploads come and go."""
    samples: dict[int, list[int]] = {pid: [] for pid in pids}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for pid, taken in samples.items():
            taken.append(read_memory(pid))
        time.sleep(0.1)
    return [statistics.median(samples[pid]) for pid in sorted(pids)]


def list_files(pid: int) -> Counter[str]:
    """What a process has open, by kind, but for what the event loop opens for itself with its first connection.

    libuv keeps /dev/null in reserve for a lack of descriptors, and a worker may get no connection for a while.
    """
    kinds: Counter[str] = Counter()
    for one in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            name = str(one.readlink())
            if not name.startswith("anon_inode:") and name != "/dev/null":
                kinds[name.partition(":[")[0]] += 1
    return kinds


@pytest.mark.timeout(2000 if FULL else 150)
def test_memory_and_descriptors_stay_flat(serve: Starter, tmp_path: Path) -> None:
    issuer = Issuer()
    pair = issuer.issue(tmp_path / "a.pem", "127.0.0.1")
    root = issuer.write_root(tmp_path / "root.pem")
    (tmp_path / "shop.py").write_text(SHOP)
    control = tmp_path / "control"
    words = (
        *("-w", str(WORKERS), "--no-access-log", "--app-dir", tmp_path, "--control", f"unix:{control}"),
        *("-b", "127.0.0.1:0?tls=off", "-b", "127.0.0.1:0?tls=on"),
        *("--tls-cert", pair.certificate, "--tls-key", pair.key),
    )
    crew = Crew(serve("shop:app", *words, bind=False), control)
    ports = [int(url.rpartition(":")[2]) for url in crew.server.listeners if url.startswith("http")]
    pids = crew.settle(WORKERS)
    # Modules are imported, caches fill, pools reach their size.
    with clients(ports[0], ports[1], root, CLIENTS) as warm:
        time.sleep(SECONDS / 4)
    eventually(lambda: crew.report()["connections"] == 0, "the end of the first connections")
    before = {pid: list_files(pid) for pid in pids}
    with clients(ports[0], ports[1], root, CLIENTS) as steady:
        first = watch(pids, SECONDS * 3 / 8)
        last = watch(pids, SECONDS * 3 / 8)
    assert warm["lost"] == steady["lost"] == {}
    assert crew.settle(WORKERS) == pids
    growth = [round((after - earlier) / 1024) for earlier, after in zip(first, last, strict=True)]
    print(f"{sum(steady['answered'].values())} answered; workers grew by {growth} KiB")
    assert max(growth) < GROWTH / 1024
    more = {pid: Counter[str]() for pid in pids}

    def settled() -> bool:
        for pid in pids:
            more[pid] = list_files(pid) - before[pid]
        return not any(more.values())

    try:
        eventually(settled, "the workers' descriptors as before")
    finally:
        print(f"more than before: {more}")

    assert reload(crew).returncode == 0
    crew.settle(WORKERS)
    fds, memory = count_fds(crew.pid), read_memory(crew.pid)
    with clients(ports[0], ports[1], root, CLIENTS) as reloaded:
        for _ in range(RELOADS):
            assert reload(crew).returncode == 0
    assert reloaded["lost"] == {}
    for _ in range(KILLS):
        victim = min(crew.settle(WORKERS))
        os.kill(victim, signal.SIGKILL)
        crew.settle(WORKERS, without=victim, timeout=60)
    grown = read_memory(crew.pid) - memory
    print(f"{sum(reloaded['answered'].values())} answered; the master grew by {grown >> 10} KiB")
    assert grown < GROWTH
    eventually(lambda: count_fds(crew.pid) <= fds, "the master's descriptors as before")
    assert crew.report()["workers_lost"] == KILLS
    crew.assert_tidy()
