"""HTTP/2 frames as bytes, right and wrong (RFC 9113 sections 4 and 6).

Nothing here is shared with the engines that are tested: the reference engine's own framing would hide its own mistakes.
"""

from collections.abc import Iterator, Mapping
from enum import IntEnum, IntFlag
from typing import Final, NamedTuple

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_SIZE: Final = 9
MAX_FRAME_SIZE: Final = 2**14
MAX_WINDOW: Final = 2**31 - 1
WINDOW: Final = 65_535
"""What both windows begin with (section 6.9.2)."""


class Kind(IntEnum):
    """Types of frames."""

    DATA = 0x0
    HEADERS = 0x1
    PRIORITY = 0x2
    RST_STREAM = 0x3
    SETTINGS = 0x4
    PUSH_PROMISE = 0x5
    PING = 0x6
    GOAWAY = 0x7
    WINDOW_UPDATE = 0x8
    CONTINUATION = 0x9
    PRIORITY_UPDATE = 0x10  # RFC 9218 section 7.1


class Flag(IntFlag):
    """Flags of frames; ACK is the same bit as END_STREAM."""

    NONE = 0x0
    ACK = 0x1
    END_STREAM = 0x1
    END_HEADERS = 0x4
    PADDED = 0x8
    PRIORITY = 0x20


class Code(IntEnum):
    """Error codes (section 7)."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


class Setting(IntEnum):
    """Settings (section 6.5.2)."""

    HEADER_TABLE_SIZE = 0x1
    ENABLE_PUSH = 0x2
    MAX_CONCURRENT_STREAMS = 0x3
    INITIAL_WINDOW_SIZE = 0x4
    MAX_FRAME_SIZE = 0x5
    MAX_HEADER_LIST_SIZE = 0x6
    ENABLE_CONNECT_PROTOCOL = 0x8  # RFC 8441 section 3
    NO_RFC7540_PRIORITIES = 0x9  # RFC 9218 section 2.1


class Frame(NamedTuple):
    """One frame as it was received."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    def __str__(self) -> str:
        kind = Kind(self.kind).name if self.kind in set(Kind) else f"type {self.kind:#x}"
        text = f"{kind} flags {self.flags:#x} stream {self.stream}, {len(self.payload)} bytes"
        if self.kind in (Kind.RST_STREAM, Kind.GOAWAY):
            code = self.number if self.kind == Kind.RST_STREAM else int.from_bytes(self.payload[4:8])
            text += f", code {code:#x} {self.payload[8:].decode('latin-1')}"
        return text

    @property
    def number(self) -> int:
        """The payload's first 32 bits: a code, an increment, a last stream."""
        return int.from_bytes(self.payload[:4])


def frame(
    kind: int,
    payload: bytes = b"",
    *,
    stream: int = 0,
    flags: int = Flag.NONE,
    length: int | None = None,
    reserved: bool = False,
) -> bytes:
    """One frame; `length` is another one than the payload has, `reserved` sets the bit that is to be ignored."""
    size = len(payload) if length is None else length
    return size.to_bytes(3) + bytes((kind, flags)) + (stream | reserved << 31).to_bytes(4) + payload


def read(data: bytes) -> Iterator[Frame]:
    """The whole frames at the beginning of `data`."""
    while len(data) >= HEAD_SIZE and len(data) >= (end := HEAD_SIZE + int.from_bytes(data[:3])):
        yield Frame(data[3], data[4], int.from_bytes(data[5:9]) & MAX_WINDOW, data[HEAD_SIZE:end])
        data = data[end:]


def data(stream: int, payload: bytes = b"", *, end: bool = False, padding: int | None = None) -> bytes:
    """DATA; with `padding`, so many bytes of it behind the length that tells how many."""
    flags = Flag.END_STREAM if end else Flag.NONE
    return _padded(Kind.DATA, payload, stream, flags, padding)


def headers(stream: int, block: bytes, *, end: bool = True, whole: bool = True, padding: int | None = None) -> bytes:
    """HEADERS with a block that is encoded already; `end` the stream, and the block `whole`."""
    flags = (Flag.END_STREAM if end else Flag.NONE) | (Flag.END_HEADERS if whole else Flag.NONE)
    return _padded(Kind.HEADERS, block, stream, flags, padding)


def _padded(kind: Kind, payload: bytes, stream: int, flags: Flag, padding: int | None) -> bytes:
    if padding is not None:
        flags |= Flag.PADDED
        payload = bytes((padding,)) + payload + bytes(padding)
    return frame(kind, payload, stream=stream, flags=flags)


def continuation(stream: int, block: bytes, *, whole: bool = True) -> bytes:
    """CONTINUATION; `whole` ends the block."""
    return frame(Kind.CONTINUATION, block, stream=stream, flags=Flag.END_HEADERS if whole else Flag.NONE)


def dependency(on: int, *, weight: int = 15, exclusive: bool = False) -> bytes:
    """The five bytes of a deprecated priority (section 6.3)."""
    return (on | exclusive << 31).to_bytes(4) + bytes((weight,))


def priority(stream: int, on: int = 0) -> bytes:
    """PRIORITY."""
    return frame(Kind.PRIORITY, dependency(on), stream=stream)


def rst_stream(stream: int, code: int = Code.CANCEL) -> bytes:
    """RST_STREAM."""
    return frame(Kind.RST_STREAM, code.to_bytes(4), stream=stream)


def settings(values: Mapping[int, int] | None = None) -> bytes:
    """SETTINGS."""
    payload = b"".join(name.to_bytes(2) + value.to_bytes(4) for name, value in (values or {}).items())
    return frame(Kind.SETTINGS, payload)


SETTINGS_ACK: Final = frame(Kind.SETTINGS, flags=Flag.ACK)


def ping(payload: bytes = b"payload.", *, ack: bool = False) -> bytes:
    """PING."""
    return frame(Kind.PING, payload, flags=Flag.ACK if ack else Flag.NONE)


def goaway(code: int = Code.NO_ERROR, last: int = 0, debug: bytes = b"") -> bytes:
    """GOAWAY."""
    return frame(Kind.GOAWAY, last.to_bytes(4) + code.to_bytes(4) + debug)


def window_update(stream: int, increment: int) -> bytes:
    """WINDOW_UPDATE."""
    return frame(Kind.WINDOW_UPDATE, increment.to_bytes(4), stream=stream)


def priority_update(stream: int, value: bytes = b"u=3") -> bytes:
    """PRIORITY_UPDATE for a stream (RFC 9218 section 7.1)."""
    return frame(Kind.PRIORITY_UPDATE, stream.to_bytes(4) + value)
