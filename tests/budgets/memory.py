"""What idle connections hold, and what requests leave behind, as Python's allocators count it."""

import asyncio
import gc
import os
import resource
import socket
import sys
import tracemalloc
from array import array
from collections import Counter
from pathlib import Path
from typing import Final

from appserver.wire.select import engines
from tests.budgets.measure import Measure, sort_parts
from tests.budgets.serving import connect, exchange, make_endpoint, make_loop
from tests.budgets.workloads import HELLO_WORLD

BYTES: Final = "bytes of an idle connection"
BLOCKS: Final = "blocks of an idle connection"
KEPT: Final = "blocks that a request leaves behind"
CYCLES: Final = "objects that a request leaves to the garbage collector"

_WARM_UP: Final = 100
_CONNECTIONS: Final = 1000
_REQUESTS: Final = 1000


def names() -> list[str]:
    """Of the measures."""
    return [f"{what}, {engine}" for engine in sorted(engines()) for what in (KEPT, CYCLES, BYTES, BLOCKS)]


def probe() -> list[Measure]:
    """Measure with every engine. Takes a second each."""
    gc.disable()  # collected where a reading needs it, and nowhere else
    _allow_descriptors(2 * _CONNECTIONS + 100)
    measures: list[Measure] = []
    with asyncio.Runner(loop_factory=make_loop) as runner:
        for engine in sorted(engines()):
            measures += runner.run(_measure_requests(engine))
            measures += runner.run(_measure_connections(engine))
    return measures


def _allow_descriptors(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


async def _measure_connections(engine: str) -> list[Measure]:
    """Connections that have had two answers, so that what they remember is there, and wait for their next request."""
    endpoint = make_endpoint(engine)
    # The clients' ends stand here from the beginning: an array of numbers does not grow, and holds no objects.
    clients = array("i", [-1] * (_CONNECTIONS + 1))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        clients[-1] = await connect(endpoint, listener)
        await exchange(clients[-1], HELLO_WORLD)
        gc.collect()
        blocks = sys.getallocatedblocks()
        tracemalloc.start()
        for number in range(_CONNECTIONS):
            clients[number] = await connect(endpoint, listener)
            for _ in range(2):
                await exchange(clients[number], HELLO_WORLD)
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
        snapshot = tracemalloc.take_snapshot()
        tracemalloc.stop()
        blocks = sys.getallocatedblocks() - blocks
    assert len(endpoint.connections) == _CONNECTIONS + 1
    for client in clients:
        os.close(client)
    while endpoint.connections:
        await asyncio.sleep(0)
    places: Counter[str] = Counter()
    for statistic in snapshot.statistics("filename"):
        places["/".join(Path(statistic.traceback[0].filename).parts[-2:])] += round(statistic.size / _CONNECTIONS)
    return [
        Measure(f"{BYTES}, {engine}", round(held / _CONNECTIONS), sort_parts(+places)),
        Measure(f"{BLOCKS}, {engine}", round(blocks / _CONNECTIONS)),
    ]


async def _measure_requests(engine: str) -> list[Measure]:
    """Requests on one connection."""
    endpoint = make_endpoint(engine)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = await connect(endpoint, listener)
        for _ in range(_WARM_UP):
            await exchange(client, HELLO_WORLD)
        gc.collect()
        before = sys.getallocatedblocks()
        for _ in range(_REQUESTS):
            await exchange(client, HELLO_WORLD)
        # Counted by the collector: it also empties free lists, so a difference of blocks would say more than that.
        cycles = gc.collect()
        kept = sys.getallocatedblocks() - before
        os.close(client)
        while endpoint.connections:
            await asyncio.sleep(0)
    return [
        Measure(f"{KEPT}, {engine}", round(kept / _REQUESTS, 1)),
        Measure(f"{CYCLES}, {engine}", round(cycles / _REQUESTS, 1)),
    ]
