"""What is left behind where something is cancelled, and who is taken to have cancelled it."""

import asyncio

import pytest

from appserver.asgi.types import Message, Receive, Scope, Send
from tests.unit.asgi.stage import MORE, START, Stage, breathe, play


def test_of_a_receive_that_is_given_up_nothing_is_left_behind() -> None:
    async def scene() -> None:
        stage = Stage(end=False)
        for _ in range(50):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(stage.cycle.receive(), 0)
            waiting = asyncio.create_task(stage.cycle.receive())
            await breathe()
            waiting.cancel()
            await breathe()
            polled = stage.cycle.receive()
            polled.send(None)
            polled.close()
            assert not stage.cycle._waiters

    play(scene())


@pytest.mark.parametrize(("messages", "cut"), [([], False), ([START], False), ([START, MORE], True)])
def test_a_cancellation_that_the_application_met_elsewhere_is_its_own_error(
    messages: list[Message], *, cut: bool
) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    async def scene() -> None:
        stage = Stage(application)
        task = stage.begin()
        await asyncio.wait({task})
        assert not task.cancelled()
        assert (stage.peer.status, stage.peer.cut) == (200 if cut else 500, cut)
        [record] = stage.records.of("application_error")
        assert record["exception_type"] == "asyncio.exceptions.CancelledError"

    play(scene())
