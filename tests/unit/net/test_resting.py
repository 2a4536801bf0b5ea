"""Who sends very much at once has a bounded share of each turn of the loop, and gets everything in the end."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appserver.asgi.types import Message, Receive, Scope, Send
from appserver.net import serial
from appserver.net.endpoint import READ_SIZE
from appserver.net.serial import STEPS_A_TURN
from appserver.wire import chunked
from appserver.wire.chunked import CHUNKS_AT_ONCE
from tests.contract.driver import cut
from tests.unit.net.serving import EAGER, GET, Client, Serving, echo, get, play, post
from tests.unit.net.sockets import HANDSHAKE, OPTIONS
from tests.unit.websocket_frames import text

Play: TypeAlias = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]

A_TURN = 2 * STEPS_A_TURN
"""The end of what one read has brought and the beginning of the next may meet in a turn."""

UPLOAD = b"POST /up HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n"
START: Message = {"type": "http.response.start", "status": 200, "headers": []}

pytestmark = pytest.mark.skipif(not EAGER, reason="where tasks are not eager each pipelined request is a turn")


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer at once, reading nothing."""
    await send(START)
    await send({"type": "http.response.body", "body": b"hello " + scope["path"].encode()})


def in_chunks(content: bytes) -> bytes:
    """A chunk for each byte, and the end."""
    return b"".join(b"1\r\n%c\r\n" % byte for byte in content) + b"0\r\n\r\n"


@contextmanager
def counting(serving: Serving, count: Callable[[], int]) -> Iterator[list[int]]:
    """By how much a count grows in each turn of the loop."""
    steps: list[int] = []
    last = count()
    going = True

    def look() -> None:
        nonlocal last
        now = count()
        steps.append(now - last)
        last = now
        if going:
            serving.loop.call_soon(look)

    look()
    yield steps
    going = False


async def resting(serving: Serving) -> None:
    """Wait until a part of what the client has sent waits for the next turn."""
    while not serving.endpoint.connections or not serving.connection._resting:
        await asyncio.sleep(0)


