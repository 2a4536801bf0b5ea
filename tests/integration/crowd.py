"""Very many WebSocket clients in one cheap process, and clients that misuse a server; frames are made by hand.

    python crowd.py idle PORT COUNT none|offer|use   open so many, say `open`, answer pings, until the server closes all
    python crowd.py churn PORT COUNT                 open, echo and close so many, 50 at a time
    python crowd.py vanish PORT COUNT                open so many, say `open`, reset all when input ends
    python crowd.py silent PORT COUNT                open so many, answer nothing, until the server closes all
    python crowd.py ping|bomb PORT                   flood until input ends; says `open` first
    python crowd.py echo PORT SECONDS                one client's times from message to echo

Each prints what came of it, as JSON.
"""

import asyncio
import json
import os
import socket
import struct
import sys
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from time import monotonic, perf_counter
from typing import Any

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
RESET = struct.pack("ii", 1, 0)
AT_ONCE = 50
MESSAGE = b"x" * 64
BOMB = 8 * 1024 * 1024
"""What a bomb inflates to: half of what is allowed by default."""


def frame(opcode: int, payload: bytes = b"", *, compressed: bool = False) -> bytes:
    """A frame of a client's. Its masking key is 0, so that the payload stays as it is."""
    size = len(payload)
    head = bytes([0x80 | (0x40 if compressed else 0) | opcode])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 65536:
        head += b"\xfe" + size.to_bytes(2)
    else:
        head += b"\xff" + size.to_bytes(8)
    return head + bytes(4) + payload


def deflate(data: bytes) -> bytes:
    """RFC 7692 section 7.2.1."""
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


