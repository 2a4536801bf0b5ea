"""From an accepted socket to a TLS connection, or to an end that its client can understand.

The first byte is looked at before TLS begins, and left where it is: 0x16 opens a TLS handshake (RFC 8446 section 5.1).
Anything else is mostly a client that speaks plain HTTP to the wrong port, and gets an answer that it can read.

Whatever a client does here, it has `--timeout-tls` from the connection's start for all of it. One sweep a second
enforces that, as for connections (ADR 0007), so that a handshake costs no timer of ours.
"""

import asyncio
import os
import ssl
from asyncio import AbstractEventLoop, BaseProtocol, CancelledError, Task
from collections.abc import Callable
from contextlib import suppress
from email.utils import formatdate
from functools import partial
from socket import MSG_PEEK, SHUT_WR, socket
from time import monotonic
from typing import Final

from appserver.net.tls import explain
from appserver.telemetry.log import Log

PENDING_MAX: Final = 1000
"""Handshakes that may be under way on a listener. For more the oldest is given up: it has had the most time. To stop
accepting instead would let a thousand silent clients keep everybody out. A silent one holds 3 KiB; one that stalls in
mid-handshake holds 58 KiB (uvloop; asyncio: 313 KiB)."""

DESCRIPTORS_SHARE: Final = 4
"""One handshake for so many descriptors that the process may have. Past its first byte it holds two, so that all of
them together leave half to the connections."""

RELIEF_SECONDS: Final = 1.0
"""How old a handshake has to be to be given up for want of a descriptor. Younger ones may be about to become
connections; without a bound new clients would drive each other out, and nobody would get through."""

ANSWER_SECONDS: Final = 2.0
"""How long a client that does not speak TLS has to take its answer and close."""

_HANDSHAKE: Final = b"\x16"
_ALERT: Final = b"\x15\x03\x01\x00\x02\x02%c"
"""A fatal one (RFC 8446 section 6); until a version is agreed on, records are of TLS 1.0 (section 5.1)."""
_ALERTS: Final = {"UNSUPPORTED_PROTOCOL": 70, "NO_SHARED_CIPHER": 40}
"""protocol_version and handshake_failure, by OpenSSL's reason."""
_TEXT: Final = b"This port speaks TLS: use https.\n"
_ANSWER: Final = (
    b"HTTP/1.1 400 Bad Request\r\nDate: %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n"
    b"Connection: close\r\n\r\n%s"
)
_READ_SIZE: Final = 64 * 1024

# Why a handshake is given up.
_LATE: Final = "it took too long"
_EVICTED: Final = "it stalled while too many later ones were under way"
_EXHAUSTED: Final = "it stalled while the process was out of descriptors"
_STOPPING: Final = "the server stops"


