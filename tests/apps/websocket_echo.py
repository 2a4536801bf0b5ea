"""A WebSocket application that sends back what it gets; other paths close, deny or tell.

How each WebSocket ended goes into the log, as the application has been told it. `/page` is for a browser: it does all
of that, and posts what came of it to `/report`, from where it goes into the log.
"""

import json
import logging
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs

from appserver.asgi.types import Message, Receive, Scope, Send

LOG: Final = logging.getLogger("shop")

PAGE: Final = """<!doctype html>
<title>page</title>
<script>
const base = location.origin.replace("http", "ws");

function follow(socket) {
    socket.binaryType = "arraybuffer";
    const waiting = [], came = [];
    socket.onmessage = event => waiting.length ? waiting.shift()(event.data) : came.push(event.data);
    socket.opened = new Promise((resolve, reject) => { socket.onopen = resolve; socket.onerror = reject; });
    socket.closed = new Promise(resolve => {
        socket.onclose = event => resolve([event.code, event.reason, event.wasClean]);
    });
    socket.next = () => came.length ? Promise.resolve(came.shift()) : new Promise(resolve => waiting.push(resolve));
    return socket;
}

const open = (path, ...more) => follow(new WebSocket(base + path, ...more));

const same = (one, other) => typeof one === "string" ? one === other
    : one.byteLength === other.byteLength && new Uint8Array(one).every((byte, place) => byte === other[place]);

async function talk() {
    const socket = open("/echo/browser", ["chat.v1", "chat.v2"]);
    await socket.opened;
    const binary = new Uint8Array(1 << 20).map((_, place) => place * 7);
    const messages = ["", "Käse 🧀", "ab".repeat(1 << 19), new Uint8Array(0), binary];
    let echoed = 0;
    for (const message of messages) {
        socket.send(message);
        echoed += same(await socket.next(), message);
    }
    socket.send(new Blob(["blob"]));
    echoed += same(await socket.next(), new TextEncoder().encode("blob"));
    const {protocol, extensions} = socket;
    socket.close(4001, "Käse");
    return {protocol, extensions, echoed, closed: await socket.closed};
}

async function crowd() {
    const sockets = Array.from({length: 50}, (_, number) => open("/echo/crowd/" + number));
    const answers = sockets.map(async (socket, number) => {
        await socket.opened;
        socket.send("number " + number);
        return await socket.next() === "number " + number;
    });
    const right = (await Promise.all(answers)).filter(Boolean).length;
    sockets.forEach(socket => socket.close());
    const ends = await Promise.all(sockets.map(socket => socket.closed));
    return {right, clean: ends.filter(([code, , clean]) => code === 1005 && clean).length};
}

async function leave() {
    const frame = document.body.appendChild(document.createElement("iframe"));
    const socket = follow(new frame.contentWindow.WebSocket(base + "/echo/left"));
    await socket.opened;
    frame.remove();
}

async function fail(path) {
    const socket = open(path);
    const opened = await socket.opened.then(() => true, () => false);
    return [opened, ...await socket.closed];
}

addEventListener("load", async () => {
    const telling = open("/tell");
    const report = {
        page: await (await fetch("/client")).json(),
        protocol: performance.getEntriesByType("navigation")[0].nextHopProtocol,
        told: JSON.parse(await telling.next()),
        talked: await talk(),
        crowd: await crowd(),
        closed: await open("/close?code=4002&reason=K%C3%A4se").closed,
        restarted: await open("/close?code=1012").closed,
        denied: await fail("/deny"),
        failed: await fail("/fail"),
    };
    await leave();
    await fetch("/report", {method: "POST", body: JSON.stringify(report)});
});
</script>
"""


async def echo(receive: Receive, send: Send) -> Message:
    """Send everything back until the end, which is returned."""
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return message
        if message.get("text") is not None:
            await send({"type": "websocket.send", "text": message["text"]})
        else:
            await send({"type": "websocket.send", "bytes": message["bytes"]})


async def sink(receive: Receive) -> Message:
    """Take everything until the end, which is returned."""
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return message


def tell(scope: Scope) -> str:
    """What the application knows of its client, in JSON."""
    keys = ("type", "client", "scheme", "path", "root_path", "http_version", "subprotocols", "state")
    told: dict[str, Any] = {key: scope[key] for key in keys}
    told["query"] = scope["query_string"].decode("latin-1")
    told["headers"] = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    return json.dumps(told)


async def deny(send: Send) -> None:
    """Answer the handshake in the application's own words."""
    headers = [(b"content-type", b"text/plain"), (b"x-why", b"short and stout")]
    await send({"type": "websocket.http.response.start", "status": 418, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": b"I am ", "more_body": True})
    await send({"type": "websocket.http.response.body", "body": b"a teapot"})


def closing(query: Mapping[str, list[str]]) -> Message:
    """The Close that the client has asked for."""
    return {"type": "websocket.close", "code": int(query["code"][0]), "reason": query.get("reason", [""])[0]}


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Plain HTTP."""
    request, more = b"", True
    while more:
        message = await receive()
        request += message.get("body", b"")
        more = message.get("more_body", False)
    kind, body = "text/plain", "hello"
    if scope["path"] == "/page":
        kind, body = "text/html; charset=utf-8", PAGE
    elif scope["path"] == "/client":
        kind, body = "application/json", json.dumps(scope["client"])
    elif scope["path"] == "/report":
        LOG.info("reported", extra={"report": request.decode()})
    data = body.encode()
    headers = [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(data))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": data})


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """The application."""
    if scope["type"] == "http":
        await answer(scope, receive, send)
        return
    if scope["type"] != "websocket":
        raise NotImplementedError(scope["type"])
    path = scope["path"]
    assert (await receive())["type"] == "websocket.connect"
    if path == "/deny":
        await deny(send)
        return
    if path == "/forbid":
        await send({"type": "websocket.close"})
        return
    offered = scope["subprotocols"]
    # The last one, so that it shows who has chosen.
    subprotocol = offered[-1] if offered else None
    await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": [(b"x-greeting", b"welcome")]})
    if path == "/close":
        await send(closing(parse_qs(scope["query_string"].decode())))
    elif path == "/tell":
        await send({"type": "websocket.send", "text": tell(scope)})
    elif path == "/fail":
        raise RuntimeError("no database")
    end = await (sink(receive) if path == "/sink" else echo(receive, send))
    LOG.info("disconnected", extra={"path": path, "close_code": end["code"], "close_reason": end["reason"]})
