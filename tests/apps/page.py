"""A page for a browser, with a hundred resources, that reports by itself what came of them.

`/` asks for them all, then uploads, gives a download up, and posts what the browser has measured to `/report`, from
where it goes into the log. `/?hinted` announces one of them by an early hint, well before the page.
"""

import asyncio
import hashlib
import json
import logging
from contextlib import suppress
from typing import Any, Final

from appserver.asgi.types import Receive, Scope, Send

LOG: Final = logging.getLogger("shop")
CONNECTIONS: Final[set[tuple[str, int]]] = set()
"""Those that the page and its resources were asked for on, by their other ends."""
COUNT: Final = 100
SLOW: Final = 0
"""The resource that is answered `SLOW_SECONDS` behind all others, or after `LONG_SECONDS` if they do not come."""
SLOW_SECONDS: Final = 0.5
LONG_SECONDS: Final = 15
ANSWERED: Final[set[str]] = set()
"""The others of one page."""
UPLOAD: Final = 5_000_000
ENDLESS_PIECE: Final = bytes(64 * 1024)

SVG: Final = '<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><circle r="4"/></svg>'
KINDS: Final = {
    "svg": ('<img src="/resource/{}.svg" alt="">', "image/svg+xml", SVG),
    "css": ('<link rel="stylesheet" href="/resource/{}.css">', "text/css", "p { color: black }"),
    "js": (
        '<script src="/resource/{}.js" defer></script>',
        "text/javascript",
        "window.loaded = (window.loaded || 0) + 1;",
    ),
}
NAMES: Final = tuple(KINDS)

SCRIPT: Final = """
async function upload() {
    const answer = await fetch("/upload", {method: "POST", body: new Uint8Array(UPLOAD).fill(7)});
    return await answer.json();
}

async function giveUp() {
    const controller = new AbortController();
    const answer = await fetch("/endless", {signal: controller.signal});
    const reader = answer.body.getReader();
    let count = 0;
    while (count < 300000) count += (await reader.read()).value.length;
    controller.abort();
    try { await reader.read(); } catch (error) { return error.name; }
}

addEventListener("load", async () => {
    const describe = entry => ({
        name: new URL(entry.name).pathname, protocol: entry.nextHopProtocol, status: entry.responseStatus,
        start: entry.startTime, end: entry.responseEnd, initiator: entry.initiatorType,
        interim: entry.firstInterimResponseStart,
    });
    const report = {
        navigation: performance.getEntriesByType("navigation").map(describe)[0],
        resources: performance.getEntriesByType("resource").map(describe),
        upload: await upload(),
        given_up: await giveUp(),
    };
    await fetch("/report", {method: "POST", body: JSON.stringify(report)});
});
""".replace("UPLOAD", str(UPLOAD))


def kind_of(number: int) -> str:
    return NAMES[number % len(NAMES)]


def make_page() -> bytes:
    tags = "\n".join(KINDS[kind_of(number)][0].format(number) for number in range(COUNT))
    return f"<!doctype html>\n<title>page</title>\n<script>{SCRIPT}</script>\n{tags}\n".encode()


async def answer(send: Send, body: bytes, kind: str) -> None:
    headers = [
        (b"content-type", kind.encode()),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"max-age=60"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def all_others() -> None:
    """Wait until they are answered, and a little longer."""
    with suppress(TimeoutError):
        async with asyncio.timeout(LONG_SECONDS):
            while len(ANSWERED) < COUNT - 1:
                await asyncio.sleep(0.01)
    ANSWERED.clear()
    await asyncio.sleep(SLOW_SECONDS)


async def read(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def stream(send: Send) -> None:
    """Without an end; the client gives up."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": ENDLESS_PIECE, "more_body": True})


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """The application."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    path = scope["path"]
    CONNECTIONS.add(tuple(scope["client"]))
    if path == "/":
        if scope["query_string"] == b"hinted":
            await send({"type": "http.response.early_hint", "links": [b"</resource/1.css>; rel=preload; as=style"]})
            await asyncio.sleep(SLOW_SECONDS)
        await answer(send, make_page(), "text/html")
    elif path.startswith("/resource/"):
        name, _, kind = path.removeprefix("/resource/").partition(".")
        if int(name) == SLOW:
            await all_others()
        await answer(send, KINDS[kind][2].encode(), KINDS[kind][1])
        if int(name) != SLOW:
            ANSWERED.add(name)
    elif path == "/upload":
        body = await read(receive)
        told = {"count": len(body), "sha256": hashlib.sha256(body).hexdigest()}
        await answer(send, json.dumps(told).encode(), "application/json")
    elif path == "/endless":
        await stream(send)
    elif path == "/report":
        report: dict[str, Any] = json.loads(await read(receive))
        told = {"pushes": "http.response.push" in scope["extensions"], "connections": len(CONNECTIONS)}
        CONNECTIONS.clear()
        LOG.info("reported", extra={"report": json.dumps(report | told)})
        await answer(send, b"", "text/plain")
    else:
        await answer(send, b"", "image/x-icon")
