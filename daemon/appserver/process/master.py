"""The master: it starts workers, watches over them, and replaces them by others without a moment without any.

    reload ──▶ a generation of workers takes over from the one before, on the same listeners (`process.reload`)
    upgrade ──▶ another version of appserver goes on from here, as the same process (`process.upgrade`) ──▶ reload

It never imports the application and serves none of its requests; it owns the sockets, the signals, the control socket
and the word with the service manager. What becomes of a worker is a table, `process.policy`; here are the clock, the
processes and the generations.
"""

import asyncio
import os
import signal
from asyncio import AbstractEventLoop, Future, TimerHandle
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from appserver import __version__
from appserver.asgi.control import make_control
from appserver.asgi.service import Service
from appserver.errors import Exit
from appserver.net.backlog import read_backlogs
from appserver.net.listeners import Listener
from appserver.process.crew import Crew
from appserver.process.endpoints import make_connections
from appserver.process.estate import Estate, Tally, adopt_crew
from appserver.process.generation import Generation
from appserver.process.idle import Idle, can_leave
from appserver.process.life import DRAINING, SERVING, STARTING, WARM_SECONDS
from appserver.process.metering import describe_certificate, describe_lost, make_statsd, report_certificates
from appserver.process.operations import Led, describe_drained
from appserver.process.relief import Relief, drop_all, spend_largest
from appserver.process.reload import Reloads
from appserver.process.signals import IGNORED, STOPS, leave
from appserver.process.upgrade import Upgrades
from appserver.settings import TABLE as ROWS
from appserver.settings import Loaded
from appserver.system.image import held_signals, leave_signals, release_signals
from appserver.system.notify import Notifier
from appserver.telemetry.log import LEVELS, Log
from appserver.telemetry.metrics import Snapshot, Window, summarize
from appserver.telemetry.text import show_count
from appserver.wire.select import warm

if TYPE_CHECKING:
    from appserver.net.acceptor import Acceptor
    from appserver.net.endpoint import Endpoint
    from appserver.telemetry.statsd import Statsd

UPGRADING: Final = "upgrading"
"""The state of the moment before an upgrade, in which nothing is begun."""

STOPPING: Final = "Stopping: the workers finish what they have begun"

TICK_SECONDS: Final = 0.25
"""Deadlines of workers are looked at, and STATUS= is renewed, this often."""

