"""The opening handshake of a WebSocket, server side: RFC 6455 section 4.2, over HTTP/2 RFC 8441 section 5.

What is asked for and what is answered, without a byte of HTTP: both versions' engines write it as it is here.
"""

from base64 import b64decode
from binascii import Error
from collections.abc import Sequence
from typing import Final, NamedTuple

from websockets.exceptions import InvalidHeader, NegotiationError
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.headers import build_extension, parse_extension, parse_subprotocol
from websockets.utils import accept_key

from appserver.wire.engine import Head, Headers
from appserver.wire.origins import Origins
from appserver.wire.semantics import Refusal
from appserver.wire.websocket import Deflate

VERSION: Final = b"13"
_KEY_SIZE: Final = 16
_OFFERS: Final = 16
"""Extensions that are looked at: clients offer one."""


class Handshake(NamedTuple):
    """What a client asks for."""

    answer: Headers
    """The fields that its HTTP version wants in an answer that accepts."""
    subprotocols: list[str]
    """In the client's order of preference."""
    deflate: tuple[Deflate, bytes] | None
    """Compression that can be agreed on, and the value of Sec-WebSocket-Extensions that says so."""


def read_handshake(head: Head, origins: Origins | None, window_bits: int) -> Handshake:
    """Check a request that asks for a WebSocket.

    Args:
        head: The request.
        origins: Whose pages may connect; None for all.
        window_bits: Of compression; 0 for none.

    Raises:
        Refusal: 400, 403 or 426.
    """
    keys: list[bytes] = []
    versions: list[bytes] = []
    offered: list[bytes] = []
    extensions: list[bytes] = []
    origin: list[bytes] = []
    found = {
        b"sec-websocket-key": keys,
        b"sec-websocket-version": versions,
        b"sec-websocket-protocol": offered,
        b"sec-websocket-extensions": extensions,
        b"origin": origin,
    }
    for name, value in head.headers:
        if name in found:
            found[name].append(value)
    old = head.version != "2"
    if not head.end:
        raise Refusal(400, "a WebSocket handshake with a body")
    if versions != [VERSION]:
        # RFC 6455 section 4.4; 426 says what to upgrade to, and HTTP/2 has no such thing.
        raise Refusal(426 if old else 400, "a Sec-WebSocket-Version other than 13")
    if old and (len(keys) != 1 or not _is_key(keys[0])):
        raise Refusal(400, "no Sec-WebSocket-Key, or one that is not 16 bytes in base64")
    if origins is not None and origin and not (len(origin) == 1 and origins.admit(origin[0].decode("latin-1"))):
        raise Refusal(403, "an Origin that is not allowed")
    answer: Headers = []
    if old:
        accept = accept_key(keys[0].decode("ascii")).encode("ascii")
        answer = [(b"upgrade", b"websocket"), (b"connection", b"Upgrade"), (b"sec-websocket-accept", accept)]
    try:
        subprotocols = [str(name) for value in offered for name in parse_subprotocol(value.decode("ascii"))]
        deflate = _negotiate([value.decode("ascii") for value in extensions], window_bits) if window_bits else None
    except (InvalidHeader, UnicodeDecodeError) as error:
        raise Refusal(400, "a Sec-WebSocket-Protocol or -Extensions that is no list of tokens") from error
    if len(set(subprotocols)) != len(subprotocols):
        raise Refusal(400, "a subprotocol twice")
    return Handshake(answer, subprotocols, deflate)


def _is_key(key: bytes) -> bool:
    try:
        return len(b64decode(key, validate=True)) == _KEY_SIZE
    except Error:
        return False


def _negotiate(extensions: Sequence[str], window_bits: int) -> tuple[Deflate, bytes] | None:
    """Agree on compression, where the client offers it (RFC 7692).

    Raises:
        InvalidHeader: It is no list of extensions.
    """
    factory = ServerPerMessageDeflateFactory(server_max_window_bits=window_bits, client_max_window_bits=window_bits)
    offers = [offer for text in extensions for offer in parse_extension(text)]
    for name, parameters in offers[:_OFFERS]:
        if name == factory.name:
            try:
                agreed, extension = factory.process_request_params(parameters, [])
            except (NegotiationError, ValueError):  # which older versions raise for 8 bits: zlib has no such window
                continue  # the next one, which asks for less, may do
            return Deflate(extension), build_extension([(name, agreed)]).encode("ascii")
    return None
