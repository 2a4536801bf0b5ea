"""A preloader: `python -P -m appserver.process.preload`, started by a master where --preload asks for it.

It imports the application, and forks a worker whenever the master orders one. What has been imported is in memory
once, as long as nobody writes to it. It has no event loop and serves nothing.

    master ──order: a line, a file for stacks──▶ preloader ──fork──▶ (between) ──fork──▶ worker
       ◀────────── its pid, when the one between has ended ──┘

The parent of a worker has ended at once, so that the kernel makes it the master's own child (`system.orphans`): the
master waits for it, kills it and hears of it as of one that it has started itself. docs/adr/0030-preload.md
"""

import atexit
import gc
import os
import signal
import socket
import stat
import sys
import threading
import warnings
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import replace
from errno import EAGAIN
from importlib import import_module
from pathlib import Path
from typing import Final, NoReturn

from appserver.errors import Exit, UsageError
from appserver.process.endpoints import import_late
from appserver.process.failures import conclude
from appserver.process.handover import Handover, take
from appserver.process.signals import (
    STOPS,
    end_with_master,
    ignore_orders,
    ignore_resize,
    keep_exit_code,
    leave,
    stop_early,
)
from appserver.process.worker import Imported, import_application, serve_for_master
from appserver.system.image import release_signals
from appserver.system.notify import Notifier
from appserver.telemetry.log import build
from appserver.wire.select import pick

_SELF: Final = Path("/proc/self")


def preload(handover: Handover) -> Exit:
    """Import the application, then fork workers until told to end.

    Returns:
        The exit code of this process, or, in a worker, of that one.
    """
    settings = handover.settings
    notifier = Notifier(handover.line)
    log = build(settings.log_level, settings.log_format)

    def start() -> tuple[Handover, Imported] | None:
        keep_exit_code()
        stop_early()
        ignore_orders(None)
        ignore_resize()
        release_signals()
        end_with_master(handover.line, wanted=True)
        before = _list_descriptors()
        imported = import_application(settings, notifier, log)
        for what in _find_unshareable(before):
            log.warning(f"The import of {settings.app} {what}")
        if native := _list_native_threads():
            # No warning: NumPy's BLAS has them, and starts them again after a fork.
            log.info(f"Libraries have started threads in the import ({', '.join(native)}), which workers do not have")
        _import_server(handover)
        # What is cyclic garbage now would be found, and its memory written to, in every worker; and what is none is
        # not to be looked at again: the collector writes into what it looks at.
        gc.collect()
        gc.freeze()
        end_with_master(handover.line, wanted=False)
        handover.line.setblocking(True)  # there is nothing to do but to wait for orders
        for number in STOPS:
            signal.signal(number, _end_at_once)
        notifier.ready(f"Preloaded {settings.app}")
        worker = _fork_on_order(handover, notifier)
        return None if worker is None else (worker, imported)

    forked = conclude(start, notifier, log, handover.take_voice)
    if isinstance(forked, Exit):
        leave(forked, log)
        return forked
    if forked is None:
        _end_at_once()
    worker, imported = forked
    return serve_for_master(worker, imported, log)


def _import_server(handover: Handover) -> None:
    """Import what workers would, each for itself."""
    settings = handover.settings
    with suppress(UsageError):  # of an engine that is not installed, which they tell of
        pick(settings.http)
        import_late(settings, http2=any(listener.http2 for listener in handover.listeners))
    if settings.loop != "asyncio":
        with suppress(ImportError):
            import_module("uvloop")


def _fork_on_order(handover: Handover, notifier: Notifier) -> Handover | None:
    """Fork a worker for each order.

    Returns:
        In a worker, what it is given. None in the preloader, whose master is gone.
    """
    try:
        while True:
            message, descriptors, _, _ = socket.recv_fds(handover.line, 64, 2, socket.MSG_CMSG_CLOEXEC)
            if not message:
                return None  # the master is gone
            number, generation = map(int, message.split())
            end, stacks = descriptors
            # A signal in the midst of it would leave a worker that nobody knows.
            signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
            pid, errno = _fork()
            if pid == 0 and errno == 0:
                handover.line.close()
                os.close(handover.stacks)
                _become(f"appserver {generation}.{number}")
                line = socket.socket(fileno=end)
                line.setblocking(False)
                return replace(handover, line=line, stacks=stacks)
            os.close(end)
            os.close(stacks)
            notifier.forked(number, pid, errno)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    except OSError:
        return None


