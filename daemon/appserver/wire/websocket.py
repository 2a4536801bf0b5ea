"""A WebSocket behind its handshake: bytes to messages and back (RFC 6455, RFC 7692).

The protocol is that of `websockets`, its half without I/O, and nothing of it is done again here. What is added: whole
messages of fragments, text that is checked as it comes, a bound on what one call does, a compressor that exists only
once it is needed, and no compression of what it would not make smaller.

    OPEN ──close()──▶ CLOSING ──the peer's Close──▶ over
      ├── the peer's Close, which is answered ──▶ over
      └── the peer breaks the protocol, or a limit ──Close with 1002, 1007 or 1009──▶ over
"""

import zlib
from codecs import getincrementaldecoder
from typing import TYPE_CHECKING, Any, Final

from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import DATA_OPCODES, Frame, Opcode

if TYPE_CHECKING:
    from websockets.protocol import OPEN, SERVER, Protocol
else:
    try:
        from websockets.protocol import OPEN, SERVER, Protocol
    except ImportError:  # before 11.0, as in Debian 12
        from websockets.connection import OPEN, SERVER
        from websockets.connection import Connection as Protocol

NORMAL: Final = 1000
NO_STATUS: Final = 1005
"""The peer's Close named no code; never sent."""
ABNORMAL: Final = 1006
"""The connection ended without a Close; never sent."""
INTERNAL_ERROR: Final = 1011
RESTART: Final = 1012

COMPRESSED_SIZE: Final = 128
"""Bytes from which a message is compressed: one that fits into a packet with room to spare gains nothing by it."""

MEMORY_LEVEL: Final = 5
"""Of the compressor; each step doubles one half of its memory (zlib's deflateInit2)."""

SMALL_MEMORY_LEVEL: Final = 4
"""The same, as long as all messages are small: 8 KiB less, and as fast. Large ones take 5 to 50 % longer with it."""

SMALL_SIZE: Final = 1 << (SMALL_MEMORY_LEVEL + 6)
"""Bytes up to which a message is small, compressed. With that level zlib ends a block after so many symbols, each of
about a byte; a larger message takes several blocks, whose ends are what takes the time."""

LEVEL: Final = 3
"""Of the compressor: 0.4 to 0.8 of the time of zlib's usual 6, for 6 to 15 % more bytes (docs/performance.md)."""

WORK: Final = 1024 * 1024
"""Bytes, inflated, that are looked at in a turn, but for the frame that goes beyond: 4 ms. A read of 64 KiB may hold
10,000 empty frames, or inflate to 64 MiB, and take 40 ms or 165 in which no other client is served."""

FRAME_WORK: Final = 1024
"""What a frame costs besides, in bytes that cost as much."""

_INFLATE: Final = 10 * 1024  # zlib's inflate state, without its window

_SMALL: Final = {"level": LEVEL, "memLevel": SMALL_MEMORY_LEVEL}
_USUAL: Final = {"level": LEVEL, "memLevel": MEMORY_LEVEL}

_CONTROL_SIZE: Final = 125  # RFC 6455 section 5.5

TEXT, BINARY, CLOSE, PONG = Opcode.TEXT, Opcode.BINARY, Opcode.CLOSE, Opcode.PONG

# Its attribute for a message of which some fragments have come: of version 16, and before.
_SIZE_SO_FAR: Final = "current_size" if hasattr(Protocol(SERVER), "current_size") else "cur_size"

_decoder: Final = getincrementaldecoder("utf-8")


