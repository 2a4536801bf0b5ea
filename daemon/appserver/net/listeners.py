"""Listening sockets: bound here, or handed over by the service manager."""

import errno
import fcntl
import grp
import os
import pwd
import socket
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import Final

from appserver.binds import Options
from appserver.errors import ListenError
from appserver.settings import DEFAULT_HOST, DEFAULT_PORT, FdBind, Settings, TcpBind, UnixBind
from appserver.settings import Bind as BindTo
from appserver.system.fds import InheritedSocket, adopt, read_peer
from appserver.telemetry.log import Log

CONTROL: Final = "control"
"""The name of an inherited socket that takes the control role; every other name serves the application."""

PLAIN: Final = "http"
ENCRYPTED: Final = "https"
"""Names of inherited sockets that say whether TLS is spoken; with any other name it is, if there is a certificate."""


LOCK_TRIES: Final = 40
LOCK_SECONDS: Final = 0.05
"""How often and at what distance the lock on a socket's folder is tried: two seconds in all."""


@dataclass(slots=True)
class Listener:
    """A socket to serve.

    Attributes:
        sock: Listening, or connected when `connected` is set.
        name: For records: an address, a path, or the name systemd gave it.
        control: It takes the control role.
        connected: It is one connection, accepted by systemd (Accept=yes) or inetd.
        inherited: Not ours to empty or to remove.
        activated: The next connection to it starts us again: it is from systemd, and not only a descriptor.
        tls: TLS is spoken.
        http2: HTTP/2 is served besides HTTP/1.1.
        path: The UNIX socket's path when we made it, with what stat(2) said of it then.
    """

    sock: socket.socket
    name: str
    control: bool = False
    connected: bool = False
    inherited: bool = False
    activated: bool = False
    tls: bool = False
    http2: bool = False
    path: tuple[Path, os.stat_result] | None = None

    @property
    def url(self) -> str:
        """What a client or an operator would write for it."""
        text = address_text(self.sock)
        return text.replace("http:", "https:", 1) if self.tls else text

    def close(self) -> None:
        """Close it, once, and remove the path, if that is still ours."""
        if self.path is not None:
            path, ours = self.path
            self.path = None
            with suppress(OSError):
                if os.path.samestat(path.lstat(), ours):
                    path.unlink()
        self.sock.close()


def address_text(sock: socket.socket) -> str:
    """A socket's own address: a URL for TCP, `unix:PATH` or `unix:@NAME` for UNIX sockets."""
    name = sock.getsockname()
    if isinstance(name, tuple):
        host, port = name[0], name[1]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    text = os.fsdecode(name)
    return "unix:@" + text[1:] if text.startswith("\0") else f"unix:{text}"


def open_listeners(settings: Settings, inherited: Iterable[InheritedSocket], log: Log) -> list[Listener]:
    """Everything that the settings and the service manager want served.

    Without an address in the settings the inherited sockets are taken, and without those 127.0.0.1:8000. With
    addresses, of the inherited sockets only those that `fd://` names are served, and the control socket. Addresses of
    `--insecure-bind` come on top. `--control` is there beside an inherited control socket: what the units say of it
    holds wherever else one is.

    Raises:
        ListenError: One of them cannot be had; those opened before it are closed again.
    """
    twice = find_twice(settings)
    if twice is not None:
        raise ListenError(f"{twice}: it is named twice")
    handed = list(inherited)
    listeners = [_inherit(item) for item in handed if item.name == CONTROL]
    for listener in listeners:
        if listener.sock.family != socket.AF_UNIX:
            log.warning(
                f"The control socket {listener.url} is no UNIX socket: whoever reaches it can ask, and nobody can order"
            )
    others = [item for item in handed if item.name != CONTROL]
    used: set[int] = set()
    try:
        for bind in settings.insecure_binds:
            listeners += _open(bind, settings, others, used)
        if settings.binds:
            for bind in settings.binds:
                listeners += _open(bind, settings, others, used)
            for item in others:
                if item.fd not in used:
                    log.warning(
                        f"The inherited socket {item.name} (fd {item.fd}) is not used: no --bind names it",
                        code="socket_ignored",
                    )
        elif others:
            listeners += [_serve(_inherit(item), Options(), settings) for item in others if item.fd not in used]
        else:
            listeners += _open(TcpBind(DEFAULT_HOST, DEFAULT_PORT), settings, others, used)
        if settings.control is not None and settings.control not in [one.url for one in listeners if one.control]:
            listeners.append(_bind_unix(settings.control.removeprefix("unix:"), settings, control=True))
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def find_twice(settings: Settings) -> str | None:
    """The first address that the settings name twice; it would be in use by ourselves."""
    named = [
        f"{bind.host}:{bind.port}" if isinstance(bind, TcpBind) else f"unix:{bind.path}"
        for bind in (*settings.insecure_binds, *settings.binds)
        if (isinstance(bind, TcpBind) and bind.port) or isinstance(bind, UnixBind)
    ]
    if settings.control is not None:
        named.append(settings.control)
    return next((name for at, name in enumerate(named) if name in named[:at]), None)


