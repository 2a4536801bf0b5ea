"""How long a client may keep the streams of an HTTP/2 connection waiting, and the connection itself."""

import asyncio
from collections.abc import Callable, Coroutine
from math import inf
from time import monotonic
from typing import Any, TypeAlias

import pytest

from appserver.asgi.types import Message, Receive, Scope, Send
from appserver.errors import ClientDisconnectedError
from appserver.net.connection import CLOSING, IDLE, OPENING, PATIENCE, SERVING
from appserver.wire.http2 import CONNECTION_WINDOW, STREAM_WINDOW
from tests.conformance.http2 import frames
from tests.conformance.http2.frames import MAX_WINDOW, PREFACE, WINDOW, Code, Setting
from tests.unit.net.serving import NO_LINGER, TIMEOUTS, Http2Client, Serving, echo

Play: TypeAlias = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]

START: Message = {"type": "http.response.start", "status": 200, "headers": []}

UPLOAD_SHARE = TIMEOUTS.min_rate * TIMEOUTS.body
DOWNLOAD_SHARE = TIMEOUTS.min_rate * TIMEOUTS.write


async def large(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with more than any window, in one message or in many."""
    await send(START)
    if scope["path"] == "/hello":
        await send({"type": "http.response.body", "body": b"hello"})
    elif scope["path"] == "/whole":
        await send({"type": "http.response.body", "body": bytes(1_000_000)})
    else:
        for _ in range(64):
            await send({"type": "http.response.body", "body": bytes(16_384), "more_body": True})
        await send({"type": "http.response.body", "body": b""})


class Talk:
    """An application that begins its answer, says another byte when told to, and listens beside."""

    def __init__(self) -> None:
        self.say = asyncio.Event()
        self.heard: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/other":
            await echo(scope, receive, send)
            return
        await receive()
        await send(START)
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        hearing = asyncio.create_task(self._hear(receive))
        while not hearing.done():
            saying = asyncio.create_task(self.say.wait())
            await asyncio.wait([hearing, saying], return_when=asyncio.FIRST_COMPLETED)
            saying.cancel()
            if self.say.is_set():
                self.say.clear()
                await send({"type": "http.response.body", "body": b".", "more_body": True})

    async def _hear(self, receive: Receive) -> None:
        self.heard.append((await receive())["type"])


async def sweep(serving: Serving, seconds: float) -> None:
    """Enforce the deadlines as if so much time had passed, and let come what comes of it."""
    serving.later(seconds)
    await serving.quiet()


async def uploading(serving: Serving, client: Http2Client, *paths: str) -> list[int]:
    """Requests whose bodies have begun to come, each seen by its application."""
    streams = [client.peer.ask(path, method="POST", end=False) for path in paths]
    for stream in streams:
        client.peer.send(stream, b"begun")
    await client.flush()
    await serving.until(lambda: [cycle.received for cycle in serving.multiplexed._cycles.values()] == [5] * len(paths))
    await serving.quiet()
    return streams


async def downloading(client: Http2Client, *paths: str) -> list[int]:
    """Requests whose answers wait for windows."""
    streams = [client.peer.ask(path) for path in paths]
    client.peer.slow.update(streams)
    await client.until(lambda: all(len(client.peer.answers[stream].body) == WINDOW for stream in streams))
    return streams


# Uploads


def test_a_body_that_stops_is_answered_408_and_no_other_is(run: Play, http2: str) -> None:
    async def scene() -> None:
        serving = Serving(echo, http2=http2)
        client = await serving.connect_http2()
        stopped, goes_on = await uploading(serving, client, "/stopped", "/goes-on")
        await sweep(serving, 0)
        client.peer.send(goes_on, bytes(int(UPLOAD_SHARE)))
        await client.flush()
        await sweep(serving, TIMEOUTS.body - 10)
        assert len(serving.multiplexed._cycles) == 2
        await sweep(serving, TIMEOUTS.body + 1)
        answer = await client.answer(stopped)
        await client.until(lambda: answer.reset is not None)
        assert (answer.status, answer.reset) == (408, Code.NO_ERROR)
        client.peer.send(goes_on, b"end", end=True)
        assert (await client.answer(goes_on)).body.endswith(b"end")
        [record] = serving.records.of("deadline")
        assert record["http_status"] == 408
        assert [answer["http_status"] for answer in serving.records.answers()] == [408, 200]
        await serving.end()

    run(scene)


def test_a_body_that_keeps_the_rate_may_take_for_ever(run: Play, http2: str) -> None:
    async def scene() -> None:
        serving = Serving(echo, http2=http2)
        client = await serving.connect_http2()
        [stream] = await uploading(serving, client, "/up")
        await sweep(serving, 0)
        for turn in range(1, 6):
            client.peer.send(stream, bytes(int(UPLOAD_SHARE)))
            await client.flush()
            await serving.quiet()
            await sweep(serving, turn * (TIMEOUTS.body + 1))
        assert serving.records.of("deadline") == []
        await sweep(serving, 6 * (TIMEOUTS.body + 1) + 1)
        assert (await client.answer(stream)).status == 408
        await serving.end()

    run(scene)


def test_a_slow_application_is_no_fault_of_its_client(run: Play, http2: str) -> None:
    async def scene() -> None:
        gate = asyncio.Event()

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await gate.wait()
            await echo(scope, receive, send)

        serving = Serving(application, http2=http2)
        client = await serving.connect_http2()
        stream = client.peer.ask("/up", method="POST", end=False)
        client.peer.send(stream, bytes(STREAM_WINDOW))
        await client.flush()
        await serving.until(
            lambda: any(cycle.unread == STREAM_WINDOW for cycle in serving.multiplexed._cycles.values())
        )
        for turn in range(4):
            await sweep(serving, turn * (TIMEOUTS.body + 1))
        gate.set()
        await serving.until(lambda: not any(cycle.unread for cycle in serving.multiplexed._cycles.values()))
        await sweep(serving, 5 * (TIMEOUTS.body + 1))  # only now does the client's time begin
        await client.until(lambda: client.peer.library.local_flow_control_window(stream) > 0)
        client.peer.send(stream, b"end", end=True)
        assert (await client.answer(stream)).status == 200
        assert serving.records.of("deadline") == []
        await serving.end()

    run(scene)


def test_what_others_have_not_read_makes_no_body_late(run: Play, http2: str) -> None:
    async def scene() -> None:
        gate = asyncio.Event()

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"] == "/slow":
                await gate.wait()
            await echo(scope, receive, send)

        serving = Serving(application, http2=http2)
        client = await serving.connect_http2()
        [stream] = await uploading(serving, client, "/up")
        for _ in range(CONNECTION_WINDOW // STREAM_WINDOW):
            slow = client.peer.ask("/slow", method="POST", end=False)
            client.peer.send(slow, bytes(min(client.peer.library.local_flow_control_window(slow), STREAM_WINDOW)))
            await client.flush()
        await serving.quiet()
        assert client.peer.library.local_flow_control_window(stream) < 16_384
        for turn in range(3):
            await sweep(serving, turn * (TIMEOUTS.body + 1))
        assert serving.records.of("deadline") == []
        gate.set()
        await client.upload(stream, 300_000)
        assert (await client.answer(stream)).status == 200
        await serving.end()

    run(scene)


def test_a_client_that_waits_for_100_continue_has_its_time_from_then_on(run: Play, http2: str) -> None:
    async def scene() -> None:
        gate = asyncio.Event()

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await gate.wait()
            await echo(scope, receive, send)

        serving = Serving(application, http2=http2)
        client = await serving.connect_http2()
        stream = client.peer.ask("/up", ("expect", "100-continue"), method="POST", end=False)
        await client.flush()
        await serving.until(lambda: serving.service.figures.requests == 1)
        for turn in range(3):
            await sweep(serving, turn * (TIMEOUTS.body + 1))
        gate.set()
        await client.until(lambda: client.peer.answers[stream].interim != [])
        await sweep(serving, 3 * (TIMEOUTS.body + 1))
        assert serving.records.of("deadline") == []
        await sweep(serving, 4 * (TIMEOUTS.body + 1) + 1)
        assert (await client.answer(stream)).status == 408
        await serving.end()

    run(scene)


def test_a_request_that_is_whole_may_wait_for_its_application_for_ever(run: Play, http2: str) -> None:
    async def scene() -> None:
        gate = asyncio.Event()

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await gate.wait()
            await echo(scope, receive, send)

        serving = Serving(application, http2=http2)
        client = await serving.connect_http2()
        stream = client.peer.post("/up", b"body")
        await client.flush()
        await serving.until(lambda: serving.service.figures.requests == 1)
        for turn in range(5):
            await sweep(serving, turn * 1_000)
        gate.set()
        assert (await client.answer(stream)).body == b"/up body"
        await serving.end()

    run(scene)


def test_a_body_that_stops_behind_a_begun_answer_ends_that_answer_and_no_other(run: Play, http2: str) -> None:
    async def scene() -> None:
        talk = Talk()
        serving = Serving(talk, http2=http2)
        client = await serving.connect_http2()
        [other] = await uploading(serving, client, "/other")
        stopped = client.peer.post("/stopped", b"begun", end=False)
        await client.until(lambda: client.peer.answers[stopped].body == b"begun")
        await sweep(serving, 0)
        client.peer.send(other, bytes(int(UPLOAD_SHARE)), end=True)
        assert (await client.answer(other)).status == 200
        await sweep(serving, TIMEOUTS.body - 10)
        assert serving.records.of("deadline") == []
        await sweep(serving, TIMEOUTS.body + 1)
        await client.until(lambda: client.peer.answers[stopped].reset is not None)
        assert client.peer.answers[stopped].reset == Code.INTERNAL_ERROR
        [record] = serving.records.of("deadline")
        assert "too slowly" in record["message"]
        assert [answer["outcome"] for answer in serving.records.answers()] == ["complete", "cut"]
        assert talk.heard == ["http.disconnect"]
        await serving.end()

    run(scene)


def test_a_body_may_rest_for_ever_while_the_answer_moves(run: Play, http2: str) -> None:
    async def scene() -> None:
        talk = Talk()
        serving = Serving(talk, http2=http2)
        client = await serving.connect_http2()
        stream = client.peer.post("/talk", b"begun", end=False)
        answer = client.peer.answers[stream]
        await client.until(lambda: answer.body == b"begun")
        await sweep(serving, 0)
        for turn in range(1, 6):
            talk.say.set()
            await client.until(lambda turn=turn: len(answer.body) == len(b"begun") + turn)  # type: ignore[misc]
            await sweep(serving, turn * (TIMEOUTS.body + 1))
        assert serving.records.of("deadline") == []
        await sweep(serving, 6 * (TIMEOUTS.body + 1) + 1)
        await client.until(lambda: answer.reset is not None)
        await serving.end()

    run(scene)


def test_a_body_may_rest_while_its_client_takes_the_answer_at_the_rate(run: Play, http2: str) -> None:
    async def scene() -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(START)
            await send({"type": "http.response.body", "body": bytes(1_000_000), "more_body": True})

        serving = Serving(application, http2=http2)
        client = await serving.connect_http2()
        stream = client.peer.post("/", b"begun", end=False)
        client.peer.slow.add(stream)
        answer, came = client.peer.answers[stream], WINDOW
        await client.until(lambda: len(answer.body) == WINDOW)
        for turn in range(4):
            await sweep(serving, turn * (TIMEOUTS.body + 1))
            came += int(DOWNLOAD_SHARE)
            client.peer.grant(stream, int(DOWNLOAD_SHARE))
            await client.until(lambda came=came: len(answer.body) == came)  # type: ignore[misc]
        assert serving.records.of("deadline") == []
        await sweep(serving, 3 * TIMEOUTS.write)
        await sweep(serving, 5 * TIMEOUTS.write)
        await client.until(lambda: answer.reset is not None)
        assert answer.reset == Code.CANCEL  # for the answer, which is not taken any more
        await serving.end()

    run(scene)


# Downloads


@pytest.mark.parametrize("path", ["/whole", "/pieces"])
def test_an_answer_that_nobody_takes_is_cut_and_no_other_is(run: Play, http2: str, path: str) -> None:
    async def scene() -> None:
        serving = Serving(large, http2=http2)
        client = await serving.connect_http2()
        stopped, goes_on = await downloading(client, path, path)
        await sweep(serving, 0)
        client.peer.grant(goes_on, int(DOWNLOAD_SHARE))
        await client.until(lambda: len(client.peer.answers[goes_on].body) == WINDOW + DOWNLOAD_SHARE)
        await sweep(serving, TIMEOUTS.write - 10)
        assert client.peer.answers[stopped].reset is None
        await sweep(serving, TIMEOUTS.write + 1)
        await client.until(lambda: client.peer.answers[stopped].reset is not None)
        assert client.peer.answers[stopped].reset == Code.CANCEL
        assert len(serving.records.of("deadline")) == 1
        client.peer.slow.clear()
        client.peer.grant(goes_on, 100_000)
        assert len((await client.answer(goes_on)).body) in (1_000_000, 64 * 16_384)
        assert (await client.get("/hello")).body == b"hello"
        assert serving.service.figures.refused == 0
        await serving.end()

    run(scene)


def test_the_application_behind_a_cut_answer_is_told(run: Play, http2: str) -> None:
    async def scene() -> None:
        told: list[str] = []

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await large(scope, receive, send)
            except ClientDisconnectedError as error:
                told.append(str(error))
                raise

        serving = Serving(application, http2=http2)
        client = await serving.connect_http2()
        await downloading(client, "/pieces")
        await serving.until(lambda: serving.multiplexed._waiters != {})
        await sweep(serving, 0)
        await sweep(serving, TIMEOUTS.write + 1)
        await serving.until(lambda: told == ["the client is gone"])
        assert [record["outcome"] for record in serving.records.answers()] == ["client_gone"]
        assert serving.records.tracebacks() == []
        await serving.end()

    run(scene)


def test_an_answer_that_is_taken_at_the_rate_may_take_for_ever(run: Play, http2: str) -> None:
    async def scene() -> None:
        serving = Serving(large, http2=http2)
        client = await serving.connect_http2()
        [stream] = await downloading(client, "/pieces")
        await sweep(serving, 0)
        came = WINDOW
        answer = client.peer.answers[stream]
        for turn in range(1, 6):
            came += int(DOWNLOAD_SHARE)
            client.peer.grant(stream, int(DOWNLOAD_SHARE))
            await client.until(lambda came=came: len(answer.body) == came)  # type: ignore[misc]
            await sweep(serving, turn * (TIMEOUTS.write + 1))
        assert serving.records.of("deadline") == []
        await serving.end()

    run(scene)


def test_answers_that_wait_for_each_other_are_not_late(run: Play, http2: str) -> None:
    # A slow client with several downloads: libnghttp2 sends one after the other (RFC 9218 section 4.2).
    async def scene() -> None:
        serving = Serving(large, http2=http2)
        client = await serving.connect_http2({Setting.INITIAL_WINDOW_SIZE: 1 << 24}, room=WINDOW)
        streams = [client.peer.ask("/whole") for _ in range(3)]
        client.peer.slow.update(streams)
        answers = [client.peer.answers[stream] for stream in streams]
        came = WINDOW
        await client.until(lambda: sum(len(answer.body) for answer in answers) == came)
        await sweep(serving, 0)
        for turn in range(1, 5):
            came += int(DOWNLOAD_SHARE)
            client.peer.library.increment_flow_control_window(int(DOWNLOAD_SHARE))
            await client.until(lambda came=came: sum(len(answer.body) for answer in answers) == came)  # type: ignore[misc]
            await sweep(serving, turn * (TIMEOUTS.write + 1))
        client.peer.library.increment_flow_control_window(3_000_000)
        assert [len((await client.answer(stream)).body) for stream in streams] == [1_000_000] * 3
        assert serving.records.of("deadline") == []
        await serving.end()

    run(scene)


def test_a_client_that_takes_nothing_more_of_all_its_answers_is_cut(run: Play, http2: str) -> None:
    async def scene() -> None:
        serving = Serving(large, http2=http2)
        client = await serving.connect_http2({Setting.INITIAL_WINDOW_SIZE: 1 << 24}, room=WINDOW)
        streams = [client.peer.ask("/whole") for _ in range(3)]
        client.peer.slow.update(streams)
        await client.until(lambda: sum(len(client.peer.answers[stream].body) for stream in streams) == WINDOW)
        await sweep(serving, 0)
        await sweep(serving, TIMEOUTS.write - 10)
        assert client.peer.goaways == []
        await sweep(serving, TIMEOUTS.write + 1)
        await client.rest()
        assert [code for _, code in client.peer.goaways] == [Code.ENHANCE_YOUR_CALM]
        client.client.close()
        await serving.over()

    run(scene)


def test_a_client_that_reads_nothing_at_all_is_cut(run: Play, http2: str) -> None:
    async def scene() -> None:
        serving = Serving(large, http2=http2)
        client = await serving.connect_http2({Setting.INITIAL_WINDOW_SIZE: 1 << 24})
        client.peer.ask("/whole")
        await client.flush()
        await serving.until(lambda: serving.multiplexed._out.paused)
        await sweep(serving, TIMEOUTS.write - 10)
        assert serving.endpoint.connections
        await sweep(serving, TIMEOUTS.write + 1)
        await serving.over()
        [record] = serving.records.of("deadline")
        assert record["bytes_unread"] > 0

    run(scene)


# The connection


def test_a_client_that_says_nothing_has_the_time_of_a_head(run: Play, http2: str) -> None:
    async def scene() -> None:
        serving = Serving(echo, http2=http2)
        client = await serving.connect_http2()
        assert serving.multiplexed.phase == OPENING
        await sweep(serving, TIMEOUTS.header - 10)
        assert client.peer.goaways == []
        await sweep(serving, TIMEOUTS.header + 1)
        await client.rest()
        assert client.peer.goaways == [(MAX_WINDOW, 0), (0, 0)]
        client.client.close()
        await serving.over()

    run(scene)


def test_pings_and_settings_are_no_way_to_stay(run: Play, http2: str) -> None:
    async def scene() -> None:
        serving = Serving(echo, http2=http2)
        client = await serving.connect_http2()
        await client.get()
        for deadline in (serving.multiplexed.deadline,):
            await client.client.send(frames.ping() + frames.settings() + frames.window_update(0, 1))
            await serving.quiet()
            assert (serving.multiplexed.phase, serving.multiplexed.deadline) == (IDLE, deadline)
        await serving.end()

    run(scene)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_each_request_renews_the_time_between_requests(run: Play, http2: str, method: str) -> None:
    async def scene() -> None:
        serving = Serving(echo, http2=http2)
        client = await serving.connect_http2()
        deadlines = []
        for _ in range(3):
            await client.get(method=method)
            await serving.until(lambda: serving.multiplexed.phase == IDLE)
            deadlines.append(serving.multiplexed.deadline)
            await asyncio.sleep(0.01)
        assert deadlines[0] < deadlines[1] < deadlines[2] <= monotonic() + TIMEOUTS.keep_alive
        await serving.end()

    run(scene)


def test_an_idle_connection_takes_its_leave_in_two_steps(run: Play, http2: str) -> None:
    async def scene() -> None:
        serving = Serving(echo, http2=http2)
        client = await serving.connect_http2()
        await client.get("/first")
        await sweep(serving, TIMEOUTS.keep_alive - 10)
        assert client.peer.goaways == []
        late = client.peer.ask("/late")  # under way when the time is over
        await sweep(serving, TIMEOUTS.keep_alive + 1)
        assert (await client.answer(late)).body == b"/late "
        await client.rest()
        assert client.peer.goaways == [(MAX_WINDOW, 0), (late, 0)]
        client.client.close()
        await serving.over()
        assert serving.records.of("deadline") == []

    run(scene)


def test_a_client_that_does_not_see_the_leave_is_closed_after_a_while(run: Play, http2: str) -> None:
    async def scene() -> None:
        serving = Serving(echo, http2=http2, timeouts=NO_LINGER)
        client = await serving.connect_http2()
        await client.get()
        await sweep(serving, TIMEOUTS.keep_alive + 1)
        assert serving.multiplexed.phase == IDLE
        await sweep(serving, PATIENCE / 2)
        assert serving.multiplexed.phase == IDLE
        await sweep(serving, PATIENCE + 1)
        await serving.over()

    run(scene)


def test_a_busy_connection_is_not_idle(run: Play, http2: str) -> None:
    async def scene() -> None:
        gate = asyncio.Event()

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await gate.wait()
            await echo(scope, receive, send)

        serving = Serving(application, http2=http2)
        client = await serving.connect_http2()
        stream = client.peer.ask()
        await client.flush()
        await serving.until(lambda: serving.service.figures.requests == 1)
        await serving.quiet()
        assert serving.multiplexed.phase == SERVING
        for turn in range(5):
            await sweep(serving, turn * TIMEOUTS.keep_alive)
        gate.set()
        assert (await client.answer(stream)).status == 200
        assert client.peer.goaways == []
        await serving.end()

    run(scene)


@pytest.mark.parametrize("served", [False, True])
def test_a_head_that_does_not_end_has_the_time_of_a_head(run: Play, http2: str, *, served: bool) -> None:
    async def scene() -> None:
        serving = Serving(echo, http2=http2)
        client = await serving.connect_http2()
        if served:
            await client.get()
        await client.client.send(frames.headers(3, b"\x82", whole=False))
        await serving.until(lambda: serving.multiplexed.phase == SERVING)
        await sweep(serving, 0)
        await sweep(serving, TIMEOUTS.header - 10)
        assert client.peer.goaways == []
        await sweep(serving, TIMEOUTS.header + 1)
        await client.rest()
        assert [code for _, code in client.peer.goaways] == [Code.ENHANCE_YOUR_CALM]
        client.client.close()
        await serving.over()

    run(scene)


def test_half_of_a_preface_has_the_time_of_a_head(run: Play, http2: str) -> None:
    async def scene() -> None:
        serving = Serving(echo, http2=http2, timeouts=NO_LINGER)
        client = await serving.connect()
        await client.send(PREFACE[:20])
        await client.read()
        await sweep(serving, TIMEOUTS.header - 10)
        assert len(serving.endpoint.connections) == 1
        await sweep(serving, TIMEOUTS.header + 1)
        await sweep(serving, TIMEOUTS.header + PATIENCE + 2)
        await serving.over()

    run(scene)


def test_who_does_not_close_behind_the_leave_is_cut(run: Play, http2: str) -> None:
    async def scene() -> None:
        serving = Serving(echo, http2=http2, timeouts=NO_LINGER)
        client = await serving.connect_http2()
        await client.get()
        serving.drain()
        await client.rest()
        assert serving.multiplexed.phase == CLOSING
        await client.client.send(b"whatever")
        await sweep(serving, PATIENCE / 2)
        assert serving.multiplexed.phase == CLOSING
        await sweep(serving, PATIENCE + 1)
        await serving.over()

    run(scene)


def test_a_half_closed_client_is_told_of_after_a_while(run: Play, http2: str) -> None:
    async def scene() -> None:
        heard = asyncio.Event()

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            heard.set()

        serving = Serving(application, http2=http2, timeouts=NO_LINGER)
        client = await serving.connect_http2()
        client.peer.ask()
        await client.flush()
        client.client.half_close()
        await serving.until(lambda: serving.multiplexed._eof)
        await sweep(serving, PATIENCE / 2)
        assert not heard.is_set()
        await sweep(serving, PATIENCE + 1)
        await heard.wait()
        await serving.over()
        [record] = serving.records.answers()
        assert record["outcome"] == "client_gone"

    run(scene)


def test_nothing_is_looked_at_where_nothing_is_waited_for(run: Play, http2: str) -> None:
    async def scene() -> None:
        serving = Serving(echo, http2=http2)
        client = await serving.connect_http2()
        await client.get()
        connection = serving.multiplexed
        assert not connection.is_due(monotonic())
        serving.drain()
        await client.rest()
        client.client.close()
        await serving.over()
        assert connection.deadline == inf

    run(scene)
