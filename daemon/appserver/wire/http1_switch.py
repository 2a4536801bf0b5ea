"""How an HTTP/1.1 connection becomes another: of HTTP/2 (RFC 9113 section 3.3, RFC 7540 section 3.2), a WebSocket."""

from base64 import b64decode
from struct import iter_unpack
from typing import Final

from appserver.wire.engine import Headers
from appserver.wire.http2_frames import PREFACE

PREFACE_HEAD: Final = PREFACE[:18]
"""The first half of the preface, which has the form of a request without fields."""

SWITCHING: Final = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"

# ENABLE_PUSH, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, ENABLE_CONNECT_PROTOCOL, NO_RFC7540_PRIORITIES
_BOUNDS: Final = {2: (0, 1), 4: (0, (1 << 31) - 1), 5: (1 << 14, (1 << 24) - 1), 8: (0, 1), 9: (0, 1)}
_SETTING_SIZE: Final = 6
_SETTINGS_LIMIT: Final = 32


def read_settings(headers: Headers) -> bytes | None:
    """The client's SETTINGS of a request that asks for h2c, and None of any other.

    A server may always go on in HTTP/1.1 instead: that is what a request gets which asks in any other way than RFC 7540
    section 3.2 says.

    Args:
        headers: Of a request whose Connection lists `upgrade`.
    """
    protocols = options = b""
    settings: list[bytes] = []
    for name, value in headers:
        if name == b"upgrade":
            protocols += b"," + value
        elif name == b"connection":
            options += b"," + value.lower()
        elif name == b"http2-settings":
            settings.append(value)
    if b"h2c" not in members(protocols) or b"http2-settings" not in members(options) or len(settings) != 1:
        return None
    text = settings[0].rstrip(b"=")
    try:
        decoded = b64decode(text + b"=" * (-len(text) % 4), b"-_", validate=True)
    except ValueError:
        return None
    return decoded if _are_good(decoded) else None


def asks_for_websocket(headers: Headers) -> bool:
    """Whether a request with the connection option `upgrade` asks for a WebSocket (RFC 6455 section 4.1).

    Args:
        headers: Of a request whose Connection lists `upgrade`.
    """
    return any(name == b"upgrade" and b"websocket" in members(value.lower()) for name, value in headers)


def _are_good(settings: bytes) -> bool:
    """Whether they are SETTINGS that no library refuses (RFC 9113 section 6.5.2)."""
    if len(settings) % _SETTING_SIZE or len(settings) > _SETTINGS_LIMIT * _SETTING_SIZE:
        return False
    for number, value in iter_unpack("!HL", settings):
        least, most = _BOUNDS.get(number, (0, 1 << 32))
        if not least <= value <= most:
            return False
    return True


def members(text: bytes) -> list[bytes]:
    """Of a field that is a list, separated by commas (RFC 9110 section 5.6.1)."""
    return [member.strip() for member in text.split(b",")]
