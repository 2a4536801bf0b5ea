"""One WebSocket and its application, without a network."""

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable
from itertools import product
from math import inf
from time import monotonic
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appserver.asgi import websocket_transitions as table
from appserver.asgi.cycle import COMPLETE
from appserver.asgi.peer import DONE
from appserver.asgi.transitions import HELD, STREAMING
from appserver.asgi.types import Message, Receive, Scope, Send
from appserver.asgi.websocket_transitions import CLOSED, CONNECTING, OPEN, TRANSITIONS, expectation
from appserver.errors import ClientDisconnectedError, MisuseError
from appserver.wire.websocket import FRAME_WORK, WORK, deflate_memory
from tests.unit import websocket_frames as frames
from tests.unit.asgi.stage import DEFLATE, OPTIONS, SocketStage, breathe, play
from tests.unit.websocket_frames import BINARY, CLOSE, CONTINUATION, PING, PONG, RSV1, TEXT, Frame, frame, text

ACCEPT: Message = {"type": "websocket.accept"}
SEND: Message = {"type": "websocket.send", "text": "hello"}
END: Message = {"type": "websocket.close"}
DENY: Message = {"type": "websocket.http.response.start", "status": 401, "headers": [(b"x-why", b"no")]}
MORE: Message = {"type": "websocket.http.response.body", "body": b"de", "more_body": True}
LAST: Message = {"type": "websocket.http.response.body", "body": b"nied"}

CONNECT = {"type": "websocket.connect"}


def gone(code: int = 1006, reason: str = "") -> Message:
    return {"type": "websocket.disconnect", "code": code, "reason": reason}


async def opened(**options: Any) -> SocketStage:
    """A WebSocket that the application has accepted."""
    stage = SocketStage(**options)
    assert await stage.told() == CONNECT
    await stage.cycle.send(ACCEPT)
    await breathe()
    return stage


def over(stage: SocketStage, outcome: str = "complete", status: int = 101) -> None:
    assert stage.peer.ended
    stage.judge(outcome, status)


# The table

INPUTS: dict[str, Message] = {
    table.ACCEPT: ACCEPT,
    table.SEND: SEND,
    table.CLOSE: END,
    table.DENY: DENY,
    table.MORE: MORE,
    table.LAST: LAST,
}
WAYS: dict[str, list[Message]] = {
    CONNECTING: [],
    OPEN: [ACCEPT],
    CLOSED: [ACCEPT, END],
    HELD: [DENY],
    STREAMING: [DENY, MORE],
    COMPLETE: [DENY, LAST],
}
STRANGE: list[Any] = [
    {"type": "http.response.start", "status": 200},
    {"type": "websocket.receive", "text": "hello"},
    {"type": "websocket.http.response"},
    {"type": None},
    {"type": b"websocket.send", "text": "hello"},
    {"type": ["websocket.send"]},
    {"text": "hello"},
    {},
    None,
    7,
    "websocket.send",
]


def test_every_row_of_the_table_is_tried_below() -> None:
    assert set(TRANSITIONS) <= set(product(WAYS, INPUTS))
    assert {following for _, following in TRANSITIONS.values()} <= set(WAYS)


@pytest.mark.parametrize(("state", "kind"), list(product(WAYS, INPUTS)))
def test_every_message_in_every_state_is_in_the_table_or_misuse(state: str, kind: str) -> None:
    async def scene() -> None:
        stage = SocketStage()
        for earlier in WAYS[state]:
            await stage.cycle.send(earlier)
        assert stage.cycle._state == state
        if (state, kind) in TRANSITIONS:
            await stage.cycle.send(INPUTS[kind])
            assert stage.cycle._state == TRANSITIONS[state, kind][1]
            return
        before = stage.peer.content
        with pytest.raises(MisuseError) as caught:
            await stage.cycle.send(INPUTS[kind])
        assert expectation(state) in str(caught.value)
        assert stage.cycle._state == state
        assert stage.peer.content == before
        [record] = stage.records.of("misuse")
        assert (record["state"], record["code_func"]) == (state, "scene")

    play(scene())


@pytest.mark.parametrize(("state", "message"), list(product(WAYS, STRANGE)))
def test_what_is_no_message_is_misuse_in_every_state(state: str, message: Any) -> None:
    async def scene() -> None:
        stage = SocketStage()
        for earlier in WAYS[state]:
            await stage.cycle.send(earlier)
        with pytest.raises(MisuseError, match="expected|must be a dict"):
            await stage.cycle.send(message)
        assert stage.cycle._state == state

    play(scene())


def test_expectations_are_words() -> None:
    assert expectation(CONNECTING) == "websocket.accept or websocket.close or websocket.http.response.start"
    assert expectation(STREAMING) == "websocket.http.response.body"
    assert expectation(CLOSED) == expectation(COMPLETE) == "nothing more"


# Accept


