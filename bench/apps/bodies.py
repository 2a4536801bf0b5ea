"""Bodies that are large, many or sent by the client."""

from typing import Final

from bench.apps.protocol import Receive, Scope, Send, live

MEDIUM: Final = bytes(range(256)) * 256
"""64 KiB."""
LARGE: Final = MEDIUM * 160
"""10 MiB."""
CHUNK: Final = MEDIUM[:1024]
CHUNKS: Final = 100

_WHOLE: Final = {"/medium": MEDIUM, "/large": LARGE}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """GET /medium and /large: one body message. GET /chunks: 100 of 1 KiB. POST /count: the length of what came."""
    if scope["type"] == "lifespan":
        await live(receive, send)
    elif scope["path"] == "/chunks":
        await _stream(send)
    elif scope["path"] == "/count":
        await _answer(send, str(await _count(receive)).encode())
    else:
        await _answer(send, _WHOLE[scope["path"]])


async def _answer(send: Send, body: bytes) -> None:
    headers = [(b"content-type", b"application/octet-stream"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _stream(send: Send) -> None:
    headers = [(b"content-type", b"application/octet-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for _ in range(CHUNKS):
        await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
    await send({"type": "http.response.body"})


async def _count(receive: Receive) -> int:
    count, more = 0, True
    while more:
        message = await receive()
        count += len(message.get("body", b""))
        more = message.get("more_body", False)
    return count
