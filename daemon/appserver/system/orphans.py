"""Processes whose parent has ended, and whose parent is this one now: where it is process 1, or a subreaper."""

import os
from collections.abc import Container
from typing import Final

_PR_SET_CHILD_SUBREAPER: Final = 36
"""linux/prctl.h."""


def adopt_orphans() -> None:
    """Become the parent of all descendants whose own parent ends (PR_SET_CHILD_SUBREAPER, prctl(2)); for ever.

    Raises:
        OSError: The kernel refuses.
    """
    import ctypes  # noqa: PLC0415 - not for a master that needs none of this

    libc = ctypes.CDLL(None, use_errno=True)
    # All five as the kernel takes them; what follows the first is variadic.
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, *map(ctypes.c_ulong, (1, 0, 0, 0))):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def reap_orphans(own: Container[int]) -> int:
    """Reap the children that have ended and that nobody here waits for; how many.

    Stops at the first of those that somebody does wait for: it is gone by the next time.

    Args:
        own: The process ids of these.
    """
    count = 0
    while True:
        try:
            # WNOWAIT: look first. The exit code is whose who waits.
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None or ended.si_pid in own:
                return count
            os.waitpid(ended.si_pid, os.WNOHANG)
        except ChildProcessError:
            return count
        count += 1


def is_child(pid: int) -> bool:
    """Whether this process is the parent, also of one that has ended and was not waited for."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except (OSError, OverflowError):
        return False
    return True
