"""The streams of a WSGI request (https://peps.python.org/pep-3333/#input-and-error-streams), and the files it sends."""

import os
from collections.abc import Callable, Iterable, Iterator
from io import BufferedRandom, BufferedReader, FileIO, RawIOBase
from stat import S_ISREG
from typing import Any, Final

from appserver.telemetry.log import Log

BLOCK_SIZE: Final = 64 * 1024
"""Of files that are read because they cannot be sent by sendfile(2)."""


class Input(RawIOBase):
    """`wsgi.input` of a body that has not all come.

    Args:
        data: What has come.
        receive: Waits for more, and says whether that is all.
    """

    def __init__(self, data: bytes, receive: Callable[[], tuple[bytes, bool]]) -> None:
        super().__init__()
        self._receive, self._piece, self._more = receive, memoryview(data), True

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what there is, or wait for more.

        Raises:
            ClientDisconnectedError: The client is gone, and the body is not whole.
        """
        while not self._piece and self._more:
            data, self._more = self._receive()
            self._piece = memoryview(data)
        count = min(len(buffer), len(self._piece))
        buffer[:count] = self._piece[:count]
        self._piece = self._piece[count:]
        return count


class ErrorStream:
    """`wsgi.errors`: a record for each line.

    Args:
        log: Where it goes.
    """

    def __init__(self, log: Log) -> None:
        self._log, self._rest = log, ""

    def write(self, text: str) -> None:
        """Take text, and log the lines that are whole."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if line.strip():
                self._log.error(line)

    def writelines(self, texts: Iterable[str]) -> None:
        """Take several."""
        for text in texts:
            self.write(text)

    def flush(self) -> None:
        """Log what is left."""
        if self._rest:
            self.write("\n")


class FileWrapper:
    """`wsgi.file_wrapper`: a file that is sent by sendfile(2) where nothing but its bytes could come, else read.

    Args:
        file: Anything with a `read()`.
        block_size: Bytes to read at a time.
    """

    def __init__(self, file: Any, block_size: int = BLOCK_SIZE) -> None:
        self.file, self._block_size = file, block_size

    def __iter__(self) -> Iterator[bytes]:
        while block := self.file.read(self._block_size):
            yield block

    def close(self) -> None:
        """Close the file, where that can be done."""
        close = getattr(self.file, "close", None)
        if close is not None:
            close()

    @property
    def regular(self) -> bool:
        """Whether what is read is what a descriptor has: not where a GzipFile gives the descriptor of what it reads."""
        file = self.file
        raw = file.raw if type(file) in (BufferedReader, BufferedRandom) else file
        if type(raw) is not FileIO or raw.closed:
            return False
        status = os.fstat(raw.fileno())
        return S_ISREG(status.st_mode) and status.st_size > 0  # files of /proc have none, and something in them
