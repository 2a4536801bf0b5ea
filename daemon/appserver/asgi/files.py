"""The files that an application names in `http.response.pathsend` and `http.response.zerocopysend`.

Both messages (https://asgi.readthedocs.io/en/latest/extensions.html) come down to a `File`: bytes of a regular file
behind a descriptor that is ours. What can be wrong with a message is found here, before a byte of it is sent.
"""

import fcntl
import os
from dataclasses import dataclass
from errno import EIO
from io import FileIO
from stat import S_ISREG
from typing import Any

from appserver.asgi.types import Message
from appserver.errors import MisuseError


@dataclass(slots=True)
class File:
    """Bytes of a file that are to be sent.

    Attributes:
        source: Ours, because the application may close its own at any time; whoever has the `File` closes it.
        offset: Of the first byte in the file.
        count: How many.
    """

    source: FileIO
    offset: int
    count: int

    def advance(self, sent: int) -> None:
        """So many bytes have left.

        Raises:
            OSError: It is none: somebody has cut the file off.
        """
        if not sent:
            raise OSError(EIO, f"became {self.count} bytes shorter while it was sent", self.source.name)
        self.offset += sent
        self.count -= sent


def open_path(message: Message) -> File:
    """Open the file of `http.response.pathsend`, all of it.

    Which paths may be sent is the application's to decide: symbolic links are followed.

    Raises:
        MisuseError: `path` is not the absolute path of a regular file.
        OSError: There is no such file, it is a directory, or it may not be read.
    """
    path: Any = message.get("path")
    try:
        if not os.fsdecode(path).startswith("/"):
            raise ValueError(path)  # noqa: TRY301 - as FileIO does where a NUL is in it
        # A FIFO without a writer must not hold the event loop until it is seen to be no regular file.
        source = FileIO(path, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
    except (TypeError, ValueError) as error:
        raise MisuseError(f"path must be the absolute path of a file, not {path!r:.200}") from error
    return File(source, 0, _size(source))


def open_file(message: Message) -> File:
    """Take the file of `http.response.zerocopysend`, by a descriptor of our own.

    Without `offset`, the bytes are those at the file's position, as the specification says. The position is moved
    behind them, so that the next such message goes on there.

    Raises:
        MisuseError: `file` is not a regular file that is open for reading, or has no such bytes.
        OSError: `file` is a descriptor that is closed.
    """
    file, offset, count = message.get("file"), message.get("offset"), message.get("count")
    for name, value in (("offset", offset), ("count", count)):
        if value is not None and (not isinstance(value, int) or value < 0):
            raise MisuseError(f"{name} must be a number of bytes, not {value!r:.200}")
    descriptor = _descriptor(file)
    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
        raise MisuseError(f"file must be open for reading, which {file!r:.200} is not")
    source = FileIO(os.dup(descriptor))
    size = _size(source)
    try:
        start = _tell(file) if offset is None else offset
        if count is None:
            count = max(size - start, 0)
        _check(start + count, size)
        if offset is None:
            _seek(file, start + count)
    except BaseException:
        source.close()
        raise
    return File(source, start, count)


def _size(source: FileIO) -> int:
    status = os.fstat(source.fileno())
    if not S_ISREG(status.st_mode):
        source.close()
        raise MisuseError(f"only a regular file can be sent, and {source.name!r:.200} is none")
    return status.st_size


def _check(end: int, size: int) -> None:
    if end > size:
        raise MisuseError(f"offset and count end at byte {end}, and the file at {size}")


def _descriptor(file: Any) -> int:
    """The number behind a file object; baize and others send the number itself."""
    try:
        descriptor: Any = file if type(file) is int else file.fileno()
    except (AttributeError, OSError, ValueError):  # BytesIO's error is both of the latter
        descriptor = None
    if type(descriptor) is not int or descriptor < 0:
        raise MisuseError(f"file must be open and have a descriptor, which {file!r:.200} has not")
    return descriptor


def _tell(file: Any) -> int:
    position = os.lseek(file, 0, os.SEEK_CUR) if type(file) is int else file.tell()
    if not isinstance(position, int):
        raise MisuseError(f"offset must be given with {file!r:.200}: its tell() is no number")
    return position


def _seek(file: Any, position: int) -> None:
    if type(file) is int:
        os.lseek(file, position, os.SEEK_SET)
    else:
        file.seek(position)
