"""Datagrams to the journal, without ever waiting for it.

sd_journal_sendv(3) does the same for one record, but takes 3.3 us for it and not 1.4, and waits as long as the
journal's queue is full: docs/adr/0013-access-records-in-batches.md.
"""

import errno
import select
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from systemd.journal import sendv

from appserver.telemetry.stream import STALL_SECONDS, StalledError

JOURNAL_SOCKET: Final = Path("/run/systemd/journal/socket")

SEND_BUFFER: Final = 8 * 1024 * 1024
"""Bytes; as libsystemd asks for. The kernel gives what net.core.wmem_max allows, usually 208 KiB."""


class Datagrams:
    """A connected socket to the journal; made with the first record, and again when the journal has been replaced.

    Args:
        path: Of the journal's socket.
    """

    __slots__ = ("_path", "_socket", "_stalled")

    def __init__(self, path: Path = JOURNAL_SOCKET) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._stalled = False

    def write(self, fields: Sequence[bytes]) -> None:
        """Hand an event's fields to sd_journal_sendv(3), which would wait without end for a journal that does not read.

        Raises:
            StalledError: It has not read for `STALL_SECONDS`, waited for once.
            OSError: The journal did not take them.
        """
        self._stalled = not self.wait(0 if self._stalled else STALL_SECONDS)
        if self._stalled:
            raise StalledError("the journal is not read")
        sendv(*fields)

    def offer(self, records: Sequence[bytes]) -> int:
        """See `record.Outlet`; a record is one of `journal.render_datagram`."""
        for count, record in enumerate(records):
            try:
                self._send(record)
            except BlockingIOError:
                return count
            except OSError:
                self.close()
                if count:
                    return count
                raise
        return len(records)

    @property
    def unfinished(self) -> bool:
        """See `record.Outlet`: a datagram is whole."""
        return False

    def wait(self, seconds: float) -> bool:
        """See `record.Outlet`."""
        if self._socket is None:
            try:
                self._socket = self._connect()
            except OSError:
                return True  # there is no journal: nothing to wait for
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        return bool(poll.poll(seconds * 1000))

    def close(self) -> None:
        """Close the socket; the next record opens one again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, record: bytes) -> None:
        fresh = self._socket is None
        if self._socket is None:
            self._socket = self._connect()
        try:
            self._socket.send(record)
        except (ConnectionRefusedError, ConnectionResetError, BrokenPipeError):
            # Who was behind the path has gone: a restart of systemd-journald.socket. Somebody else may be there now.
            if fresh:
                raise
            self.close()
            self._send(record)
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            sendv(*record[:-1].split(b"\n"))  # by a memfd; such a record is rare enough to wait for

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            connection.setblocking(False)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            connection.connect(str(self._path))
        except BaseException:
            connection.close()
            raise
        return connection
