"""Reload: workers with new settings and new code take over from those that serve.

    reload ──▶ generation N+1 starts, on the same listeners ──all ready──▶ N leaves, N+1 serves
                                    └──one fails, or is late──▶ N+1 ends, N goes on

Until all of N+1 are ready, N serves as before.
"""

import asyncio
from asyncio import AbstractEventLoop, Task
from collections.abc import Callable
from contextvars import Context
from time import monotonic
from typing import Protocol

from appserver.errors import AppserverError
from appserver.process.crew import Crew
from appserver.process.estate import Tally
from appserver.process.generation import Generation
from appserver.settings import TABLE as ROWS
from appserver.settings import Loaded, Settings
from appserver.system.notify import Notifier
from appserver.telemetry.log import Log


class Serving(Protocol):
    """A master, as far as a reload is concerned with it."""

    failure: str | None
    """What is to be shown to the operator."""

    @property
    def status(self) -> str:
        """How all is."""

    def begin(self, loaded: Loaded) -> Generation:
        """Start a generation with these settings."""

    def take_over(self, generation: Generation, loaded: Loaded) -> None:
        """Serve with it."""


class Reloads:
    """Reloads of a master, one at a time.

    Args:
        master: That one.
        crew: Its workers.
        resolve: Reads the settings anew; raises `UsageError`.
        fixed: Settings that no reload changes.
        notifier: The service manager.
        log: Where events go.
        loop: The running loop.
        tally: What the images before this one have counted.

    Attributes:
        done: How many there were.
        failed: How many have failed.
    """

    def __init__(
        self,
        master: Serving,
        crew: Crew,
        resolve: Callable[[], Loaded],
        fixed: Settings,
        notifier: Notifier,
        log: Log,
        loop: AbstractEventLoop,
        tally: Tally,
    ) -> None:
        self._master, self._crew, self._resolve, self._fixed = master, crew, resolve, fixed
        self._notifier, self._log, self._loop = notifier, log, loop
        self.done, self.failed = tally.reloads, tally.reloads_failed
        self._begun: Task[str | None] | None = None
        self._next: Task[str | None] | None = None

    @property
    def runs(self) -> bool:
        """One is under way, or about to be."""
        return self._next is not None or (self._begun is not None and not self._begun.done())

    def begin(self) -> "Task[str | None]":
        """Begin a reload; its result is None, or what went wrong.

        While one is under way all who ask get the same next one: what they have changed may have come too late for
        the one that runs.
        """
        # Not in the context of the request that asks for it, whose id its records would have.
        if self._next is None:
            if self._begun is None or self._begun.done():
                self._begun = self._loop.create_task(self._reload(), context=Context())
                return self._begun
            self._next = self._loop.create_task(self._reload_after(self._begun), context=Context())
        # Also where the one before it has just ended: two at a time would retire each other's generations.
        return self._next

    async def begin_and_tell(self) -> str | None:
        """Reload, and wait for it; what went wrong, or None where a stop has cancelled it."""
        # Not awaited itself: whoever asked is to hear of that.
        reload = self.begin()
        await asyncio.wait({reload})
        return None if reload.cancelled() else reload.result()

    def cancel(self) -> None:
        """Reload no more."""
        for task in (self._begun, self._next):
            if task is not None:
                task.cancel()

    async def _reload_after(self, before: "Task[str | None]") -> str | None:
        await asyncio.wait({before})
        self._begun, self._next = self._next, None
        return await self._reload()

    async def _reload(self) -> str | None:
        began = monotonic()
        self._notifier.reloading("Reloading: a new generation starts")
        generation = None
        try:
            loaded = self._resolve()
            self._warn_of_fixed(loaded)
            generation = self._master.begin(loaded)
            failure = await generation.settle()
            if failure is None:
                self._take_over(generation, loaded, monotonic() - began)
        except AppserverError as error:
            failure = str(error)
        except Exception as error:  # noqa: BLE001 - whatever it was: READY=1 has to end this
            failure = f"{type(error).__name__}: {error}"
        if failure is not None:
            if generation is not None:
                self._crew.retire(generation)
            self.failed += 1
            self._log.error(
                f"The reload has failed, and the workers from before go on: {failure}", code="reload_failed"
            )
        self._master.failure = failure and f"Reload failed: {failure}"
        self._notifier.ready(self._master.status)
        return failure

    def _take_over(self, generation: Generation, loaded: Loaded, took: float) -> None:
        self._master.take_over(generation, loaded)
        self.done += 1
        self._log.info(
            f"Reloaded in {took:.1f} s: generation {generation.number} serves",
            code="reloaded",
            generation=generation.number,
            duration_us=round(took * 1_000_000),
        )

    def _warn_of_fixed(self, loaded: Loaded) -> None:
        """Say which changed settings take a restart."""
        if loaded.settings.workers is None:
            self._log.warning(f"workers cannot go without a restart: {self._fixed.workers} stay")
        for row in ROWS:
            before, after = getattr(self._fixed, row.name), getattr(loaded.settings, row.name)
            if not row.reload and before != after:
                self._log.warning(
                    f"{row.name} cannot change without a restart: {row.kind.write(before)} stays",
                    code="socket_ignored" if row.group == "Listening" else None,
                )
