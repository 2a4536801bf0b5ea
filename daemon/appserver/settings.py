"""Every setting of `appserver`, declared once, and where the values come from.

A field of `Settings` is a setting: its type, default, kind, flags, help and whether a reload may change it. `TABLE` is
read off the fields, and all else off `TABLE`: the command line, the `APPSERVER_*` variables, the keys of the TOML
file, the help text.

    flag  >  environment  >  file  >  default

Only the value that wins is looked at: `--port 80` serves where the environment has an unusable APPSERVER_PORT. Names
are another matter, and an unknown key in the file is an error whatever the flags say.
"""

import dataclasses
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from appserver import arguments, encryption, kinds, sources
from appserver.arguments import Row
from appserver.binds import (
    BINDS,
    CONTROL,
    HOST,
    INSECURE_BINDS,
    SOCKET_PATH,
    STATSD,
    Bind,
    FdBind,
    TcpBind,
    UnixBind,
    parse_bind,
    parse_insecure_bind,
)
from appserver.kinds import Kind

__all__ = [
    "TABLE",
    "Bind",
    "FdBind",
    "Loaded",
    "Row",
    "Settings",
    "TcpBind",
    "UnixBind",
    "command_line",
    "load",
    "parse_bind",
    "resolve",
]

T = TypeVar("T")

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8000


