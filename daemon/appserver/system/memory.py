"""Memory of processes: what they take, and what they can give back."""

import os
from typing import Final

_PAGE: Final = os.sysconf("SC_PAGESIZE")


def read_resident(pid: int | str) -> int:
    """Bytes of a process that are resident (proc_pid_statm(5)); 0 where that cannot be told.

    Args:
        pid: Its id, or `self`.
    """
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:  # noqa: PTH123 - a master asks four times a second
            return int(file.read().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0


def trim() -> None:
    """Give back what the C library keeps of memory that has been freed (malloc_trim(3))."""
    import ctypes  # noqa: PLC0415 - 10 ms, which most processes never need

    release = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if release is not None:  # musl has none, and keeps less
        release(0)
