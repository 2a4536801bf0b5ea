"""A small WebSocket client (RFC 6455, RFC 7692): it sends one frame again and again, and knows the answer to it.

The frame is made once, masked and, where compression is wanted, compressed by itself: no server can tell it from one of
a client whose compression forgets what was before, and it costs nothing when it is sent.
"""

import socket
import struct
import zlib
from base64 import b64encode
from functools import cache
from hashlib import sha1
from typing import Final

from bench.addresses import Address, open_connection
from bench.errors import ContenderError
from bench.workloads import Workload

_TEXT: Final = 1
_BINARY: Final = 2
_CLOSE: Final = 8
_PING: Final = 9
_FINAL: Final = 0x80
_COMPRESSED: Final = 0x40
_MASKED: Final = 0x80

_MASK: Final = b"\x37\xfa\x21\x3d"
_KEY: Final = b64encode(bytes(range(16)))
_ACCEPT: Final = b64encode(sha1(_KEY + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False).digest())

_WINDOW_BITS: Final = 12
"""Of our compression: the least that any of the servers asks for."""
_SYNC: Final = b"\x00\x00\xff\xff"
_READ_SIZE: Final = 262_144


def write_handshake(workload: Workload) -> bytes:
    """The request for a WebSocket; with compression as browsers offer it."""
    lines = [
        f"GET {workload.target} HTTP/1.1",
        "host: 127.0.0.1",
        *(f"{name}: {value}" for name, value in workload.fields),
        "upgrade: websocket",
        "connection: Upgrade",
        f"sec-websocket-key: {_KEY.decode()}",
        "sec-websocket-version: 13",
    ]
    if workload.deflate:
        lines.append("sec-websocket-extensions: permessage-deflate; client_max_window_bits")
    return "\r\n".join([*lines, "", ""]).encode()


@cache
def write_message(workload: Workload) -> bytes:
    """The workload's message, as a client sends it: one masked frame."""
    kind, payload = _FINAL | (_TEXT if workload.text else _BINARY), workload.expected
    if workload.deflate:
        compressor = zlib.compressobj(wbits=-_WINDOW_BITS)
        payload = (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(_SYNC)
        kind |= _COMPRESSED
    return _write_head(kind, len(payload), _MASKED) + _MASK + _mask(payload)


def _write_head(kind: int, size: int, masked: int) -> bytes:
    if size < 126:
        return struct.pack(">BB", kind, masked | size)
    if size < 65_536:
        return struct.pack(">BBH", kind, masked | 126, size)
    return struct.pack(">BBQ", kind, masked | 127, size)


def _mask(payload: bytes) -> bytes:
    size = len(payload)
    key = (_MASK * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


class WebSocketClient:
    """One WebSocket.

    Args:
        address: The server.
        workload: Its message is what the server sends back.
        timeout: Seconds that anything may take.

    Attributes:
        received: Bytes of answers, as they came.

    Raises:
        OSError: There is no connection.
    """

    __slots__ = ("_buffer", "_deflate", "_inflate", "_opening", "_payload", "_plain", "_sent", "connection", "received")

    def __init__(self, address: Address, workload: Workload, timeout: float) -> None:
        self.connection = open_connection(address, timeout)
        # The kernel's time limits: Python's own cost a poll(2) for each call.
        self.connection.settimeout(None)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self.connection.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", round(timeout), 0))
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._opening = write_handshake(workload)
        self._deflate = workload.deflate
        self._sent = write_message(workload)
        self._payload = workload.expected
        kind = _FINAL | (_TEXT if workload.text else _BINARY)
        self._plain = _write_head(kind, len(self._payload), 0) + self._payload
        self._inflate = zlib.decompressobj(wbits=-zlib.MAX_WBITS) if workload.deflate else None
        self._buffer = b""
        self.received = 0

    def ask(self) -> None:
        """Send the handshake."""
        self.connection.sendall(self._opening)

    def open(self) -> None:
        """Read its answer.

        Raises:
            ContenderError: It is not what a WebSocket begins with, or without the compression that is measured.
            OSError: The connection broke, or it took too long.
        """
        answer = b""
        while b"\r\n\r\n" not in answer:
            data = self.connection.recv(_READ_SIZE)
            if not data:
                raise ContenderError("the server closed the connection instead of a WebSocket's handshake")
            answer += data
        head, _, self._buffer = answer.partition(b"\r\n\r\n")
        status, *lines = head.split(b"\r\n")
        if not status.startswith(b"HTTP/1.1 101"):
            raise ContenderError(f"wrong answer: {status.decode('latin-1')}")
        fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        if fields.get(b"sec-websocket-accept") != _ACCEPT:
            raise ContenderError("wrong answer: no Sec-WebSocket-Accept for our key")
        extensions = fields.get(b"sec-websocket-extensions", b"")
        if self._deflate and b"permessage-deflate" not in extensions:
            raise ContenderError("has no permessage-deflate")
        if extensions and not self._deflate:
            raise ContenderError("agreed on an extension that was not offered")

    def say(self) -> None:
        """Send the message."""
        self.connection.sendall(self._sent)

    def hear(self) -> bool:
        """Read once what has come; True if the message is whole, and what it should be.

        Raises:
            ContenderError: It is another one, or the server has closed.
            OSError: The connection broke, or it took too long.
        """
        data = self.connection.recv(_READ_SIZE)
        self.received += len(data)
        if data == self._plain and not self._buffer:
            return True  # what nearly all are: cheap for us, so that the server is what is slow
        if not data:
            raise ContenderError("the server closed a WebSocket")
        self._buffer += data
        return self._take()

    def _take(self) -> bool:
        """Take one frame from what has come. Servers answer one message with one frame; pings may come between."""
        while len(self._buffer) >= 2:
            kind, size = self._buffer[0], self._buffer[1]
            start = 2
            if size >= 126:
                start = 4 if size == 126 else 10
                if len(self._buffer) < start:
                    return False
                size = int.from_bytes(self._buffer[2:start], "big")
            if len(self._buffer) < start + size:
                return False
            payload, self._buffer = self._buffer[start : start + size], self._buffer[start + size :]
            if kind == _FINAL | _PING:
                continue
            if kind & ~_COMPRESSED != self._plain[0]:
                raise ContenderError(f"a frame that begins with {kind:#x} instead of an answer")
            if kind & _COMPRESSED:
                if self._inflate is None:
                    raise ContenderError("a compressed answer without compression")
                payload = self._inflate.decompress(payload + _SYNC)
            if payload != self._payload:
                raise ContenderError(f"wrong answer: {len(payload)} bytes that are not the {len(self._payload)} sent")
            return True
        return False

    def finish(self) -> None:
        """Say Close, without a code."""
        self.connection.sendall(_write_head(_FINAL | _CLOSE, 0, _MASKED) + _MASK)

    def close(self) -> None:
        """End it at once."""
        self.connection.close()
