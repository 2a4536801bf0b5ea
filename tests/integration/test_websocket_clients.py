"""Clients that others have written: `websockets`, `aiohttp`, `picows`; over HTTP/1.1, TLS, UNIX sockets and HTTP/2."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final, Literal
from urllib.parse import quote

import aiohttp
import picows
import pytest
import websockets
from aiohttp import ClientWebSocketResponse, WSMsgType
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.integration.servers import PATIENCE
from tests.integration.websocket import TCP_WAYS, WAYS, Place, make_path, serving

MIB: Final = 1024 * 1024
TEXTS: Final = ("", "a", "Käse & Brötchen / 日本 / 🧀", "ab" * (MIB // 2), "ä🧀" * 1000)
BINARIES: Final = (b"", b"\0", bytes(range(256)), bytes(range(256)) * (MIB // 256))
CODES: Final = ((1000, ""), (1001, "away"), (1011, ""), (3000, "registered"), (4999, "Käse" * 24 + "123"))
"""The last reason has 123 bytes, as many as there may be (RFC 6455 section 5.5)."""


@pytest.fixture(scope="module", params=WAYS)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with serving(tmp_path_factory.mktemp(request.param), request.param, "websocket_echo:app") as place:
        yield place


def run(body: Callable[[], Awaitable[None]]) -> None:
    """Run what a client does; nothing of it takes long."""

    async def bounded() -> None:
        loop: Any = asyncio.get_running_loop()
        await body()
        # Over TLS the clients leave the end of their connections to the loop; it keeps one socket for itself.
        while len(loop._selector.get_map()) > 1:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(bounded(), PATIENCE))


def closing(code: int, reason: str) -> str:
    """The path that makes the application close so."""
    return f"/close?code={code}&reason={quote(reason)}"


# websockets


@asynccontextmanager
async def opened(place: Place, path: str = "/", **options: Any) -> AsyncIterator[ClientConnection]:
    if place.way == "unix":
        options["sock"] = place.connect()
    async with websockets.connect(place.url(path), ssl=place.context, max_size=None, proxy=None, **options) as socket:
        yield socket


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_websockets_gets_back_what_it_sends(place: Place, compression: Literal["deflate"] | None) -> None:
    path = make_path()

    async def body() -> None:
        async with opened(place, path, compression=compression) as socket:
            assert socket.response is not None
            assert ("permessage-deflate" in socket.response.headers.get("Sec-WebSocket-Extensions", "")) is bool(
                compression
            )
            assert socket.response.headers["x-greeting"] == "welcome"
            for message in (*TEXTS, *BINARIES):
                await socket.send(message)
                assert await socket.recv() == message
            # Many under way at once come back in their order.
            count = 1000
            sending = asyncio.create_task(_send_all(socket, count))
            assert [await socket.recv() for _ in range(count)] == [str(number) for number in range(count)]
            await sending

    run(body)
    assert place.told(path) == (1000, "")
    record = place.access(path)
    expected = ("2", 200) if place.http_version == "2" else ("1.1", 101)
    assert (record["http_version"], record["http_status"], record["outcome"]) == (*expected, "complete")


async def _send_all(socket: ClientConnection, count: int) -> None:
    for number in range(count):
        await socket.send(str(number))


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_websockets_sends_fragments_and_pings_between_them(
    place: Place, compression: Literal["deflate"] | None
) -> None:
    async def body() -> None:
        async with opened(place, compression=compression) as socket:

            async def pieces() -> AsyncIterator[str]:
                for number in range(100):
                    yield f"Käse {number} " * 10
                    if number % 10 == 0:
                        await (await socket.ping())

            await socket.send(pieces())
            assert await socket.recv() == "".join(f"Käse {number} " * 10 for number in range(100))
            await socket.send([b"", b"one", b"", b"two", b""])
            assert await socket.recv() == b"onetwo"
            assert await (await socket.ping(b"x" * 125)) < PATIENCE

    run(body)


def test_websockets_closes_with_a_code_and_a_reason(place: Place) -> None:
    for code, reason in CODES:
        path = make_path()

        async def body(path: str = path, code: int = code, reason: str = reason) -> None:
            async with opened(place, path) as socket:
                await socket.close(code, reason)
                assert (socket.close_code, socket.close_reason) == (code, reason)

        run(body)
        assert place.told(path) == (code, reason)


def test_websockets_is_told_with_what_it_is_closed(place: Place) -> None:
    async def body() -> None:
        for code, reason in CODES:
            async with opened(place, closing(code, reason)) as socket:
                with pytest.raises(ConnectionClosed):
                    await socket.recv()
                assert (socket.close_code, socket.close_reason) == (code, reason)

    run(body)


def test_websockets_that_vanishes_is_told_as_1006(place: Place) -> None:
    path = make_path()

    async def body() -> None:
        async with opened(place, path) as socket:
            await socket.send("x")
            await socket.recv()
            socket.transport.abort()

    run(body)
    assert place.told(path) == (1006, "")


def test_websockets_agrees_on_a_subprotocol(place: Place) -> None:
    async def body() -> None:
        for offered in (["chat"], ["chat.v1", "chat.v2"]):
            async with opened(place, subprotocols=[websockets.Subprotocol(name) for name in offered]) as socket:
                assert socket.subprotocol == offered[-1]
        async with opened(place, "/tell?a=%C3%A4", subprotocols=[websockets.Subprotocol("chat")]) as socket:
            told = json.loads(await socket.recv())
        assert (told["type"], told["subprotocols"], told["path"]) == ("websocket", ["chat"], "/tell")
        assert told["scheme"] == ("wss" if place.way == "tls" else "ws")
        assert (told["http_version"], told["query"]) == (place.http_version, "a=%C3%A4")

    run(body)


def test_websockets_is_denied_in_the_applications_own_words(place: Place) -> None:
    async def body() -> None:
        with pytest.raises(InvalidStatus) as denied:
            async with opened(place, "/deny"):
                pass
        response = denied.value.response
        assert (response.status_code, response.headers["x-why"]) == (418, "short and stout")
        assert response.body == b"I am a teapot"
        with pytest.raises(InvalidStatus) as forbidden:
            async with opened(place, "/forbid"):
                pass
        assert forbidden.value.response.status_code == 403

    run(body)


# aiohttp


@pytest.fixture(scope="module", params=TCP_WAYS)
def reached(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with serving(tmp_path_factory.mktemp(request.param), request.param, "websocket_echo:app") as place:
        yield place


@asynccontextmanager
async def joined(place: Place, path: str = "/", **options: Any) -> AsyncIterator[ClientWebSocketResponse]:
    context: Any = place.context or False
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(place.url(path), ssl=context, max_msg_size=0, **options) as socket,
    ):
        yield socket


@pytest.mark.parametrize("window", [0, 9, 12, 15])
def test_aiohttp_gets_back_what_it_sends(reached: Place, window: int) -> None:
    path = make_path()

    async def body() -> None:
        async with joined(reached, path, compress=window) as socket:
            # It names the server's window, and leaves its own to the server.
            assert socket.compress == (12 if window else 0)
            for text in TEXTS:
                await socket.send_str(text)
                assert await socket.receive_str() == text
            for data in BINARIES:
                await socket.send_bytes(data)
                assert await socket.receive_bytes() == data

    run(body)
    assert reached.told(path) == (1000, "")


def test_aiohttp_pings_and_closes(reached: Place) -> None:
    paths = {make_path(): end for end in CODES}

    async def body() -> None:
        for path, (code, reason) in paths.items():
            async with joined(reached, path, autoping=False) as socket:
                await socket.ping(b"are you there")
                pong = await socket.receive()
                assert (pong.type, bytes(pong.data)) == (WSMsgType.PONG, b"are you there")
                await socket.close(code=code, message=reason.encode())
                assert socket.close_code == code
        for code, reason in CODES:
            async with joined(reached, closing(code, reason)) as socket:
                told = await socket.receive()
                assert (told.type, told.data, told.extra) == (WSMsgType.CLOSE, code, reason)

    run(body)
    assert {path: reached.told(path) for path in paths} == paths


def test_aiohttp_agrees_on_a_subprotocol_and_is_denied(reached: Place) -> None:
    async def body() -> None:
        async with joined(reached, protocols=("chat.v1", "chat.v2")) as socket:
            assert socket.protocol == "chat.v2"
        for path, status in (("/deny", 418), ("/forbid", 403)):
            with pytest.raises(aiohttp.WSServerHandshakeError) as denied:
                async with joined(reached, path):
                    pass
            assert denied.value.status == status
        assert denied.value.headers is not None

    run(body)


# picows


class Listener(picows.WSListener):
    """Puts frames into a queue: kind, payload, last fragment. A Close is the client's own to answer."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[tuple[picows.WSMsgType, bytes, bool]] = asyncio.Queue()

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type == picows.WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
            return
        self.frames.put_nowait((frame.msg_type, frame.get_payload_as_bytes(), frame.fin))


