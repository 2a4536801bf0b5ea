"""A generation: settings, and the workers that serve with them."""

import os
from asyncio import Future, TimerHandle
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from appserver.errors import Exit
from appserver.process.policy import SERVING
from appserver.process.spawn import Worker
from appserver.settings import Settings


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

    def cancel(self, number: int) -> None:
        """Start no worker of that number later."""
        if (timer := self.retries.pop(number, None)) is not None:
            timer.cancel()
