"""ASGI applications that differ in how they start and stop."""

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from appserver.asgi.types import Application, Receive, Scope, Send

if TYPE_CHECKING:
    from tests.apps.behaviour import app as behave
else:
    from behaviour import app as behave  # as it is found with --app-dir

LOG: Final = logging.getLogger("shop")
Hook = Callable[[Scope], Awaitable[None]]


async def _nothing(_scope: Scope) -> None:
    pass


def _make(start: Hook, stop: Hook = _nothing) -> Application:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await behave(scope, receive, send)
            return
        await receive()
        LOG.warning("starting")
        await start(scope)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await stop(scope)
        LOG.warning("shut down")
        await send({"type": "lifespan.shutdown.complete"})

    return application


async def _fill(scope: Scope) -> None:
    scope["state"]["pool"] = "filled"


async def _take_long(scope: Scope) -> None:
    await asyncio.sleep(float(os.environ["STARTUP_SECONDS"]))
    await _fill(scope)


async def _raise(_scope: Scope) -> None:
    raise RuntimeError("no database")


async def _exit(_scope: Scope) -> None:
    sys.exit(0)


async def _hang(_scope: Scope) -> None:
    await asyncio.Event().wait()


good = _make(_fill)
slow = _make(_take_long)
failing = _make(_raise)
exiting = _make(_exit)
hanging = _make(_hang)
failing_shutdown = _make(_fill, _raise)
slow_shutdown = _make(_fill, _take_long)


async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
    """Says in the protocol's own words that it cannot start."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})
