"""HTTP/2 frames as bytes: their kinds, and what they cost (RFC 9113 sections 4, 6 and 10.5).

The libraries behind the engines parse frames. What they do not do alike is to notice a peer that keeps the server busy
with frames that bring it nothing: that is counted here, for all engines.
"""

from collections.abc import Callable
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_SIZE: Final = 9
"""Bytes of a frame's header."""

DATA: Final = 0x0
HEADERS: Final = 0x1
PRIORITY: Final = 0x2
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9
PRIORITY_UPDATE: Final = 0x10
"""RFC 9218 section 7.1."""

ACK: Final = 0x1
END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITISED: Final = 0x20

NO_ERROR: Final = 0x0
PROTOCOL_ERROR: Final = 0x1
INTERNAL_ERROR: Final = 0x2
FLOW_CONTROL_ERROR: Final = 0x3
STREAM_CLOSED: Final = 0x5
FRAME_SIZE_ERROR: Final = 0x6
REFUSED_STREAM: Final = 0x7
CANCEL: Final = 0x8
COMPRESSION_ERROR: Final = 0x9
ENHANCE_YOUR_CALM: Final = 0xB
INADEQUATE_SECURITY: Final = 0xC

ERRORS: Final = (
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
)
"""Names of the error codes (RFC 9113 section 7)."""

LAST_STREAM: Final = (1 << 31) - 1

BUDGET: Final = 1000
"""What a peer may spend at once on frames that bring nothing, and as much again after a rest. A browser spends about
ten for a page."""

BUDGET_RATE: Final = 100
"""What comes back in a second."""

RESET_COST: Final = 5
"""Of a stream begun in vain, whoever ended it (CVE-2023-44487, CVE-2025-8671): 200 at once, then 20 a second."""

CONTINUATIONS_LIMIT: Final = 16
"""CONTINUATION frames of one header block. Limits on its size do not count the empty ones."""

EARNED_SHIFT: Final = 6
"""Each 64 bytes written earn the peer 1 back: a download needs WINDOW_UPDATEs, and no flood earns what it costs."""

EARNED_BY_PIECE: Final = 2
"""Of a body, however short: HAProxy gives each one back at once, to the stream and to the connection. Without this a
thousand of its requests for 24 bytes were a flood."""

COST: Final = {PRIORITY: 1, RST_STREAM: RESET_COST, SETTINGS: 2, PING: 1, GOAWAY: 1, WINDOW_UPDATE: 1}
"""Of a frame of each kind, if it is not 1."""

_NAMES: Final = {
    DATA: "empty DATA",
    PRIORITY: "PRIORITY",
    RST_STREAM: "RST_STREAM",
    SETTINGS: "SETTINGS",
    PING: "PING",
    GOAWAY: "GOAWAY",
    WINDOW_UPDATE: "WINDOW_UPDATE",
}


class Violation(Exception):  # noqa: N818 - it is an answer to the peer, not an error of ours
    """The peer has broken the protocol; the whole connection ends with `code` (RFC 9113 section 5.4.1)."""

    def __init__(self, code: int, reason: str) -> None:
        self.code, self.reason = code, reason
        super().__init__(code, reason)


class Budget:
    """What a peer may still spend on frames that bring nothing.

    Args:
        clock: Seconds that only grow; asked only when the budget is spent.

    Attributes:
        left: What that is.
    """

    __slots__ = ("_clock", "_seen", "left")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen = clock()
        self.left = BUDGET

    def spend(self, cost: int, kind: int) -> None:
        """Count a frame of a kind.

        Raises:
            Violation: It is spent.
        """
        self.left -= cost
        if self.left >= 0:
            return
        now = self._clock()
        self.left = min(BUDGET, self.left + int((now - self._seen) * BUDGET_RATE))
        self._seen = now
        if self.left < 0:
            raise Violation(ENHANCE_YOUR_CALM, f"a flood of {_NAMES.get(kind, 'extension')} frames")

    def earn(self, written: int, pieces: int = 0) -> None:
        """So many bytes were written to the peer, and so many pieces of bodies."""
        self.left = min(BUDGET, self.left + (written >> EARNED_SHIFT) + EARNED_BY_PIECE * pieces)


def goaway(last: int, code: int) -> bytes:
    """A GOAWAY frame (RFC 9113 section 6.8), where no library can write it any more."""
    return b"\0\0\x08\x07\0\0\0\0\0" + last.to_bytes(4, "big") + code.to_bytes(4, "big")


def rst_stream(stream: int, code: int) -> bytes:
    """An RST_STREAM frame (RFC 9113 section 6.4), for a stream that no library knows any more."""
    return b"\0\0\x04\x03\0" + stream.to_bytes(4, "big") + code.to_bytes(4, "big")


def window_update(count: int) -> bytes:
    """A WINDOW_UPDATE frame of the connection (RFC 9113 section 6.9), for what no library has counted."""
    return b"\0\0\x04\x08\0\0\0\0\0" + count.to_bytes(4, "big")


def name_error(code: int) -> str:
    """An error code as the RFC calls it, for people."""
    return ERRORS[code] if code < len(ERRORS) else f"error {code:#x}"
