"""Where to listen: the grammar of binds, as values.

    host:port  [v6]:port  :port     TcpBind
    unix:PATH  unix:@NAME           UnixBind
    fd://N     fd://NAME            FdBind

Options may follow any of them: `127.0.0.1:8000?tls=off&http2=off`.

Nothing is looked up or opened here: `net.listeners` makes sockets of these.
"""

import re
from dataclasses import dataclass, fields, replace
from typing import Final, TypeAlias

from appserver import kinds
from appserver.kinds import Kind, UnfitError, parse_integer

SUN_PATH_MAX: Final = 107
"""Bytes of a UNIX socket's path: sun_path has 108, with the NUL behind a path or before an abstract name (unix(7))."""
BIND_EXPECTED: Final = "expected host:port, [v6]:port, :port, unix:PATH, unix:@NAME, fd://N or fd://NAME"
STATSD_PORT: Final = 8125
# sd_listen_fds_with_names(3): printable ASCII without ":" and at most 255 characters.
_FD_NAME: Final = re.compile(r"[!-9;-~]{1,255}")
_HOST: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is said behind a bind; None leaves it to the other settings."""

    tls: bool | None = None
    http2: bool | None = None

    @property
    def text(self) -> str:
        """As it stands behind the bind: `?tls=off`, or nothing."""
        said = {"tls": self.tls, "http2": self.http2}
        words = [f"{name}={'on' if value else 'off'}" for name, value in said.items() if value is not None]
        return f"?{'&'.join(words)}" if words else ""


@dataclass(frozen=True, slots=True)
class TcpBind(Options):
    """A TCP address; `host` is empty for every address of the machine, IPv4 and IPv6. Port 0 lets the kernel choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return (f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}") + self.text


@dataclass(frozen=True, slots=True)
class UnixBind(Options):
    """A UNIX socket; a `path` that starts with `@` is a name in the abstract namespace (unix(7))."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}{self.text}"


@dataclass(frozen=True, slots=True)
class FdBind(Options):
    """An inherited socket, by number or by the name systemd gave it (FileDescriptorName=); exactly one is set."""

    fd: int | None
    name: str | None

    def __str__(self) -> str:
        return f"fd://{self.name if self.fd is None else self.fd}{self.text}"


Bind: TypeAlias = TcpBind | UnixBind | FdBind


def parse_bind(text: str) -> Bind:
    """Read one bind: `host:port`, `[v6]:port`, `:port`, `unix:PATH`, `unix:@NAME`, `fd://N`, `fd://NAME`.

    Options may follow: `?tls=off&http2=off`.

    Raises:
        UnfitError: It is none of these, or has an option that there is not.
    """
    address, mark, options = text.partition("?")
    bind = _parse_address(address)
    if not mark:
        return bind
    said = _parse_options(options)
    return replace(bind, tls=said.get("tls"), http2=said.get("http2"))


def parse_insecure_bind(text: str) -> Bind:
    """Read one bind of `--insecure-bind`, whose listener does not speak TLS."""
    bind = parse_bind(text)
    if bind.tls:
        raise UnfitError("expected an address without tls=on: --insecure-bind is for listeners without TLS")
    return replace(bind, tls=False)


def _parse_options(text: str) -> dict[str, bool]:
    known = [field.name for field in fields(Options)]
    options = {}
    for item in text.split("&"):
        name, _, value = item.partition("=")
        if name not in known:
            raise UnfitError(f"expected {' or '.join(known)} behind the question mark", kinds.nearest(name, known))
        if value not in ("on", "off"):
            raise UnfitError(f"expected {name}=on or {name}=off behind the question mark")
        options[name] = value == "on"
    return options


def _parse_address(text: str) -> Bind:
    if text.startswith("unix:"):
        return UnixBind(parse_socket_path(text.removeprefix("unix:")))
    if text.startswith("fd://"):
        name = text.removeprefix("fd://")
        if name.isascii() and name.lstrip("+-").isdigit():
            return FdBind(parse_fd(name), None)
        if _FD_NAME.fullmatch(name):
            return FdBind(None, name)
        raise UnfitError(BIND_EXPECTED)
    if text.startswith("/"):
        raise UnfitError(BIND_EXPECTED, f"unix:{text}")
    host, colon, port = text.rpartition(":")
    if not colon:
        raise UnfitError(BIND_EXPECTED, f"{text}:8000" if _HOST.fullmatch(text) and not text.isdigit() else None)
    if ":" in host and not host.startswith("["):
        raise UnfitError(BIND_EXPECTED, f"[{host}]:{port}" if _is_ipv6(host) else None)
    try:
        return TcpBind(parse_host(host) if host else "", kinds.PORT.parse(port))
    except UnfitError:
        raise UnfitError(BIND_EXPECTED) from None


def parse_socket_path(text: str) -> str:
    """Check the path or `@name` of a UNIX socket, and reduce the three slashes of `unix:///run/x` to one."""
    path = "/" + text.lstrip("/") if text.startswith("//") else text
    if path in ("", "@") or "\0" in path or "?" in path:  # a question mark begins the options of a bind
        raise UnfitError
    # An abstract name's "@" stands for the NUL in front, which sun_path has room for.
    if len(path.encode("utf-8", "surrogateescape")) > SUN_PATH_MAX + path.startswith("@"):
        raise UnfitError(f"expected at most {SUN_PATH_MAX} bytes, the kernel's limit for a UNIX socket's path")
    return path


def parse_statsd(text: str) -> TcpBind | UnixBind:
    """Read the address of a server of statsd: `host`, `host:port`, `unix:PATH`, `unix://PATH`.

    Raises:
        UnfitError: It is none of these.
    """
    bare = text if ":" in text or text.startswith("/") else f"{text}:{STATSD_PORT}"
    bind = _parse_address(bare)
    if isinstance(bind, FdBind) or (isinstance(bind, TcpBind) and not (bind.host and bind.port)):
        raise UnfitError
    return bind


def parse_fd(text: str) -> int:
    """Read a file descriptor's number."""
    return parse_integer(text, 0, 2**31 - 1)