def test_accept_is_answered_with_the_handshake_and_the_applications_fields() -> None:
    async def scene() -> None:
        stage = SocketStage(subprotocols=b"a, b", fields=[(b"server", b"appserver")])
        await stage.cycle.send({**ACCEPT, "subprotocol": "b", "headers": [(b"X-One", b"1"), (b"set-cookie", b"c")]})
        assert stage.peer.accepted == [
            (b"upgrade", b"websocket"),
            (b"connection", b"Upgrade"),
            (b"sec-websocket-accept", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
            (b"sec-websocket-protocol", b"b"),
            (b"x-one", b"1"),
            (b"set-cookie", b"c"),
            (b"server", b"appserver"),
        ]
        assert stage.service.figures.websockets == 1

    play(scene())


@pytest.mark.parametrize("message", [{**ACCEPT, "subprotocol": None, "headers": None}, {**ACCEPT, "headers": ()}])
def test_accept_may_say_nothing(message: Message) -> None:
    async def scene() -> None:
        stage = SocketStage(subprotocols=b"a")
        await stage.cycle.send(message)
        assert stage.peer.accepted is not None
        assert b"sec-websocket-protocol" not in dict(stage.peer.accepted)

    play(scene())


@pytest.mark.parametrize(
    "fault",
    [
        {"subprotocol": "c"},
        {"subprotocol": "A"},
        {"subprotocol": ""},
        {"subprotocol": b"a"},
        {"subprotocol": ["a"]},
        {"subprotocol": 1},
        {"headers": [(b"sec-websocket-protocol", b"a")]},
        {"headers": [(b"Sec-WebSocket-Accept", b"a")]},
        {"headers": [(b"sec-websocket-extensions", b"permessage-deflate")]},
        {"headers": [(b"sec-websocket-version", b"13")]},
        {"headers": [(b"Upgrade", b"h2c")]},
        {"headers": [(b"connection", b"close")]},
        {"headers": [(b"content-length", b"0")]},
        {"headers": [(b"x", b"a\r\nb: c")]},
        {"headers": [(b"x y", b"a")]},
        {"headers": [("x", "y")]},
        {"headers": 7},
        {"headers": "x"},
    ],
)
def test_what_may_not_stand_in_accept_is_misuse_and_leaves_no_trace(fault: Message) -> None:
    async def scene() -> None:
        stage = SocketStage(subprotocols=b"a, b", headers=[DEFLATE])
        with pytest.raises(MisuseError):
            await stage.cycle.send({**ACCEPT, **fault})
        assert (stage.peer.accepted, stage.service.figures.websockets, stage.options.deflating) == (None, 0, 0)
        assert stage.cycle._state == CONNECTING
        await stage.cycle.send({**ACCEPT, "subprotocol": "a"})
        assert stage.peer.accepted is not None

    play(scene())


def test_over_http_2_it_is_a_200() -> None:
    async def scene() -> None:
        stage = SocketStage(http="2")
        await stage.cycle.send(ACCEPT)
        assert stage.peer.accepted == []
        stage.hear(frames.close(1000))
        await breathe()
        over(stage, status=200)

    play(scene())


# Messages


def test_messages_come_in_order_with_their_kind() -> None:
    async def scene() -> None:
        stage = await opened()
        stage.hear(text("a") + frames.binary(b"b") + text("") + frames.binary(b""))
        assert [await stage.told() for _ in range(4)] == [
            {"type": "websocket.receive", "text": "a"},
            {"type": "websocket.receive", "bytes": b"b"},
            {"type": "websocket.receive", "text": ""},
            {"type": "websocket.receive", "bytes": b""},
        ]

    play(scene())


def test_a_message_wakes_who_waits() -> None:
    async def scene() -> None:
        stage = await opened()
        waiting = asyncio.ensure_future(stage.cycle.receive())
        await breathe()
        assert not waiting.done()
        stage.hear(*[text("hello")[at : at + 1] for at in range(len(text("hello")))])
        assert await waiting == {"type": "websocket.receive", "text": "hello"}

    play(scene())


def test_what_came_before_accept_is_told_behind_connect() -> None:
    async def scene() -> None:
        stage = SocketStage()
        stage.hear(text("early"))
        assert await stage.told() == CONNECT
        waiting = asyncio.ensure_future(stage.cycle.receive())
        await breathe()
        assert not waiting.done()
        assert stage.cycle.full
        await stage.cycle.send(ACCEPT)
        assert await waiting == {"type": "websocket.receive", "text": "early"}
        assert not stage.cycle.full

    play(scene())


@pytest.mark.parametrize(
    ("message", "sent"),
    [
        ({"text": "grün"}, Frame(TEXT, "grün".encode())),
        ({"text": ""}, Frame(TEXT, b"")),
        ({"bytes": b"data"}, Frame(BINARY, b"data")),
        ({"bytes": b""}, Frame(BINARY, b"")),
        ({"bytes": bytearray(b"data")}, Frame(BINARY, b"data")),
        ({"bytes": memoryview(b"data")}, Frame(BINARY, b"data")),
        ({"bytes": None, "text": "a"}, Frame(TEXT, b"a")),
        ({"bytes": b"a", "text": None}, Frame(BINARY, b"a")),
    ],
)
def test_a_message_leaves_at_once(message: Message, sent: Frame) -> None:
    async def scene() -> None:
        stage = await opened()
        assert stage.cycle.send({"type": "websocket.send", **message}) is DONE
        assert stage.said == [sent]

    play(scene())


@pytest.mark.parametrize(
    "fault",
    [
        {},
        {"text": None, "bytes": None},
        {"text": b"bytes"},
        {"text": 7},
        {"bytes": "text"},
        {"bytes": 7},
        {"bytes": [1, 2]},
        {"text": "a\ud800"},
    ],
)
def test_what_is_no_text_and_no_bytes_is_misuse(fault: Message) -> None:
    async def scene() -> None:
        stage = await opened()
        with pytest.raises(MisuseError):
            await stage.cycle.send({"type": "websocket.send", **fault})
        await stage.cycle.send(SEND)
        assert stage.said == [Frame(TEXT, b"hello")]

    play(scene())


def test_pings_are_answered_without_the_application() -> None:
    async def scene() -> None:
        stage = await opened()
        stage.hear(frame(PING, b"1") + frame(PONG, b"unasked") + frame(PING, b"2"))
        assert stage.said == [Frame(PONG, b"1"), Frame(PONG, b"2")]
        assert not stage.cycle.full

    play(scene())


# How it ends


@pytest.mark.parametrize(
    ("data", "code", "reason"),
    [
        (frames.close(1001, b"away"), 1001, "away"),
        (frames.close(4000), 4000, ""),
        (frames.close(), 1005, ""),
        (text("half")[:3] + b"", None, None),
    ],
)
def test_the_clients_close_is_told_once_with_its_code_and_reason(
    data: bytes, code: int | None, reason: str | None
) -> None:
    async def scene() -> None:
        stage = await opened()
        stage.hear(text("last") + data)
        assert await stage.told() == {"type": "websocket.receive", "text": "last"}
        if code is None:
            assert not stage.peer.ended
            stage.cycle.half_close()
            assert await stage.told() == gone()
            over(stage, "client_gone")
            return
        assert await stage.told() == gone(code, str(reason))
        assert stage.said[-1].opcode == CLOSE
        over(stage)
        with pytest.raises(ClientDisconnectedError):
            await stage.cycle.send(SEND)

    play(scene())


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(frame(TEXT, b"a", key=None), 1002, id="unmasked frame"),
        pytest.param(frame(TEXT, b"a", reserved=RSV1), 1002, id="reserved bits"),
        pytest.param(frame(3), 1002, id="reserved opcode"),
        pytest.param(frame(PING, fin=False), 1002, id="fragmented control frame"),
        pytest.param(frame(PING, bytes(126)), 1002, id="over-long control frame"),
        pytest.param(frame(TEXT, b"\xff"), 1007, id="bad UTF-8"),
        pytest.param(frames.close(1005), 1002, id="bad close code"),
        pytest.param(frames.binary(bytes(10_001)), 1009, id="message over the limit"),
    ],
)
def test_a_fault_of_the_client_is_told_it_and_the_application_and_the_log(data: bytes, code: int) -> None:
    async def scene() -> None:
        stage = await opened()
        stage.hear(text("good") + data + text("behind"))
        assert await stage.told() == {"type": "websocket.receive", "text": "good"}
        message = await stage.told()
        assert (message["type"], message["code"]) == ("websocket.disconnect", code)
        assert stage.said[-1].close == (code, message["reason"])
        [record] = stage.records.of("refused")
        assert (record["websocket_code"], record["client_addr"]) == (code, "192.0.2.1")
        assert stage.service.figures.refused == 1
        over(stage)

    play(scene())


