"""Where the workers of --preload come from: one preloader for each generation, as the master sees it.

    importing ──ready──▶ forks a worker for each order ──its generation is retired──▶ told to end
        └── fails, or is late ──▶ what was ordered has failed         └── is lost ──▶ ordered again, of another one

A preloader that is lost is missed only when the next worker is to be started, and another one is made then: it would
import the application a second time, for workers that may never be needed.
"""

import os
import signal
from asyncio import AbstractEventLoop
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from errno import ECHILD
from socket import send_fds, socket
from time import monotonic
from typing import Any, Final

from appserver.errors import Exit
from appserver.net.listeners import Listener
from appserver.process.spawn import Adopted, Worker, make_line, start_worker
from appserver.settings import Settings
from appserver.system.notify import hear
from appserver.system.orphans import adopt_orphans, is_child
from appserver.telemetry.log import Log

PROGRAM: Final = "appserver.process.preload"

ORDER_SECONDS: Final = 10.0
"""What a preloader has for a fork. A tenth of a second is much, for gigabytes; but it may have been swapped out."""

END_SECONDS: Final = 5.0
"""What it gets to end after SIGTERM: code in C that runs at import takes no signal."""


@dataclass(slots=True)
class Order:
    """A worker that was ordered: its number, the master's end of its line, and the file for its stacks."""

    number: int
    line: socket
    stacks: int
    failures: int

    def cancel(self) -> None:
        """Let go of both. A worker that comes nevertheless finds no master, and ends."""
        self.line.close()
        os.close(self.stacks)


@dataclass(slots=True)
class Preloader:
    """A preloader.

    Attributes:
        process: As the master sees it.
        generation: The number of its generation.
        settings: Of its generation.
        ready: It has imported the application.
        waiting: Numbers of workers to be ordered when it is ready, and the failures before each.
        ordered: The order that it has not answered; one at a time.
        ended: Since when it has been told to end, of a monotonic clock.
        late: It was killed, for it took too long.
    """

    process: Worker
    generation: int
    settings: Settings
    ready: bool = False
    waiting: dict[int, int] = field(default_factory=dict)
    ordered: Order | None = None
    ended: float | None = None
    late: bool = False

    @property
    def ending(self) -> str:
        """How it ended, in words."""
        if self.late:
            return "did not fork in time" if self.ready else "did not start in time (--timeout-worker-start)"
        return self.process.ending


