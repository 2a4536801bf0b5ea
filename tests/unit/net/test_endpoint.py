from functools import partial
from time import monotonic
from typing import Any

from appserver.net.serial import SerialConnection
from tests.unit.net.conftest import Play
from tests.unit.net.serving import GET, TIMEOUTS, Client, Serving, echo, pair


def test_a_sweep_ends_those_whose_time_is_over_and_no_others(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(echo, timeouts=TIMEOUTS)
        idle, fresh = await serving.connect(), await serving.connect()
        await idle.send(GET)
        await idle.responses(1)
        serving.later(TIMEOUTS.keep_alive + 1)
        assert len(await idle.all_responses()) == 1
        await serving.until(lambda: len(serving.endpoint.connections) == 1)
        await fresh.send(GET)
        await fresh.responses(1)
        await serving.end()

    run(scene)


class Faulty(SerialConnection):
    """Has a fault of ours."""

    def expire(self, now: float) -> None:  # noqa: ARG002
        raise ZeroDivisionError


def test_a_fault_with_one_connection_leaves_no_other_without_its_deadline(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(echo, timeouts=TIMEOUTS)
        told: list[Any] = []
        serving.loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
        for number in range(9):
            if number % 3:
                await serving.connect()
                continue
            ours, theirs = pair()
            serving.clients.append(Client(theirs, serving.loop))
            await serving.loop.connect_accepted_socket(partial(Faulty, serving.endpoint), ours)
        serving.later(TIMEOUTS.header + 1)
        await serving.over()
        assert [type(error) for error in told] == [ZeroDivisionError] * 3

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
