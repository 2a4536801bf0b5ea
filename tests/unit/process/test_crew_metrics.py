"""What a master sums up of its workers, with real workers whose application is not there."""

import asyncio
import os

from appserver.process.crew import Crew
from appserver.settings import Settings
from appserver.telemetry.log import build
from appserver.telemetry.metrics import Metrics


def test_workers_that_fail_are_counted_by_cause_and_every_known_cause_is_told() -> None:
    async def live() -> None:
        crew = Crew([], build("critical", "json"), asyncio.get_running_loop())
        generation = crew.begin(Settings(app="nothing_at_all:app", log_level="critical"), os.environ)
        assert crew.supervision({}).workers["starting"] == 1
        await generation.settle()
        told = crew.supervision({"succeeded": 3})
        assert told.restarts == {
            "lost": 0, "stopped": 0, "hung": 0, "failed": 1, "requests": 0, "age": 0, "memory": 0, "operator": 0,
        }  # fmt: skip
        assert (told.workers["starting"], told.reloads, told.generation) == (0, {"succeeded": 3}, 0)
        assert crew.figures() == Metrics()
        crew.retire(generation)
        await crew.end()

    asyncio.run(live())


def test_records_that_the_master_itself_loses_are_counted_also_by_who_takes_over() -> None:
    async def live() -> None:
        with open("/dev/full", "w") as full:  # noqa: ASYNC230, PTH123 - never waits
            log = build("info", "json", full)
            crew = Crew([], log, asyncio.get_running_loop())
            log.info("Hello")
        assert crew.figures() == crew.past == Metrics(log_dropped=1)

    asyncio.run(live())
