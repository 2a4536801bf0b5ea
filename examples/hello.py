"""The smallest useful application: what arrived, said back. `make serve` serves it."""

import json


async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    body = json.dumps(
        {
            "hello": "world",
            "method": scope["method"],
            "path": scope["path"],
            "request_id": scope["state"]["request_id"],
        },
        indent=2,
    )
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", b"application/json")],
        }
    )
    await send({"type": "http.response.body", "body": body.encode() + b"\n"})