def setting(
    default: T,
    kind: Kind[T],
    *flags: str,
    group: str,
    help: str,  # noqa: A002 - the word argparse has for it
    reload: bool = True,
    variables: tuple[str, ...] = (),
) -> T:
    """Declare a setting.

    Args:
        default: The value when nobody gives one.
        kind: How it is read and shown.
        flags: The canonical flag, then aliases that uvicorn, hypercorn or gunicorn users type; `APP` is positional.
        group: Its heading in the help text.
        help: One sentence, without a full stop.
        reload: Whether a reload may change it.
        variables: Environment variables of other programs, read when ours is unset.
    """
    metadata = {"kind": kind, "flags": flags, "group": group, "help": help, "reload": reload, "variables": variables}
    # A dataclass wants the Field here and a type checker the field's own type.
    field: Any = dataclasses.field(default=default, metadata=metadata)
    return field  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Settings:
    """What one start or reload of `appserver` runs with. Sizes are bytes, times are seconds."""

    app: str = setting(
        "appserver.asgi.welcome:app",
        kinds.APP,
        "APP",
        group="Application",
        help="The application: module:attribute, module:factory() or a file's path",
    )
    app_dir: str = setting(
        ".", kinds.PATH, "--app-dir", group="Application", help="Folder to import it from, first on sys.path"
    )
    factory: bool = setting(
        False,
        kinds.SWITCH,
        "--factory",
        group="Application",
        help="APP is called without arguments to make the application",
    )
    interface: str = setting(
        "auto",
        kinds.choice("auto", "asgi3", "wsgi"),
        "--interface",
        group="Application",
        help="What APP is; auto goes by the arguments that it takes: three are ASGI's, two are WSGI's",
    )
    threads: int = setting(
        8,
        kinds.integer(1, 1024, "a number from 1 to 1024"),
        "--threads",
        "--blocking-threads",
        group="Application",
        help="Requests that a process has a WSGI application answer at a time; others wait in order",
    )
    lifespan: str = setting(
        "auto",
        kinds.choice("auto", "on", "off"),
        "--lifespan",
        group="Application",
        help="ASGI lifespan: where supported (auto), required (on), never (off)",
    )
    root_path: str = setting(
        "", kinds.ROOT_PATH, "--root-path", group="Application", help="Path that a proxy mounts the application under"
    )
    env_file: str | None = setting(
        None,
        kinds.PATH,
        "--env-file",
        group="Application",
        help="File of environment variables for the application; variables that exist win",
    )

    bind: tuple[str, ...] = setting(
        (),
        BINDS,
        "--bind",
        "-b",
        group="Listening",
        help="host:port, [v6]:port, :port, unix:PATH, unix:@NAME, fd://N or fd://NAME; ?tls=off or ?http2=off may stand"
        " behind it; repeatable. Without any: the sockets that systemd handed over, else"
        f" {DEFAULT_HOST}:{DEFAULT_PORT}",
        reload=False,
    )
    insecure_bind: tuple[str, ...] = setting(
        (),
        INSECURE_BINDS,
        "--insecure-bind",
        group="Listening",
        help="As --bind, without TLS, in addition to all others; repeatable",
        reload=False,
    )
    host: str | None = setting(
        None, HOST, "--host", group="Listening", help=f"Host for --port (default: {DEFAULT_HOST})", reload=False
    )
    port: int | None = setting(
        None,
        kinds.PORT,
        "--port",
        group="Listening",
        help=f"Port for --host, 0 for any (default: {DEFAULT_PORT})",
        reload=False,
    )
    uds: str | None = setting(
        None, SOCKET_PATH, "--uds", group="Listening", help="UNIX socket to make and listen on", reload=False
    )
    fd: int | None = setting(
        None,
        kinds.FD,
        "--fd",
        group="Listening",
        help="Inherited socket, listening or connected: 0 under Supervisor and inetd",
        reload=False,
    )
    backlog: int = setting(
        2048,
        kinds.integer(1, 65535, "a number from 1 to 65535"),
        "--backlog",
        group="Listening",
        help="Connections that may wait for accept",
        reload=False,
    )
    uds_mode: int = setting(
        0o660, kinds.MODE, "--uds-mode", group="Listening", help="Permission bits of our UNIX sockets", reload=False
    )
    uds_owner: str | None = setting(
        None, kinds.USER, "--uds-owner", group="Listening", help="Owner of our UNIX sockets", reload=False
    )
    uds_group: str | None = setting(
        None, kinds.GROUP, "--uds-group", group="Listening", help="Group of our UNIX sockets", reload=False
    )
    control: str | None = setting(
        None,
        CONTROL,
        "--control",
        group="Listening",
        help="UNIX socket that answers appserverctl and probes",
        reload=False,
    )

    workers: int | None = setting(
        None,
        kinds.WORKERS,
        "--workers",
        "-w",
        group="Process",
        help="Processes that serve, under a master that replaces and reloads them; auto is one for each CPU that may be"
        " used. Without it this process serves by itself",
        variables=("WEB_CONCURRENCY",),
    )
    preload: bool = setting(
        False,
        kinds.SWITCH,
        "--preload",
        group="Process",
        help="Import the application once, in a process that forks the workers, so that they share its memory",
    )
    timeout_worker: float = setting(
        30.0,
        kinds.DEADLINE,
        "--timeout-worker",
        "--timeout-worker-healthcheck",
        "--timeout",
        "-t",
        group="Process",
        help="A worker whose event loop stands still for so long is replaced, and the log says where it stood",
    )
    max_requests: int = setting(
        0,
        kinds.integer(0, 2**31 - 1, "a number, 0 for any"),
        "--max-requests",
        "--limit-max-requests",
        group="Process",
        help="Answers after which a worker is replaced, or a single process ends, once everything is answered",
    )
    max_requests_jitter: int = setting(
        0,
        kinds.integer(0, 2**31 - 1, "a number"),
        "--max-requests-jitter",
        "--limit-max-requests-jitter",
        group="Process",
        help="At most so many more, by chance, so that not all are replaced at once",
    )
    max_age: float = setting(
        0.0, kinds.DURATION, "--max-age", group="Process", help="Time after which a worker is replaced; 0 for never"
    )
    max_memory: int = setting(
        0,
        kinds.size(0, 2**50, "a size, 0 for any"),
        "--max-memory",
        group="Process",
        help="Resident memory over which a worker is replaced; 0 for any",
    )
    idle_exit: float = setting(
        0.0,
        kinds.DURATION,
        "--idle-exit",
        group="Process",
        help="Time without a connection after which the process ends, where its sockets are systemd's: the next"
        " connection starts it again; 0 for never",
    )
    timeout_worker_start: float = setting(
        60.0,
        kinds.DEADLINE,
        "--timeout-worker-start",
        group="Process",
        help="What the import of the application and its startup may take in a worker",
    )
    loop: str = setting(
        "auto",
        kinds.choice("auto", "uvloop", "asyncio"),
        "--loop",
        group="Process",
        help="Event loop; auto takes uvloop where it is installed",
        reload=False,
    )
    graceful_timeout: float = setting(
        30.0,
        kinds.DURATION,
        "--graceful-timeout",
        "--timeout-graceful-shutdown",
        group="Process",
        help="Time that running requests get when the process is told to stop",
    )
    linger: float = setting(
        2.0,
        kinds.DURATION,
        "--linger",
        group="Process",
        help="Time that idle keep-alive connections get for one more request while stopping",
    )

    http: str = setting(
        "auto",
        kinds.choice("auto", "h1c", "plain", "h11", "httptools"),
        "--http",
        group="HTTP",
        help="HTTP/1.1 engine; auto takes h1c where it is installed, else plain; httptools means h1c too",
        reload=False,
    )
    http2: bool = setting(
        True,
        kinds.SWITCH,
        "--http2",
        group="HTTP",
        help="Serve HTTP/2: by ALPN over TLS, else to clients that begin with its preface",
        reload=False,
    )
    http2_upgrade: bool = setting(
        False,
        kinds.SWITCH,
        "--http2-upgrade",
        group="HTTP",
        help="Let clients go from HTTP/1.1 to HTTP/2 by Upgrade: h2c. Never behind a proxy: it would become a tunnel",
        reload=False,
    )
    http2_engine: str = setting(
        "auto",
        kinds.choice("auto", "h2", "ngh2"),
        "--http2-engine",
        group="HTTP",
        help="HTTP/2 engine; auto takes ngh2 where it is installed, else h2",
        reload=False,
    )
    http2_max_concurrent_streams: int = setting(
        100,
        kinds.integer(1, 10_000, "a number from 1 to 10000"),
        "--http2-max-concurrent-streams",
        group="HTTP",
        help="Requests that an HTTP/2 connection may have open at once",
    )
    header: tuple[tuple[str, str], ...] = setting(
        (),
        kinds.HEADERS,
        "--header",
        group="HTTP",
        help='Field for every response that the application gives none of its name, "Name: value"; repeatable',
    )
    server_header: bool = setting(True, kinds.SWITCH, "--server-header", group="HTTP", help="Send a Server field")
    date_header: bool = setting(True, kinds.SWITCH, "--date-header", group="HTTP", help="Send a Date field")

    ws: str = setting(
        "auto",
        kinds.WS,
        "--ws",
        group="WebSocket",
        help="Serve WebSockets (auto), or leave requests for them to the application as plain HTTP (none)",
        reload=False,
    )
    ws_max_size: int = setting(
        16 * 1024**2,
        kinds.size(125, 2**31 - 1, "a size from 125 to 2G"),
        "--ws-max-size",
        group="WebSocket",
        help="One message, inflated; over it the WebSocket is closed with 1009",
    )
    ws_max_queue: int = setting(
        32,
        kinds.integer(1, 65536, "a number from 1 to 65536"),
        "--ws-max-queue",
        group="WebSocket",
        help="Messages that wait for the application before no more is read from their client",
    )
    ws_ping_interval: float = setting(
        20.0,
        kinds.DURATION,
        "--ws-ping-interval",
        "--websocket-ping-interval",
        group="WebSocket",
        help="Between pings; 0 for none",
    )
    ws_ping_timeout: float = setting(
        20.0,
        kinds.DURATION,
        "--ws-ping-timeout",
        group="WebSocket",
        help="A client that has sent nothing for so long after a ping is gone; 0 to wait for ever",
    )
    ws_open_timeout: float = setting(
        10.0,
        kinds.DEADLINE,
        "--ws-open-timeout",
        group="WebSocket",
        help="Time for the application to accept or deny; over it the answer is 503",
    )
    ws_close_timeout: float = setting(
        10.0,
        kinds.DEADLINE,
        "--ws-close-timeout",
        group="WebSocket",
        help="Time for the client to answer our Close",
    )
    ws_per_message_deflate: bool = setting(
        True, kinds.BOOLEAN, "--ws-per-message-deflate", group="WebSocket", help="Compress messages where clients can"
    )
    ws_deflate_window_bits: int = setting(
        12,
        kinds.integer(9, 15, "a number from 9 to 15"),
        "--ws-deflate-window-bits",
        group="WebSocket",
        help="Memory for compression: 12 takes up to 46 KiB for a WebSocket in use, 15 up to 186",
    )
    ws_deflate_memory: int = setting(
        256 * 1024**2,
        kinds.size(0, 2**40, "a size"),
        "--ws-deflate-memory",
        group="WebSocket",
        help="Memory for the compression of all WebSockets of a process; who comes when it is given away goes without",
    )
    ws_origin: tuple[str, ...] = setting(
        (),
        kinds.ORIGINS,
        "--ws-origin",
        group="WebSocket",
        help="Whose pages may open a WebSocket: https://example.org, https://*.example.org; repeatable. Without any all"
        " pages may, with the user's cookies; give it where cookies say who a user is",
    )

    limit_request_line: int = setting(
        8 * 1024,
        kinds.size(64, 1024**2, "a size from 64 to 1M"),
        "--limit-request-line",
        group="Limits",
        help="Request line; over it the answer is 414",
    )
    limit_request_field_size: int = setting(
        8 * 1024,
        kinds.size(64, 1024**2, "a size from 64 to 1M"),
        "--limit-request-field-size",
        "--limit-request-field_size",
        group="Limits",
        help="One header field, name and value; over it the answer is 431",
    )
    limit_request_fields: int = setting(
        100,
        kinds.integer(1, 10_000, "a number from 1 to 10000"),
        "--limit-request-fields",
        group="Limits",
        help="Number of header fields; over it the answer is 431",
    )
    limit_request_head: int = setting(
        64 * 1024,
        kinds.size(256, 16 * 1024**2, "a size from 256 to 16M"),
        "--limit-request-head",
        "--h11-max-incomplete-event-size",
        group="Limits",
        help="Request line and header fields in all; over it the answer is 431",
    )
    limit_request_body: int = setting(
        0,
        kinds.size(0, 2**63 - 1, "a size, 0 for no limit"),
        "--limit-request-body",
        group="Limits",
        help="Request body, 0 for no limit; over it the answer is 413",
    )

    timeout_keep_alive: float = setting(
        5.0,
        kinds.DURATION,
        "--timeout-keep-alive",
        "--keep-alive",
        group="Timeouts",
        help="Idle connection after a response",
    )
    timeout_header: float = setting(
        10.0,
        kinds.DEADLINE,
        "--timeout-header",
        group="Timeouts",
        help="Head of a request, from its first byte or the connection's start",
    )
    timeout_body: float = setting(
        30.0,
        kinds.DEADLINE,
        "--timeout-body",
        group="Timeouts",
        help="Request body that arrives slower than --min-rate",
    )
    timeout_write: float = setting(
        30.0, kinds.DEADLINE, "--timeout-write", group="Timeouts", help="Response that is read slower than --min-rate"
    )
    timeout_tls: float = setting(
        10.0,
        kinds.DEADLINE,
        "--timeout-tls",
        "--ssl-handshake-timeout",
        group="Timeouts",
        help="TLS handshake, from the connection's start",
    )
    min_rate: int = setting(
        500,
        kinds.size(0, 1024**3, "bytes a second, from 0 to 1G"),
        "--min-rate",
        group="Timeouts",
        help="Bytes a second that a peer must keep up once past --timeout-body or --timeout-write",
    )

    tls_cert: tuple[str, ...] = setting(
        (),
        encryption.CREDENTIALS,
        "--tls-cert",
        "--ssl-certfile",
        "--certfile",
        group="TLS",
        help="Certificate with its chain, PEM, path or credential:NAME; repeatable, chosen by the name that the client"
        " asks for, the first one otherwise",
    )
    tls_key: tuple[str, ...] = setting(
        (),
        encryption.CREDENTIALS,
        "--tls-key",
        "--ssl-keyfile",
        "--keyfile",
        group="TLS",
        help="Private key of each --tls-cert, in their order, path or credential:NAME; none where the certificate's"
        " file holds it",
    )
    tls_key_password: encryption.Password | None = setting(  # noqa: RUF009 - a field, like all the others
        None,
        encryption.PASSWORD,
        "--tls-key-password",
        "--ssl-keyfile-password",
        "--keyfile-password",
        group="TLS",
        help="Where the keys' password is: a path that begins with /, ./ or ../, or credential:NAME. Anything else is"
        " the password itself, which ps shows to every user",
    )
    tls_dir: str | None = setting(
        None,
        kinds.FOLDER,
        "--tls-dir",
        group="TLS",
        help="Folder of more certificates: sub-folders as certbot and Kubernetes make them, and NAME.pem with NAME.key",
    )
    tls_ca: str | None = setting(
        None,
        encryption.CREDENTIAL,
        "--tls-ca",
        "--ssl-ca-certs",
        "--ca-certs",
        group="TLS",
        help="Authorities that sign clients' certificates: a PEM file, a folder made by openssl rehash, or"
        " credential:NAME",
    )
    tls_client_cert: str = setting(
        "none",
        encryption.CLIENT_CERT,
        "--tls-client-cert",
        "--ssl-cert-reqs",
        "--cert-reqs",
        "--verify-mode",
        group="TLS",
        help="Whether clients are asked for a certificate of --tls-ca",
    )
    tls_min_version: str = setting(
        "1.2",
        encryption.TLS_VERSION,
        "--tls-min-version",
        "--ssl-version",
        group="TLS",
        help="Least TLS version to speak",
    )
    tls_ciphers: str | None = setting(
        None,
        encryption.CIPHERS,
        "--tls-ciphers",
        "--ssl-ciphers",
        "--ciphers",
        group="TLS",
        help="Cipher suites of TLS 1.2, as openssl-ciphers(1) writes them (default: Mozilla's intermediate list)",
    )
    https_redirect: bool = setting(
        False,
        kinds.SWITCH,
        "--https-redirect",
        group="TLS",
        help="Answer plain HTTP with 308 and the same address under https, on the port of the first listener that"
        " speaks TLS, else 443",
    )
    hsts: str | None = setting(
        None,
        encryption.HSTS,
        "--hsts",
        group="TLS",
        help="Have browsers use nothing but https for so long: Strict-Transport-Security in responses over TLS;"
        ' "; includeSubDomains" and "; preload" may follow; 0 makes them forget it',
    )
    acme_dir: str | None = setting(
        None,
        kinds.FOLDER,
        "--acme-dir",
        group="TLS",
        help="Folder to answer ACME challenges from, on every listener and before a redirect: certbot's --webroot-path",
    )

    proxy_headers: bool = setting(
        True,
        kinds.SWITCH,
        "--proxy-headers",
        group="Proxies",
        help="Take client and scheme from the X-Forwarded-* of trusted peers",
    )
    forwarded_allow_ips: tuple[str, ...] = setting(
        ("127.0.0.1", "::1", "unix"),
        kinds.PEERS,
        "--forwarded-allow-ips",
        group="Proxies",
        help='Trusted peers: addresses, networks, "unix" for UNIX sockets, "*" for all',
        variables=("FORWARDED_ALLOW_IPS",),
    )

    log_level: str = setting(
        "info",
        kinds.choice("critical", "error", "warning", "info", "debug", "trace"),
        "--log-level",
        group="Logging",
        help="Least severe records to write",
    )
    log_format: str = setting(
        "auto",
        kinds.choice("auto", "journal", "json", "console"),
        "--log-format",
        group="Logging",
        help="auto: fields for the journal, colour on a terminal, else JSON lines",
    )
    access_log: bool = setting(
        True, kinds.SWITCH, "--access-log", group="Logging", help="Write a record for every request"
    )

    statsd_host: str | None = setting(
        None,
        STATSD,
        "--statsd-host",
        group="Metrics",
        help="Server of statsd that gets the metrics every five seconds: host, host:port or unix:PATH",
        reload=False,
    )
    statsd_prefix: str = setting(
        "appserver",
        kinds.STATSD_PREFIX,
        "--statsd-prefix",
        group="Metrics",
        help="What the names of metrics begin with in statsd",
        reload=False,
    )
    dogstatsd_tags: str = setting(
        "",
        kinds.DOGSTATSD_TAGS,
        "--dogstatsd-tags",
        group="Metrics",
        help="Tags of dogstatsd for each metric: env:prod,shop",
        reload=False,
    )

    config: str | None = setting(
        None,
        kinds.PATH,
        "--config",
        "-c",
        group="Configuration",
        help="TOML file of settings; after a hyphen (-/path) it may be missing",
        reload=False,
    )

    @property
    def encrypted(self) -> bool:
        """A certificate is given: listeners speak TLS unless something says otherwise."""
        return bool(self.tls_cert) or self.tls_dir is not None

    def anchored(self) -> "Settings":
        """The same with absolute paths where files are looked at again later.

        The application may change the working folder. Paths of sockets stay as they are: they are opened once, and 107
        bytes is all that the kernel takes.
        """
        return dataclasses.replace(
            self,
            tls_cert=tuple(map(encryption.anchor, self.tls_cert)),
            tls_key=tuple(map(encryption.anchor, self.tls_key)),
            tls_key_password=self.tls_key_password and self.tls_key_password.anchored(),
            tls_dir=self.tls_dir and encryption.anchor(self.tls_dir),
            tls_ca=self.tls_ca and encryption.anchor(self.tls_ca),
            acme_dir=self.acme_dir and encryption.anchor(self.acme_dir),
        )

    @property
    def insecure_binds(self) -> tuple[Bind, ...]:
        """What to listen on without TLS, besides `binds`."""
        return tuple(parse_insecure_bind(text) for text in self.insecure_bind)

    @property
    def binds(self) -> tuple[Bind, ...]:
        """What to listen on, as far as it was said; empty means inherited sockets, else the default address."""
        binds = [parse_bind(text) for text in self.bind]
        if self.host is not None or self.port is not None:
            binds.append(TcpBind(self.host or DEFAULT_HOST, DEFAULT_PORT if self.port is None else self.port))
        if self.uds is not None:
            binds.append(UnixBind(self.uds))
        if self.fd is not None:
            binds.append(FdBind(self.fd, None))
        return tuple(binds)


