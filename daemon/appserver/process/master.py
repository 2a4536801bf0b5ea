"""The master: it starts workers, watches over them, and replaces them by others without a moment without any.

    reload ──▶ generation N+1 starts, on the same listeners ──all ready──▶ N leaves, N+1 serves
                                    └──one fails, or is late──▶ N+1 ends, N goes on

It never imports the application and serves none of its requests; it owns the sockets, the signals, the control socket
and the word with the service manager. What becomes of a worker is a table, `process.policy`; here are the clock, the
processes and the generations.
"""

import asyncio
import os
import signal
from asyncio import AbstractEventLoop, Future, TimerHandle
from collections.abc import Callable, Mapping
from contextvars import Context
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from appserver import __version__
from appserver.asgi.control import make_control
from appserver.asgi.service import Service
from appserver.errors import AppserverError, Exit, ListenError, OperatorError
from appserver.net.listeners import Listener, open_listeners
from appserver.process import policy
from appserver.process.policy import GONE, HUNG, LEAVING, SERVING, STARTING, TABLE, Patience
from appserver.process.spawn import Worker, explain_exit, find_blocker
from appserver.process.worker import find_doubts, make_connections, report_failure
from appserver.settings import TABLE as ROWS
from appserver.settings import Loaded, Settings
from appserver.system.fds import raise_limit, take_inherited
from appserver.system.notifications import Notifications
from appserver.system.notify import Notifier
from appserver.telemetry.log import LEVELS, Log, build

if TYPE_CHECKING:
    from appserver.net.acceptor import Acceptor

TICK_SECONDS: Final = 0.25
"""Deadlines of workers are looked at this often; STATUS= is sent each second."""

SPARE_SECONDS: Final = 15.0
"""What a worker that leaves gets beyond its own deadlines, before it is killed."""

_SUMS: Final = ("connections", "requests", "websockets", "answered", "failed", "refused", "log_dropped")


@dataclass(slots=True)
class Generation:
    """Settings, and the workers that serve with them.

    Attributes:
        number: From 1.
        settings: What it was started with.
        environ: The environment of its workers.
        workers: By process id.
        complete: Set when all are ready, or with what went wrong before.
        exit_code: Of the worker that failed.
    """

    number: int
    settings: Settings
    environ: Mapping[str, str]
    complete: Future[str | None]
    workers: dict[int, Worker] = field(default_factory=dict)
    exit_code: Exit = Exit.STARTUP

    @property
    def serving(self) -> int:
        """Workers that are ready."""
        return sum(worker.state == SERVING for worker in self.workers.values())


def supervise(loaded: Loaded, resolve: Callable[[], Loaded]) -> Exit:
    """Run workers until told to stop.

    Args:
        loaded: The settings and where they came from.
        resolve: Reads them anew; raises `UsageError`.

    Returns:
        The process's exit code.
    """
    settings = loaded.settings.anchored()
    log, notifier = build(settings.log_level, settings.log_format), Notifier()
    listeners: list[Listener] = []
    try:
        inherited = take_inherited()
        raise_limit()
        listeners = open_listeners(settings, inherited.sockets, log)
        if any(listener.connected for listener in listeners):
            raise ListenError("a connection was handed over (Accept=yes, inetd), and --workers has none to share")
        if inherited.ignored:
            log.warning(inherited.ignored, code="socket_ignored")
        for warning in (*loaded.warnings, *find_doubts(settings, encrypted=any(one.tls for one in listeners))):
            log.warning(warning)
        with asyncio.Runner() as runner:
            return runner.run(_live(loaded, resolve, listeners, notifier, log))
    except OperatorError as error:
        return report_failure(error, notifier, log)
    finally:
        for listener in listeners:
            listener.close()


async def _live(
    loaded: Loaded, resolve: Callable[[], Loaded], listeners: list[Listener], notifier: Notifier, log: Log
) -> Exit:
    return await Master(loaded, resolve, listeners, notifier, log, asyncio.get_running_loop()).run()