class Client(asyncio.Protocol):
    """One WebSocket. Answers pings and Close.

    Args:
        path: What it asks for.
        offer: permessage-deflate.
        talk: What it does once it is open.
        dumb: It answers nothing.
    """

    def __init__(
        self,
        path: str = "/",
        *,
        offer: bool = False,
        talk: Callable[["Client", int, bytes], None] | None = None,
        dumb: bool = False,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.transport: Any = None
        self.code = 1006
        self.pings = 0
        self._path, self._offer, self._talk, self._dumb = path, offer, talk, dumb
        self._data = bytearray()
        self._ready = asyncio.Event()
        self._ready.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        extension = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n" if self._offer else ""
        head = f"GET {self._path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{extension}"
        key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        self.transport.write((head + key).encode())

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self.opened.done():
            head, end, rest = self._data.partition(b"\r\n\r\n")
            if not end:
                return
            assert head.startswith(b"HTTP/1.1 101 "), head
            assert (b"permessage-deflate" in head) is self._offer
            self._data = rest
            self.opened.set_result(None)
        while len(self._data) >= 2:
            size, start = self._data[1], 2
            if size == 126:
                size, start = int.from_bytes(self._data[2:4]), 4
            elif size == 127:
                size, start = int.from_bytes(self._data[2:10]), 10
            if len(self._data) < start + size:
                return
            opcode, payload = self._data[0] & 0xF, bytes(self._data[start : start + size])
            del self._data[: start + size]
            self._take(opcode, payload)

    def _take(self, opcode: int, payload: bytes) -> None:
        if self._dumb:
            return
        if opcode == PING:
            self.pings += 1
            self.transport.write(frame(PONG, payload))
        elif opcode == CLOSE:
            self.code = int.from_bytes(payload[:2])
            self.transport.write(frame(CLOSE, payload))
        elif self._talk is not None:
            self._talk(self, opcode, payload)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(error or ConnectionResetError("not answered"))
        self.closed.set_result(None)

    def pause_writing(self) -> None:
        self._ready.clear()

    def resume_writing(self) -> None:
        self._ready.set()

    async def send(self, data: bytes) -> None:
        """Write, as fast as the server takes it."""
        self.transport.write(data)
        await self._ready.wait()


async def open_one(port: int, **options: Any) -> Client:
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(lambda: Client(**options), "127.0.0.1", port)
    await client.opened
    return client


async def open_many(port: int, count: int, **options: Any) -> list[Client]:
    """Some of them at once: a burst would be lost in the listener's queue, and come again after a second."""
    clients: list[Client] = []
    while len(clients) < count:
        number = min(AT_ONCE, count - len(clients))
        clients += await asyncio.gather(*(open_one(port, **options) for _ in range(number)))
    return clients


def say_open() -> None:
    print("open", flush=True)


async def input_ends() -> None:
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def idle(port: int, count: int, deflated: str) -> Any:
    clients = await open_many(port, count, offer=deflated != "none")
    if deflated == "use":
        data = deflate(os.urandom(100).hex().encode())
        for client in clients:
            client.transport.write(frame(TEXT, data, compressed=True))
            await asyncio.sleep(0)
    say_open()
    await asyncio.gather(*(client.closed for client in clients))
    return {
        "codes": Counter(client.code for client in clients),
        "pings": [min(client.pings for client in clients), max(client.pings for client in clients)],
    }


def close_after_echo(client: Client, opcode: int, payload: bytes) -> None:
    assert (opcode, payload) == (TEXT, MESSAGE)
    client.transport.write(frame(CLOSE, b"\x03\xe8"))


async def churn(port: int, count: int) -> Any:
    codes: Counter[int] = Counter()
    for _ in range(0, count, AT_ONCE):
        clients = await open_many(port, AT_ONCE, talk=close_after_echo)
        for client in clients:
            client.transport.write(frame(TEXT, MESSAGE))
        await asyncio.gather(*(client.closed for client in clients))
        codes.update(client.code for client in clients)
    return {"codes": codes}


async def vanish(port: int, count: int) -> Any:
    clients = await open_many(port, count)
    say_open()
    await input_ends()
    for client in clients:
        client.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        client.transport.abort()
    await asyncio.gather(*(client.closed for client in clients))
    return {}


async def silent(port: int, count: int) -> Any:
    clients = await open_many(port, count, dumb=True)
    begun = monotonic()
    await asyncio.gather(*(client.closed for client in clients))
    return {"seconds": monotonic() - begun}


async def flood(port: int, data: bytes, *, offer: bool) -> Any:
    """The same bytes again and again, to an application that takes what comes and answers nothing."""
    client = await open_one(port, path="/sink", offer=offer)
    say_open()
    ending = asyncio.ensure_future(input_ends())
    sent = 0
    with suppress(ConnectionError):
        while not ending.done() and not client.closed.done():
            await client.send(data)
            sent += len(data)
            await asyncio.sleep(0)
    await ending
    return {"sent": sent, "code": client.code, "lost": client.closed.done()}


async def echo(port: int, seconds: float) -> Any:
    times: list[float] = []
    begun = perf_counter()

    def again(client: Client, _opcode: int, _payload: bytes) -> None:
        nonlocal begun
        times.append(perf_counter() - begun)
        begun = perf_counter()
        client.transport.write(frame(TEXT, MESSAGE))

    client = await open_one(port, talk=again)
    begun = perf_counter()
    client.transport.write(frame(TEXT, MESSAGE))
    await asyncio.sleep(seconds)
    client.transport.abort()
    await client.closed
    return sorted(times)


async def main(kind: str, port: str, *rest: str) -> Any:
    number = int(port)
    if kind == "idle":
        return await idle(number, int(rest[0]), rest[1])
    if kind == "ping":
        return await flood(number, frame(PING, b"x" * 8) * 4096, offer=False)
    if kind == "bomb":
        return await flood(number, frame(TEXT, deflate(bytes(BOMB)), compressed=True), offer=True)
    if kind == "echo":
        return await echo(number, float(rest[0]))
    return await {"churn": churn, "vanish": vanish, "silent": silent}[kind](number, int(rest[0]))


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(*sys.argv[1:]))))
