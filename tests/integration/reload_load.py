"""Clients of many kinds that keep their connections through reloads, and tell what became of every request.

    python reload_load.py HTTP_PORT HTTPS_PORT CERTIFICATE COUNT

until the end of the input; prints `running` once each client has been answered, then what was answered and what was
lost as JSON. Of COUNT clients most ask for a small page; some wait for a slow one, some upload 200 KB in pieces, some
speak over a WebSocket, and some speak HTTP/2.

A client keeps its connection until it is told that the server closes it, as every good client does: by `Connection:
close`, by GOAWAY, or by the close code 1012. Whatever else ends a request is a loss.
"""

import asyncio
import contextlib
import json
import random
import ssl
import sys
from collections import Counter
from time import monotonic
from typing import TYPE_CHECKING, Final

from hpack import Decoder, Encoder
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

HOST: Final = "127.0.0.1"
UPLOAD: Final = b"x" * 200_000
PIECE: Final = 20_000
FRAME: Final = 8_000
PAUSE: Final = 0.02
PATIENCE: Final = 20.0
RESTART: Final = 1012


class Load:
    """All clients.

    Args:
        port: Of HTTP/1.1 and WebSockets.
        secure: Of HTTP/2.
        certificate: That one's, to be trusted.
    """

    def __init__(self, port: int, secure: int, certificate: str) -> None:
        self._port, self._secure = port, secure
        self._context = ssl.create_default_context(cafile=certificate)
        self._context.set_alpn_protocols(["h2"])
        self._stop = asyncio.Event()
        self._running: set[str] = set()
        self.answered: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.times: list[float] = []

    async def run(self, count: int) -> None:
        clients = [asyncio.create_task(self._client(number)) for number in range(count)]
        async with asyncio.timeout(PATIENCE):
            while len(self._running) < count:
                await asyncio.sleep(PAUSE)
        sys.stdout.write("running\n")
        sys.stdout.flush()
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        await reader.read()
        self._stop.set()
        await asyncio.gather(*clients)

    async def _client(self, number: int) -> None:
        kind = {1: "slow", 3: "upload", 5: "websocket", 7: "http2"}.get(number % 8, "small")
        session: Callable[[str, str], Awaitable[None]] = {
            "websocket": self._websocket,
            "http2": self._http2,
        }.get(kind, self._http1)
        while not self._stop.is_set():
            try:
                await session(kind, f"{kind} {number}")
            except Exception as error:  # noqa: BLE001 - each is a loss
                self.lost[f"{kind}: {error!r}"] += 1
                await asyncio.sleep(PAUSE)

    def _count(self, kind: str, name: str, began: float) -> None:
        self.answered[kind] += 1
        self.times.append(monotonic() - began)
        self._running.add(name)

    async def _pause(self) -> None:
        await asyncio.sleep(random.random() * PAUSE)

    async def _http1(self, kind: str, name: str) -> None:
        """One connection, up to its end."""
        reader, writer = await asyncio.open_connection(HOST, self._port)
        with contextlib.closing(writer):
            while not self._stop.is_set():
                began = monotonic()
                if kind == "upload":
                    writer.write(b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(UPLOAD))
                    for begin in range(0, len(UPLOAD), PIECE):
                        writer.write(UPLOAD[begin : begin + PIECE])
                        await writer.drain()
                        await asyncio.sleep(0.005)
                else:
                    target = "/wait?seconds=0.3" if kind == "slow" else "/"
                    writer.write(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                async with asyncio.timeout(PATIENCE):
                    head = (await reader.readuntil(b"\r\n\r\n")).lower()
                    fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
                    body = await reader.readexactly(int(fields[b"content-length"]))
                if not head.startswith(b"http/1.1 200") or (kind == "upload" and b'"count": 200000' not in body):
                    raise RuntimeError(f"{head!r} {body!r}")
                self._count(kind, name, began)
                if fields.get(b"connection") == b"close":
                    return
                await self._pause()

    async def _websocket(self, kind: str, name: str) -> None:
        """One WebSocket, until it is told that the service restarts: what it has sent is answered up to then."""
        async with connect(f"ws://{HOST}:{self._port}/echo", open_timeout=PATIENCE, proxy=None) as websocket:
            with contextlib.suppress(_RestartError):
                while not self._stop.is_set():
                    began = monotonic()
                    await self._echo(websocket, f"{name} {began}")
                    self._count(kind, name, began)
                    await self._pause()

    async def _echo(self, websocket: ClientConnection, text: str) -> None:
        try:
            await websocket.send(text)
            async with asyncio.timeout(PATIENCE):
                answer = await websocket.recv()
        except ConnectionClosed as error:
            # The server closes on its own, in words, and not in the midst of the handshake of closing.
            if error.rcvd is not None and error.rcvd.code == RESTART:
                raise _RestartError from error
            raise
        if answer != text:
            raise RuntimeError(f"{answer!r} for {text!r}")

    async def _http2(self, kind: str, name: str) -> None:
        """One connection, on which two requests run at a time, up to its GOAWAY and the end of what then runs."""
        streams = await asyncio.open_connection(HOST, self._secure, ssl=self._context)
        peer = Http2(*streams)
        with contextlib.closing(streams[1]):
            while not (self._stop.is_set() or peer.leaving):
                began = monotonic()
                async with asyncio.timeout(PATIENCE):
                    await peer.ask(b"/", b"")
                    await peer.ask(b"/upload", UPLOAD[:PIECE])
                    answers = [await peer.answer(), await peer.answer()]
                if any(answer != b"200" for answer in answers):
                    raise RuntimeError(repr(answers))
                for _ in answers:
                    self._count(kind, name, began)
                await self._pause()


class Http2:
    """A connection of a client that keeps to RFC 9113 where its server leaves.

    h2, and with it httpx, takes every GOAWAY for the end of all streams; section 6.8 says that those up to the last
    stream that it names go on.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._encoder, self._decoder = Encoder(), Decoder()
        self._stream, self._window = -1, 65535
        self._done: list[bytes] = []
        self._statuses: dict[int, bytes] = {}
        self.leaving = False
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame().serialize())

    async def ask(self, path: bytes, body: bytes) -> None:
        """Begin a request on a stream of its own."""
        while self._window < len(body):
            await self._read()
        self._window -= len(body)
        self._stream += 2
        method = b"POST" if body else b"GET"
        fields = [(b":method", method), (b":scheme", b"https"), (b":authority", b"a"), (b":path", path)]
        flags = ["END_HEADERS"] if body else ["END_HEADERS", "END_STREAM"]
        self._write(HeadersFrame(self._stream, self._encoder.encode(fields), flags=flags))
        for begin in range(0, len(body), FRAME):
            last = begin + FRAME >= len(body)
            self._write(DataFrame(self._stream, body[begin : begin + FRAME], flags=["END_STREAM"] if last else []))
            await asyncio.sleep(0.002)

    async def answer(self) -> bytes:
        """The status of the next answer that has come to its end."""
        while not self._done:
            await self._read()
        return self._done.pop(0)

    def _write(self, frame: Frame) -> None:
        self._writer.write(frame.serialize())

    async def _read(self) -> None:
        frame, length = Frame.parse_frame_header(memoryview(await self._reader.readexactly(9)))
        frame.parse_body(memoryview(await self._reader.readexactly(length)))
        if isinstance(frame, HeadersFrame):
            self._statuses[frame.stream_id] = dict(self._decoder.decode(frame.data, raw=True))[b":status"]
        elif isinstance(frame, DataFrame) and frame.flow_controlled_length:
            self._write(WindowUpdateFrame(0, window_increment=frame.flow_controlled_length))
        elif isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
            self._write(SettingsFrame(flags=["ACK"]))
        elif isinstance(frame, PingFrame) and "ACK" not in frame.flags:
            self._write(PingFrame(opaque_data=frame.opaque_data, flags=["ACK"]))
        elif isinstance(frame, WindowUpdateFrame) and frame.stream_id == 0:
            self._window += frame.window_increment
        elif isinstance(frame, RstStreamFrame):
            raise RuntimeError(f"RST_STREAM {frame.error_code}")
        elif isinstance(frame, GoAwayFrame):
            if frame.error_code or frame.last_stream_id < self._stream:
                raise RuntimeError(f"GOAWAY {frame.error_code} {frame.last_stream_id}, and we are at {self._stream}")
            self.leaving = True
        if "END_STREAM" in frame.flags:
            self._done.append(self._statuses.pop(frame.stream_id))


class _RestartError(Exception):
    """The server goes, and has said so."""


async def main(port: str, secure: str, certificate: str, count: str) -> None:
    load = Load(int(port), int(secure), certificate)
    try:
        await load.run(int(count))
    finally:
        times = sorted(load.times) or [0.0]
        told = {"answered": load.answered, "lost": load.lost, "p99": times[len(times) * 99 // 100], "max": times[-1]}
        sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
