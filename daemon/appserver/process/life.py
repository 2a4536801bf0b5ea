"""The life of a serving process: start, serve, drain, stop.

    STARTING ──ready──▶ SERVING ──stop──▶ DRAINING ──empty──▶ STOPPED   exit 0
        │                                     └──deadline, or stop again──▶ STOPPED   exit 4, if requests were cut
        └── stop ──▶ STOPPED   exit 0

How it drains is in `process.drain`.
"""

import asyncio
import signal
from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Sequence
from contextlib import suppress
from socket import socket
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from appserver import __version__
from appserver.asgi.fields import Defaults
from appserver.asgi.lifespan import Lifespan
from appserver.errors import Exit, LifespanError
from appserver.net.acceptor import Acceptor
from appserver.net.endpoint import Endpoint
from appserver.process.blocker import Watch
from appserver.process.drain import Drain
from appserver.process.endpoints import default_fields, import_late
from appserver.process.handover import DROP, HURRY, RETIRE
from appserver.process.idle import Idle, can_leave, draw_limit
from appserver.process.inquiry import QUESTION_SIZE, Witness
from appserver.process.metering import Meter, describe_lost
from appserver.process.operations import describe_drained
from appserver.process.relief import Relief, drop_caches
from appserver.process.signals import STOPS
from appserver.settings import Settings
from appserver.system.notify import Notifier
from appserver.telemetry.log import Log
from appserver.telemetry.text import show_count
from appserver.wire.select import build

if TYPE_CHECKING:
    from appserver.net.renewal import Certificates

STARTING: Final = "starting"
SERVING: Final = "serving"
DRAINING: Final = "draining"
STOPPED: Final = "stopped"

TICK_SECONDS: Final = 1.0
"""Deadlines are enforced, the Date field is renewed and STATUS= is sent this often."""

WARM_SECONDS: Final = 0.5
"""After the start, what was left out of it is imported."""

SHUTDOWN_SECONDS: Final = 10.0
"""What an application's lifespan shutdown gets, at least."""

SHUTDOWN_TICK_SECONDS: Final = 0.05
"""Meanwhile it is asked this often whether it is to be cut."""


