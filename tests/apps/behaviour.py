"""An ASGI application that behaves as its path says: well, slowly, or badly."""

import asyncio
import hashlib
import json
import logging
import os
import sys
import threading
import time
import warnings
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qs

from appserver.asgi.types import Receive, Scope, Send

Handler: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

LOG: Final = logging.getLogger("shop")
BLOCK: Final = 1024 * 1024
LEFT: Final[set[asyncio.Task[None]]] = set()
_SEED: Final = bytes(range(256)) * (BLOCK // 256)


def blocks(count: int) -> Iterator[bytes]:
    """Blocks of 1 MiB, each unlike the others, so that none can be lost, doubled or moved unseen."""
    return (number.to_bytes(8) + _SEED[8:] for number in range(count))


async def answer(send: Send, body: bytes, kind: bytes = b"text/plain", status: int = 200) -> None:
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def answer_json(send: Send, told: Any) -> None:
    await answer(send, json.dumps(told).encode(), b"application/json")


def number(scope: Scope, name: str, default: float = 0.0) -> float:
    found = parse_qs(scope["query_string"].decode()).get(name)
    return float(found[0]) if found else default


async def hello(_scope: Scope, _receive: Receive, send: Send) -> None:
    await answer(send, b"hello")


async def whoami(_scope: Scope, _receive: Receive, send: Send) -> None:
    await answer_json(send, {"pid": os.getpid(), "uid": os.getuid()})


async def tell(scope: Scope, _receive: Receive, send: Send) -> None:
    keys = ("client", "server", "scheme", "path", "root_path", "http_version", "state", "extensions")
    told = {key: scope[key] for key in keys}
    told["query"] = scope["query_string"].decode("latin-1")
    told["headers"] = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    told["environment"] = {name: value for name, value in os.environ.items() if name.startswith("SHOP_")}
    await answer_json(send, told)


async def wait(scope: Scope, _receive: Receive, send: Send) -> None:
    LOG.warning("begun")
    await asyncio.sleep(number(scope, "seconds"))
    await answer(send, b"waited")


async def attend(_scope: Scope, receive: Receive, send: Send) -> None:
    """Answers as soon as the client has sent all of its request: whenever it wants to be answered."""
    LOG.warning("begun")
    while (await receive()).get("more_body"):
        pass
    await answer(send, b"waited")


async def stream(scope: Scope, _receive: Receive, send: Send) -> None:
    """Begins its answer, and ends it after a while."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"first", "more_body": True})
    LOG.warning("begun")
    await asyncio.sleep(number(scope, "seconds"))
    await send({"type": "http.response.body", "body": b" last"})


async def ignore_cancellation(scope: Scope, _receive: Receive, send: Send) -> None:
    LOG.warning("begun")
    end = time.monotonic() + number(scope, "seconds")
    while time.monotonic() < end:
        try:
            await asyncio.sleep(end - time.monotonic())
        except asyncio.CancelledError:
            LOG.warning("not now")
    await answer(send, b"at last")


async def block(scope: Scope, _receive: Receive, send: Send) -> None:
    """Keeps the event loop for itself."""
    LOG.warning("begun")
    time.sleep(number(scope, "seconds"))  # noqa: ASYNC251 - the mistake that is tested
    await answer_json(send, {"pid": os.getpid(), "uid": os.getuid()})


async def leave(_scope: Scope, _receive: Receive, _send: Send) -> None:
    sys.exit(7)


async def fail(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise RuntimeError("no \x1b[31mdatabase\nat all")


async def start_thread(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Leaves a thread behind that never ends and that the interpreter waits for."""
    threading.Thread(target=threading.Event().wait).start()
    await answer(send, b"started")


async def leave_behind(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Leaves tasks behind that end with sys.exit() when they are cancelled, and one that goes on for a moment."""

    async def stay(code: int) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if code:
                sys.exit(code)
            await asyncio.sleep(0.1)
            LOG.warning("put away")

    LEFT.update(asyncio.create_task(stay(code)) for code in (7, 8, 0))
    await answer(send, b"started")


async def log(scope: Scope, _receive: Receive, send: Send) -> None:
    """Logs what it is asked to, in several of the ways that applications have."""
    text = scope["query_string"].decode("latin-1")
    LOG.info("said %s", text, extra={"basket": 7, "message_id": "forged"})
    LOG.warning("line one\nline two \x1b[31mred\x9b\u2028")
    await asyncio.to_thread(LOG.info, "from a thread")
    warnings.warn("old", stacklevel=1)
    baskets: dict[str, int] = {}
    try:
        LOG.info("there are %d", baskets["basket"])
    except KeyError:
        LOG.exception("caught")
    await answer(send, b"logged")


async def upload(_scope: Scope, receive: Receive, send: Send) -> None:
    count, digest, more = 0, hashlib.sha256(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            LOG.warning("disconnected")
            return
        body = message["body"]
        count += len(body)
        digest.update(body)
        more = message["more_body"]
    await answer_json(send, {"count": count, "sha256": digest.hexdigest()})


async def download(scope: Scope, _receive: Receive, send: Send) -> None:
    count = int(number(scope, "blocks"))
    headers = [(b"content-length", b"%d" % (count * BLOCK))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for data in blocks(count):
        for begin in range(0, BLOCK, BLOCK // 16):
            body = data[begin : begin + BLOCK // 16]
            await send({"type": "http.response.body", "body": body, "more_body": True})
    await send({"type": "http.response.body"})


async def repeat(scope: Scope, _receive: Receive, send: Send) -> None:
    """The same 64 KiB again and again: whatever is held, the application does not hold it."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    piece = _SEED[: BLOCK // 16]
    for _ in range(16 * int(number(scope, "blocks"))):
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body"})


HANDLERS: Final[dict[str, Handler]] = {
    "/": hello,
    "/whoami": whoami,
    "/scope": tell,
    "/wait": wait,
    "/attend": attend,
    "/stream": stream,
    "/ignore-cancellation": ignore_cancellation,
    "/block": block,
    "/exit": leave,
    "/fail": fail,
    "/thread": start_thread,
    "/leave-behind": leave_behind,
    "/log": log,
    "/upload": upload,
    "/download": download,
    "/repeat": repeat,
}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """The application: without lifespan, as the specification allows."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    handler = HANDLERS.get(scope["path"])
    if handler is None:
        await answer(send, f"no {scope['path']}".encode(), status=404)
    else:
        await handler(scope, receive, send)
