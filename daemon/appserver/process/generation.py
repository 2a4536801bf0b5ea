"""A generation: settings, and the workers that serve with them."""

import os
from asyncio import Future, TimerHandle
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from appserver.errors import Exit
from appserver.process.policy import LEAVING, REST_SECONDS, SERVING, STUCK, Patience
from appserver.process.spawn import Spent, Worker
from appserver.settings import Settings

SPARE_SECONDS: Final = 15.0
"""What a worker that leaves gets beyond its own deadlines, before it is killed."""

HURRY_SECONDS: Final = 10.0
"""What workers get after a second signal: they cut what runs, and threads of the application have five seconds."""


@dataclass(slots=True)
class Generation:
    """Settings, and the workers that serve with them.

    Attributes:
        number: From 1.
        settings: What it was started with.
        wanted: How many workers it is to have.
        environ: The environment of its workers.
        workers: By process id.
        complete: Set when all are ready, or with what went wrong before.
        failure: What went wrong with it, also after `complete` was set and before anybody has looked.
        voice: An eventfd: the first of its workers that fails takes it and tells why; the others fail for the same.
        retries: Workers that are to be started later, by their numbers.
        misses: How often one that was to be started, or to be replaced, is to be started anew, by its number.
        retired: It gets no more workers.
        level: Which log level it was told to have since it began.
        exit_code: Of the worker that failed.
    """

    number: int
    settings: Settings
    wanted: int
    environ: Mapping[str, str]
    complete: Future[str | None]
    voice: int = field(default_factory=lambda: os.eventfd(1, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
    workers: dict[int, Worker] = field(default_factory=dict)
    retries: dict[int, TimerHandle] = field(default_factory=dict)
    misses: Counter[int] = field(default_factory=Counter)
    retired: bool = False
    level: str | None = None
    failure: str | None = None
    exit_code: Exit = Exit.STARTUP

    @property
    def serving(self) -> int:
        """Workers that are ready."""
        return sum(worker.state == SERVING for worker in self.workers.values())

    def conclude(self, failure: str | None) -> None:
        """Settle what has become of its start; once."""
        self.failure = self.failure or failure
        if not self.complete.done():
            self.complete.set_result(failure)

    async def settle(self) -> str | None:
        """Wait for its start to be over; what went wrong.

        Who waits is woken a turn of the event loop after it is complete, and one of its workers may be gone by then.
        """
        return await self.complete or self.failure

    @property
    def missing(self) -> list[int]:
        """Numbers that no worker has, and that nobody is to start later."""
        # One that another is to succeed keeps no place: who was to start that one may be gone (`hold`, an upgrade).
        staying = (one for one in self.workers.values() if one.state != LEAVING and not one.succeeded)
        taken = {worker.number for worker in staying} | self.retries.keys()
        return [number for number in range(1, self.wanted + 1) if number not in taken]

    def check(self) -> None:
        """Settle that it has started, if it has."""
        if self.serving >= self.wanted:
            self.conclude(None)

    def cancel(self, number: int) -> None:
        """Start no worker of that number later."""
        if (timer := self.retries.pop(number, None)) is not None:
            timer.cancel()

    def find_late(self, now: float, still: float, hurried: float | None) -> list[Worker]:
        """Its workers whose deadline has passed.

        Args:
            now: Of a monotonic clock.
            still: For how long the master itself stood still; forgiven.
            hurried: Since when workers have been told to cut what still runs.
        """
        settings, late = self.settings, []
        patience = Patience(
            settings.timeout_worker_start,
            settings.timeout_worker,
            settings.graceful_timeout + settings.linger + SPARE_SECONDS,
        )
        for worker in self.workers.values():
            worker.forgive(still)
            since, allowed = worker.beat if worker.state == SERVING else worker.since, patience.of(worker.state)
            if worker.state == LEAVING and hurried is not None:
                since, allowed = max(since, hurried), HURRY_SECONDS
            if now - since > allowed:
                late.append(worker)
        return late

    def find_spent(self, now: float) -> tuple[Worker, Spent] | None:
        """A worker that has done enough, and why; one at a time: none as long as another is being succeeded."""
        workers = list(self.workers.values())
        if any(worker.succeeded for worker in workers):
            return None
        # One that still answers what it has: a third in its place would be one process more with each.
        leaving = {worker.number for worker in workers if worker.state in (LEAVING, STUCK)}
        for worker in workers:
            # Not at once, or a limit that every worker exceeds from the start would be a storm.
            if worker.state == SERVING and worker.number not in leaving and now - worker.begun >= REST_SECONDS:
                spent = worker.find_spent()
                if spent is not None:
                    return worker, spent
        return None
