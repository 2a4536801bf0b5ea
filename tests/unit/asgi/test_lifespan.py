import asyncio
from typing import Any

import pytest

from appserver.asgi.lifespan import TRANSITIONS, Lifespan
from appserver.asgi.types import Application, Receive, Scope, Send
from appserver.errors import LifespanError, MisuseError
from tests.unit.asgi.stage import breathe, play
from tests.unit.records import Records

UP: dict[str, Any] = {"type": "lifespan.startup.complete"}
UP_FAILED: dict[str, Any] = {"type": "lifespan.startup.failed", "message": "no database"}
DOWN: dict[str, Any] = {"type": "lifespan.shutdown.complete"}
DOWN_FAILED: dict[str, Any] = {"type": "lifespan.shutdown.failed", "message": "lost a file"}


def answers(*messages: Any) -> Application:
    """An application that answers each lifespan message with the next of these, or raises it."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await receive()
            if isinstance(message, BaseException):
                raise message
            await send(message)

    return application


def refuses(error: BaseException | None) -> Application:
    """An application that knows no lifespan: it raises, or just returns."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if error is not None:
            raise error

    return application


async def start(application: Application, mode: str = "auto") -> tuple[Lifespan, Records]:
    records = Records()
    lifespan = Lifespan(application, mode, records.log)
    await lifespan.startup(asyncio.get_running_loop())
    return lifespan, records


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_an_application_is_started_and_stopped(mode: str) -> None:
    seen: list[Any] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((scope["type"], scope["asgi"]["version"]))
        scope["state"]["pool"] = 7
        for message in (UP, DOWN):
            seen.append((await receive())["type"])
            await send(message)

    async def scene() -> None:
        lifespan, records = await start(application, mode)
        assert lifespan.supported is True
        assert lifespan.state == {"pool": 7}
        assert seen == [("lifespan", "3.0"), "lifespan.startup"]
        await lifespan.shutdown()
        assert seen[-1] == "lifespan.shutdown"
        assert records.all() == []

    play(scene())


def test_startup_waits_for_a_slow_application() -> None:
    async def scene() -> None:
        ready = asyncio.Event()

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await ready.wait()
            await send(UP)
            await receive()
            await send(DOWN)

        starting = asyncio.create_task(start(application))
        await breathe()
        assert not starting.done()
        ready.set()
        lifespan, _ = await starting
        await lifespan.shutdown()

    play(scene())


@pytest.mark.parametrize("error", [None, ValueError("unknown scope"), AssertionError(), NotImplementedError("x")])
def test_an_application_without_lifespan_is_served_without(error: BaseException | None) -> None:
    async def scene() -> None:
        lifespan, _ = await start(refuses(error))
        assert lifespan.supported is False
        await lifespan.shutdown()

    play(scene())


@pytest.mark.parametrize("error", [None, ValueError("unknown scope")])
def test_an_application_without_lifespan_where_it_must_have_one_does_not_start(error: BaseException | None) -> None:
    async def scene() -> None:
        with pytest.raises(LifespanError, match="--lifespan is on") as caught:
            await start(refuses(error), "on")
        assert caught.value.__cause__ is error

    play(scene())


def test_lifespan_off_calls_nobody() -> None:
    async def scene() -> None:
        lifespan, _ = await start(refuses(AssertionError("called")), "off")
        assert lifespan.supported is False
        await lifespan.shutdown()

    play(scene())


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_a_startup_that_says_that_it_failed_fails(mode: str) -> None:
    async def scene() -> None:
        with pytest.raises(LifespanError, match="no database"):
            await start(answers(UP_FAILED), mode)

    play(scene())


def test_a_failure_without_a_message_says_so() -> None:
    async def scene() -> None:
        with pytest.raises(LifespanError, match="no message given"):
            await start(answers({"type": "lifespan.startup.failed"}))

    play(scene())


@pytest.mark.parametrize("error", [ValueError("broken"), SystemExit(1), KeyboardInterrupt()])
@pytest.mark.parametrize("mode", ["auto", "on"])
def test_an_exception_after_startup_was_told_is_a_failed_startup_and_not_missing_support(
    mode: str, error: BaseException
) -> None:
    async def scene() -> None:
        with pytest.raises(LifespanError, match=f"startup failed: {type(error).__name__}: {error}") as caught:
            await start(answers(error), mode)
        assert caught.value.__cause__ is error

    play(scene())


