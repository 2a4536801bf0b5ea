"""The application of the booted systems: each path is one thing to observe."""

import asyncio
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

log = logging.getLogger("probe")


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await run_lifespan(receive, send)
        return
    match scope["path"]:
        case "/raise":
            raise ValueError("the application's own mistake")
        case "/block":
            time.sleep(600)  # noqa: ASYNC251 - it is what the watchdog is for
        case "/slow":
            await asyncio.sleep(float(scope["query_string"]))
        case "/log":
            log.warning("said by the application", extra={"basket": 7})
    answer = {
        "pid": os.getpid(),
        "uid": os.getuid(),
        "greeting": os.environ.get("GREETING"),
        "server": scope["server"],
        "state_directory": os.environ.get("STATE_DIRECTORY"),
    }
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


async def run_lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await asyncio.sleep(float(os.environ.get("STARTUP_SECONDS", "0")))
            if startup_fails():
                await send({"type": "lifespan.startup.failed", "message": "the database is not there"})
                return
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


def startup_fails() -> bool:
    needed = os.environ.get("STARTUP_NEEDS")
    return "STARTUP_FAILS" in os.environ or (needed is not None and not Path(needed).exists())