async def attach(place: Place, path: str = "/", **headers: str) -> tuple[picows.WSTransport, Listener]:
    transport, listener = await picows.ws_connect(
        Listener,
        place.url(path),
        ssl_context=place.context,
        extra_headers={name.replace("_", "-"): value for name, value in headers.items()},
    )
    assert isinstance(listener, Listener)
    return transport, listener


def test_picows_gets_back_what_it_sends(reached: Place) -> None:
    path = make_path()

    async def body() -> None:
        transport, listener = await attach(reached, path)
        for text in TEXTS:
            transport.send(picows.WSMsgType.TEXT, text.encode())
            assert await listener.frames.get() == (picows.WSMsgType.TEXT, text.encode(), True)
        for data in BINARIES:
            transport.send(picows.WSMsgType.BINARY, data)
            assert await listener.frames.get() == (picows.WSMsgType.BINARY, data, True)
        for number, piece in enumerate((b"one ", b"", b"two ", b"three")):
            kind = picows.WSMsgType.CONTINUATION if number else picows.WSMsgType.TEXT
            transport.send_ping(piece)
            transport.send(kind, piece, fin=number == 3)
            assert await listener.frames.get() == (picows.WSMsgType.PONG, piece, True)
        assert await listener.frames.get() == (picows.WSMsgType.TEXT, b"one two three", True)
        transport.send_close(picows.WSCloseCode.GOING_AWAY, b"bye")
        await transport.wait_disconnected()
        assert transport.close_handshake.recv is not None
        assert transport.close_handshake.recv.code == picows.WSCloseCode.GOING_AWAY

    run(body)
    assert reached.told(path) == (1001, "bye")


def test_picows_is_told_with_what_it_is_closed(reached: Place) -> None:
    async def body() -> None:
        for code in picows.WSCloseCode:
            if code in (picows.WSCloseCode.NO_INFO, picows.WSCloseCode.ABNORMAL_CLOSURE):
                continue  # never sent
            transport, _ = await attach(reached, closing(code.value, "why"))
            await transport.wait_disconnected()
            told = transport.close_handshake.recv
            assert told is not None
            assert (told.code, told.reason) == (code, "why")

    run(body)


def test_picows_agrees_on_a_subprotocol_and_is_denied(reached: Place) -> None:
    async def body() -> None:
        transport, _ = await attach(reached, sec_websocket_protocol="chat.v1, chat.v2")
        assert transport.response.headers["sec-websocket-protocol"] == "chat.v2"
        transport.disconnect(graceful=False)
        await transport.wait_disconnected()
        for path, status in (("/deny", 418), ("/forbid", 403)):
            with pytest.raises(picows.WSInvalidStatusError) as denied:
                await attach(reached, path)
            assert denied.value.response is not None
            assert denied.value.response.status == status

    run(body)
