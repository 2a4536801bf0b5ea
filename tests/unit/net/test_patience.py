"""Time that is given to clients who cannot help it: those who wait for 100 Continue, and those who half-closed."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from appserver.asgi.types import Receive, Scope, Send
from appserver.net.connection import PATIENCE
from tests.unit.net.serving import NO_LINGER, TIMEOUTS, Serving, echo, get, post

Play: TypeAlias = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]

EXPECTING = post(b"", "/up", "Expect: 100-continue", length=4)


def test_a_client_that_waits_for_100_continue_has_no_deadline_until_it_comes(run: Play) -> None:
    async def scene() -> None:
        gate = asyncio.Event()

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await gate.wait()
            await echo(scope, receive, send)

        serving = Serving(application)
        client = await serving.connect()
        await client.send(EXPECTING)
        await serving.until(lambda: serving.service.figures.requests == 1)
        serving.later(TIMEOUTS.body * 2)
        gate.set()
        await client.until(b"HTTP/1.1 100 Continue\r\n\r\n")
        serving.later(TIMEOUTS.body / 2)
        await client.send(b"body")
        assert [response.status for response in await client.responses(2)] == [100, 200]
        assert serving.records.of("deadline") == []
        await serving.end()

    run(scene)


def test_a_client_that_got_100_continue_has_the_bodys_deadline(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(echo)
        client = await serving.connect()
        await client.send(EXPECTING)
        await client.until(b"HTTP/1.1 100 Continue\r\n\r\n")
        serving.later(TIMEOUTS.body + 1)
        assert [response.status for response in await client.responses(2)] == [100, 408]
        await serving.end()

    run(scene)


def test_a_half_closed_client_is_told_of_in_its_pipelined_requests_too(run: Play) -> None:
    async def scene() -> None:
        gate, heard = asyncio.Event(), asyncio.Event()

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"] == "/poll":
                while (await receive())["type"] != "http.disconnect":
                    pass
                heard.set()
            else:
                await gate.wait()
                await echo(scope, receive, send)

        serving = Serving(application, timeouts=NO_LINGER)
        client = await serving.connect()
        await client.send(get("/first") + get("/poll"))
        client.half_close()
        await serving.until(lambda: serving.endpoint.connections != set() and serving.connection._eof)
        gate.set()
        await client.responses(1)
        assert not heard.is_set()
        serving.later(PATIENCE + 1)
        await heard.wait()
        await serving.over()

    run(scene)


def test_a_half_closed_client_is_told_as_a_disconnect_after_a_while_whatever_the_linger_time(run: Play) -> None:
    async def scene() -> None:
        heard = asyncio.Event()

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            heard.set()

        serving = Serving(application, timeouts=NO_LINGER)
        client = await serving.connect()
        await client.send(get("/poll"))
        client.half_close()
        await serving.until(lambda: serving.endpoint.connections != set() and serving.connection._eof)
        serving.later(PATIENCE / 2)
        await serving.quiet()
        assert not heard.is_set()
        serving.later(PATIENCE + 1)
        await heard.wait()
        assert await client.rest() == b""
        await serving.over()
        [record] = serving.records.answers()
        assert record["outcome"] == "client_gone"
        assert serving.records.tracebacks() == []

    run(scene)
