"""Starlette, FastAPI, Django Channels and Socket.IO, as their users write them."""

import asyncio
import json
import shutil
import signal
import subprocess
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import pytest
import websockets
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.integration.servers import PATIENCE, ROOT, SCRIPTS, Server, Starter, clean_environment

NODE_FOLDER: Final = SCRIPTS.parent / "node"
"""With Socket.IO's client: tools/setup."""
ORIGIN: Final = "https://shop.example"
SOCKETIO: Final = ROOT / "tests" / "integration" / "socketio_client.mjs"


def run(body: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(body(), PATIENCE)

    asyncio.run(bounded())


def connect(server: Server, path: str, *protocols: str, **headers: str) -> websockets.connect:
    return websockets.connect(
        server.url.replace("http", "ws", 1) + path,
        subprotocols=[websockets.Subprotocol(name) for name in protocols] or None,
        additional_headers=headers,
        proxy=None,
    )


async def refusal(connecting: websockets.connect) -> tuple[int, bytes]:
    """Status and body of the answer to a handshake that is refused."""
    with pytest.raises(InvalidStatus) as refused:
        await connecting
    return refused.value.response.status_code, bytes(refused.value.response.body or b"")


async def end(socket: websockets.ClientConnection) -> tuple[int | None, str | None]:
    with pytest.raises(ConnectionClosed):
        await socket.recv()
    return socket.close_code, socket.close_reason


# Starlette


def test_starlette_counts_and_echoes(serve: Starter) -> None:
    server = serve("websocket_starlette:app")

    async def body() -> None:
        async with connect(server, "/count", "xml", "json") as socket:
            assert socket.response is not None
            assert (socket.subprotocol, socket.response.headers["set-cookie"]) == ("json", "basket=7")
            await socket.send('{"a": 1, "b": 2}')
            assert json.loads(await socket.recv()) == {"sum": 3, "pool": "filled"}
            await socket.close(4000)
        async with connect(server, "/echo") as socket:
            await socket.send(b"\0" * 100_000)
            assert await socket.recv() == b"\0" * 100_000
            await socket.close(4001, "Käse")

    run(body)
    server.record(message="gone", path="/count", close_code=4000)
    server.record(message="gone", path="/echo", close_code=4001, close_reason="Käse")


def test_starlette_refuses(serve: Starter) -> None:
    server = serve("websocket_starlette:app")

    async def body() -> None:
        assert await refusal(connect(server, "/deny")) == (401, b'{"why":"no ticket"}')
        assert await refusal(connect(server, "/missing")) == (404, b"no such room")
        assert (await refusal(connect(server, "/nowhere")))[0] in (403, 404)
        async with connect(server, "/policy") as socket:
            assert await end(socket) == (1008, "no shouting")

    run(body)


# FastAPI


def test_fastapi_has_rooms(serve: Starter) -> None:
    server = serve("websocket_fastapi:app")

    async def body() -> None:
        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(connect(server, "/rooms/a?name=ann", ticket="1"))
            assert await first.recv() == "ann came with 1"
            second = await stack.enter_async_context(connect(server, "/rooms/a?name=bob", ticket="2"))
            other = await stack.enter_async_context(connect(server, "/rooms/b?name=eve", ticket="3"))
            assert [await first.recv(), await second.recv()] == ["bob came with 2"] * 2
            assert await other.recv() == "eve came with 3"
            await second.send("Käse")
            assert [await first.recv(), await second.recv()] == ["bob: Käse"] * 2
            second.transport.abort()
            assert await first.recv() == "bob left"
            await first.send("alone")
            assert await first.recv() == "ann: alone"
            await other.close()

    run(body)


def test_fastapi_refuses_and_fails(serve: Starter) -> None:
    server = serve("websocket_fastapi:app", tracebacks=True)

    async def body() -> None:
        assert (await refusal(connect(server, "/rooms/a?name=ann")))[0] == 403  # no ticket
        assert (await refusal(connect(server, "/rooms/a?name=christopher", ticket="1")))[0] == 403
        async with connect(server, "/fail") as socket:
            await socket.send("now")
            assert (await end(socket))[0] == 1011

    run(body)
    assert any("RuntimeError: no database" in record.get("traceback", "") for record in server.records)


# Django Channels


def test_channels_has_groups_and_threads(serve: Starter) -> None:
    server = serve("websocket_channels:app")

    async def body() -> None:
        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(connect(server, "/rooms/a", "chat", Origin=ORIGIN))
            second = await stack.enter_async_context(connect(server, "/rooms/a", Origin=ORIGIN))
            other = await stack.enter_async_context(connect(server, "/rooms/b", Origin=ORIGIN))
            assert (first.subprotocol, second.subprotocol) == ("chat", None)
            await second.send('{"text": "Käse"}')
            for socket in (first, second):
                assert json.loads(await socket.recv()) == {"text": "Käse"}
            await other.send('"close"')
            assert await end(other) == (4003, "asked for")
            await first.close(4001)
        async with connect(server, "/threaded", Origin=ORIGIN) as socket:
            for message in ("Käse", b"\0" * 100_000):
                await socket.send(message)
                assert await socket.recv() == message

    run(body)
    assert server.get("/") == (200, b"hello")
    server.record(message="gone", path="/rooms/a", close_code=4001)
    server.record(message="gone", path="/rooms/b", close_code=4003)


def test_channels_refuses(serve: Starter) -> None:
    server = serve("websocket_channels:app")

    async def body() -> None:
        assert (await refusal(connect(server, "/closed", Origin=ORIGIN)))[0] == 403
        assert (await refusal(connect(server, "/threaded")))[0] == 403
        assert (await refusal(connect(server, "/threaded", Origin="https://evil.example")))[0] == 403

    run(body)


# Socket.IO


def test_socketio_and_its_own_client(serve: Starter, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None or not (NODE_FOLDER / "node_modules" / "socket.io-client").is_dir():
        pytest.skip("needs node, and socket.io-client of npm in .venv/node")
    server = serve("websocket_socketio:app")
    with subprocess.Popen(
        [node, SOCKETIO, NODE_FOLDER, server.url],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=clean_environment(HOME=str(tmp_path)),
        text=True,
    ) as client:
        try:
            assert client.stdout is not None
            report: dict[str, Any] = json.loads(client.stdout.readline())
            for room in ("websocket", "polling+websocket"):
                told = report[room]
                server.record(message="gone", reason="client disconnect")
                assert (told["echoed"], told["joined"]) == (3, ["websocket", "websocket"])
                assert told["said"] == [[room, "hello"]] * 2
                assert (told["stayed"], told["expelled"]) == (True, "io server disconnect")
            assert report["refused"] == "no ticket"
            server.send_signal(signal.SIGTERM)
            assert json.loads(client.stdout.readline())[0] == "transport close"
            assert client.wait(PATIENCE) == 0
        finally:
            client.kill()
    assert server.wait() == 0
    reasons = {record["reason"] for record in server.records if record["message"] == "gone"}
    assert {"client disconnect", "server disconnect"} <= reasons
    upgraded = [record for record in server.records if record.get("http_status") == 101]
    assert len(upgraded) == 6
