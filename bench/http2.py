"""A small HTTP/2 client (RFC 9113): it asks for one thing at a time, and costs little, so that it can time answers.

Frames are made and read by hand. Field blocks are hpack's; those that are sent leave no trace in the server's table, so
that one block, made once, does for every request.
"""

import socket
import struct
from typing import Final

from hpack import Decoder, Encoder

from bench.errors import ContenderError
from bench.workloads import Workload

DATA: Final = 0
HEADERS: Final = 1
RST_STREAM: Final = 3
SETTINGS: Final = 4
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_INITIAL_WINDOW_SIZE: Final = 4
_LARGEST_WINDOW: Final = 2**31 - 1
_FIRST_WINDOW: Final = 65_535


def make_frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One frame (RFC 9113 section 4.1)."""
    return struct.pack(">HBBBL", len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream) + payload


OPENING: Final = (
    _PREFACE
    + make_frame(SETTINGS, 0, 0, struct.pack(">HL", _INITIAL_WINDOW_SIZE, _LARGEST_WINDOW))
    + make_frame(WINDOW_UPDATE, 0, 0, struct.pack(">L", _LARGEST_WINDOW - _FIRST_WINDOW))
)
"""What a client sends first; with windows so large that they never hold an answer up."""


def make_block(workload: Workload) -> bytes:
    """The field block of a workload's request, a GET."""
    scheme = "https" if workload.tls else "http"
    fields = [(":method", "GET"), (":scheme", scheme), (":path", workload.target), (":authority", "127.0.0.1")]
    # The third member: never indexed (RFC 7541 section 7.1.3).
    return Encoder().encode([(name, value, True) for name, value in (*fields, *workload.fields)])


class Http2Client:
    """One connection, and one stream after the other.

    Args:
        connection: To a server that takes HTTP/2 from its first byte on.
        workload: What is asked for.

    Raises:
        OSError: The connection is broken.
    """

    def __init__(self, connection: socket.socket, workload: Workload) -> None:
        self.connection = connection
        self._block = make_block(workload)
        self._decoder = Decoder()
        self._buffer = b""
        self._stream = -1
        connection.sendall(OPENING)

    def ask(self) -> tuple[int, bytes]:
        """Ask, and wait for the answer.

        Returns:
            Its status and its body.

        Raises:
            ContenderError: The server ended the stream or the connection instead.
            OSError: The connection broke, or it took too long.
        """
        self._stream += 2
        self.connection.sendall(make_frame(HEADERS, END_HEADERS | END_STREAM, self._stream, self._block))
        status, body = 0, []
        while True:
            kind, flags, stream, payload = self._read_frame()
            if kind == SETTINGS and not flags & ACK:
                self.connection.sendall(make_frame(SETTINGS, ACK, 0, b""))
            elif kind == PING and not flags & ACK:
                self.connection.sendall(make_frame(PING, ACK, 0, payload))
            elif kind in (GOAWAY, RST_STREAM):
                raise ContenderError(f"the server ended the {'connection' if kind == GOAWAY else 'stream'}")
            elif kind == HEADERS:
                if not flags & END_HEADERS or flags & ~(END_HEADERS | END_STREAM):
                    raise ContenderError(f"HEADERS with flags {flags:#x}, which this client does not read")
                fields = dict(self._decoder.decode(payload, raw=True))
                status = int(fields.get(b":status", 0)) or status  # none in trailers
            elif kind == DATA:
                body.append(payload)
            if kind in (HEADERS, DATA) and flags & END_STREAM and stream == self._stream:
                return status, b"".join(body)

    def _read_frame(self) -> tuple[int, int, int, bytes]:
        self._fill(9)
        high, low, kind, flags, stream = struct.unpack_from(">HBBBL", self._buffer)
        size = high << 8 | low
        self._fill(9 + size)
        payload, self._buffer = self._buffer[9 : 9 + size], self._buffer[9 + size :]
        return kind, flags, stream, payload

    def _fill(self, size: int) -> None:
        while len(self._buffer) < size:
            data = self.connection.recv(262_144)
            if not data:
                raise ContenderError("the server closed the connection")
            self._buffer += data
