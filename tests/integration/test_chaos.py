"""Bad days in quick succession: workers are killed and stopped, deploys are broken, reloads come at any moment.

After each of them the service answers again soon, and at the end nothing is left of it.
"""

import http.client
import os
import random
import signal
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

import pytest

from tests.integration.servers import Starter
from tests.integration.workers import Crew, count_fds, eventually, find_children, is_alive, read_memory

FULL: Final = bool(os.environ.get("FULL"))
SECONDS: Final = 600 if FULL else 12
WORKERS: Final = 3
RECOVERY: Final = 5.0 if FULL else 20.0
"""Within so many seconds the service answers again, whatever has happened; few where the machine is quiet."""
STARTING: Final = 3 if FULL else 8
"""Within so many seconds a worker has to be ready."""

GROWTH: Final = 4 * 1024 * 1024
"""What the master may take more at the end; it had served nothing at the beginning."""

SHOP = """
async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})
"""
BROKEN = ("import nothing_at_all", "def app(:", "import os; os._exit(1)", "import time; time.sleep(60)", "app = 1")


class Chaos:
    """What may happen, each at the cost of one method."""

    def __init__(self, crew: Crew, shop: Path, chance: random.Random) -> None:
        self._crew, self._shop, self._chance = crew, shop, chance
        self.stopped: set[int] = set()

    def _pick(self) -> int:
        return self._chance.choice([child.pid for child in find_children(self._crew.pid)])

    def kill(self) -> None:
        with suppress(ProcessLookupError, IndexError):
            os.kill(self._pick(), signal.SIGKILL)

    def kill_all(self) -> None:
        for child in find_children(self._crew.pid):
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)

    def stop(self) -> None:
        with suppress(ProcessLookupError, IndexError):
            pid = self._pick()
            os.kill(pid, signal.SIGSTOP)
            self.stopped.add(pid)

    def go_on(self) -> None:
        while self.stopped:
            with suppress(ProcessLookupError):
                os.kill(self.stopped.pop(), signal.SIGCONT)

    def leave(self) -> None:
        with suppress(ProcessLookupError, IndexError):
            os.kill(self._pick(), signal.SIGTERM)

    def reload(self) -> None:
        (self._shop / "shop.py").write_text(SHOP)
        self._crew.server.send_signal(signal.SIGHUP)

    def deploy_broken(self) -> None:
        (self._shop / "shop.py").write_text(self._chance.choice(BROKEN))
        self._crew.server.send_signal(signal.SIGHUP)

    def mend(self) -> None:
        """What an operator does: put it right, and reload, instead of waiting for what has been put off."""
        self.reload()


def answers(crew: Crew) -> bool:
    """Whether a new connection is answered."""
    with closing(http.client.HTTPConnection(*crew.server.address, timeout=1)) as connection:
        try:
            connection.request("GET", "/")
            response = connection.getresponse()
            return (response.status, response.read()) == (200, b"hello")
        except (OSError, http.client.HTTPException):
            return False


@pytest.mark.timeout(SECONDS + 100)
def test_the_service_recovers_from_whatever_happens(serve: Starter, tmp_path: Path) -> None:
    seed = int(os.environ.get("SEED", time.time_ns()))
    print(f"SEED={seed}")
    shop, control = tmp_path / "shop", tmp_path / "control.sock"
    shop.mkdir()
    (shop / "shop.py").write_text(SHOP)
    words = ("--app-dir", shop, "-w", str(WORKERS), "--control", f"unix:{control}", "--no-access-log")
    deadlines = ("--timeout-worker", "2", "--timeout-worker-start", str(STARTING), "--graceful-timeout", "3")
    crew = Crew(serve("shop:app", *words, *deadlines, tracebacks=True), control)
    crew.settle(WORKERS)
    fds, memory = count_fds(crew.pid), read_memory(crew.pid)
    chance = random.Random(seed)
    chaos = Chaos(crew, shop, chance)
    happenings = [chaos.kill, chaos.stop, chaos.go_on, chaos.leave, chaos.reload, chaos.reload, chaos.deploy_broken]
    happenings += [chaos.mend, chaos.mend, chaos.kill_all]
    end, seen, slowest = time.monotonic() + SECONDS, Counter[str](), 0.0
    workers: set[int] = set()
    while time.monotonic() < end:
        happening = chance.choice(happenings)
        # With a broken application nobody can take the place of all.
        if happening == chaos.kill_all:
            chaos.mend()
        happened = time.monotonic()
        happening()
        seen[happening.__name__] += 1
        if "deploy_broken" not in seen or (shop / "shop.py").read_text() == SHOP:
            eventually(lambda: answers(crew), f"an answer after {happening.__name__} (SEED={seed})", RECOVERY)
            slowest = max(slowest, time.monotonic() - happened)
        workers |= {child.pid for child in find_children(crew.pid)}
        time.sleep(chance.uniform(0.1, 1.5))
    print(f"{dict(seen)}, the slowest recovery took {slowest:.1f} s, {len(workers)} workers")
    chaos.go_on()
    chaos.mend()
    # What is left of the last happening: delays of those that failed, reloads that wait for their deadline.
    crew.settle(WORKERS, timeout=45)
    crew.server.send_signal(signal.SIGHUP)
    crew.server.until(lambda: crew.report()["generation"] > 1 or None, "a reload")
    time.sleep(2)
    pids = crew.settle(WORKERS, timeout=45)
    crew.assert_tidy()
    assert not [pid for pid in workers - pids if is_alive(pid)], "a worker runs that the master knows nothing of"
    eventually(lambda: count_fds(crew.pid) <= fds, "descriptors as before")
    assert read_memory(crew.pid) - memory < GROWTH
    assert crew.server.stop() == 0
    assert not [pid for pid in workers | pids if is_alive(pid)]