@pytest.mark.parametrize("how", ["half_close", "disconnect"])
def test_a_client_that_goes_without_a_close_is_1006(how: str) -> None:
    async def scene() -> None:
        stage = await opened()
        waiting = asyncio.ensure_future(stage.cycle.receive())
        await breathe()
        getattr(stage.cycle, how)()
        assert await waiting == gone()
        assert stage.peer.ended is (how == "half_close")
        stage.judge("client_gone", 101)
        with pytest.raises(ClientDisconnectedError):
            await stage.cycle.send(SEND)

    play(scene())


def test_who_asks_again_behind_the_end_is_told_again_and_keeps_nobody() -> None:
    async def scene() -> None:
        stage = await opened()
        stage.cycle.disconnect()
        assert await stage.told() == gone()
        turns = 0

        async def others() -> None:
            nonlocal turns
            for _ in range(5):
                turns += 1
                await asyncio.sleep(0)

        running = asyncio.ensure_future(others())
        for _ in range(10):
            assert await stage.cycle.receive() == gone()
        assert turns == 5
        await running

    play(scene())


def test_messages_that_have_come_whole_are_told_though_the_client_is_gone() -> None:
    async def scene() -> None:
        stage = await opened()
        stage.hear(text("a") + text("b"))
        stage.cycle.disconnect()
        assert [(await stage.told()).get("text") for _ in range(2)] == ["a", "b"]
        assert await stage.told() == gone()

    play(scene())


@pytest.mark.parametrize(
    ("message", "close"),
    [
        (END, (1000, "")),
        ({**END, "code": None, "reason": None}, (1000, "")),
        ({**END, "code": 4999, "reason": "grün"}, (4999, "grün")),
        ({**END, "code": 3000}, (3000, "")),
        ({**END, "reason": "a" * 123}, (1000, "a" * 123)),
    ],
)
def test_our_close_waits_for_the_clients(message: Message, close: tuple[int, str]) -> None:
    async def scene() -> None:
        stage = await opened()
        await stage.cycle.send(message)
        assert stage.said[0].close == close
        assert not stage.peer.ended
        assert stage.records.answers() == []
        with pytest.raises(MisuseError, match="nothing more"):
            await stage.cycle.send(SEND)
        stage.hear(text("under way") + frames.close(4001, b"ok"))
        assert await stage.told() == gone(4001, "ok")
        over(stage)

    play(scene())


@pytest.mark.parametrize(
    "fault",
    [
        *({"code": code} for code in (0, 999, 1004, 1005, 1006, 1015, 2000, 5000, -1, 1 << 70, True)),
        {"code": "1000"},
        {"code": 1000.0},
        {"code": [1000]},
        {"reason": b"bytes"},
        {"reason": 7},
        {"reason": "a" * 124},
        {"reason": "a\ud800"},
    ],
)
def test_a_close_that_may_not_be_sent_is_misuse_and_it_goes_on(fault: Message) -> None:
    async def scene() -> None:
        stage = await opened()
        with pytest.raises(MisuseError):
            await stage.cycle.send({**END, **fault})
        await stage.cycle.send(SEND)
        assert stage.said == [Frame(TEXT, b"hello")]

    play(scene())


def test_the_answer_to_our_close_is_found_behind_what_nobody_takes() -> None:
    async def scene() -> None:
        stage = await opened()
        stage.hear(text("a") * 4, text("b") * 100 + frames.close(1000))
        assert stage.cycle.full
        await stage.cycle.send(END)
        await breathe()
        assert await stage.told() == {"type": "websocket.receive", "text": "a"}
        over(stage)

    play(scene())


# Deny


def test_a_close_before_accept_is_a_403() -> None:
    async def scene() -> None:
        stage = SocketStage()
        await stage.cycle.send({**END, "code": 4000, "reason": "no"})
        assert (stage.peer.status, stage.peer.content) == (403, b"Forbidden\n")
        assert await stage.told() == CONNECT
        assert await stage.told() == gone()
        over(stage, status=403)

    play(scene())


