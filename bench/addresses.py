"""Where a contender listens."""

import socket
from pathlib import Path
from typing import TypeAlias

Address: TypeAlias = int | Path
"""A port on 127.0.0.1, or the path of a UNIX socket."""


def find_port() -> int:
    """A TCP port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def open_connection(address: Address, timeout: float) -> socket.socket:
    """Connect.

    Args:
        address: Where to.
        timeout: Seconds that this, and each later call on the socket, may take.

    Raises:
        OSError: Nobody listens there, or it took too long.
    """
    unix = isinstance(address, Path)
    connection = socket.socket(socket.AF_UNIX if unix else socket.AF_INET, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        connection.connect(str(address) if unix else ("127.0.0.1", address))
    except BaseException:
        connection.close()
        raise
    return connection
