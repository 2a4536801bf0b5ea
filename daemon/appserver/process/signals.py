"""What signals do to a process of ours while it has no event loop to take them: before there is one, and after it.

    SIGTERM, SIGINT     end it cleanly: a start by `stop_early`, what is left of a process by `leave`; and at the very
                        end, where the interpreter has taken all handlers away, do nothing (`keep_exit_code`)
    SIGHUP, SIGUSR2     do nothing: they are for a master (`ignore_orders`)
    SIGTTIN, SIGTTOU    do nothing to those who have a master (`ignore_resize`)
    SIGIO               ends a worker or a preloader with its master (`end_with_master`)
    SIGSEGV and others  write the stacks, and end it (`tell_crashes`)

In between they are handled by `process.life` or `process.master`.
"""

import atexit
import faulthandler
import os
import select
import signal
import sys
import threading
from fcntl import F_GETFL, F_SETFL, F_SETOWN, fcntl
from socket import socket
from time import sleep
from typing import Final

from appserver.errors import Exit
from appserver.telemetry.log import Log

STOPS: Final = (signal.SIGTERM, signal.SIGINT)
"""What ends the process. Blocked from when a loop begins to turn until its handlers are there: uvloop is of no use any
more when an exception of the handler before theirs meets it in the midst of that."""

LEAVE_SECONDS: Final = 5.0
"""What threads and exit handlers of the application get once everything is answered."""

TELL_SECONDS: Final = 1.0
"""Threads that last longer are named: those of an executor end at once, and there is nothing to tell."""

EXPLAIN_SIGNAL: Final = signal.SIGRTMIN + 3
"""Has a worker write the stacks of its threads to the file that its master reads; no signal that applications use."""

IGNORED: Final[dict[int, str]] = {
    signal.SIGHUP: "SIGHUP ignored: a single process has no reload; restart it (a socket unit loses no request)",
    signal.SIGUSR2: "SIGUSR2 ignored: a single process is not upgraded in place; restart it, or use --workers",
    signal.SIGUSR1: "SIGUSR1 ignored: no log is reopened; it goes to stderr (logrotate: copytruncate) or the journal",
}
"""What is not for a worker, and what a single process says to it."""


class StoppedEarly(BaseException):
    """SIGTERM or SIGINT while the application is imported; not an Exception, so that no import swallows it."""


def stop_early() -> None:
    """Make SIGTERM and SIGINT end the process cleanly while there is no event loop to take them.

    Without a handler a process with PID 1, in a container, ignores SIGTERM altogether.
    """

    def stop(*_: object) -> None:
        raise StoppedEarly

    for number in STOPS:
        signal.signal(number, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)  # a preloader forks with them blocked


def ignore_orders(log: Log | None) -> None:
    """Keep SIGHUP, SIGUSR1 and SIGUSR2 from ending the process; told to all of a service, they are for its master.

    Before the application is imported, which may have a use for SIGUSR1 and SIGUSR2 and then has it.

    Args:
        log: Of a single process, which tells that it has ignored them; None in one that has a master.
    """

    def ignore(number: int, _: object) -> None:
        if log is not None:
            log.warning(IGNORED[number])

    # A handler, because what is ignored would be so in programs that the application starts, too (execve(2)).
    for number in IGNORED:
        signal.signal(number, ignore)


def ignore_resize() -> None:
    """Keep SIGTTIN and SIGTTOU from stopping the process (signal(7)); told to all, they are for the master alone."""
    for number in (signal.SIGTTIN, signal.SIGTTOU):
        # No handler: what reads from or writes to a terminal in the background would be told for ever.
        signal.signal(number, signal.SIG_IGN)


def end_with_master(line: socket, *, wanted: bool) -> None:
    """Have the kernel end this process with its master, by SIGIO (fcntl(2), O_ASYNC).

    As long as no event loop reads the line: an import that hangs would outlive a master that was killed.
    """
    fcntl(line, F_SETOWN, os.getpid())
    flags = fcntl(line, F_GETFL)
    fcntl(line, F_SETFL, flags | os.O_ASYNC if wanted else flags & ~os.O_ASYNC)
    if wanted:
        poll = select.poll()
        poll.register(line, 0)  # for POLLHUP alone
        if poll.poll(0):
            signal.raise_signal(signal.SIGIO)  # it has gone before, of which the kernel tells no more


def keep_exit_code() -> None:
    """Have no signal change the exit code at the very end: the interpreter takes handlers away before it is gone.

    To be called before the application is imported, so that this comes behind all that it registers.
    """
    atexit.register(signal.pthread_sigmask, signal.SIG_BLOCK, STOPS)


def tell_crashes() -> None:
    """Have a crash write its stacks.

    systemd's watchdog ends what hangs with SIGABRT: they are in the journal then.
    """
    if sys.stderr is not None:
        faulthandler.enable()


def leave(code: Exit, log: Log) -> None:
    """See to it that the process ends, even when a thread of the application does not.

    The interpreter waits for threads without end; the service manager would kill it, and record a failure. Who asks
    for the end once more while it does has it at once.

    Args:
        code: What the process ends with.
        log: Where threads that are waited for are named.
    """

    def leave_now(*_: object) -> None:
        os._exit(code)

    for number in STOPS:
        signal.signal(number, leave_now)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)  # held by a failure that was told
    if threading.active_count() > 1:

        def leave() -> None:
            sleep(TELL_SECONDS)
            named = [one.name for one in threading.enumerate() if not one.daemon and one is not threading.main_thread()]
            if named:
                rest = LEAVE_SECONDS - TELL_SECONDS
                log.warning(f"The end waits {rest:g} s more for threads of the application: {', '.join(named)}")
            sleep(LEAVE_SECONDS - TELL_SECONDS)
            os._exit(code)

        threading.Thread(target=leave, daemon=True, name="appserver-leave").start()
