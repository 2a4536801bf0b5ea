"""WebSockets as real clients open them: a server, and the ways that lead to it."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

from tests.certificates import Issuer
from tests.conformance.websocket.bridge import bridging
from tests.integration.http2 import ENGINES, remarks
from tests.integration.servers import PATIENCE, Server, Starter

TCP_WAYS: Final = ("plain", "tls", *(f"http2-{engine}" for engine in ENGINES))
"""HTTP/1.1 with and without TLS, and HTTP/2 through a bridge, as the clients know none."""

WAYS: Final = (*TCP_WAYS, "unix")

_numbers: Final = count()


@dataclass(frozen=True, slots=True)
class Place:
    """A server, and what a client must know to come to it.

    Attributes:
        server: The process.
        way: One of `WAYS`.
        port: Where clients connect, on 127.0.0.1; 0 for UNIX sockets.
        path: Of the UNIX socket.
        context: For TLS; None without.
    """

    server: Server
    way: str
    port: int
    path: Path
    context: ssl.SSLContext | None

    @property
    def http_version(self) -> str:
        """What the server is spoken to in."""
        return "2" if self.way.startswith("http2") else "1.1"

    def url(self, path: str = "/") -> str:
        host = "localhost" if self.way == "unix" else f"127.0.0.1:{self.port}"
        return f"{'ws' if self.context is None else 'wss'}://{host}{path}"

    def connect(self) -> socket.socket:
        """A connection on which nothing has been said."""
        if self.way != "unix":
            return socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(str(self.path))
        return sock

    def told(self, path: str) -> tuple[int, str]:
        """Code and reason that the application was told at the end of the WebSocket of a path."""
        record = self.server.record(message="disconnected", path=path)
        return record["close_code"], record["close_reason"]

    def access(self, path: str) -> dict[str, Any]:
        """The access record of a path."""

        def find() -> dict[str, Any] | None:
            records = self.server.records
            return next((record for record in records if "outcome" in record and record["http_target"] == path), None)

        return self.server.until(find, f"the access record of {path}")


def make_path() -> str:
    """One that no other WebSocket has."""
    return f"/echo/{next(_numbers)}"


@contextmanager
def serving(
    folder: Path, way: str, app: str, *arguments: str | Path, quiet: bool = True, tracebacks: bool = False
) -> Iterator[Place]:
    """A server that is reached in one of `WAYS`.

    Args:
        folder: For its files.
        way: One of `WAYS`.
        app: The application, in tests/apps.
        arguments: Of `appserver`.
        quiet: At its end nothing may be in its log but access records.
        tracebacks: They may be in its log.
    """
    kind, _, engine = way.partition("-")
    words = [*arguments, *(("--http2-engine", engine) if engine else ())]
    issuer, path, context = Issuer(), folder / "web.sock", None
    if kind == "tls":
        words += issuer.issue(folder / "localhost.pem", "localhost", "127.0.0.1").arguments
        context = issuer.client()
    elif kind == "unix":
        words += ["--uds", path]
    starter = Starter(folder)
    try:
        server = starter(app, *words, bind=kind != "unix", tracebacks=tracebacks)
        if kind == "http2":
            with bridging(*server.address) as bridge:
                yield Place(server, way, bridge.port, path, None)
        else:
            yield Place(server, way, 0 if kind == "unix" else server.address[1], path, context)
        server.stop()
        said = remarks(server)
        assert not (quiet and said), said
    finally:
        starter.finish()