class Preloaders:
    """The preloaders of all generations.

    Args:
        listeners: What the workers serve.
        log: Where events go.
        loop: The running loop.
        admit: Takes a worker that was forked, and the failures before it.
        fail: Takes the number of a generation, why nothing comes of what was ordered, the exit code that belongs to
            it, and for each number of a worker the failures so far.
        on_end: Called when one has ended.
    """

    def __init__(
        self,
        listeners: Sequence[Listener],
        log: Log,
        loop: AbstractEventLoop,
        admit: Callable[[Worker, int], None],
        fail: Callable[[int, str, Exit, Mapping[int, int]], None],
        on_end: Callable[[], None],
    ) -> None:
        self._listeners, self._log, self._loop = listeners, log, loop
        self._admit, self._fail, self._on_end = admit, fail, on_end
        self._preloaders: list[Preloader] = []

    def order(
        self, generation: int, number: int, failures: int, settings: Settings, environ: Mapping[str, str], voice: int
    ) -> None:
        """Have a worker forked, by a new preloader where the generation has none.

        Args:
            generation: The number of its generation.
            number: Its place among the workers of that one.
            failures: Workers in its place that did not live long, before it.
            settings: What it serves with.
            environ: The environment of the application.
            voice: Of its generation (`process.handover`).

        Raises:
            OSError: A preloader cannot be started.
            ValueError: A variable of the environment has a NUL.
        """
        preloader = self._find(generation)
        if preloader is None:
            adopt_orphans()  # the workers, whose parent ends as soon as it has forked them
            process = start_worker(0, generation, settings, environ, self._listeners, voice=voice, program=PROGRAM)
            preloader = Preloader(process, generation, settings)
            self._preloaders.append(preloader)
            self._loop.add_reader(process.pidfd, self._on_exit, preloader)
            self._loop.add_reader(process.line, self._on_line, preloader)
            self._log.debug("Started a preloader", worker_pid=process.pid, generation=generation)
        if preloader.ordered is None or preloader.ordered.number != number:
            preloader.waiting.setdefault(number, failures)
            self._send(preloader)

    def retire(self, generation: int) -> None:
        """Have the preloader of a generation end; it comes to `on_end`."""
        preloader = self._find(generation)
        if preloader is not None:
            preloader.ended = monotonic()
            preloader.waiting.clear()
            preloader.process.signal(signal.SIGTERM)

    def look(self, now: float, still: float) -> None:
        """Enforce deadlines.

        Args:
            now: Of a monotonic clock.
            still: For how long the master itself stood still; forgiven.
        """
        for preloader in self._preloaders:
            process = preloader.process
            process.forgive(still)
            if preloader.ended is not None:
                preloader.ended += still
                late = now - preloader.ended > END_SECONDS
            elif not preloader.ready:
                late = now - process.since > preloader.settings.timeout_worker_start
            else:
                late = preloader.ordered is not None and now - process.beat > ORDER_SECONDS
            if late and not preloader.late:
                preloader.late = True
                process.signal(signal.SIGKILL)

    def has(self, generation: int) -> bool:
        """Whether a preloader of that generation is there, perhaps on its way out."""
        return any(one.generation == generation for one in self._preloaders)

    @property
    def pids(self) -> set[int]:
        """Of all."""
        return {one.process.pid for one in self._preloaders}

    @property
    def settled(self) -> bool:
        """Whether every worker that was forked is known by its pid."""
        return all(one.ordered is None for one in self._preloaders)

    def report(self) -> list[dict[str, Any]]:
        """Each of them."""
        return [
            {
                "pid": one.process.pid,
                "state": "leaving" if one.ended is not None else "ready" if one.ready else "importing",
                "generation": one.generation,
                "uptime": round(monotonic() - one.process.begun, 3),
                "memory": one.process.memory,
            }
            for one in self._preloaders
        ]

    def _find(self, generation: int) -> Preloader | None:
        return next((one for one in self._preloaders if one.generation == generation and one.ended is None), None)

    def _send(self, preloader: Preloader) -> None:
        """Order the next worker, when the one before has come."""
        if not preloader.ready or preloader.ordered is not None or not preloader.waiting:
            return
        number = min(preloader.waiting)
        failures = preloader.waiting.pop(number)
        preloader.process.beat = monotonic()
        try:
            with ExitStack() as undo:
                line, end = make_line()
                undo.callback(line.close)
                with end:
                    stacks = os.memfd_create("appserver-stacks")
                    undo.callback(os.close, stacks)
                    message = b"%d %d" % (number, preloader.generation)
                    send_fds(preloader.process.line, [message], [end.fileno(), stacks])
                undo.pop_all()
        except ConnectionError:
            preloader.waiting[number] = failures  # it has ended, of which we are about to hear
        except OSError as error:
            self._refuse(preloader, number, failures, error.errno or 0)
        else:
            preloader.ordered = Order(number, line, stacks, failures)

    def _on_line(self, preloader: Preloader) -> None:
        process = preloader.process
        told, open_ = hear(process.line)
        if not open_:
            self._loop.remove_reader(process.line)
        for said in told:
            preloader.ready = preloader.ready or "READY" in said
            if "EXIT_STATUS" in said:
                process.reason = said.get("STATUS", "")
            if "X_FORKED" in said:
                self._on_forked(preloader, said["X_FORKED"])
        self._send(preloader)

    def _on_forked(self, preloader: Preloader, told: str) -> None:
        """Take a worker that was forked."""
        order, preloader.ordered = preloader.ordered, None
        try:
            number, pid, errno = map(int, told.split())
        except ValueError:
            number = 0
        if order is None or number != order.number:
            # Not what a preloader says: the application has got hold of its line.
            preloader.ordered = order
            return
        # Whoever it is that says so: no process that is not ours is watched, or killed.
        if not errno and is_child(pid):
            try:
                worker = Worker(
                    number, preloader.generation, preloader.settings, Adopted(pid), order.line, order.stacks
                )
            except OSError as error:
                errno = error.errno or 0
            else:
                self._admit(worker, order.failures)
                return
        order.cancel()
        self._refuse(preloader, number, order.failures, errno or ECHILD)

    def _refuse(self, preloader: Preloader, number: int, failures: int, errno: int) -> None:
        why = os.strerror(errno)
        self._log.error(f"A worker cannot be forked: {why}", code="worker_failed", errno=errno)
        self._fail(preloader.generation, f"a worker cannot be forked: {why}", Exit.STARTUP, {number: failures})

    def _on_exit(self, preloader: Preloader) -> None:
        process = preloader.process
        self._loop.remove_reader(process.pidfd)
        self._on_line(preloader)  # what it has said before it ended
        self._loop.remove_reader(process.line)
        code = process.reap()
        self._preloaders.remove(preloader)
        missed = dict(preloader.waiting)
        if (order := preloader.ordered) is not None:
            missed[order.number] = order.failures
            order.cancel()
        if preloader.ended is None:
            ending, next_one = preloader.ending, "the next worker is started by another"
            if not preloader.ready:
                self._log.error(
                    f"Preloader {process.pid} {ending}: it was not ready",
                    code="worker_failed",
                    worker_pid=process.pid,
                )
            elif code:
                self._log.error(
                    f"Preloader {process.pid} {ending}; {next_one}", code="preloader_lost", worker_pid=process.pid
                )
            else:
                # By SIGTERM: systemctl stop sends it to all processes of a unit, and this one needs no time for it. The
                # master may hear of that before it has its own, and where workers were ordered, too.
                self._log.debug(f"Preloader {process.pid} has ended; {next_one}", worker_pid=process.pid)
            why = f"the preloader {ending}" + ("" if preloader.ready or preloader.late else " before it was ready")
            why += f": {process.reason}" if process.reason else ""
            exit_code = Exit(code) if code in (Exit.USAGE, Exit.STARTUP) else Exit.STARTUP
            if missed:
                self._fail(preloader.generation, why, exit_code, missed)
        self._on_end()
