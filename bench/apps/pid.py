"""An application that tells which process answers."""

import os

from bench.apps.protocol import Receive, Scope, Send, live


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the number of the process, in 7 bytes."""
    if scope["type"] == "lifespan":
        await live(receive, send)
        return
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"7")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"%7d" % os.getpid()})
