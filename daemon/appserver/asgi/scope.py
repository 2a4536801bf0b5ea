"""The ASGI HTTP connection scope (https://asgi.readthedocs.io/en/latest/specs/www.html#http-connection-scope).

Its constant half is made once a connection, and a request adds its own to a copy.
"""

import os
from itertools import count
from typing import Any, Final
from urllib.parse import quote, unquote_to_bytes

from appserver.asgi.forwarded import drop_forwarded, read_forwarded
from appserver.asgi.service import Service
from appserver.asgi.types import Scope
from appserver.wire.engine import Head

ASGI: Final = {"version": "3.0", "spec_version": "2.5"}

# Unique without asking the kernel for every request: a random half a process, a counter within it.
_PROCESS_ID: Final = os.urandom(6).hex()
_NUMBERS: Final = count(1)


def new_request_id() -> str:
    """An identifier for a request that brings none: 20 characters, unique over processes and hosts."""
    return f"{_PROCESS_ID}{next(_NUMBERS):08x}"


class Scopes:
    """Makes the scopes of one connection's requests.

    Args:
        service: What is served.
        scheme: `http` or `https`.
        server: The socket's own name, as getsockname(2) gives it: a tuple for TCP, a path for a UNIX socket.
        peer: The peer's name, as getpeername(2) gives it; None when it has gone already.
    """

    __slots__ = ("_base", "_service", "_trusted", "client")

    def __init__(self, service: Service, scheme: str, server: object, peer: object) -> None:
        self._service = service
        self.client = "unix"
        """The peer, for records."""
        client: tuple[str, int] | None = None
        trust = service.trust
        if isinstance(server, tuple):
            name: tuple[str, int | None] | None = (server[0], server[1])
            self._trusted = False
            if isinstance(peer, tuple):
                client = (peer[0], peer[1])
                self.client = peer[0]
                self._trusted = trust is not None and trust.trusts(peer[0])
        else:
            name = (_path(server), None) if isinstance(server, (str, bytes)) and server else None
            self._trusted = trust is not None and trust.unix
        self._base: dict[str, Any] = {
            "type": "http",
            "asgi": ASGI,
            "scheme": scheme,
            "server": name,
            "client": client,
            "root_path": service.root_path,
        }

    def make(self, head: Head) -> Scope:
        """The scope of one request, with its id in `state`."""
        service = self._service
        scope = self._base.copy()
        headers = head.headers
        request_id: str | None = None
        if service.trust is not None:
            if self._trusted:
                headers, client, forwarded_scheme, request_id = read_forwarded(headers, service.trust)
                if client is not None:
                    scope["client"] = (client, 0)  # its port is known to the proxy alone
                if forwarded_scheme is not None:
                    scope["scheme"] = forwarded_scheme
            else:
                headers = drop_forwarded(headers)
        raw_path, _, query_string = head.target.partition(b"?")
        path = unquote_to_bytes(raw_path).decode("utf-8", "replace") if b"%" in raw_path else raw_path.decode("ascii")
        if service.root_path and raw_path != b"*":
            # The proxy has taken the mount point off; `path` is the whole path, as for uvicorn (docs/migration.md).
            path = service.root_path + path
            raw_path = quote(service.root_path).encode("ascii") + raw_path
        scope["extensions"] = {}
        scope["http_version"] = head.version
        scope["method"] = head.method
        scope["path"] = path
        scope["raw_path"] = raw_path
        scope["query_string"] = query_string
        scope["headers"] = headers
        scope["state"] = {**service.state, "request_id": request_id or new_request_id()}
        return scope


def _path(name: str | bytes) -> str:
    """A UNIX socket's address as a path; an abstract one with @ in front, as ss(8) and systemd write it."""
    text = os.fsdecode(name)
    return "@" + text[1:] if text.startswith("\0") else text
