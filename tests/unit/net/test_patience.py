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


class Talk:
    """An application that begins its answer, and says so much more when told to."""

    def __init__(self) -> None:
        self.say: asyncio.Queue[int] = asyncio.Queue()

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        while True:
            await send({"type": "http.response.body", "body": bytes(await self.say.get()), "more_body": True})


def test_a_body_that_stops_behind_a_begun_answer_ends_it(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(Talk())
        client = await serving.connect()
        await client.send(post(b"x", length=100))
        await client.until(b"begun\r\n")
        serving.later(TIMEOUTS.body + 1)  # it has moved since the request came
        assert serving.records.of("deadline") == []
        serving.later(TIMEOUTS.body + 1)
        assert (await client.rest()).endswith(b"begun\r\n")  # without the last chunk
        [record] = serving.records.of("deadline")
        assert "its body arrives too slowly" in record["message"]
        assert [answer["outcome"] for answer in serving.records.answers()] == ["cut"]
        await serving.end()

    run(scene)


def test_a_body_may_rest_for_ever_while_the_answer_moves(run: Play) -> None:
    async def scene() -> None:
        talk = Talk()
        serving = Serving(talk)
        client = await serving.connect()
        await client.send(post(b"x", length=100))
        await client.until(b"begun\r\n")
        for turn in range(5):
            talk.say.put_nowait(turn + 1)
            await client.until(b"%d\r\n" % (turn + 1) + bytes(turn + 1) + b"\r\n")
            serving.later(TIMEOUTS.body + 1)
        assert serving.records.of("deadline") == []
        serving.later(TIMEOUTS.body + 1)
        await client.rest()
        assert len(serving.records.of("deadline")) == 1
        await serving.end()

    run(scene)


def test_a_body_may_rest_while_an_answer_waits_that_has_a_deadline_of_its_own(run: Play) -> None:
    async def scene() -> None:
        talk = Talk()
        serving = Serving(talk)
        client = await serving.connect()
        await client.send(post(b"x", length=100))
        await client.until(b"begun\r\n")
        talk.say.put_nowait(10_000_000)  # more than a client holds that does not read
        await serving.until(lambda: serving.connection._out.paused)
        serving.later(TIMEOUTS.body + 1)
        serving.later(TIMEOUTS.body + 2)
        assert serving.records.of("deadline") == []
        serving.later(TIMEOUTS.write + 1)
        [record] = serving.records.of("deadline")
        assert "reads too slowly" in record["message"]
        await serving.over()

    run(scene)
