"""The chunked transfer coding of a request, taken apart to the letter (RFC 9112 section 7.1).

One decoder for all engines, because parsers are lax here, each in its own way: h11 before 0.16 took any two bytes for
the line end after a chunk (CVE-2025-43859), others take a bare LF or endless extensions. Extensions and trailers are
checked and dropped: nobody here knows the former, and ASGI has no place for the latter.

    state      expects                         then
    SIZE       1*HEXDIG [ext] CRLF             DATA, or TRAILERS after size 0
    DATA       that many bytes                 END
    END        CRLF                            SIZE
    TRAILERS   *( field CRLF ) CRLF            DONE
"""

import re
from enum import Enum, auto
from typing import Final

from appserver.wire.engine import Limits
from appserver.wire.semantics import Refusal, check_head, check_partial_head

CHUNKS_AT_ONCE: Final = 32
"""Chunks that are begun in one call: less than 0.1 ms, and a body that comes in larger ones is not held up."""

CHUNK_LINE_LIMIT: Final = 256
"""Bytes of one chunk-size line with its extensions (RFC 9112 section 7.1.1: a recipient limits the length)."""

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


class ChunkedBody:
    """Decodes one chunked body.

    Attributes:
        state: Where the next byte stands.
        total: Bytes of content announced so far.
        more: So many chunks came that the rest waits for the next call.
    """

    __slots__ = ("_left", "_limits", "_seen", "more", "state", "total")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._left = 0
        self._seen = 0  # bytes of the trailer section that have been looked at
        self.state = State.SIZE
        self.total = 0
        self.more = False

    @property
    def ended(self) -> bool:
        """The whole body has been taken."""
        return self.state is State.DONE

    def take(self, received: bytearray) -> bytes:
        """Take content out of what has arrived.

        Args:
            received: Bytes from where the last call ended; those that were understood are removed from it. At most
                `CHUNKS_AT_ONCE` chunks are begun.

        Returns:
            The content among them.

        Raises:
            Refusal: 400, 413 or 431.
        """
        content: list[bytes] = []
        at, size, chunks = 0, len(received), CHUNKS_AT_ONCE
        self.more = False
        while at < size and self.state is not State.DONE:
            if self.state is State.DATA:
                end = min(at + self._left, size)
                self._left -= end - at
                if self._left == 0:
                    self.state = State.END
                content.append(bytes(received[at:end]))
            elif self.state is State.END:
                if received[at] != 0x0D or (size - at > 1 and received[at + 1] != 0x0A):
                    raise Refusal(400, "chunk data that is not followed by CRLF")
                if size - at < 2:
                    break
                end = at + 2
                self.state = State.SIZE
            elif self.state is State.SIZE:
                if not chunks:
                    self.more = True
                    break
                chunks -= 1
                end = received.find(b"\n", at, at + CHUNK_LINE_LIMIT + 2) + 1
                if end == 0:
                    if size - at - received.endswith(b"\r") > CHUNK_LINE_LIMIT:
                        raise Refusal(400, f"a chunk-size line longer than {CHUNK_LINE_LIMIT} bytes")
                    break
                self._begin_chunk(bytes(received[at:end]))
            else:
                del received[:at]
                at = 0
                end = self._end_of_trailers(received)
                if end < 0:
                    break
                self.state = State.DONE
            at = end
        del received[:at]
        return content[0] if len(content) == 1 else b"".join(content)

    def _begin_chunk(self, line: bytes) -> None:
        match = _SIZE_LINE.fullmatch(line[:-2]) if line.endswith(b"\r\n") else None
        if match is None:
            raise Refusal(400, "a chunk size that is not 1 to 16 hexadecimal digits and CRLF")
        self._left = int(match[1], 16)
        self.total += self._left
        if self._limits.body and self.total > self._limits.body:
            raise Refusal(413, f"the body is longer than {self._limits.body} bytes")
        self.state = State.DATA if self._left else State.TRAILERS

    def _end_of_trailers(self, received: bytearray) -> int:
        """The index behind the trailer section, or -1 while it is not whole; the same rules as for a head."""
        if received.startswith(b"\r\n"):
            return 2
        end = received.find(b"\r\n\r\n", max(self._seen - 3, 0)) + 4
        if end < 4:
            if received != b"\r":
                check_partial_head(received, self._seen, self._limits, trailers=True)
            self._seen = len(received)
            return -1
        # A trailer section is a head without a request line, so an empty line in its place gives it the same limits.
        check_head(b"\r\n" + bytes(received[:end]), self._limits)
        if not all(_TRAILER.fullmatch(line) for line in received[: end - 4].split(b"\r\n")):
            raise Refusal(400, "a trailer that is no field")
        return end
