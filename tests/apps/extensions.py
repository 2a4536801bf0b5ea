"""An application that uses the extensions of ASGI, as its path says."""

import asyncio
import hashlib
from typing import Any, Final
from urllib.parse import parse_qsl

from appserver.asgi.types import Receive, Scope, Send

START: Final[dict[str, Any]] = {"type": "http.response.start", "status": 200, "headers": []}
PIECE: Final = bytes(range(256)) * 16
RELEASED: Final[list[asyncio.Event]] = []


async def summed(query: dict[str, str], send: Send) -> None:
    """`pieces` of 4 KiB, and their SHA-256 as a trailer; or a `file`, whose it is."""
    await send({**START, "headers": [(b"trailer", b"x-sha256")], "trailers": True})
    if "file" in query:
        await send({"type": "http.response.pathsend", "path": query["file"]})
        digest = query["sum"]
    else:
        count = int(query["pieces"])
        for _ in range(count):
            await send({"type": "http.response.body", "body": PIECE, "more_body": True})
        await send({"type": "http.response.body"})
        digest = hashlib.sha256(PIECE * count).hexdigest()
    await send({"type": "http.response.trailers", "headers": [(b"x-sha256", digest.encode())]})


async def broken(send: Send) -> None:
    """Keeps the trailers that it has announced to itself."""
    await send({**START, "trailers": True})
    await send({"type": "http.response.body", "body": b"whole"})


async def hinted(send: Send) -> None:
    """A hint, and the answer when another request has asked for `/release`."""
    released = asyncio.Event()
    RELEASED.append(released)
    await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload", b"</b.css>; rel=preload"]})
    await released.wait()
    await send(START)
    await send({"type": "http.response.body", "body": b"hinted"})


async def promising(send: Send) -> None:
    """Promises `/promised?by=push`."""
    await send(START)
    await send({"type": "http.response.push", "path": "/promised?by=push", "headers": [(b"x-promise", b"kept")]})
    await send({"type": "http.response.body", "body": b"promising"})


async def answer(send: Send, body: str) -> None:
    await send(START)
    await send({"type": "http.response.body", "body": body.encode()})


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    query = dict(parse_qsl(scope["query_string"].decode()))
    path = scope["path"]
    if path == "/summed":
        await summed(query, send)
    elif path == "/broken":
        await broken(send)
    elif path == "/hinted":
        await hinted(send)
    elif path == "/release":
        RELEASED.pop().set()
        await answer(send, "released")
    elif path == "/promising":
        await promising(send)
    elif path == "/promised":
        await answer(send, f"{query['by']} {dict(scope['headers'])[b'x-promise'].decode()}")
    else:
        await answer(send, " ".join(sorted(scope["extensions"])))
