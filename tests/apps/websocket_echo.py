"""A WebSocket application that sends back what it gets; other paths close, deny or tell.

How each WebSocket ended goes into the log, as the application has been told it.
"""

import json
import logging
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs

from appserver.asgi.types import Message, Receive, Scope, Send

LOG: Final = logging.getLogger("shop")


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


async def answer(receive: Receive, send: Send) -> None:
    """Plain HTTP."""
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """The application."""
    if scope["type"] == "http":
        await answer(receive, send)
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
    end = await echo(receive, send)
    LOG.info("disconnected", extra={"path": path, "close_code": end["code"], "close_reason": end["reason"]})
