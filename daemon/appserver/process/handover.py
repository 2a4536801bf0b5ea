"""What a worker is given: the settings of its generation, the listeners, and a line to its master.

A worker is a process of its own from the start (exec, not fork), so nothing that the master has done or holds leaks
into it. What it is to have is written into a file without a name (memfd_create(2)), whose descriptor is told in the
environment. It is JSON: where another version was installed under a master that runs, its workers are of that version.
"""

import json
import os
import socket
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from appserver.encryption import Password
from appserver.kinds import UnfitError
from appserver.net.listeners import Listener
from appserver.settings import TABLE, Settings
from appserver.system.pressure import VARIABLES as PRESSURE

VARIABLE: Final = "APPSERVER_HANDOVER"
"""The number of the descriptor."""

RETIRE: Final = b"retire"
"""What the master says on the line to a worker whose successors serve already. The line's end means that there is no
master any more."""

HURRY: Final = b"hurry"
"""What it says to have a worker cut what still runs. Two SIGTERM would be one where they come too close together."""

DROP: Final = b"drop"
"""What it says to have a worker drop its caches: memory is short."""


@dataclass(frozen=True, slots=True)
class Handover:
    """What a worker is given.

    Attributes:
        settings: Of its generation.
        listeners: What it serves.
        line: To its master.
        stacks: A file that it writes its stacks to when it is asked to.
        voice: An eventfd that it shares with all workers of its generation.
    """

    settings: Settings
    listeners: tuple[Listener, ...]
    line: socket.socket
    stacks: int
    voice: int

    def take_voice(self) -> bool:
        """Whether it is for this worker to tell what went wrong: for the first one, all fail for the same reason."""
        try:
            os.eventfd_read(self.voice)
        except BlockingIOError:
            return False
        return True


def write(
    settings: Settings, listeners: Sequence[Listener], line: socket.socket, stacks: int, voice: int
) -> tuple[int, list[int]]:
    """Write a handover down.

    Returns:
        The descriptor for `VARIABLE`, to be closed by the caller, and all those that the worker must inherit.
    """
    served = [listener for listener in listeners if not listener.control]
    content = {
        "settings": write_settings(settings),
        "listeners": [
            {
                "fd": listener.sock.fileno(),
                "name": listener.name,
                "inherited": listener.inherited,
                "tls": listener.tls,
                "http2": listener.http2,
            }
            for listener in served
        ],
        "line": line.fileno(),
        "stacks": stacks,
        "voice": voice,
    }
    descriptor = os.memfd_create("appserver-handover")
    try:
        os.write(descriptor, json.dumps(content).encode())
    except OSError:
        os.close(descriptor)
        raise
    return descriptor, [descriptor, line.fileno(), stacks, voice, *(listener.sock.fileno() for listener in served)]


def take(environ: MutableMapping[str, str]) -> Handover:
    """Take the handover that the environment names; neither it nor its descriptors are inherited further."""
    # Gone from there: appserver, where the application starts it, would take the variable for a setting.
    descriptor = int(environ.pop(VARIABLE))
    os.lseek(descriptor, 0, os.SEEK_SET)
    with os.fdopen(descriptor) as file:
        content = json.load(file)
    stacks, voice = content["stacks"], content["voice"]
    os.set_inheritable(stacks, False)
    os.set_inheritable(voice, False)
    listeners = []
    for one in content["listeners"]:
        sock = socket.socket(fileno=one["fd"])
        sock.set_inheritable(False)
        sock.setblocking(False)
        listeners.append(Listener(sock, one["name"], inherited=one["inherited"], tls=one["tls"], http2=one["http2"]))
    end = socket.socket(fileno=content["line"])
    end.set_inheritable(False)
    end.setblocking(False)
    return Handover(read_settings(content["settings"]), tuple(listeners), end, stacks, voice)


def write_settings(settings: Settings) -> dict[str, Any]:
    """Settings as a file of settings has them, which every version of appserver can read."""
    values = {row: getattr(settings, row.name) for row in TABLE}
    # A password in full: it is for another process of ours, and stands in no log.
    written = {
        row.name: value.text if isinstance(value, Password) else row.kind.write(value) for row, value in values.items()
    }
    return {name: value for name, value in written.items() if value is not None}


def read_settings(table: Mapping[str, Any]) -> Settings:
    """Settings that were written, perhaps by another version: what is unknown or unfit here is left at its default."""
    values = {}
    for row in TABLE:
        if row.name in table:
            with suppress(UnfitError):
                values[row.name] = row.kind.read(table[row.name])
    return Settings(**values)


def environment_for_workers(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment for workers: without what was meant for the master alone."""
    mine = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", *PRESSURE, VARIABLE)
    return {name: value for name, value in environ.items() if name not in mine and not name.startswith("LISTEN_")}
