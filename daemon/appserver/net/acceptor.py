"""The accept loop.

It is ours and not `loop.create_server()`, which would call listen(2) again on a socket that systemd has set up, with
a backlog of its own, and under uvloop answers a lack of file descriptors by accepting and closing connections. Ours
leaves them in the backlog and tries again.
"""

import asyncio
import errno
import socket
from asyncio import AbstractEventLoop, Task, TimerHandle
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from appserver.net.connection import Connection
from appserver.net.listeners import Listener
from appserver.telemetry.log import Log

if TYPE_CHECKING:
    from appserver.net.handshake import Handshakes

ACCEPT_BATCH: Final = 8
"""Connections taken in one go: few, so that processes which share a listener share its connections."""

RETRY_SECONDS: Final = 0.5
"""How long accepting pauses when the process or the host is out of descriptors or memory."""

# accept(2): errors of one connection that has gone already, not of the listener.
_CONNECTION_GONE: Final = frozenset(
    {errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN}
    | {errno.EHOSTUNREACH, errno.ENOPROTOOPT, errno.ENONET, errno.EOPNOTSUPP}
)
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


@dataclass(slots=True)
class Acceptor:
    """Accepts connections of one listener.

    Attributes:
        listener: Where from.
        loop: The running loop.
        make_connection: A new protocol for an accepted socket.
        log: For what goes wrong.
        backlog: How many connections may wait in a socket of our own.
        handshakes: What makes TLS connections of accepted sockets; None where the listener does not speak TLS.
        on_gone: Called when an accepted socket did not become a connection.
    """

    listener: Listener
    loop: AbstractEventLoop
    make_connection: Callable[[], Connection]
    log: Log
    backlog: int
    handshakes: "Handshakes | None" = None
    on_gone: Callable[[], None] | None = None
    _tasks: "set[Task[bool]]" = field(default_factory=set)
    _retry: TimerHandle | None = None
    _exhausted: bool = False
    _running: bool = False

    def start(self) -> None:
        """Begin to accept; a connected socket is one connection and nothing else."""
        self._running = True
        if self.listener.connected:
            try:
                address = self.listener.sock.getpeername()
            except OSError:
                address = None  # the client has gone
            self._begin(self.listener.sock, address)
        else:
            self.loop.add_reader(self.listener.sock.fileno(), self._accept)

    def stop(self) -> None:
        """Accept no more. What waits in the backlog of a socket of our own is taken first: nobody else would.

        The backlog of an inherited socket is left to the service manager's next process, or to our siblings.
        """
        if not self._running:
            return
        self._running = False
        if self._retry is not None:
            self._retry.cancel()
        if self.listener.connected:
            return
        self.loop.remove_reader(self.listener.sock.fileno())
        if not self.listener.inherited:
            for _ in range(self.backlog):
                if not self._accept_one():
                    break
            # From here on the kernel refuses connections, and a proxy tries elsewhere; a successor may bind.
            self.listener.close()

    def pause(self) -> None:
        """Accept no more until `start`: who comes waits in the backlog."""
        self._running = False
        if self._retry is not None:
            self._retry.cancel()
        self.loop.remove_reader(self.listener.sock.fileno())

    @property
    def pending(self) -> int:
        """How many accepted sockets have not become connections yet."""
        return len(self._tasks) + (self.handshakes.pending if self.handshakes is not None else 0)

    def sweep(self, now: float) -> None:
        """Enforce the deadline of handshakes; to be called once a second."""
        if self.handshakes is not None:
            self.handshakes.sweep(now)

    def hurry(self, seconds: float) -> None:
        """Let no handshake take longer than so many seconds from now on."""
        if self.handshakes is not None:
            self.handshakes.hurry(seconds)

    def abort(self) -> None:
        """Give up what has not become a connection yet."""
        if self.handshakes is not None:
            self.handshakes.abort()

    async def settled(self) -> None:
        """Wait until every accepted socket has become a connection, but for handshakes: those are up to the clients."""
        while self._tasks:
            # Not `await task`: one that is over does not yield, and the call-back that takes it out never runs.
            await asyncio.wait(self._tasks)

    def _accept(self) -> None:
        for _ in range(ACCEPT_BATCH):
            if not self._accept_one():
                break

    def _accept_one(self) -> bool:
        """Accept one connection; False when there is none, or none can be had."""
        try:
            sock, address = self.listener.sock.accept()
        except (BlockingIOError, InterruptedError):
            if self._exhausted:
                self._exhausted = False
                self.log.info("Accepting again", code="accept_paused", listener=self.listener.name)
            return False
        except OSError as error:
            if error.errno in _CONNECTION_GONE:
                return True
            # Where a handshake that stalls can be given up, it is tried again in the loop's next turn.
            if error.errno not in _EXHAUSTED or self.handshakes is None or not self.handshakes.relieve():
                self._pause(error)
            return False
        self._begin(sock, address)
        return True

    def _pause(self, error: OSError) -> None:
        if not self._exhausted:
            # Once, however often it is tried in vain until the backlog is empty.
            self._exhausted = True
            cause = "out of file descriptors or memory" if error.errno in _EXHAUSTED else "accept failed"
            self.log.error(
                f"Accepting is paused: {cause} ({error.strerror}); connections wait in the backlog",
                code="accept_paused",
                errno=error.errno,
                listener=self.listener.name,
            )
        if self._running:
            self.loop.remove_reader(self.listener.sock.fileno())
            self._retry = self.loop.call_later(RETRY_SECONDS, self._resume)

    def _resume(self) -> None:
        self._retry = None
        self.loop.add_reader(self.listener.sock.fileno(), self._accept)

    def _begin(self, sock: socket.socket, address: Any) -> None:
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            with suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.handshakes is not None:
            client = str(address[0]) if isinstance(address, tuple) else "unix"
            task = self.handshakes.begin(sock, client)
        else:
            task = self.loop.create_task(self._connect(sock))
            self._tasks.add(task)
        task.add_done_callback(self._settle)

    def _settle(self, task: "Task[bool]") -> None:
        self._tasks.discard(task)
        if self.on_gone is not None and (task.cancelled() or not task.result()):
            self.on_gone()

    async def _connect(self, sock: socket.socket) -> bool:
        """Make a connection of a socket; False when it was gone before."""
        try:
            await self.loop.connect_accepted_socket(self.make_connection, sock)
        except OSError as error:
            sock.close()
            self.log.debug(f"A connection was gone before it began: {error}", listener=self.listener.name)
            return False
        return True
