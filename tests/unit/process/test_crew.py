"""The crew, with real workers whose application is not there."""

import asyncio
import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from socket import create_server
from typing import Final

import pytest

from appserver.net.listeners import Listener
from appserver.process.crew import Crew
from appserver.process.policy import SOON_SECONDS
from appserver.settings import Settings
from appserver.system.image import held_signals
from appserver.telemetry.log import build

APPS: Final = Path(__file__).parents[2] / "apps"
NOBODY = Settings(app="nothing_at_all:app", log_level="critical")


def test_a_generation_that_takes_over_gets_the_workers_that_it_has_lost_before() -> None:
    async def live() -> None:
        crew = Crew([], build("critical", "json"), asyncio.get_running_loop())
        generation = crew.begin(NOBODY, os.environ)
        failure = await generation.settle()
        assert failure is not None
        assert failure.startswith("a worker ended with exit code 3 before it was ready: nothing_at_all:app: no module")
        assert crew.workers == []
        crew.promote(generation)
        assert [worker.number for worker in crew.workers] == [1]
        await crew.end()

    asyncio.run(live())


def test_a_worker_that_is_to_be_succeeded_still_is_when_all_was_held_meanwhile() -> None:
    async def live() -> None:
        with closing(Listener(create_server(("127.0.0.1", 0)), "web")) as listener:
            crew = Crew([listener], build("critical", "json"), asyncio.get_running_loop())
            generation = crew.begin(replace(NOBODY, app="behaviour:app", app_dir=str(APPS)), os.environ)
            assert await generation.settle() is None
            crew.promote(generation)
            (worker,) = crew.workers
            generation.settings = NOBODY  # a broken deploy: the successor does not start, and is tried again later
            crew.succeed(worker, "it is told to", "operator")
            while crew.workers != [worker] or generation.misses[1] < 2:
                crew.left.clear()
                await crew.left.wait()
            crew.hold()
            crew.resume()
            assert [one.number for one in crew.workers] == [1, 1]
            await crew.end()

    asyncio.run(live())


def test_who_leaves_when_a_stop_has_begun_is_not_replaced() -> None:
    """systemd tells all processes of a service to stop, and some hear of it before the crew has been told to end."""

    async def live() -> None:
        with closing(Listener(create_server(("127.0.0.1", 0)), "web")) as listener:
            crew = Crew([listener], build("critical", "json"), asyncio.get_running_loop())
            generation = crew.begin(replace(NOBODY, app="behaviour:app", app_dir=str(APPS), workers=2), os.environ)
            assert await generation.settle() is None
            crew.promote(generation)
            first, second = crew.workers
            first.signal(signal.SIGTERM)
            while generation.misses[first.number] == 0:
                crew.moved.clear()
                await crew.moved.wait()
            assert crew.workers in ([first, second], [second])
            crew.cease()  # in the turns between, the master has heard of its own
            second.signal(signal.SIGKILL)
            while crew.workers:
                crew.left.clear()
                await crew.left.wait()
            await asyncio.sleep(2 * SOON_SECONDS)
            assert crew.workers == []
            await crew.end()

    asyncio.run(live())


def read_status(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text()


@pytest.fixture
def no_subreaper() -> Iterator[None]:
    """Other tests in this process are not to get the orphans of theirs."""
    yield
    ctypes.CDLL(None).prctl(36, 0, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


@pytest.mark.usefixtures("no_subreaper")
@pytest.mark.parametrize("preload", [False, True])
def test_workers_that_are_started_while_signals_are_held_get_theirs(preload: bool) -> None:
    async def live() -> None:
        with closing(Listener(create_server(("127.0.0.1", 0)), "web")) as listener:
            crew = Crew([listener], build("critical", "json"), asyncio.get_running_loop())
            with held_signals():  # as behind an exec, until the master has its handlers
                settings = replace(NOBODY, app="behaviour:app", app_dir=str(APPS), preload=preload)
                generation = crew.begin(settings, os.environ)
            assert await generation.settle() is None
            (worker,) = crew.workers
            assert "SigBlk:\t0000000000000000\n" in read_status(worker.pid)
            await crew.end()

    asyncio.run(live())
