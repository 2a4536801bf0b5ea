"""The program that this process runs: how it was started, and how the process becomes another one (execve(2)).

The process id, the parent, the children, pending signals, the signal mask and what is marked as inheritable stay;
everything else is new.
"""

import os
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, NoReturn

ESTATE: Final = "APPSERVER_ESTATE"
"""The number of the descriptor with what the image before has left (`process.estate`)."""

REHEARSAL: Final = "APPSERVER_REHEARSAL"
"""The same, for a process that is only to say whether it could go on from there."""

SIGNALS: Final = frozenset(
    {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU}
)
"""What a master acts on, and what would end or stop a process that has no handler yet."""

ORDERS: Final = SIGNALS - {signal.SIGTERM, signal.SIGINT}
"""Those of them that tell it to do anything but to end."""

_AT_EXECFN: Final = 31
"""getauxval(3), linux/auxvec.h."""


@dataclass(frozen=True, slots=True)
class Command:
    """How a program is run.

    Attributes:
        path: The file to execute.
        head: Its argument 0, and what stands before the arguments of appserver itself.
        words: Those.
    """

    path: str
    head: tuple[str, ...]
    words: tuple[str, ...]

    @property
    def line(self) -> list[str]:
        """The whole argument vector."""
        return [*self.head, *self.words]


def find_command() -> Command:
    """How this process was started, so that it can be started so again.

    A script is executed itself and not by the interpreter that runs it now: where a symbolic link to a virtual
    environment has been swapped, the one behind it names another interpreter.
    """
    path = _find_executed()
    words = tuple(sys.argv[1:])
    head = sys.orig_argv[: len(sys.orig_argv) - len(words)]
    # The kernel puts the interpreter and one argument at most in front of a script (execve(2)).
    head = [path] if path in head[1:3] else head
    return Command(path, tuple(head), words)


def _find_executed() -> str:
    """The path that was given to execve(2): that of a script, where it was one."""
    import ctypes  # noqa: PLC0415 - for an upgrade alone

    find = ctypes.CDLL(None).getauxval
    find.argtypes, find.restype = [ctypes.c_ulong], ctypes.c_char_p
    found: bytes | None = find(_AT_EXECFN)
    return os.fsdecode(found) if found else sys.executable


@contextmanager
def held_signals(numbers: Iterable[int] = SIGNALS) -> Iterator[None]:
    """Let signals wait, over an exec too; at the end of this they are delivered."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def hold_orders() -> None:
    """Let orders wait until there are handlers; who is told to end before that does.

    But for process 1 of a container: without a handler nothing ends it (kill(2)), so that is an order, too.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS if os.getpid() == 1 else ORDERS)


def release_signals() -> None:
    """Take what the image before has let wait, once there are handlers; a child, what its parent lets wait."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def leave_signals() -> None:
    """Have this thread take no signal: one that it takes in the moment of an exec is gone."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def become(command: Command, environ: Mapping[str, str], descriptors: Iterable[int]) -> NoReturn:
    """Become another program, which inherits these descriptors.

    Raises:
        OSError: It cannot be executed; nothing has changed.
    """
    kept = list(descriptors)
    for descriptor in kept:
        os.set_inheritable(descriptor, True)
    try:
        os.execve(command.path, command.line, environ)  # noqa: S606 - that there is no shell is as it should be
    finally:
        for descriptor in kept:
            os.set_inheritable(descriptor, False)
