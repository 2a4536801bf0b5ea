"""A request without a network: the application on one side, on the other a peer that watches the order of calls."""

import asyncio
import os
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, Final, TypeVar

from appserver.asgi.fields import Defaults
from appserver.asgi.http import HttpCycle
from appserver.asgi.scope import Scopes
from appserver.asgi.service import Service, WebSockets
from appserver.asgi.types import Application, Message, Receive, Scope, Send
from appserver.asgi.websocket import WebSocketCycle
from appserver.errors import ClientDisconnectedError
from appserver.wire.engine import Head, Headers
from appserver.wire.websocket_handshake import read_handshake
from tests.unit import websocket_frames as frames
from tests.unit.records import Records

T = TypeVar("T")

START: Final[Message] = {"type": "http.response.start", "status": 200, "headers": []}
MORE: Final[Message] = {"type": "http.response.body", "body": b"more", "more_body": True}
LAST: Final[Message] = {"type": "http.response.body", "body": b"last"}
ANNOUNCE: Final[Message] = {**START, "trailers": True}
TRAILERS: Final[Message] = {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]}
TRAILERS_MORE: Final[Message] = {**TRAILERS, "more_trailers": True}
HINT: Final[Message] = {"type": "http.response.early_hint", "links": [b"</style.css>; rel=preload"]}
PUSH: Final[Message] = {"type": "http.response.push", "path": "/style.css", "headers": []}

CONTENT: Final = b"content of a file"
_FILE: Final = os.memfd_create("content")
os.write(_FILE, CONTENT)
PATH: Final[Message] = {"type": "http.response.pathsend", "path": f"/proc/self/fd/{_FILE}"}
FILE_LAST: Final[Message] = {"type": "http.response.zerocopysend", "file": _FILE, "offset": 0}
FILE_MORE: Final[Message] = {**FILE_LAST, "more_body": True}