def test_sys_exit_before_anything_is_not_missing_support() -> None:
    async def scene() -> None:
        with pytest.raises(LifespanError):
            await start(refuses(SystemExit("no configuration")))

    play(scene())


def test_returning_before_startup_is_complete_is_a_failed_startup() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()

    async def scene() -> None:
        with pytest.raises(LifespanError, match="startup failed"):
            await start(application)

    play(scene())


@pytest.mark.parametrize("message", [UP_FAILED, DOWN, {"type": "http.response.start"}, {}])
@pytest.mark.parametrize("state", ["starting", "running", "stopping", "stopped"])
def test_every_message_in_every_state_is_in_the_table_or_misuse(state: str, message: dict[str, Any]) -> None:
    async def scene() -> None:
        lifespan = Lifespan(refuses(None), "auto", (records := Records()).log)
        lifespan._phase = state
        if (state, message.get("type")) in TRANSITIONS:
            await lifespan._send(message)
            assert lifespan._phase == TRANSITIONS[state, message["type"]]
            return
        with pytest.raises(MisuseError, match="expected"):
            await lifespan._send(message)
        assert lifespan._phase == state
        assert len(records.of("misuse")) == 1

    play(scene())


def test_a_startup_that_misuses_lifespan_fails() -> None:
    async def scene() -> None:
        with pytest.raises(LifespanError) as caught:
            await start(answers({"type": "lifespan.startup.ready"}))
        assert isinstance(caught.value.__cause__, MisuseError)

    play(scene())


@pytest.mark.parametrize(
    ("ending", "told"), [(DOWN_FAILED, "lost a file"), (ValueError("broken"), "shutdown raised"), (SystemExit(1), "")]
)
def test_a_shutdown_that_fails_is_told_and_over(ending: Any, told: str) -> None:
    async def scene() -> None:
        lifespan, records = await start(answers(UP, ending))
        await lifespan.shutdown()
        [record] = records.of("application_failed")
        assert told in record["message"]

    play(scene())


def test_an_application_whose_lifespan_returned_early_is_stopped_at_once() -> None:
    async def scene() -> None:
        lifespan, records = await start(answers(UP))
        await breathe()
        await asyncio.wait_for(lifespan.shutdown(), 20)
        assert records.of("application_failed") == []

    play(scene())


@pytest.mark.parametrize("error", [ValueError("broke"), SystemExit("broke")])
def test_a_lifespan_that_breaks_while_serving_is_told_at_once_and_not_again(error: BaseException) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(UP)
        await asyncio.sleep(0)
        raise error

    async def scene() -> None:
        lifespan, records = await start(application)
        await breathe()
        [record] = records.of("application_failed")
        assert "lifespan raised" in record["message"]
        assert "broke" in record["traceback"]
        await asyncio.wait_for(lifespan.shutdown(), 20)
        assert len(records.all()) == 1

    play(scene())


def test_a_lifespan_that_is_cancelled_for_want_of_time_is_no_fault_of_the_application() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(UP)
        await receive()

    async def scene() -> None:
        lifespan, records = await start(application)
        lifespan.cancel()
        await breathe()
        assert records.all() == []

    play(scene())


def test_an_application_that_hangs_in_startup_can_be_given_up() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.Event().wait()

    async def scene() -> None:
        records = Records()
        lifespan = Lifespan(application, "auto", records.log)
        starting = asyncio.create_task(lifespan.startup(asyncio.get_running_loop()))
        await breathe()
        lifespan.cancel()
        await asyncio.wait({starting}, timeout=20)
        assert starting.done()
        assert starting.exception() is None or isinstance(starting.exception(), LifespanError)

    play(scene())


def test_shutdown_before_startup_is_nothing() -> None:
    play(Lifespan(refuses(None), "auto", Records().log).shutdown())


def test_an_application_that_asks_again_after_its_shutdown_waits() -> None:
    heard: list[str] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        heard.append((await receive())["type"])
        await send(UP)
        while len(heard) < 5:
            heard.append((await receive())["type"])

    async def scene() -> None:
        lifespan, _ = await start(application)
        stopping = asyncio.create_task(lifespan.shutdown())
        await breathe(10)
        assert heard == ["lifespan.startup", "lifespan.shutdown"]
        assert not stopping.done()
        lifespan.cancel()
        await stopping

    play(scene())
