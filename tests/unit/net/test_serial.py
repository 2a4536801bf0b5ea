import asyncio
import contextvars
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Any, TypeAlias

import pytest

from appserver.asgi.http import READ_AHEAD
from appserver.asgi.types import Application, Message, Receive, Scope, Send
from appserver.net.connection import CLOSING, PATIENCE
from appserver.net.endpoint import DRAINED_AT_ONCE, READ_SIZE
from appserver.net.flow import HIGH_WATER
from appserver.net.serial import SerialConnection
from appserver.wire.engine import Limits
from tests.unit.net.serving import EAGER, GET, NO_LINGER, TIMEOUTS, Client, Serving, echo, get, pair, post

Play: TypeAlias = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]

HELD_LIMIT = READ_AHEAD + READ_SIZE + HIGH_WATER
START: Message = {"type": "http.response.start", "status": 200, "headers": []}
LAST: Message = {"type": "http.response.body", "body": b"last"}


def more(data: bytes) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": True}


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer at once, reading nothing."""
    await send(START)
    await send({"type": "http.response.body", "body": b"hello " + scope["path"].encode()})


async def late(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer when what the client has sent with its request, or has shut, has been seen."""
    await asyncio.sleep(0.02)
    await hello(scope, receive, send)


async def soon(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer after a visit to the loop."""
    await asyncio.sleep(0)
    await hello(scope, receive, send)


async def waits(scope: Scope, receive: Receive, send: Send) -> None:
    """Wait for the client to go."""
    while (await receive())["type"] != "http.disconnect":
        pass


# Requests and responses


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
def test_a_request_is_answered_and_the_connection_stays(run: Play, *, tcp: bool) -> None:
    async def scene() -> None:
        serving = Serving(echo)
        client = await serving.connect(tcp=tcp)
        for number in range(3):
            await client.send(get(f"/{number}"))
            assert (await client.responses(number + 1))[-1].body == b"/%d " % number
        assert serving.service.figures.connections == 1
        client.close()
        await serving.over()
        assert serving.service.figures.connections == 0

    run(scene)


def test_a_request_may_come_byte_by_byte(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(echo)
        client = await serving.connect()
        for byte in post(b"body", "/slow"):
            await client.send(bytes([byte]))
            await asyncio.sleep(0)
        [response] = await client.responses(1)
        assert response.body == b"/slow body"
        await serving.end()

    run(scene)


@pytest.mark.parametrize("application", [hello, soon, echo])
@pytest.mark.parametrize("eager", [False, True] if EAGER else [False], ids=lambda eager: "eager" if eager else "lazy")
def test_pipelined_requests_are_answered_in_order(run: Play, application: Application, *, eager: bool) -> None:
    async def scene() -> None:
        serving = Serving(application, eager=eager)
        client = await serving.connect()
        await client.send(b"".join(get(f"/{number}") + post(b"b", f"/p{number}") for number in range(50)))
        paths = [word for number in range(50) for word in (b"/%d" % number, b"/p%d" % number)]
        responses = await client.responses(100)
        assert all(path in response.body.split() for path, response in zip(paths, responses, strict=True))
        assert len(serving.records.answers()) == 100
        await serving.end()

    run(scene)


def test_pipelined_requests_behind_a_slow_one_wait_their_turn(run: Play) -> None:
    async def scene() -> None:
        gates = {"/0": asyncio.Event(), "/1": asyncio.Event()}
        called: list[str] = []

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            called.append(scope["path"])
            await gates[scope["path"]].wait()
            await hello(scope, receive, send)

        serving = Serving(application)
        client = await serving.connect()
        await client.send(get("/0") + get("/1"))
        await serving.until(lambda: called == ["/0"])
        gates["/1"].set()
        await serving.quiet()
        assert called == ["/0"]
        gates["/0"].set()
        assert [response.body for response in await client.responses(2)] == [b"hello /0", b"hello /1"]
        await serving.end()

    run(scene)


def test_the_good_requests_before_a_bad_one_are_answered(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(late)
        client = await serving.connect()
        await client.send(get("/0") + get("/1") + b"BAD\n" + get("/2"))
        responses = await client.all_responses()
        assert [response.status for response in responses] == [200, 200, 400]
        [record] = serving.records.of("refused")
        assert record["client_addr"] == "unix"
        assert serving.service.figures.refused == 1
        await serving.end()

    run(scene)


@pytest.mark.parametrize("eager", [False, True] if EAGER else [False], ids=lambda eager: "eager" if eager else "lazy")
def test_no_request_sees_the_context_of_the_one_before_it(run: Play, *, eager: bool) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    seen: list[str] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(variable.get())
        variable.set("a user of the last request")
        await late(scope, receive, send)

    async def scene() -> None:
        serving = Serving(application, eager=eager)
        client = await serving.connect()
        await client.send(GET * 3)
        await client.responses(3)
        await serving.end()

    run(scene)
    assert seen == ["unset"] * 3


def test_a_thousand_pipelined_requests_are_no_recursion(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(hello)
        client = await serving.connect()
        sending = asyncio.create_task(client.send(GET * 5000))
        while client.got.count(b"hello /") < 5000:
            assert await client.read()
        await sending
        await serving.end()

    run(scene)


def test_a_small_answer_and_its_head_are_one_segment(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(hello)
        client = await serving.connect()
        await client.send(GET)
        assert (await client.read()).endswith(b"hello /")
        await serving.end()

    run(scene)


def test_http_1_0_gets_an_answer_and_the_end(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(hello)
        client = await serving.connect()
        await client.send(b"GET /old HTTP/1.0\r\n\r\n")
        [response] = await client.all_responses()
        assert response.body == b"hello /old"
        client.close()
        await serving.over()

    run(scene)


def test_http_1_0_gets_a_stream_ended_by_the_end_of_the_connection(run: Play) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send(more(b"a"))
        await asyncio.sleep(0)
        await send(LAST)

    async def scene() -> None:
        serving = Serving(application)
        client = await serving.connect()
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        [response] = await client.all_responses()
        assert response.body == b"alast"
        assert response.values(b"transfer-encoding") == []
        await serving.end()

    run(scene)


def test_connection_close_is_honoured(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(hello)
        client = await serving.connect()
        await client.send(get("/", "Connection: close"))
        [response] = await client.all_responses()
        assert response.values(b"connection") == [b"close"]
        client.close()
        await serving.over()

    run(scene)


def test_100_continue_comes_when_the_application_first_reads(run: Play) -> None:
    async def scene() -> None:
        gate = asyncio.Event()

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await gate.wait()
            await echo(scope, receive, send)

        serving = Serving(application)
        client = await serving.connect()
        await client.send(post(b"", "/up", "Expect: 100-continue", length=4))
        reading = asyncio.create_task(client.until(b"\r\n\r\n"))
        await serving.quiet()
        assert client.got == b""
        gate.set()
        await reading
        assert client.got == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"body")
        assert (await client.responses(2))[1].body == b"/up body"
        await serving.end()

    run(scene)


def test_100_continue_never_comes_to_an_application_that_does_not_read(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(hello)
        client = await serving.connect()
        await client.send(post(b"", "/", "Expect: 100-continue", length=4))
        [response] = await client.all_responses()
        assert (response.status, response.values(b"connection")) == (200, [b"close"])
        await serving.end()

    run(scene)


def test_the_scope_names_both_ends(run: Play) -> None:
    scopes: list[Scope] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await hello(scope, receive, send)

    async def scene() -> None:
        serving = Serving(application)
        client = await serving.connect(tcp=True)
        await client.send(GET)
        await client.responses(1)
        [scope] = scopes
        assert scope["client"] == client.sock.getsockname()
        assert scope["server"] == client.sock.getpeername()
        await serving.end()

    run(scene)


# What applications get wrong


def breaks(*messages: Message) -> Application:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)
        raise ValueError("broken")

    return application


@pytest.mark.parametrize("messages", [[], [START]])
def test_an_application_that_breaks_before_its_answer_gives_a_500_and_the_connection_stays(
    run: Play, messages: list[Message]
) -> None:
    async def scene() -> None:
        serving = Serving(breaks(*messages))
        client = await serving.connect()
        for number in range(2):
            await client.send(GET)
            response = (await client.responses(number + 1))[-1]
            assert (response.status, response.body) == (500, b"Internal Server Error\n")
        await serving.end()

    run(scene)


def test_a_chunked_answer_that_breaks_off_lacks_its_last_chunk(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(breaks(START, more(b"begun")))
        client = await serving.connect()
        await client.send(GET)
        assert (await client.rest()).endswith(b"\r\n5\r\nbegun\r\n")
        await serving.end()

    run(scene)


def test_an_answer_with_a_length_that_breaks_off_is_shorter(run: Play) -> None:
    async def scene() -> None:
        start = {**START, "headers": [(b"content-length", b"10")]}
        serving = Serving(breaks(start, more(b"begun")))
        client = await serving.connect()
        await client.send(GET)
        assert (await client.rest()).endswith(b"\r\n\r\nbegun")
        await serving.end()

    run(scene)


def test_an_http_1_0_answer_that_breaks_off_ends_in_a_reset(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(breaks(START, more(b"begun")))
        client = await serving.connect(tcp=True)
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            await client.rest()
        await serving.end()

    run(scene)


def test_a_body_that_the_application_does_not_read_is_thrown_away_and_the_next_request_answered(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(hello)
        client = await serving.connect()
        await client.send(post(b"", "/0", length=1000))
        await client.responses(1)
        await client.send(b"x" * 1000 + get("/1"))
        assert [response.body for response in await client.responses(2)] == [b"hello /0", b"hello /1"]
        await serving.end()

    run(scene)


def test_a_stream_without_end_that_nobody_gets_does_not_keep_the_next_request(run: Play) -> None:
    async def scene() -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["method"] == "GET":
                await hello(scope, receive, send)
                return
            await send(START)
            await send(more(b"first"))
            while (await receive())["type"] != "http.disconnect":
                pass

        serving = Serving(application)
        client = await serving.connect()
        await client.send(b"HEAD / HTTP/1.1\r\nHost: a.example\r\n\r\n" + get("/next"))
        responses = await client.responses(2, "HEAD", "GET")
        assert [response.body for response in responses] == [b"", b"hello /next"]
        assert [record["outcome"] for record in serving.records.answers()] == ["complete"] * 2
        await serving.end()

    run(scene)


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
def test_a_client_that_still_sends_gets_the_whole_of_an_early_answer(run: Play, *, tcp: bool) -> None:
    answer = b"a" * 500_000

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send({**START, "status": 413})
        await send({"type": "http.response.body", "body": answer})

    async def scene() -> None:
        serving = Serving(application)
        client = await serving.connect(tcp=tcp)
        await client.send(post(b"", length=5_000_000))
        for _ in range(50):
            await client.send(b"x" * 100_000)
        client.half_close()
        [response] = await client.all_responses("POST")
        assert (response.status, response.body) == (413, answer)
        client.close()
        await serving.over()

    run(scene)


def test_a_slow_reader_gets_the_whole_of_the_last_answer(run: Play) -> None:
    answer = b"a" * 2_000_000

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send({"type": "http.response.body", "body": answer})

    async def scene() -> None:
        serving = Serving(application)
        client = await serving.connect()
        await client.send(get("/", "Connection: close"))
        await client.until(b"\r\n\r\n")
        serving.later(3)  # longer than our patience, shorter than the write deadline
        [response] = await client.all_responses()
        assert response.body == answer
        await serving.end()

    run(scene)


def test_who_still_sends_behind_the_last_answer_has_a_while_to_end_whatever_the_linger_time(run: Play) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send({**START, "status": 413})
        await send({"type": "http.response.body", "body": b"too much"})

    async def scene() -> None:
        serving = Serving(application, timeouts=NO_LINGER)
        client = await serving.connect(tcp=True)
        await client.send(post(b"", "/", "Connection: close", length=5_000_000))
        await serving.until(lambda: serving.connection.phase == CLOSING)
        serving.later(PATIENCE / 2)
        await client.send(b"x" * 100_000)
        await serving.quiet()
        assert serving.connection.phase == CLOSING
        [response] = await client.all_responses("POST")
        assert (response.status, response.body) == (413, b"too much")
        serving.later(PATIENCE + 1)
        await serving.over()

    run(scene)


# The client goes


@pytest.mark.parametrize("way", [Client.close, Client.reset])
@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
def test_a_client_that_goes_is_told_as_a_disconnect_without_a_traceback(
    run: Play, caplog: pytest.LogCaptureFixture, way: Callable[[Client], None], *, tcp: bool
) -> None:
    async def scene() -> None:
        serving = Serving(waits)
        client = await serving.connect(tcp=tcp)
        await client.send(GET)
        await serving.until(lambda: len(serving.service.tasks) == 1)
        way(client)
        await serving.quiet()
        serving.later(3)  # a FIN alone is told once the client has had time to wait for its answer
        await serving.over()
        assert serving.records.tracebacks() == []
        [answer] = serving.records.answers()
        assert answer["outcome"] == "client_gone"

    run(scene)
    assert caplog.records == []


@pytest.mark.parametrize("sent", [b"", b"GET / HT", GET[:-2], post(b"half", length=8)])
@pytest.mark.parametrize("way", [Client.close, Client.reset])
def test_a_client_may_go_at_any_point(
    run: Play, caplog: pytest.LogCaptureFixture, sent: bytes, way: Callable[[Client], None]
) -> None:
    async def scene() -> None:
        serving = Serving(waits)
        client = await serving.connect(tcp=True)
        if sent:
            await client.send(sent)
        await serving.quiet()
        way(client)
        await serving.quiet()
        serving.later(3)
        await serving.over()
        assert serving.records.tracebacks() == []
        assert serving.service.figures.connections == serving.service.figures.requests == 0

    run(scene)
    assert caplog.records == []


def test_a_client_that_goes_in_mid_body_is_a_disconnect(run: Play) -> None:
    messages: list[Message] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        while not messages or messages[-1]["type"] != "http.disconnect":
            messages.append(await receive())
        with pytest.raises(OSError, match="gone"):
            await send(START)

    async def scene() -> None:
        serving = Serving(application)
        client = await serving.connect()
        await client.send(post(b"half", length=8))
        await serving.until(lambda: len(messages) == 1)
        client.close()
        await serving.over()
        assert messages == [
            {"type": "http.request", "body": b"half", "more_body": True},
            {"type": "http.disconnect"},
        ]
        assert serving.records.tracebacks() == []

    run(scene)


def test_a_client_that_half_closes_after_its_request_gets_its_answer(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(late)
        client = await serving.connect()
        await client.send(GET)
        client.half_close()
        [response] = await client.all_responses()
        assert response.values(b"connection") == [b"close"]
        await serving.over()

    run(scene)


def test_a_client_that_half_closes_after_several_requests_gets_all_answers(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(late)
        client = await serving.connect()
        await client.send(GET * 3)
        client.half_close()
        assert len(await client.all_responses()) == 3
        await serving.over()

    run(scene)


@pytest.mark.parametrize("size", [8_000, 12_000, 300_000])
def test_a_client_that_half_closes_and_reads_late_gets_all_answers(run: Play, size: int) -> None:
    async def scene() -> None:
        go = asyncio.Event()

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"] == "/first":
                await go.wait()
            await send(START)
            await send({"type": "http.response.body", "body": bytes(size)})

        serving = Serving(application)
        client = await serving.connect()
        await client.send(get("/first") + get("/behind") * 60)
        client.half_close()
        await serving.until(lambda: serving.connection._eof)
        go.set()
        await serving.until(lambda: serving.connection._out.paused)
        await serving.quiet()
        assert [response.status for response in await client.all_responses()] == [200] * 61
        await serving.over()
        assert serving.records.tracebacks() == []

    run(scene)


def test_a_client_that_has_gone_is_noticed_behind_all_that_it_has_pipelined(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(waits)
        clients = [await serving.connect(tcp=number > 0) for number in range(3)]
        for client in clients:
            await client.send(get("/waits") + get("/behind") * (HIGH_WATER // len(get("/behind")) + 100))
        await serving.until(lambda: serving.held() > 3 * HIGH_WATER)
        serving.later(PATIENCE + 1)
        await serving.quiet()
        assert len(serving.service.running) == 3  # all are there
        clients[0].half_close()
        clients[1].close()
        clients[2].reset()
        serving.later(PATIENCE * 2 + 1)
        await serving.until(lambda: not serving.service.running)
        await serving.end()

    run(scene)


def test_what_is_told_of_a_request_has_no_id_of_the_one_before(run: Play) -> None:
    async def scene() -> None:
        full = asyncio.Event()

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await full.wait()  # receive() has the loop read again then
            while (await receive())["more_body"]:
                pass
            await hello(scope, receive, send)

        serving = Serving(application)
        client = await serving.connect()
        sending = asyncio.create_task(client.send(post(bytes(2_000_000))))
        await serving.until(lambda: serving.held() > READ_AHEAD)
        full.set()
        await sending
        await client.responses(1)
        await client.send(b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n")
        assert [response.status for response in await client.all_responses()] == [200, 400]
        client.close()
        await serving.over()
        [refused] = serving.records.of("refused")
        assert "request_id" not in refused

    run(scene)


def test_an_endless_stream_ends_with_its_client(run: Play, caplog: pytest.LogCaptureFixture) -> None:
    sent = 0

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send(START)
        for sent in range(100_000):  # noqa: B007
            await send(more(b"x"))

    async def scene() -> None:
        serving = Serving(application, eager=False)
        client = await serving.connect(tcp=True)
        await client.send(GET)
        client.reset()
        await serving.over()
        assert serving.records.tracebacks() == []

    run(scene)
    assert sent < 99_999
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_client_that_resets_before_it_is_served_is_no_error(run: Play, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        serving = Serving(waits)
        ours, theirs = pair(tcp=True)
        Client(theirs, serving.loop).reset()
        await serving.loop.connect_accepted_socket(partial(SerialConnection, serving.endpoint), ours)
        await serving.over()
        assert serving.records.tracebacks() == []

    run(scene)
    assert caplog.records == []


# Back-pressure: what is counted is what this process holds


def test_an_endless_answer_to_a_slow_client_holds_a_bounded_number_of_bytes(run: Play) -> None:
    async def scene() -> None:
        most = sent = 0

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal sent
            await send(START)
            while True:
                await send(more(b"x" * READ_SIZE))
                sent += READ_SIZE

        serving = Serving(application)
        client = await serving.connect()
        await client.send(GET)
        for _ in range(300):
            assert len(await client.read(16 * 1024)) > 0
            most = max(most, serving.held())
            await asyncio.sleep(0)
        assert HIGH_WATER < most <= HELD_LIMIT
        assert sent < 300 * 16 * 1024 + 4 * HELD_LIMIT + 4 * 1024 * 1024
        await serving.end()

    run(scene)


def test_a_stream_that_never_waits_holds_a_bounded_number_of_bytes(run: Play) -> None:
    async def scene() -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await send(START)
            for _ in range(100_000):
                await send(more(b"x" * 1000))

        serving = Serving(application)
        client = await serving.connect()
        await client.send(GET)
        await client.until(b"\r\n\r\n")
        await serving.quiet()
        assert serving.held() <= HELD_LIMIT
        await serving.end()

    run(scene)


def test_an_endless_body_to_a_slow_application_holds_a_bounded_number_of_bytes(run: Play) -> None:
    async def scene() -> None:
        turn = asyncio.Semaphore(0)
        read = most = 0

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal read
            while True:
                await turn.acquire()
                read += len((await receive()).get("body", b""))

        serving = Serving(application)
        client = await serving.connect()
        sending = asyncio.create_task(client.send(post(b"x" * 10_000_000, length=1 << 33)))
        for _ in range(40):
            await serving.quiet()
            most = max(most, serving.held())
            turn.release()
        assert HIGH_WATER <= most <= HELD_LIMIT
        assert 0 < read < 10_000_000
        assert not sending.done()
        sending.cancel()
        await serving.end()

    run(scene)


def test_a_body_that_is_read_flows_to_its_end(run: Play) -> None:
    async def scene() -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            total, message = 0, await receive()
            while message["more_body"]:
                total += len(message["body"])
                await asyncio.sleep(0)
                message = await receive()
            await send(START)
            await send({"type": "http.response.body", "body": b"%d" % (total + len(message["body"]))})

        serving = Serving(application)
        client = await serving.connect()
        await client.send(post(b"x" * 10_000_000))
        [response] = await client.responses(1)
        assert response.body == b"10000000"
        await serving.end()

    run(scene)


def test_endless_pipelining_behind_a_slow_request_holds_a_bounded_number_of_bytes(run: Play) -> None:
    async def scene() -> None:
        gate = asyncio.Event()

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await gate.wait()
            await hello(scope, receive, send)

        serving = Serving(application)
        client = await serving.connect()
        count = 200_000
        sending = asyncio.create_task(client.send(GET * count))
        await serving.quiet()
        assert HIGH_WATER <= serving.held() <= HELD_LIMIT
        assert not sending.done()
        gate.set()
        answered = 0
        while answered < 8_000:
            client.got = client.got[-6:]
            await client.read()
            answered += client.got.count(b"hello /")
            assert serving.held() <= HELD_LIMIT
        sending.cancel()
        await serving.end()

    run(scene)


def test_who_pipelines_and_does_not_read_has_few_answers_made(run: Play) -> None:
    async def scene() -> None:
        called = 0

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal called
            called += 1
            await send(START)
            await send({"type": "http.response.body", "body": b"x" * 10_000})

        serving = Serving(application)
        client = await serving.connect()
        sending = asyncio.create_task(client.send(GET * 10_000))
        await serving.quiet()
        assert serving.held() <= HELD_LIMIT
        assert 0 < called < 200  # what the kernel's buffers and ours take, and not the 1,700 requests of one read
        sending.cancel()
        await serving.end()

    run(scene)


def test_pipelining_behind_a_body_in_many_pieces_holds_a_bounded_number_of_bytes(run: Play) -> None:
    async def scene() -> None:
        turn = asyncio.Semaphore(0)

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            while True:
                await turn.acquire()
                await receive()

        serving = Serving(application)
        client = await serving.connect()
        await client.send(post(b"", length=30))
        for _ in range(30):
            await client.send(b"x")
            await serving.quiet()
        sending = asyncio.create_task(client.send(GET * 200_000))
        for _ in range(30):
            await serving.quiet()
            assert serving.held() <= HELD_LIMIT
            turn.release()
        assert not sending.done()
        sending.cancel()
        await serving.end()

    run(scene)


def test_a_body_behind_much_pipelining_is_read(run: Play) -> None:
    """The last bytes that were read in advance are the head of a request whose body is still to come."""

    async def scene() -> None:
        gate = asyncio.Event()

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await gate.wait()
            await echo(scope, receive, send)

        serving = Serving(application)
        client = await serving.connect()
        ahead = GET + get("/padding", "X-Padding: " + "x" * 8000) * 8
        count = 1 + 8
        for _ in range(2):
            ahead += get("/padding", "X-Padding: " + "x" * 8000)
            count += 1
        await client.send(ahead + post(b"", "/last", length=4))
        await serving.until(lambda: serving.connection._engine.pending >= HIGH_WATER)
        gate.set()
        await client.responses(count)
        await client.send(b"body")
        assert (await client.responses(count + 1))[-1].body == b"/last body"
        await serving.end()

    run(scene)


# Deadlines


def test_a_client_that_says_nothing_is_closed(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(hello)
        client = await serving.connect()
        serving.later(TIMEOUTS.header - 10)
        assert len(serving.endpoint.connections) == 1
        serving.later(TIMEOUTS.header + 1)
        assert await client.rest() == b""
        [record] = serving.records.of("deadline")
        assert "sent nothing" in record["message"]
        await serving.over()

    run(scene)


@pytest.mark.parametrize("kept", [False, True], ids=["first", "kept-alive"])
def test_a_head_that_is_trickled_is_refused_at_a_fixed_time(run: Play, *, kept: bool) -> None:
    async def scene() -> None:
        serving = Serving(hello)
        client = await serving.connect()
        if kept:
            await client.send(GET)
            await client.responses(1)
        await client.send(b"G")
        await serving.until(lambda: serving.connection.phase == "head")
        deadline = serving.connection.deadline
        for byte in b"ET / HTTP/1.1\r\nHost: a":
            await client.send(bytes([byte]))
            await asyncio.sleep(0)
        await serving.quiet()
        assert serving.connection.deadline == deadline
        serving.later(TIMEOUTS.header - 10)
        await serving.quiet()
        assert serving.records.of("deadline") == []
        serving.later(TIMEOUTS.header + 1)
        assert (await client.all_responses())[-1].status == 408
        assert len(serving.records.of("deadline")) == 1
        client.close()
        await serving.over()

    run(scene)


def test_an_empty_line_buys_no_time(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(hello)
        client = await serving.connect()
        deadline = serving.connection.deadline
        await client.send(b"\r\n")
        await serving.quiet()
        assert serving.connection.deadline == deadline
        serving.later(TIMEOUTS.header + 1)
        await client.rest()
        await serving.over()

    run(scene)


def test_an_idle_connection_is_closed_after_the_keep_alive_time_in_silence(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(hello)
        client = await serving.connect()
        await client.send(GET)
        await client.responses(1)
        serving.later(TIMEOUTS.keep_alive - 10)
        assert len(serving.endpoint.connections) == 1
        serving.later(TIMEOUTS.keep_alive + 1)
        assert len(await client.all_responses()) == 1
        assert serving.records.of("deadline") == []
        await serving.over()

    run(scene)


def test_a_body_that_is_trickled_is_refused(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(echo)
        client = await serving.connect()
        await client.send(post(b"x" * 100, length=10_000_000))
        await serving.until(lambda: bool(serving.endpoint.connections) and serving.connection.phase == "body")
        await serving.quiet()
        serving.later(TIMEOUTS.body - 10)
        await serving.quiet()
        assert serving.records.of("deadline") == []
        serving.later(TIMEOUTS.body + 1)
        [response] = await client.all_responses("POST")
        assert response.status == 408
        [record] = serving.records.of("deadline")
        assert "too slowly" in record["message"]
        client.close()
        await serving.over()
        assert serving.records.tracebacks() == []

    run(scene)


def test_a_body_that_keeps_the_rate_gets_more_time(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(echo, timeouts=replace(TIMEOUTS, body=30, min_rate=100))
        client = await serving.connect()
        await client.send(post(b"", length=20_000))
        await serving.until(lambda: serving.connection.phase == "body")
        for _ in range(3):
            received = serving.connection._received
            await client.send(b"x" * 4000)
            await serving.until(lambda received=received: serving.connection._received == received + 4000)  # type: ignore[misc]
            serving.later(31)
        assert serving.records.of("deadline") == []
        await client.send(b"x" * 8000)
        assert (await client.responses(1))[0].status == 200
        await serving.end()

    run(scene)


def test_a_slow_application_is_not_its_clients_fault(run: Play) -> None:
    async def scene() -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await asyncio.Event().wait()

        serving = Serving(application)
        client = await serving.connect()
        sending = asyncio.create_task(client.send(post(b"x" * 1_000_000)))
        await serving.until(lambda: serving.held() >= HIGH_WATER)
        await serving.quiet()
        serving.later(1000)
        await serving.quiet()
        assert len(serving.endpoint.connections) == 1
        assert serving.records.of("deadline") == []
        sending.cancel()
        await serving.end()

    run(scene)


def test_an_application_has_no_deadline(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(waits)
        client = await serving.connect()
        await client.send(GET)
        await serving.until(lambda: len(serving.service.tasks) == 1)
        serving.later(1_000_000)
        await serving.quiet()
        assert len(serving.endpoint.connections) == 1
        await serving.end()

    run(scene)


def test_what_the_kernel_holds_counts_as_not_taken(run: Play) -> None:
    # It may hold megabytes, and room for more comes in large steps: a client far above the minimum rate seems to take
    # nothing for a while, if only the transport's own buffer is looked at.
    async def scene() -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await send(START)
            with suppress(OSError):
                while True:
                    await send(more(b"x" * READ_SIZE))

        serving = Serving(application)
        client = await serving.connect(tcp=True)
        await client.send(GET)
        await serving.until(lambda: bool(serving.endpoint.connections) and serving.connection._out.paused)
        out, waiting = serving.connection._out, -1
        while waiting != out.waiting:  # the kernel may still have taken some
            waiting = out.waiting
            await serving.quiet()
        unsent = out._unsent
        while unsent - out._unsent < TIMEOUTS.min_rate * TIMEOUTS.write:
            await client.read(4096)  # the kernel tells of what is read in large steps, too
            await serving.quiet()
        assert out.waiting == waiting
        serving.later(TIMEOUTS.write + 1)
        await serving.quiet()
        assert serving.records.of("deadline") == []
        serving.connection.abort()
        await serving.over()

    run(scene)


def test_a_client_that_reads_a_byte_a_second_is_cut(run: Play) -> None:
    async def scene() -> None:
        done = asyncio.Event()

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await send(START)
            with pytest.raises(OSError, match="gone"):
                while True:
                    await send(more(b"x" * READ_SIZE))
            done.set()

        serving = Serving(application)
        client = await serving.connect()
        await client.send(GET)
        await serving.until(lambda: bool(serving.endpoint.connections) and serving.connection._out.paused)
        serving.later(TIMEOUTS.write - 10)
        assert len(serving.endpoint.connections) == 1
        await client.read(1)
        serving.later(TIMEOUTS.write + 1)
        await done.wait()
        await serving.over()
        [record] = serving.records.of("deadline")
        assert "reads too slowly" in record["message"]
        assert serving.records.tracebacks() == []

    run(scene)


def test_a_client_that_reads_at_the_rate_gets_more_time(run: Play) -> None:
    async def scene() -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await send(START)
            await send(more(b"x" * 20_000_000))

        serving = Serving(application)
        client = await serving.connect()
        await client.send(GET)
        for _ in range(3):
            await serving.until(lambda: bool(serving.endpoint.connections) and serving.connection._out.paused)
            for _ in range(40):
                await client.read(16 * 1024)
            await serving.quiet()
            serving.later(TIMEOUTS.write + 1)
        assert len(serving.endpoint.connections) == 1
        await serving.end()

    run(scene)


@pytest.mark.parametrize("size", [1000, 1_000_000])
def test_a_last_answer_that_nobody_reads_does_not_keep_the_connection(run: Play, size: int) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send({"type": "http.response.body", "body": b"x" * size})

    async def scene() -> None:
        serving = Serving(application)
        client = await serving.connect()
        await client.send(get("/", "Connection: close"))
        await serving.until(lambda: bool(serving.endpoint.connections) and serving.connection.phase == "closing")
        await serving.quiet()
        serving.later(TIMEOUTS.write + 1)
        await serving.over()

    run(scene)


def test_an_unread_answer_of_a_kept_connection_has_a_deadline_too(run: Play) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send({"type": "http.response.body", "body": b"x" * 1_000_000})

    async def scene() -> None:
        serving = Serving(application)
        client = await serving.connect()
        await client.send(GET)
        await serving.until(lambda: bool(serving.endpoint.connections) and serving.connection._out.paused)
        serving.later(TIMEOUTS.keep_alive + 1)  # the keep-alive time does not cut an answer that is under way
        await serving.quiet()
        [response] = await client.responses(1)
        assert len(response.body) == 1_000_000
        await serving.end()

    run(scene)


def test_the_head_behind_a_body_that_was_thrown_away_has_the_heads_deadline(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(hello)
        client = await serving.connect()
        await client.send(post(b"", length=1000))
        await client.responses(1)
        await client.send(b"x" * 1000 + b"GET /tric")
        await serving.until(lambda: serving.connection._engine.pending > 0)
        await serving.quiet()
        serving.later(TIMEOUTS.header + 1)
        assert (await client.all_responses())[-1].status == 408
        await serving.end()

    run(scene)


# Draining


def test_the_rest_of_a_body_that_is_thrown_away_has_the_bodys_deadline(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(hello)
        client = await serving.connect()
        chunked = b"POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n"
        await client.send(chunked + b"1\r\na\r\n1")  # and a part of the next chunk's line
        await client.responses(1, "POST")
        await serving.quiet()
        serving.later(TIMEOUTS.header + 1)
        await client.send(b"\r\nb\r\n0\r\n\r\n" + get("/next"))
        assert [response.body for response in await client.responses(2, "POST", "GET")][1] == b"hello /next"
        await serving.end()

    run(scene)


def test_while_draining_an_idle_connection_gets_one_more_answer(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(hello)
        client = await serving.connect()
        await client.send(GET)
        await client.responses(1)
        serving.drain()
        serving.later(TIMEOUTS.linger - 10)
        await serving.quiet()
        await client.send(GET)
        responses = await client.all_responses()
        assert [response.values(b"connection") for response in responses] == [[], [b"close"]]
        client.close()
        await serving.over()

    run(scene)


def test_while_draining_an_idle_connection_is_closed_after_the_linger_time(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(hello)
        idle, fresh = await serving.connect(), await serving.connect()
        await idle.send(GET)
        await idle.responses(1)
        serving.drain()
        serving.later(TIMEOUTS.linger + 1)
        assert len(await idle.all_responses()) == 1
        assert await fresh.rest() == b""
        await serving.over()
        assert serving.records.of("deadline") == []

    run(scene)


def test_many_connections_are_told_in_steps_and_those_that_end_between_two_are_not(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(hello)
        clients = [await serving.connect() for _ in range(DRAINED_AT_ONCE + 2)]
        for client in clients:
            await client.send(GET)
            await client.responses(1)
        steps = serving.endpoint.drain_in_steps()
        next(steps)
        late = [one for one in serving.endpoint.connections if one.deadline > monotonic() + TIMEOUTS.linger]
        assert len(late) == 2
        late[0].abort()
        await serving.until(lambda: late[0] not in serving.endpoint.connections)
        assert list(steps) == []
        assert len(serving.endpoint.connections) == DRAINED_AT_ONCE + 1
        serving.later(TIMEOUTS.linger + 0.1)
        await serving.over()
        assert serving.records.tracebacks() == []

    run(scene)


def test_while_draining_a_running_request_is_answered_and_the_connection_closed(run: Play) -> None:
    async def scene() -> None:
        gate = asyncio.Event()

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await gate.wait()
            await hello(scope, receive, send)

        serving = Serving(application)
        client = await serving.connect()
        await client.send(GET)
        await serving.until(lambda: len(serving.service.tasks) == 1)
        serving.drain()
        serving.later(1000)
        gate.set()
        [response] = await client.all_responses()
        assert response.values(b"connection") == [b"close"]
        client.close()
        await serving.over()

    run(scene)


def test_while_draining_all_that_was_pipelined_is_answered(run: Play) -> None:
    async def scene() -> None:
        gate = asyncio.Event()

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await gate.wait()
            await hello(scope, receive, send)

        serving = Serving(application)
        client = await serving.connect()
        await client.send(GET * 3)
        await serving.until(lambda: len(serving.service.tasks) == 1)
        serving.drain()
        gate.set()
        responses = await client.all_responses()
        assert [response.values(b"connection") for response in responses] == [[], [], [b"close"]]
        await serving.end()

    run(scene)


def test_a_connection_made_while_draining_gets_its_one_answer(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(hello)
        serving.drain()
        client = await serving.connect()
        await client.send(GET)
        [response] = await client.all_responses()
        assert response.values(b"connection") == [b"close"]
        await serving.end()

    run(scene)


def test_the_last_connection_tells_that_it_was_the_last(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(hello)
        told: list[bool] = []
        serving.endpoint.on_last = lambda: told.append(True)
        first, second = await serving.connect(), await serving.connect()
        first.close()
        await serving.until(lambda: len(serving.endpoint.connections) == 1)
        assert told == []
        second.close()
        await serving.over()
        assert told == [True]

    run(scene)


def test_limits_are_per_connection_and_answered(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(echo, limits=Limits(body=10, request_line=100))
        big, long = await serving.connect(), await serving.connect()
        await big.send(post(b"", length=11))
        assert [response.status for response in await big.all_responses("POST")] == [413]
        await long.send(get("/" + "x" * 200))
        assert [response.status for response in await long.all_responses()] == [414]
        await serving.end()

    run(scene)
