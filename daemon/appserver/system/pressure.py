"""The service manager's word that memory is short (https://systemd.io/MEMORY_PRESSURE/).

MEMORY_PRESSURE_WATCH names a file of the kernel's pressure stall information, a FIFO or a UNIX socket;
MEMORY_PRESSURE_WRITE is what to write into it first, in Base64. systemd 254 and later sets both
(MemoryPressureWatch=).
"""

import base64
import binascii
import os
import select
import socket
import stat
from collections.abc import Mapping, MutableMapping
from typing import Final

WATCH: Final = "MEMORY_PRESSURE_WATCH"
WRITE: Final = "MEMORY_PRESSURE_WRITE"
VARIABLES: Final = (WATCH, WRITE)

CONNECT_SECONDS: Final = 1.0
_OFF: Final = "/dev/null"


class Pressure:
    """What tells that memory is short.

    An event loop can wait for it as for anything that becomes readable: no loop of Python's knows POLLPRI, which is
    how the kernel's file tells, but an epoll(7) of ours becomes readable by it.
    """

    __slots__ = ("_descriptor", "_epoll", "_kernel")

    def __init__(self, descriptor: int, *, kernel: bool) -> None:
        self._descriptor, self._kernel = descriptor, kernel
        self._epoll = select.epoll()
        self._epoll.register(descriptor, select.EPOLLPRI if kernel else select.EPOLLIN)

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._epoll.fileno()

    def take(self) -> bool:
        """To be called when it is readable; False where nothing more will come, and it is to be closed."""
        # Empty where the loop has asked before: to ask takes the kernel's event.
        told = self._epoll.poll(0)
        if self._kernel:
            return not any(mask & (select.EPOLLERR | select.EPOLLHUP) for _, mask in told)  # the control group is gone
        try:
            while data := os.read(self._descriptor, 4096):
                pass
        except BlockingIOError:
            return True
        except OSError:
            return False
        return bool(data)

    def close(self) -> None:
        """Let go of it."""
        self._epoll.close()
        os.close(self._descriptor)


def take_variables(environ: MutableMapping[str, str]) -> dict[str, str]:
    """Take the variables out of an environment: they are for one process, and the application is none of it."""
    return {name: environ.pop(name) for name in VARIABLES if name in environ}


def open_pressure(environ: Mapping[str, str]) -> Pressure | None:
    """Watch what the environment names; None where it names nothing, or says that there is nothing to watch.

    Raises:
        ValueError: It cannot be watched; the text says why.
    """
    path = environ.get(WATCH)
    if not path or path == _OFF:
        return None
    try:
        text = base64.b64decode(environ.get(WRITE, ""), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{WRITE}={environ[WRITE]}: expected Base64 ({error})") from error
    try:
        return _open(path, text)
    except OSError as error:
        raise ValueError(f"{WATCH}={path}: {error.strerror or error}") from error


def _open(path: str, text: bytes) -> Pressure:
    mode = os.stat(path).st_mode  # noqa: PTH116 - pathlib has no more to say
    if stat.S_ISSOCK(mode):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(CONNECT_SECONDS)
            sock.connect(path)
            sock.setblocking(False)
            descriptor = sock.detach()
    elif stat.S_ISREG(mode) or stat.S_ISFIFO(mode):
        # A FIFO that nobody has open for writing would be at its end for ever; Linux lets a reader be that one.
        access = os.O_RDWR if text or stat.S_ISFIFO(mode) else os.O_RDONLY
        descriptor = os.open(path, access | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    else:
        raise OSError(None, "expected a file of the kernel, a FIFO or a UNIX socket")
    try:
        # Not into a FIFO, from which we would read it ourselves.
        if text and not stat.S_ISFIFO(mode):
            os.write(descriptor, text)
        return Pressure(descriptor, kernel=stat.S_ISREG(mode))
    except BaseException:
        os.close(descriptor)
        raise