def parse_host(text: str) -> str:
    """Check a host name or IP address; the brackets of `[::1]` are taken off."""
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
        if not _is_ipv6(text):
            raise UnfitError
        return text
    if not _HOST.fullmatch(text) and not _is_ipv6(text):
        raise UnfitError
    return text


def _is_ipv6(text: str) -> bool:
    import ipaddress  # noqa: PLC0415 - 3 ms that few starts need

    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _bind_list(text: str) -> tuple[str, ...]:
    binds = tuple(item.strip() for item in text.split(",") if item.strip())
    for bind in binds:
        parse_bind(bind)
    return binds


def _insecure_bind_list(text: str) -> tuple[str, ...]:
    binds = _bind_list(text)
    for bind in binds:
        parse_insecure_bind(bind)
    return binds


def _statsd(text: str) -> str:
    try:
        return str(parse_statsd(text))
    except UnfitError as error:
        raise UnfitError(nearest=error.nearest) from None


def _control(text: str) -> str:
    if not text.startswith("unix:"):
        raise UnfitError(nearest=f"unix:{text}" if text.startswith(("/", "@")) else None)
    return str(_parse_address(text))


STATSD: Final = Kind(_statsd, "expected host:port or unix:PATH", "HOST:PORT")
HOST: Final = Kind(parse_host, "expected a host name or an IP address", "HOST")
SOCKET_PATH: Final = Kind(parse_socket_path, "expected the path of a UNIX socket, or @NAME for an abstract one", "PATH")
CONTROL: Final = Kind(_control, "expected unix:PATH or unix:@NAME", "unix:PATH")
BINDS: Final = Kind(_bind_list, BIND_EXPECTED, "BIND", many=True, show=", ".join)
INSECURE_BINDS: Final = Kind(_insecure_bind_list, BIND_EXPECTED, "BIND", many=True, show=", ".join)
