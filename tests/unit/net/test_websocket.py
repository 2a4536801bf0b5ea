"""WebSockets on real sockets: over every kind of connection and every HTTP version, on both event loops."""

import asyncio
import gc
import tracemalloc
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from appserver.asgi.types import Message, Receive, Scope, Send
from appserver.errors import ClientDisconnectedError
from appserver.net.endpoint import READ_SIZE
from appserver.net.flow import HIGH_WATER
from appserver.wire.http2 import STREAM_WINDOW
from appserver.wire.origins import Origins
from appserver.wire.websocket import FRAME_WORK, WORK
from tests.unit import websocket_frames as frames
from tests.unit.net.serving import GET, TIMEOUTS, Serving
from tests.unit.net.sockets import HANDSHAKE, OPTIONS, WAYS, New, Old, Ways, echo
from tests.unit.websocket_frames import BINARY, CLOSE, CONTINUATION, PING, PONG, RSV1, TEXT, Frame, frame, text

Play: TypeAlias = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]

ACCEPT: Message = {"type": "websocket.accept"}


@pytest.fixture(params=WAYS)
def ways(request: pytest.FixtureRequest, tmp_path: Path) -> Ways:
    return Ways(request.param, tmp_path)


@pytest.fixture(params=[way for way in WAYS if way in ("UNIX", "TCP")])
def old_ways(request: pytest.FixtureRequest, tmp_path: Path) -> Ways:
    return Ways(request.param, tmp_path)


class Told:
    """An application that accepts, and writes down what it is told; it reads on when it is let."""

    def __init__(self, *, free: bool = True) -> None:
        self.messages: list[Message] = []
        self.gate = asyncio.Event()
        if free:
            self.gate.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        assert await receive() == {"type": "websocket.connect"}
        await send(ACCEPT)
        while not self.messages or self.messages[-1]["type"] != "websocket.disconnect":
            await self.gate.wait()
            self.messages.append(await receive())

    @property
    def end(self) -> tuple[int, str] | None:
        """Code and reason of the disconnect, once it has been told."""
        if self.messages and self.messages[-1]["type"] == "websocket.disconnect":
            return self.messages[-1]["code"], self.messages[-1]["reason"]
        return None


async def echo_on(receive: Receive, send: Send) -> None:
    await receive()
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


# Messages


def test_messages_are_sent_back(run: Play, ways: Ways) -> None:
    async def scene() -> None:
        serving = ways.serve()
        socket = await ways.open(serving)
        await socket.send(text("grün") + frames.binary(b"data") + frame(TEXT, b"a", fin=False))
        await socket.send(frame(PING, b"p") + frame(CONTINUATION, b"b"))
        got = await socket.until(4)
        assert sorted(got) == sorted(
            [Frame(TEXT, "grün".encode()), Frame(BINARY, b"data"), Frame(PONG, b"p"), Frame(TEXT, b"ab")]
        )
        await socket.send(frames.close(4000, b"bye"))
        assert (await socket.rest())[-1].close == (4000, "bye")
        assert ways.outcome(serving) == [(socket.status, "complete")]
        assert serving.service.figures.websockets == serving.service.figures.requests == 0
        await serving.end()

    run(scene)


