"""The workers of all generations: started, fed with what happens to them, replaced.

What becomes of one is a table, `process.policy`; here are the processes, their notifications and the clock. Which
generation serves is the master's to say (`process.master`).
"""

import asyncio
import os
import signal
from asyncio import AbstractEventLoop
from collections import Counter
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

from appserver.errors import Exit
from appserver.net.listeners import Listener
from appserver.process import policy
from appserver.process.generation import Generation
from appserver.process.inquiry import LOG_LEVEL, Inquiries
from appserver.process.losses import report_loss
from appserver.process.metering import read_report
from appserver.process.policy import CAUSES, HUNG, KILLED, LEAVING, SERVING, STARTING, STUCK, TABLE
from appserver.process.preloaders import Preloaders
from appserver.process.spawn import Worker, start_worker
from appserver.settings import Settings
from appserver.system.notify import hear
from appserver.system.orphans import reap_orphans
from appserver.telemetry.log import Log
from appserver.telemetry.metrics import Metrics, Supervision, total


class Crew:
    """The workers of all generations.

    Args:
        listeners: What they serve.
        log: Where events go.
        loop: The running loop.

    Attributes:
        generations: Those that have workers, and the current one.
        current: The one that serves; None before the first is complete.
        ceased: No worker is started any more.
        stopping: All have been told to leave.
        lost: Workers that ended without having been told to.
        restarts: Workers that another one took, or takes, the place of, by cause.
        codes: Exit codes since `stopping`.
        left: Set whenever a worker or a preloader has ended.
        moved: Set whenever a worker has got into another state, or is to be started anew.
        inquiries: What is asked of workers.
        preloaders: What forks the workers, with --preload.
        others: Children that somebody else waits for.
    """

    def __init__(self, listeners: Sequence[Listener], log: Log, loop: AbstractEventLoop) -> None:
        self._listeners, self._log, self._loop = listeners, log, loop
        self.preloaders = Preloaders(listeners, log, loop, self._enlist, self._fail, self._on_preloader)
        self._past = Metrics()  # of workers that are gone
        self._numbers = 0
        self._looked = monotonic()
        self._hurried: float | None = None  # since when
        self.generations: list[Generation] = []
        self.current: Generation | None = None
        self.ceased = self.stopping = False
        self.lost = 0
        self.restarts: Counter[str] = Counter()
        self.codes: set[int] = set()
        self.left, self.moved = asyncio.Event(), asyncio.Event()
        self.inquiries = Inquiries(loop)
        self.others: set[int] = set()

    # Generations

    def begin(self, settings: Settings, environ: Mapping[str, str]) -> Generation:
        """Start a generation; its `complete` tells what becomes of it."""
        self._numbers += 1
        wanted = settings.workers or 1
        generation = Generation(self._numbers, settings, wanted, environ, self._loop.create_future())
        self.generations.append(generation)
        try:
            for number in range(1, wanted + 1):
                self._spawn(generation, number)
        except BaseException:
            self.retire(generation)  # nobody else knows of it
            raise
        return generation

    def promote(self, generation: Generation) -> None:
        """Let a generation take over from all before it."""
        self.current = generation
        for other in list(self.generations):
            if other is not generation:
                self.retire(other)
        # As long as it was not the current one, nobody has replaced what it lost.
        self._fill(generation)

    def _fill(self, generation: Generation) -> None:
        """Start the workers that it misses and that nobody is to start later."""
        for number in generation.missing:
            self._spawn(generation, number)

    def retire(self, generation: Generation) -> None:
        """Have all workers of a generation leave."""
        generation.retired = True
        for number in list(generation.retries):
            generation.cancel(number)
        for worker in list(generation.workers.values()):
            self._feed(worker, policy.RETIRED)
        self.preloaders.retire(generation.number)
        self._forget_empty()

    def cease(self) -> None:
        """Start nobody from now on: where all of a service are told to stop, its workers may be quicker to leave."""
        self.ceased = True

    async def end(self) -> None:
        """Have all workers leave, and wait until they have."""
        self.ceased = self.stopping = True
        for generation in list(self.generations):
            self.retire(generation)
        if self._hurried is not None:
            self.hurry()  # the second signal has come before the first was acted on
        while self.generations:
            self.left.clear()
            await self.left.wait()

    def hurry(self) -> None:
        """Have all workers cut what still runs; when they have been told to leave, where that is still to come."""
        self._hurried = self._hurried or monotonic()
        if self.stopping:
            for worker in self.workers:
                worker.hurry()

    def resize(self, step: int) -> int:
        """Have so many workers more, or less, also in a generation that a reload has begun; how many there are then."""
        if self.current is None:
            return 0
        wanted = max(1, self.current.wanted + step)
        for generation in self.generations:
            if generation.retired:
                continue
            before, generation.wanted = generation.wanted, wanted
            for number in range(before + 1, wanted + 1):
                self._spawn(generation, number)
            for worker in list(generation.workers.values()):
                if worker.number > wanted:
                    self._feed(worker, policy.RETIRED)
            generation.check()
        return wanted

    def _forget_empty(self) -> None:
        for generation in list(self.generations):
            if generation.retired and not generation.workers and not self.preloaders.has(generation.number):
                os.close(generation.voice)
                self.generations.remove(generation)

    # Workers

    @property
    def workers(self) -> list[Worker]:
        """Of all generations."""
        return [worker for generation in self.generations for worker in generation.workers.values()]

    def succeed(self, worker: Worker, reason: str, cause: str) -> None:
        """Have a worker leave when another one serves in its place."""
        worker.succeeded = True
        self.restarts[cause] += 1
        self._log.info(f"Worker {worker.pid} is replaced: {reason}", worker_pid=worker.pid)
        self._spawn(self._generation_of(worker), worker.number)

    def _spawn(self, generation: Generation, number: int, failures: int = 0) -> None:
        generation.cancel(number)
        if self.ceased or generation.retired or number > generation.wanted:
            return
        settings, environ = generation.settings, generation.environ
        try:
            if settings.preload:
                self.preloaders.order(generation.number, number, failures, settings, environ, generation.voice)
                return  # it comes by way of _enlist()
            worker = start_worker(number, generation.number, settings, environ, self._listeners, voice=generation.voice)
        except (OSError, ValueError) as error:  # ValueError: a variable with a NUL, which no environment can hold
            why = error.strerror if isinstance(error, OSError) else error
            self._log.error(
                f"A worker cannot be started: {why}", code="worker_failed", errno=getattr(error, "errno", None)
            )
            if not generation.complete.done():
                generation.conclude(f"a worker cannot be started: {why}")
            else:
                self._plan(generation, number, failures + 1, policy.delay(failures + 1))
            return
        self._enlist(worker, failures)

    def _enlist(self, worker: Worker, failures: int) -> None:
        """Take in a worker that has been started."""
        generation = self._generation_of(worker)
        worker.failures = failures
        generation.workers[worker.pid] = worker
        self._watch(generation, worker)
        self._log.debug("Started a worker", worker_pid=worker.pid, generation=generation.number)
        if generation.retired or worker.number > generation.wanted:
            self._feed(worker, policy.RETIRED)  # nobody has waited for it

    def _watch(self, generation: Generation, worker: Worker) -> None:
        self._loop.add_reader(worker.pidfd, self._on_exit, generation, worker)
        self._loop.add_reader(worker.line, self._on_line, worker)

    def _fail(self, number: int, why: str, code: Exit, missed: Mapping[int, int]) -> None:
        """Do without workers that a preloader was to fork; later, where others of their generation serve."""
        generation = next(one for one in self.generations if one.number == number)
        if not generation.complete.done():
            generation.exit_code = code
            generation.conclude(why)
        if generation is self.current and not generation.retired:
            for place, failures in missed.items():
                # The first one at once, as after a worker that is lost.
                self._plan(generation, place, failures + 1, policy.delay(failures))

    def _on_preloader(self) -> None:
        self._forget_empty()
        self.left.set()

    def _plan(self, generation: Generation, number: int, failures: int, wait: float) -> None:
        generation.cancel(number)
        generation.misses[number] += 1
        self.moved.set()
        wait = max(wait, policy.SOON_SECONDS)
        generation.retries[number] = self._loop.call_later(wait, self._try_again, generation, number, failures)

    def _try_again(self, generation: Generation, number: int, failures: int) -> None:
        if failures > 1 and not generation.retired:
            os.eventfd_write(generation.voice, 1)  # why it fails may be another reason by now
        self._spawn(generation, number, failures)

    def _generation_of(self, worker: Worker) -> Generation:
        return next(one for one in self.generations if one.number == worker.generation)

    def _feed(self, worker: Worker, event: str) -> None:
        """Do what the table says of an event."""
        serving = worker.state == SERVING
        action, following = TABLE[worker.state, event]
        generation = self._generation_of(worker)
        if (cause := CAUSES.get((worker.state, event))) is not None:
            self.restarts[cause] += 1
        if following != worker.state:
            worker.enter(following)
            self.moved.set()
        if action == policy.ADMIT:
            worker.report = None  # that was of its start
            os.eventfd_write(generation.voice, 1)  # what goes wrong after this is news again
            if generation.level is not None:
                self.inquiries.tell(worker, LOG_LEVEL, level=generation.level)
            generation.check()
            for other in list(generation.workers.values()):
                if other.succeeded and other.number == worker.number and other is not worker:
                    self._feed(other, policy.RETIRED)
        elif action == policy.FAIL:
            reason = f": {worker.reason}" if worker.reason else ""
            generation.conclude(f"a worker {worker.ending} before it was ready{reason}")
            self._replace(generation, worker)
        elif action == policy.REPLACE:
            self._replace(generation, worker)
        elif action == policy.EXPLAIN:
            worker.explain()
        elif action == policy.STOP:
            if serving and not self.stopping:
                worker.retire()
            else:
                worker.signal(signal.SIGTERM)
        elif action == policy.KILL:
            worker.signal(signal.SIGKILL)

    def _replace(self, generation: Generation, worker: Worker) -> None:
        generation.conclude(f"a worker {worker.ending} as soon as it was ready")
        if generation is not self.current or generation.retired:
            return
        if worker.number > generation.wanted or worker.succeeded:
            return
        # Also after one that left by itself: if each one does, that is a storm as well.
        failures = 0 if monotonic() - worker.begun >= policy.SETTLED_SECONDS else worker.failures + 1
        # The first one at once: what happens once is no storm.
        self._plan(generation, worker.number, failures, policy.delay(failures - 1) if failures > 1 else 0.0)

    def _on_exit(self, generation: Generation, worker: Worker) -> None:
        self._loop.remove_reader(worker.pidfd)
        self._on_line(worker)  # what it has said before it ended
        self._loop.remove_reader(worker.line)
        state = worker.state
        stacks = worker.stacks() if state in (HUNG, KILLED, STUCK, policy.DOOMED) else ""
        code = worker.reap()
        if self.stopping:
            # One that had to be killed takes along what it was at; one that hung, what it hung in.
            hung = not worker.been.isdisjoint((HUNG, STUCK))
            cut = (
                code < 0 and SERVING in worker.been and (hung or (worker.report is not None and worker.report.requests))
            )
            self.codes.add(Exit.CUT if cut else code)
        del generation.workers[worker.pid]
        self.inquiries.forget(worker)
        if worker.report is not None:
            self._past += worker.report.kept()
        self.lost += state in (SERVING, HUNG, KILLED)
        if state in (STARTING, policy.DOOMED):
            generation.exit_code = Exit(code) if code in (Exit.USAGE, Exit.STARTUP) else Exit.STARTUP
        report_loss(worker, state, stacks, generation.settings.timeout_worker, self._log)
        self._feed(worker, policy.EXITED)
        self._forget_empty()
        self.left.set()

    def _on_line(self, worker: Worker) -> None:
        told, open_ = hear(worker.line)
        if not open_:
            self._loop.remove_reader(worker.line)  # it would be readable for ever
        for said in told:
            if not said.keys().isdisjoint(("WATCHDOG", "READY", "X_REPORT")):
                worker.beat = monotonic()  # its event loop has sent it
            if "EXIT_STATUS" in said:
                worker.reason = said.get("STATUS", "")
            state = None
            if "X_REPORT" in said:
                worker.report, state = read_report(said["X_REPORT"])
            if "X_ANSWER" in said:
                self.inquiries.take(worker, said["X_ANSWER"])
            # Each report says again what READY=1 and STOPPING=1 have said: messages get lost.
            if "READY" in said or (state == "serving" and worker.state == STARTING):
                self._feed(worker, policy.READY)
            if "STOPPING" in said or (state == "draining" and worker.state == SERVING):
                self._feed(worker, policy.STOPS)

    # Upgrade (`process.estate`)

    @property
    def last(self) -> int:
        """The number of the last generation."""
        return self._numbers

    @property
    def past(self) -> Metrics:
        """What is counted, and goes with this process if nobody takes it over: of workers that are gone, of its log."""
        return self._past + Metrics(log_dropped=self._log.dropped)

    def adopt(self, generations: list[Generation], current: Generation, last: int, past: Metrics) -> None:
        """Take over from a crew before this one, which has held."""
        self.generations, self.current, self._numbers, self._past = generations, current, last, past
        self.resume()

    def hold(self) -> None:
        """Leave all workers as they are: none is watched, and none is started."""
        for generation in self.generations:
            for number in list(generation.retries):
                generation.cancel(number)
            for worker in generation.workers.values():
                self._loop.remove_reader(worker.pidfd)
                self._loop.remove_reader(worker.line)

    def resume(self) -> None:
        """Go on after `hold`: what has happened to workers meanwhile is heard of now."""
        for generation in self.generations:
            for worker in generation.workers.values():
                self._watch(generation, worker)
        if self.current is not None and not self.stopping:
            self._fill(self.current)

    # Time

    def look(self, now: float) -> bool:
        """Enforce the deadlines of all workers; False while one of them hangs."""
        # Who stood still himself cannot tell that others were silent.
        still, self._looked = max(0.0, now - self._looked - 1.0), now
        self.preloaders.look(now, still)
        if self.preloaders.settled:
            reap_orphans({worker.pid for worker in self.workers} | self.preloaders.pids | self.others)
        for generation in self.generations:
            for worker in generation.find_late(now, still, self._hurried):
                self._feed(worker, policy.LATE)
        if self.current is not None and not self.stopping:
            self._recycle(self.current, now)
        return all(worker.state not in (HUNG, KILLED) for worker in self.workers)

    def _recycle(self, generation: Generation, now: float) -> None:
        """Have a worker that is spent succeeded by another: it leaves when that one serves."""
        if (found := generation.find_spent(now)) is not None:
            worker, spent = found
            self.succeed(worker, spent.reason, spent.cause)

    # Facts

    def figures(self) -> Metrics:
        """Sums over the workers, and of counts also over those that are gone and this process itself."""
        return total((self.past, *(worker.report for worker in self.workers if worker.report is not None)))

    def supervision(self, reloads: Mapping[str, int]) -> Supervision:
        """What the metrics tell of the workers; `reloads` are the master's, by outcome."""
        workers = dict.fromkeys((STARTING, SERVING, HUNG, LEAVING), 0)
        workers |= Counter(worker.state for worker in self.workers)
        restarts = dict.fromkeys((*CAUSES.values(), "requests", "age", "memory", "operator"), 0) | self.restarts
        return Supervision(workers, restarts, reloads, self.current.number if self.current is not None else 0)

    @property
    def told(self) -> bool:
        """Whether each worker that serves has told how it is."""
        return all(worker.report is not None for worker in self.workers if worker.state == SERVING)

    def report(self) -> list[dict[str, Any]]:
        """Each worker."""
        return [worker.describe() for worker in self.workers]
