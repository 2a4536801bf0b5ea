"""An ASGI application that keeps the event loop for itself."""

import time
from urllib.parse import parse_qs

from appserver.asgi.types import Receive, Scope, Send


def sleep(seconds: float) -> None:
    time.sleep(seconds)  # the line that is to be named


async def app(scope: Scope, _receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        raise NotImplementedError
    if scope["path"] == "/sleep":
        sleep(float(parse_qs(scope["query_string"].decode())["seconds"][0]))
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"done"})
