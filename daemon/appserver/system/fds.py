"""Descriptors: how many this process may have, and the sockets that it is handed.

Sockets come by sd_listen_fds(3), and by `--fd N` for everybody else. A descriptor is a number that somebody else
chose, so each is asked what it is before it is believed. They arrive blocking and inheritable; from here on they are
neither.
"""

import os
import resource
import socket
import stat
import struct
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from fcntl import F_DUPFD_CLOEXEC, fcntl
from pathlib import Path
from typing import Final

from systemd.daemon import listen_fds_with_names

from appserver.errors import ListenError

_VARIABLES: Final = ("LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES")
_STANDARD_FDS: Final = range(3)
_UCRED: Final = struct.Struct("iII")
_OVERFLOW: Final = Path("/proc/sys/kernel/overflowuid")
_UID_MAP: Final = Path("/proc/self/uid_map")
_WHOLE: Final = ["0", "0", str(2**32 - 1)]
"""The map of the first user namespace, which knows everybody."""

LIMIT_MAX: Final = 512 * 1024
"""The hard limit that systemd gives to services. Some containers allow a thousand million, and there are programs that
close every number up to it before they start another one."""

_KINDS: Final[Mapping[int, str]] = {
    socket.SOCK_DGRAM: "datagram",
    socket.SOCK_SEQPACKET: "sequential packet",
    socket.SOCK_RAW: "raw",
}
_FILE_TYPES: Final = {
    stat.S_IFREG: "a regular file",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


@dataclass(frozen=True, slots=True)
class InheritedSocket:
    """A stream socket that somebody else opened.

    Attributes:
        sock: Non-blocking, not inheritable; whoever closes it closes our end of it.
        name: From LISTEN_FDNAMES, which is FileDescriptorName= of the socket unit.
        fd: The number that it was handed over as; `sock.fileno()` is another for 0, 1 and 2.
        listening: True for a listener, False for one connection (Accept=yes, inetd).
        activated: It came by sd_listen_fds(3), and not by its number alone.
    """

    sock: socket.socket
    name: str
    fd: int
    listening: bool
    activated: bool = False


@dataclass(frozen=True, slots=True)
class Inherited:
    """What the service manager handed over.

    Attributes:
        sockets: In the order of their numbers, which says nothing: use the names.
        ignored: Why sockets in the environment are not ours, for the log; None when there is nothing to say.
    """

    sockets: tuple[InheritedSocket, ...] = ()
    ignored: str | None = None


def raise_limit() -> None:
    """Raise the number of descriptors that this process may have as far as it is allowed to.

    The soft limit is 1024 nearly everywhere, for the sake of programs with select(2) (getrlimit(2)); an event
    loop uses epoll(7). A sandbox may forbid it: then the unit has to say it.
    """
    with suppress(OSError, ValueError):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = LIMIT_MAX if hard == resource.RLIM_INFINITY else min(hard, LIMIT_MAX)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def occupy_standard() -> None:
    """Put /dev/null where standard input, output or error is closed.

    The next that is opened would get that number: a socket, in whose place a child process then has its own stream.
    """
    for number in _STANDARD_FDS:
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the least number that is free


def read_limit() -> int:
    """How many descriptors this process may have; 2**63 - 1 for any number of them."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else sys.maxsize


def take_inherited() -> Inherited:
    """Take the sockets that systemd handed to this process (sd_listen_fds_with_names(3)).

    The variables are gone from the environment afterwards, whatever happens: a child process that believed them would
    serve sockets that it does not have.

    Raises:
        ListenError: The variables contradict each other, or one of the descriptors cannot be served.
    """
    try:
        reason = _find_stranger(os.environ)
        if reason is not None or "LISTEN_FDS" not in os.environ:
            return Inherited(ignored=reason)
        count, names = os.environ["LISTEN_FDS"], os.environ.get("LISTEN_FDNAMES")
        try:
            found: dict[int, str] = listen_fds_with_names(unset_environment=True)
        except OSError as error:
            shown = f"LISTEN_FDS={count!r}" if names is None else f"LISTEN_FDS={count!r}, LISTEN_FDNAMES={names!r}"
            raise ListenError(f"{shown}: the inherited sockets cannot be taken: {error.strerror}") from error
    finally:
        for variable in _VARIABLES:
            os.environ.pop(variable, None)
    taken: list[InheritedSocket] = []
    try:
        taken.extend(replace(adopt(fd, name), activated=True) for fd, name in found.items())
    except ListenError:
        for item in taken:
            item.sock.close()
        raise
    return Inherited(tuple(taken))


def adopt(fd: int, name: str) -> InheritedSocket:
    """Take over a descriptor as a stream socket, listening or connected.

    Its family is asked, never assumed. Standard input, output and error are left on /dev/null where they were the
    socket itself: closing it must hang up, and nothing that is printed may reach the client.

    Args:
        fd: The descriptor.
        name: What to call it.

    Raises:
        ListenError: It is not open, not a socket, not a stream, or neither listening nor connected. It is left as it
            was.
    """
    where = f"fd {fd} ({name})"
    try:
        status = os.fstat(fd)
    except (OSError, OverflowError) as error:
        raise ListenError(f"{where}: not open") from error
    if not stat.S_ISSOCK(status.st_mode):
        raise ListenError(f"{where}: not a socket but {_describe(fd, status)}")
    sock = socket.socket(fileno=fd)
    try:
        listening = _find_role(sock, where)
    except BaseException:
        sock.detach()
        raise
    if fd in _STANDARD_FDS:
        sock.detach()
        sock = socket.socket(fileno=fcntl(fd, F_DUPFD_CLOEXEC, _STANDARD_FDS.stop))
    for standard in _STANDARD_FDS:
        with suppress(OSError):  # not open: nothing to release
            if os.path.samestat(os.fstat(standard), status):
                _silence(standard)
    sock.set_inheritable(False)
    sock.setblocking(False)
    return InheritedSocket(sock, name, fd, listening)


def read_peer(sock: socket.socket) -> tuple[int, int, int]:
    """PID, UID and GID of whoever connected a UNIX socket, or listens at its other end (unix(7), SO_PEERCRED).

    The PID is 0 where the process is of another PID namespace.
    """
    pid, uid, gid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return pid, uid, gid


def is_nameless(uid: int) -> bool:
    """Whether a peer's UID may stand for any user: for all that this user namespace does not know (user_namespaces(7)).

    With `PrivateUsers=yes` these are all but root and the service's own user, and all have nobody's number.
    """
    try:
        if uid != int(_OVERFLOW.read_bytes()):
            return False
        return not any(line.split() == _WHOLE for line in _UID_MAP.read_text().splitlines())
    except (OSError, ValueError):
        return False  # a kernel without user namespaces, or no /proc: then there is one namespace for us


def _find_role(sock: socket.socket, where: str) -> bool:
    """True for a listening socket, False for a connected one."""
    kind = sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
    if kind != socket.SOCK_STREAM:
        raise ListenError(f"{where}: a {_KINDS.get(kind, 'strange')} socket, where a stream socket is needed")
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return True
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        return False  # a connection that its client has reset before we got here
    try:
        sock.getpeername()
    except OSError as error:
        raise ListenError(f"{where}: a stream socket that is neither listening nor connected") from error
    return False


def _silence(fd: int) -> None:
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, fd)
    os.close(null)


def _describe(fd: int, status: os.stat_result) -> str:
    kind = _FILE_TYPES.get(stat.S_IFMT(status.st_mode), "something else")
    with suppress(OSError):
        return f"{kind} ({Path(f'/proc/self/fd/{fd}').readlink()})"
    return kind


def _find_stranger(environ: Mapping[str, str]) -> str | None:
    """Why LISTEN_FDS is not meant for this process; None when it is, or when there is none."""
    if "LISTEN_FDS" not in environ:
        return None
    pid = environ.get("LISTEN_PID")
    if pid is None:
        return "LISTEN_FDS ignored: LISTEN_PID is not set, so it is not known for which process it is"
    if pid != str(os.getpid()):
        return f"LISTEN_FDS ignored: it is for process {pid!r}, and this is {os.getpid()}"
    identity = environ.get("LISTEN_PIDFDID")
    if identity is not None and identity != (own := _find_pidfd_id()) and own is not None:
        return f"LISTEN_FDS ignored: it is for an earlier process {pid} (LISTEN_PIDFDID {identity!r})"
    return None


def _find_pidfd_id() -> str | None:
    """The inode of our own pidfd, which unlike a pid is never used again; None before Linux 6.9.

    Older kernels give every pidfd the inode that all anonymous files share; an eventfd shows which that is.
    """
    try:
        mine = os.pidfd_open(os.getpid())
    except OSError:
        return None
    other = os.eventfd(0)
    try:
        status = os.fstat(mine)
        return None if os.path.samestat(status, os.fstat(other)) else str(status.st_ino)
    finally:
        os.close(mine)
        os.close(other)
