"""The load generator for WebSockets: all of them in this process, by epoll(7).

In an echo each connection has one message on its way at any time. In a room there is one message at a time, which one
client sends and all of them hear.
"""

import select
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from time import monotonic
from typing import Final

from bench.addresses import Address
from bench.errors import ContenderError
from bench.load import Answered, summarize
from bench.websocket import WebSocketClient
from bench.workloads import Kind, Workload

_PATIENCE: Final = 15.0
"""Seconds that an answer may take."""
_BATCH: Final = 100
"""WebSockets are opened so many at a time: fewer than wait for accept() in any backlog."""


@contextmanager
def hold_websockets(address: Address, workload: Workload) -> Iterator[list[WebSocketClient]]:
    """Open the workload's WebSockets, have one message answered on each, and close them at the end.

    Raises:
        ContenderError: One was refused, or not answered.
    """
    clients: list[WebSocketClient] = []
    try:
        try:
            while len(clients) < workload.connections:
                batch: list[WebSocketClient] = []
                for _ in range(min(_BATCH, workload.connections - len(clients))):
                    batch.append(WebSocketClient(address, workload, _PATIENCE))
                    clients.append(batch[-1])
                for client in batch:
                    client.ask()
                for client in batch:
                    client.open()
                if workload.kind is not Kind.ROOM:
                    _exchange(batch)
        except OSError as error:
            raise ContenderError(f"WebSocket {len(clients)}: {error}") from error
        yield clients
        with suppress(OSError):  # idle ones may have been closed; who counts them has done so
            _say_goodbye(clients)
    finally:
        for client in clients:
            client.close()


def _exchange(clients: list[WebSocketClient]) -> None:
    for client in clients:
        client.say()
    for client in clients:
        while not client.hear():
            pass


def _say_goodbye(clients: list[WebSocketClient]) -> None:
    """Close, and wait until the server has: it is not to do this while another one is measured."""
    for client in clients:
        client.finish()
    for client in clients:
        while client.connection.recv(65_536):
            pass


def echo(clients: list[WebSocketClient], seconds: int) -> Answered:
    """Send the message on each connection, and again when it has come back, until the time is over.

    What is on its way then is waited for, and counts.

    Raises:
        ContenderError: An answer was wrong or late, or a connection broke.
    """
    times: list[int] = []
    with _watch(clients) as (poll, by_descriptor):
        begin = monotonic()
        end = begin + seconds
        sent: dict[int, float] = {}
        for descriptor, client in by_descriptor.items():
            sent[descriptor] = monotonic()
            client.say()
        while sent:
            for descriptor in _wait(poll):
                client = by_descriptor[descriptor]
                if not client.hear():
                    continue
                now = monotonic()
                times.append(round((now - sent.pop(descriptor)) * 1e6))
                if now < end:
                    sent[descriptor] = now
                    client.say()
        return _summarize(clients, times, monotonic() - begin)


def broadcast(clients: list[WebSocketClient], seconds: int) -> Answered:
    """Send the message on the first connection, and again when all have heard it, until the time is over.

    Raises:
        ContenderError: An answer was wrong or late, or a connection broke.
    """
    times: list[int] = []
    with _watch(clients) as (poll, by_descriptor):
        begin = now = monotonic()
        while now < begin + seconds:
            sent = monotonic()
            clients[0].say()
            missing = len(clients)
            while missing:
                for descriptor in _wait(poll):
                    if by_descriptor[descriptor].hear():
                        missing -= 1
                        now = monotonic()
                        times.append(round((now - sent) * 1e6))
        return _summarize(clients, times, now - begin)


@contextmanager
def _watch(clients: list[WebSocketClient]) -> Iterator[tuple[select.epoll, dict[int, WebSocketClient]]]:
    try:
        with select.epoll(len(clients)) as poll:
            by_descriptor = {client.connection.fileno(): client for client in clients}
            for descriptor, client in by_descriptor.items():
                poll.register(descriptor, select.EPOLLIN)
                client.received = 0
            yield poll, by_descriptor
    except OSError as error:
        raise ContenderError(f"a connection broke under load: {error}") from error


def _summarize(clients: list[WebSocketClient], times: list[int], seconds: float) -> Answered:
    received = sum(client.received for client in clients)
    return replace(summarize(times, seconds), answer_bytes=received / len(times) if times else 0.0)


def _wait(poll: select.epoll) -> list[int]:
    ready = poll.poll(_PATIENCE)
    if not ready:
        raise ContenderError(f"no answer within {_PATIENCE:.0f} s")
    return [descriptor for descriptor, _ in ready]
