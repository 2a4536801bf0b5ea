"""Real connections on a real loop: one end is served by `net.connection`, the other is the test's own socket."""

import asyncio
import socket
import struct
import sys
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Any, Final, TypeVar

from appserver.asgi.service import Service
from appserver.asgi.types import Application, Receive, Scope, Send
from appserver.net.endpoint import Endpoint, Timeouts
from appserver.net.multiplexed import MultiplexedConnection
from appserver.net.serial import SerialConnection
from appserver.wire.engine import Limits
from appserver.wire.select import pick, pick_http2
from tests.conformance.http2.frames import Kind
from tests.contract.http2_peer import ROOM, Answer, Http2Peer
from tests.corpus.responses import Response, parse
from tests.unit.records import Records

T = TypeVar("T")

GET: Final = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"
EAGER: Final = sys.version_info >= (3, 12)
TIMEOUTS: Final = Timeouts(header=100, body=300, write=400, keep_alive=50, linger=20, min_rate=50)
"""Nobody waits for them (`Serving.later`): so long that what a busy machine takes is nothing beside them."""

NO_LINGER: Final = replace(TIMEOUTS, linger=0)
SCENE_SECONDS: Final = 60
"""A scene that takes longer hangs: the longest takes one second where nobody else wants the processor."""


def get(path: str, *fields: str) -> bytes:
    return "".join(f"{line}\r\n" for line in (f"GET {path} HTTP/1.1", "Host: a.example", *fields, "")).encode()


