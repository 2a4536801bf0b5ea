"""The client's end of a WebSocket on a real connection, the same over every way there is to one."""

import asyncio
import ssl
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from appserver.asgi.service import WebSockets
from appserver.asgi.types import Application, Receive, Scope, Send
from appserver.net.serial import SerialConnection
from appserver.wire.select import http2_engines
from tests.certificates import Issuer
from tests.contract.http2_peer import ROOM, Answer
from tests.unit import websocket_frames as frames
from tests.unit.net.serving import Client, Http2Client, Serving, pair
from tests.unit.websocket_frames import Frame

OPTIONS: Final = WebSockets(
    max_size=16 * 1024**2,
    max_queue=32,
    open_timeout=10.0,
    close_timeout=7.0,
    ping_interval=20.0,
    ping_timeout=5.0,
    window_bits=12,
    deflate_memory=1 << 24,
)

WAYS: Final = ("UNIX", "TCP", "TLS", *sorted(http2_engines()))
"""Over HTTP/1.1 by three kinds of connections, over HTTP/2 by its engines."""

HANDSHAKE: Final = (
    b"GET /chat HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Send back every message."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


class Socket(ABC):
    """A WebSocket that has been asked for."""

    status: int = 0

    def __init__(self) -> None:
        self._left = b""
        self.frames: list[Frame] = []

    @abstractmethod
    async def send(self, data: bytes) -> None:
        """Send bytes, as the connection takes them."""

    @abstractmethod
    async def pull(self) -> bytes:
        """Some bytes; none at the end."""

    @abstractmethod
    async def end(self) -> None:
        """End our side, and nothing else."""

    @abstractmethod
    async def reset(self) -> None:
        """Go without a word."""

    async def read(self) -> bool:
        """Read some; False at the end."""
        data = await self.pull()
        found, self._left = frames.read(self._left + data)
        self.frames += found
        return bool(data)

    async def until(self, count: int) -> list[Frame]:
        """Read until so many frames have come."""
        while len(self.frames) < count:
            assert await self.read(), f"the end, after {self.frames[-3:]}"
        return self.frames

    async def next(self) -> Frame:
        """The next frame."""
        await self.until(1)
        return self.frames.pop(0)

    async def rest(self) -> list[Frame]:
        """Everything up to the end."""
        while await self.read():
            pass
        assert self._left == b""
        return self.frames


class Old(Socket):
    """Over HTTP/1.1."""

    def __init__(self, client: Client) -> None:
        super().__init__()
        self.client = client

    async def open(self, *fields: bytes, behind: bytes = b"") -> None:
        await self.client.send(HANDSHAKE + b"".join(field + b"\r\n" for field in fields) + b"\r\n" + behind)
        await self.client.until(b"\r\n\r\n")
        head, _, rest = self.client.got.partition(b"\r\n\r\n")
        self.status, self.head = int(head[9:12]), head
        self.frames, self._left = frames.read(rest) if self.status == 101 else ([], rest)

    async def send(self, data: bytes) -> None:
        await self.client.send(data)

    async def pull(self) -> bytes:
        return await self.client.read()

    async def end(self) -> None:
        self.client.half_close()

    async def reset(self) -> None:
        self.client.reset()


class Encrypted(Client):
    """A client over TLS."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer, self.got = reader, writer, b""

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def read(self, size: int = 1 << 16) -> bytes:
        data = await self.reader.read(size)
        self.got += data
        return data

    def half_close(self) -> None:
        self.writer.close()  # over TLS there is no half

    def close(self) -> None:
        self.writer.transport.abort()

    reset = close


class New(Socket):
    """Over HTTP/2."""

    def __init__(self, client: Http2Client) -> None:
        super().__init__()
        self.client = client
        self.stream = 0

    @property
    def answer(self) -> Answer:
        return self.client.peer.answers[self.stream]

    async def open(self, *fields: bytes, behind: bytes = b"") -> None:
        line = [
            (":method", "CONNECT"),
            (":scheme", "http"),
            (":authority", "a.example"),
            (":path", "/chat"),
            (":protocol", "websocket"),
            ("sec-websocket-version", "13"),
        ]
        more = [tuple(field.decode().lower().split(": ")) for field in fields]
        library = self.client.peer.library
        self.stream = library.get_next_available_stream_id()
        library.send_headers(self.stream, [*line, *more])  # type: ignore[list-item]
        self.client.peer.answers[self.stream] = Answer()
        if behind:
            self.client.peer.send(self.stream, behind)
        await self.client.until(lambda: self.answer.status != 0)
        self.status = self.answer.status

    async def send(self, data: bytes) -> None:
        library = self.client.peer.library
        while data:
            room = min(library.local_flow_control_window(self.stream), len(data), 1 << 18)
            if room:
                self.client.peer.send(self.stream, data[:room])
                data = data[room:]
                await self.client.flush()
            else:
                assert await self.client.pull(), "the end, in the midst of a message"

    async def pull(self) -> bytes:
        answer = self.answer
        while not answer.body and not answer.ended and answer.reset is None:
            if not await self.client.pull():
                break
        data, answer.body = answer.body, b""
        return data

    async def end(self) -> None:
        self.client.peer.send(self.stream, b"", end=True)
        await self.client.flush()

    async def reset(self) -> None:
        await self.client.reset(self.stream)


class Ways:
    """Opens WebSockets by one way.

    Args:
        way: One of `WAYS`.
        folder: Where certificates are put.
    """

    def __init__(self, way: str, folder: Path) -> None:
        self.way = way
        self.http2 = way if way in http2_engines() else None
        self._folder = folder

    def serve(self, application: Application = echo, **options: Any) -> Serving:
        """What serves them; those of `WEBSOCKETS` among the options are about WebSockets."""
        known = {name: options.pop(name) for name in list(options) if hasattr(OPTIONS, name)}
        return Serving(application, http2=self.http2, websockets=replace(OPTIONS, **known), **options)

    async def ask(self, serving: Serving, *fields: bytes, behind: bytes = b"", room: int = ROOM) -> Socket:
        """A WebSocket that has been asked for, on a connection of its own."""
        if self.http2 is not None:
            new = New(await serving.connect_http2(room=room))
            await new.open(*fields, behind=behind)
            return new
        if self.way == "TLS":
            old = Old(await self._encrypt(serving))
        else:
            # A flood of a test is smaller than what the kernel would hold.
            old = Old(await serving.connect(tcp=self.way == "TCP", buffer=1 << 18))
        await old.open(*fields, behind=behind)
        return old

    async def open(self, serving: Serving, *fields: bytes, behind: bytes = b"", room: int = ROOM) -> Socket:
        """A WebSocket."""
        made = await self.ask(serving, *fields, behind=behind, room=room)
        assert made.status == (101 if self.http2 is None else 200)
        return made

    async def _encrypt(self, serving: Serving) -> Client:
        issuer = Issuer()
        made = issuer.issue(self._folder / "a.pem", "a.example")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(made.certificate, made.key)
        ours, theirs = pair()
        theirs.setblocking(False)
        make = partial(SerialConnection, serving.endpoint)
        accepting = asyncio.ensure_future(serving.loop.connect_accepted_socket(make, ours, ssl=context))
        reader, writer = await asyncio.open_connection(sock=theirs, ssl=issuer.client(), server_hostname="a.example")
        await accepting
        client = Encrypted(reader, writer)
        serving.clients.append(client)
        return client

    def outcome(self, serving: Serving) -> list[tuple[int, str]]:
        """Status and outcome of every record."""
        with suppress(KeyError):
            return [(one["http_status"], one.get("outcome", "complete")) for one in serving.records.answers()]
        raise AssertionError(serving.records.all())
