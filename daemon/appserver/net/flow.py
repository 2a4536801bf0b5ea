"""The writing half of a connection: what waits for the peer, who waits for it, and how long the peer may take.

Bytes of a file go past the transport, from the page cache to the socket by sendfile(2), once everything that was
written before has left. For the peer's time both ways are one.
"""

import os
from array import array
from asyncio import AbstractEventLoop, Future, Transport, sleep
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from errno import EHOSTUNREACH, EMFILE, ENETUNREACH, ENFILE, ENOTCONN
from fcntl import ioctl
from math import inf
from termios import TIOCOUTQ
from time import monotonic
from typing import Final

from appserver.errors import ClientDisconnectedError
from appserver.net.endpoint import Timeouts
from appserver.telemetry.metrics import Metrics

HIGH_WATER: Final = 64 * 1024
"""Bytes of a response that are held before the application has to wait, and of pipelined requests before the peer has
to. With 192 KiB of a body, a read of 64 KiB and one message of the application, a connection holds 384 KiB at most."""

FILE_TURN: Final = 1024 * 1024
"""Bytes of a file that are sent before other connections have their turn: about 0.2 ms of copying, and at most so much
to be read from a disk while the event loop waits."""


PIECE_SIZE: Final = 64 * 1024
"""Bytes given to a TLS transport at once. uvloop encrypts all that it gets and does not count what waits behind that:
one write of 8 MiB to a client that does not read would be held whole, unseen by every limit."""

POLL_SECONDS: Final = 0.05
"""Where there is no descriptor left to wait with, the socket is asked this often."""

_UNREACHABLE: Final = frozenset({EHOSTUNREACH, ENETUNREACH, ENOTCONN})
"""Errors of a socket, beside those that Python has classes for."""


