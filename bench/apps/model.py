"""An ASGI application with a model in memory, of MODEL_KIND and MODEL_MIB, that takes IMPORT_SECONDS to import."""

import json
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

_MIB: Final = 1024 * 1024
_OBJECT: Final = 190
"""Bytes of one of the small objects: a tuple, its string, its floating-point number, its place in the list."""


def _make(kind: str, size: int) -> Any:
    if kind == "bytes":
        return b"x" * size
    return [(number, f"product number {number}", number / 7) for number in range(size // _OBJECT)]


MODEL: Final = _make(os.environ.get("MODEL_KIND", "bytes"), int(os.environ.get("MODEL_MIB", "0")) * _MIB)
time.sleep(float(os.environ.get("IMPORT_SECONDS", "0")))


def _read() -> int:
    """Read all of it."""
    if isinstance(MODEL, bytes):
        return MODEL.count(b"y")
    return sum(len(name) for _, name, _ in MODEL)


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],  # noqa: ARG001 - no request has a body
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Answer with the process id; for `/read`, when all of the model has been read."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    if scope["path"] == "/read":
        _read()
        # The worker is kept for a moment, so that the others get some requests too.
        time.sleep(0.1)  # noqa: ASYNC251
    body = json.dumps(os.getpid()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
