"""Real HTTP/2 connections, on both event loops and with every engine."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest
from h2.settings import SettingCodes

from appserver.asgi.types import Application, Message, Receive, Scope, Send
from appserver.errors import ClientDisconnectedError
from appserver.net import multiplexed, turn
from appserver.net.flow import HIGH_WATER, Outflow
from appserver.net.multiplexed import MultiplexedConnection
from appserver.wire.engine import Limits
from appserver.wire.http2 import STREAM_WINDOW
from appserver.wire.http2_gate import FRAMES_A_TURN
from tests.conformance.http2 import frames
from tests.conformance.http2.frames import MAX_WINDOW, WINDOW, Code, Kind
from tests.contract.http2_peer import Http2Peer
from tests.unit.net.serving import EAGER, TIMEOUTS, Client, Http2Client, Serving, echo, get, pair

Play: TypeAlias = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]

START: Final[Message] = {"type": "http.response.start", "status": 200, "headers": []}
LAST: Final[Message] = {"type": "http.response.body", "body": b"last"}

MESSAGE: Final = 16 * 1024


def more(data: bytes) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": True}


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer at once, reading nothing."""
    await send(START)
    await send({"type": "http.response.body", "body": b"hello " + scope["path"].encode()})


async def soon(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer after a visit to the loop."""
    await asyncio.sleep(0)
    await hello(scope, receive, send)


class Gates:
    """An application that answers a path when the test says so, and tells who was let go."""

    def __init__(self) -> None:
        self.called: list[str] = []
        self.gone: list[str] = []
        self._open: dict[str, asyncio.Event] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        self.called.append(path)
        opened = asyncio.create_task(self.gate(path).wait())
        while not opened.done():
            heard = asyncio.create_task(self._hear(receive))
            await asyncio.wait([opened, heard], return_when=asyncio.FIRST_COMPLETED)
            if heard.done() and not opened.done():
                opened.cancel()
                self.gone.append(path)
                return
            heard.cancel()
        await hello(scope, receive, send)

    async def _hear(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    def gate(self, path: str) -> asyncio.Event:
        return self._open.setdefault(path, asyncio.Event())

    def let(self, *paths: str) -> None:
        for path in paths:
            self.gate(path).set()


class Endless:
    """An application that streams without end, and counts what it could send."""

    def __init__(self) -> None:
        self.sent: dict[str, int] = {}
        self.ended: dict[str, str] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path == "/hello":
            await hello(scope, receive, send)
            return
        self.sent[path] = 0
        try:
            await send(START)
            while True:
                await send(more(bytes(MESSAGE)))
                self.sent[path] += MESSAGE
        except ClientDisconnectedError as error:
            self.ended[path] = type(error).__name__
            raise


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of what is handed to the transport."""
    sizes: list[int] = []
    write = Outflow.write

    def counted(self: Outflow, pieces: list[bytes]) -> None:
        sizes.append(sum(map(len, pieces)))
        write(self, pieces)

    monkeypatch.setattr(Outflow, "write", counted)
    monkeypatch.setattr(turn, "RUN_SECONDS", 10.0)  # so that a busy machine does not make two turns of one
    return sizes


# Many at once


@pytest.mark.parametrize("application", [hello, soon, echo])
@pytest.mark.parametrize("eager", [False, True] if EAGER else [False], ids=lambda eager: "eager" if eager else "lazy")
def test_many_requests_at_once_are_all_answered(
    run: Play, http2: str, application: Application, *, eager: bool
) -> None:
    async def scene() -> None:
        serving = Serving(application, eager=eager, http2=http2)
        client = await serving.connect_http2()
        for _ in range(3):
            streams = {client.peer.ask(f"/{number}"): b"/%d" % number for number in range(100)}
            for stream, path in streams.items():
                answer = await client.answer(stream)
                assert (answer.status, path in answer.body.split()) == (200, True)
        assert len(serving.records.answers()) == 300
        assert {record["http_version"] for record in serving.records.answers()} == {"2"}
        assert (serving.service.figures.requests, serving.service.figures.answered) == (0, 300)
        await serving.end()
        assert serving.service.figures.connections == 0

    run(scene)


def test_answers_leave_in_the_order_in_which_they_are_ready(run: Play, http2: str) -> None:
    async def scene() -> None:
        gates = Gates()
        serving = Serving(gates, http2=http2)
        client = await serving.connect_http2()
        first, second = client.peer.ask("/first"), client.peer.ask("/second")
        await client.flush()
        await serving.until(lambda: len(gates.called) == 2)
        gates.let("/second")
        assert (await client.answer(second)).body == b"hello /second"
        assert client.peer.answers[first].status == 0
        gates.let("/first")
        assert (await client.answer(first)).body == b"hello /first"
        await serving.end()

    run(scene)


def test_what_a_turn_brings_is_one_write(run: Play, http2: str, writes: list[int]) -> None:
    async def scene() -> None:
        serving = Serving(hello, http2=http2)
        client = await serving.connect_http2()
        await serving.quiet()
        writes.clear()
        streams = [client.peer.ask(f"/{number}") for number in range(50)]
        for stream in streams:
            await client.answer(stream)
        assert len(writes) == 1
        await serving.end()

    run(scene)


def test_head_body_and_end_of_an_answer_are_one_write(run: Play, http2: str, writes: list[int]) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send(more(b"a"))
        await send(more(b"b"))
        await send(LAST)

    async def scene() -> None:
        serving = Serving(application, http2=http2)
        client = await serving.connect_http2()
        await serving.quiet()
        writes.clear()
        assert (await client.get()).body == b"ablast"
        assert len(writes) == 1
        await serving.end()

    run(scene)


def test_credit_and_answers_are_one_write(run: Play, http2: str, writes: list[int]) -> None:
    async def scene() -> None:
        serving = Serving(echo, http2=http2)
        client = await serving.connect_http2()
        stream = client.peer.ask(method="POST", end=False)
        await client.flush()
        await serving.quiet()
        writes.clear()
        client.peer.send(stream, bytes(10_000), end=True)
        assert len((await client.answer(stream)).body) == 10_002
        assert len(writes) == 1
        await serving.end()

    run(scene)


def test_the_scope_says_http_2(run: Play, http2: str) -> None:
    scopes: list[Scope] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await hello(scope, receive, send)

    async def scene() -> None:
        serving = Serving(application, http2=http2)
        client = await serving.connect_http2()
        await client.get("/path%20?q", ("cookie", "a=1"), ("cookie", "b=2"))
        [scope] = scopes
        assert (scope["http_version"], scope["path"], scope["query_string"]) == ("2", "/path ", b"q")
        assert scope["headers"] == [(b"host", b"a.example"), (b"cookie", b"a=1; b=2")]
        assert "http.response.push" in scope["extensions"]
        await serving.end()

    run(scene)


@pytest.mark.parametrize("size", [1, 7])
def test_bytes_may_come_slowly(run: Play, http2: str, size: int) -> None:
    async def scene() -> None:
        serving = Serving(echo, http2=http2)
        client = Http2Client(await serving.connect())
        client.peer.start()
        stream = client.peer.post("/slow", b"body")
        data = client.peer.take()
        for at in range(0, len(data), size):
            await client.client.send(data[at : at + size])
            await asyncio.sleep(0)
        assert (await client.answer(stream)).body == b"/slow body"
        await serving.end()

    run(scene)


# What goes beside the answer


def test_what_only_http_1_puts_up_with_in_a_field_is_not_sent(run: Play, http2: str) -> None:
    # The client takes no malformed message (RFC 9113 sections 8.2.1 and 8.2.2).
    async def scene() -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.early_hint", "links": [b" </style.css>"]})
            headers = [(b"x-a", b" \tvalue "), (b"te", b"gzip"), (b"x-b", b"\t")]
            await send({**START, "headers": headers, "trailers": True})
            await send(LAST)
            await send({"type": "http.response.trailers", "headers": [(b"x-c", b" value\t")]})

        serving = Serving(application, http2=http2)
        client = await serving.connect_http2()
        answer = await client.get("/", ("te", "trailers"))
        assert answer.interim == [(103, [(b"link", b"</style.css>")])]
        assert answer.fields == [(b"x-a", b"value"), (b"x-b", b"")]
        assert answer.trailers == [(b"x-c", b"value")]
        await serving.end()

    run(scene)


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
@pytest.mark.parametrize("at_once", [True, False])
def test_an_answer_without_a_body_arrives_whatever_its_application_does_then(
    run: Play, http2: str, method: str, status: int, *, at_once: bool
) -> None:
    async def scene() -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await send({**START, "status": status, "headers": [(b"etag", b"1")]})
            await send(more(b"" if status != 200 else b"content"))
            if not at_once:
                await asyncio.sleep(0.001)
            while (await receive())["type"] != "http.disconnect":
                pass

        serving = Serving(application, http2=http2)
        client = await serving.connect_http2()
        answer = await client.get(method=method)
        await serving.until(lambda: not serving.service.running)
        assert (await client.get(method=method)).status == status  # and the connection goes on
        assert (answer.status, answer.fields, answer.body) == (status, [(b"etag", b"1")], b"")
        assert answer.reset is None
        await serving.until(lambda: not serving.service.running)
        assert [record["outcome"] for record in serving.records.answers()] == ["complete"] * 2
        assert serving.multiplexed._cycles == {}
        await serving.end()

    run(scene)


def test_hints_come_ahead_of_the_answer(run: Play, http2: str) -> None:
    async def scene() -> None:
        gate = asyncio.Event()

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.early_hint", "links": [b"</style.css>; rel=preload"]})
            await gate.wait()
            await hello(scope, receive, send)

        serving = Serving(application, http2=http2)
        client = await serving.connect_http2()
        stream = client.peer.ask()
        answer = client.peer.answers[stream]
        await client.until(lambda: answer.interim != [])
        assert (answer.interim, answer.status) == ([(103, [(b"link", b"</style.css>; rel=preload")])], 0)
        gate.set()
        assert (await client.answer(stream)).body == b"hello /"
        await serving.end()

    run(scene)


def test_trailers_come_behind_the_answer(run: Play, http2: str) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send({**START, "trailers": True})
        await send(more(b"a" * 100_000))
        await send(LAST)
        await asyncio.sleep(0)
        await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]})

    async def scene() -> None:
        serving = Serving(application, http2=http2)
        client = await serving.connect_http2()
        answer = await client.get("/", ("te", "trailers"))
        assert (len(answer.body), answer.trailers) == (100_004, [(b"x-sum", b"1")])
        answer = await client.get("/")
        assert (len(answer.body), answer.trailers) == (100_004, [])
        await serving.end()

    run(scene)