class Life:
    """Runs one process's serving.

    Args:
        settings: What was asked for.
        lifespan: Of the application.
        acceptors: One for each listener, with the endpoint that serves it.
        notifier: The service manager.
        log: Where events go.
        loop: The running loop.
        engines: Names of the HTTP/1.1 engine and of the HTTP/2 engine, None where that is not served.
        relief: Hears when memory is short.
        certificates: What TLS is spoken with; None without TLS.
        line: To the master; None where there is none.

    Attributes:
        snapshot: Tells what those who watch are told.
        watch: Tells who blocks the loop, where it is entered for as long as the life runs.
    """

    def __init__(
        self,
        settings: Settings,
        lifespan: Lifespan,
        acceptors: Sequence[tuple[Acceptor, Endpoint]],
        notifier: Notifier,
        log: Log,
        loop: AbstractEventLoop,
        engines: tuple[str, str | None],
        relief: Relief,
        certificates: "Certificates | None" = None,
        line: socket | None = None,
    ) -> None:
        self._line = line
        # One of several says it quietly: the service is its master's.
        self._say = log.info if line is None else log.debug
        self._engines, self._relief = engines, relief
        self._settings, self._lifespan, self._notifier, self._log, self._loop = settings, lifespan, notifier, log, loop
        self._acceptors, self._certificates = acceptors, certificates
        # Asked now: a listener of our own is closed as soon as draining begins.
        self._urls = [acceptor.listener.url for acceptor, _ in acceptors]
        self._endpoints = [endpoint for acceptor, endpoint in acceptors if not acceptor.listener.control]
        self._access = self._endpoints[0].service.access
        self._meter = Meter(self._endpoints[0].service.figures, [one for one, _ in acceptors], log, certificates)
        self.snapshot = self._meter.snapshot
        self._stop = asyncio.Event()
        self._stops = 0
        self._timers: dict[str, TimerHandle] = {}
        self._begun = monotonic()
        self.watch = Watch(log, TICK_SECONDS)
        self._idle = Idle(settings.idle_exit if can_leave(one.listener for one, _ in acceptors) else 0.0, self._begun)
        self._limit = draw_limit(settings)
        self._drain = Drain(settings, acceptors, log, shared=line is not None)
        self.witness = Witness(self._endpoints, log)
        self.drained = False
        self.state = STARTING

    # Facts

    @property
    def ready(self) -> bool:
        """Requests are served, and no operator has said that others should serve them."""
        return self.state == SERVING and not self.drained

    def report(self) -> dict[str, Any]:
        """What the control socket tells; `appserverctl status` shows it."""
        report = {
            "state": self.state,
            "ready": self.ready,
            "version": __version__,
            "build": build(),
            "uptime": round(monotonic() - self._begun, 3),
            "application": self._settings.app,
            "loop": type(self._loop).__module__.partition(".")[0],
            "http": self._engines[0],
            "http2": self._engines[1],
            "listeners": self._urls,
            "lifespan": self._lifespan.supported,
            **self._meter.report(),
            "memory_pressure": self._relief.told,
        }
        if self._certificates is not None:
            report |= self._certificates.report()
            report["handshakes_failed"] = self._meter.read().handshakes_failed
        return report

    def _status(self) -> str:
        figures = self._endpoints[0].service.figures
        what = f"{show_count(figures.connections, 'connection')}, {show_count(figures.requests, 'request')} in flight"
        lost = describe_lost(self._log.dropped)
        if self.state == DRAINING:
            return f"Draining: {what}, {max(0, round(self._drain.left))} s left{lost}"
        certificate = f", {self._certificates.status}" if self._certificates is not None else ""
        drained = describe_drained(self.drained)
        return f"{drained}Serving: {what}, {figures.answered} answered, {figures.failed} failed{certificate}{lost}"

    # The life

    async def run(self) -> Exit:
        """Live from the lifespan's startup to its shutdown.

        Raises:
            LifespanError: The application did not start.
        """
        for number in STOPS:
            self._loop.add_signal_handler(number, self._on_signal, number.name)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        if self._line is not None:
            self._loop.add_reader(self._line, self._on_master, self._line)
        self._relief.watch(self._loop, drop_caches)
        self._notifier.status(f"Starting: the startup of {self._settings.app} runs")
        self._repeat("watchdog", self._notifier.watchdog_interval, self._notifier.watchdog)
        self._tick()
        for acceptor, _ in self._acceptors:
            if acceptor.listener.control:
                acceptor.start()  # so that probes can tell a process that starts from one that is not there
        if not await self._start():
            return Exit.OK
        self._serve()
        await self._stop.wait()
        self.state = DRAINING
        self._drain.begin()
        self._notifier.stopping(self._status())
        cut = await self._drain.run()
        if self._access is not None:
            self._access.close()  # now, so that the log of the shutdown stands behind all requests
        await self._shut_down()
        self.state = STOPPED
        self._tell_master()  # the last figures, for its sums
        (self._log.info if cut else self._say)("Stopped", code="stopped", requests_cut=cut)
        self._notifier.status(f"Stopped, {show_count(cut, 'request')} cut" if cut else "Stopped")
        for timer in self._timers.values():
            timer.cancel()
        return Exit.CUT if cut else Exit.OK

    async def _start(self) -> bool:
        """Run the lifespan's startup; False when the process is told to stop first."""
        startup = self._loop.create_task(self._lifespan.startup(self._loop))
        stop = self._loop.create_task(self._stop.wait())
        await asyncio.wait({startup, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if startup.done():
            startup.result()
            return True
        startup.cancel()
        self._lifespan.cancel()
        with suppress(asyncio.CancelledError, LifespanError):
            await startup
        self._log.info("Stopped before the application had started", code="stopped", requests_cut=0)
        return False

    def _serve(self) -> None:
        for endpoint in self._endpoints:
            endpoint.service.state = self._lifespan.state
        served = [(acceptor, endpoint) for acceptor, endpoint in self._acceptors if not acceptor.listener.control]
        if all(acceptor.listener.connected for acceptor, _ in served):
            for acceptor, endpoint in served:
                acceptor.on_gone = endpoint.on_last = self._on_last
        for acceptor, _ in served:
            acceptor.start()
        self.state = SERVING
        self._idle.restart(monotonic())
        self._notifier.ready(self._status())
        addresses = ", ".join(self._urls)
        self._say(
            f"Serving {self._settings.app} on {addresses}",
            code="ready",
            listeners=addresses,
            http=self._engines[0],
            http2=self._engines[1] or "off",
            build=build(),
        )
        self._timers["warm"] = self._loop.call_later(WARM_SECONDS, self._warm)

    def _warm(self) -> None:
        """Import what the start left out, while nobody waits for it."""
        flaw = None
        with suppress(OSError):  # no descriptor is left: each is imported when it is needed
            flaw = import_late(self._settings, http2=self._engines[1] is not None)
        if flaw:
            self._log.warning(f"HTTP/2: {flaw}")

    async def _shut_down(self) -> None:
        left = max(self._drain.left, SHUTDOWN_SECONDS)
        shutdown = self._loop.create_task(self._lifespan.shutdown())
        await asyncio.sleep(0)  # which is all that it takes where there is no lifespan
        while not shutdown.done() and left > 0 and not self._drain.hurried:
            await asyncio.wait({shutdown}, timeout=SHUTDOWN_TICK_SECONDS)
            left -= SHUTDOWN_TICK_SECONDS
        if not shutdown.done():
            self._log.warning("The application's shutdown did not end in time", code="drain_cut", requests_cut=0)
            shutdown.cancel()
            self._lifespan.cancel()

    # Timers and signals

    def _repeat(self, name: str, interval: float | None, action: Any) -> None:
        if interval is None:
            return
        self._timers[name] = self._loop.call_later(interval, self._repeat, name, interval, action)
        action()

    def _tick(self) -> None:
        # First, so that no fault in what follows can stop it: deadlines, and the date, hang on it.
        self._timers["tick"] = self._loop.call_later(TICK_SECONDS, self._tick)
        self._meter.look(self.watch.turn())
        now = monotonic()
        fields, encrypted = (Defaults(default_fields(self._settings, tls=tls)) for tls in (False, True))
        if self._certificates is not None:
            self._certificates.tick(self._loop)
        for acceptor, endpoint in self._acceptors:
            acceptor.sweep(now)
            endpoint.sweep(now)
            endpoint.service.fields = encrypted if acceptor.listener.tls else fields
        if self.state == SERVING and self._line is None:
            self._retire(now)
        if self._access is not None:
            self._access.flush()  # without traffic nothing else tells that no records are dropped any more
        if self.state == DRAINING:
            # Each message buys so many seconds more; TimeoutStopSec= alone would end a long drain.
            self._notifier.extend(TICK_SECONDS * 5)
        if self.state != STARTING:
            self._notifier.status(self._status())
        self._tell_master()

    def _tell_master(self) -> None:
        if self._line is not None:
            self._notifier.report({"state": self.state, **self._meter.read().dump()})

    def _retire(self, now: float) -> None:
        """Stop by ourselves, where that was asked for; with workers it is the master's to see to."""
        figures = self._endpoints[0].service.figures
        if self._limit and figures.answered >= self._limit:
            self._begin_stop(f"--max-requests, after {figures.answered} answers")
        elif self._idle.is_over(now, figures.connections, figures.answered):
            self._begin_stop(f"--idle-exit: no connection for {self._settings.idle_exit:g} s")

    def _on_signal(self, name: str) -> None:
        # A service manager tells all processes of a service (systemd.kill(5)), and so does the master: a worker that is
        # told twice is not told to cut what it has begun. For that there is the master's word.
        if self._line is None or not self._stops:
            self._on_stop(name)

    def _on_stop(self, name: str) -> None:
        self._stops += 1
        if self._stops == 1:
            self._begin_stop(name)
        else:
            self._log.warning(f"Stopping at once on a second {name}", code="stopping", signal=name)
            self._drain.hurried = True
            self._stop.set()

    def _begin_stop(self, name: str) -> None:
        self._say(f"Stopping on {name}: draining", code="stopping", signal=name)
        self._stop.set()

    def _on_master(self, line: socket) -> None:
        """The master says that successors serve, that memory is short or that it is time to cut; or it is no more."""
        try:
            word = line.recv(QUESTION_SIZE)
        except BlockingIOError:
            return
        except OSError:
            word = b""
        if (reply := self.witness.reply(word)) is not None:
            self._notifier.answer(reply)
            return
        if word == DROP:
            self._log.debug(f"Memory is short: {drop_caches()}", code="memory_pressure")
            return
        if word == RETIRE:
            for acceptor, _ in self._acceptors:
                acceptor.listener.inherited = True  # so what waits in its backlog is left to them
            if not self._stops:  # else it leaves already: this is not to cut what it has begun
                self._on_stop("the master's word")
            return
        if word == HURRY:
            self._stops = max(self._stops, 1)
            self._on_stop("word of the master")
        elif not word:
            self._stops = max(self._stops, 1)
            self._loop.remove_reader(line)
            self._log.warning("Stopping: the master is gone", code="stopping")
            self._stop.set()
        # All else is of a later version, which has taken over meanwhile and knows more words.

    def _on_last(self) -> None:
        """The connections that we were started for (Accept=yes, inetd) are over, and nothing accepts others."""
        if not any(
            acceptor.pending or endpoint.connections
            for acceptor, endpoint in self._acceptors
            if not acceptor.listener.control
        ):
            self._stop.set()