def _rows() -> Iterator[Row]:
    for field in dataclasses.fields(Settings):
        metadata = dict(field.metadata)
        metadata["variables"] = (sources.PREFIX + field.name.upper(), *metadata["variables"])
        yield Row(name=field.name, default=field.default, **metadata)


TABLE: Final = tuple(_rows())
"""The settings in the order of the help text."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, and where they came from."""

    settings: Settings
    origins: Mapping[str, str]
    """By setting: `flag --port`, `environment APPSERVER_PORT`, `file PATH` or `default`."""
    warnings: tuple[str, ...]
    """Lines for the log: what was passed over and why."""
    variables: Mapping[str, str]
    """What `--env-file` adds to the environment; to be set before the application is imported."""


def command_line(
    prog: str = "appserver", description: str = "Serve an ASGI or WSGI application over HTTP/1.1, HTTP/2 and WebSocket."
) -> ArgumentParser:
    """Make the parser of a program that takes the settings; flags of its own can be added."""
    return arguments.build(TABLE, prog, description)


def load(argv: Sequence[str], environ: Mapping[str, str]) -> Loaded:
    """Read the settings from the command line, the environment and the file that these name.

    Args:
        argv: Arguments, without the program's name.
        environ: The environment; it is not changed.

    Raises:
        UsageError: A name or a value that cannot be taken, or a file that cannot be read.
        SystemExit: After `--help`.
    """
    return resolve(arguments.read(command_line(), argv).given, environ)


def resolve(given: Sequence[arguments.Given], environ: Mapping[str, str]) -> Loaded:
    """Do what `load` does, for a command line that is parsed already."""
    rows = {row.name: row for row in TABLE}
    flags, variables = sources.from_flags(given), sources.from_environment(environ)
    config = sources.pick(rows["config"], flags, variables)
    table, path = sources.read_toml(config[0], rows.keys() - {"config"})
    file = sources.from_file(table, path)

    env_file = sources.pick(rows["env_file"], flags, variables, file)
    named, path = sources.read_variables(env_file[0])
    added = {name: value for name, value in named.items() if name not in environ}
    late = sources.from_environment(added, path)

    picked = {name: sources.pick(row, flags, variables, late, file) for name, row in rows.items()}
    # A file of variables cannot change which files were read.
    picked |= {"config": config, "env_file": env_file}
    return Loaded(
        settings=Settings(**{name: value for name, (value, _) in picked.items()}),
        origins={name: origin for name, (_, origin) in picked.items()},
        warnings=tuple(sources.unknown_variables({**environ, **added}, {row.variables[0] for row in TABLE})),
        variables=added,
    )
