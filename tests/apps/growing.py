"""An ASGI application that takes memory when it is asked to, and tells which variables of memory pressure it sees."""

import os
from typing import TYPE_CHECKING

from appserver.asgi.types import Receive, Scope, Send

if TYPE_CHECKING:
    from tests.apps.behaviour import answer_json, number
else:
    from behaviour import answer_json, number  # as it is found with --app-dir

KEPT: list[bytearray] = []


async def app(scope: Scope, _receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    if scope["path"] == "/variables":
        await answer_json(send, sorted(name for name in os.environ if name.startswith("MEMORY_PRESSURE")))
        return
    if scope["path"] == "/grow":
        # Not of zeros, which would take none.
        KEPT.append(bytearray(b"x") * (int(number(scope, "mib")) * 1024**2))
    await answer_json(send, {"pid": os.getpid()})
