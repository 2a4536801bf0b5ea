"""The ASGI HTTP connection scope (https://asgi.readthedocs.io/en/latest/specs/www.html#http-connection-scope).

What is constant for a connection is worked out once; each request gets a dict of its own, which it may change.
"""

import os
from itertools import count
from typing import Any, Final
from urllib.parse import quote, unquote_to_bytes

from appserver.asgi.forwarded import drop_forwarded, is_forwarded, read_forwarded
from appserver.asgi.service import Service
from appserver.asgi.types import Scope
from appserver.errors import MisuseError
from appserver.wire.engine import Head, Headers

PUSH: Final = "http.response.push"

# RFC 3986 section 3.3; quote() leaves letters, digits and "_.-~" as they are.
_IN_PATH: Final = "/:@!$&'()*+,;="
_IN_QUERY: Final = _IN_PATH + "?%"

# 20 characters, unique over processes and hosts, for a request that brings none. Without asking the kernel for every
# request: a random half a process, a counter within it.
_request_id = os.urandom(6).hex() + "%08x"
_NUMBERS: Final = count(1)


def _draw_request_id() -> None:
    """Draw the random half anew, for a process that is a copy (--preload)."""
    global _request_id  # noqa: PLW0603 - on the hot path
    _request_id = os.urandom(6).hex() + "%08x"


os.register_at_fork(after_in_child=_draw_request_id)


class Scopes:
    """Makes the scopes of one connection's requests.

    Args:
        service: What is served.
        scheme: `http` or `https`.
        server: The socket's own name, as getsockname(2) gives it: a tuple for TCP, a path for a UNIX socket.
        peer: The peer's name, as getpeername(2) gives it; None when it has gone already.
        tls: The TLS extension of the connection (https://asgi.readthedocs.io/en/latest/specs/tls.html); each request
            gets a dict of its own with the same values. None without TLS.
    """

    __slots__ = ("_client", "_harmless", "_scheme", "_server", "_service", "_tls", "_trusted", "client")

    def __init__(
        self, service: Service, scheme: str, server: object, peer: object, tls: dict[str, Any] | None = None
    ) -> None:
        self._service, self._tls = service, tls
        self._harmless: Headers | None = None  # no forwarded fields are in these, which the engine keeps
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
        self._scheme, self._server, self._client = scheme, name, client

    def make(self, head: Head, push: bool = False) -> Scope:  # noqa: FBT002 - positional on the hot path
        """The scope of one request, with its id in `state`.

        Args:
            head: The request.
            push: The client takes answers that it has not asked for.
        """
        service = self._service
        headers, client, scheme = head.headers, self._client, self._scheme
        request_id: str | None = None
        if service.trust is not None and headers is not self._harmless:
            if not is_forwarded(headers):
                if head.kept:
                    self._harmless = headers
            elif self._trusted:
                headers, forwarded_for, forwarded_scheme, request_id = read_forwarded(headers, service.trust)
                if forwarded_for is not None:
                    client = (forwarded_for, 0)  # its port is known to the proxy alone
                if forwarded_scheme is not None:
                    scheme = forwarded_scheme
            else:
                headers = drop_forwarded(headers)
        raw_path, _, query_string = head.target.partition(b"?")
        plain = raw_path.find(b"%") < 0
        path = raw_path.decode("ascii") if plain else unquote_to_bytes(raw_path).decode("utf-8", "replace")
        root_path = service.root_path
        if root_path and raw_path != b"*":
            # The proxy has taken the mount point off; `path` is the whole path, as for uvicorn (docs/migration.md).
            path = root_path + path
            raw_path = quote(root_path).encode("ascii") + raw_path
        # Displays: adding nine keys to a copy of six costs a second allocation when the table grows. They go down to
        # the dicts in it, because the application may change those too.
        extensions: dict[str, dict[str, Any]] = {
            "http.response.pathsend": {},
            "http.response.zerocopysend": {},
            "http.response.trailers": {},
            "http.response.early_hint": {},
        }
        if push:
            extensions[PUSH] = {}
        if self._tls is not None:
            extensions["tls"] = self._tls.copy()
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "http_version": head.version,
            "method": head.method,
            "scheme": scheme,
            "path": path,
            "raw_path": raw_path,
            "query_string": query_string,
            "root_path": root_path,
            "headers": headers.copy(),  # the application may change its list; the access record tells what came
            "client": client,
            "server": self._server,
            "state": {**service.state, "request_id": request_id or _request_id % next(_NUMBERS)},
            "extensions": extensions,
        }

    def make_websocket(self, head: Head, subprotocols: list[str]) -> Scope:
        """The scope of a WebSocket (https://asgi.readthedocs.io/en/latest/specs/www.html#websocket-connection-scope).

        Args:
            head: The request that asks for it.
            subprotocols: What the client offers, in its order.
        """
        scope = self.make(head)
        del scope["method"]
        extensions: dict[str, dict[str, Any]] = {"websocket.http.response": {}}
        if self._tls is not None:
            extensions["tls"] = self._tls.copy()
        secure = scope["scheme"] in ("https", "wss")
        scope.update(
            type="websocket",
            scheme="wss" if secure else "ws",
            subprotocols=subprotocols,
            extensions=extensions,
        )
        return scope


def make_target(path: object, root_path: str) -> bytes:
    """The target of a request whose scope would have this path: the way back of `Scopes.make()`.

    Args:
        path: Decoded, as in the scope. What stands behind the first `?` is the query, percent-encoded.
        root_path: Where the application is mounted.

    Raises:
        MisuseError: It is no path.
    """
    if not isinstance(path, str) or not path.startswith("/"):
        raise MisuseError(f"path must be a string that begins with '/', not {path!r:.200}")
    if root_path and path.startswith(root_path + "/"):
        path = path[len(root_path) :]
    raw_path, mark, query = path.partition("?")
    try:
        return (quote(raw_path, _IN_PATH) + mark + quote(query, _IN_QUERY)).encode("ascii")
    except UnicodeEncodeError as error:
        raise MisuseError(f"path must be text, which {path!r:.200} is not: {error.reason}") from error


def _path(name: str | bytes) -> str:
    """A UNIX socket's address as a path; an abstract one with @ in front, as ss(8) and systemd write it."""
    text = os.fsdecode(name)
    return "@" + text[1:] if text.startswith("\0") else text
