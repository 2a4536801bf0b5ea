"""The chunked transfer coding, checked byte for byte before a parser sees it (RFC 9112 section 7.1).

h11 before 0.16 took any two bytes for the line end after a chunk (CVE-2025-43859), other parsers take a bare LF or
unlimited extensions. `ChunkedFraming` follows the coding in front of the parser, refuses what is not to the letter,
leaves out extensions and trailers, and tells where the message ends, so that no parser ever holds bytes of the
request behind it.

    state      expects                         then
    SIZE       1*HEXDIG [ext] CRLF             DATA, or TRAILERS after size 0
    DATA       that many bytes                 END
    END        CRLF                            SIZE
    TRAILERS   *( field CRLF ) CRLF            DONE
"""

import re
from enum import Enum, auto
from typing import Final

from appserver.wire.engine import CHUNK_LINE_LIMIT, Limits
from appserver.wire.semantics import Refusal, check_head, check_partial_head

# chunk-size [ chunk-ext ]: at most 16 digits hold 2**64 - 1; the extensions may hold no control character but HTAB.
_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")

_TRAILER: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")


class State(Enum):
    """Where in the coding the next byte stands."""

    SIZE = auto()
    DATA = auto()
    END = auto()
    TRAILERS = auto()
    DONE = auto()


class ChunkedFraming:
    """Follows one chunked body.

    Attributes:
        state: Where the next byte stands; `State.DONE` once the message has ended.
        total: Bytes of content seen so far.
    """

    __slots__ = ("_left", "_limits", "state", "total")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._left = 0
        self.state = State.SIZE
        self.total = 0

    def follow(self, received: bytearray) -> bytes:
        """Check what has arrived.

        Args:
            received: Bytes from where the last call ended; those that were checked are taken out of it.

        Returns:
            What was checked, for the parser.

        Raises:
            Refusal: 400, 413 or 431.
        """
        checked: list[bytes] = []
        at, size = 0, len(received)
        while at < size and self.state is not State.DONE:
            if self.state is State.DATA:
                end = min(at + self._left, size)
                self._left -= end - at
                if self._left == 0:
                    self.state = State.END
                checked.append(bytes(received[at:end]))
            elif self.state is State.END:
                if received[at] != 0x0D or (size - at > 1 and received[at + 1] != 0x0A):
                    raise Refusal(400, "chunk data that is not followed by CRLF")
                if size - at < 2:
                    break
                end = at + 2
                self.state = State.SIZE
                checked.append(b"\r\n")
            elif self.state is State.SIZE:
                end = received.find(b"\n", at, at + CHUNK_LINE_LIMIT + 2) + 1
                if end == 0:
                    if size - at - received.endswith(b"\r") > CHUNK_LINE_LIMIT:
                        raise Refusal(400, f"a chunk-size line longer than {CHUNK_LINE_LIMIT} bytes")
                    break
                self._begin_chunk(bytes(received[at:end]))
                checked.append(b"%x\r\n" % self._left)
            else:
                end = self._end_of_trailers(received, at)
                if end < 0:
                    break
                self.state = State.DONE
                # ASGI has no place for a request's trailers, and framing fields in them must not be read.
                checked.append(b"\r\n")
            at = end
        del received[:at]
        return b"".join(checked)

    def _begin_chunk(self, line: bytes) -> None:
        match = _SIZE_LINE.fullmatch(line[:-2]) if line.endswith(b"\r\n") else None
        if match is None:
            raise Refusal(400, "a chunk size that is not 1 to 16 hexadecimal digits and CRLF")
        self._left = int(match[1], 16)
        self.total += self._left
        if self._limits.body and self.total > self._limits.body:
            raise Refusal(413, f"the body is longer than {self._limits.body} bytes")
        self.state = State.DATA if self._left else State.TRAILERS

    def _end_of_trailers(self, received: bytearray, at: int) -> int:
        """The index behind the trailer section, or -1 while it is not whole; the same rules as for a head."""
        if received.startswith(b"\r\n", at):
            return at + 2
        end = received.find(b"\r\n\r\n", at) + 4
        # A trailer section is a head without a request line, so an empty line in its place gives it the same limits.
        if end < 4:
            if len(received) - at > 1 or received[at] != 0x0D:
                check_partial_head(b"\r\n" + received[at:], self._limits)
            return -1
        check_head(b"\r\n" + bytes(received[at:end]), self._limits)
        if not all(_TRAILER.fullmatch(line) for line in received[at : end - 4].split(b"\r\n")):
            raise Refusal(400, "a trailer that is no field")
        return end