def _open(bind: BindTo, settings: Settings, others: list[InheritedSocket], used: set[int]) -> list[Listener]:
    if isinstance(bind, TcpBind):
        opened = _bind_tcp(bind, settings)
    elif isinstance(bind, UnixBind):
        opened = [_bind_unix(bind.path, settings)]
    else:
        opened = _find_inherited(bind, others, used)
    try:
        return [_serve(listener, bind, settings) for listener in opened]
    except BaseException:
        for listener in opened:
            listener.close()
        raise


def _serve(listener: Listener, options: Options, settings: Settings) -> Listener:
    """Settle what is spoken on a listener: as its bind says, else as its name says, else as the settings say."""
    said = options.tls
    if said is None and listener.inherited:
        said = {PLAIN: False, ENCRYPTED: True}.get(listener.name)
    if said and not settings.encrypted:
        raise ListenError(f"{listener.name}: TLS is to be spoken here, and there is no certificate: give --tls-cert")
    listener.tls = settings.encrypted if said is None else said
    listener.http2 = settings.http2 if options.http2 is None else options.http2
    return listener


def _inherit(item: InheritedSocket) -> Listener:
    if not item.listening and item.name == CONTROL:
        raise ListenError(f"the inherited socket {item.name} (fd {item.fd}) is connected, and must be listening")
    return Listener(
        item.sock,
        item.name,
        control=item.name == CONTROL,
        connected=not item.listening,
        inherited=True,
        activated=item.activated and item.listening,
    )


def _find_inherited(bind: FdBind, others: list[InheritedSocket], used: set[int]) -> list[Listener]:
    if bind.name is not None:
        found = [item for item in others if item.name == bind.name and item.fd not in used]
        if not found:
            names = ", ".join(sorted({item.name for item in others})) or "none"
            raise ListenError(f"fd://{bind.name}: no inherited socket has that name; there are: {names}")
    else:
        fd = bind.fd if bind.fd is not None else 0
        if fd in used:
            raise ListenError(f"fd://{fd}: it is named twice")
        found = [item for item in others if item.fd == fd] or [adopt(fd, f"fd{fd}")]
    used.update(item.fd for item in found)
    return [_inherit(item) for item in found]


def _bind_tcp(bind: TcpBind, settings: Settings) -> list[Listener]:
    """Listen on every address that the host stands for: `localhost` is two."""
    where = f"[{bind.host}]:{bind.port}" if ":" in bind.host else f"{bind.host}:{bind.port}"
    try:
        found = socket.getaddrinfo(
            bind.host or None, bind.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )
    except OSError as error:
        raise ListenError(f"{where}: {bind.host!r} cannot be resolved: {error.strerror or error}") from error
    listeners: list[Listener] = []
    port = bind.port
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            try:
                sock = socket.socket(family, kind, protocol)
            except OSError as error:
                if error.errno == errno.EAFNOSUPPORT and len(found) > 1:
                    continue  # a host without IPv6
                raise ListenError(_explain(where, error)) from error
            listener = Listener(sock, where)
            listeners.append(listener)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                # [::] and 0.0.0.0 are two listeners that can stand side by side, whatever the host's bindv6only says.
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                sock.bind((address[0], port, *address[2:]))
                sock.listen(settings.backlog)
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL and len(found) > 1 and bind.host == "localhost":
                    listeners.remove(listener)
                    sock.close()
                    continue  # /etc/hosts names ::1, and the host has IPv6 switched off
                raise ListenError(_explain(where, error)) from error
            sock.setblocking(False)
            port = sock.getsockname()[1]  # with port 0 the first one chooses for all
            listener.name = address_text(sock).removeprefix("http://")
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    if not listeners:
        raise ListenError(f"{where}: no address of it can be listened on")
    return listeners


