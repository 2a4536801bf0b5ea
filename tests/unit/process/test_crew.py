"""The crew, with real workers whose application is not there."""

import asyncio
import os

from appserver.process.crew import Crew
from appserver.settings import Settings
from appserver.telemetry.log import build

NOBODY = Settings(app="nothing_at_all:app", log_level="critical")


def test_a_generation_that_takes_over_gets_the_workers_that_it_has_lost_before() -> None:
    async def live() -> None:
        crew = Crew([], build("critical", "json"), asyncio.get_running_loop())
        generation = crew.begin(NOBODY, os.environ)
        assert await generation.settle() == "a worker ended with exit code 3 before it was ready"
        assert crew.workers == []
        crew.promote(generation)
        assert [worker.number for worker in crew.workers] == [1]
        await crew.end()

    asyncio.run(live())