@pytest.mark.parametrize("size", [65_535, 65_536, 1_000_000, 5_000_000])
def test_large_messages_are_sent_back(run: Play, ways: Ways, size: int) -> None:
    async def scene() -> None:
        serving = ways.serve()
        socket = await ways.open(serving)
        message = bytes(range(256)) * (size // 256) + bytes(size % 256)
        await socket.send(frame(BINARY, message, key=bytes(4)))
        assert await socket.next() == Frame(BINARY, message)
        await serving.end()

    run(scene)


def test_compressed_messages_are_sent_back(run: Play, ways: Ways) -> None:
    async def scene() -> None:
        serving = ways.serve()
        socket = await ways.open(serving, b"Sec-WebSocket-Extensions: permessage-deflate")
        assert serving.service.websockets is not None
        assert serving.service.websockets.deflating > 0
        message = b"message " * 1000
        await socket.send(frame(BINARY, frames.deflate(message), reserved=RSV1))
        got = await socket.next()
        assert (got.reserved, frames.inflate(got.payload)) == (RSV1, message)
        await socket.send(frames.close(1000))
        await socket.rest()
        assert serving.service.websockets.deflating == 0
        await serving.end()

    run(scene)


def test_frames_that_come_with_the_handshake_are_the_first(run: Play, ways: Ways) -> None:
    async def scene() -> None:
        serving = ways.serve()
        socket = await ways.open(serving, behind=text("one") + text("two")[:4])
        await socket.send(text("two")[4:] + text("three"))
        assert await socket.until(3) == [Frame(TEXT, b"one"), Frame(TEXT, b"two"), Frame(TEXT, b"three")]
        await serving.end()

    run(scene)


def test_frames_that_come_before_a_slow_accept_are_the_first(run: Play, ways: Ways) -> None:
    async def scene() -> None:
        gate = asyncio.Event()

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await gate.wait()
            await echo(scope, receive, send)

        serving = ways.serve(application)
        asking = asyncio.ensure_future(ways.open(serving, behind=text("one")))
        await serving.until(lambda: serving.service.figures.requests == 1)
        await serving.quiet()
        gate.set()
        socket = await asking
        assert await socket.next() == Frame(TEXT, b"one")
        await serving.end()

    run(scene)


def test_frames_that_came_early_wait_for_a_client_that_reads_and_no_longer(run: Play, tmp_path: Path) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send(ACCEPT)
        sending = [asyncio.ensure_future(send({"type": "websocket.send", "bytes": bytes(3_000_000)}))]
        await echo_on(receive, send)
        await asyncio.gather(*sending)

    async def scene() -> None:
        serving = Ways("UNIX", tmp_path).serve(application)
        client = await serving.connect()
        await client.send(HANDSHAKE + b"\r\n" + text("early"))
        await serving.until(lambda: bool(serving.endpoint.connections) and serving.connection._out.paused)
        await serving.quiet()
        await client.until(b"early")
        await serving.end()

    run(scene)


def test_messages_may_come_byte_by_byte(run: Play, ways: Ways) -> None:
    async def scene() -> None:
        serving = ways.serve()
        socket = await ways.open(serving)
        for byte in text("hello") + frame(PING, b"p"):
            await socket.send(bytes([byte]))
            await asyncio.sleep(0)
        assert sorted(await socket.until(2)) == sorted([Frame(TEXT, b"hello"), Frame(PONG, b"p")])
        await serving.end()

    run(scene)


def test_websockets_and_requests_share_a_connection_of_http_2(run: Play, http2: str, tmp_path: Path) -> None:
    async def scene() -> None:
        ways = Ways(http2, tmp_path)
        serving = ways.serve()
        client = await serving.connect_http2()
        sockets = [New(client) for _ in range(5)]
        for socket in sockets:
            await socket.open()
            assert socket.status == 200
        for number, socket in enumerate(sockets):
            await socket.send(text(f"{number}"))
        assert (await client.get("/")).body == b"hello"
        for number, socket in enumerate(sockets):
            assert await socket.next() == Frame(TEXT, b"%d" % number)
        await sockets[0].send(frames.close(1000))
        assert (await sockets[0].rest())[-1].close == (1000, "")
        await sockets[1].reset()
        await sockets[2].send(text("still"))
        assert await sockets[2].next() == Frame(TEXT, b"still")
        await serving.until(lambda: serving.service.figures.websockets == 3)
        await serving.end()
        assert serving.service.figures.websockets == 0

    run(scene)


# The handshake


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        pytest.param([b"Sec-WebSocket-Protocol: gr\xc3\xbcn"], 400, id="non-ASCII subprotocol offered"),
        pytest.param([b"Origin: https://evil.example"], 403, id="another origin"),
        pytest.param([b"Sec-WebSocket-Extensions: ;"], 400, id="no list of extensions"),
    ],
)
def test_a_handshake_that_is_refused_is_answered_and_told(
    run: Play, ways: Ways, fields: list[bytes], status: int
) -> None:
    async def scene() -> None:
        serving = ways.serve(origins=Origins.of(["https://a.example"]))
        socket = await ways.ask(serving, *fields)
        assert socket.status == status
        [record] = serving.records.of("refused")
        assert record["http_status"] == status
        assert serving.service.figures.requests == 0
        await serving.end()

    run(scene)


