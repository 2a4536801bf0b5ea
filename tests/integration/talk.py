"""Talk to tests/apps/websocket_echo.py over WebSockets, as a program, and print what came of it.

    python talk.py URL          echoes, closings and denials, all checked; what the application knows of the client
    python talk.py until URL    one WebSocket until it is closed: says `open`, then code and reason

Runs inside of namespaces, where a test's own process is not.
"""

import asyncio
import json
import sys
from typing import Any

import websockets
from websockets.exceptions import ConnectionClosed, InvalidStatus

MIB = 1024 * 1024
MESSAGES = ("", "Käse", b"\0", "ab" * (MIB // 2), bytes(range(256)) * (MIB // 256))
CODES = ((1000, ""), (1001, "away"), (4999, "Käse"))


async def talk(url: str) -> dict[str, Any]:
    """All of it."""
    for compression in (None, "deflate"):
        async with websockets.connect(url, compression=compression, max_size=None, proxy=None) as socket:
            for message in MESSAGES:
                await socket.send(message)
                assert await socket.recv() == message
            await socket.send([b"one", b"two"])
            assert await socket.recv() == b"onetwo"
            await (await socket.ping())
    for code, reason in CODES:
        async with websockets.connect(f"{url}/close?code={code}&reason={reason}", proxy=None) as socket:
            assert await closed(socket) == [code, reason]
        async with websockets.connect(f"{url}/echo/{code}", proxy=None) as socket:
            await socket.close(code, reason)
            assert (socket.close_code, socket.close_reason) == (code, reason)
    protocols = [websockets.Subprotocol("chat.v1"), websockets.Subprotocol("chat.v2")]
    async with websockets.connect(f"{url}/tell", subprotocols=protocols, proxy=None) as socket:
        assert socket.subprotocol == "chat.v2"
        told: dict[str, Any] = json.loads(await socket.recv())
    try:
        async with websockets.connect(f"{url}/deny", proxy=None):
            raise AssertionError("not denied")
    except InvalidStatus as denied:
        response = denied.response
        told["denied"] = [response.status_code, response.headers["x-why"], (response.body or b"").decode()]
    return told


async def wait(url: str) -> list[Any]:
    """One WebSocket until the server closes it."""
    async with websockets.connect(url, proxy=None) as socket:
        print("open", flush=True)
        return await closed(socket)


async def closed(socket: websockets.ClientConnection) -> list[Any]:
    try:
        await socket.recv()
    except ConnectionClosed:
        return [socket.close_code, socket.close_reason]
    raise AssertionError("a message, where a Close was to come")


if __name__ == "__main__":
    print(json.dumps(asyncio.run(wait(sys.argv[2]) if sys.argv[1] == "until" else talk(sys.argv[1]))))
