"""The ASGI HTTP connection scope (https://asgi.readthedocs.io/en/latest/specs/www.html#http-connection-scope).

Its constant half is made once a connection (`base`); a request adds its own to a copy (`request`).
"""

import os
from itertools import count
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from appserver.asgi.types import Scope
from appserver.wire.engine import Head, Headers

ASGI: Final = {"version": "3.0", "spec_version": "2.5"}

# Unique without asking the kernel for every request: a random half a process, a counter within it.
_PROCESS_ID: Final = os.urandom(6).hex()
_NUMBERS: Final = count(1)


def new_request_id() -> str:
    """An identifier for a request that brings none: 20 characters, unique over processes and hosts."""
    return f"{_PROCESS_ID}{next(_NUMBERS):08x}"


def base(
    scheme: str,
    server: tuple[str, int | None] | None,
    client: tuple[str, int] | None,
    root_path: str,
) -> dict[str, Any]:
    """What all requests of a connection have in common.

    Args:
        scheme: `http` or `https`.
        server: Address and port listened on; path and None on a UNIX socket; None where there is no name.
        client: Address and port of the peer; None on a UNIX socket.
        root_path: Where the application is mounted.
    """
    return {
        "type": "http",
        "asgi": ASGI,
        "scheme": scheme,
        "server": server,
        "client": client,
        "root_path": root_path,
        "extensions": {},
    }


def request(base: dict[str, Any], head: Head, headers: Headers, state: dict[str, Any], request_id: str) -> Scope:
    """The scope of one request.

    Args:
        base: From `base()`; copied, and `asgi` with `extensions` shared.
        head: The request.
        headers: Its fields, as far as they may be believed.
        state: The lifespan's state; a shallow copy goes into the scope, with the request's id in it.
        request_id: The request's id.
    """
    scope = base.copy()
    raw_path, _, query_string = head.target.partition(b"?")
    path = unquote_to_bytes(raw_path).decode("utf-8", "replace") if b"%" in raw_path else raw_path.decode("ascii")
    root_path = base["root_path"]
    if root_path:
        # The proxy has taken the mount point off; `path` is the whole path, as for uvicorn (docs/migration.md).
        path = root_path + path
        raw_path = root_path.encode("ascii", "ignore") + raw_path
    scope["http_version"] = head.version
    scope["method"] = head.method
    scope["path"] = path
    scope["raw_path"] = raw_path
    scope["query_string"] = query_string
    scope["headers"] = headers
    scope["state"] = {**state, "request_id": request_id}
    return scope