@pytest.mark.parametrize(
    ("handshake", "status"),
    [
        pytest.param(HANDSHAKE.replace(b"dGhl", b""), 400, id="key not 16 bytes"),
        pytest.param(HANDSHAKE.replace(b"Sec-WebSocket-Key", b"X"), 400, id="key missing"),
        pytest.param(HANDSHAKE.replace(b"Version: 13", b"Version: 8"), 426, id="version other than 13"),
        pytest.param(HANDSHAKE + b"Content-Length: 4\r\n", 400, id="handshake with a body"),
    ],
)
def test_behind_a_refused_handshake_the_connection_goes_on(
    run: Play, old_ways: Ways, handshake: bytes, status: int
) -> None:
    async def scene() -> None:
        serving = old_ways.serve()
        client = await serving.connect()
        await client.send(handshake + b"\r\n" + (b"body" if status == 400 and b"Length" in handshake else b"") + GET)
        refused, answered = await client.responses(2)
        assert (refused.status, answered.status) == (status, 200)
        assert refused.values(b"sec-websocket-version") == ([b"13"] if status == 426 else [])
        client.close()
        await serving.over()

    run(scene)


def test_a_refused_handshake_whose_body_does_not_come_is_closed(run: Play, old_ways: Ways) -> None:
    async def scene() -> None:
        serving = old_ways.serve()
        client = await serving.connect()
        await client.send(HANDSHAKE + b"Content-Length: 1000\r\n\r\nsome")
        [refused] = await client.responses(1)
        assert refused.status == 400
        await serving.quiet()
        serving.later(TIMEOUTS.body + 1)
        await client.rest()
        client.close()
        await serving.over()

    run(scene)