def test_pipelined_requests_of_one_client_have_a_bounded_share_of_a_turn(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(hello)
        client = await serving.connect()
        with counting(serving, lambda: serving.service.figures.answered) as steps:
            sending = asyncio.create_task(client.send(b"".join(get(f"/{number}") for number in range(3000))))
            responses = await client.responses(3000)
        await sending
        assert [response.body for response in responses] == [b"hello /%d" % number for number in range(3000)]
        assert max(steps) <= A_TURN
        await serving.end()

    run(scene)


def test_the_usual_number_of_pipelined_requests_is_one_turn(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(hello)
        client = await serving.connect()
        with counting(serving, lambda: serving.service.figures.answered) as steps:
            await client.send(GET * STEPS_A_TURN)
            await client.responses(STEPS_A_TURN)
        assert [step for step in steps if step] == [STEPS_A_TURN]
        await serving.end()

    run(scene)


def test_small_chunks_of_one_client_have_a_bounded_share_of_a_turn(run: Play) -> None:
    content = bytes(range(256)) * 80

    async def scene() -> None:
        serving = Serving(echo)
        client = await serving.connect()

        def count() -> int:
            return sum(cycle.received for one in serving.endpoint.connections for cycle in one._cycles.values())

        with counting(serving, count) as steps:
            sending = asyncio.create_task(client.send(UPLOAD + in_chunks(content) + get("/next")))
            responses = await client.responses(2)
        await sending
        assert [response.body for response in responses] == [b"/up " + content, b"/next "]
        assert max(steps) <= A_TURN * CHUNKS_AT_ONCE
        await serving.end()

    run(scene)


def test_small_chunks_that_nobody_reads_have_a_bounded_share_of_a_turn(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(hello)
        client = await serving.connect()

        def count() -> int:
            return sum(one._engine.pending for one in serving.endpoint.connections)

        with counting(serving, count) as steps:
            await client.send(UPLOAD + in_chunks(bytes(9000)) + get("/next"))
            responses = await client.responses(2, "POST", "GET")
        assert [response.body for response in responses] == [b"hello /up", b"hello /next"]
        assert min(steps) >= -A_TURN * CHUNKS_AT_ONCE * len(b"1\r\n0\r\n") - len(get("/next"))
        assert sum(step for step in steps if step > 0) > 40_000  # most of it has waited
        await serving.end()

    run(scene)


def test_no_more_is_read_from_a_client_while_what_it_has_sent_waits(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(hello)
        client = await serving.connect()
        most = 0

        def count() -> int:
            nonlocal most
            most = max(most, serving.held())
            return most

        with counting(serving, count):
            sending = asyncio.create_task(client.send(GET * 20_000))
            while client.got.count(b"hello /") < 20_000:
                assert await client.read()
        await sending
        assert most <= 3 * READ_SIZE  # 540 KiB have come
        await serving.end()

    run(scene)


def test_who_shuts_its_side_gets_all_answers(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(hello)
        client = await serving.connect()
        await client.send(GET * 500)
        client.half_close()
        assert len(await client.all_responses(*["GET"] * 500)) == 500
        await serving.over()
        assert serving.records.of("refused") == []

    run(scene)


def test_an_end_of_input_that_is_told_while_something_waits_stands_behind_it(run: Play) -> None:
    # Over TLS: asyncio reads the peer's farewell together with what came before.
    async def scene() -> None:
        serving = Serving(hello)
        client = await serving.connect()
        await client.send(GET * 500)
        await resting(serving)
        serving.connection.eof_received()
        assert len(await client.all_responses(*["GET"] * 500)) == 500
        client.close()
        await serving.over()
        assert serving.records.of("refused") == []

    run(scene)


def test_a_head_that_is_cut_short_behind_much_pipelining_is_refused(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(hello)
        client = await serving.connect()
        await client.send(GET * 500 + GET[:20])
        client.half_close()
        responses = await client.all_responses(*["GET"] * 501)
        assert [response.status for response in responses] == [200] * 500 + [400]
        await serving.over()

    run(scene)


def test_the_last_of_many_answers_says_that_the_server_stops(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(hello)
        client = await serving.connect()
        await client.send(GET * 500)
        await resting(serving)
        serving.drain()
        responses = await client.all_responses(*["GET"] * 500)
        assert [response.values(b"connection") for response in responses] == [[]] * 499 + [[b"close"]]
        client.close()
        await serving.over()

    run(scene)


def test_nothing_behind_connection_close_is_served(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(hello)
        client = await serving.connect()
        await client.send(GET * 100 + get("/last", "Connection: close") + GET * 100)
        assert [response.body for response in await client.all_responses()][100:] == [b"hello /last"]
        client.close()
        await serving.over()

    run(scene)


@pytest.mark.parametrize("sent", [GET * 2000, UPLOAD + in_chunks(bytes(9000))[:-5]], ids=["requests", "chunks"])
@pytest.mark.parametrize("how", ["reset", "abort", "cut"])
def test_what_waits_ends_with_its_connection(run: Play, sent: bytes, how: str) -> None:
    async def scene() -> None:
        serving = Serving(echo)
        client = await serving.connect(tcp=True)
        await client.send(sent)
        await resting(serving)
        connection = serving.connection
        if how == "reset":
            client.reset()
        elif how == "abort":
            connection.abort()
        else:
            serving.endpoint.cutting = True
            connection.finish()
            await asyncio.sleep(0)
            assert not connection._resting
            client.close()
        await serving.over()
        begun = serving.service.figures.answered
        await serving.quiet()
        assert (serving.service.figures.answered, serving.service.figures.requests) == (begun, 0)

    run(scene)


def test_a_fault_of_ours_in_what_waits_ends_its_connection(run: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    faults: list[Any] = []

    async def scene() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context["exception"]))
        serving = Serving(hello)
        client = await serving.connect()
        await client.send(GET * 500)
        await resting(serving)

        def fail(*_: Any, **__: Any) -> None:
            raise RuntimeError("ours")

        monkeypatch.setattr(serial.SerialConnection, "_begin", fail)
        await client.rest()
        await serving.over()
        assert [str(fault) for fault in faults] == ["ours"]

    run(scene)


def test_a_response_that_ends_while_its_bodys_chunks_wait_is_written(run: Play) -> None:
    async def scene() -> None:
        gate = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await gate.wait()
            await hello(scope, receive, send)

        serving = Serving(app)
        client = await serving.connect()
        await client.send(UPLOAD + in_chunks(bytes(5000)) + get("/next"))
        await resting(serving)
        gate.set()
        connection = serving.connection
        with counting(serving, lambda: connection._engine.pending) as steps:
            responses = await client.responses(2, "POST", "GET")
        assert [response.body for response in responses] == [b"hello /up", b"hello /next"]
        assert min(steps) >= -STEPS_A_TURN * CHUNKS_AT_ONCE * len(b"1\r\n0\r\n") - len(get("/next"))
        await serving.end()

    run(scene)


@pytest.mark.parametrize("reads", [True, False])
def test_small_chunks_are_taken_though_their_client_reads_nothing_yet(run: Play, *, reads: bool) -> None:
    size = 1 << 22  # more than the sockets hold

    async def scene() -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send(START)
            body = asyncio.ensure_future(send({"type": "http.response.body", "body": bytes(size), "more_body": True}))
            while reads and (await receive())["more_body"]:
                pass
            await asyncio.sleep(0)
            if reads:
                taken.set()
            await body
            await send({"type": "http.response.body", "body": b""})

        taken = asyncio.Event()
        serving = Serving(app)
        client = await serving.connect()
        await client.send(UPLOAD + in_chunks(bytes(9000)))
        if reads:
            await taken.wait()
        [response] = await client.responses(1, "POST")
        assert len(response.body) == size
        await serving.end()

    run(scene)


def test_an_application_that_reads_meanwhile_gets_no_more_than_what_has_come(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(echo)
        client = await serving.connect()
        await client.send(UPLOAD + in_chunks(bytes(9000))[:-5])
        await resting(serving)
        connection = serving.connection
        deadline = connection.deadline
        while connection._resting:
            connection.consumed(1, 0)
            assert connection._paused
            await asyncio.sleep(0)
        assert not connection._paused
        assert connection.deadline == deadline  # that we were busy gives a client no time
        await client.send(b"0\r\n\r\n")
        [response] = await client.responses(1, "POST")
        assert response.body == b"/up " + bytes(9000)
        await serving.end()

    run(scene)


def test_a_websocket_behind_much_pipelining_gets_its_frames(run: Play) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await hello(scope, receive, send)
            return
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": "got " + message["text"]})

    async def scene(before: int) -> None:
        serving = Serving(app, websockets=OPTIONS)
        client = await serving.connect()
        await client.send(GET * before + HANDSHAKE + b"\r\n" + text("first"))
        await client.until(b"got first")
        assert client.got.count(b"hello /") == before
        await client.send(text("second"))
        await client.until(b"got second")
        await serving.end()

    for before in (*range(STEPS_A_TURN - 2, STEPS_A_TURN + 3), 100):
        run(partial(scene, before))


CLOSES = b"connection: close\r\n"
BAD_BODY = UPLOAD + b"1\r\na\r\nzz\r\n"
REQUESTS = st.sampled_from(
    [
        get("/a"),
        get("/b"),
        post(b"some content", "/c"),
        UPLOAD + in_chunks(b"seven b"),
        UPLOAD + b"20\r\n%b\r\n0\r\nTrailer: 1\r\n\r\n" % bytes(32),
        b"HEAD /h HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"\r\n" + get("/empty-line"),
        get("/close", "Connection: close"),
        BAD_BODY,
        b"BAD\r\n\r\n",
        GET[:-9],
    ]
)


def converse(pieces: list[bytes], application: Any) -> bytes:
    """All that comes back, the client's side being shut behind the last piece."""

    async def scene() -> bytes:
        serving = Serving(application)
        client: Client = await serving.connect()
        for piece in pieces:
            await client.send(piece)
            await asyncio.sleep(0)
        client.half_close()
        got = await client.rest()
        await serving.over()
        return got

    return play(asyncio.new_event_loop, scene)


@settings(max_examples=60)
@given(
    requests=st.lists(REQUESTS, min_size=1, max_size=12),
    places=st.lists(st.integers(0, 1000), max_size=6),
    steps=st.integers(2, 4),
    chunks=st.integers(1, 3),
    application=st.sampled_from([echo, hello]),
)
def test_whatever_comes_is_answered_as_if_there_were_no_bound(
    requests: list[bytes], places: list[int], steps: int, chunks: int, application: Any
) -> None:
    if application is hello and BAD_BODY in requests:
        requests = requests[: requests.index(BAD_BODY)]  # whether it is asked before that is refused is not promised
    pieces = cut(b"".join(requests), places)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serial, "STEPS_A_TURN", 1 << 30)
        patch.setattr(chunked, "CHUNKS_AT_ONCE", 1 << 30)
        expected = converse(pieces, application)
        patch.setattr(serial, "STEPS_A_TURN", steps)
        patch.setattr(chunked, "CHUNKS_AT_ONCE", chunks)
        # Whether the end of the input was known when the last answer was written is not promised.
        assert converse(pieces, application).replace(CLOSES, b"") == expected.replace(CLOSES, b"")
