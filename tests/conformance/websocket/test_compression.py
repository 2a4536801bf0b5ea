"""RFC 7692 section 6: a message may go as it is where compression was agreed on."""

import pytest
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode

from appserver.wire.websocket import COMPRESSED_SIZE, Deflate, WebSocket

SMALL, LARGE = b"x" * (COMPRESSED_SIZE - 1), b"x" * COMPRESSED_SIZE


def make(*, compressed: bytes | None) -> WebSocket:
    """A WebSocket with compression that has got a message."""
    socket = WebSocket(2**20, Deflate(PerMessageDeflate(False, False, 12, 12)))
    client = PerMessageDeflate(False, False, 12, 12)
    frame = Frame(Opcode.BINARY, SMALL if compressed is None else compressed)
    data = frame.serialize(mask=True, extensions=[] if compressed is None else [client])
    assert socket.receive(data) == [SMALL if compressed is None else compressed]
    return socket


def is_compressed(data: bytes) -> bool:
    """RSV1."""
    return bool(data[0] & 0x40)


@pytest.mark.parametrize(("compressed", "expected"), [(None, False), (LARGE, False), (SMALL, True), (b"", True)])
def test_a_small_message_is_compressed_for_a_client_that_compresses_its_own_small_ones(
    compressed: bytes | None, expected: bool
) -> None:
    socket = make(compressed=compressed)
    assert is_compressed(socket.send(SMALL)) is expected
    assert is_compressed(socket.send(LARGE))