def start(status: object = 200, *headers: object) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(data: object, *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


def sends(*messages: Any) -> Application:
    """An application that sends these messages, whatever it is asked."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return application


@dataclass(slots=True)
class Peer:
    """Implements `asgi.peer.Peer`, and fails the test on calls that no client could be given."""

    status: int | None = None
    headers: Headers = field(default_factory=list)
    content: bytes = b""
    trailing: Headers | None = None
    informed: list[tuple[int, Headers]] = field(default_factory=list)
    pushed: list[tuple[bytes, Headers]] = field(default_factory=list)
    ended: bool = False
    cut: bool = False
    writes: int = 0
    proceeded: int = 0
    credit: int = 0
    slow: bool = False
    gone: bool = False
    relief: asyncio.Event = field(default_factory=asyncio.Event)
    accepted: Headers | None = None
    due: float = inf

    def choked(self, stream: int) -> bool:
        assert stream == 1
        return self.slow

    async def writable(self, stream: int) -> None:
        assert stream == 1
        await self.relief.wait()
        if self.gone:
            raise ClientDisconnectedError("the client is gone")

    def proceed(self, stream: int) -> None:
        assert stream == 1
        self.proceeded += 1

    def consumed(self, stream: int, count: int) -> None:
        assert stream == 1
        assert count > 0
        self.credit += count

    def accept(self, stream: int, headers: Headers) -> None:
        assert stream == 1
        assert self.status is None, "a second response"
        self.status, self.accepted = 101, list(headers)

    def remind(self, stream: int, when: float) -> None:
        assert stream == 1
        self.due = when

    def inform(self, stream: int, status: int, headers: Headers) -> None:
        assert stream == 1
        assert 100 < status < 200
        assert self.status is None, "an interim response behind the final one"
        self.informed.append((status, list(headers)))

    def respond(self, stream: int, status: int, headers: Headers, body: bytes, end: bool) -> None:
        assert stream == 1
        assert self.status is None, "a second response"
        assert 200 <= status <= 999
        self.status, self.headers = status, list(headers)
        self._write(body, end=end)

    def body(self, stream: int, data: bytes, end: bool) -> None:
        assert stream == 1
        assert self.status is not None, "a body before its head"
        self._write(data, end=end)

    def trailers(self, stream: int, headers: Headers) -> None:
        assert stream == 1
        assert self.status is not None, "trailers before their head"
        assert headers
        self.trailing = list(headers)
        self._write(b"", end=True)

    def push(self, stream: int, path: bytes, headers: Headers) -> None:
        assert stream == 1
        assert not self.ended, "a promise behind the end"
        self.pushed.append((path, list(headers)))

    async def send_file(self, stream: int, file: int, offset: int, count: int) -> int:
        assert stream == 1
        assert self.status is not None, "a file before its head"
        assert count > 0
        if self.slow:
            await self.writable(stream)
        data = os.pread(file, min(count, 3), offset)  # a socket seldom takes all at once
        if data:
            self._write(data, end=False)
        return len(data)

    def reset(self, stream: int) -> None:
        assert stream == 1
        assert self.status is not None, "cut where an answer could still be given"
        assert not self.ended, "cut behind the end"
        self.cut = self.ended = True

    def _write(self, data: bytes, *, end: bool) -> None:
        assert not self.ended, "something behind the end"
        self.writes += 1
        self.content += data
        self.ended = end


class Stage:
    """One request, its cycle and what came of it."""

    def __init__(
        self,
        application: Application | None = None,
        *,
        method: str = "GET",
        end: bool = True,
        expects: bool = False,
        fields: Headers | None = None,
        headers: Headers | None = None,
        push: bool = False,
        root_path: str = "",
    ) -> None:
        async def silent(scope: Scope, receive: Receive, send: Send) -> None:
            pass

        self.records = Records()
        self.peer = Peer()
        self.service = Service(
            application=application or silent,
            log=self.records.log,
            access=self.records.access,
            root_path=root_path,
            fields=Defaults(fields or ()),
        )
        head = Head(1, method, b"/path?query", [(b"host", b"a.example"), *(headers or ())], "1.1", end, expects)
        scope = Scopes(self.service, "http", ("192.0.2.80", 80), ("192.0.2.1", 1)).make(head, push)
        scope["state"]["request_id"] = "id-1"
        loop = asyncio.get_running_loop()
        self.cycle = HttpCycle(self.service, self.peer, head, scope, loop, "listener")
        self.loop = loop

    def begin(self) -> "asyncio.Task[None]":
        return self.loop.create_task(self.cycle.run())

    @property
    def length(self) -> list[bytes]:
        return [value for name, value in self.peer.headers if name == b"content-length"]


OPTIONS: Final = WebSockets(
    max_size=10_000,
    max_queue=4,
    open_timeout=10.0,
    close_timeout=7.0,
    ping_interval=20.0,
    ping_timeout=5.0,
    window_bits=12,
    deflate_memory=1 << 20,
)

DEFLATE: Final = (b"sec-websocket-extensions", b"permessage-deflate")


class SocketPeer(Peer):
    """A client that asks for a WebSocket: who has half closed behind that is left without an answer."""

    def reset(self, stream: int) -> None:
        assert stream == 1
        assert not self.ended, "cut behind the end"
        self.cut = self.ended = True


class SocketStage:
    """One WebSocket, its cycle and what came of it."""

    def __init__(
        self,
        application: Application | None = None,
        *,
        headers: Headers | None = None,
        subprotocols: bytes | None = None,
        http: str = "1.1",
        fields: Headers | None = None,
        **options: Any,
    ) -> None:
        async def silent(scope: Scope, receive: Receive, send: Send) -> None:
            pass

        self.records = Records()
        self.peer = SocketPeer()
        self.options = replace(OPTIONS, **options)
        self.service = Service(
            application=application or silent,
            log=self.records.log,
            access=self.records.access,
            fields=Defaults(fields or ()),
            websockets=self.options,
        )
        asked = [
            (b"host", b"a.example"),
            (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
            (b"sec-websocket-version", b"13"),
            *(headers or ()),
        ]
        if subprotocols is not None:
            asked.append((b"sec-websocket-protocol", subprotocols))
        head = Head(1, "GET" if http == "1.1" else "CONNECT", b"/path?query", asked, http, True, False, True)
        handshake = read_handshake(head, None, self.options.window_bits)
        scopes = Scopes(self.service, "http", ("192.0.2.80", 80), ("192.0.2.1", 1))
        scope = scopes.make_websocket(head, handshake.subprotocols)
        self.loop = asyncio.get_running_loop()
        self.cycle = WebSocketCycle(
            self.service, self.peer, head, scope, self.loop, "listener", handshake, self.options
        )

    def begin(self) -> "asyncio.Task[None]":
        return self.loop.create_task(self.cycle.run())

    def hear(self, *data: bytes) -> None:
        """Bytes from the client."""
        for piece in data:
            self.cycle.feed(piece, False)

    @property
    def said(self) -> list[frames.Frame]:
        """The frames that the client has got."""
        found, rest = frames.read(self.peer.content)
        assert rest == b""
        return found

    async def told(self) -> Message:
        """The next that the application is told, which is there already."""
        return await asyncio.wait_for(self.cycle.receive(), 20)

    def judge(self, outcome: str, status: int) -> None:
        """See to it that it is over, with one record, and that nothing is left of it."""
        [answer] = self.records.answers()
        assert (answer["http_status"], answer.get("outcome", "complete")) == (status, outcome)
        figures = self.service.figures
        assert (figures.requests, figures.websockets, figures.answered) == (0, 0, 1)
        assert figures.failed == int(status >= 500 or outcome == "cut")
        assert self.options.deflating == 0
        assert self.cycle.unread == 0


def play(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a scene to its end; one that hangs fails."""
    return asyncio.run(asyncio.wait_for(coroutine, 60))


def perform(application: Application, **options: Any) -> Stage:
    """Run an application on a request to its end."""

    async def scene() -> Stage:
        stage = Stage(application, **options)
        await stage.cycle.run()
        return stage

    return play(scene())


async def breathe(rounds: int = 5) -> None:
    """Let everything run that can run."""
    for _ in range(rounds):
        await asyncio.sleep(0)
