"""`systemctl restart` while clients are at it: every request is answered."""

import asyncio
from collections.abc import Callable

from tests.system.load import CLIENTS, Load
from tests.system.machine import Machine
from tests.system.service import every_debian, get, host_path, serve_probe

RESTARTS = 3


@every_debian
def test_no_request_is_lost(machine: Machine, tell: Callable[[str], None]) -> None:
    serve_probe(machine, "access_log = false")
    get(machine)

    async def scenario() -> Load:
        load = Load(host_path(machine))
        running = asyncio.create_task(load.run())
        for _ in range(RESTARTS):
            await asyncio.sleep(0.5)
            await asyncio.to_thread(machine.run, "systemctl restart appserver.service")
        await asyncio.sleep(0.5)
        load.stop = True
        await running
        return load

    load = asyncio.run(scenario())
    tell(
        f"{machine.suite}: {RESTARTS} restarts under {CLIENTS} keep-alive clients: "
        f"{load.answered.total()} answered, {len(load.lost)} lost"
    )
    assert not load.lost
    assert set(load.answered) == {b"200"}
    # Every client was served by every process, or the test has shown nothing.
    assert load.connections >= CLIENTS * (RESTARTS + 1)