EXTEND_SECONDS: Final = 5.0
"""What the service manager is asked for while starting and while draining, each time."""


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
        estate: Estate | None = None,
    ) -> None:
        self._loaded, self._listeners = loaded, listeners
        self._notifier, self._log, self._loop = notifier, log, loop
        loop.set_default_executor(ThreadPoolExecutor(1, initializer=leave_signals))
        # Asked now: those of our own are closed as soon as the stop begins.
        self._urls = [listener.url for listener in listeners if not listener.control]
        self._fixed = loaded.settings  # what cannot change is what was said at the start
        self._crew = Crew(listeners, log, loop)
        self._environ = dict(os.environ)
        self._relief = Relief(log, os.environ)
        self._idle = Idle(0.0, monotonic())  # counts from when workers serve
        self._fed = 0.0  # when the watchdog last was
        self._estate = estate  # of the image before this one
        tally = estate.tally if estate is not None else Tally()
        self._begun = tally.begun
        self._relief.told = tally.memory_pressure
        self._stops = 0
        self._window = Window()
        self.failure: str | None = None  # of the last reload or upgrade
        self._stopped = asyncio.Event()
        self._control: list[tuple[Acceptor, Endpoint]] = []
        self._reloads = Reloads(self, self._crew, resolve, self._fixed, notifier, log, loop, tally)
        self._upgrades = Upgrades(
            self, self._reloads, self._crew, listeners, self._fixed, self._control, log, loop, tally
        )
        self._timers: dict[str, TimerHandle] = {}
        self._statsd: Statsd | None = None
        self.drained = tally.drained
        self.state = STARTING

    # The life

    async def run(self) -> Exit:
        """From the first generation to the end of the last."""
        # Ignored by who has started this process, it would have the kernel reap workers: waitid(2), ECHILD.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in STOPS:
            self._loop.add_signal_handler(number, self._on_stop, number.name)
        # From the start: what these do to a process without a handler is to end or to stop it.
        self._loop.add_signal_handler(signal.SIGHUP, self._on_change, signal.SIGHUP.name, self._reloads.begin)
        self._loop.add_signal_handler(signal.SIGUSR2, self._on_change, signal.SIGUSR2.name, self._upgrades.begin)
        self._loop.add_signal_handler(signal.SIGUSR1, self._log.warning, IGNORED[signal.SIGUSR1])
        self._loop.add_signal_handler(signal.SIGTTIN, self._on_change, signal.SIGTTIN.name, partial(self._resize, 1))
        self._loop.add_signal_handler(signal.SIGTTOU, self._on_change, signal.SIGTTOU.name, partial(self._resize, -1))
        crew = self._crew
        self._relief.watch(self._loop, lambda: drop_all(crew.workers), lambda: spend_largest(crew.workers))
        if self._estate is not None:
            self._take_up(self._estate)
        release_signals()
        self._start_control()
        self._statsd = make_statsd(self._fixed.anchored(), self.snapshot, self._loop, self._log)
        self._tick()
        self._look()
        try:
            if self._estate is None:
                return await self._begin_first()
            self._upgrades.complete(self._estate.version)
            await self._stopped.wait()
            return await self._end(Exit.OK, STOPPING)
        finally:
            if self._statsd is not None:
                self._statsd.close()

    async def _begin_first(self) -> Exit:
        first = self.begin(self._loaded)
        self._notifier.status(f"Starting {show_count(first.wanted, 'worker')}")
        stop = self._loop.create_task(self._stopped.wait())
        either: set[Future[Any]] = {first.complete, stop}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        code, status = Exit.OK, STOPPING
        failure = await first.settle() if first.complete.done() else None
        # Where all of a service are told to stop, its workers may be quicker: that is no failure.
        if failure is not None and not self.stopping:
            code, status = first.exit_code, f"Not started: {failure}"
            self._notifier.failed(int(code), status)
        else:
            if first.complete.done() and failure is None:
                self._serve(first)
            await stop
        stop.cancel()
        return await self._end(code, status)

    def _serve(self, first: Generation) -> None:
        self._crew.promote(first)
        self._watch_idle(first)
        self.state = SERVING
        self._notifier.ready(self.status)
        addresses = ", ".join(listener.url for listener in self._listeners)
        self._log.info(
            f"Serving {first.settings.app} on {addresses} with {show_count(first.wanted, 'worker')}",
            code="ready",
            listeners=addresses,
            workers=first.wanted,
        )

    async def _end(self, code: Exit, status: str) -> Exit:
        self.state = DRAINING
        self._notifier.stopping(status)
        self._upgrades.cancel()
        self._reloads.cancel()
        for listener in self._listeners:
            # The workers take what waits in it; who comes later must not wait for nobody, and a successor may bind.
            if not (listener.inherited or listener.control):
                listener.close()
        await self._crew.end()
        if Exit.CUT in self._crew.codes and code is Exit.OK:
            code = Exit.CUT
        for timer in self._timers.values():
            timer.cancel()
        self._log.info("Stopped", code="stopped", workers_lost=self._crew.lost)
        if code in (Exit.OK, Exit.CUT):  # else why it did not start is what is shown
            self._notifier.status("Stopped, requests were cut" if code is Exit.CUT else "Stopped")
        for acceptor, _ in self._control:
            acceptor.stop()
        # The loop, when it is closed, would leave the system's own handlers behind.
        with held_signals(STOPS):
            for number in STOPS:
                self._loop.remove_signal_handler(number)
            leave(code, self._log)
        return code

    def _on_change(self, name: str, change: Callable[[], object]) -> None:
        if self.state == SERVING:
            change()
        else:
            self._log.warning(f"{name} ignored: the server is {self.state}")

    def _on_stop(self, reason: str) -> None:
        self._stops += 1
        if self._stops == 1:
            self._begin_stop(reason)
        else:
            self._log.warning(f"Stopping at once on a second {reason}", code="stopping", signal=reason)
            self._crew.hurry()

    def _begin_stop(self, reason: str) -> None:
        self._log.info(f"Stopping on {reason}: draining", code="stopping", signal=reason)
        self._crew.cease()
        self._stopped.set()

    # Generations

    def begin(self, loaded: Loaded) -> Generation:
        """Start a generation with these settings."""
        # What takes a restart is as it was, for workers too: they would serve what nobody listens for.
        fixed = {row.name: getattr(self._fixed, row.name) for row in ROWS if not row.reload}
        workers = loaded.settings.workers or self._fixed.workers
        settings = replace(loaded.settings, workers=workers, **fixed).anchored()
        return self._crew.begin(settings, {**self._environ, **loaded.variables})

    def take_over(self, generation: Generation, loaded: Loaded) -> None:
        """Serve with this generation, which has these settings, from now on."""
        self._crew.promote(generation)
        self._watch_idle(generation)
        self._log.channel.threshold = LEVELS[generation.settings.log_level]
        self._loaded = loaded

    def _watch_idle(self, generation: Generation) -> None:
        self._idle = Idle(generation.settings.idle_exit if can_leave(self._listeners) else 0.0, monotonic())

    def _resize(self, step: int) -> None:
        """One worker more or less (SIGTTIN, SIGTTOU)."""
        wanted = self._crew.resize(step)
        self._log.info(f"{show_count(wanted, 'worker')} from now on", workers=wanted)

    # Another version (`process.upgrade`)

    def tally(self) -> Tally:
        """What was counted since the service began."""
        return Tally(
            begun=self._begun,
            reloads=self._reloads.done,
            reloads_failed=self._reloads.failed,
            upgrades=self._upgrades.done,
            upgrades_failed=self._upgrades.failed,
            drained=self.drained,
            memory_pressure=self._relief.told,
        )

    @asynccontextmanager
    async def rest(self) -> AsyncIterator[None]:
        """Begin nothing, and leave all that happens to who comes next."""
        with held_signals():
            self.state = UPGRADING
            self._timers["tick"].cancel()
            self._crew.hold()
            if self._statsd is not None:
                self._statsd.send()  # who comes next begins with what is counted then
            try:
                yield
            finally:
                self._crew.resume()
                if self.state == UPGRADING:
                    self.state = SERVING
                self._tick()

    def _take_up(self, estate: Estate) -> None:
        """Serve with the workers of the image before this one."""
        current = adopt_crew(estate, self._crew, self._loop)
        self._loaded = replace(self._loaded, settings=current.settings)
        self._log.channel.threshold = LEVELS[current.settings.log_level]
        self._window = Window(self._crew.figures().latencies)
        self._watch_idle(current)
        self.state = SERVING

    # Time

    def _tick(self) -> None:
        self._timers["tick"] = self._loop.call_later(TICK_SECONDS, self._tick)
        now = monotonic()
        beating = self._crew.look(now)
        interval = self._notifier.watchdog_interval
        if beating and interval is not None and now - self._fed >= interval:
            self._fed = now
            self._notifier.watchdog()
        if self.state == SERVING:
            figures = self._crew.figures()
            # A worker that has told nothing yet may have connections.
            if not self._crew.told:
                self._idle.restart(now)
            elif self._idle.is_over(now, figures.connections, figures.answered) and not self.stopping:
                self._begin_stop(f"--idle-exit: no connection for {self._loaded.settings.idle_exit:g} s")
            if not (self._reloads.runs or self._upgrades.runs):
                self.show()
        else:
            # Starting as well: --timeout-worker-start bounds it, and TimeoutStartSec= may be shorter.
            self._notifier.extend(EXTEND_SECONDS)
        if self.state == DRAINING and self.stopping:
            workers = show_count(len(self._crew.workers), "worker")
            requests = show_count(self._crew.figures().requests, "request")
            self._notifier.status(f"Draining: {workers} left, {requests} in flight")

    def _look(self) -> None:
        self._timers["look"] = self._loop.call_later(1.0, self._look)
        self._window.look(self._crew.figures().latencies)

    # Facts

    def _start_control(self) -> None:
        routes = Led(self, self._crew, self._log).routes
        service = Service(application=make_control(routes, self._log), log=self._log)
        for listener in self._listeners:
            if listener.control:
                acceptor, endpoint = make_connections(self._loaded.settings, service, listener, self._loop, self._log)
                acceptor.start()
                self._control.append((acceptor, endpoint))
                self._sweep(endpoint)
                self._timers["warm"] = self._loop.call_later(WARM_SECONDS, warm)

    def _sweep(self, endpoint: "Endpoint") -> None:
        endpoint.sweep(monotonic())
        self._timers[endpoint.name] = self._loop.call_later(1.0, self._sweep, endpoint)

    async def reload_for_control(self) -> str | None:
        """Reload; what went wrong, or None where a stop has cancelled it."""
        return await self._reloads.begin_and_tell()

    async def upgrade_for_control(self) -> str | None:
        """Upgrade; what went wrong before the exec."""
        return await self._upgrades.begin_and_tell()

    @property
    def serving(self) -> bool:
        """It neither starts nor stops: what is ordered can be done."""
        return self.state == SERVING

    @property
    def ready(self) -> bool:
        """Workers serve, and no operator has said that others should."""
        return self.state == SERVING and not self.drained

    def report(self) -> dict[str, Any]:
        """What the control socket tells; `appserverctl status` shows it."""
        current, figures = self._crew.current, self._crew.figures()
        return {
            "state": self.state,
            "ready": self.ready,
            "version": __version__,
            "uptime": round(monotonic() - self._begun, 3),
            "application": (current.settings if current else self._loaded.settings).app,
            "generation": current.number if current else 0,
            "listeners": self._urls,
            "workers_wanted": current.wanted if current else 0,
            "workers_lost": self._crew.lost,
            "reloads": self._reloads.done,
            "reloads_failed": self._reloads.failed,
            "memory_pressure": self._relief.told,
            "upgrades": self._upgrades.done,
            "upgrades_failed": self._upgrades.failed,
            "failure": self.failure,
            **summarize(figures, self._window),
            **report_certificates(figures),
            "workers": self._crew.report(),
            "preloaders": self._crew.preloaders.report(),
        }

    def snapshot(self) -> Snapshot:
        """What those who watch are told."""
        reloads = {"succeeded": self._reloads.done, "failed": self._reloads.failed}
        backlogs = read_backlogs(self._listeners)
        return Snapshot(__version__, self._crew.figures(), backlogs, self._crew.supervision(reloads))

    @property
    def stopping(self) -> bool:
        """It was told to stop, or does so by itself."""
        return self._stopped.is_set()

    def show(self, text: str | None = None) -> None:
        """Show the operator this, or how all is."""
        self._notifier.status(text or self.status)

    @property
    def status(self) -> str:
        """How all is, for `systemctl status`."""
        current, figures = self._crew.current, self._crew.figures()
        serving, wanted = (current.serving, current.wanted) if current else (0, 0)
        # Until one succeeds: what serves is not what was deployed.
        failed = f"{self.failure}. " if self.failure is not None else ""
        failed = describe_drained(self.drained) + failed
        return (
            f"{failed}Serving: {serving} of {show_count(wanted, 'worker')},"
            f" {show_count(figures.connections, 'connection')}, {show_count(figures.requests, 'request')} in flight,"
            f" {figures.answered} answered, {figures.failed} failed"
            f"{describe_certificate(figures)}{describe_lost(figures.log_dropped)}"
        )
