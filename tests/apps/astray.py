"""An ASGI application that does what no application should, and some things that applications may."""

import asyncio
import logging
import sys
from typing import TYPE_CHECKING, Final

from appserver.asgi.types import Receive, Scope, Send

if TYPE_CHECKING:
    from tests.apps.behaviour import Handler, answer
    from tests.apps.behaviour import app as behave
else:
    from behaviour import Handler, answer  # as it is found with --app-dir
    from behaviour import app as behave

LOG: Final = logging.getLogger("shop")


async def _hear_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def leave_in_task(_scope: Scope, _receive: Receive, send: Send) -> None:
    async def leave() -> None:
        sys.exit(7)

    async with asyncio.TaskGroup() as group:
        group.create_task(leave())
    await answer(send, b"never sent")


async def stop_loop(_scope: Scope, _receive: Receive, send: Send) -> None:
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0)
    await answer(send, b"still here")


async def tear_scope(scope: Scope, _receive: Receive, send: Send) -> None:
    scope["state"] = {}
    del scope["client"]
    await answer(send, b"torn")


async def tear_scope_and_wait(scope: Scope, receive: Receive, _send: Send) -> None:
    scope["state"] = {}
    del scope["client"]
    LOG.warning("begun")
    await _hear_disconnect(receive)


async def work_on(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Has something to do after its answer."""
    await answer(send, b"at once")
    await asyncio.sleep(0.3)
    LOG.warning("worked")


async def poll(_scope: Scope, receive: Receive, _send: Send) -> None:
    """Has no answer until its client goes."""
    LOG.warning("begun")
    await _hear_disconnect(receive)
    LOG.warning("heard")


async def attend(_scope: Scope, receive: Receive, send: Send) -> None:
    """Works for half a second, and gives up when it hears that the client has gone."""
    work, gone = asyncio.create_task(asyncio.sleep(0.5)), asyncio.create_task(_hear_disconnect(receive))
    await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
    if not gone.done():
        gone.cancel()
        await answer(send, b"worked")


async def spin(_scope: Scope, receive: Receive, _send: Send) -> None:
    """Asks for more without end, whatever it is told."""
    LOG.warning("begun")
    await _hear_disconnect(receive)
    LOG.warning("spinning")
    while True:
        await receive()


async def take(_scope: Scope, receive: Receive, send: Send) -> None:
    """Answers when the whole of the body has come."""
    LOG.warning("begun")
    while (await receive())["more_body"]:
        pass
    await answer(send, b"taken")


HANDLERS: Final[dict[str, Handler]] = {
    "/exit-in-task": leave_in_task,
    "/stop-loop": stop_loop,
    "/torn-scope": tear_scope,
    "/torn-scope-and-wait": tear_scope_and_wait,
    "/work-on": work_on,
    "/poll": poll,
    "/attend": attend,
    "/spin": spin,
    "/take": take,
}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await HANDLERS.get(scope.get("path", ""), behave)(scope, receive, send)


async def deaf(scope: Scope, receive: Receive, send: Send) -> None:
    """Starts, and does not hear that it is to stop."""
    if scope["type"] == "http":
        await app(scope, receive, send)
        return
    await receive()
    await send({"type": "lifespan.startup.complete"})
    while True:
        await receive()
