"""Python-level calls a request: how long the way through the package is, without a stopwatch."""

import asyncio
import gc
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TextIO

import appserver
from appserver.wire.select import engines
from tests.budgets.census import Census
from tests.budgets.measure import Measure, sort_parts
from tests.budgets.serving import connect, exchange, make_endpoint, make_loop
from tests.budgets.workloads import BROWSER, ECHO, HELLO_WORLD, PIPELINED, POST, STREAM, Workload

PACKAGE: Final = Path(appserver.__file__).parent

_REPEATS: Final = 5

# What the engines do differently is read with each of them; the rest is the same code behind every engine.
_EVERY_ENGINE: Final = (HELLO_WORLD, BROWSER)
_REFERENCE: Final = "h11"
_ONE_ENGINE: Final = (POST, STREAM, PIPELINED, ECHO)
# Records are written in batches by a timer. Pipelined requests are answered in one call-back, and so are one batch
# however slow the machine is.
_LOGGED: Final = f"{PIPELINED.name}, access log, {_REFERENCE}"


def _plan() -> Iterator[tuple[str, Workload, str, bool]]:
    """Name of the measure, workload, engine, whether the access log is on."""
    for workload in _EVERY_ENGINE:
        for name in sorted(engines()):
            yield f"{workload.name}, {name}", workload, name, False
    for workload in _ONE_ENGINE:
        yield f"{workload.name}, {_REFERENCE}", workload, _REFERENCE, False
    yield _LOGGED, PIPELINED, _REFERENCE, True


def names() -> list[str]:
    """Of the measures."""
    return [name for name, *_ in _plan()]


def probe() -> list[Measure]:
    """Count every workload. Takes about a second."""
    gc.disable()  # a finalizer must not run in the middle of a count
    with asyncio.Runner(loop_factory=make_loop) as runner:
        return [runner.run(_measure(*entry)) for entry in _plan()]


async def _measure(name: str, workload: Workload, engine: str, logged: bool) -> Measure:
    await _count(workload, engine, logged)  # what is made on first use
    counts = [await _count(workload, engine, logged) for _ in range(_REPEATS)]
    median = sorted(counts, key=lambda census: census.total)[_REPEATS // 2]
    parts = median.called + median.entered
    return Measure(
        name,
        round(median.total / workload.depth, 2),
        sort_parts({part: round(count / workload.depth, 2) for part, count in parts.items()}),
        tuple(round(census.total / workload.depth, 2) for census in counts),
    )


async def _count(workload: Workload, engine: str, logged: bool) -> Census:
    """Count the third exchange of a new connection.

    New, because the server lets others go first after so many bytes of a connection: how many have gone before is a
    part of what is measured. In the second one it begins to remember what the client says.
    """
    with tempfile.TemporaryFile("w+") as file, socket.create_server(("127.0.0.1", 0)) as listener:
        log = file if logged else None
        endpoint = make_endpoint(engine, log)
        client = await connect(endpoint, listener)
        if workload.opening is not None:
            await exchange(client, workload.opening)
        for _ in range(2):
            await _play(client, workload, log)
        with Census(PACKAGE) as census:
            await _play(client, workload, log)
        os.close(client)
        while endpoint.connections:
            await asyncio.sleep(0)
    return census


async def _play(client: int, workload: Workload, log: TextIO | None) -> None:
    """One exchange, and the lines of its records."""
    before = _count_lines(log) if log else 0
    await exchange(client, workload)
    while log and _count_lines(log) < before + workload.depth:
        await asyncio.sleep(0.01)


def _count_lines(log: TextIO) -> int:
    # Another file description: its offset is not the one that the log is written at.
    return Path(f"/proc/self/fd/{log.fileno()}").read_bytes().count(b"\n")
