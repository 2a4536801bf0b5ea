"""The contenders: how each is started with one worker and its best settings, and what it needs to be here."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Final

from bench.addresses import Address
from bench.certificate import Certificate
from bench.errors import ContenderError
from bench.workloads import Log, Workload

KEEP_ALIVE: Final = 600
"""Seconds that idle connections are kept: longer than any measurement."""
CONNECTIONS: Final = 16_384
"""Where a contender has a limit of open connections it is set to this: some have 1,000 or 1,024."""

_NGINX: Final = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout {keep_alive};
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=2048;
        default_type text/plain;
        return 200 "Hello, world!";
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Launch:
    """What a contender is told.

    Attributes:
        application: `module:attribute`.
        address: Where to listen.
        log: Where to log.
        folder: For its files.
        http2: Speak HTTP/2.
        websocket: Speak WebSocket.
        certificate: Speak TLS, with this.
    """

    application: str
    address: Address
    log: Log
    folder: Path
    http2: bool
    websocket: bool
    certificate: Certificate | None

    def bind(self, port: Sequence[str], path: Sequence[str]) -> list[str]:
        """The arguments for a port, or those for a path, with `{}` filled in."""
        words = path if isinstance(self.address, Path) else port
        return [word.format(self.address) for word in words]

    def secure(self, certificate: str, key: str) -> list[str]:
        """The options for the certificate and its key, where there are any."""
        if self.certificate is None:
            return []
        return [certificate, str(self.certificate.path), key, str(self.certificate.key)]


@dataclass(frozen=True, slots=True)
class Contender:
    """One server.

    Attributes:
        name: What `--servers` takes.
        command: Its command line. Standard output and error, where its logs go, are a file.
        modules: The packages that have to be installed.
        http2: Those that it needs besides for HTTP/2; None where it takes no part in that.
        program: The program that has to be on PATH.
        floor: Not an application server, but what one can be compared with.
        websocket: The packages that it needs besides for WebSockets; None where it takes no part in that.
        plain: Takes part where there are none.
        chosen: Takes part unless `--servers` says otherwise.
        journals: Speaks the journal's protocol.
    """

    name: str
    command: Callable[[Launch], list[str]]
    modules: tuple[str, ...] = ()
    http2: tuple[str, ...] | None = None
    program: str | None = None
    floor: bool = False
    websocket: tuple[str, ...] | None = None
    plain: bool = True
    chosen: bool = True
    journals: bool = False


def _start_appserver(launch: Launch) -> list[str]:
    return [
        *(sys.executable, "-m", "appserver", launch.application, "--timeout-keep-alive", str(KEEP_ALIVE)),
        *launch.bind(("--port", "{}"), ("--uds", "{}")),
        *launch.secure("--tls-cert", "--tls-key"),
        # `auto` would write for people where the bench itself runs under a terminal or the journal.
        *("--log-format", "journal" if launch.log is Log.JOURNAL else "json"),
        "--no-access-log" if launch.log is Log.NONE else "--access-log",
    ]


def _start_appserver_h11(launch: Launch) -> list[str]:
    return [*_start_appserver(launch), "--http", "h11"]


def _start_appserver_h2(launch: Launch) -> list[str]:
    return [*_start_appserver(launch), "--http2-engine", "h2"]


def _start_uvicorn(launch: Launch) -> list[str]:
    return [
        *(sys.executable, "-m", "uvicorn", launch.application, "--loop", "uvloop"),
        # httptools is the faster of the two for HTTP/1.1, and has no HTTP/2.
        *(("--http", "zttp", "--http2") if launch.http2 else ("--http", "httptools")),
        *(("--ws", "websockets-sansio") if launch.websocket else ()),  # what `auto` takes
        *("--timeout-keep-alive", str(KEEP_ALIVE)),
        *launch.bind(("--port", "{}"), ("--uds", "{}")),
        *launch.secure("--ssl-certfile", "--ssl-keyfile"),
        # Its access log is written at level info, without colours into a file.
        *(("--log-level", "warning", "--no-access-log") if launch.log is Log.NONE else ("--access-log",)),
    ]


def _start_uvicorn_websockets(launch: Launch) -> list[str]:
    return [*_start_uvicorn(launch), "--ws", "websockets"]


def _start_uvicorn_wsproto(launch: Launch) -> list[str]:
    return [*_start_uvicorn(launch), "--ws", "wsproto"]


def _start_granian(launch: Launch) -> list[str]:
    return [
        *(sys.executable, "-m", "granian", launch.application, "--interface", "asgi", "--loop", "uvloop"),
        # One single-threaded runtime: what its documentation advises for one worker, and the fewest switches between
        # threads. Without WebSocket and the other version of HTTP it looks for neither in a request.
        *("--workers", "1", "--runtime-mode", "st", "--runtime-threads", "1"),
        "--ws" if launch.websocket else "--no-ws",
        *("--http", "2" if launch.http2 else "1"),
        *("--backlog", str(CONNECTIONS), "--backpressure", str(CONNECTIONS)),
        # The only limit that it has for idle connections; a minute is the most it takes.
        *("--http1-header-read-timeout", "60000"),
        *launch.bind(("--port", "{}"), ("--uds", "{}")),
        *launch.secure("--ssl-certificate", "--ssl-keyfile"),
        *(("--log-level", "warning", "--no-access-log") if launch.log is Log.NONE else ("--access-log",)),
    ]


def _start_hypercorn(launch: Launch) -> list[str]:
    return [
        *(sys.executable, "-m", "hypercorn", launch.application, "--worker-class", "uvloop", "--workers", "1"),
        *("--config", str(Path(__file__).with_name("hypercorn.toml")), "--keep-alive", str(KEEP_ALIVE)),
        *launch.bind(("--bind", "127.0.0.1:{}"), ("--bind", "unix:{}")),
        *launch.secure("--certfile", "--keyfile"),
        *(("--log-level", "warning") if launch.log is Log.NONE else ("--access-logfile", "-")),
    ]


def _start_gunicorn(launch: Launch) -> list[str]:
    return [
        *(sys.executable, "-m", "gunicorn", launch.application, "--worker-class", "asgi", "--workers", "1"),
        *("--asgi-loop", "uvloop", "--http-parser", "fast", "--no-control-socket"),
        *("--keep-alive", str(KEEP_ALIVE), "--worker-connections", str(CONNECTIONS)),
        *(("--http-protocols", "h2,h1", "--http2-cleartext", "prior-knowledge") if launch.http2 else ()),
        *launch.bind(("--bind", "127.0.0.1:{}"), ("--bind", "unix:{}")),
        *launch.secure("--certfile", "--keyfile"),
        *(("--log-level", "warning") if launch.log is Log.NONE else ("--access-logfile", "-")),
    ]


def _start_nginx(launch: Launch) -> list[str]:
    configuration = launch.folder / "nginx.conf"
    text = _NGINX.format(folder=launch.folder, port=launch.address, keep_alive=KEEP_ALIVE)
    configuration.write_text(text, encoding="utf-8")
    return ["nginx", "-p", str(launch.folder), "-c", str(configuration), "-e", "stderr"]


def _start_raw(launch: Launch) -> list[str]:
    return [sys.executable, "-m", "bench.raw", str(launch.address)]


_UVICORN: Final = ("uvicorn", "httptools", "uvloop")

_TABLE: Final = (
    Contender("appserver", _start_appserver, ("appserver",), ("ngh2",), websocket=("websockets",), journals=True),
    Contender("appserver-h11", _start_appserver_h11, ("appserver",), chosen=False, journals=True),
    Contender("appserver-h2", _start_appserver_h2, ("appserver",), ("h2",), chosen=False),
    Contender("granian", _start_granian, ("granian", "uvloop"), (), websocket=()),
    Contender("gunicorn", _start_gunicorn, ("gunicorn", "gunicorn_h1c", "uvloop"), ("h2",), websocket=()),
    Contender("uvicorn", _start_uvicorn, _UVICORN, ("zttp",), websocket=("websockets",)),
    Contender("uvicorn-websockets", _start_uvicorn_websockets, _UVICORN, websocket=("websockets",), plain=False),
    Contender("uvicorn-wsproto", _start_uvicorn_wsproto, _UVICORN, websocket=("wsproto",), plain=False),
    Contender("hypercorn", _start_hypercorn, ("hypercorn", "uvloop"), ("h2",), websocket=("wsproto",)),
    Contender("nginx", _start_nginx, program="nginx", floor=True),
    Contender("raw", _start_raw, ("uvloop",), floor=True),
)

CONTENDERS: Final[Mapping[str, Contender]] = {contender.name: contender for contender in _TABLE}
"""All of them by name. The first is the one that the others are compared with."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A contender in a workload, and the log that it writes there."""

    label: str
    contender: Contender
    log: Log


def list_entries(workload: Workload, chosen: Sequence[Contender]) -> list[Entry]:
    """Who takes part in a workload, of those that are wanted."""
    entries = []
    for contender in chosen:
        if contender.floor and not workload.floors:
            continue
        if workload.http2 and contender.http2 is None:
            continue
        if contender.websocket is None if workload.websocket else not contender.plain:
            continue
        if workload.log is Log.JOURNAL and not contender.journals:
            continue
        entries.append(Entry(contender.name, contender, workload.log))
        # What the log costs is told by the same server without it, in rounds between those with it.
        if workload.log is not Log.NONE and contender.journals:
            entries.append(Entry(f"{contender.name}, no log", contender, Log.NONE))
    return entries


def require(contender: Contender, workload: Workload) -> None:
    """Check that a contender is installed, with what it needs for the workload.

    Raises:
        ContenderError: It is not.
    """
    modules = contender.modules + ((contender.http2 or ()) if workload.http2 else ())
    modules += (contender.websocket or ()) if workload.websocket else ()
    missing = [module for module in modules if find_spec(module) is None]
    if contender.program is not None and which(contender.program) is None:
        missing.append(contender.program)
    if missing:
        raise ContenderError(f"not installed: {', '.join(missing)}")
