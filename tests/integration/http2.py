"""HTTP/2 as real clients meet it: a server with each engine, plain and over TLS, and what it leaves in its log."""

import os
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from appserver.wire.select import http2_engines
from tests.certificates import Issuer
from tests.integration.servers import PATIENCE, Server, Starter

FULL: Final = bool(os.environ.get("FULL"))
ENGINES: Final = tuple(http2_engines())
WAYS: Final = tuple(f"{way}-{engine}" for way in ("plain", "tls") for engine in ENGINES)
"""How a client comes to an engine: by prior knowledge, or by ALPN."""


@dataclass(frozen=True, slots=True)
class Site:
    """A server, and what a client must know to trust it.

    Attributes:
        server: The process.
        engine: The HTTP/2 engine that it was told to take.
        tls: It speaks TLS; its certificate is for localhost and 127.0.0.1.
        context: For Python's clients; they offer h2 and nothing else.
        root: For others, the authority's certificate.
    """

    server: Server
    engine: str
    tls: bool
    context: ssl.SSLContext
    root: Path

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def way(self) -> str:
        """As in `WAYS`."""
        return f"{'tls' if self.tls else 'plain'}-{self.engine}"

    @property
    def curl(self) -> Sequence[str]:
        """Words that make curl speak HTTP/2, and tell what else it is told to behind them."""
        http2 = ["--http2", "--cacert", str(self.root)] if self.tls else ["--http2-prior-knowledge"]
        return ["curl", "--silent", "--show-error", "--fail", "--noproxy", "*", *http2]

    def client(self, **options: Any) -> httpx.Client:
        """An httpx client that speaks nothing but HTTP/2."""
        return httpx.Client(**self.options, **options)

    @property
    def options(self) -> dict[str, Any]:
        """Of `httpx.Client` and `httpx.AsyncClient`."""
        return {
            "base_url": self.url,
            "verify": self.context,
            "http1": False,
            "http2": True,
            "timeout": PATIENCE,
            "trust_env": False,
        }


@contextmanager
def serving(folder: Path, way: str, app: str, *arguments: str | Path, quiet: bool = True) -> Iterator[Site]:
    """A server that is reached in one of `WAYS`.

    Args:
        folder: For its files.
        way: One of `WAYS`.
        app: The application, in tests/apps.
        arguments: Of `appserver`.
        quiet: At its end nothing may be in its log but access records.
    """
    kind, _, engine = way.partition("-")
    issuer = Issuer()
    pair = issuer.issue(folder / "localhost.pem", "localhost", "127.0.0.1")
    context = issuer.client()
    context.set_alpn_protocols(["h2"])
    tls = kind == "tls"
    starter = Starter(folder)
    try:
        server = starter(app, "--http2-engine", engine, "--http2-upgrade", *(pair.arguments if tls else ()), *arguments)
        yield Site(server, engine, tls, context, issuer.write_root(folder / "root.pem"))
        server.stop()
        said = remarks(server)
        assert not (quiet and said), said
    finally:
        starter.finish()


def remarks(server: Server) -> list[dict[str, Any]]:
    """What the server has said besides access records, and that it begins and ends; `shop` is the application's."""
    common = {"ready", "stopping", "stopped"}
    if not FULL:
        common.add("watchdog")  # on a busy machine the loop may not turn for a second, whatever it was at
    records = [record for record in server.records if record.get("logger") != "shop"]
    return [record for record in records if "outcome" not in record and record.get("event") not in common]


def take_peak(server: Server) -> int:
    """The most memory that the process has held since this was last asked for, in bytes: proc(5), clear_refs."""
    folder = Path(f"/proc/{server.process.pid}")
    lines = (folder / "status").read_text().splitlines()
    (folder / "clear_refs").write_text("5")
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