async def denies(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await echo(scope, receive, send)
        return
    await send({"type": "websocket.http.response.start", "status": 401, "headers": [(b"content-length", b"6")]})
    await send({"type": "websocket.http.response.body", "body": b"denied"})


def test_a_denial_leaves_the_connection_as_it_was(run: Play, ways: Ways) -> None:
    async def scene() -> None:
        serving = ways.serve(denies)
        socket = await ways.ask(serving)
        assert socket.status == 401
        if isinstance(socket, Old):
            [denied] = await socket.client.responses(1)
            assert denied.body == b"denied"
            await socket.client.send(GET)
            assert [one.status for one in await socket.client.responses(2)] == [401, 200]
        elif isinstance(socket, New):
            assert (await socket.client.answer(socket.stream)).body == b"denied"
            assert (await socket.client.get("/")).status == 200
        assert ways.outcome(serving)[0] == (401, "complete")
        await serving.end()

    run(scene)


def test_half_a_head_behind_a_denial_has_the_time_of_a_head(run: Play, old_ways: Ways) -> None:
    async def scene() -> None:
        serving = old_ways.serve(denies)
        client = await serving.connect()
        await client.send(HANDSHAKE + b"\r\n" + GET[:10])
        await client.responses(1)
        await serving.quiet()
        serving.later(TIMEOUTS.header - 10)
        await serving.quiet()
        assert len(serving.endpoint.connections) == 1
        serving.later(TIMEOUTS.header + 1)
        assert [one.status for one in await client.all_responses()] == [401, 408]
        client.close()
        await serving.over()

    run(scene)


def test_an_idle_connection_behind_a_denial_has_the_time_between_requests(run: Play, old_ways: Ways) -> None:
    async def scene() -> None:
        serving = old_ways.serve(denies)
        client = await serving.connect()
        await client.send(HANDSHAKE + b"\r\n")
        await client.responses(1)
        await serving.quiet()
        serving.later(TIMEOUTS.keep_alive + 1)
        assert len(await client.all_responses()) == 1
        client.close()
        await serving.over()

    run(scene)


def test_where_they_are_not_served_it_is_a_request(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(echo)
        client = await serving.connect()
        await client.send(HANDSHAKE + b"\r\n")
        [answer] = await client.responses(1)
        assert (answer.status, answer.body) == (200, b"hello")
        await serving.end()

    run(scene)


# How it ends


def test_the_clients_close_is_told_with_its_code(run: Play, ways: Ways) -> None:
    async def scene() -> None:
        told = Told()
        serving = ways.serve(told)
        socket = await ways.open(serving)
        await socket.send(text("last") + frames.close(4001, b"because") + text("behind"))
        assert await socket.rest() == [Frame(CLOSE, (4001).to_bytes(2) + b"because")]
        await serving.until(lambda: told.end is not None)
        assert told.end == (4001, "because")
        assert ways.outcome(serving) == [(socket.status, "complete")]
        await serving.end()

    run(scene)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(frame(TEXT, b"a", key=None), 1002, id="unmasked frame"),
        pytest.param(frame(TEXT, b"a", reserved=RSV1), 1002, id="reserved bits"),
        pytest.param(frame(11), 1002, id="reserved opcode"),
        pytest.param(frame(PING, fin=False), 1002, id="fragmented control frame"),
        pytest.param(frame(CLOSE, bytes(126)), 1002, id="over-long control frame"),
        pytest.param(frame(TEXT, b"\xff"), 1007, id="bad UTF-8"),
        pytest.param(frames.close(1006), 1002, id="bad close code"),
        pytest.param(frame(BINARY, b"", size=1 << 30), 1009, id="message over the limit"),
    ],
)
def test_a_fault_of_the_client_is_told_it_and_it_is_closed(run: Play, ways: Ways, data: bytes, code: int) -> None:
    async def scene() -> None:
        told = Told()
        serving = ways.serve(told)
        socket = await ways.open(serving)
        await socket.send(text("good") + data + text("behind"))
        [close] = await socket.rest()
        assert close.close[0] == code
        await serving.until(lambda: told.end is not None)
        assert told.end == close.close
        assert told.messages[0] == {"type": "websocket.receive", "text": "good"}
        [record] = serving.records.of("refused")
        assert record["websocket_code"] == code
        await serving.end()

    run(scene)


@pytest.mark.parametrize("how", ["end", "reset"])
@pytest.mark.parametrize("before", [b"", text("whole") + text("half")[:4]])
def test_a_client_that_goes_without_a_close_is_1006_and_no_fault(
    run: Play, ways: Ways, how: str, before: bytes
) -> None:
    async def scene() -> None:
        told = Told()
        serving = ways.serve(told)
        socket = await ways.open(serving)
        await socket.send(before)
        await serving.quiet()
        await getattr(socket, how)()
        await serving.until(lambda: told.end is not None)
        assert told.end == (1006, "")
        assert len(told.messages) == 1 + bool(before)
        assert ways.outcome(serving) == [(socket.status, "client_gone")]
        assert serving.service.figures.failed == serving.service.figures.refused == 0
        assert serving.records.tracebacks() == []
        assert serving.service.figures.websockets == 0
        await serving.end()

    run(scene)