class Outflow:
    """Bytes on their way to the peer.

    Args:
        loop: The running loop.
        timeouts: `write` and `min_rate` are used.
        figures: Where bytes are counted.

    Attributes:
        paused: More than `HIGH_WATER` bytes wait in the transport.
        deadline: When the peer must have taken its share; infinite while nothing is watched.
    """

    __slots__ = (
        "_burst",
        "_closing",
        "_figures",
        "_final",
        "_held",
        "_left",
        "_loop",
        "_mark",
        "_timeouts",
        "_transport",
        "_waiters",
        "_written",
        "deadline",
        "paused",
    )

    def __init__(self, loop: AbstractEventLoop, timeouts: Timeouts, figures: Metrics) -> None:
        self._loop, self._timeouts, self._figures = loop, timeouts, figures
        self._transport: Transport | None = None
        self._waiters: set[Future[None]] = set()
        self._burst = self._written = 0
        # When the peer's time began to run: bytes that had left the process, and those that the peer had taken.
        self._left = self._mark = 0
        self._final = self._closing = False
        self._held: deque[memoryview] | None = None  # what a TLS transport is not given yet; None without TLS
        self.paused = False
        self.deadline = inf

    def attach(self, transport: Transport) -> None:
        """Begin to write to a transport."""
        self._transport = transport
        transport.set_write_buffer_limits(high=HIGH_WATER)
        if transport.get_extra_info("sslcontext") is not None:
            self._held = deque()

    def detach(self) -> None:
        """The connection is lost: whoever waits is told."""
        self._transport = None
        self.paused = False
        self.deadline = inf
        self._wake()

    def write(self, pieces: Sequence[bytes]) -> None:
        """Hand bytes to the transport; into a connection that has failed they vanish."""
        transport = self._transport
        if transport is None or transport.is_closing():
            self._burst = HIGH_WATER  # the writer has to let the loop run, so that it learns what happened
            return
        for data in pieces:  # not writelines(): asyncio's forgets the limits of the buffer (Python 3.12 and 3.13)
            size = len(data)
            self._written += size
            self._burst += size
            self._figures.bytes_sent += size
            if self._held is None or (size <= PIECE_SIZE and not self.paused):
                transport.write(data)
            else:
                self._held += [memoryview(data)[at : at + PIECE_SIZE] for at in range(0, size, PIECE_SIZE)]
                self._write_held(transport)

    def _write_held(self, transport: Transport) -> None:
        held = self._held
        while held and not self.paused and not transport.is_closing():
            transport.write(held.popleft())

    @property
    def choked(self) -> bool:
        """A writer has to wait for `writable()`.

        Not only for a slow peer: a fast one takes everything at once, and an application that streams to it without
        ever waiting for something else would have the event loop for itself.
        """
        return self.paused or self._burst >= HIGH_WATER

    async def writable(self) -> None:
        """Wait until more may be written.

        Raises:
            ClientDisconnectedError: The client went away meanwhile.
        """
        await self.breathe()
        await self._resumed()
        if self._transport is None:
            raise ClientDisconnectedError("the client is gone")

    async def breathe(self) -> None:
        """Let the others have their turn, after much was written at once."""
        if self._burst >= HIGH_WATER:
            self._burst = 0
            await sleep(0)

    @property
    def encrypted(self) -> bool:
        """Bytes must go through the transport: past it, they would be plain text in the midst of TLS records."""
        return self._held is not None

    async def send_file(self, file: int, offset: int, count: int) -> int:
        """Send bytes of a file, behind all that was written before: as many as the socket takes at once.

        Args:
            file: A descriptor of a regular file.
            offset: Of the first byte in the file.
            count: At most so many bytes, more than 0.

        Returns:
            How many the socket has taken; 0 where the file ends before `offset`.

        Raises:
            ClientDisconnectedError: The client went away, or the connection ends.
            OSError: The file cannot be read (sendfile(2)).
        """
        await self.breathe()
        await self._emptied()
        while True:
            transport = self._transport
            # Also because the number of its descriptor is another file's once it is closed.
            if transport is None or transport.is_closing() or self._final:
                raise ClientDisconnectedError("the client is gone")
            descriptor = transport.get_extra_info("socket").fileno()
            try:
                sent = os.sendfile(descriptor, file, offset, min(count, FILE_TURN))
            except BlockingIOError:
                await self._has_room(descriptor)
            except OSError as error:
                if not isinstance(error, ConnectionError | TimeoutError) and error.errno not in _UNREACHABLE:
                    raise
                transport.abort()  # it may not be reading, and then learns of this in no other way
                raise ClientDisconnectedError("the client is gone") from error
            else:
                break
        self._written += sent
        self._burst += sent
        self._figures.bytes_sent += sent
        # As with resume(): a peer that has taken what the buffer may hold has earned itself a new deadline.
        if sent == count or self._written - self._left >= HIGH_WATER:
            self.deadline = inf
        return sent

    async def _emptied(self) -> None:
        """Wait until the transport holds nothing."""
        transport = self._transport
        if transport is None or not transport.get_write_buffer_size():
            return
        transport.set_write_buffer_limits(high=0)  # so it calls pause() now, and resume() when the last byte has left
        try:
            await self._resumed()
        finally:
            if self._transport is transport:  # uvloop raises for one that is closed
                transport.set_write_buffer_limits(high=HIGH_WATER)

    async def _has_room(self, descriptor: int) -> None:
        """Wait until the socket takes more; the peer's time runs."""
        if self.deadline == inf:
            self._watch()
        # Of the transport's own descriptor loops watch nothing for others.
        try:
            copy = os.dup(descriptor)
        except OSError as error:
            if error.errno not in (EMFILE, ENFILE):
                raise
            await sleep(POLL_SECONDS)  # a lack of descriptors cuts no download that has begun
            return
        waiter = self._loop.create_future()
        self._waiters.add(waiter)
        self._loop.add_writer(copy, _wake, waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)
            self._loop.remove_writer(copy)
            os.close(copy)

    async def _resumed(self) -> None:
        while self.paused:
            waiter = self._loop.create_future()
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)

    def pause(self) -> None:
        """The transport holds more than `HIGH_WATER` bytes: the peer's time runs."""
        self.paused = True
        self._watch()

    def resume(self) -> None:
        """The peer has taken most of it."""
        self.paused = False
        self.deadline = inf
        if self._held and self._transport is not None:
            self._write_held(self._transport)
            if self.paused:  # anew, and with a deadline of its own
                return
            if self._closing:
                self._transport.close()
        if self._final:
            self.watch_rest()
        self._wake()

    def watch_rest(self) -> None:
        """Nothing more will be written: the peer's time runs until it has taken the last byte."""
        self._final = True
        self._wake()  # a file that is being sent ends here
        if self.waiting:
            self._watch()

    def close(self) -> None:
        """Close the transport once it has been given everything; the peer's time for that runs."""
        self.watch_rest()
        if self._held:
            self._closing = True
        elif self._transport is not None:
            self._transport.close()

    def is_too_slow(self, now: float) -> bool:
        """Whether the peer has missed its deadline; one that has kept the minimum rate gets another."""
        if now <= self.deadline or self._transport is None:
            return False
        taken = self._written - self.waiting - self._unsent - self._mark
        if taken < self._timeouts.min_rate * self._timeouts.write:
            return True
        self._watch()
        return False

    @property
    def waiting(self) -> int:
        """Bytes that the transport still holds."""
        if self._transport is None:
            return 0
        size = self._transport.get_write_buffer_size()
        return size + sum(map(len, self._held)) if self._held else size

    @property
    def delivered(self) -> bool:
        """Nothing is left to write; of what a TLS transport holds only the socket tells."""
        return not self.waiting and (self._held is None or not self._unsent)

    @property
    def _unsent(self) -> int:
        """Bytes that the kernel holds (tcp(7), SIOCOUTQ).

        It may be megabytes, and room for more comes in large steps: without these a peer that reads 20 KB a second
        seems to take nothing for half a minute.
        """
        unsent = array("i", [0])
        if self._transport is not None:
            with suppress(OSError, AttributeError):  # it is closed already, and over TLS gone
                ioctl(self._transport.get_extra_info("socket").fileno(), TIOCOUTQ, unsent)
        return unsent[0]

    def _watch(self) -> None:
        self._left = self._written - self.waiting
        self._mark = self._left - self._unsent
        self.deadline = monotonic() + self._timeouts.write

    def _wake(self) -> None:
        for waiter in self._waiters:
            _wake(waiter)


def _wake(waiter: Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
