"""Become another program with sockets in place, as a service manager starts one: sd_listen_fds(3).

    python execute.py PID NAMES FD,FD… COMMAND…

The process stays the same, so LISTEN_PID can be its own: that is what the PID `own` means.
"""

import os
import sys
from fcntl import F_DUPFD_CLOEXEC, fcntl

FIRST = 3  # SD_LISTEN_FDS_START
BEYOND = 100  # no target is there


def main(pid: str, names: str, numbers: str, *command: str) -> None:
    fds = [int(number) for number in numbers.split(",")]
    copies = [fcntl(fd, F_DUPFD_CLOEXEC, BEYOND) for fd in fds]
    for fd in fds:
        os.set_inheritable(fd, False)
    for target, copy in enumerate(copies, FIRST):
        os.dup2(copy, target)
    os.environ["LISTEN_PID"] = str(os.getpid()) if pid == "own" else pid
    os.environ["LISTEN_FDS"] = str(len(fds))
    if names:
        os.environ["LISTEN_FDNAMES"] = names
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