@pytest.mark.parametrize(
    "bodies", [[LAST], [MORE, LAST], [{**MORE, "body": b""}, MORE, MORE, LAST], [{"type": table.LAST}]]
)
@pytest.mark.parametrize("http", ["1.1", "2"])
def test_a_denial_is_the_applications_own_answer(bodies: list[Message], http: str) -> None:
    async def scene() -> None:
        stage = SocketStage(http=http)
        await stage.cycle.send(DENY)
        assert stage.peer.writes == 0
        for message in bodies:
            await stage.cycle.send(message)
        content = b"".join(message.get("body", b"") for message in bodies)
        assert (stage.peer.status, stage.peer.headers, stage.peer.content) == (401, [(b"x-why", b"no")], content)
        assert await stage.told() == CONNECT
        assert await stage.told() == gone()
        over(stage, status=401)

    play(scene())


@pytest.mark.parametrize("bodies", [[LAST], [MORE, LAST]])
def test_a_denial_that_announces_trailers_ends_without_them(bodies: list[Message]) -> None:
    async def scene() -> None:
        stage = SocketStage()
        for message in ({**DENY, "trailers": True}, *bodies):
            await stage.cycle.send(message)
        over(stage, status=401)

    play(scene())


@pytest.mark.parametrize(
    ("messages", "fault"),
    [
        ([], {**DENY, "status": 101}),
        ([], {**DENY, "status": "401"}),
        ([], {**DENY, "headers": [(b"x", b"\r\n")]}),
        ([DENY], {**LAST, "body": "text"}),
        ([{**DENY, "headers": [(b"content-length", b"2")]}], LAST),
        ([{**DENY, "headers": [(b"content-length", b"5")]}], LAST),
        ([{**DENY, "status": 204}], LAST),
    ],
)
def test_a_denial_that_cannot_be_sent_is_misuse(messages: list[Message], fault: Message) -> None:
    async def scene() -> None:
        stage = SocketStage()
        for message in messages:
            await stage.cycle.send(message)
        with pytest.raises(MisuseError):
            await stage.cycle.send(fault)
        assert stage.peer.status is None

    play(scene())


@pytest.mark.parametrize(
    ("way", "how"), [([], "half_close"), ([], "disconnect"), ([DENY], "disconnect"), ([DENY, MORE], "disconnect")]
)
def test_a_client_that_goes_before_the_answer_is_told_as_a_disconnect(way: list[Message], how: str) -> None:
    async def scene() -> None:
        stage = SocketStage()
        assert await stage.told() == CONNECT
        for message in way:
            await stage.cycle.send(message)
        getattr(stage.cycle, how)()
        assert await stage.told() == gone()
        stage.judge("client_gone", 401 if way else 499)
        with pytest.raises(ClientDisconnectedError):
            await stage.cycle.send(ACCEPT)

    play(scene())


@pytest.mark.parametrize("way", [[DENY], [DENY, MORE]])
def test_a_client_that_only_ends_its_side_gets_the_denial_that_has_begun(way: list[Message]) -> None:
    async def scene() -> None:
        stage = SocketStage()
        assert await stage.told() == CONNECT
        for message in way:
            await stage.cycle.send(message)
        stage.cycle.half_close()
        await stage.cycle.send({"type": "websocket.http.response.body", "body": b"no"})
        assert stage.peer.ended
        stage.judge("complete", 401)

    play(scene())


# The application's call


async def raises(scope: Scope, receive: Receive, send: Send) -> None:
    raise LookupError("of the application")


def application(*messages: Message, then: Callable[[], Awaitable[None]] | None = None) -> Any:
    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)
        if then is not None:
            await then()

    return call


async def fail() -> None:
    raise LookupError("of the application")


async def hang() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("messages", "status", "outcome"),
    [([], 500, "failed"), ([DENY], 500, "failed"), ([DENY, MORE], 401, "cut")],
)
@pytest.mark.parametrize("then", [fail, None])
def test_an_application_that_ends_before_its_answer(
    messages: list[Message], status: int, outcome: str, then: Any
) -> None:
    async def scene() -> None:
        stage = SocketStage(application(*messages, then=then))
        await stage.cycle.run()
        assert stage.peer.status == status
        assert stage.peer.cut is (outcome == "cut")
        assert len(stage.records.of("application_error" if then else "misuse")) == 1
        assert bool(stage.records.tracebacks()) is (then is not None)
        over(stage, outcome, status)

    play(scene())


def test_an_application_that_has_denied_may_raise() -> None:
    async def scene() -> None:
        stage = SocketStage(application(DENY, LAST, then=fail))
        await stage.cycle.run()
        assert len(stage.records.of("application_error")) == 1
        over(stage, status=401)

    play(scene())


def test_an_application_that_returns_has_closed() -> None:
    async def scene() -> None:
        stage = SocketStage(application(ACCEPT, SEND))
        await stage.cycle.run()
        assert [stage.said[0], stage.said[1].close] == [Frame(TEXT, b"hello"), (1000, "")]
        stage.hear(frames.close(1000))
        assert stage.records.of("misuse") == []
        over(stage)

    play(scene())


@pytest.mark.parametrize("answered", [True, False])
def test_an_application_that_raises_behind_accept_is_told_1011(answered: bool) -> None:
    async def scene() -> None:
        stage = SocketStage(application(ACCEPT, then=fail))
        await stage.cycle.run()
        assert [one.close for one in stage.said] == [(1011, "")]
        assert len(stage.records.of("application_error")) == 1
        if answered:
            stage.hear(frames.close(1011))
        else:
            stage.cycle.disconnect()
            stage.peer.ended = True
        over(stage, "cut")

    play(scene())


def test_an_application_that_raises_behind_its_close_has_closed() -> None:
    async def scene() -> None:
        stage = SocketStage(application(ACCEPT, END, then=fail))
        await stage.cycle.run()
        stage.hear(frames.close(1000))
        assert len(stage.records.of("application_error")) == 1
        over(stage)

    play(scene())


