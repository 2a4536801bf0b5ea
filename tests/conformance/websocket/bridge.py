"""WebSocket over HTTP/2 for clients that know only HTTP/1.1: a bridge on loopback (RFC 8441).

    client ──HTTP/1.1, a connection for each──▶ bridge ──HTTP/2, a stream for each, one connection──▶ server

It passes on bytes and ends, and knows no frames of WebSocket: an end of the client's connection becomes END_STREAM, a
reset RST_STREAM, and the other way round.
"""

import asyncio
import socket
import ssl
import struct
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha1
from typing import Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from h2.exceptions import ProtocolError

PIECE: Final = 65_536
PATIENCE: Final = 20.0

# RFC 8441 section 5: what HTTP/2 has no use for, or says in another way.
_DROPPED: Final = frozenset({"host", "connection", "upgrade", "sec-websocket-key"})
_RESET: Final = struct.pack("ii", 1, 0)

Fields = list[tuple[str, str]]


class Stream:
    """One WebSocket, as far as the server has answered."""

    def __init__(self) -> None:
        self.head: asyncio.Future[Fields] = asyncio.get_running_loop().create_future()
        self.received: asyncio.Queue[tuple[bytes, int] | None] = asyncio.Queue()
        """Data with what it takes of the window; None at the end."""
        self.was_reset = False


