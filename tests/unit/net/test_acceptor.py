import asyncio
import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest

from appserver.net.acceptor import ACCEPT_BATCH, Acceptor
from appserver.net.listeners import Listener
from appserver.net.serial import SerialConnection
from tests.unit.net.serving import GET, Client, Serving, echo, pair

Play: TypeAlias = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]

ROOT: Final = Path(__file__).parents[3]
BACKLOG: Final = 128


def accept(serving: Serving, listener: Listener) -> Acceptor:
    return Acceptor(
        listener, serving.loop, partial(SerialConnection, serving.endpoint), serving.records.log, backlog=BACKLOG
    )


def tcp(*, inherited: bool = False) -> Listener:
    sock = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    sock.setblocking(False)
    return Listener(sock, "tcp", inherited=inherited)


async def call(serving: Serving, listener: Listener) -> Client:
    """Connect, and ask a first question; connections in the backlog are connected as well."""
    client = Client(socket.create_connection(listener.sock.getsockname()), serving.loop)
    serving.clients.append(client)
    await client.send(GET)
    return client


def test_connections_are_accepted_and_served(run: Play) -> None:
    async def scene() -> None:
        serving, listener = Serving(echo), tcp()
        acceptor = accept(serving, listener)
        acceptor.start()
        clients = [await call(serving, listener) for _ in range(3 * ACCEPT_BATCH)]
        for client in clients:
            assert (await client.responses(1))[0].status == 200
        acceptor.stop()
        await serving.end()

    run(scene)


def test_accepted_tcp_sockets_do_not_delay_small_answers(run: Play) -> None:
    async def scene() -> None:
        serving, listener = Serving(echo), tcp()
        acceptor = accept(serving, listener)
        acceptor.start()
        client = await call(serving, listener)
        await client.responses(1)
        transport = serving.connection._transport
        assert transport is not None
        sock = transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        acceptor.stop()
        await serving.end()

    run(scene)


def test_unix_sockets_are_accepted(run: Play) -> None:
    async def scene() -> None:
        with tempfile.TemporaryDirectory(prefix="as-") as folder, socket.socket(socket.AF_UNIX) as sock:
            sock.bind(f"{folder}/app.sock")
            sock.listen()
            sock.setblocking(False)
            serving = Serving(echo)
            acceptor = accept(serving, Listener(sock, "unix"))
            acceptor.start()
            client = Client(socket.socket(socket.AF_UNIX), serving.loop)
            serving.clients.append(client)
            await serving.loop.sock_connect(client.sock, f"{folder}/app.sock")
            await client.send(GET)
            await client.responses(1)
            acceptor.stop()
            await serving.end()

    run(scene)


def test_a_connected_socket_is_served_as_it_is(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(echo)
        ours, theirs = pair()
        client = Client(theirs, serving.loop)
        serving.clients.append(client)
        acceptor = accept(serving, Listener(ours, "connection", connected=True, inherited=True))
        acceptor.start()
        await client.send(GET)
        assert (await client.responses(1))[0].status == 200
        acceptor.stop()
        await serving.end()

    run(scene)


def test_stopping_serves_what_waits_in_the_backlog_and_refuses_what_comes_after(run: Play) -> None:
    async def scene() -> None:
        serving, listener = Serving(echo), tcp()
        acceptor = accept(serving, listener)
        acceptor.start()
        address = listener.sock.getsockname()
        waiting = [socket.create_connection(address) for _ in range(3 * ACCEPT_BATCH)]  # the loop has not turned since
        clients = [Client(sock, serving.loop) for sock in waiting]
        serving.clients += clients
        acceptor.stop()
        await acceptor.settled()
        assert len(serving.endpoint.connections) == len(clients)
        for client in clients:
            await client.send(GET)
            assert (await client.responses(1))[0].status == 200
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
        await serving.end()

    run(scene)


def test_stopping_leaves_the_backlog_of_an_inherited_socket_to_the_next_process(run: Play) -> None:
    async def scene() -> None:
        serving, listener = Serving(echo), tcp(inherited=True)
        acceptor = accept(serving, listener)
        acceptor.start()
        with socket.create_connection(listener.sock.getsockname()):
            acceptor.stop()
            acceptor.stop()
            await serving.quiet()
            assert serving.endpoint.connections == set()
            taken, _ = listener.sock.accept()
            taken.close()
        listener.close()

    run(scene)


def test_a_client_that_has_gone_from_the_backlog_disturbs_nobody(run: Play, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        serving, listener = Serving(echo), tcp()
        acceptor = accept(serving, listener)
        acceptor.start()
        for _ in range(5):
            Client(socket.create_connection(listener.sock.getsockname()), serving.loop).reset()
        client = await call(serving, listener)
        await client.responses(1)
        assert serving.records.tracebacks() == []
        acceptor.stop()
        await serving.end()

    run(scene)
    assert caplog.records == []


STARVED: Final = """
import asyncio, json, os, resource, socket, sys, uvloop
from tests.unit.net.serving import GET, Client, Serving, echo
from tests.unit.net.test_acceptor import accept, tcp

async def main():
    serving, listener = Serving(echo), tcp()
    clients = [Client(socket.socket(), serving.loop) for _ in range(20)]
    acceptor = accept(serving, listener)
    acceptor.start()
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 5, free + 5))
    address = listener.sock.getsockname()
    for client in clients:
        await serving.loop.sock_connect(client.sock, address)
        await client.send(GET)
    await serving.until(lambda: bool(serving.records.of("accept_paused")))
    open_then = len(serving.endpoint.connections)
    answered = 0
    for client in clients:  # in the order of the backlog: each that is closed makes room for one more
        answered += (await client.responses(1))[0].status == 200
        client.close()
    await serving.over()
    last = Client(socket.socket(), serving.loop)  # that all is well again is seen when the backlog is found empty
    await serving.loop.sock_connect(last.sock, address)
    await serving.until(lambda: len(serving.records.of("accept_paused")) == 2)
    last.close()
    await serving.over()
    acceptor.stop()
    told = [[record["level"], record["message"]] for record in serving.records.of("accept_paused")]
    print(json.dumps({"open": open_then, "answered": answered, "told": told}))

make_loop = uvloop.new_event_loop if sys.argv[1] == "uvloop" else asyncio.new_event_loop
with asyncio.Runner(loop_factory=make_loop) as runner:
    runner.run(asyncio.wait_for(main(), 60))
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_without_descriptors_accepting_pauses_says_so_once_and_loses_nothing(loop: str) -> None:
    child = subprocess.run(
        [sys.executable, "-W", "error", "-c", STARVED, loop],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    assert child.stderr == ""
    result = json.loads(child.stdout)
    assert 0 < result["open"] < 20
    assert result["answered"] == 20
    paused, again = result["told"]
    assert paused[0] == "error"
    assert "out of file descriptors" in paused[1]
    assert again == ["info", "Accepting again"]


def test_settling_with_nothing_under_way_is_over_at_once(run: Play) -> None:
    async def scene() -> None:
        serving, listener = Serving(echo), tcp()
        acceptor = accept(serving, listener)
        await asyncio.wait_for(acceptor.settled(), 20)
        listener.close()

    run(scene)
