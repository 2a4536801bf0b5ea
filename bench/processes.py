"""A contender's processes: started on a core of their own, measured as a whole, and ended without a rest."""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Final, Self

ROOT: Final = Path(__file__).parents[1]
PATIENCE: Final = 10.0
"""Seconds that a process gets to end after SIGTERM."""

_TICK: Final = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU time in seconds since the start, of all processes and threads, those that have ended included."""

    user: float
    system: float

    def __sub__(self, earlier: "Usage") -> "Usage":
        return Usage(self.user - earlier.user, self.system - earlier.system)

    @property
    def total(self) -> float:
        """User and system time together."""
        return self.user + self.system


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory in KiB, summed over the processes; PSS counts a page that n processes share as 1/n."""

    rss: int
    pss: int


class Session:
    """A program and whatever it starts.

    It is made a session of its own (setsid(2)), so that its processes can be found whoever their parents are by now.

    Args:
        command: The program and its arguments.
        cpu: The processor that it runs on; several as taskset(1) takes them.
        output: The file that standard output and error go to.
        environment: Its environment.
        pass_fds: Descriptors that it inherits.
    """

    def __init__(
        self,
        command: Sequence[str],
        cpu: int | str,
        output: Path,
        environment: Mapping[str, str],
        *,
        pass_fds: Sequence[int] = (),
    ) -> None:
        with output.open("wb") as file:
            # taskset(1) and not sched_setaffinity() in here: that would move whoever asks for the start.
            self._process = subprocess.Popen(
                ["taskset", "--cpu-list", str(cpu), *command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                cwd=ROOT,
                env=environment,
                start_new_session=True,
                pass_fds=pass_fds,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def ended(self) -> bool:
        """Whether the program that was started has ended."""
        return self._process.poll() is not None

    def tell(self, number: signal.Signals) -> None:
        """Send a signal to the program that was started, and not to what it has started."""
        self._process.send_signal(number)

    def measure_cpu(self) -> Usage:
        """The CPU time so far, from proc_pid_stat(5)."""
        user = system = 0
        for _, fields in self._read_stats():
            # utime and cutime, stime and cstime: the second of each is that of children that were waited for.
            user += int(fields[11]) + int(fields[13])
            system += int(fields[12]) + int(fields[14])
        return Usage(user * _TICK, system * _TICK)

    def measure_memory(self) -> Memory:
        """The memory now, from smaps_rollup (proc_pid_smaps(5))."""
        sums = {"Rss:": 0, "Pss:": 0}
        for pid, _ in self._read_stats():
            # It may have ended meanwhile.
            with suppress(OSError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]:
                    name, value, *_ = line.split()
                    if name in sums:
                        sums[name] += int(value)
        return Memory(sums["Rss:"], sums["Pss:"])

    def stop(self) -> None:
        """End all of it: SIGTERM, and SIGKILL to what is still there when the patience ends."""
        self._signal(signal.SIGTERM)
        end = monotonic() + PATIENCE
        # poll() reaps the program itself, which would count as running until then.
        while (not self.ended or self._list_pids()) and monotonic() < end:
            sleep(0.01)
        while not self.ended or self._list_pids():
            self._signal(signal.SIGKILL)
            sleep(0.01)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self._list_pids():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _list_pids(self) -> list[int]:
        return [pid for pid, fields in self._read_stats() if fields[0] != "Z"]

    def _read_stats(self) -> Iterator[tuple[int, list[str]]]:
        """The processes of the session, and the fields of /proc/PID/stat from the third (the state) on."""
        for entry in os.scandir("/proc"):
            if entry.name.isdecimal():
                # It may have ended meanwhile.
                with suppress(OSError):
                    stat = Path(entry.path, "stat").read_text(encoding="utf-8", errors="replace")
                    # The second field, the name in parentheses, may have spaces and parentheses in it.
                    fields = stat.rpartition(")")[2].split()
                    if int(fields[3]) == self._process.pid:
                        yield int(entry.name), fields
