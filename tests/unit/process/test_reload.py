"""The order in which a master reloads; what reloads are made of is in tests/integration/test_reload.py."""

import asyncio
import io

from appserver.errors import ListenError
from appserver.process.master import Master
from appserver.settings import Loaded, Settings
from appserver.system.notify import Notifier
from appserver.telemetry.log import build


def test_who_asks_as_a_reload_ends_gets_the_one_that_waits() -> None:
    resolved: list[int] = []

    def resolve() -> Loaded:
        resolved.append(1)
        raise ListenError("the settings cannot be read")

    async def scenario() -> None:
        loaded = Loaded(Settings(app="shop:app"), {}, (), {})
        log = build(log_format="json", stream=io.StringIO())
        reloads = Master(loaded, resolve, [], Notifier(), log, asyncio.get_running_loop())._reloads
        first, second = reloads.begin(), reloads.begin()
        assert first is not second
        asked: list[object] = []
        # Called before the second one goes on, which waits for the first as well.
        first.add_done_callback(lambda _: asked.append(reloads.begin()))
        await asyncio.wait({first, second})
        assert asked == [second]
        third = reloads.begin()
        assert third is not second
        assert await third == "the settings cannot be read"

    asyncio.run(scenario())
    assert len(resolved) == 3
