"""Memory is short, says the service manager: through a FIFO, which stands for the kernel's file."""

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.integration.servers import Server, Starter, UnixConnection, get
from tests.integration.workers import Crew, eventually


class Manager:
    """The end of the FIFO that tells."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.variables = {"MEMORY_PRESSURE_WATCH": str(path), "MEMORY_PRESSURE_WRITE": "c29tZQA="}
        # For reading too: so it is there before anybody listens.
        self._fifo = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def tell(self) -> None:
        os.write(self._fifo, b"!")

    def close(self) -> None:
        os.close(self._fifo)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path / "pressure")
    yield manager
    manager.close()


def told(server: Server) -> list[dict[str, Any]]:
    return [one for one in server.records if one.get("event") == "memory_pressure" and one["level"] == "warning"]


def test_a_single_process_gives_memory_back_and_says_how_much(serve: Starter, manager: Manager, tmp_path: Path) -> None:
    control = tmp_path / "control"
    server = serve("environment:app", "--control", f"unix:{control}", variables=manager.variables)
    manager.tell()
    record = server.record(event="memory_pressure")
    assert record["message"].startswith("Memory is short: ")
    assert record["message"].endswith(" MiB given back")
    # A storm is answered once.
    for _ in range(20):
        manager.tell()
        time.sleep(0.01)
    eventually(lambda: json.loads(get(UnixConnection(control), "/status")[1])["memory_pressure"] > 1, "more of it")
    assert len(told(server)) == 1
    # It is this process's to hear, and not its application's or its children's.
    assert not [name for name in json.loads(server.get("/")[1]) if name.startswith("MEMORY_PRESSURE")]


def test_what_cannot_be_watched_is_a_warning_and_no_more(serve: Starter) -> None:
    server = serve("behaviour:app", variables={"MEMORY_PRESSURE_WATCH": "/nowhere/memory.pressure"})
    assert "MEMORY_PRESSURE_WATCH=/nowhere/memory.pressure: No such file" in told(server)[0]["message"]
    assert server.get("/")[0] == 200


def test_workers_drop_their_caches_and_then_the_largest_is_replaced_without_a_loss(
    serve: Starter, manager: Manager, tmp_path: Path
) -> None:
    words = ("--workers", "3", "--control", f"unix:{tmp_path / 'control'}", "--log-level", "debug")
    crew = Crew(serve("growing:app", *words, variables=manager.variables), tmp_path / "control")
    before = crew.settle(3)
    assert json.loads(get(UnixConnection(crew.control), "/status")[1])["memory_pressure"] == 0
    assert not json.loads(crew.server.get("/variables")[1])

    def ask(_: int) -> None:
        while not done:
            assert crew.server.get("/")[0] == 200

    done = False
    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(ask, number) for number in range(4)]
        try:
            manager.tell()
            server = crew.server
            assert server.record(event="memory_pressure", level="warning")["message"].startswith(
                "Memory is short: caches are dropped in 3 workers"
            )
            # Each has heard it, and says so quietly.
            eventually(
                lambda: len([one for one in server.records if one["message"].endswith("given back")]) == 3,
                "three workers that give back",
            )
            # None is replaced whose successor would take as much.
            end = time.monotonic() + 1.5
            while time.monotonic() < end:
                manager.tell()
                time.sleep(0.05)
            assert crew.settle(3) == before
            assert len(told(server)) == 1
            grown = json.loads(server.get("/grow?mib=64")[1])["pid"]

            def tell() -> bool:
                manager.tell()
                return len(told(server)) > 1

            eventually(tell, "the next step")
            message = told(server)[1]["message"]
            assert message.startswith(f"Memory is still short: worker {grown} is replaced, which takes the most, ")
            crew.settle(3, without=grown)
            # One, however often it is told.
            for _ in range(20):
                manager.tell()
                time.sleep(0.05)
            after = crew.settle(3, without=grown)
        finally:
            done = True
        for client in clients:
            client.result()
    assert len(after & before) == 2
    assert len(told(crew.server)) == 2
    assert not [one for one in crew.server.records if one.get("event") in ("worker_lost", "worker_hung")]
    crew.assert_tidy()
