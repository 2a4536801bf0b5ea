"""Connections of the control socket: who is at the other end is part of what is asked."""

import socket
from asyncio import Transport
from dataclasses import replace
from typing import Final

from appserver.asgi.control import PEER, Credentials
from appserver.asgi.scope import Scopes
from appserver.net.serial import SerialConnection
from appserver.system.fds import read_peer

STRANGERS: Final = 100
"""Connections, from which on only those are served who may order: others could take all descriptors of a master,
which could start no worker any more."""


class OperatorConnection(SerialConnection):
    """Serves one operator or probe."""

    __slots__ = ()

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Begin; its requests bring along who has connected."""
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        peer = None
        if sock.family == socket.AF_UNIX:
            peer = Credentials(*read_peer(sock))
        service = replace(self._endpoint.service, state={PEER: peer})
        self._scopes = Scopes(service, "http", transport.get_extra_info("sockname"), None)
        if len(self._endpoint.connections) > STRANGERS and not (peer is not None and peer.entitled):
            self.abort()