def test_an_application_that_passes_the_disconnect_on_is_at_no_fault() -> None:
    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        await send(ACCEPT)
        await receive()
        await receive()
        await send(SEND)

    async def scene() -> None:
        stage = SocketStage(call)
        task = stage.begin()
        await breathe()
        stage.hear(frames.close(1001))
        await task
        assert stage.records.tracebacks() == []
        over(stage)

    play(scene())


def test_an_application_that_heard_of_the_client_may_return_without_an_answer() -> None:
    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "websocket.disconnect":
            pass

    async def scene() -> None:
        stage = SocketStage(call)
        task = stage.begin()
        await breathe()
        stage.cycle.disconnect()
        await task
        assert stage.records.of("misuse") == []
        stage.judge("client_gone", 499)

    play(scene())


@pytest.mark.parametrize(
    ("messages", "status", "outcome"),
    [([], 503, "failed"), ([DENY], 503, "failed"), ([DENY, MORE], 401, "cut"), ([ACCEPT], 101, "cut")],
)
def test_an_application_that_is_cancelled(messages: list[Message], status: int, outcome: str) -> None:
    async def scene() -> None:
        stage = SocketStage(application(*messages, then=hang))
        task = stage.begin()
        await breathe()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        if messages == [ACCEPT]:
            assert [one.close for one in stage.said] == [(1012, "")]
            stage.hear(frames.close(1012))
        over(stage, outcome, status)

    play(scene())


def test_a_cancellation_that_is_the_applications_own_is_its_fault() -> None:
    async def cancelled() -> None:
        raise asyncio.CancelledError

    async def scene() -> None:
        stage = SocketStage(application(ACCEPT, then=cancelled))
        await stage.cycle.run()
        assert [one.close for one in stage.said] == [(1011, "")]
        assert len(stage.records.of("application_error")) == 1

    play(scene())


# Bounds


def test_no_more_than_so_many_messages_wait_for_the_application() -> None:
    async def scene() -> None:
        stage = await opened()
        for number in range(10):
            stage.hear(text(f"{number}"))
        assert len(stage.cycle._queue) == OPTIONS.max_queue
        assert (stage.cycle.full, stage.cycle.unread) == (True, 6 * len(text("0")))
        assert stage.peer.credit == 4 * len(text("0"))
        for number in range(6):
            assert (await stage.told())["text"] == f"{number}"
            assert len(stage.cycle._queue) == OPTIONS.max_queue
        assert (stage.cycle.full, stage.cycle.unread) == (False, 0)
        assert stage.peer.credit == 10 * len(text("0"))

    play(scene())


def test_no_more_than_so_many_bytes_wait_for_the_application() -> None:
    async def scene() -> None:
        stage = await opened(max_queue=1000)
        for _ in range(10):
            stage.hear(frames.binary(bytes(4000)))
        assert len(stage.cycle._queue) == 3
        assert stage.cycle._queued == 12_000
        assert stage.cycle.full
        await stage.told()
        assert len(stage.cycle._queue) == 3
        for _ in range(9):
            await stage.told()
        assert (stage.cycle.full, stage.cycle._queued, stage.cycle.unread) == (False, 0, 0)

    play(scene())


def test_messages_inflate_no_further_than_the_application_keeps_up() -> None:
    async def scene() -> None:
        stage = await opened(headers=[DEFLATE], max_size=WORK)
        bomb = frame(BINARY, frames.deflate(bytes(WORK), bits=12), reserved=RSV1)
        stage.hear(bomb * 30)
        await breathe(100)
        assert stage.cycle._queued <= 2 * WORK
        assert stage.cycle.full
        for _ in range(30):
            assert len((await stage.told())["bytes"]) == WORK
            assert stage.cycle._queued <= 2 * WORK

    play(scene())


def test_very_many_frames_of_one_read_leave_others_their_turn() -> None:
    async def scene() -> None:
        stage = await opened()
        turns = 0

        async def others() -> None:
            nonlocal turns
            while stage.cycle.full:
                turns += 1
                await asyncio.sleep(0)

        stage.hear(frame(PONG) * 10_000)
        assert stage.cycle.full
        await others()
        assert turns >= 8
        assert stage.cycle.unread == 0

    play(scene())


