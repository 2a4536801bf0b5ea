"""The smallest application: what is measured with it is the server."""

from bench.apps.protocol import Receive, Scope, Send, live

BODY = b"Hello, world!"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with 13 bytes."""
    if scope["type"] == "lifespan":
        await live(receive, send)
        return
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", b"text/plain"), (b"content-length", b"13")],
        }
    )
    await send({"type": "http.response.body", "body": BODY})
