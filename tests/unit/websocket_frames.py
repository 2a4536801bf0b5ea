"""WebSocket frames as a client writes them, also those that no client may, and those of a server taken apart."""

import zlib
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from websockets.protocol import CLIENT, Protocol
else:
    try:
        from websockets.protocol import CLIENT, Protocol
    except ImportError:  # before 11.0, as in Debian 12
        from websockets.connection import CLIENT
        from websockets.connection import Connection as Protocol

__all__ = ["CLIENT", "Protocol"]
"""The library's own client."""

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
FIN, RSV1, RSV2, RSV3 = 0x80, 0x40, 0x20, 0x10
KEY: Final = b"\x37\xfa\x21\x3d"  # RFC 6455 section 5.7


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, reserved: int = 0, key: bytes | None = KEY, size: int = -1
) -> bytes:
    """One frame.

    Args:
        opcode: Any of four bits.
        payload: Any bytes.
        fin: It is the last of its message.
        reserved: Bits among `RSV1`, `RSV2` and `RSV3`.
        key: Of the mask; None for a frame without one.
        size: The length that it tells, where that is another than the payload's.
    """
    size = len(payload) if size < 0 else size
    masked = 0 if key is None else 0x80
    head = bytes([(FIN if fin else 0) | reserved | opcode])
    if size < 126:
        head += bytes([masked | size])
    elif size < 1 << 16:
        head += bytes([masked | 126]) + size.to_bytes(2)
    else:
        head += bytes([masked | 127]) + size.to_bytes(8)
    if key is None:
        return head + payload
    if key != bytes(4):
        payload = bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))
    return head + key + payload


def text(message: str) -> bytes:
    return frame(TEXT, message.encode())


def binary(message: bytes) -> bytes:
    """A message, masked with zeros where it is large."""
    return frame(BINARY, message, key=KEY if len(message) < 1 << 16 else bytes(4))


def close(code: int | None = None, reason: bytes = b"") -> bytes:
    return frame(CLOSE, (b"" if code is None else code.to_bytes(2)) + reason)


def deflate(data: bytes, *, bits: int = 15) -> bytes:
    """A message's payload, compressed alone (RFC 7692 section 7.2.1)."""
    compressor = zlib.compressobj(level=9, wbits=-bits)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def inflate(data: bytes) -> bytes:
    return zlib.decompressobj(wbits=-15).decompress(data + b"\0\0\xff\xff")


class Frame(NamedTuple):
    """What a server has sent."""

    opcode: int
    payload: bytes
    reserved: int = 0

    @property
    def close(self) -> tuple[int, str]:
        """Code and reason of a Close."""
        assert self.opcode == CLOSE
        return int.from_bytes(self.payload[:2]), self.payload[2:].decode()


def read(data: bytes) -> tuple[list[Frame], bytes]:
    """The frames at the beginning of what a server has sent, and the bytes behind them that are not a whole one."""
    frames = []
    while len(data) >= 2:
        assert data[0] & FIN, "a server that fragments"
        assert not data[1] & 0x80, "a server that masks"
        size, at = data[1], 2
        if size == 126:
            size, at = int.from_bytes(data[2:4]), 4
            assert len(data) < 4 or size >= 126, "a length in more bytes than it takes"
        elif size == 127:
            size, at = int.from_bytes(data[2:10]), 10
            assert len(data) < 10 or size >= 1 << 16, "a length in more bytes than it takes"
        if len(data) < at + size:
            break
        frames.append(Frame(data[0] & 0x0F, data[at : at + size], data[0] & 0x70))
        data = data[at + size :]
    return frames, data