def _bind_unix(path: str, settings: Settings, *, control: bool = False) -> Listener:
    """Listen on a UNIX socket of our own.

    A stale file is replaced. Until its owner and mode are set the file has no permissions at all, and until then
    nobody can connect.
    """
    where = f"unix:{path}"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        if path.startswith("@"):
            sock.bind("\0" + path[1:])
            sock.listen(settings.backlog)
            return Listener(sock, path, control=control)
        target = Path(path)
        with _locked(target.parent):
            _remove_stale(target)
            before = os.umask(0o777)
            try:
                sock.bind(path)
            finally:
                os.umask(before)
            listener = Listener(sock, path, control=control, path=(target.absolute(), target.lstat()))
            try:
                _own(target, settings, control=control)
                sock.listen(settings.backlog)
            except BaseException:
                listener.close()
                raise
            return listener
    except ListenError:
        sock.close()
        raise
    except OSError as error:
        sock.close()
        raise ListenError(_explain(where, error)) from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep others that start in this moment from taking our file, bound but not listening yet, for a stale one.

    A courtesy among ourselves: in /tmp anybody may hold the lock, so after a while we go on without it; and without
    any in a folder that may be written and not be read.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        yield
        return
    try:
        for _ in range(LOCK_TRIES):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                sleep(LOCK_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody listens on; raise when somebody does, or when it is no socket."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ListenError(f"unix:{path}: there is a file that is no socket, and it is not touched")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except (TimeoutError, BlockingIOError):
            who = "another process"  # a full backlog is somebody's
        except OSError as error:
            raise ListenError(_explain(f"unix:{path}", error)) from error
        else:
            pid, _, _ = read_peer(probe)
            if pid == os.getpid():
                raise ListenError(f"unix:{path}: it is named twice, by another name")
            if pid == 1:
                raise ListenError(
                    f"unix:{path}: the service manager (PID 1) is listening there; stop its socket unit, or choose "
                    "another path"
                )
            who = f"another process (PID {pid})" if pid else "another process"  # of another PID namespace
    raise ListenError(f"unix:{path}: {who} is listening there; stop it, or choose another path")


def _own(path: Path, settings: Settings, *, control: bool) -> None:
    uid = _find_id("--uds-owner", settings.uds_owner, lambda name: pwd.getpwnam(name).pw_uid)
    gid = _find_id("--uds-group", settings.uds_group, lambda name: grp.getgrnam(name).gr_gid)
    if uid != -1 or gid != -1:
        os.chown(path, uid, gid)
    path.chmod(0o600 if control else settings.uds_mode)


def _find_id(flag: str, name: str | None, look_up: Callable[[str], int]) -> int:
    if name is None:
        return -1
    if name.isdecimal():
        return int(name)
    try:
        return look_up(name)
    except KeyError:
        raise ListenError(f"{flag} {name}: this host knows no such name") from None


def _explain(where: str, error: OSError) -> str:
    hints = {
        errno.EADDRINUSE: "the address is in use; `ss -ltnp` shows by whom",
        errno.EADDRNOTAVAIL: "no interface of this host has that address",
        errno.EACCES: "permission denied; a port below 1024 needs CAP_NET_BIND_SERVICE or a socket unit",
        errno.ENOENT: "its folder does not exist",
        errno.ENAMETOOLONG: "the path is too long for a socket (107 bytes at most)",
    }
    hint = hints.get(error.errno or 0)
    if error.errno == errno.EACCES and where.startswith("unix:"):
        hint = "permission denied"
    return f"{where}: {hint or error.strerror or error}"
