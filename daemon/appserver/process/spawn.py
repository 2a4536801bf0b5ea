"""One worker process, as its master sees it: started, told, asked where it stands, killed."""

import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from time import monotonic
from typing import Any, Final, NamedTuple

from appserver.net.listeners import Listener
from appserver.process.handover import DROP, HURRY, RETIRE, VARIABLE, environment_for_workers, write
from appserver.process.idle import draw_limit
from appserver.process.policy import DOOMED, SERVING, STARTING
from appserver.process.signals import EXPLAIN_SIGNAL
from appserver.settings import Settings
from appserver.system.image import ORDERS, held_signals
from appserver.system.memory import read_resident
from appserver.telemetry.metrics import Metrics, brief

STACKS_SIZE: Final = 256 * 1024


class Spent(NamedTuple):
    """Why a worker should be replaced: a cause for the metrics, and a sentence."""

    cause: str
    reason: str


class Adopted:
    """A child that somebody else has forked, and whose parent is this process by now (`system.orphans`).

    Args:
        pid: Of the process.
    """

    __slots__ = ("pid",)

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def wait(self) -> int:
        """Its exit code, negative for a signal; waits for its end."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


class Worker:
    """A worker process; `start_worker` makes one, and `process.preloaders` those of `--preload`.

    Args:
        number: Its place among the workers of its generation, from 1.
        generation: That one's number.
        settings: What it serves with.
        process: What is waited for.
        line: Between it and the master.
        stacks: The file that it writes its stacks to.

    Attributes:
        state: Of `process.policy`.
        since: When that began.
        beat: When it was last heard that its event loop turns.
        exit_code: Once it has ended; negative for a signal.
        been: The states that it has been in.
        begun: When it was started; all of a monotonic clock, in seconds.
        report: What it last told of itself; None before that.
        initial: Bytes of it that were resident when it was ready.
        pidfd: Becomes readable when it ends.
        succeeded: Another one takes its place; it leaves when that one serves.
        failures: Workers in its place that did not live long, before it.
        reason: Why it could not start, as it said itself; empty before that.
    """

    __slots__ = (
        "_age",
        "_limit",
        "_process",
        "_settings",
        "_spent",
        "_stacks",
        "beat",
        "been",
        "begun",
        "exit_code",
        "failures",
        "generation",
        "initial",
        "line",
        "number",
        "pidfd",
        "reason",
        "report",
        "since",
        "state",
        "succeeded",
    )

    def __init__(
        self,
        number: int,
        generation: int,
        settings: Settings,
        process: "subprocess.Popen[bytes] | Adopted",
        line: socket.socket,
        stacks: int,
    ) -> None:
        self.number, self.generation = number, generation
        self.state = STARTING
        self.begun = self.since = self.beat = monotonic()
        self.report: Metrics | None = None
        self.failures, self.reason = 0, ""
        self.succeeded = False
        self._settings = settings
        # Not all at once: they were started together.
        self._age = settings.max_age * (1 + secrets.randbelow(100) / 1000)
        self._limit = draw_limit(settings)
        self._spent: Spent | None = None
        self.initial = 0
        self.exit_code: int | None = None
        self.been = {STARTING}
        self._process, self.line, self._stacks = process, line, stacks
        self.pidfd = os.pidfd_open(process.pid)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def descriptors(self) -> tuple[int, int]:
        """The line and the file of stacks: with the process id, all that somebody needs to watch over it."""
        return self.line.fileno(), self._stacks

    def enter(self, state: str) -> None:
        """Change the state."""
        self.state, self.since = state, monotonic()
        self.beat = self.since
        self.been.add(state)
        if state == SERVING:
            self.initial = self.memory

    def forgive(self, seconds: float) -> None:
        """Let its deadline be that much later."""
        self.since += seconds
        self.beat += seconds

    @property
    def ending(self) -> str:
        """How it ended, in words."""
        if DOOMED in self.been:
            return "did not start in time (--timeout-worker-start)"
        return explain_exit(self.exit_code) if self.exit_code is not None else "stopped by itself"

    def retire(self) -> None:
        """Have it leave what waits in the backlog to its successors, and go."""
        with suppress(OSError):
            self.line.send(RETIRE)

    def hurry(self) -> None:
        """Have it cut what still runs, whether or not it has been told to leave."""
        if SERVING in self.been:
            with suppress(OSError):
                self.line.send(HURRY)
        else:
            self.signal(signal.SIGTERM)  # nobody may read the line yet

    def drop_caches(self) -> None:
        """Have it give back what memory it can."""
        with suppress(OSError):
            self.line.send(DROP)

    def spend(self, reason: str) -> None:
        """Have it replaced for the sake of memory, as one that has done enough."""
        self._spent = Spent("memory", reason)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens where it has ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    def explain(self) -> None:
        """Have it write its stacks."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, EXPLAIN_SIGNAL)

    def stacks(self) -> str:
        """What it has written of its stacks."""
        return os.pread(self._stacks, STACKS_SIZE, 0).decode("utf-8", "replace").strip()

    @property
    def memory(self) -> int:
        """Bytes of it that are resident (proc_pid_statm(5)); 0 where that cannot be told."""
        return read_resident(self.pid)

    def find_spent(self) -> Spent | None:
        """Why it should be replaced; None where it should not."""
        if self._spent is not None:
            return self._spent
        settings = self._settings
        answered = self.report.answered if self.report is not None else 0
        if self._limit and answered >= self._limit:
            return Spent("requests", f"it has answered {answered} requests (--max-requests)")
        if self._age and monotonic() - self.begun >= self._age:
            return Spent("age", f"it is {self._age:.0f} s old (--max-age)")
        if settings.max_memory and (memory := self.memory) >= settings.max_memory:
            return Spent("memory", f"it takes {memory >> 20} MiB of memory (--max-memory)")
        return None

    def describe(self) -> dict[str, Any]:
        """What `/status` tells of it."""
        return {
            "pid": self.pid,
            "state": self.state,
            "generation": self.generation,
            "uptime": round(monotonic() - self.begun, 3),
            "memory": self.memory,
            **brief(self.report or Metrics()),
        }

    def reap(self) -> int:
        """Take its exit code and let go of everything; it has ended."""
        code = self.exit_code = self._process.wait()
        for descriptor in (self.pidfd, self._stacks):
            os.close(descriptor)
        self.line.close()
        return code


