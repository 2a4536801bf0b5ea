"""Tells the names of the variables that it was started with."""

import os
from typing import TYPE_CHECKING

from appserver.asgi.types import Receive, Scope, Send

if TYPE_CHECKING:
    from tests.apps.behaviour import answer_json
else:
    from behaviour import answer_json  # as it is found with --app-dir

NAMES = sorted(os.environ)


async def app(scope: Scope, _receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    await answer_json(send, NAMES)
