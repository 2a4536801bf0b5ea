"""Upgrade in place: the main process becomes the version of appserver that is installed, and nobody notices.

    SIGUSR2 ──▶ rehearsal ──▶ exec: the same process, sockets and workers ──▶ reload: workers of the new version
                    └── fails: nothing has changed                              └── fails: those from before go on

Behind the exec there is no way back, so whatever can go wrong is tried before it (`process.rehearsal`). What is asked
of the server in this moment is not lost: signals wait, connections are in the backlog, and what becomes of workers is
told by descriptors that the next image has too (`process.estate`).
"""

import asyncio
import os
from asyncio import AbstractEventLoop, Task
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import Context
from time import monotonic
from typing import TYPE_CHECKING, Final, NoReturn, Protocol

from appserver import __version__
from appserver.errors import AppserverError
from appserver.net.listeners import Listener
from appserver.process.crew import Crew
from appserver.process.estate import Estate, Tally, gather, write
from appserver.process.rehearsal import UpgradeError, rehearse
from appserver.process.reload import Reloads
from appserver.settings import Settings
from appserver.system.image import ESTATE, Command, become, find_command
from appserver.telemetry.log import Log

if TYPE_CHECKING:
    from appserver.net.acceptor import Acceptor
    from appserver.net.endpoint import Endpoint

HANG_UP_SECONDS: Final = 1.0
"""What clients of the control socket get before the exec, to send what they have begun and to read the answer."""

LOOK_SECONDS: Final = 0.02
"""How often is looked whether they have, or whether a reload is over."""

SETTLE_TURNS: Final = 4
"""Turns of the event loop after which it has acted on every signal that came before they were held: asyncio's handler
writes to a socket pair, which is read in the first, and calls back in the next."""


class Serving(Protocol):
    """A master, as far as an upgrade is concerned with it."""

    failure: str | None
    """What is to be shown to the operator."""

    @property
    def stopping(self) -> bool:
        """It was told to stop."""

    def tally(self) -> Tally:
        """What it has counted."""

    def rest(self) -> AbstractAsyncContextManager[None]:
        """Act on no more signals, workers and times."""

    def show(self, text: str | None = None) -> None:
        """Show the operator this, or how all is."""