def pushes(scope: Scope) -> bool:
    return "http.response.push" in scope["extensions"]


async def pushing(scope: Scope, receive: Receive, send: Send) -> None:
    """Promise a style sheet with every page, where the client takes that."""
    if scope["path"] == "/" and pushes(scope):
        await send({"type": "http.response.push", "path": "/style.css", "headers": [(b"accept", b"text/css")]})
    await hello(scope, receive, send)


@pytest.mark.parametrize("eager", [False, True] if EAGER else [False], ids=lambda eager: "eager" if eager else "lazy")
def test_a_promised_answer_is_that_of_the_application(run: Play, http2: str, *, eager: bool) -> None:
    async def scene() -> None:
        serving = Serving(pushing, eager=eager, http2=http2)
        client = await serving.connect_http2()
        assert (await client.get()).body == b"hello /"
        [promised] = [stream for stream in client.peer.answers if stream % 2 == 0]
        answer = await client.answer(promised)
        assert answer.body == b"hello /style.css"
        assert dict(answer.promised) == {
            b":method": b"GET",
            b":scheme": b"http",
            b":authority": b"a.example",
            b":path": b"/style.css",
            b"accept": b"text/css",
        }
        assert len(serving.records.answers()) == 2
        await serving.end()

    run(scene)


def test_a_client_that_takes_no_promises_gets_none(run: Play, http2: str) -> None:
    async def scene() -> None:
        serving = Serving(pushing, http2=http2)
        client = await serving.connect_http2({SettingCodes.ENABLE_PUSH: 0})
        assert (await client.get()).body == b"hello /"
        assert list(client.peer.answers) == [1]
        await serving.end()

    run(scene)


