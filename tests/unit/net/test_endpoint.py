from time import monotonic

from tests.unit.net.conftest import Play
from tests.unit.net.serving import GET, TIMEOUTS, Serving, echo


def test_a_sweep_ends_those_whose_time_is_over_and_no_others(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(echo, timeouts=TIMEOUTS)
        idle, fresh = await serving.connect(), await serving.connect()
        await idle.send(GET)
        await idle.responses(1)
        serving.later(6)
        assert len(await idle.all_responses()) == 1
        await serving.until(lambda: len(serving.endpoint.connections) == 1)
        await fresh.send(GET)
        await fresh.responses(1)
        await serving.end()

    run(scene)


def test_a_sweep_before_every_deadline_is_nothing(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(echo)
        for _ in range(3):
            await serving.connect()
        serving.endpoint.sweep(monotonic())
        await serving.quiet()
        assert len(serving.endpoint.connections) == 3
        await serving.end()

    run(scene)


def test_all_connections_of_a_listener_read_into_one_buffer(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(echo)
        for _ in range(3):
            await serving.connect()
        assert {id(connection.get_buffer(-1).obj) for connection in serving.endpoint.connections} == {
            id(serving.endpoint.buffer)
        }
        await serving.end()

    run(scene)