def start_worker(
    number: int,
    generation: int,
    settings: Settings,
    environ: Mapping[str, str],
    listeners: Sequence[Listener],
    *,
    voice: int,
    program: str = "appserver.process.child",
) -> Worker:
    """Start a worker.

    Args:
        number: Its place among the workers of its generation, from 1.
        generation: That one's number.
        settings: What it serves with.
        environ: The environment of the application.
        listeners: What it serves.
        voice: Of its generation (`process.handover`).
        program: The module that it runs.

    Raises:
        OSError: It cannot be started.
        ValueError: A variable of the environment has a NUL.
    """
    with ExitStack() as undo:
        stacks = os.memfd_create("appserver-stacks")
        undo.callback(os.close, stacks)
        line, end = make_line()
        undo.callback(line.close)
        with end:
            handover, inherited = write(settings, listeners, end, stacks, voice)
            try:
                with held_signals(ORDERS):  # which it inherits, until it has handlers
                    process = subprocess.Popen(  # noqa: S603 - ourselves
                        [*_interpreter(), "-P", "-m", program, f"{generation}.{number}"],
                        pass_fds=inherited,
                        stdin=subprocess.DEVNULL,
                        # A terminal's Ctrl-C is for the master, which tells the workers; a second signal would cut
                        # requests.
                        process_group=0,
                        env={**environment_for_workers(environ), VARIABLE: str(handover)},
                    )
            finally:
                os.close(handover)
        try:
            worker = Worker(number, generation, settings, process, line, stacks)
        except OSError:
            process.kill()
            process.wait()
            raise
        undo.pop_all()
    return worker


def make_line() -> tuple[socket.socket, socket.socket]:
    """The two ends of a line: the master's, which does not block, and the worker's."""
    line, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    line.setblocking(False)
    return line, end


def _interpreter() -> list[str]:
    """Python with the flags that this process has: -O, -W, -X dev and the like are meant for the application.

    Nothing public tells them; multiprocessing asks the same function for its own children.
    """
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001
    return [sys.executable, *flags]


def explain_exit(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name if -code in {number.value for number in signal.Signals} else str(-code)
    return f"was killed by {name}" + (", perhaps for lack of memory" if -code == signal.SIGKILL else "")