def post(content: bytes, path: str = "/", *fields: str, length: int | None = None) -> bytes:
    length = len(content) if length is None else length
    lines = (f"POST {path} HTTP/1.1", "Host: a.example", f"Content-Length: {length}", *fields, "")
    return "".join(f"{line}\r\n" for line in lines).encode() + content


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the path and the body, once the body is whole."""
    content = scope["path"].encode() + b" "
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        content += message["body"]
        if not message["more_body"]:
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": content})


class Client:
    """The test's end of a connection."""

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        sock.setblocking(False)
        self.sock, self._loop, self.got = sock, loop, b""

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self.sock, data)

    async def read(self, size: int = 1 << 16) -> bytes:
        """Some bytes; none at the end of input."""
        data = await self._loop.sock_recv(self.sock, size)
        self.got += data
        return data

    async def until(self, mark: bytes) -> None:
        """Read until `mark` has come."""
        while mark not in self.got:
            assert await self.read(), f"{mark!r} did not come, but: {self.got!r}"

    async def rest(self) -> bytes:
        """Everything up to the end of input; a reset raises."""
        while await self.read():
            pass
        return self.got

    async def responses(self, count: int, *methods: str) -> list[Response]:
        """Read until so many responses are whole."""
        while True:
            if self.got.count(b"HTTP/1.1 ") >= count:  # before that, parsing all of it again is in vain
                found, _ = parse(self.got, methods, ended=False)
                if len(found) >= count:
                    return found
            assert await self.read(), f"the end, before {count} responses: {self.got!r}"

    async def all_responses(self, *methods: str) -> list[Response]:
        """The responses up to the end of input, which must be whole."""
        found, left = parse(await self.rest(), methods, ended=True)
        assert left == b""
        return found

    def half_close(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        """Close so that the peer sees a reset; on a UNIX socket unread data have that effect."""
        if self.sock.family != socket.AF_UNIX:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class Http2Client:
    """The test's end of a connection that speaks HTTP/2 from its first byte."""

    def __init__(self, client: Client, settings: Mapping[int, int] | None = None, *, room: int = ROOM) -> None:
        self.client, self.peer = client, Http2Peer(settings, room=room)

    async def start(self) -> None:
        """Send the preface, and see the server's."""
        self.peer.start()
        await self.until(lambda: any(got.kind == Kind.SETTINGS for got in self.peer.frames))

    async def flush(self) -> None:
        """Send what has come together; a server that has closed may still be read."""
        with suppress(BrokenPipeError):
            await self.client.send(self.peer.take())

    async def pull(self) -> bool:
        """Send what has come together, then take some bytes; False at the end of input."""
        await self.flush()
        data = await self.client.read()
        self.peer.feed(data)
        await self.flush()
        return bool(data)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Read until something is so."""
        await self.flush()
        while not condition():
            assert await self.pull(), f"the end: {self.peer.answers} {self.peer.goaways}"

    async def answer(self, stream: int) -> Answer:
        """The whole answer on a stream."""
        answer = self.peer.answers[stream]
        await self.until(lambda: answer.ended)
        return answer

    async def get(self, path: str = "/", *fields: tuple[str, str], method: str = "GET") -> Answer:
        """The answer to a request."""
        return await self.answer(self.peer.ask(path, *fields, method=method))

    async def upload(self, stream: int, size: int) -> None:
        """Send so many bytes of a body, and its end, as the windows let them go."""
        while size:
            room = min(self.peer.library.local_flow_control_window(stream), size, 1 << 18)
            if room:
                size -= room
                self.peer.send(stream, bytes(room), end=not size)
                await self.flush()
            else:
                assert await self.pull(), "the end, in the midst of an upload"

    async def reset(self, stream: int) -> None:
        """Give a stream up."""
        self.peer.reset(stream)
        await self.flush()

    async def rest(self) -> None:
        """Take everything up to the end of input; a reset raises."""
        while await self.pull():
            pass


class Serving:
    """An endpoint with its application, on the running loop."""

    def __init__(
        self,
        application: Application,
        *,
        eager: bool = EAGER,
        timeouts: Timeouts = TIMEOUTS,
        limits: Limits | None = None,
        http2: str | None = None,
        **options: Any,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.records = Records()
        self.service = Service(application=application, log=self.records.log, access=self.records.access, **options)
        limits = limits or Limits()
        websocket = self.service.websockets is not None
        self.endpoint = Endpoint(
            name="http",
            service=self.service,
            loop=self.loop,
            make_engine=partial(
                pick(), limits, http2=http2 is not None, upgrade=http2 is not None, websocket=websocket
            ),
            make_http2=None if http2 is None else partial(pick_http2(http2), limits, monotonic, websocket=websocket),
            timeouts=timeouts,
            eager=eager,
        )
        self.clients: list[Client] = []
        _PLAYING.append(self)

    async def connect(self, *, tcp: bool = False, buffer: int | None = None) -> Client:
        """A new connection, over a socket pair or over TCP on the loopback; see `pair`."""
        ours, theirs = pair(tcp=tcp, buffer=buffer)
        client = Client(theirs, self.loop)
        self.clients.append(client)
        await self.loop.connect_accepted_socket(partial(SerialConnection, self.endpoint), ours)
        return client

    async def connect_http2(self, settings: Mapping[int, int] | None = None, *, room: int = ROOM) -> Http2Client:
        """A new connection on which both have said that they speak HTTP/2; `room` is the client's window for it."""
        client = Http2Client(await self.connect(), settings, room=room)
        await client.start()
        return client

    @property
    def multiplexed(self) -> MultiplexedConnection:
        """The one that is open, in HTTP/2."""
        [connection] = self.endpoint.connections
        assert isinstance(connection, MultiplexedConnection)
        return connection

    @property
    def connection(self) -> SerialConnection:
        """The one that is open."""
        [connection] = self.endpoint.connections
        assert isinstance(connection, SerialConnection)
        return connection

    def held(self) -> int:
        """Bytes of the present connections in this process's hands."""
        total = 0
        for connection in self.endpoint.connections:
            total += connection._engine.pending + sum(cycle.unread for cycle in connection._cycles.values())
            if connection._transport is not None:
                total += connection._transport.get_write_buffer_size()
        return total

    def later(self, seconds: float) -> None:
        """Enforce the deadlines as if so much time had passed."""
        self.endpoint.sweep(monotonic() + seconds)

    async def over(self) -> None:
        """Wait until no connection and no application is left."""
        await self.until(lambda: not self.endpoint.connections and not self.service.running)
        for client in self.clients:
            client.close()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the loop turn until something is so."""
        while not condition():
            await asyncio.sleep(0.001)

    async def quiet(self) -> None:
        """Let the loop turn until nothing more happens: what has not come by then does not come."""
        for _ in range(10):
            await asyncio.sleep(0.001)

    def drain(self) -> None:
        """Tell all connections that the server stops."""
        for _ in self.endpoint.drain_in_steps():
            pass

    def drop(self) -> None:
        """Give up everything that is still open."""
        self.endpoint.cutting = True
        for client in self.clients:
            client.close()
        for task in list(self.service.tasks):
            task.cancel()
        for connection in list(self.endpoint.connections):
            connection.abort()

    async def end(self) -> None:
        self.drop()
        await self.over()


_PLAYING: Final[list[Serving]] = []


def pair(*, tcp: bool = False, buffer: int | None = None) -> tuple[socket.socket, socket.socket]:
    """The server's end and the client's, connected; the server's does not block.

    Args:
        tcp: Over the loopback instead of a socket pair.
        buffer: Bytes that the kernel holds for each end of TCP. Else it lets them grow, to 4 and 32 MiB (tcp(7)).
    """
    if not tcp:
        ours, theirs = socket.socketpair()
    else:
        theirs = socket.socket()
        if buffer is not None:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)  # before it connects
        with socket.create_server(("127.0.0.1", 0)) as listener:
            theirs.connect(listener.getsockname())
            ours, _ = listener.accept()
        if buffer is not None:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    ours.setblocking(False)
    return ours, theirs


def play(make_loop: Callable[[], asyncio.AbstractEventLoop], scene: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a scene to its end on a loop; what nobody awaited, and a scene that hangs, fail."""
    unhandled: list[dict[str, Any]] = []

    async def watched() -> T:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
        try:
            return await asyncio.wait_for(scene(), SCENE_SECONDS)
        finally:
            # Also after a scene that failed: what is not written yet would hang uvloop's close() without end.
            while _PLAYING:
                _PLAYING.pop().drop()
            await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=make_loop) as runner:
        result = runner.run(watched())
    assert unhandled == []
    return result
