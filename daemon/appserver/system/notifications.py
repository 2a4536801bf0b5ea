"""The other end of NOTIFY_SOCKET: what a service manager does for its services, done by a master for its workers.

The protocol is that of sd_notify(3), so that a worker says what it would say to systemd. Who says it is told by the
kernel (SCM_CREDENTIALS, unix(7)), not by the message.
"""

import os
import secrets
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

MESSAGE_SIZE: Final = 64 * 1024
BATCH: Final = 256
_CREDENTIALS: Final = struct.Struct("iII")


class Notifications:
    """A datagram socket that workers notify.

    Attributes:
        address: For their NOTIFY_SOCKET: an abstract name, which needs no file and no permission to make one.
    """

    __slots__ = ("_sock", "address")

    def __init__(self) -> None:
        name = f"appserver-{os.getpid()}-{secrets.token_hex(8)}"
        self.address = f"@{name}"
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._sock.setblocking(False)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._sock.bind(f"\0{name}")

    def fileno(self) -> int:
        """For the event loop."""
        return self._sock.fileno()

    def read(self) -> Iterator[tuple[int, dict[str, str]]]:
        """What has come: the sender's process id, and its assignments.

        No more than a batch of it: whoever floods the socket must not keep the master from everything else.
        """
        for _ in range(BATCH):
            try:
                data, ancillary, _, _ = self._sock.recvmsg(MESSAGE_SIZE, socket.CMSG_SPACE(_CREDENTIALS.size))
            except (BlockingIOError, InterruptedError):
                return
            pid = 0
            for level, kind, content in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                    with suppress(struct.error):
                        pid = _CREDENTIALS.unpack(content)[0]
            lines = data.decode("utf-8", "replace").split("\n")
            yield pid, {name: value for name, mark, value in (line.partition("=") for line in lines) if mark}

    def close(self) -> None:
        """Hear no more."""
        self._sock.close()
