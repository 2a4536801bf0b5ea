"""Whole lines into a file, a pipe or a terminal, without ever waiting long for its reader."""

import os
import select
import stat
from collections.abc import Sequence
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, lockf
from threading import RLock
from time import monotonic, sleep
from typing import Final, TextIO

STALL_SECONDS: Final = 1.0
"""How long a line waits for a reader that does not read; the lines after it are lost at once, until it reads again.

Meanwhile the event loop stands still, so it is little: a log that nobody reads must not end the service."""

CLAIM_SECONDS: Final = 0.001
"""How long to wait before it is asked again whether another process has ended its line."""


class StalledError(OSError):
    """The reader does not read, and the line is lost."""


class Stream:
    """Lines, one at a time or in batches. A line that was begun is ended before the next, whoever writes that.

    Written to the descriptor itself where there is one: a text stream keeps what it could not write, tries again with
    each line, and fails once more when the interpreter ends, which would change the exit code.
    """

    __slots__ = ("_claimed", "_fd", "_file", "_lock", "_poll", "_rest", "_stalled", "_stream")

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._fd = stream, find_descriptor(stream)
        self._rest = memoryview(b"")
        self._stalled = self._claimed = self._file = False
        # Threads of the application log too. Reentrant, because a finalizer that logs may run at any point in here.
        self._lock = RLock()
        self._poll = select.poll()
        if self._fd is not None:
            self._poll.register(self._fd, select.POLLOUT)

    def write(self, line: bytes) -> None:
        """Write the line, and wait `STALL_SECONDS` at most. What is left of a line that was begun follows later.

        Raises:
            OSError: Nothing of it could be written.
        """
        if self._fd is None:
            self._stream.write(line.decode())
            self._stream.flush()
            return
        with self._lock:
            if not self._claim(self._fd, wait=True):
                self._stalled = True  # it has had the time that a reader gets: the line goes between, if it can at once
            try:
                self._rest = self._push(self._rest, self._fd)
                if self._rest:
                    raise StalledError("the log is not read")
                left = self._push(memoryview(line), self._fd)
                if len(left) == len(line):
                    raise StalledError("the log is not read")
                self._rest = left
            finally:
                self._release(self._fd)

    def offer(self, records: Sequence[bytes]) -> int:
        """See `record.Outlet`; a record is a line."""
        if self._fd is None:
            self._stream.write(b"".join(records).decode())
            self._stream.flush()
            return len(records)
        if not self._lock.acquire(blocking=False):
            return 0  # a thread waits in write(): nobody reads
        try:
            if not self._claim(self._fd, wait=False):
                return 0
            self._rest = self._push(self._rest, self._fd, wait=False)
            if self._rest:
                return 0
            data = memoryview(b"".join(records))
            left = self._push(data, self._fd, wait=False)
            if not left:
                return len(records)
            written = len(data) - len(left)
            count = end = 0
            while end < written:
                end += len(records[count])
                count += 1
            self._rest = data[written:end]
            return count
        finally:
            self._release(self._fd)
            self._lock.release()

    @property
    def unfinished(self) -> bool:
        """See `record.Outlet`."""
        return len(self._rest) > 0

    def wait(self, seconds: float) -> bool:
        """See `record.Outlet`."""
        if self._fd is None:
            return True
        try:
            with self._lock:
                self._claim(self._fd, wait=True)
                try:
                    while self._poll.poll(seconds * 1000):
                        self._rest = self._push(self._rest, self._fd, wait=False)
                        if not self._rest:
                            return True
                finally:
                    self._release(self._fd)
        except OSError:
            pass  # there is no reader
        return False

    def _claim(self, fd: int, *, wait: bool) -> bool:
        """Have a pipe or a socket alone; False while another process is in the midst of a line.

        All workers write to one pipe, and a line of more than PIPE_BUF bytes in several pieces. It is a record lock
        (fcntl(2)), as that is of the process: one of the open file (flock(2)) is had by all who inherited it. It is
        gone with a process that is killed. What is left of a line when its writer has waited enough is not
        protected: nobody keeps the others from the log for longer than that.

        Args:
            fd: Of the log.
            wait: For `STALL_SECONDS` at most; not while the log stalls.

        Raises:
            OSError: The descriptor is closed.
        """
        # Asked each time: under inetd the descriptor is replaced after the start.
        kind = os.fstat(fd).st_mode
        self._file = stat.S_ISREG(kind)
        if not (stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)):
            return True
        until = monotonic() + STALL_SECONDS
        while True:
            try:
                lockf(fd, LOCK_EX | LOCK_NB)
            except (BlockingIOError, PermissionError):
                if not wait or self._stalled or monotonic() >= until:
                    return False
                sleep(CLAIM_SECONDS)
            except OSError:
                return True  # no locks here
            else:
                self._claimed = True
                return True

    def _release(self, fd: int) -> None:
        if self._claimed:
            self._claimed = False
            with suppress(OSError):
                lockf(fd, LOCK_UN)

    def _push(self, data: memoryview, fd: int, *, wait: bool = True) -> memoryview:
        """Write what the reader takes; what is left of the data.

        Raises:
            OSError: None of it could be written.
        """
        if not data:
            return data
        # A file takes all at once. pipe(7): what is writable takes at least PIPE_BUF bytes without blocking.
        piece = len(data) if self._file else select.PIPE_BUF
        left = data
        while left:
            ready = self._poll.poll(STALL_SECONDS * 1000 if wait and not self._stalled else 0)
            if ready:
                self._stalled = False
            else:
                self._stalled |= wait
                break
            try:
                left = left[os.write(fd, _whole(left[:piece], left)) :]
            except OSError:
                if len(left) == len(data):
                    raise
                break
        return left


def _whole(piece: memoryview, data: memoryview) -> memoryview:
    """The whole lines of a piece, if it has one: no other process tears a write of PIPE_BUF bytes or less."""
    end = len(piece) if len(piece) == len(data) else bytes(piece).rfind(b"\n") + 1
    return piece[:end] if end else piece


def find_descriptor(stream: TextIO) -> int | None:
    """The descriptor behind a stream; None where there is none: fd 2 closed, a stream in memory or a closed one."""
    try:
        return stream.fileno()
    except (AttributeError, OSError, ValueError):
        return None
