"""ASGI applications for several workers, which tell of their starts in the folder that SHOP_FOLDER names."""

import asyncio
import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from appserver.asgi.types import Application, Receive, Scope, Send

if TYPE_CHECKING:
    from tests.apps.behaviour import app as behave
else:
    from behaviour import app as behave  # as it is found with --app-dir

FOLDER: Final = Path(os.environ["SHOP_FOLDER"])


def _make(before: Callable[[], float], after: Callable[[], object] | None = None) -> Application:
    """An application whose startup takes as long as `before` says, and that does `after` once it serves."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await behave(scope, receive, send)
            return
        await receive()
        tempfile.mkstemp(prefix="start-", dir=FOLDER)
        await asyncio.sleep(before())
        if after is not None:
            asyncio.get_running_loop().call_later(0.2, _repeat, after)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    return application


def _repeat(action: Callable[[], object]) -> None:
    """Do it as soon as somebody has made the file `go`, and again and again until there is the file `mended`."""
    asyncio.get_running_loop().call_later(0.1, _repeat, action)
    if (FOLDER / "go").exists() and not (FOLDER / "mended").exists():
        action()


def _one_is_slow() -> float:
    """The first worker to come takes SHOP_SECONDS, and the others no time."""
    try:
        (FOLDER / "slow").touch(exist_ok=False)
    except FileExistsError:
        return 0
    return float(os.environ["SHOP_SECONDS"])


def _one_is_slow_of_two() -> float:
    """The second worker to come takes SHOP_SECONDS."""
    return float(os.environ["SHOP_SECONDS"]) * (sum(1 for _ in FOLDER.glob("start-*")) - 1)


def _all_are_slow() -> float:
    return 0 if (FOLDER / "mended").exists() else float(os.environ["SHOP_SECONDS"])


def _at_once() -> float:
    return 0


one_slow = _make(_one_is_slow)
slow = _make(_all_are_slow)
crashing = _make(_at_once, lambda: os._exit(9))
crashing_beside_slow = _make(_one_is_slow_of_two, lambda: os._exit(9))
leaving = _make(_at_once, lambda: signal.raise_signal(signal.SIGTERM))
