"""How full a listening socket is: what waits for accept(2), and what the kernel has not let in.

For TCP the kernel tells by socket options. For UNIX sockets only sock_diag(7) does, over netlink, which the units that
we ship do not permit (RestrictAddressFamilies=); there a client waits in connect(2), and none is dropped.
"""

import socket
from collections.abc import Iterable
from struct import unpack_from
from typing import Final

from appserver.net.listeners import Listener
from appserver.telemetry.metrics import Backlog

_TCP_INFO_SIZE: Final = 32
_QUEUE: Final = 24
"""Offset in struct tcp_info of tcpi_unacked and tcpi_sacked: of a listening socket they are the length of its queue and
the limit of that (net/ipv4/tcp.c, tcp_get_info)."""

_SO_MEMINFO: Final = 55  # asm-generic/socket.h; Python has no name for it
_MEMINFO_SIZE: Final = 36
_DROPS: Final = 32
"""Offset of SK_MEMINFO_DROPS (linux/sock_diag.h), the ninth and last of its numbers."""


def read_backlogs(listeners: Iterable[Listener]) -> tuple[Backlog, ...]:
    """The backlogs of those listeners that are there and can tell."""
    found = (read_backlog(listener) for listener in listeners if not (listener.control or listener.connected))
    return tuple(backlog for backlog in found if backlog is not None)


def read_backlog(listener: Listener) -> Backlog | None:
    """How full a listener is; None for a UNIX socket, and for one that is closed."""
    sock = listener.sock
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    try:
        waiting, limit = unpack_from(
            "=II", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE), _QUEUE
        )
        (dropped,) = unpack_from("=I", sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO_SIZE), _DROPS)
        return Backlog(listener.url, waiting, limit, dropped)
    except OSError:
        return None