@pytest.mark.parametrize("size", [0, 1_000, 64 * 1024, 1_000_000])
def test_a_file_comes_whole(run: Play, http2: str, size: int, tmp_path: Path) -> None:
    content = bytes(range(251)) * (size // 251 + 1)
    path = tmp_path / "content"
    path.write_bytes(content[:size])

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send({"type": "http.response.pathsend", "path": str(path)})

    async def scene() -> None:
        serving = Serving(application, http2=http2)
        client = await serving.connect_http2()
        streams = [client.peer.ask() for _ in range(3)]
        head = client.peer.ask(method="HEAD")
        for stream in streams:
            answer = await client.answer(stream)
            assert answer.body == content[:size]
            assert (b"content-length", b"%d" % size) in answer.fields
        assert ((await client.answer(head)).body, client.peer.answers[head].fields) == (b"", answer.fields)
        assert sorted(record["bytes_sent"] for record in serving.records.answers()) == [0, size, size, size]
        await serving.end()

    run(scene)


def test_a_file_to_a_client_that_goes_is_given_up(run: Play, http2: str, tmp_path: Path) -> None:
    path = tmp_path / "content"
    path.write_bytes(bytes(1_000_000))

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send({"type": "http.response.pathsend", "path": str(path)})

    async def scene() -> None:
        serving = Serving(application, http2=http2)
        client = await serving.connect_http2()
        stream = client.peer.ask()
        client.peer.slow.add(stream)
        await client.until(lambda: len(client.peer.answers[stream].body) == WINDOW)
        await client.reset(stream)
        await serving.until(lambda: not serving.service.running)
        [record] = serving.records.answers()
        assert record["outcome"] == "client_gone"
        assert serving.records.tracebacks() == []
        await serving.end()

    run(scene)


# Back-pressure, out


def test_a_stream_that_is_not_read_stops_itself_and_no_other(run: Play, http2: str) -> None:
    async def scene() -> None:
        application = Endless()
        serving = Serving(application, http2=http2)
        client = await serving.connect_http2()
        slow, quick = client.peer.ask("/slow"), client.peer.ask("/quick")
        client.peer.slow.add(slow)
        answers = client.peer.answers
        await client.until(lambda: len(answers[quick].body) > 10 * HIGH_WATER)
        assert len(answers[slow].body) == WINDOW
        assert application.sent["/slow"] <= WINDOW + HIGH_WATER + MESSAGE
        assert serving.multiplexed._engine.queued(slow) < HIGH_WATER + MESSAGE
        assert (await client.get("/hello")).body == b"hello /hello"
        client.peer.slow.clear()
        client.peer.grant(slow, WINDOW)
        await client.until(lambda: len(answers[slow].body) > 5 * HIGH_WATER)
        await serving.end()

    run(scene)


def test_a_client_that_reads_nothing_makes_everybody_wait_and_bounds_what_is_held(run: Play, http2: str) -> None:
    async def scene() -> None:
        application = Endless()
        serving = Serving(application, http2=http2)
        client = await serving.connect_http2({SettingCodes.INITIAL_WINDOW_SIZE: 1 << 24})
        for number in range(10):
            client.peer.ask(f"/{number}", ("priority", "i"))  # else libnghttp2 sends one after the other (RFC 9218)
        await client.flush()
        await serving.until(lambda: len(application.sent) == 10 and serving.multiplexed._out.paused)
        await serving.quiet()
        before = dict(application.sent)
        await serving.quiet()
        assert application.sent == before
        engine = serving.multiplexed._engine
        assert all(engine.queued(1 + 2 * number) <= HIGH_WATER + MESSAGE for number in range(10))
        assert serving.held() <= 4 * HIGH_WATER
        await client.until(lambda: min(len(answer.body) for answer in client.peer.answers.values()) > HIGH_WATER)
        await serving.end()

    run(scene)


def test_who_waits_for_a_window_is_woken_when_the_connection_is_lost(run: Play, http2: str) -> None:
    async def scene() -> None:
        application = Endless()
        serving = Serving(application, http2=http2)
        client = await serving.connect_http2()
        streams = [client.peer.ask(f"/{number}") for number in range(3)]
        client.peer.slow.update(streams)
        await client.until(lambda: all(len(client.peer.answers[stream].body) == WINDOW for stream in streams))
        await serving.until(lambda: len(serving.multiplexed._waiters) == 3)
        client.client.close()
        await serving.over()
        assert set(application.ended.values()) == {"ClientDisconnectedError"}
        assert [record["outcome"] for record in serving.records.answers()] == ["client_gone"] * 3
        assert serving.records.tracebacks() == []

    run(scene)


def test_who_waits_for_a_window_is_woken_when_its_stream_is_reset(run: Play, http2: str) -> None:
    async def scene() -> None:
        application = Endless()
        serving = Serving(application, http2=http2)
        client = await serving.connect_http2()
        stream, other = client.peer.ask("/reset"), client.peer.ask("/other")
        client.peer.slow.update([stream, other])
        await serving.until(lambda: True)
        await client.until(lambda: all(len(client.peer.answers[one].body) == WINDOW for one in (stream, other)))
        await serving.until(lambda: len(serving.multiplexed._waiters) == 2)
        await client.reset(stream)
        await serving.until(lambda: application.ended == {"/reset": "ClientDisconnectedError"})
        assert (await client.get("/hello")).body == b"hello /hello"
        assert list(serving.multiplexed._waiters) == [other]
        await serving.end()

    run(scene)


# Back-pressure, in


def test_credit_comes_only_after_the_application_has_read(run: Play, http2: str) -> None:
    async def scene() -> None:
        gate = asyncio.Event()

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"] == "/slow":
                await gate.wait()
            await echo(scope, receive, send)

        serving = Serving(application, http2=http2)
        client = await serving.connect_http2()
        slow = client.peer.ask("/slow", method="POST", end=False)
        client.peer.send(slow, bytes(STREAM_WINDOW))
        await client.flush()
        [cycle] = await cycles(serving, 1)
        await serving.until(lambda: cycle.unread == STREAM_WINDOW)
        # Another one is not held up: the connection's window is larger.
        other = client.peer.ask("/other", method="POST", end=False)
        await client.upload(other, 2 * STREAM_WINDOW)
        assert len((await client.answer(other)).body) == 2 * STREAM_WINDOW + len("/other ")
        assert client.peer.library.local_flow_control_window(slow) == 0
        gate.set()
        await client.until(lambda: client.peer.library.local_flow_control_window(slow) > 0)
        client.peer.send(slow, b"end", end=True)
        assert len((await client.answer(slow)).body) == STREAM_WINDOW + len("/slow ") + 3
        await serving.end()

    run(scene)


async def cycles(serving: Serving, count: int) -> list[Any]:
    """The requests that are served, once there are so many."""
    await serving.until(lambda: len(serving.multiplexed._cycles) == count)
    return list(serving.multiplexed._cycles.values())


def test_large_uploads_side_by_side_come_whole(run: Play, http2: str) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        size = 0
        while True:
            message = await receive()
            size += len(message["body"])
            if not message["more_body"]:
                break
        await send(START)
        await send({"type": "http.response.body", "body": b"%d" % size})

    async def scene() -> None:
        serving = Serving(application, http2=http2)
        client = await serving.connect_http2()
        streams = [client.peer.ask(f"/{number}", method="POST", end=False) for number in range(4)]
        for stream in streams:
            await client.upload(stream, 3_000_000)
        assert [(await client.answer(stream)).body for stream in streams] == [b"3000000"] * 4
        await serving.end()

    run(scene)


def test_an_early_answer_to_an_upload_arrives(run: Play, http2: str) -> None:
    async def scene() -> None:
        serving = Serving(hello, http2=http2)
        client = await serving.connect_http2()
        for _ in range(10):  # far more than the connection's window in all, were it not given back
            stream = client.peer.ask("/early", method="POST", end=False)
            client.peer.send(stream, bytes(STREAM_WINDOW))
            answer = await client.answer(stream)
            await client.until(lambda answer=answer: answer.reset is not None)  # type: ignore[misc]
            assert (answer.body, answer.reset) == (b"hello /early", Code.NO_ERROR)
        await serving.end()

    run(scene)


@pytest.mark.parametrize("expects", [False, True])
def test_100_continue_comes_when_the_application_first_reads(run: Play, http2: str, *, expects: bool) -> None:
    async def scene() -> None:
        gate = asyncio.Event()

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await gate.wait()
            await echo(scope, receive, send)

        serving = Serving(application, http2=http2)
        client = await serving.connect_http2()
        fields = [("expect", "100-continue")] if expects else []
        stream = client.peer.ask("/up", *fields, method="POST", end=False)
        await client.flush()
        await cycles(serving, 1)
        gate.set()
        answer = client.peer.answers[stream]
        if expects:
            await client.until(lambda: answer.interim != [])
        client.peer.send(stream, b"body", end=True)
        assert (await client.answer(stream)).body == b"/up body"
        assert answer.interim == [(100, [])] * expects
        await serving.end()

    run(scene)


def test_a_body_over_the_limit_is_refused_alone(run: Play, http2: str) -> None:
    async def scene() -> None:
        serving = Serving(echo, http2=http2, limits=Limits(body=1_000))
        client = await serving.connect_http2()
        long, short = client.peer.post("/long", bytes(1_001), end=False), client.peer.post("/short", b"body")
        assert (await client.answer(long)).status == 413
        assert (await client.answer(short)).body == b"/short body"
        assert [record["http_status"] for record in serving.records.of("refused")] == [413]
        assert serving.service.figures.refused == 1
        await serving.end()

    run(scene)


# Clients that give up


def test_a_reset_is_told_to_the_application_and_to_no_other(run: Play, http2: str) -> None:
    async def scene() -> None:
        gates = Gates()
        serving = Serving(gates, http2=http2)
        client = await serving.connect_http2()
        one, other = client.peer.ask("/one"), client.peer.ask("/other")
        await client.flush()
        await serving.until(lambda: len(gates.called) == 2)
        await client.reset(one)
        await serving.until(lambda: gates.gone == ["/one"])
        gates.let("/other")
        assert (await client.answer(other)).body == b"hello /other"
        await serving.until(lambda: len(serving.records.answers()) == 2)
        assert [record["outcome"] for record in serving.records.answers()] == ["client_gone", "complete"]
        assert serving.records.of("refused") == []
        assert serving.service.figures.refused == 0
        await serving.end()

    run(scene)


def test_a_request_that_is_given_up_in_the_same_breath_is_not_begun(run: Play, http2: str) -> None:
    async def scene() -> None:
        gates = Gates()
        serving = Serving(gates, http2=http2)
        client = await serving.connect_http2()
        client.peer.reset(client.peer.ask("/given-up"))
        gates.let("/served")
        assert (await client.get("/served")).body == b"hello /served"
        assert gates.called == ["/served"] if EAGER else True
        await serving.end()

    run(scene)


async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
    """Run on, whoever has gone."""
    if scope["path"] == "/stubborn":
        await asyncio.sleep(60)
    await hello(scope, receive, send)


def test_applications_whose_client_has_gone_are_bounded(run: Play, http2: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiplexed, "ABANDONED_LIMIT", 5)

    async def scene() -> None:
        serving = Serving(stubborn, http2=http2)
        client = await serving.connect_http2()
        for number in range(5):
            stream = client.peer.ask("/stubborn")
            await client.flush()
            await serving.until(lambda number=number: len(serving.service.tasks) == number + 1)  # type: ignore[misc]
            await client.reset(stream)
        await serving.until(lambda: len(serving.multiplexed._abandoned) == 5)
        refused = client.peer.ask("/hello")
        await client.until(lambda: client.peer.answers[refused].reset is not None)
        assert client.peer.answers[refused].reset == Code.REFUSED_STREAM
        for task in list(serving.service.tasks):
            task.cancel()
        await serving.until(lambda: not serving.service.tasks)
        assert (await client.get("/hello")).body == b"hello /hello"
        await serving.end()

    run(scene)


# Faults


def test_an_application_that_breaks_gives_a_500_and_the_others_go_on(run: Play, http2: str) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/begun":
            await send(START)
            await send(more(b"begun"))
        if scope["path"] != "/good":
            raise ValueError("broken")
        await soon(scope, receive, send)

    async def scene() -> None:
        serving = Serving(application, http2=http2)
        client = await serving.connect_http2()
        broken, begun, good = (client.peer.ask(path) for path in ("/broken", "/begun", "/good"))
        assert (await client.answer(broken)).status == 500
        assert (await client.answer(good)).body == b"hello /good"
        await client.until(lambda: client.peer.answers[begun].reset is not None)
        assert (client.peer.answers[begun].reset, client.peer.answers[begun].ended) == (Code.INTERNAL_ERROR, False)
        assert len(serving.records.tracebacks()) == 2
        assert serving.service.figures.refused == 0
        await serving.end()

    run(scene)


def test_a_malformed_request_is_reset_and_the_others_go_on(run: Play, http2: str) -> None:
    async def scene() -> None:
        gates = Gates()
        serving = Serving(gates, http2=http2)
        client = await serving.connect_http2()
        one = client.peer.ask("/one")
        await client.flush()
        await serving.until(lambda: gates.called == ["/one"])
        bad = client.peer.library.get_next_available_stream_id()
        await client.client.send(frames.headers(bad, b"\x82\x84\x86"))  # no :authority
        await serving.until(lambda: serving.service.figures.refused == 1)
        gates.let("/one")
        client.peer.library.get_next_available_stream_id()
        assert (await client.answer(one)).body == b"hello /one"
        [record] = serving.records.of("refused")
        assert record["client_addr"] == "unix"
        await serving.end()

    run(scene)


def test_a_broken_connection_is_told_everywhere_and_ends(run: Play, http2: str) -> None:
    async def scene() -> None:
        application = Endless()
        serving = Serving(application, http2=http2)
        client = await serving.connect_http2()
        stream = client.peer.ask("/endless")
        client.peer.slow.add(stream)
        await client.until(lambda: len(client.peer.answers[stream].body) == WINDOW)
        await client.client.send(frames.frame(Kind.PING, b"short"))
        await client.rest()
        assert client.peer.goaways == [(stream, Code.FRAME_SIZE_ERROR)]
        await serving.until(lambda: application.ended == {"/endless": "ClientDisconnectedError"})
        client.client.close()
        await serving.over()
        [record] = serving.records.of("refused")
        assert record["http2_error"] == "FRAME_SIZE_ERROR"
        assert serving.service.figures.refused == 1

    run(scene)


def test_a_connection_that_breaks_while_nobody_reads_ends_as_well(run: Play, http2: str) -> None:
    async def scene() -> None:
        serving = Serving(Endless(), http2=http2)
        client = await serving.connect_http2({SettingCodes.INITIAL_WINDOW_SIZE: 1 << 24})
        client.peer.ask("/endless")
        await client.flush()
        await serving.until(lambda: serving.multiplexed._out.paused)
        await client.client.send(frames.frame(Kind.PING, b"short"))
        await serving.quiet()
        await client.rest()
        assert [code for _, code in client.peer.goaways] == [Code.FRAME_SIZE_ERROR]
        client.client.close()
        await serving.over()

    run(scene)


@pytest.mark.parametrize(("where", "frames_before"), [("_write", 0), ("_begin", 2 * FRAMES_A_TURN)])
def test_a_fault_of_ours_ends_the_connection_and_is_told(
    run: Play, http2: str, monkeypatch: pytest.MonkeyPatch, where: str, frames_before: int
) -> None:
    """Also in what waits for its turn behind very many frames."""

    def fail(*_: Any) -> None:
        raise RuntimeError("a fault of ours")

    async def scene() -> None:
        serving = Serving(hello, http2=http2)
        client = await serving.connect_http2()
        told: list[dict[str, Any]] = []
        serving.loop.set_exception_handler(lambda _, context: told.append(context))
        monkeypatch.setattr(MultiplexedConnection, where, fail)
        client.peer.ask()
        await client.client.send(frames_before * frames.frame(0x55) + client.peer.take())
        await serving.over()
        assert [str(context["exception"]) for context in told] == ["a fault of ours"]

    run(scene)


# The end


def test_draining_lets_all_requests_end_and_refuses_none_that_was_sent_in_good_faith(run: Play, http2: str) -> None:
    async def scene() -> None:
        gates = Gates()
        serving = Serving(gates, http2=http2)
        client = await serving.connect_http2()
        streams = [client.peer.ask("/one"), client.peer.ask("/two")]
        await client.flush()
        await serving.until(lambda: len(gates.called) == 2)
        serving.drain()
        streams.append(client.peer.ask("/three"))  # before the notice is seen
        await client.until(lambda: len(client.peer.goaways) == 2)
        assert client.peer.goaways == [(MAX_WINDOW, 0), (streams[2], 0)]
        gates.let("/one", "/two", "/three")
        assert [(await client.answer(stream)).status for stream in streams] == [200] * 3
        await client.rest()
        client.client.close()
        await serving.over()
        assert {record["outcome"] for record in serving.records.answers()} == {"complete"}

    run(scene)


def test_draining_a_download_lets_it_end(run: Play, http2: str) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send({"type": "http.response.body", "body": bytes(500_000)})

    async def scene() -> None:
        serving = Serving(application, http2=http2)
        client = await serving.connect_http2()
        stream = client.peer.ask()
        client.peer.slow.add(stream)
        await client.until(lambda: len(client.peer.answers[stream].body) == WINDOW)
        serving.drain()
        await client.until(lambda: len(client.peer.goaways) == 2)
        client.peer.slow.clear()
        client.peer.grant(stream, WINDOW)
        assert len((await client.answer(stream)).body) == 500_000
        await client.rest()
        client.client.close()
        await serving.over()

    run(scene)


def test_an_idle_connection_is_drained_at_once(run: Play, http2: str) -> None:
    async def scene() -> None:
        serving = Serving(hello, http2=http2)
        client = await serving.connect_http2()
        await client.get()
        serving.drain()
        await client.rest()
        assert client.peer.goaways == [(MAX_WINDOW, 0), (1, 0)]
        client.client.close()
        await serving.over()

    run(scene)


def test_a_connection_that_comes_while_draining_is_served_and_ended(run: Play, http2: str) -> None:
    async def scene() -> None:
        serving = Serving(hello, http2=http2)
        serving.endpoint.draining = True
        client = Http2Client(await serving.connect())
        client.peer.start()
        assert (await client.get()).body == b"hello /"
        await client.rest()
        assert client.peer.goaways[-1] == (1, 0)
        client.client.close()
        await serving.over()

    run(scene)


def test_requests_are_not_begun_while_cutting_and_those_that_run_get_503(run: Play, http2: str) -> None:
    async def scene() -> None:
        gates = Gates()
        serving = Serving(gates, http2=http2)
        client = await serving.connect_http2()
        running = client.peer.ask("/running")
        await client.flush()
        await serving.until(lambda: gates.called == ["/running"])
        serving.endpoint.cutting = True
        late = client.peer.ask("/late")
        await client.until(lambda: client.peer.answers[late].reset is not None)
        assert client.peer.answers[late].reset == Code.REFUSED_STREAM
        serving.multiplexed.finish()
        assert (await client.answer(running)).status == 503
        await client.rest()
        client.client.close()
        await serving.over()
        assert gates.called == ["/running"]

    run(scene)


def test_a_half_closed_client_gets_its_answers(run: Play, http2: str) -> None:
    async def scene() -> None:
        gates = Gates()
        serving = Serving(gates, http2=http2)
        client = await serving.connect_http2()
        stream = client.peer.ask("/one")
        half = client.peer.ask("/half", method="POST", end=False)
        await client.flush()
        client.client.half_close()
        await serving.until(lambda: gates.called == ["/one", "/half"] and serving.multiplexed._eof)
        gates.let("/one")
        while await client.client.read():
            pass
        client.peer.feed(client.client.got[sum(9 + len(got.payload) for got in client.peer.frames) :])
        assert (client.peer.answers[stream].body, client.peer.answers[half].status) == (b"hello /one", 400)
        await serving.over()

    run(scene)


def test_a_client_that_leaves_gets_its_answers(run: Play, http2: str) -> None:
    async def scene() -> None:
        serving = Serving(soon, http2=http2)
        client = await serving.connect_http2()
        stream = client.peer.ask()
        client.peer.leave()
        assert (await client.answer(stream)).body == b"hello /"
        await client.rest()
        client.client.close()
        await serving.over()

    run(scene)


# From HTTP/1.1


@pytest.mark.parametrize("behind", [False, True])
def test_h2c_is_answered_in_http_2_and_loses_nothing(run: Play, http2: str, *, behind: bool) -> None:
    async def scene() -> None:
        serving = Serving(hello, http2=http2)
        client = Http2Client(await serving.connect())
        settings = client.peer.upgrade().decode()
        head = get("/first", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", f"HTTP2-Settings: {settings}")
        second = client.peer.ask("/second")
        if behind:  # not waiting for the 101, as some clients do
            await client.client.send(head + client.peer.take())
        else:
            await client.client.send(head)
        await client.client.until(b"\r\n\r\n")
        switching, _, begun = client.client.got.partition(b"\r\n\r\n")
        assert switching.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        client.peer.feed(begun)
        assert (await client.answer(1)).body == b"hello /first"
        assert (await client.answer(second)).body == b"hello /second"
        assert [record["http_version"] for record in serving.records.answers()] == ["2", "2"]
        assert serving.service.figures.connections == 1
        await serving.end()
        assert serving.service.figures.connections == 0

    run(scene)


def test_an_upload_right_behind_the_preface_loses_no_byte(run: Play, http2: str) -> None:
    async def scene() -> None:
        serving = Serving(echo, http2=http2)
        client = Http2Client(await serving.connect())
        client.peer.start()
        stream = client.peer.post("/up", bytes(range(250)) * 250)
        sending = asyncio.create_task(client.flush())
        assert (await client.answer(stream)).body == b"/up " + bytes(range(250)) * 250
        await sending
        await serving.end()

    run(scene)


@pytest.mark.parametrize("way", ["prior knowledge", "upgrade"])
def test_many_frames_in_the_read_that_begins_http_2_are_all_handled(run: Play, http2: str, way: str) -> None:
    async def scene() -> None:
        serving = Serving(hello, http2=http2)
        client = Http2Client(await serving.connect())
        head = b""
        if way == "upgrade":
            settings = client.peer.upgrade().decode()
            head = get("/", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", f"HTTP2-Settings: {settings}")
        else:
            client.peer.start()
        unknown = frames.frame(0x55)  # a small frame that means nothing (RFC 9113 section 5.5)
        begun, last = client.peer.take(), client.peer.ask("/last")
        # From here on the client only reads: whatever it sent would make the server go on.
        await client.client.send(head + begun + 2 * FRAMES_A_TURN * unknown + client.peer.take())
        if head:
            await client.client.until(b"\r\n\r\n")
            client.peer.feed(client.client.got.partition(b"\r\n\r\n")[2])
        while not client.peer.answers[last].ended:
            client.peer.feed(await client.client.read())
        assert client.peer.answers[last].body == b"hello /last"
        assert (await client.get("/then")).body == b"hello /then"  # it reads on
        await serving.end()

    run(scene)


def test_where_http_2_was_agreed_on_the_server_speaks_first(run: Play, http2: str) -> None:
    # As behind TLS, whose handshake says which protocol it is (RFC 9113 section 3.2).
    async def scene() -> None:
        serving = Serving(hello, http2=http2)
        make = serving.endpoint.make_http2
        assert make is not None
        ours, theirs = pair()
        client = Http2Client(Client(theirs, serving.loop))
        serving.clients.append(client.client)
        await serving.loop.connect_accepted_socket(lambda: MultiplexedConnection(serving.endpoint, make()), ours)
        data = await client.client.read()
        assert data[3] == Kind.SETTINGS
        client.peer.start()
        client.peer.feed(data)
        assert (await client.get()).body == b"hello /"
        await serving.end()

    run(scene)


def test_http_1_goes_on_beside_it(run: Play, http2: str) -> None:
    async def scene() -> None:
        serving = Serving(hello, http2=http2)
        client = await serving.connect_http2()
        other = await serving.connect()
        await other.send(get("/old"))
        assert (await other.responses(1))[0].body == b"hello /old"
        assert (await client.get("/new")).body == b"hello /new"
        await serving.end()

    run(scene)


def test_the_preface_is_refused_where_http_2_is_not_served(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(hello)
        client = await serving.connect()
        peer = Http2Peer()
        peer.start()
        await client.send(peer.take())
        [response] = await client.all_responses()
        assert response.status == 505
        await serving.end()

    run(scene)


def test_timeouts_are_what_the_tests_count_on() -> None:
    assert TIMEOUTS.linger < TIMEOUTS.keep_alive < TIMEOUTS.header < TIMEOUTS.body < TIMEOUTS.write
