"""An application that sends files by the server's own means, as its query says."""

import os
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qsl

from appserver.asgi.types import Receive, Scope, Send


def read(path: str) -> bytes:
    return Path(path).read_bytes()


def open_file(path: str) -> BinaryIO:
    return Path(path).open("rb")


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """`/path?file=…` by path, `/descriptor?file=…` by descriptor, `/message?file=…` by one body message.

    `length=` is declared, `offset=` and `count=` go into the message, and `around=` is a body message before and
    behind it. `/pid` answers with the process's number and `/descriptors` with how many it has open.
    """
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    query = dict(parse_qsl(scope["query_string"].decode()))
    if scope["path"] in ("/pid", "/descriptors"):
        number = os.getpid() if scope["path"] == "/pid" else len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"%d" % number})
        return
    headers = [(b"content-type", b"application/octet-stream")]
    if "length" in query:
        headers.append((b"content-length", query["length"].encode()))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    around = query.get("around", "").encode()
    if around:
        await send({"type": "http.response.body", "body": around, "more_body": True})
    if scope["path"] == "/path":
        await send({"type": "http.response.pathsend", "path": query["file"]})
    elif scope["path"] == "/message":
        await send({"type": "http.response.body", "body": read(query["file"])})
    else:
        numbers: dict[str, Any] = {name: int(query[name]) for name in ("offset", "count") if name in query}
        with open_file(query["file"]) as file:
            await send({"type": "http.response.zerocopysend", "file": file, "more_body": bool(around), **numbers})
    if around:
        await send({"type": "http.response.body", "body": around})
