"""One worker process, as its master sees it: started, told, asked where it stands, killed."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Final

from appserver.net.listeners import Listener
from appserver.process.handover import RETIRE, VARIABLE, environment_for_workers, write
from appserver.process.policy import STARTING
from appserver.process.worker import EXPLAIN_SIGNAL
from appserver.settings import Settings

_MICROSECONDS: Final = 1_000_000
_FRAME: Final = re.compile(r'  File "(.*)", line ([0-9]+) in (.*)')
STACKS_SIZE: Final = 256 * 1024


class Worker:
    """A worker process.

    Args:
        number: Its place among the workers of its generation, from 1.
        generation: That one's number.
        settings: What it serves with.
        environ: The environment of the application.
        listeners: What it serves.
        address: Where it is to notify.

    Attributes:
        state: Of `process.policy`.
        since: When that began.
        beat: When it was last heard that its event loop turns.
        exit_code: Once it has ended; negative for a signal.
        begun: When it was started; all of a monotonic clock, in seconds.
        report: What it last told of itself.
        pidfd: Becomes readable when it ends.
        failures: Workers in its place that did not live long, before it.
    """

    __slots__ = (
        "_line",
        "_process",
        "_stacks",
        "beat",
        "begun",
        "exit_code",
        "failures",
        "generation",
        "number",
        "pidfd",
        "report",
        "since",
        "state",
    )

    def __init__(
        self,
        number: int,
        generation: int,
        settings: Settings,
        environ: Mapping[str, str],
        listeners: Sequence[Listener],
        address: str,
    ) -> None:
        self.number, self.generation = number, generation
        self.state = STARTING
        self.begun = self.since = self.beat = monotonic()
        self.report: dict[str, Any] = {}
        self.failures = 0
        self.exit_code: int | None = None
        self._stacks = os.memfd_create("appserver-stacks")
        self._line, end = socket.socketpair()
        handover, inherited = write(settings, listeners, end, self._stacks)
        try:
            self._process = subprocess.Popen(  # noqa: S603 - ourselves
                [sys.executable, "-P", "-m", "appserver.process.child", f"{generation}.{number}"],
                pass_fds=inherited,
                stdin=subprocess.DEVNULL,
                # A terminal's Ctrl-C is for the master, which tells the workers; a second signal would cut requests.
                process_group=0,
                env={
                    **environment_for_workers(environ),
                    VARIABLE: str(handover),
                    "NOTIFY_SOCKET": address,
                    "WATCHDOG_USEC": str(round(settings.timeout_worker * _MICROSECONDS)),
                },
            )
        except BaseException:
            os.close(self._stacks)
            self._line.close()
            raise
        finally:
            os.close(handover)
            end.close()
        self.pidfd = os.pidfd_open(self._process.pid)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def enter(self, state: str) -> None:
        """Change the state."""
        self.state, self.since = state, monotonic()
        self.beat = self.since

    def retire(self) -> None:
        """Have it leave what waits in the backlog to its successors, and go."""
        with suppress(OSError):
            self._line.send(RETIRE)

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

    def reap(self) -> int:
        """Take its exit code and let go of everything; it has ended."""
        code = self.exit_code = self._process.wait()
        for descriptor in (self.pidfd, self._stacks):
            os.close(descriptor)
        self._line.close()
        return code


def explain_exit(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name if -code in {number.value for number in signal.Signals} else str(-code)
    return f"was killed by {name}" + (", perhaps for lack of memory" if -code == signal.SIGKILL else "")


def find_blocker(stacks: str) -> str:
    """The line in which the main thread stands, of stacks that faulthandler wrote: the innermost one of no library."""
    _, mark, main = stacks.rpartition("Current thread")
    frames = _FRAME.findall(main.partition("\n\n")[0] if mark else stacks)
    own = [frame for frame in frames if "/lib/python" not in frame[0] and not frame[0].startswith("<")]
    return next((f"{file}:{line} in {function}" for file, line, function in own or frames), "")