def test_the_end_of_a_connection_of_http_2_is_no_fault_of_its_websockets(run: Play, http2: str, tmp_path: Path) -> None:
    async def scene() -> None:
        told = Told()
        serving = Ways(http2, tmp_path).serve(told)
        client = await serving.connect_http2()
        await New(client).open()
        client.client.half_close()
        await serving.until(lambda: told.end is not None)
        assert told.end == (1006, "")
        assert Ways(http2, tmp_path).outcome(serving) == [(200, "client_gone")]
        figures = serving.service.figures
        assert (figures.failed, figures.refused, serving.records.of("refused")) == (0, 0, [])
        await client.rest()
        await serving.end()

    run(scene)


def test_our_close_ends_it_when_it_is_answered(run: Play, ways: Ways) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send(ACCEPT)
        await send({"type": "websocket.close", "code": 3000, "reason": "enough"})

    async def scene() -> None:
        serving = ways.serve(application)
        socket = await ways.open(serving)
        assert (await socket.next()).close == (3000, "enough")
        await serving.quiet()
        assert serving.service.figures.websockets == 1
        await socket.send(frames.close(3000, b"enough"))
        assert await socket.rest() == []
        assert ways.outcome(serving) == [(socket.status, "complete")]
        await serving.end()

    run(scene)


def test_a_close_that_is_not_answered_is_enough_after_a_while(run: Play, ways: Ways) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send(ACCEPT)

    async def scene() -> None:
        serving = ways.serve(application)
        socket = await ways.open(serving)
        assert (await socket.next()).close == (1000, "")
        serving.later(OPTIONS.close_timeout / 2)
        await serving.quiet()
        assert serving.service.figures.websockets == 1
        serving.later(OPTIONS.close_timeout + 1)
        assert await socket.rest() == []
        assert ways.outcome(serving) == [(socket.status, "client_gone")]
        await serving.end()

    run(scene)


def test_an_application_that_raises_is_told_1011(run: Play, ways: Ways) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send(ACCEPT)
        await receive()
        await receive()
        raise LookupError("of the application")

    async def scene() -> None:
        serving = ways.serve(application)
        socket = await ways.open(serving)
        await socket.send(text("a"))
        assert (await socket.next()).close == (1011, "")
        await socket.send(frames.close(1011))
        await socket.rest()
        assert ways.outcome(serving) == [(socket.status, "cut")]
        assert len(serving.records.tracebacks()) == 1
        await serving.end()

    run(scene)


# The server leaves


def test_a_drain_tells_1012(run: Play, ways: Ways) -> None:
    async def scene() -> None:
        told = Told()
        serving = ways.serve(told)
        socket = await ways.open(serving)
        serving.drain()
        assert (await socket.next()).close == (1012, "")
        await socket.send(frames.close(1012))
        assert await socket.rest() == []
        await serving.until(lambda: told.end == (1012, ""))
        if isinstance(socket, Old):
            socket.client.close()
            await serving.over()
        await serving.end()

    run(scene)


def test_who_is_accepted_while_the_server_leaves_is_told_1012(run: Play, ways: Ways) -> None:
    async def scene() -> None:
        gate = asyncio.Event()

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await gate.wait()
            await echo(scope, receive, send)

        serving = ways.serve(application)
        asking = asyncio.ensure_future(ways.open(serving))
        await serving.until(lambda: serving.service.figures.requests == 1)
        serving.drain()
        await serving.quiet()
        gate.set()
        socket = await asking
        assert (await socket.next()).close == (1012, "")
        await serving.end()

    run(scene)


def test_who_is_still_open_at_the_end_is_told_1012_and_closed(run: Play, ways: Ways) -> None:
    async def scene() -> None:
        told = Told(free=False)
        serving = ways.serve(told)
        socket = await ways.open(serving)
        for connection in list(serving.endpoint.connections):
            connection.finish()
        assert [one.close for one in await socket.rest()] == [(1012, "")]
        await serving.end()

    run(scene)


# Time


