"""What of an application's exceptions is a fault, when its client is gone."""

import asyncio

import pytest
from starlette.requests import ClientDisconnect
from starlette.websockets import WebSocketDisconnect

from appserver.asgi.faults import is_disconnect
from appserver.asgi.types import Application, Receive, Scope, Send
from appserver.errors import ClientDisconnectedError
from tests.unit.asgi.stage import MORE, START, Stage, breathe, play

GONE = ClientDisconnectedError("the client is gone")


def caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


def following(error: BaseException, earlier: BaseException) -> BaseException:
    error.__context__ = earlier
    return error


class WebSocketDisconnected(RuntimeError):  # noqa: N818 - as it is called there
    """As Starlette's, which tells of a call that came too early or too late."""


class LeftEarly(ClientDisconnect):
    """An application's own word for it."""


@pytest.mark.parametrize(
    "error",
    [
        GONE,
        following(ClientDisconnect(), GONE),
        WebSocketDisconnect(1001),
        LeftEarly(),
        caused(RuntimeError("upload"), caused(KeyError("part"), GONE)),
        following(GONE, ExceptionGroup("collapsed", [GONE])),
        ExceptionGroup("tasks", [GONE, ExceptionGroup("more", [ClientDisconnect(), GONE])]),
        caused(RuntimeError("upload"), ExceptionGroup("tasks", [GONE])),
    ],
    ids=repr,
)
def test_that_the_client_is_gone_is_no_fault_in_whatever_words(error: BaseException) -> None:
    assert is_disconnect(error)


@pytest.mark.parametrize(
    "error",
    [
        following(KeyError("in the clean-up"), GONE),
        following(OSError("the disk is full"), GONE),
        ConnectionResetError("of the database"),
        following(WebSocketDisconnected('Cannot call "send" once a close message has been sent.'), GONE),
        ExceptionGroup("tasks", [GONE, ValueError("not saved")]),
        ExceptionGroup("tasks", [GONE, ExceptionGroup("more", [ValueError("not saved"), GONE])]),
        caused(ExceptionGroup("tasks", [ValueError("not saved")]), GONE),
    ],
    ids=repr,
)
def test_an_error_beside_it_or_behind_it_is_a_fault(error: BaseException) -> None:
    assert not is_disconnect(error)


def test_chains_that_are_closed_have_an_end() -> None:
    part = ValueError("not saved")
    assert not is_disconnect(caused(part, ExceptionGroup("tasks", [part])))
    assert not is_disconnect(caused(part, part))


async def cleans_up(scope: Scope, receive: Receive, send: Send) -> None:
    await send(START)
    try:
        while True:
            await send(MORE)
            await asyncio.sleep(0)
    finally:
        raise KeyError("in the clean-up")


async def fails_beside(scope: Scope, receive: Receive, send: Send) -> None:
    async def save() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise KeyError("not saved")

    async with asyncio.TaskGroup() as group:
        group.create_task(save())
        await send(START)
        while True:
            await send(MORE)
            await asyncio.sleep(0)


async def passes_on(scope: Scope, receive: Receive, send: Send) -> None:
    await send(START)
    while True:
        await send(MORE)
        await asyncio.sleep(0)


async def translates(scope: Scope, receive: Receive, send: Send) -> None:
    try:
        await passes_on(scope, receive, send)
    except OSError:
        raise ClientDisconnect from None


@pytest.mark.parametrize(
    ("application", "told"), [(cleans_up, True), (fails_beside, True), (passes_on, False), (translates, False)]
)
def test_a_fault_of_the_application_is_told_though_its_client_is_gone(application: Application, told: bool) -> None:
    async def scene() -> None:
        stage = Stage(application)
        task = stage.begin()
        await breathe()
        stage.cycle.disconnect()
        await task
        assert len(stage.records.of("application_error")) == told
        assert all("KeyError" in trace for trace in stage.records.tracebacks())
        [answer] = stage.records.answers()
        assert answer["outcome"] == "client_gone"

    play(scene())