def _fork() -> tuple[int, int]:
    """Fork a worker whose parent has ended.

    Returns:
        Its pid and 0; 0 and the system's error number; in the worker 0 and 0.
    """
    _flush()  # or each worker would write it again
    try:
        reading, writing = os.pipe()
    except OSError as error:  # the application has left no descriptors
        return 0, error.errno or EAGAIN
    try:
        between = _fork_quietly()
    except OSError as error:
        os.close(reading)
        os.close(writing)
        return 0, error.errno or EAGAIN
    if between == 0:
        _fork_between(writing)
        os.close(reading)
        os.close(writing)
        return 0, 0
    os.close(writing)
    told = os.read(reading, 64)
    os.close(reading)
    with suppress(ChildProcessError):  # where the application has SIGCHLD ignored
        os.waitpid(between, 0)
    pid, errno = map(int, told.split() or (0, EAGAIN))
    return pid, errno


def _fork_between(writing: int) -> None:
    """In the process between: fork the worker, tell its pid, end. Returns in the worker alone."""
    try:
        pid = _fork_quietly()
    except OSError as error:
        told = b"0 %d" % (error.errno or EAGAIN)
    else:
        if pid == 0:
            return
        told = b"%d 0" % pid
    with suppress(OSError):  # the preloader was killed
        os.write(writing, told)
    os._exit(0)  # nothing of the application's may run here, no exit handler either


def _fork_quietly() -> int:
    with warnings.catch_warnings():
        # Of threads, which have been told of (Python 3.12 and later).
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _become(name: str) -> None:
    """Be a worker of that name: in a group of its own, for `ps -o comm`, and with chances of its own."""
    os.setpgid(0, 0)  # as the master starts workers: a terminal's Ctrl-C is not for them
    with suppress(OSError):
        (_SELF / "comm").write_text(name, encoding="ascii")
    # What is seeded once and copied by fork would give all workers the same numbers. random sees to that itself;
    # os.urandom(), and so secrets and uuid4(), and OpenSSL have nothing to copy.
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:
        numpy.seed()


def _end_at_once(*_: object) -> NoReturn:
    """End without exit handlers of the application: what they would clear away is still its workers'.

    From when workers may be ordered SIGTERM does this. The service manager and the master both send it, a moment apart.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # or the second would meet the first one's flush
    _flush()
    os._exit(Exit.OK)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, or None
            stream.flush()


# What cannot be shared


def _find_unshareable(before: AbstractSet[int]) -> Iterator[str]:
    """Say what an import has left behind that workers do not have, or have together where they should not.

    Args:
        before: The descriptors from before the import.
    """
    names = ", ".join(thread.name for thread in threading.enumerate() if thread is not threading.main_thread())
    if names:
        yield f"has started threads ({names}), which workers do not have: start them in the lifespan's startup"
    opened = _list_descriptors() - before
    if any(_is_epoll(fd) for fd in opened):
        yield "has left an event loop open, which workers share: open it, and what needs it, in the lifespan's startup"
    peers = sorted({peer for fd in opened if (peer := _find_peer(fd)) is not None})
    if peers:
        yield f"has connected to {', '.join(peers)}, and workers share that: connect in the lifespan's startup"


def _list_native_threads() -> list[str]:
    """The names of the threads that Python does not know."""
    known = {thread.native_id for thread in threading.enumerate()}
    found = []
    for task in (_SELF / "task").iterdir():
        if int(task.name) not in known:
            with suppress(OSError):  # it has ended
                found.append((task / "comm").read_text(encoding="utf-8", errors="replace").strip())
    return found


def _list_descriptors() -> set[int]:
    found = {int(entry.name) for entry in (_SELF / "fd").iterdir()}
    return {fd for fd in found if _is_open(fd)}  # without that of the listing


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _is_epoll(fd: int) -> bool:
    try:
        return (_SELF / "fd" / str(fd)).readlink() == Path("anon_inode:[eventpoll]")
    except OSError:
        return False


def _find_peer(fd: int) -> str | None:
    """Whom a connection leads to; None for what is none, or leads nowhere that has a name."""
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return None
        with socket.socket(fileno=os.dup(fd)) as sock:
            if sock.type == socket.SOCK_DGRAM:
                return None  # to a log, or to where names are resolved; datagrams do not mix
            peer = sock.getpeername()
    except OSError:
        return None
    if isinstance(peer, tuple):
        return f"{peer[0]}:{peer[1]}"
    return os.fsdecode(peer) or None


def _end(code: Exit) -> NoReturn:
    """End as the interpreter does, but for what is in memory.

    To clear that away a worker would write to each object, and so have all that is shared copied, at the moment when
    the workers of a reload are in memory as well.
    """
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - nothing public waits for threads
    atexit._run_exitfuncs()  # noqa: SLF001 - as multiprocessing does
    _flush()
    os._exit(code)


if __name__ == "__main__":
    _end(preload(take(os.environ)))
