"""A socket in journald's place that reads and counts records, and a mount namespace in which a server finds it there.

    python -m bench.journal PATH     read until standard input ends, then print the number of access records

What is measured is what the server pays for sending. journald itself would run on whichever core is free.
"""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from bench.errors import ContenderError
from bench.processes import ROOT

_MARK: Final = b"HTTP_STATUS="

# sd_journal_sendv(3) sends to /run/systemd/journal/socket. The host's /run is not touched: it is covered in here.
_ENTER: Final = """\
set -eu
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/journal
: >/run/systemd/journal/socket
mount --bind "$1" /run/systemd/journal/socket
shift
exec "$@"
"""


class Journal:
    """The reading end, in a process of its own.

    Args:
        path: Where its socket is made.

    Raises:
        ContenderError: This user may not make mount namespaces.
    """

    def __init__(self, path: Path) -> None:
        if os.geteuid() != 0:
            raise ContenderError("a socket in journald's place needs a mount namespace, and that needs root")
        self._path = path
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.journal", path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def wrap(self, command: Sequence[str]) -> list[str]:
        """The command line that runs a command where this is the journal; the process stays the same."""
        namespace = ["unshare", "--mount", "--propagation", "private"]
        return [*namespace, "sh", "-c", _ENTER, "sh", str(self._path), *command]

    def finish(self) -> int:
        """End it. Returns: how many access records came."""
        output, _ = self._process.communicate()
        return int(output)


def _count(path: str) -> None:
    reader = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    reader.bind(path)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    threading.Thread(target=_stop, args=(path,), daemon=True).start()
    count = 0
    # Datagrams arrive in their order, so the empty one at the end comes after all records.
    while data := reader.recv(65536):
        count += _MARK in data
    sys.stdout.write(f"{count}\n")


def _stop(path: str) -> None:
    sys.stdin.read()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"", path)


if __name__ == "__main__":
    _count(sys.argv[1])
