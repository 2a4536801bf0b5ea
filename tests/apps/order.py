"""An ASGI application that tells when it was asked: how many requests were answered before, and while a body came."""

from itertools import count

from appserver.asgi.types import Receive, Scope, Send

NUMBERS = count()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    first = None
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        if not message["more_body"]:
            break
        if first is None:
            first = next(NUMBERS)
    number = next(NUMBERS)
    answer = b"%d" % number if first is None else b"%d %d" % (first, number)
    headers = [(b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})