class Upgrades:
    """Upgrades of a master, one at a time.

    Args:
        master: That one.
        reloads: Its reloads.
        crew: Its workers.
        listeners: What they serve.
        fixed: Settings that no reload changes.
        control: What accepts on the control socket; filled by the master.
        log: Where events go.
        loop: The running loop.
        tally: What the images before this one have counted.

    Attributes:
        done: How many there were.
        failed: How many have failed.
        runs: One does, up to the exec.
    """

    def __init__(
        self,
        master: Serving,
        reloads: Reloads,
        crew: Crew,
        listeners: Sequence[Listener],
        fixed: Settings,
        control: "Sequence[tuple[Acceptor, Endpoint]]",
        log: Log,
        loop: AbstractEventLoop,
        tally: Tally,
    ) -> None:
        self._master, self._reloads, self._crew = master, reloads, crew
        self._listeners, self._fixed = listeners, fixed
        self._control, self._log, self._loop = control, log, loop
        self.done, self.failed = tally.upgrades, tally.upgrades_failed
        self._rehearsed = asyncio.Event()
        self._begun: Task[str | None] | None = None
        self._completing: Task[None] | None = None

    @property
    def runs(self) -> bool:
        """One is under way."""
        return self._begun is not None and not self._begun.done()

    def begin(self) -> "Task[str | None]":
        """Become the version that is installed; there is a result where that fails: what went wrong."""
        if self._begun is None or self._begun.done():
            self._rehearsed.clear()
            self._begun = self._loop.create_task(self._upgrade(), context=Context())
        return self._begun

    async def begin_and_tell(self) -> str | None:
        """What went wrong; None when the new version is about to take over, which tells the rest itself."""
        upgrade, rehearsal = self.begin(), self._loop.create_task(self._rehearsed.wait())
        await asyncio.wait({upgrade, rehearsal}, return_when=asyncio.FIRST_COMPLETED)
        rehearsal.cancel()
        if not upgrade.done():
            return None
        return "the server stops" if upgrade.cancelled() else upgrade.result()

    def complete(self, before: str) -> None:
        """Have workers of this version take over from those of another, whose master this process was."""
        self._completing = self._loop.create_task(self._complete(before))

    def cancel(self) -> None:
        """Upgrade no more."""
        for task in (self._begun, self._completing):
            if task is not None:
                task.cancel()

    # Before the exec

    async def _upgrade(self) -> str | None:
        self._master.show("Upgrading: the new version is tried")
        try:
            command = find_command()
            version = await self._rehearse(command)
            self._rehearsed.set()
            await self._become(command, version)
        except Exception as error:  # noqa: BLE001 - whatever it was: the version from before goes on
            known = isinstance(error, AppserverError | OSError)
            failure = str(error) if known else f"{type(error).__name__}: {error}"
            output = error.output if isinstance(error, UpgradeError) else None
            self._fail(failure, f"The upgrade has failed, and nothing has changed: {failure}", output)
            return failure

    async def _rehearse(self, command: Command) -> str:
        current = self._crew.current
        patience = (current.settings if current is not None else self._fixed).timeout_worker_start
        descriptor = write(self._gather())
        try:
            return await rehearse(command, descriptor, patience, self._loop, self._crew.others)
        finally:
            os.close(descriptor)

    async def _become(self, command: Command, version: str) -> NoReturn:
        """Go on as another image of this process, as soon as no reload runs."""
        while not self._master.stopping:
            if self._reloads.runs:
                await asyncio.sleep(LOOK_SECONDS)
                continue
            async with self._hung_up():
                # Behind its wait a reload may have begun.
                if not self._reloads.runs:
                    async with self._master.rest():
                        await self._exec(command, version)
        raise UpgradeError("the server stops")

    @asynccontextmanager
    async def _hung_up(self) -> AsyncIterator[None]:
        """Nobody speaks on the control socket: who comes waits."""
        for acceptor, endpoint in self._control:
            acceptor.pause()
            for _ in endpoint.drain_in_steps():
                pass  # who operates has not so many connections
        try:
            end = monotonic() + HANG_UP_SECONDS
            while self._speaks and monotonic() < end:  # noqa: ASYNC110 - no event tells of it
                await asyncio.sleep(LOOK_SECONDS)
            yield
        finally:
            for acceptor, endpoint in self._control:
                endpoint.draining = False
                acceptor.start()

    @property
    def _speaks(self) -> bool:
        """Somebody speaks on the control socket."""
        return any(acceptor.pending or endpoint.connections for acceptor, endpoint in self._control)

    async def _exec(self, command: Command, version: str) -> None:
        """Become another image, unless a signal that came before it says that all is to end."""
        for _ in range(SETTLE_TURNS):
            await asyncio.sleep(0)
        if self._master.stopping:
            return
        self._log.info(f"Upgrading from {__version__} to {version}", version=version)
        estate = self._gather()
        descriptor = write(estate)
        try:
            become(command, {**os.environ, ESTATE: str(descriptor)}, [descriptor, *estate.descriptors])
        finally:
            os.close(descriptor)

    def _gather(self) -> Estate:
        return gather(self._listeners, self._crew, self._fixed, self._master.tally())

    # Behind it

    async def _complete(self, before: str) -> None:
        failure = await self._reloads.begin()
        if failure is None:
            self.done += 1
            self._log.info(f"Upgraded from {before} to {__version__}", code="upgraded", version=__version__)
        else:
            self._fail(failure, f"{__version__} runs, and the workers of {before} go on: {failure}")

    def _fail(self, failure: str, text: str, output: str | None = None) -> None:
        self._master.failure = f"Upgrade failed: {failure}"
        self.failed += 1
        self._log.error(text, code="upgrade_failed", output=output)
        self._master.show()
