"""Real connections of `net.connection` on uvloop, in this process, with the client's end at hand."""

import asyncio
import os
import socket
import sys
from functools import partial
from typing import Final, TextIO

import uvloop

from appserver.asgi.fields import Defaults
from appserver.asgi.service import Service, WebSockets
from appserver.net import turn
from appserver.net.endpoint import Endpoint, Timeouts
from appserver.net.serial import SerialConnection
from appserver.telemetry.access import AccessLog
from appserver.telemetry.log import build
from appserver.wire.engine import Limits
from appserver.wire.select import pick
from tests.budgets.application import app
from tests.budgets.workloads import Workload

_FIELDS: Final = Defaults([(b"date", b"Sun, 06 Nov 1994 08:49:37 GMT"), (b"server", b"appserver")])
_TIMEOUTS: Final = Timeouts(header=10, body=30, write=30, keep_alive=5, linger=2, min_rate=500)
_WEBSOCKETS: Final = WebSockets(
    max_size=1024**2,
    max_queue=32,
    open_timeout=10,
    close_timeout=10,
    ping_interval=20,
    ping_timeout=20,
    window_bits=12,
    deflate_memory=0,
)
# However busy the machine is, a turn is not to be cut in two for the time that it takes: that is two calls more.
vars(turn)["RUN_SECONDS"] = 10.0

_PATIENCE: Final = 10.0
_READ_SIZE: Final = 64 * 1024


def make_loop() -> asyncio.AbstractEventLoop:
    """The loop of a real worker."""
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def make_endpoint(name: str, stream: TextIO | None = None) -> Endpoint:
    """What a worker's listener has, on the running loop.

    Args:
        name: The engine.
        stream: Where access records go, as JSON lines; None switches them off.
    """
    loop = asyncio.get_running_loop()
    log = build("info", "json", stream or sys.stderr)
    access = None
    if stream is not None:
        access = AccessLog(log)
        access.start(loop)
    return Endpoint(
        name="http",
        service=Service(application=app, log=log, access=access, fields=_FIELDS, websockets=_WEBSOCKETS),
        loop=loop,
        make_engine=partial(pick(name), Limits(), websocket=True),
        timeouts=_TIMEOUTS,
        eager=sys.version_info >= (3, 12),
    )


async def connect(endpoint: Endpoint, listener: socket.socket) -> int:
    """Open a connection over TCP.

    Returns:
        The client's end: a bare descriptor, which takes no memory that a probe could mistake for the server's.
    """
    client = socket.create_connection(listener.getsockname())
    client.setblocking(False)
    ours, _ = listener.accept()
    ours.setblocking(False)
    await endpoint.loop.connect_accepted_socket(partial(SerialConnection, endpoint), ours)
    return client.detach()


async def exchange(client: int, workload: Workload) -> None:
    """Send a workload at once, and return when its answers have come and the loop has nothing left to do.

    Raises:
        TimeoutError: They did not come.
        ConnectionError: The server closed before, or answered with an error.
    """
    # Small enough for the socket's buffer: the server finds all of it at its first look.
    assert os.write(client, workload.sent) == len(workload.sent)
    received = b""
    async with asyncio.timeout(_PATIENCE):
        while not workload.is_answered(received):
            await _until_readable(client)
            data = os.read(client, _READ_SIZE)
            if not data:
                raise ConnectionError(f"{workload.name}: closed after {received!r}")
            received += data
            if not received.startswith(workload.begin):
                raise ConnectionError(f"{workload.name}: answered with {received!r}")
    for _ in range(3):  # what the last call-back has left: tasks that end, and what they call
        await asyncio.sleep(0)


async def _until_readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    readable = loop.create_future()
    loop.add_reader(descriptor, readable.set_result, None)
    try:
        await readable
    finally:
        loop.remove_reader(descriptor)
