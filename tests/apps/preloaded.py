"""An ASGI application that tells, in the folder that SHOP_FOLDER names, when it is imported and when it starts."""

import asyncio
import os
import random
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path
from socket import create_connection, socketpair
from subprocess import run
from typing import TYPE_CHECKING, Final

from appserver.asgi.types import Receive, Scope, Send

if TYPE_CHECKING:
    from tests.apps.behaviour import answer_json
    from tests.apps.behaviour import app as behave
else:
    from behaviour import answer_json  # as it is found with --app-dir
    from behaviour import app as behave

FOLDER: Final = Path(os.environ["SHOP_FOLDER"])
IMPORTED_BY: Final = os.getpid()
MODEL: Final = bytes(bytearray(os.urandom(1024)) * (1024 * int(os.environ.get("SHOP_MODEL", "0"))))
"""So many MiB."""

tempfile.mkstemp(prefix="import-", dir=FOLDER)
sys.stdout = (FOLDER / "output").open("a")
print("imported")

if "SHOP_LEFTOVERS" in os.environ:
    threading.Thread(target=threading.Event().wait, daemon=True, name="refresher").start()
    LOOP: Final = asyncio.new_event_loop()
    DATABASE: Final = create_connection(("127.0.0.1", int(os.environ["SHOP_LEFTOVERS"])))
    PAIR: Final = socketpair()

time.sleep(float(os.environ.get("SHOP_IMPORT_SECONDS", "0")))

ORPHAN: Final = "import os, time; os.fork() and os._exit(0); os.setsid(); time.sleep(0.2)"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """The application."""
    if scope["type"] == "lifespan":
        await receive()
        tempfile.mkstemp(prefix="start-", dir=FOLDER)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["path"] == "/chances":
        drawn = [random.random(), uuid.uuid4().hex, scope["state"]["request_id"][:12]]
        await answer_json(send, {"pid": os.getpid(), "imported_by": IMPORTED_BY, "drawn": drawn})
    elif scope["path"] == "/read":
        await asyncio.sleep(0.02)
        await answer_json(send, {"pid": os.getpid(), "sum": sum(MODEL[::4096])})
    elif scope["path"] == "/orphan":
        await asyncio.to_thread(run, [sys.executable, "-c", ORPHAN], check=True)
        await answer_json(send, {})
    else:
        await behave(scope, receive, send)
