"""Tells the names of the variables that it was started with."""

import os

from behaviour import answer_json

from appserver.asgi.types import Receive, Scope, Send

NAMES = sorted(os.environ)


async def app(scope: Scope, _receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    await answer_json(send, NAMES)
