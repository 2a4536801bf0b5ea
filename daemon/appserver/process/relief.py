"""What is done when memory is short: caches are dropped; where that was not enough, the largest worker is replaced.

The service manager says so (`system.pressure`) to the process that it has started: one that serves alone, or a master,
which hands it on to its workers.
"""

import gc
import linecache
from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Final

from appserver.process.policy import SERVING
from appserver.system.memory import read_resident, trim
from appserver.system.pressure import Pressure, open_pressure
from appserver.telemetry.log import Log

if TYPE_CHECKING:
    from appserver.process.spawn import Worker

# Steps.
DROP: Final = "drop"
"""Give back what is only kept to be quick."""
REPLACE: Final = "replace"
"""It was not enough."""
NOTHING: Final = "nothing"
"""Something was done a moment ago, and its effect is not to be seen yet."""

DROP_SECONDS: Final = 30.0
"""From one time that caches are dropped to the next: a collection of all garbage stops the process meanwhile."""

EFFECT_SECONDS: Final = 1.0
"""What that gets to show."""

REPLACE_SECONDS: Final = 60.0
"""From one worker that is replaced to the next. Its successor starts while it is still there, and takes memory too."""

GROWTH: Final = 16 * 1024**2
"""Bytes that a worker has grown by since it was ready, for a successor to take noticeably less."""


class Steps:
    """Which step is next. Times are those of a monotonic clock, in seconds."""

    __slots__ = ("_dropped", "_replaced")

    def __init__(self) -> None:
        self._dropped = self._replaced = float("-inf")

    def next(self, now: float) -> str:
        """The step to take, being told at this time that memory is short."""
        since = now - self._dropped
        if since >= DROP_SECONDS:
            self._dropped = now
            return DROP
        if since >= EFFECT_SECONDS and now - self._replaced >= REPLACE_SECONDS:
            return REPLACE
        return NOTHING

    def replaced(self, now: float) -> None:
        """A worker was."""
        self._replaced = now


class Relief:
    """Hears that memory is short, and has something done about it.

    Args:
        log: Where it is told.
        environ: Names what tells; where that cannot be heard, a warning is all.

    Attributes:
        told: How often memory was short.
    """

    __slots__ = ("_log", "_pressure", "_steps", "told")

    def __init__(self, log: Log, environ: Mapping[str, str]) -> None:
        self._log, self._steps = log, Steps()
        self.told = 0
        self._pressure: Pressure | None = None
        try:
            self._pressure = open_pressure(environ)
        except ValueError as error:
            log.warning(f"Nobody will hear when memory is short: {error}", code="memory_pressure")

    def watch(self, loop: AbstractEventLoop, drop: Callable[[], str], replace: Callable[[], str] = str) -> None:
        """Begin to hear.

        Args:
            loop: The running loop.
            drop: Drops caches, and gives what was done, in words.
            replace: Replaces a worker, and gives the same; empty where none was.
        """
        if self._pressure is not None:
            steps: dict[str, Callable[[], str]] = {DROP: drop, REPLACE: replace, NOTHING: str}
            loop.add_reader(self._pressure.fileno(), self._on_pressure, loop, self._pressure, steps)

    def _on_pressure(self, loop: AbstractEventLoop, pressure: Pressure, steps: dict[str, Callable[[], str]]) -> None:
        if not pressure.take():
            loop.remove_reader(pressure.fileno())
            pressure.close()
            self._log.warning("Nobody hears any more when memory is short", code="memory_pressure")
            return
        self.told += 1
        now = monotonic()
        step = self._steps.next(now)
        if done := steps[step]():
            still = ""
            if step == REPLACE:
                self._steps.replaced(now)
                still = " still"
            self._log.warning(f"Memory is{still} short: {done}", code="memory_pressure", told=self.told)


def drop_caches() -> str:
    """Give back what is only kept to be quick: sources of tracebacks, garbage, freed memory; in words, how much."""
    before = read_resident("self")
    linecache.clearcache()
    gc.collect()
    trim()
    return f"{max(0, before - read_resident('self')) / 1024**2:.1f} MiB given back"


def drop_all(workers: Iterable["Worker"]) -> str:
    """Have all workers that serve do the same; in words, how many."""
    serving = [worker for worker in workers if worker.state == SERVING]
    for worker in serving:
        worker.drop_caches()
    return f"caches are dropped in {len(serving)} {'worker' if len(serving) == 1 else 'workers'}"


def spend_largest(workers: Iterable["Worker"]) -> str:
    """Have the worker that takes the most memory replaced, of those that have grown; in words, which.

    None where one is being replaced already.
    """
    serving = [worker for worker in workers if worker.state == SERVING]
    grown = [worker for worker in serving if worker.memory - worker.initial >= GROWTH]
    if not grown or any(worker.succeeded for worker in serving):
        return ""
    largest = max(grown, key=lambda worker: worker.memory)
    size = f"{largest.memory >> 20} MiB"
    largest.spend(f"memory is short, and it takes the most, {size}")
    return f"worker {largest.pid} is replaced, which takes the most, {size}"
