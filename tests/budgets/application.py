"""The application behind every budget: it does as little as it can, so that what is counted is the server."""

from typing import Final

from appserver.asgi.types import Receive, Scope, Send

HELLO: Final = b"Hello, world!\n"
PIECE: Final = b"x" * 1024
PIECES: Final = 10

_START: Final = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(HELLO))],
}
_STREAM: Final = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """`/stream` answers in pieces, all else with a greeting once its body is whole, and a WebSocket with an echo."""
    if scope["type"] == "websocket":
        await _echo(receive, send)
        return
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    if scope["path"] == "/stream":
        await send(_STREAM)
        for _ in range(PIECES):
            await send({"type": "http.response.body", "body": PIECE, "more_body": True})
        await send({"type": "http.response.body"})
        return
    if scope["method"] == "POST":
        while (await receive())["more_body"]:
            pass
    await send(_START)
    await send({"type": "http.response.body", "body": HELLO})


async def _echo(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})
