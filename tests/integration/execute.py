"""Become another program with sockets in place, as a service manager starts one: sd_listen_fds(3).

    python execute.py PID NAMES FD,FD… COMMAND…

LISTEN_PID is this process's own, which the program keeps, when PID is `own`.
"""

import os
import sys

FIRST = 3  # SD_LISTEN_FDS_START


def main(pid: str, names: str, numbers: str, *command: str) -> None:
    fds = [int(number) for number in numbers.split(",")]
    # Out of the way first: a target may be another's source.
    copies = [os.dup(fd) for fd in fds]
    for copy in copies:
        os.set_inheritable(copy, False)
    spare = [os.open(os.devnull, os.O_RDONLY) for _ in range(FIRST + len(fds))]  # the targets are not among these
    high = [os.dup2(copy, 100 + index, inheritable=False) for index, copy in enumerate(copies)]
    for fd in (*fds, *copies, *spare):
        os.close(fd)
    for index, fd in enumerate(high):
        os.dup2(fd, FIRST + index)
    os.environ["LISTEN_PID"] = str(os.getpid()) if pid == "own" else pid
    os.environ["LISTEN_FDS"] = str(len(fds))
    if names:
        os.environ["LISTEN_FDNAMES"] = names
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