def test_an_application_that_does_not_answer_the_handshake_is_a_503(run: Play, ways: Ways) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.Event().wait()

    async def scene() -> None:
        serving = ways.serve(application)
        asking = asyncio.ensure_future(ways.ask(serving))
        await serving.until(lambda: serving.service.figures.requests == 1)
        await serving.quiet()
        serving.later(OPTIONS.open_timeout / 2)
        await serving.quiet()
        assert not asking.done()
        serving.later(OPTIONS.open_timeout + 1)
        assert (await asking).status == 503
        assert ways.outcome(serving) == [(503, "failed")]
        await serving.end()

    run(scene)


def test_pings_are_sent_and_who_does_not_answer_is_gone(run: Play, ways: Ways) -> None:
    async def scene() -> None:
        told = Told()
        serving = ways.serve(told)
        socket = await ways.open(serving)
        await serving.quiet()
        serving.later(OPTIONS.ping_interval / 2)
        await serving.quiet()
        assert socket.frames == []
        serving.later(OPTIONS.ping_interval + 1)
        ping = await socket.next()
        assert ping.opcode == PING
        await socket.send(frame(PONG, ping.payload))
        await serving.quiet()
        serving.later(OPTIONS.ping_interval + OPTIONS.ping_timeout + 2)
        assert told.messages == []
        serving.later(2 * OPTIONS.ping_interval + 3)
        assert (await socket.next()).opcode == PING
        serving.later(2 * OPTIONS.ping_interval + OPTIONS.ping_timeout + 4)
        assert await socket.rest() == []
        await serving.until(lambda: told.end is not None)
        assert told.end == (1006, "a ping was not answered")
        await serving.end()

    run(scene)


def test_no_other_deadline_is_about_a_websocket(run: Play, ways: Ways) -> None:
    async def scene() -> None:
        serving = ways.serve(ping_interval=0.0)
        socket = await ways.open(serving)
        await serving.quiet()
        for seconds in (10, 100, 10_000):
            serving.later(seconds)
            await serving.quiet()
        await socket.send(text("still here"))
        assert await socket.next() == Frame(TEXT, b"still here")
        await serving.end()

    run(scene)


# Bounds


async def push(serving: Serving, socket: Any, data: bytes, count: int) -> int:
    """Send a message again and again until the server takes no more: how many bytes that were."""
    [connection] = serving.endpoint.connections
    [cycle] = connection._cycles.values()
    sent = 0
    for _ in range(count):
        sending = asyncio.ensure_future(socket.send(data))
        while not (await asyncio.wait([sending], timeout=0.2))[0]:
            if cycle.full:  # else it is the machine that takes its time
                sending.cancel()
                return sent
        sent += len(data)
    return sent


async def stand_still(serving: Serving, endless: "Endless") -> None:
    """Wait until an application that sends without end waits for its client."""
    before = -1
    while endless.sent != before:
        before = endless.sent
        for _ in range(5):
            await serving.quiet()