class Deflate(PerMessageDeflate):
    """permessage-deflate that takes no memory before it is used, and leaves small messages as they are.

    Unless the client compresses its own small ones: then it thinks them worth that, and is answered alike.

    Args:
        agreed: What was agreed on in the handshake.
    """

    def __init__(self, agreed: PerMessageDeflate) -> None:
        super().__init__(
            agreed.remote_no_context_takeover,
            agreed.local_no_context_takeover,
            agreed.remote_max_window_bits,
            agreed.local_max_window_bits,
            _SMALL,
        )
        for made in ("encoder", "decoder"):
            self.__dict__.pop(made, None)
        self._from = COMPRESSED_SIZE

    def __getattr__(self, name: str) -> Any:
        # Called for what is not there yet.
        if name == "encoder":
            self.encoder = zlib.compressobj(wbits=-self.local_max_window_bits, **self.compress_settings)
            return self.encoder
        if name == "decoder":
            self.decoder = zlib.decompressobj(wbits=-self.remote_max_window_bits)
            return self.decoder
        raise AttributeError(name)

    @property
    def memory(self) -> int:
        """Bytes that it takes at most."""
        return deflate_memory(self.local_max_window_bits, self.remote_max_window_bits)

    def encode(self, frame: Frame) -> Frame:
        """Compress a frame, if that is worth it."""
        if len(frame.data) < self._from:
            return frame
        encoded = super().encode(frame)
        if len(encoded.data) > SMALL_SIZE and self.compress_settings is _SMALL:
            # The next message will have another one, which refers to nothing before it: that a message may is no duty
            # (RFC 7692 section 7.2.3.2).
            self.compress_settings = _USUAL
            self.__dict__.pop("encoder", None)
        return encoded

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        """Decompress a frame, to so many bytes at most."""
        decoded = super().decode(frame, max_size=max_size)
        if self._from and frame.rsv1 and frame.fin and len(decoded.data) < COMPRESSED_SIZE:
            self._from = 0
        return decoded


def deflate_memory(local_bits: int, remote_bits: int) -> int:
    """Bytes that a compressor and a decompressor take (zlib.h, "memory requirements")."""
    return (1 << (local_bits + 2)) + (1 << (MEMORY_LEVEL + 9)) + (1 << remote_bits) + _INFLATE


