"""Whole lines into a file, a pipe or a terminal, without ever waiting long for its reader."""

import os
import select
from typing import Final, TextIO

STALL_SECONDS: Final = 1.0
"""How long a line waits for a reader that does not read; the lines after it are lost at once, until it reads again.

Meanwhile the event loop stands still, so it is little: a log that nobody reads must not end the service."""


class StalledError(OSError):
    """The reader does not read, and the line is lost."""


class Stream:
    """A line at a time.

    Written to the descriptor itself where there is one: a text stream keeps what it could not write, tries again with
    each line, and fails once more when the interpreter ends, which would change the exit code.
    """

    __slots__ = ("_fd", "_poll", "_stalled", "_stream", "_torn")

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._fd = stream, find_descriptor(stream)
        self._torn = self._stalled = False
        self._poll = select.poll()
        if self._fd is not None:
            self._poll.register(self._fd, select.POLLOUT)

    def write(self, line: bytes) -> None:
        """Write the line at once.

        Raises:
            OSError: It could not be written, or only in part; the next line then begins on a new one.
        """
        if self._fd is None:
            self._stream.write(line.decode())
            self._stream.flush()
            return
        left = memoryview(b"\n" + line if self._torn else line)
        while left:
            self._wait()
            # pipe(7): what is writable takes at least PIPE_BUF bytes without blocking.
            written = os.write(self._fd, left[: select.PIPE_BUF])
            left = left[written:]
            self._torn = len(left) > 0

    def _wait(self) -> None:
        ready = self._poll.poll(0 if self._stalled else STALL_SECONDS * 1000)
        self._stalled = not ready
        if self._stalled:
            raise StalledError("the log is not read")


def find_descriptor(stream: TextIO) -> int | None:
    """The descriptor behind a stream; None where there is none: fd 2 closed, a stream in memory or a closed one."""
    try:
        return stream.fileno()
    except (AttributeError, OSError, ValueError):
        return None
