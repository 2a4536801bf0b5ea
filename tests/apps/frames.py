"""The application behind tests/conformance: it does as its path says, or tells what it was asked, like `echo`.

Bytes stand in what it tells as Latin-1. tests/conformance/http2/memory.py does the same without a server.
"""

import json
from collections.abc import Sequence
from typing import Final

from appserver.asgi.types import Receive, Scope, Send

HINT: Final = b"</style.css>; rel=preload"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    path = scope["path"]
    if path == "/early":
        await answer(send, b"early")
        return
    if path == "/begun":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
    body = await read(receive)
    if body is None or path in ("/hold", "/begun"):
        while body is not None:
            body = await read(receive)
    elif path == "/bytes":
        await answer(send, bytes(int(scope["query_string"])))
    elif path == "/count":
        await answer(send, b"%d" % len(body))
    elif path == "/trailers":
        fields = [(b"trailer", b"x-sum")]
        await send({"type": "http.response.start", "status": 200, "headers": fields, "trailers": True})
        await send({"type": "http.response.body", "body": b"body"})
        await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"4")]})
    elif path == "/hints":
        await send({"type": "http.response.early_hint", "links": [HINT]})
        await answer(send, b"hinted")
    elif path == "/push":
        if "http.response.push" in scope["extensions"]:
            await send({"type": "http.response.push", "path": "/pushed", "headers": [(b"accept", b"*/*")]})
        await answer(send, b"pushing")
    else:
        told = tell(scope, body)
        sent = b"" if scope["method"] == "HEAD" else told
        await answer(send, sent, [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(told))])


async def read(receive: Receive) -> bytes | None:
    """The whole body, or what is left of it; None once the client has gone."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message["body"]
        more = message["more_body"]
    return body


def tell(scope: Scope, body: bytes) -> bytes:
    """What the application tells of a request."""
    told = {
        "method": scope["method"],
        "path": scope["raw_path"].decode("latin-1"),
        "query": scope["query_string"].decode("latin-1"),
        "version": scope["http_version"],
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]],
        "body": body.decode("latin-1"),
    }
    return json.dumps(told).encode()


async def answer(send: Send, body: bytes, fields: Sequence[tuple[bytes, bytes]] | None = None) -> None:
    """A whole response."""
    headers = [(b"content-length", b"%d" % len(body))] if fields is None else fields
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
