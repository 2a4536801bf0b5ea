"""What a worker is given: the settings of its generation, the listeners, and a line to its master.

A worker is a process of its own from the start (exec, not fork), so nothing that the master has done or holds leaks
into it. What it is to have is written into a file without a name (memfd_create(2)), whose descriptor is told in the
environment. Written by the master and read by nobody else, it may be a pickle.
"""

import os
import pickle
import socket
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Final

from appserver.net.listeners import Listener
from appserver.settings import Settings
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
class _Plan:
    """A listener, as a number and what is known of it."""

    fd: int
    name: str
    inherited: bool
    tls: bool
    http2: bool


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
    plans = [
        _Plan(listener.sock.fileno(), listener.name, listener.inherited, listener.tls, listener.http2)
        for listener in listeners
        if not listener.control
    ]
    content = pickle.dumps((settings, plans, line.fileno(), stacks, voice))
    descriptor = os.memfd_create("appserver-handover")
    try:
        os.write(descriptor, content)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor, [descriptor, line.fileno(), stacks, voice, *(plan.fd for plan in plans)]


def take(environ: MutableMapping[str, str]) -> Handover:
    """Take the handover that the environment names; neither it nor its descriptors are inherited further."""
    # Gone from there: appserver, where the application starts it, would take the variable for a setting.
    descriptor = int(environ.pop(VARIABLE))
    os.lseek(descriptor, 0, os.SEEK_SET)
    with os.fdopen(descriptor, "rb") as file:
        settings, plans, line, stacks, voice = pickle.load(file)  # noqa: S301 - our master's
    os.set_inheritable(stacks, False)
    os.set_inheritable(voice, False)
    listeners = []
    for plan in plans:
        sock = socket.socket(fileno=plan.fd)
        sock.set_inheritable(False)
        sock.setblocking(False)
        listeners.append(Listener(sock, plan.name, inherited=plan.inherited, tls=plan.tls, http2=plan.http2))
    end = socket.socket(fileno=line)
    end.set_inheritable(False)
    end.setblocking(False)
    return Handover(settings, tuple(listeners), end, stacks, voice)


def environment_for_workers(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment for workers: without what was meant for the master alone."""
    mine = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", *PRESSURE, VARIABLE)
    return {name: value for name, value in environ.items() if name not in mine and not name.startswith("LISTEN_")}