def find_bound(descriptors: int, listeners: int) -> int:
    """How many handshakes may be under way on each listener.

    Args:
        descriptors: How many the process may have.
        listeners: How many of them speak TLS.
    """
    return max(1, min(PENDING_MAX, descriptors // (DESCRIPTORS_SHARE * listeners)))


class Handshakes:
    """The handshakes of a listener.

    Args:
        name: The listener, for records.
        loop: The running loop.
        pick_context: What the next handshake begins with.
        make_connection: A new protocol for a connection whose handshake is done.
        timeout: Seconds from the connection's start to the end of its handshake.
        closing_timeout: Seconds that a client has, once a connection is closed, to take what is left of its last answer
            and to close too (RFC 8446 section 6.1). The loops count both together, and cut at the end.
        log: For what goes wrong.
        bound: How many may be under way.
    """

    def __init__(
        self,
        name: str,
        loop: AbstractEventLoop,
        pick_context: Callable[[], ssl.SSLContext],
        make_connection: Callable[[], BaseProtocol],
        timeout: float,
        closing_timeout: float,
        log: Log,
        bound: int = PENDING_MAX,
    ) -> None:
        self._name, self._loop, self._log = name, loop, log
        self._pick_context, self._make_connection = pick_context, make_connection
        self._timeout, self._closing_timeout, self._bound = timeout, closing_timeout, bound
        self._deadlines: dict[Task[bool], float] = {}  # by their age, the oldest first
        self._causes: dict[Task[bool], str] = {}  # of those that have been given up and have not ended yet
        self.failed = 0
        """How many have failed."""

    @property
    def pending(self) -> int:
        """How many are under way."""
        return len(self._deadlines) + len(self._causes)

    def begin(self, sock: socket, client: str) -> "Task[bool]":
        """Begin one; the task tells whether it became a connection."""
        if len(self._deadlines) >= self._bound:
            self._give_up(next(iter(self._deadlines)), _EVICTED)
        task = self._loop.create_task(self._run(sock, client))
        self._deadlines[task] = monotonic() + self._timeout
        task.add_done_callback(partial(self._forget, sock))
        return task

    def _forget(self, sock: socket, task: "Task[bool]") -> None:
        self._deadlines.pop(task, None)
        self._causes.pop(task, None)
        if task.cancelled():  # before it began
            sock.close()

    def _give_up(self, task: "Task[bool]", cause: str) -> None:
        del self._deadlines[task]
        self._causes[task] = cause
        # Not at once: if the handshake was done in this turn, the task ends before, and its connection stays.
        self._loop.call_soon(task.cancel)

    def relieve(self) -> bool:
        """Give up the oldest for want of a descriptor, one at a time; False where none has had its time."""
        if self._causes:
            return True  # one is on its way out
        oldest = next(iter(self._deadlines.items()), None)
        if oldest is None or oldest[1] - self._timeout > monotonic() - RELIEF_SECONDS:
            return False
        self._give_up(oldest[0], _EXHAUSTED)
        return True

    def sweep(self, now: float) -> None:
        """Give up those that take too long."""
        for task in [task for task, deadline in self._deadlines.items() if now > deadline]:
            self._give_up(task, _LATE)

    def hurry(self, seconds: float) -> None:
        """Let none that is under way take longer than so many seconds from now on."""
        end = monotonic() + seconds
        self._deadlines = {task: min(deadline, end) for task, deadline in self._deadlines.items()}

    def abort(self) -> None:
        """Give up all of them."""
        for task in list(self._deadlines):
            self._give_up(task, _STOPPING)

    async def _run(self, sock: socket, client: str) -> bool:
        try:
            first = await self._peek(sock)
            if first == _HANDSHAKE:
                return await self._secure(sock, client)
            if first:
                await self._answer_plain(sock, client)
            else:
                self._log.debug("A connection ended before its TLS handshake", client_addr=client, listener=self._name)
        except (CancelledError, Exception) as error:  # noqa: BLE001 - whatever it is, it must not stay in the task
            self._tell(error, client)
        sock.close()
        return False

    def _tell(self, error: BaseException, client: str) -> None:
        """Log why there is no connection."""
        if isinstance(error, CancelledError):
            task = asyncio.current_task()
            self._fail(_STOPPING if task is None else self._causes.get(task, _STOPPING), client)
        elif isinstance(error, ConnectionAbortedError):  # the loops' own deadline, which is the same
            self._fail(_LATE, client)
        elif isinstance(error, ConnectionResetError):  # every health check that connects and goes away
            self._log.debug(f"A TLS handshake was given up: {explain(error)}", client_addr=client, listener=self._name)
        elif isinstance(error, OSError):  # ssl.SSLError is one
            self._fail(explain(error), client)
        else:
            self.failed += 1
            self._log.error(
                f"A TLS handshake failed by a fault of the server: {error!r}",
                code="handshake_failed",
                client_addr=client,
                listener=self._name,
                exc_info=error,
            )

    def _fail(self, cause: str, client: str) -> None:
        self.failed += 1
        self._log.info(
            f"A TLS handshake failed: {cause}", code="handshake_failed", client_addr=client, listener=self._name
        )

    async def _peek(self, sock: socket) -> bytes:
        """The first byte, without taking it; nothing where the client has closed."""
        with suppress(BlockingIOError):
            return sock.recv(1, MSG_PEEK)
        ready = self._loop.create_future()
        descriptor = sock.fileno()

        def wake() -> None:
            self._loop.remove_reader(descriptor)
            if not ready.done():
                ready.set_result(None)

        self._loop.add_reader(descriptor, wake)
        try:
            await ready
        except CancelledError:
            self._loop.remove_reader(descriptor)
            raise
        return sock.recv(1, MSG_PEEK)

    async def _secure(self, sock: socket, client: str) -> bool:
        """Do the handshake, and make the connection: the one place where TLS transports are made."""
        spare, held = -1, False
        with suppress(OSError):  # out of descriptors: then nobody is told
            spare = os.dup(sock.fileno())

        def make() -> BaseProtocol:
            nonlocal held
            held = True
            return self._make_connection()

        try:
            await self._loop.connect_accepted_socket(
                make,
                sock,
                ssl=self._pick_context(),
                ssl_handshake_timeout=self._timeout,
                ssl_shutdown_timeout=self._closing_timeout,
            )
        except (CancelledError, Exception) as error:  # noqa: BLE001 - as in _run()
            # The loops close the socket and keep OpenSSL's alert to themselves. A client whose version or suites are
            # too old is to be told (RFC 8446 section 4.2.1); what comes later is encrypted, and beyond us.
            if spare != -1 and isinstance(error, ssl.SSLError) and error.reason in _ALERTS:
                with suppress(OSError):  # the client has gone
                    os.write(spare, _ALERT % _ALERTS[error.reason])
            self._tell(error, client)
            if not held:  # else it is the transport's: its number may be another connection's before that is closed
                sock.close()
            return False
        finally:
            if spare != -1:
                os.close(spare)
        return True

    async def _answer_plain(self, sock: socket, client: str) -> None:
        """Say that this port speaks TLS, and close so that the answer arrives (RFC 9112 section 9.6)."""
        self.failed += 1
        self._log.info(
            "Refused a connection without TLS on a port that speaks TLS",
            code="refused",
            http_status=400,
            client_addr=client,
            listener=self._name,
        )
        with suppress(
            OSError, CancelledError
        ):  # the client has gone, or is too slow; cancelled: by the sweep, and it has had its answer
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._loop.sock_sendall(sock, _ANSWER % (formatdate(usegmt=True).encode(), len(_TEXT), _TEXT))
                sock.shutdown(SHUT_WR)
                while await self._loop.sock_recv(sock, _READ_SIZE):
                    pass  # unread bytes would make the kernel answer with a reset, which may overtake the answer