def test_very_many_small_pieces_that_have_waited_are_taken_in_turns() -> None:
    async def scene() -> None:
        stage = SocketStage()
        stage.hear(*[frame(PONG)] * 10_000)
        await stage.cycle.send(ACCEPT)
        most, before = 0, stage.cycle.unread
        while stage.cycle.unread:
            await asyncio.sleep(0)
            most, before = max(most, before - stage.cycle.unread), stage.cycle.unread
        assert most == (WORK // FRAME_WORK + 1) * len(frame(PONG))

    play(scene())


def test_a_client_that_does_not_read_its_pongs_is_read_no_more() -> None:
    async def scene() -> None:
        stage = await opened()
        stage.peer.slow = True
        stage.hear(frame(PING, b"1"), frame(PING, b"2"), text("behind"))
        assert stage.said == [Frame(PONG, b"1")]
        assert stage.cycle.full
        await breathe()
        assert stage.said == [Frame(PONG, b"1")]
        stage.peer.slow = False
        stage.peer.relief.set()
        await breathe()
        assert stage.said == [Frame(PONG, b"1"), Frame(PONG, b"2")]
        assert (await stage.told())["text"] == "behind"
        assert not stage.cycle.full

    play(scene())


def test_a_client_that_goes_while_its_pongs_wait_leaves_nothing() -> None:
    async def scene() -> None:
        tasks = asyncio.all_tasks()
        stage = await opened()
        stage.peer.slow = True
        stage.hear(frame(PING, b"1"), frame(PING, b"2"))
        await breathe()
        assert asyncio.all_tasks() > tasks
        stage.cycle.disconnect()
        await breathe()
        assert asyncio.all_tasks() == tasks
        stage.judge("client_gone", 101)

    play(scene())


def test_send_waits_for_a_slow_client() -> None:
    async def scene() -> None:
        stage = await opened()
        stage.peer.slow = True
        waiting = asyncio.ensure_future(stage.cycle.send(SEND))
        await breathe()
        assert not waiting.done()
        assert stage.said == [Frame(TEXT, b"hello")]
        stage.peer.relief.set()
        await waiting

    play(scene())


def test_send_that_waits_is_told_that_the_client_is_gone() -> None:
    async def scene() -> None:
        stage = await opened()
        stage.peer.slow = True
        waiting = asyncio.ensure_future(stage.cycle.send(SEND))
        await breathe()
        stage.cycle.disconnect()
        stage.peer.gone = True
        stage.peer.relief.set()
        with pytest.raises(ClientDisconnectedError):
            await waiting

    play(scene())


def test_send_that_waits_leaves_it_to_receive_how_the_client_has_closed() -> None:
    async def scene() -> None:
        stage = await opened()
        stage.peer.slow = True
        waiting = asyncio.ensure_future(stage.cycle.send(SEND))
        await breathe()
        stage.hear(frame(CLOSE, (4001).to_bytes(2)))
        stage.peer.gone = True
        stage.peer.relief.set()
        await waiting
        assert (await stage.told())["code"] == 4001
        with pytest.raises(ClientDisconnectedError):
            await stage.cycle.send(SEND)

    play(scene())


def test_a_denial_waits_for_a_slow_client() -> None:
    async def scene() -> None:
        stage = SocketStage()
        stage.peer.slow = True
        await stage.cycle.send(DENY)
        waiting = asyncio.ensure_future(stage.cycle.send(MORE))
        await breathe()
        assert not waiting.done()
        stage.peer.relief.set()
        await waiting

    play(scene())


# Compression


def test_compression_is_agreed_on_and_its_memory_counted_until_the_end() -> None:
    async def scene() -> None:
        stage = await opened(headers=[DEFLATE])
        assert stage.peer.accepted is not None
        assert dict(stage.peer.accepted)[b"sec-websocket-extensions"].startswith(b"permessage-deflate")
        assert stage.options.deflating == deflate_memory(12, 15)
        await stage.cycle.send({"type": "websocket.send", "text": "a" * 1000})
        [sent] = stage.said
        assert (sent.reserved, frames.inflate(sent.payload)) == (RSV1, b"a" * 1000)
        stage.hear(frame(TEXT, frames.deflate(b"b" * 1000, bits=12), reserved=RSV1))
        assert (await stage.told())["text"] == "b" * 1000
        stage.hear(frames.close(1000))
        over(stage)

    play(scene())


def test_who_comes_when_the_memory_is_given_away_goes_without() -> None:
    async def scene() -> None:
        one = deflate_memory(12, 15)
        stage = await opened(headers=[DEFLATE], deflate_memory=one - 1)
        assert stage.peer.accepted is not None
        assert b"sec-websocket-extensions" not in dict(stage.peer.accepted)
        assert stage.options.deflating == 0
        await stage.cycle.send({"type": "websocket.send", "text": "a" * 1000})
        assert stage.said == [Frame(TEXT, b"a" * 1000)]
        stage.hear(frames.close(1000))
        over(stage)
        assert (await opened(headers=[DEFLATE], deflate_memory=one)).options.deflating == one

    play(scene())


def test_a_bomb_is_told_1009() -> None:
    async def scene() -> None:
        stage = await opened(headers=[DEFLATE])
        stage.hear(frame(BINARY, frames.deflate(bytes(9_000_000), bits=12), reserved=RSV1, key=bytes(4)))
        assert (await stage.told())["code"] == 1009
        over(stage)

    play(scene())


def test_what_it_holds_goes_with_it_though_the_application_runs_on() -> None:
    async def scene() -> None:
        stage = await opened(headers=[DEFLATE])
        deflate = weakref.ref(stage.cycle._socket._protocol.extensions[0])  # type: ignore[union-attr]
        stage.cycle.disconnect()
        gc.collect()
        assert deflate() is None

    play(scene())


def test_a_denied_one_has_no_part_in_the_memory() -> None:
    async def scene() -> None:
        stage = SocketStage(headers=[DEFLATE])
        await stage.cycle.send(END)
        over(stage, status=403)

    play(scene())


# Time


def test_an_application_that_does_not_answer_the_handshake_is_a_503() -> None:
    async def scene() -> None:
        now = monotonic()
        stage = SocketStage(application(then=hang))
        assert now + 10 <= stage.peer.due <= now + 11
        task = stage.begin()
        await breathe()
        assert stage.cycle.tick(now + 9) == stage.peer.due
        assert stage.cycle.tick(now + 11) == inf
        [record] = stage.records.of("deadline")
        assert "within 10 s" in record["message"]
        over(stage, "failed", 503)
        assert await stage.told() == CONNECT
        assert await stage.told() == gone()
        with pytest.raises(ClientDisconnectedError):
            await stage.cycle.send(ACCEPT)
        task.cancel()

    play(scene())


@pytest.mark.parametrize("way", [[DENY], [DENY, MORE], [DENY, LAST]])
def test_a_denial_that_has_begun_has_answered_the_handshake(way: list[Message]) -> None:
    async def scene() -> None:
        stage = SocketStage()
        for message in way:
            await stage.cycle.send(message)
        assert stage.cycle.tick(monotonic() + 11) == inf
        assert stage.records.of("deadline") == []
        assert stage.peer.status in (None, 401)

    play(scene())


def pings(stage: SocketStage) -> list[bytes]:
    return [one.payload for one in stage.said if one.opcode == PING]


def test_a_client_that_answers_its_pings_stays() -> None:
    async def scene() -> None:
        stage = await opened()
        now = stage.peer.due
        assert monotonic() + 19 < now < monotonic() + 21
        for count in range(1, 4):
            assert stage.cycle.tick(now - 1) == now
            assert stage.cycle.tick(now) == now + 5
            assert len(pings(stage)) == count
            stage.hear(frame(PONG, pings(stage)[-1]))
            assert stage.cycle.tick(now + 5) == now + 20
            now += 20
        assert not stage.peer.ended
        assert len(set(pings(stage))) == 3

    play(scene())


def test_pings_keep_their_interval_where_their_timeout_is_longer() -> None:
    async def scene() -> None:
        stage = await opened(ping_interval=5.0, ping_timeout=12.0)
        now = stage.peer.due
        for count in range(1, 4):
            assert stage.cycle.tick(now) == now + 5
            assert len(pings(stage)) == count
            stage.hear(frame(PONG, pings(stage)[-1]))
            now += 5
        assert stage.cycle.tick(now) == now + 5
        assert stage.cycle.tick(now + 5) == now + 12
        assert len(pings(stage)) == 4
        assert not stage.peer.ended
        assert stage.cycle.tick(now + 12) == inf
        assert await stage.told() == gone(1006, "a ping was not answered")

    play(scene())


@pytest.mark.parametrize("sends", [frame(PING), text("a"), frame(TEXT, b"a", fin=False), b"\x81"])
def test_a_client_that_sends_something_else_stays(sends: bytes) -> None:
    async def scene() -> None:
        stage = await opened()
        now = stage.peer.due
        stage.cycle.tick(now)
        stage.hear(sends)
        assert stage.cycle.tick(now + 5) == now + 20
        assert not stage.peer.ended

    play(scene())


def test_a_client_that_does_not_answer_a_ping_is_gone() -> None:
    async def scene() -> None:
        stage = await opened()
        now = stage.peer.due
        stage.hear(text("before"))
        stage.cycle.tick(now)
        assert stage.cycle.tick(now + 4) == now + 5
        assert stage.cycle.tick(now + 5) == inf
        assert (await stage.told())["text"] == "before"
        assert await stage.told() == gone(1006, "a ping was not answered")
        [record] = stage.records.of("deadline")
        assert record["client_addr"] == "192.0.2.1"
        over(stage, "client_gone")

    play(scene())


def test_a_pong_that_stands_behind_what_the_application_is_too_slow_for_is_waited_for() -> None:
    async def scene() -> None:
        stage = await opened()
        now = stage.peer.due
        stage.hear(*[text("a")] * 6)
        assert stage.cycle.full
        for _ in range(4):
            stage.cycle.tick(now)
            now += 5
            assert stage.cycle.tick(now) > now
            now += 20
        assert not stage.peer.ended

    play(scene())


def test_without_a_timeout_a_ping_is_waited_for_for_ever() -> None:
    async def scene() -> None:
        stage = await opened(ping_timeout=0.0)
        now = stage.peer.due
        for _ in range(5):
            assert stage.cycle.tick(now) == now + 20
            now += 20
        assert len(pings(stage)) == 5
        assert not stage.peer.ended

    play(scene())


def test_a_client_that_cannot_send_has_its_time_from_when_it_can() -> None:
    async def scene() -> None:
        stage = await opened()
        due = stage.cycle.tick(stage.peer.due)
        timeout = stage.options.ping_timeout
        assert stage.cycle.tick(due, excused=True) == due + timeout
        assert not stage.peer.ended
        stage.cycle.tick(due + timeout)
        assert stage.peer.ended

    play(scene())


def test_without_an_interval_there_are_no_pings() -> None:
    async def scene() -> None:
        stage = await opened(ping_interval=0.0)
        assert stage.peer.due == inf
        assert stage.cycle.tick(monotonic() + 10_000) == inf
        assert stage.said == []

    play(scene())


def test_a_client_that_does_not_answer_our_close_is_left() -> None:
    async def scene() -> None:
        stage = await opened()
        await stage.cycle.send(END)
        due = stage.peer.due
        assert monotonic() + 6 < due < monotonic() + 8
        assert stage.cycle.tick(due - 1) == due
        stage.hear(text("no Close"))
        assert stage.cycle.tick(due) == inf
        assert await stage.told() == gone()
        over(stage, "client_gone")

    play(scene())


def test_a_close_that_waits_is_not_pinged() -> None:
    async def scene() -> None:
        stage = await opened(ping_interval=1.0)
        await stage.cycle.send(END)
        stage.cycle.tick(monotonic() + 2)
        assert pings(stage) == []

    play(scene())


# The server leaves


def test_who_is_open_when_the_server_leaves_is_told_1012() -> None:
    async def scene() -> None:
        stage = await opened()
        stage.cycle.leave()
        assert [one.close for one in stage.said] == [(1012, "")]
        with pytest.raises(ClientDisconnectedError):
            await stage.cycle.send(SEND)
        assert not stage.peer.ended
        stage.hear(frames.close(1012))
        assert await stage.told() == gone(1012)
        over(stage)

    play(scene())


def test_who_is_accepted_while_the_server_leaves_is_told_1012_behind_the_handshake() -> None:
    async def scene() -> None:
        stage = SocketStage(application(ACCEPT, SEND, then=hang))
        stage.cycle.leave()
        assert stage.peer.status is None
        task = stage.begin()
        await breathe()
        assert [one.opcode for one in stage.said] == [TEXT, CLOSE]
        assert stage.said[-1].close == (1012, "")
        stage.hear(frames.close(1012))
        over(stage)
        task.cancel()

    play(scene())


@pytest.mark.parametrize("way", [[DENY, LAST], [DENY, MORE, LAST], [END]])
def test_who_is_denied_while_the_server_leaves_has_his_answer(way: list[Message]) -> None:
    async def scene() -> None:
        stage = SocketStage()
        stage.cycle.leave()
        for message in way:
            await stage.cycle.send(message)
        assert stage.peer.status in (401, 403)
        over(stage, status=stage.peer.status or 0)

    play(scene())


def test_leaving_says_no_second_close() -> None:
    async def scene() -> None:
        stage = await opened()
        await stage.cycle.send({**END, "code": 4000})
        stage.cycle.leave()
        stage.cycle.leave()
        assert [one.close for one in stage.said] == [(4000, "")]

    play(scene())


@pytest.mark.parametrize(
    ("way", "status", "outcome"),
    [
        ([], 503, "failed"),
        ([DENY], 503, "failed"),
        ([DENY, MORE], 401, "cut"),
        ([ACCEPT], 101, "cut"),
        ([ACCEPT, END], 101, "complete"),
    ],
)
def test_what_is_refused_ends_at_once(way: list[Message], status: int, outcome: str) -> None:
    async def scene() -> None:
        stage = SocketStage(headers=[DEFLATE])
        assert await stage.told() == CONNECT
        for message in way:
            await stage.cycle.send(message)
        stage.cycle.refuse(503)
        if way == [ACCEPT]:
            assert [one.close for one in stage.said] == [(1012, "")]
        assert (await stage.told())["type"] == "websocket.disconnect"
        over(stage, outcome, status)

    play(scene())


# Facts that the connection asks for


def test_a_websocket_may_be_silent() -> None:
    async def scene() -> None:
        stage = SocketStage()
        assert (stage.cycle.whole, stage.cycle.answering, stage.cycle.full) == (True, False, False)
        await stage.cycle.send(ACCEPT)
        assert (stage.cycle.whole, stage.cycle.answering, stage.cycle.full) == (True, True, False)

    play(scene())


# Anything in any order

APPLICATION: list[Message] = [
    ACCEPT,
    {**ACCEPT, "subprotocol": "not offered"},
    SEND,
    {**SEND, "text": "a" * 500},
    {**SEND, "text": "\ud800"},
    END,
    {**END, "code": 1005},
    DENY,
    MORE,
    LAST,
    {"type": "strange"},
]
ENDS = ["return", "raise", "cancel", "receive"]
CLIENT: dict[str, bytes] = {
    "text": text("hello"),
    "many": text("x") * 50,
    "half": frame(TEXT, b"half", fin=False),
    "rest": frame(CONTINUATION, b"rest"),
    "ping": frame(PING, b"p"),
    "compressed": frame(BINARY, frames.deflate(b"c" * 500, bits=12), reserved=RSV1),
    "bad": frame(3),
    "close": frames.close(4000, b"bye"),
    "cut": text("hello")[:4],
}
HAPPENS = ["half_close", "disconnect", "refuse", "leave", "later", "slow", "relief", "turn"]
steps = st.lists(st.sampled_from([*APPLICATION, *ENDS, *CLIENT, *HAPPENS, ACCEPT, ACCEPT, "turn", "text"]), max_size=14)


class Puppet:
    """An application that does what it is told, one thing after the other."""

    def __init__(self) -> None:
        self.orders: asyncio.Queue[Any] = asyncio.Queue()
        self.told: list[Message] = []
        self.sent: list[Message] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        while True:
            order = await self.orders.get()
            if order == "return":
                return
            if order == "raise":
                raise LookupError("as it was told")
            if order == "receive":
                self.told.append(await receive())
                continue
            try:
                waiting = send(order)
            except MisuseError:
                continue
            self.sent.append(order)  # though its client may never take it
            await waiting


@settings(max_examples=500)
@given(steps=steps, deflate=st.booleans(), http=st.sampled_from(["1.1", "2"]))
def test_after_anything_in_any_order_there_is_one_record_and_nothing_is_left(
    steps: list[Any], deflate: bool, http: str
) -> None:
    play(_judge(steps, deflate=deflate, http=http))


async def _judge(steps: list[Any], *, deflate: bool, http: str) -> None:
    tasks = asyncio.all_tasks()
    puppet = Puppet()
    stage = SocketStage(puppet, headers=[DEFLATE] if deflate else None, http=http)
    cycle, peer = stage.cycle, stage.peer
    task = stage.begin()
    await breathe(2)
    now = monotonic()
    here = True  # the connection knows of the cycle
    for step in steps:
        here = here and not peer.ended
        if isinstance(step, dict) or step in ("return", "raise", "receive"):
            puppet.orders.put_nowait(step)
        elif step == "cancel":
            task.cancel()
        elif step == "slow":
            peer.slow = True
            peer.relief.clear()
        elif step == "relief":
            peer.slow = False
            peer.relief.set()
        elif step == "turn" or not here:
            pass
        elif step in CLIENT:
            cycle.feed(CLIENT[step], False)
            continue  # several may come in one turn
        elif step == "later":
            now += 30
            cycle.tick(now)
        elif step == "refuse":
            cycle.refuse(503)
        elif step == "leave":
            cycle.leave()
        else:
            if step == "disconnect":
                peer.gone, here = True, False
                peer.relief.set()
            getattr(cycle, step)()
        await breathe(3)
    if here and not peer.ended:
        peer.gone = True
        cycle.disconnect()
    peer.slow = False
    peer.relief.set()
    puppet.orders.put_nowait("return")
    for _ in range(20):
        puppet.orders.put_nowait("receive")
    puppet.orders.put_nowait("return")
    await breathe(10)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await breathe()
    assert asyncio.all_tasks() == tasks
    # One record; nothing open, nothing held, nothing behind the end (which the peer looks after).
    [answer] = stage.records.answers()
    status = 200 if http == "2" and peer.accepted is not None else peer.status
    assert answer["http_status"] == status or (status is None and answer["http_status"] in (401, 499))
    figures = stage.service.figures
    assert (figures.requests, figures.websockets, figures.answered) == (0, 0, 1)
    assert (stage.options.deflating, cycle.unread, len(cycle._inbox)) == (0, 0, 0)
    ends = [message["type"] == "websocket.disconnect" for message in puppet.told]
    assert ends == sorted(ends)  # nothing comes behind it
    if peer.accepted is not None:
        said, _ = frames.read(peer.content)
        kinds = [one.opcode for one in said]
        assert kinds.count(CLOSE) <= 1
        assert CLOSE not in kinds or {*kinds[kinds.index(CLOSE) + 1 :]} <= {PONG}
        sent = [message for message in puppet.sent if message["type"] == "websocket.send"]
        assert kinds.count(TEXT) == len(sent)