class _Silence:
    """Takes the place of a logger: what happens here is `net`'s and `asgi`'s to tell."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: ARG002, N802 - logging's
        return False

    def __getattr__(self, name: str) -> Any:
        return _say_nothing


def _say_nothing(*_: Any, **__: Any) -> None:
    pass


_SILENCE: Final[Any] = _Silence()


class _Protocol(Protocol):
    """The library's, with whole messages, and with a bound on what it does at a time.

    It takes a Close in the midst of a message for one, as RFC 6455 section 5.4 lets control frames come there.

    Args:
        limit: Bytes of a message.

    Attributes:
        messages: Those that have become whole.
        pings: How many we have sent; each says its number.
        answered: The last of them was.
        work: What may still be done now.
        rest: Bytes that were not looked at for that.
    """

    # Beside the library's own, which are in a dict: with these in it, too, that takes 1 KiB more.
    __slots__ = ("_decoder", "_limit", "_partial", "answered", "messages", "pings", "rest", "work")

    def __init__(self, limit: int) -> None:
        # The library bounds each frame by what its message has left: control frames too, which are of none; and of a
        # compressed one 0 would be no bound at all. So it gets room for a control frame more, and the rest is here.
        super().__init__(SERVER, state=OPEN, max_size=limit + _CONTROL_SIZE, logger=_SILENCE)
        self._limit = limit
        self._partial: bytearray | None = None  # of fragments; no list, because they may be empty, and any number
        self._decoder: Any = None
        self.messages: list[str | bytes] = []
        self.pings, self.answered = 0, True
        self.work = 0
        self.rest = b""

    def recv_frame(self, frame: Frame) -> None:
        # What is raised here ends the connection as what the library itself finds: see its parse().
        opcode, data = frame.opcode, frame.data
        size = len(data)
        self.work -= FRAME_WORK + size
        if (opcode is TEXT or opcode is BINARY) and frame.fin and self._partial is None and size <= self._limit:
            # A whole message: the library would keep it as an event, and do no more.
            self.messages.append(str(data, "utf-8") if opcode is TEXT else bytes(data))
        else:
            self._recv_other(frame, size)
        if self.work < 0 and self.reader.buffer:
            self.rest = bytes(self.reader.buffer)
            self.reader.buffer.clear()

    def _recv_other(self, frame: Frame, size: int) -> None:
        """Take a fragment, a control frame, or what is one too many."""
        if frame.opcode in DATA_OPCODES:
            size += getattr(self, _SIZE_SO_FAR) or 0
            if size > self._limit:
                raise PayloadTooBig(size, self._limit)
            super().recv_frame(frame)
            self._assemble(frame)
        else:
            if frame.opcode is CLOSE:
                setattr(self, _SIZE_SO_FAR, None)
            super().recv_frame(frame)
            if frame.opcode is PONG:
                self.answered = self.answered or bytes(frame.data) == b"%d" % self.pings
        self.events_received()  # not kept: what they tell is noted here

    def _assemble(self, frame: Frame) -> None:
        """Put a message of fragments together; its text is checked as far as it has come."""
        if self._partial is None:
            self._partial = bytearray()
            self._decoder = _decoder() if frame.opcode is TEXT else None
        if self._decoder is not None:
            self._decoder.decode(frame.data, frame.fin)
        self._partial += frame.data
        if frame.fin:
            self.messages.append(bytes(self._partial) if self._decoder is None else str(self._partial, "utf-8"))
            self._partial = self._decoder = None


class WebSocket:
    """One WebSocket, server side.

    Args:
        max_size: Bytes of a message, inflated; over it the connection is closed with 1009.
        deflate: Compression, if it was agreed on.

    Attributes:
        code: Of the Close that ended it; `ABNORMAL` before.
        reason: The same.
        failure: Why we ended it for a fault of the peer's; empty otherwise.
        over: Both have said Close, or the peer has to be left: what `take()` gives is the last.
        rest: What the last `receive()` has left for the next: more was in it than is done at a time.
    """

    __slots__ = ("_frame", "_protocol", "code", "failure", "over", "reason", "rest")

    def __init__(self, max_size: int, deflate: Deflate | None) -> None:
        self._protocol = _Protocol(max_size)
        if deflate is not None:
            self._protocol.extensions = [deflate]
        self.code, self.reason, self.failure = ABNORMAL, "", ""
        self.over, self.rest = False, b""
        self._frame = Frame(TEXT, b"")  # one for all messages out: a new one takes 0.3 us

    # In

    def receive(self, data: bytes, work: int = WORK) -> list[str | bytes]:
        """Take bytes from the peer, up to `rest`: the messages that have become whole. Never raises for bad input.

        Args:
            data: What has come.
            work: How much may be done; what is left of it is `work` then.
        """
        protocol = self._protocol
        protocol.work, protocol.rest = work, b""
        protocol.receive_data(data)
        messages, protocol.messages = protocol.messages, []
        self.rest = protocol.rest
        if protocol.eof_sent:
            self.over = True
            self._note()
        return messages

    def _note(self) -> None:
        """Note how it ends."""
        protocol = self._protocol
        error = protocol.parser_exc
        if protocol.close_rcvd is not None and error is None:
            self.code, self.reason = int(protocol.close_rcvd.code), protocol.close_rcvd.reason
        else:  # for a fault of the peer's
            if protocol.close_sent is not None:
                self.code, self.reason = int(protocol.close_sent.code), protocol.close_sent.reason
            self.failure = (
                f"text that is not UTF-8: {error.reason}" if isinstance(error, UnicodeDecodeError) else str(error)
            )

    @property
    def answered(self) -> bool:
        """The peer has answered the last ping."""
        return self._protocol.answered

    @property
    def work(self) -> int:
        """What the last `receive()` might still have done; less than 0 where it has done enough."""
        return self._protocol.work

    # Out

    def send(self, message: str | bytes) -> bytes:
        """Bytes of a message. None may follow a Close, whoever has said it.

        Raises:
            UnicodeEncodeError: Text with surrogates in it.
        """
        frame = self._frame
        if isinstance(message, str):
            frame.opcode, frame.data = TEXT, message.encode()
        else:
            frame.opcode, frame.data = BINARY, message
        data = frame.serialize(mask=False, extensions=self._protocol.extensions)
        frame.data = b""
        return data

    def ping(self) -> bytes:
        """Bytes of a ping, whose pong makes `answered` true."""
        protocol = self._protocol
        protocol.pings += 1
        protocol.answered = False
        protocol.send_ping(b"%d" % protocol.pings)
        return self.take()

    def close(self, code: int, reason: str) -> bytes:
        """Bytes of a Close, if none has been sent.

        Raises:
            ValueError: A code that may not be sent (RFC 6455 section 7.4), a reason of more than 123 bytes or with
                surrogates in it.
        """
        if self._protocol.state is OPEN:
            try:
                self._protocol.send_close(code, reason)
            except ProtocolError as error:
                raise ValueError(str(error)) from error
        return self.take()

    def take(self) -> bytes:
        """Bytes to write to the peer: pongs and a Close that answer what was received."""
        return b"".join(self._protocol.data_to_send()) if self._protocol.writes else b""