class Master:
    """Runs generations of workers; see `supervise` for the arguments."""

    def __init__(
        self,
        loaded: Loaded,
        resolve: Callable[[], Loaded],
        listeners: list[Listener],
        notifier: Notifier,
        log: Log,
        loop: AbstractEventLoop,
    ) -> None:
        self._loaded, self._resolve, self._listeners = loaded, resolve, listeners
        self._notifier, self._log, self._loop = notifier, log, loop
        self._environ = dict(os.environ)
        self._notifications = Notifications()
        self._generations: list[Generation] = []
        self._current: Generation | None = None
        self._wanted = loaded.settings.workers or 1
        self._begun = monotonic()
        self._numbers = 0
        self._reloads = {"succeeded": 0, "failed": 0}
        self._lost = 0
        self._stops = 0
        self._stopped, self._left = asyncio.Event(), asyncio.Event()
        self._reloading: asyncio.Task[str | None] | None = None
        self._retries: dict[int, TimerHandle] = {}
        self._codes: set[int] = set()
        self._control: list[Acceptor] = []
        self._tick_timer: TimerHandle | None = None
        self.state = "starting"

    # The life

    async def run(self) -> Exit:
        """From the first generation to the end of the last."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._on_stop, number.name)
        # From the start: what these do to a process without a handler is to end or to stop it.
        self._loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        self._loop.add_signal_handler(signal.SIGTTIN, self._resize, 1)
        self._loop.add_signal_handler(signal.SIGTTOU, self._resize, -1)
        self._loop.add_reader(self._notifications, self._on_notification)
        self._start_control()
        self._tick()
        first = self._begin(self._loaded)
        self._notifier.status(f"Starting {_count(self._wanted, 'worker')}")
        stop = self._loop.create_task(self._stopped.wait())
        either: set[Future[Any]] = {first.complete, stop}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        code = Exit.OK
        if first.complete.done() and first.complete.result() is not None:
            code = first.exit_code
            self._notifier.failed(int(code), f"Not started: {first.complete.result()}")
        else:
            if first.complete.done():
                self._serve(first)
            await stop
        stop.cancel()
        return await self._end(code)

    def _serve(self, first: Generation) -> None:
        self._current = first
        self.state = "serving"
        self._notifier.ready(self._status())
        addresses = ", ".join(listener.url for listener in self._listeners)
        self._log.info(
            f"Serving {first.settings.app} on {addresses} with {_count(self._wanted, 'worker')}",
            code="ready",
            listeners=addresses,
            workers=self._wanted,
        )

    async def _end(self, code: Exit) -> Exit:
        self.state = "draining"
        self._notifier.stopping("Stopping: the workers finish what they have begun")
        if self._reloading is not None:
            self._reloading.cancel()
        for timer in self._retries.values():
            timer.cancel()
        for worker in self._workers():
            self._feed(worker, policy.RETIRED)
        while self._workers():
            self._left.clear()
            await self._left.wait()
        if Exit.CUT in self._codes and code is Exit.OK:
            code = Exit.CUT
        if self._tick_timer is not None:
            self._tick_timer.cancel()
        self._log.info("Stopped", code="stopped", workers_lost=self._lost)
        self._loop.remove_reader(self._notifications)
        self._notifications.close()
        for acceptor in self._control:
            acceptor.stop()
        return code

    def _on_hangup(self) -> None:
        if self.state == "serving":
            self.reload()
        else:
            self._log.warning(f"SIGHUP ignored: the server is {self.state}")

    def _on_stop(self, name: str) -> None:
        self._stops += 1
        if self._stops == 1:
            self._log.info(f"Stopping on {name}: draining", code="stopping", signal=name)
            self._stopped.set()
        else:
            self._log.warning(f"Stopping at once on a second {name}", code="stopping", signal=name)
            for worker in self._workers():
                worker.signal(signal.SIGTERM)  # the second one for each: it cuts what still runs

    # Generations

    def _begin(self, loaded: Loaded) -> Generation:
        self._numbers += 1
        settings = loaded.settings.anchored()
        environ = {**self._environ, **loaded.variables}
        generation = Generation(self._numbers, settings, environ, self._loop.create_future())
        self._generations.append(generation)
        for number in range(1, self._wanted + 1):
            self._spawn(generation, number)
        return generation

    def _spawn(self, generation: Generation, number: int, failures: int = 0) -> None:
        self._retries.pop(number, None)
        if self._stops or generation not in self._generations or number > self._wanted:
            return
        settings, environ, address = generation.settings, generation.environ, self._notifications.address
        try:
            worker = Worker(number, generation.number, settings, environ, self._listeners, address)
        except OSError as error:
            self._log.error(f"A worker cannot be started: {error.strerror}", code="worker_failed", errno=error.errno)
            if not generation.complete.done():
                generation.complete.set_result(f"a worker cannot be started: {error.strerror}")
            else:
                wait = policy.delay(failures + 1)
                self._retries[number] = self._loop.call_later(wait, self._spawn, generation, number, failures + 1)
            return
        worker.failures = failures
        generation.workers[worker.pid] = worker
        self._loop.add_reader(worker.pidfd, self._on_exit, generation, worker)
        self._log.debug("Started a worker", worker_pid=worker.pid, generation=generation.number)

    def reload(self) -> "asyncio.Task[str | None]":
        """Begin a reload, unless one is under way; its result is None, or what went wrong."""
        if self._reloading is None or self._reloading.done():
            # Not in the context of the request that asks for it, whose id its records would have.
            self._reloading = self._loop.create_task(self._reload(), context=Context())
        return self._reloading

    async def _reload(self) -> str | None:
        began = monotonic()
        self._notifier.reloading(f"Reloading: generation {self._numbers + 1} starts")
        failure = None
        generation = None
        try:
            loaded = self._resolve()
        except AppserverError as error:
            failure = str(error)
        else:
            self._warn_of_fixed(loaded)
            generation = self._begin(loaded)
            failure = await generation.complete
        if failure is None and generation is not None:
            self._promote(generation)
            self._loaded = loaded
            took = monotonic() - began
            self._reloads["succeeded"] += 1
            self._log.info(
                f"Reloaded in {took:.1f} s: generation {generation.number} serves",
                code="reloaded",
                generation=generation.number,
                duration_us=round(took * 1_000_000),
            )
        else:
            if generation is not None:
                self._retire(generation)
            self._reloads["failed"] += 1
            self._log.error(
                f"The reload has failed, and the workers from before go on: {failure}", code="reload_failed"
            )
        status = self._status() if failure is None else f"Reload failed: {failure}. {self._status()}"
        self._notifier.ready(status)
        return failure

    def _promote(self, generation: Generation) -> None:
        """Let the new generation take over from all before it."""
        self._current = generation
        self._log.channel.threshold = LEVELS[generation.settings.log_level]
        for timer in self._retries.values():
            timer.cancel()
        self._retries.clear()
        for other in self._generations:
            if other is not generation:
                self._retire(other)

    def _retire(self, generation: Generation) -> None:
        for worker in list(generation.workers.values()):
            self._feed(worker, policy.RETIRED)
        self._forget_empty()

    def _forget_empty(self) -> None:
        self._generations = [one for one in self._generations if one.workers or one is self._current]

    def _warn_of_fixed(self, loaded: Loaded) -> None:
        """Say which changed settings take a restart."""
        for row in ROWS:
            before, after = getattr(self._loaded.settings, row.name), getattr(loaded.settings, row.name)
            if not row.reload and before != after and row.name != "workers":
                self._log.warning(
                    f"{row.name} cannot change without a restart: {row.kind.show(before)} stays",
                    code="socket_ignored" if row.group == "Listening" else None,
                )
        self._wanted = loaded.settings.workers or self._wanted

    def _resize(self, step: int) -> None:
        """One worker more or less (SIGTTIN, SIGTTOU)."""
        generation = self._current
        if generation is None or self._wanted + step < 1:
            return
        self._wanted += step
        self._log.info(f"{_count(self._wanted, 'worker')} from now on", workers=self._wanted)
        if step > 0:
            self._spawn(generation, self._wanted)
        else:
            for worker in list(generation.workers.values()):
                if worker.number > self._wanted:
                    self._feed(worker, policy.RETIRED)

    # Workers

    def _workers(self) -> list[Worker]:
        return [worker for generation in self._generations for worker in generation.workers.values()]

    def _generation_of(self, worker: Worker) -> Generation:
        return next(one for one in self._generations if one.number == worker.generation)

    def _feed(self, worker: Worker, event: str) -> None:
        """Do what the table says of an event."""
        serving = worker.state == SERVING
        action, following = TABLE[worker.state, event]
        generation = self._generation_of(worker)
        if following != worker.state:
            worker.enter(following)
        if action == policy.ADMIT:
            if generation.serving >= self._wanted and not generation.complete.done():
                generation.complete.set_result(None)
        elif action == policy.FAIL:
            self._on_boot_failure(generation, worker)
        elif action == policy.REPLACE:
            self._replace(generation, worker)
        elif action == policy.EXPLAIN:
            worker.explain()
        elif action == policy.STOP:
            if self.state == "serving" and serving:
                worker.retire()
            else:
                worker.signal(signal.SIGTERM)
        elif action == policy.KILL:
            worker.signal(signal.SIGKILL)

    def _on_boot_failure(self, generation: Generation, worker: Worker) -> None:
        """A worker that has never served is gone."""
        if not generation.complete.done():
            generation.complete.set_result(f"a worker {self._explain(worker)} before it was ready")
            return
        self._replace(generation, worker)

    def _replace(self, generation: Generation, worker: Worker) -> None:
        if not generation.complete.done():
            generation.complete.set_result(f"a worker {explain_exit(worker.exit_code or 0)} as soon as it was ready")
        if generation is not self._current or worker.number > self._wanted:
            return
        lived = monotonic() - worker.begun >= policy.SETTLED_SECONDS
        failures = 0 if lived or worker.state == LEAVING else worker.failures + 1
        # The first one at once: what happens once is no storm.
        wait = policy.delay(failures - 1) if failures > 1 else 0.0
        self._retries[worker.number] = self._loop.call_later(wait, self._spawn, generation, worker.number, failures)

    def _on_exit(self, generation: Generation, worker: Worker) -> None:
        self._loop.remove_reader(worker.pidfd)
        state = worker.state
        stacks = worker.stacks() if state in (HUNG, policy.KILLED) else ""
        code = worker.reap()
        if self.state == "draining":
            self._codes.add(code)
        del generation.workers[worker.pid]
        if state in (SERVING, HUNG, policy.KILLED):
            self._lost += 1
            if state == SERVING:
                self._log.error(
                    f"Worker {worker.pid} {explain_exit(code)}; another takes its place",
                    code="worker_lost",
                    worker_pid=worker.pid,
                )
            else:
                blocker = find_blocker(stacks)
                where = f": it stands at {blocker}" if blocker else ""
                self._log.error(
                    f"Worker {worker.pid} was replaced, its event loop did not turn for"
                    f" {generation.settings.timeout_worker:g} s{where}",
                    code="worker_hung",
                    worker_pid=worker.pid,
                    stacks=stacks,
                )
        elif state in (STARTING, policy.DOOMED):
            generation.exit_code = Exit(code) if code in (Exit.USAGE, Exit.STARTUP) else Exit.STARTUP
            self._log.error(
                f"Worker {worker.pid} {self._explain(worker)}: it was not ready",
                code="worker_failed",
                worker_pid=worker.pid,
            )
        self._feed(worker, policy.EXITED)
        self._forget_empty()
        self._left.set()

    def _explain(self, worker: Worker) -> str:
        """How a worker ended that has never served."""
        late = worker.state == policy.DOOMED or worker.exit_code is None
        return "did not start in time" if late else explain_exit(worker.exit_code or 0)

    def _on_notification(self) -> None:
        known = {worker.pid: worker for worker in self._workers()}
        for pid, said in self._notifications.read():
            worker = known.get(pid)
            if worker is None or worker.state == GONE:
                continue
            if "WATCHDOG" in said or "READY" in said:
                worker.beat = monotonic()
            if "X_REPORT" in said:
                worker.report = _parse(said["X_REPORT"])
            if "READY" in said:
                self._feed(worker, policy.READY)
            if "STOPPING" in said:
                self._feed(worker, policy.STOPS)

    # Time

    def _tick(self) -> None:
        self._tick_timer = self._loop.call_later(TICK_SECONDS, self._tick)
        now = monotonic()
        beating = True
        for worker in self._workers():
            settings = self._generation_of(worker).settings
            patience = Patience(
                settings.timeout_worker_start,
                settings.timeout_worker,
                settings.graceful_timeout + settings.linger + SPARE_SECONDS,
            )
            since = worker.beat if worker.state == SERVING else worker.since
            if now - since > patience.of(worker.state):
                self._feed(worker, policy.LATE)
            beating = beating and worker.state not in (HUNG, policy.KILLED)
        if beating and self._notifier.watchdog_interval is not None:
            self._notifier.watchdog()
        if self.state == "serving" and (self._reloading is None or self._reloading.done()):
            self._notifier.status(self._status())
        elif self.state == "draining":
            self._notifier.extend(5)

    # Facts

    def _start_control(self) -> None:
        service = Service(application=make_control(self.report, self._reload_for_control), log=self._log)
        for listener in self._listeners:
            if listener.control:
                acceptor, endpoint = make_connections(self._loaded.settings, service, listener, self._loop, self._log)
                acceptor.start()
                self._control.append(acceptor)
                self._sweep(endpoint.sweep)

    def _sweep(self, sweep: Callable[[float], None]) -> None:
        sweep(monotonic())
        self._loop.call_later(1.0, self._sweep, sweep)

    async def _reload_for_control(self) -> str | None:
        return await asyncio.shield(self.reload())

    def report(self) -> dict[str, Any]:
        """What the control socket tells; `appserverctl status` shows it."""
        workers = self._workers()
        report: dict[str, Any] = {
            "state": self.state,
            "version": __version__,
            "uptime": round(monotonic() - self._begun, 3),
            "application": self._current.settings.app if self._current else self._loaded.settings.app,
            "generation": self._current.number if self._current else 0,
            "listeners": [listener.url for listener in self._listeners if not listener.control],
            "workers_wanted": self._wanted,
            "workers_lost": self._lost,
            "reloads": self._reloads["succeeded"],
            "reloads_failed": self._reloads["failed"],
        }
        report |= {name: sum(worker.report.get(name, 0) for worker in workers) for name in _SUMS}
        report["workers"] = [
            {
                "pid": worker.pid,
                "state": worker.state,
                "generation": worker.generation,
                "uptime": round(monotonic() - worker.begun, 3),
                **{name: worker.report.get(name, 0) for name in _SUMS},
            }
            for worker in workers
        ]
        return report

    def _status(self) -> str:
        report = self.report()
        serving = sum(worker.state == SERVING for worker in self._workers())
        return (
            f"Serving: {serving} of {_count(self._wanted, 'worker')}, {_count(report['connections'], 'connection')},"
            f" {_count(report['requests'], 'request')} in flight, {report['answered']} answered,"
            f" {report['failed']} failed"
        )


def _parse(text: str) -> dict[str, Any]:
    import json  # noqa: PLC0415

    try:
        report = json.loads(text)
    except ValueError:
        return {}
    return report if isinstance(report, dict) else {}


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