@pytest.mark.parametrize("size", [1000, 100_000])
def test_a_slow_application_stops_its_client(run: Play, ways: Ways, size: int) -> None:
    """App slower than the client: reading pauses."""

    async def scene() -> None:
        told = Told(free=False)
        serving = ways.serve(told, max_queue=8, max_size=500_000)
        socket = await ways.open(serving)
        one = frame(BINARY, bytes(size), key=bytes(4))
        pushed = await push(serving, socket, one, 30_000_000 // size)
        assert pushed < 15_000_000  # what the kernel holds of a socket is most of it
        [connection] = serving.endpoint.connections
        [cycle] = connection._cycles.values()
        assert (cycle.full, len(told.messages)) == (True, 0)
        assert cycle._queued <= 8 * size + READ_SIZE  # type: ignore[attr-defined]
        assert cycle.unread <= max(2 * READ_SIZE, STREAM_WINDOW)
        told.gate.set()
        await serving.until(lambda: len(told.messages) >= pushed // len(one))
        assert {len(message["bytes"]) for message in told.messages} == {size}
        await serving.until(lambda: cycle._queued == 0)  # type: ignore[attr-defined]
        await serving.end()

    run(scene)


def test_a_slow_application_stops_nobody_else(run: Play, http2: str, tmp_path: Path) -> None:
    async def scene() -> None:
        told = Told(free=False)

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await (told if scope["path"] == "/chat" and not told.gate.is_set() else echo)(scope, receive, send)

        serving = Ways(http2, tmp_path).serve(application, max_queue=1)
        client = await serving.connect_http2()
        slow = New(client)
        await slow.open()
        for _ in range(STREAM_WINDOW // 16_384 - 1):
            await slow.send(frames.binary(bytes(16_000)))
        told.gate.set()
        quick = New(client)
        await quick.open()
        await quick.send(text("quick"))
        assert await quick.next() == Frame(TEXT, b"quick")
        assert (await client.get("/")).body == b"hello"
        await serving.end()

    run(scene)


class Endless:
    """An application that sends without end, and counts."""

    def __init__(self) -> None:
        self.sent, self.ended = 0, False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        assert await receive() == {"type": "websocket.connect"}
        await send(ACCEPT)
        try:
            while True:
                await send({"type": "websocket.send", "bytes": bytes(16_000)})
                self.sent += 16_000
        except ClientDisconnectedError:
            self.ended = True
            raise


def test_a_slow_client_makes_send_wait(run: Play, ways: Ways) -> None:
    async def scene() -> None:
        endless = Endless()
        serving = ways.serve(endless)
        socket = await ways.open(serving)
        await stand_still(serving, endless)
        before = endless.sent
        assert 0 < before < 20_000_000
        assert serving.held() <= 8 * HIGH_WATER
        for _ in range(200):
            await socket.read()
        await serving.until(lambda: endless.sent > before)
        await socket.reset()
        await serving.until(lambda: endless.ended)
        assert ways.outcome(serving) == [(socket.status, "client_gone")]
        await serving.end()

    run(scene)


def test_a_client_that_reads_nothing_is_cut(run: Play, ways: Ways) -> None:
    async def scene() -> None:
        endless = Endless()
        serving = ways.serve(endless, ping_interval=0.0)
        await ways.open(serving, room=65_535)
        await stand_still(serving, endless)
        for seconds in (0, TIMEOUTS.write + 1, 2 * TIMEOUTS.write + 2):
            serving.later(seconds)
            await serving.quiet()
        await serving.until(lambda: endless.ended)
        assert "client_gone" in {outcome for _, outcome in ways.outcome(serving)}
        await serving.end()

    run(scene)


def test_a_ping_flood_from_a_client_that_does_not_read_is_bounded_and_cut(run: Play, ways: Ways) -> None:
    async def scene() -> None:
        told = Told()
        serving = ways.serve(told)
        socket = await ways.open(serving, room=65_535)
        if isinstance(socket, New):
            socket.client.peer.slow.add(socket.stream)
        flood = frame(PING, bytes(125), key=bytes(4)) * 500
        gc.collect()
        tracemalloc.start()
        try:
            pushed = await push(serving, socket, flood, 400)
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert pushed < 400 * len(flood)
        assert held < 4_000_000
        [connection] = serving.endpoint.connections
        [cycle] = connection._cycles.values()
        await serving.until(lambda: cycle.full)
        for seconds in (0, TIMEOUTS.write + 1, 2 * TIMEOUTS.write + 2):
            serving.later(seconds)
            await serving.quiet()
        await serving.until(lambda: told.end is not None)
        assert told.end == (1006, "")
        assert serving.records.of("deadline") != []
        await serving.end()

    run(scene)


@pytest.mark.parametrize(
    "one",
    [
        pytest.param(frame(TEXT), id="empty messages"),
        pytest.param(frame(PONG), id="pongs"),
        pytest.param(frame(PING), id="pings"),
        pytest.param(frame(CONTINUATION, fin=False), id="empty fragments"),
    ],
)
def test_of_a_flood_of_empty_frames_few_are_looked_at_in_a_turn(run: Play, ways: Ways, one: bytes) -> None:
    # Times would measure the machine: 64 KiB of them at once take 30 to 60 ms, a thousand 3 to 5.
    async def scene() -> None:
        told = Told()
        serving = ways.serve(told)
        socket = await ways.open(serving)
        await socket.send(frame(TEXT, fin=False) if not one[0] & 0x8F else b"")
        [connection] = serving.endpoint.connections
        [cycle] = connection._cycles.values()
        most = 0

        async def watch() -> None:
            nonlocal most
            before = cycle.received - cycle.unread
            while cycle.received < 30_000 * len(one) or cycle.unread:
                await asyncio.sleep(0)
                looked_at = cycle.received - cycle.unread
                most = max(most, looked_at - before)
                before = looked_at

        async def drink() -> None:
            while await socket.read():
                socket.frames.clear()

        watching = asyncio.ensure_future(watch())
        reading = asyncio.ensure_future(drink()) if isinstance(socket, Old) else None
        for _ in range(3):
            await socket.send(one * 10_000)
        await watching
        if reading is not None:
            reading.cancel()
        # As the read brings them, as the rest of it has its turn, and as the application makes room.
        assert most <= 3 * (WORK // FRAME_WORK + 1) * len(one)
        await serving.end()

    run(scene)


def test_a_permessage_deflate_bomb_is_told_1009(run: Play, ways: Ways) -> None:
    async def scene() -> None:
        told = Told()
        serving = ways.serve(told)
        socket = await ways.open(serving, b"Sec-WebSocket-Extensions: permessage-deflate")
        bomb = frames.deflate(bytes(OPTIONS.max_size + 1))
        assert len(bomb) < 20_000
        await socket.send(frame(BINARY, bomb, reserved=RSV1, key=bytes(4)))
        assert (await socket.rest())[0].close[0] == 1009
        await serving.until(lambda: told.end is not None)
        assert told.messages[0]["code"] == 1009
        await serving.end()

    run(scene)


def test_small_bombs_inflate_no_further_than_the_application_keeps_up(run: Play, ways: Ways) -> None:
    async def scene() -> None:
        told = Told(free=False)
        serving = ways.serve(told, max_size=WORK)
        socket = await ways.open(serving, b"Sec-WebSocket-Extensions: permessage-deflate")
        one = frame(BINARY, frames.deflate(bytes(WORK)), reserved=RSV1)
        await socket.send(one * 40)
        await serving.until(lambda: serving.held() > 0)
        await serving.quiet()
        [connection] = serving.endpoint.connections
        [cycle] = connection._cycles.values()
        assert cycle._queued <= 2 * WORK  # type: ignore[attr-defined]
        told.gate.set()
        await serving.until(lambda: len(told.messages) == 40)
        await serving.end()

    run(scene)


# What is left of them


def test_many_that_come_and_go_leave_nothing(run: Play, ways: Ways) -> None:
    async def scene() -> None:
        serving = ways.serve()
        for number in range(30):
            socket = await ways.open(serving, b"Sec-WebSocket-Extensions: permessage-deflate")
            await socket.send(text("hello"))
            await socket.next()
            if number % 3 == 0:
                await socket.send(frames.close(1000))
                await socket.rest()
            elif number % 3 == 1:
                await socket.end()
            else:
                await socket.reset()
        await serving.until(lambda: serving.service.figures.websockets == 0)
        assert serving.service.websockets is not None
        assert serving.service.websockets.deflating == 0
        await serving.until(lambda: not serving.service.running)
        await serving.end()
        assert len(serving.records.answers()) == 30
        assert serving.service.figures.connections == 0

    run(scene)