class Link:
    """The connection to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._connection = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self._connection.initiate_connection()
        self._streams: dict[int, Stream] = {}
        self._moved = asyncio.Condition()  # something has come: perhaps credit
        self._told = asyncio.Event()  # the server's settings
        self.over = False
        self._reading = asyncio.create_task(self._read())
        self._flush()

    def _flush(self) -> None:
        self._writer.write(self._connection.data_to_send())

    async def _read(self) -> None:
        try:
            while data := await self._reader.read(PIECE):
                for event in self._connection.receive_data(data):
                    self._take(event)
                self._flush()
                async with self._moved:
                    self._moved.notify_all()
        except (OSError, ProtocolError):
            pass
        finally:
            self._end()

    def _take(self, event: Event) -> None:
        if isinstance(event, RemoteSettingsChanged):
            self._told.set()
        elif isinstance(event, ConnectionTerminated):
            self.over = True
        stream = self._streams.get(getattr(event, "stream_id", 0) or 0)
        if stream is None:
            if isinstance(event, DataReceived):
                self._connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, ResponseReceived):
            stream.head.set_result([(str(name), str(value)) for name, value in event.headers])
        elif isinstance(event, DataReceived):
            stream.received.put_nowait((event.data, event.flow_controlled_length))
        elif isinstance(event, StreamEnded | StreamReset):
            stream.was_reset = isinstance(event, StreamReset)
            self._finish(stream)

    @staticmethod
    def _finish(stream: Stream) -> None:
        stream.received.put_nowait(None)
        if not stream.head.done():
            stream.head.set_exception(ConnectionResetError())

    def _end(self) -> None:
        self.over = True
        for stream in self._streams.values():
            stream.was_reset = True
            self._finish(stream)
        self._writer.close()

    async def close(self) -> None:
        """End it, whatever is open."""
        self._reading.cancel()
        with suppress(asyncio.CancelledError):
            await self._reading

    async def open(self, path: str, authority: str, fields: Fields) -> tuple[int, Stream]:
        """Ask for a WebSocket."""
        await self._told.wait()
        assert self._connection.remote_settings.enable_connect_protocol == 1  # RFC 8441 section 3
        number = self._connection.get_next_available_stream_id()
        stream = self._streams[number] = Stream()
        pseudo = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", path)]
        self._connection.send_headers(number, [*pseudo, (":authority", authority), *fields])
        self._flush()
        return number, stream

    async def send(self, number: int, data: bytes) -> None:
        """Send, as the server gives credit.

        Raises:
            ProtocolError: The stream is over.
        """
        rest = memoryview(data)
        while rest:
            room = self._connection.local_flow_control_window(number)
            if not room:
                async with self._moved:
                    await self._moved.wait()
                continue
            piece = rest[: min(room, self._connection.max_outbound_frame_size)]
            self._connection.send_data(number, piece.tobytes())
            rest = rest[len(piece) :]
        self._flush()
        await self._writer.drain()

    def acknowledge(self, number: int, size: int) -> None:
        """Give credit for what has been passed on."""
        with suppress(ProtocolError):
            self._connection.acknowledge_received_data(size, number)
            self._flush()

    def end(self, number: int) -> None:
        """Say that no more comes."""
        with suppress(ProtocolError):
            self._connection.end_stream(number)
            self._flush()

    def reset(self, number: int) -> None:
        """Give a stream up."""
        with suppress(ProtocolError):
            self._connection.reset_stream(number, ErrorCodes.CANCEL)
            self._flush()

    def forget(self, number: int) -> None:
        self._streams.pop(number, None)


class Bridge:
    """Listens for clients.

    Args:
        host: The server.
        port: Its own.
        tls: For a server with TLS; offers h2.

    Attributes:
        port: Where clients come.
        links: Connections that it has made to the server.
        resets: Streams that the server has reset.
    """

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._target, self._tls = (host, port), tls
        self._link: Link | None = None
        self.port = 0
        self.links = self.resets = 0

    async def run(self, ready: threading.Event) -> None:
        """Serve until `stop()`."""
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0) as server:
            self.port = server.sockets[0].getsockname()[1]
            ready.set()
            await self._stopped.wait()
            if self._link is not None:
                await self._link.close()

    def stop(self) -> None:
        """End it, from another thread."""
        self._loop.call_soon_threadsafe(self._stopped.set)

    async def _connect(self) -> Link:
        if self._link is None or self._link.over:
            self.links += 1
            name = "localhost" if self._tls else None
            self._link = Link(*await asyncio.open_connection(*self._target, ssl=self._tls, server_hostname=name))
        return self._link

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._pass_on(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # one of the two has gone
        finally:
            writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
        fields = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        asked = dict(fields)
        link = await self._connect()
        kept = [(name, value) for name, value in fields if name not in _DROPPED]
        number, stream = await link.open(first.split(" ")[1], asked["host"], kept)
        try:
            writer.write(translate(await stream.head, asked["sec-websocket-key"]))
            up = asyncio.create_task(self._up(link, number, reader))
            try:
                await self._down(link, number, stream, writer)
            finally:
                up.cancel()
            link.end(number)
        finally:
            link.forget(number)

    @staticmethod
    async def _up(link: Link, number: int, reader: asyncio.StreamReader) -> None:
        try:
            while data := await reader.read(PIECE):
                await link.send(number, data)
        except ConnectionResetError:
            link.reset(number)
        except ProtocolError:
            pass  # the server has ended the stream
        else:
            link.end(number)

    async def _down(self, link: Link, number: int, stream: Stream, writer: asyncio.StreamWriter) -> None:
        while (piece := await stream.received.get()) is not None:
            data, size = piece
            writer.write(data)
            await writer.drain()
            link.acknowledge(number, size)
        if stream.was_reset:
            self.resets += 1
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def translate(fields: Fields, key: str) -> bytes:
    """A head of HTTP/2 in the words of HTTP/1.1."""
    status = dict(fields)[":status"]
    lines = [f"HTTP/1.1 {status} "]
    if status == "200":
        accept = b64encode(sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()
        lines = ["HTTP/1.1 101 ", "upgrade: websocket", "connection: Upgrade", f"sec-websocket-accept: {accept}"]
    else:
        lines.append("connection: close")
    lines += [f"{name}: {value}" for name, value in fields if not name.startswith(":")]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


@contextmanager
def bridging(host: str, port: int, tls: ssl.SSLContext | None = None) -> Iterator[Bridge]:
    """A bridge, in a thread of its own."""
    bridge = Bridge(host, port, tls)
    ready = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(bridge.run(ready)), name="bridge")
    thread.start()
    try:
        assert ready.wait(PATIENCE)
        yield bridge
        bridge.stop()
    finally:
        thread.join(PATIENCE)
