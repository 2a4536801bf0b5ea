"""Telling the service manager how we are: sd_notify(3).

Only ever a courtesy: a manager that has gone away, or a socket that is full, costs the message and nothing else.
A worker tells its master the same, on a line between the two that nobody else has.
"""

import json
import os
from collections.abc import Mapping
from socket import socket
from time import monotonic
from typing import Final

from systemd.daemon import notify

_MICROSECONDS: Final = 1_000_000
MESSAGE_SIZE: Final = 64 * 1024
BATCH: Final = 256


class Notifier:
    """The service's end of NOTIFY_SOCKET, or of the line to a master.

    Attributes:
        enabled: Whether there is a service manager to tell.
        watchdog_interval: Seconds between two `watchdog()` calls: half of what the manager waits, as
            sd_watchdog_enabled(3) recommends; None when it does not watch this process.
        lost: Messages that could not be sent.

    Args:
        line: To the master that is the manager, where one is; it does not block.
        patience: How long that one waits for `watchdog()`, in seconds.
    """

    __slots__ = ("_line", "_status", "enabled", "lost", "watchdog_interval")

    def __init__(self, line: socket | None = None, patience: float = 0.0) -> None:
        self._line = line
        self.enabled = line is not None or bool(os.environ.get("NOTIFY_SOCKET"))
        self.watchdog_interval = None
        if self.enabled:
            self.watchdog_interval = patience / 2 if line is not None else _find_watchdog()
        self.lost = 0
        self._status: str | None = None

    def ready(self, status: str) -> None:
        """Everything is served: `systemctl start` returns."""
        self._send("READY=1", status)

    def reloading(self, status: str) -> None:
        """A reload has begun; `ready()` ends it, also where it has failed."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={round(monotonic() * _MICROSECONDS)}", status)

    def stopping(self, status: str) -> None:
        """The stop has begun."""
        self._send("STOPPING=1", status)

    def status(self, text: str) -> None:
        """Change the line that `systemctl status` shows; the same one again is not sent."""
        if text != self._status:
            self._send("", text)

    def watchdog(self) -> None:
        """The event loop turns."""
        self._send("WATCHDOG=1")

    def report(self, report: Mapping[str, object]) -> None:
        """Tell a master how this worker is; systemd has no use for it."""
        if self._line is not None:
            self._send(f"X_REPORT={json.dumps(report)}")

    def forked(self, number: int, pid: int, errno: int) -> None:
        """Tell a master what became of the worker that a preloader was to fork: its pid, or 0 and what went wrong."""
        self._send(f"X_FORKED={number} {pid} {errno}")

    def answer(self, text: str) -> None:
        """Answer a question of the master's (`process.inquiry`); `text` is JSON, and without a line feed."""
        if self._line is not None:
            self._send(f"X_ANSWER={text}")

    def extend(self, seconds: float) -> None:
        """Ask for that many seconds more, from now, before the start or stop is taken to have failed."""
        self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * _MICROSECONDS)}")

    def failed(self, exit_status: int, status: str, errno: int | None = None) -> None:
        """Tell why the process is about to end.

        Args:
            exit_status: The exit code that follows.
            status: One line for people.
            errno: The system's error number, where that is the cause.
        """
        cause = f"EXIT_STATUS={exit_status}"
        self._send(cause if errno is None else f"{cause}\nERRNO={errno}", status)

    def _send(self, assignments: str, status: str | None = None) -> None:
        if not self.enabled:
            return
        message = assignments
        if status is not None:
            self._status = status
            message = f"{assignments}\nSTATUS={_flatten(status)}".lstrip("\n")
        try:
            if self._line is not None:
                # Without waiting, which notify() does: while the master stands still, its workers go on to serve.
                self._line.send(message.encode())
            else:
                notify(message)
        except OSError:
            self.lost += 1
            self._status = None  # whatever was to be shown is not: the same line must be sent again


def hear(line: socket) -> tuple[list[dict[str, str]], bool]:
    """Read what a worker has told: the assignments of each message, and whether more can come.

    No more than a batch of it: a worker that floods the line must not keep the master from everything else.
    """
    told: list[dict[str, str]] = []
    for _ in range(BATCH):
        try:
            message = line.recv(MESSAGE_SIZE)
        except (BlockingIOError, InterruptedError):
            break
        except OSError:
            return told, False
        if not message:
            return told, False
        assignments = (one.partition("=") for one in message.decode("utf-8", "replace").split("\n"))
        told.append({name: value for name, mark, value in assignments if mark})
    return told, True


def _flatten(text: str) -> str:
    """A line feed would begin another assignment, and a surrogate cannot be encoded."""
    return "".join(character if character.isprintable() else " " for character in text)


def _find_watchdog() -> float | None:
    """Half of WATCHDOG_USEC in seconds, unless WATCHDOG_PID means another process."""
    try:
        limit = int(os.environ.get("WATCHDOG_USEC", "0"))
        pid = int(os.environ.get("WATCHDOG_PID") or os.getpid())
    except ValueError:
        return None
    return limit / 2 / _MICROSECONDS if limit > 0 and pid == os.getpid() else None
