import asyncio
import contextvars
import sys
import warnings
from collections.abc import Callable
from http import HTTPStatus

import pytest
from asgiref.wsgi import WsgiToAsgi

from appserver.asgi.http import PIECE_SIZE
from appserver.asgi.peer import DONE
from appserver.asgi.types import Message, Receive, Scope, Send
from appserver.errors import ClientDisconnectedError, MisuseError
from appserver.telemetry.context import REQUEST_ID
from tests.unit.asgi.stage import FILE_MORE, LAST, MORE, START, Stage, body, breathe, perform, play, sends, start

# A good answer


def test_a_small_answer_is_one_write() -> None:
    stage = perform(sends(start(200, (b"X-One", b"1")), body(b"hello")))
    assert stage.peer.headers == [(b"x-one", b"1")]
    assert (stage.peer.content, stage.peer.writes) == (b"hello", 1)


def test_nothing_leaves_before_the_first_body_message() -> None:
    async def scene() -> None:
        stage = Stage()
        await stage.cycle.send(START)
        assert stage.peer.writes == 0
        await stage.cycle.send(MORE)
        assert stage.peer.writes == 1

    play(scene())


def test_a_streamed_answer_is_a_write_a_message() -> None:
    stage = perform(sends(start(), body(b"a", more=True), body(b"b", more=True), body(b"c")))
    assert stage.peer.writes == 3
    assert stage.peer.content == b"abc"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="there a function cannot say that it is to be awaited")
def test_wsgi_behind_asgiref_is_answered_without_a_warning() -> None:
    def wsgi(environ: object, start_response: Callable[..., object]) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"hello"]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stage = perform(WsgiToAsgi(wsgi))  # type: ignore[no-untyped-call]
    assert (stage.peer.status, stage.peer.content) == (200, b"hello")


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_body_may_be_any_kind_of_bytes(kind: Callable[[bytes], object]) -> None:
    assert perform(sends(start(), body(kind(b"data")))).peer.content == b"data"


def test_a_body_message_without_a_body_is_empty() -> None:
    stage = perform(sends({"type": "http.response.start", "status": 200}, {"type": "http.response.body"}))
    assert (stage.peer.status, stage.peer.content, stage.peer.ended) == (200, b"", True)


def test_a_status_may_be_an_enum() -> None:
    assert perform(sends(start(HTTPStatus.NOT_FOUND), LAST)).peer.status == 404


@pytest.mark.parametrize("pieces", [(b"abcd",), (b"ab", b"cd"), (b"", b"abcd", b"")])
def test_a_body_may_keep_its_promised_length_in_pieces(pieces: tuple[bytes, ...]) -> None:
    messages = [body(piece, more=True) for piece in pieces[:-1]] + [body(pieces[-1])]
    stage = perform(sends(start(200, (b"content-length", b"4")), *messages))
    assert (stage.peer.content, stage.peer.cut, stage.length) == (b"abcd", False, [b"4"])


@pytest.mark.parametrize("messages", [[LAST], [MORE, MORE, LAST]])
def test_a_head_request_gets_no_body_and_no_complaint(messages: list[Message]) -> None:
    stage = perform(sends(start(200, (b"content-length", b"99")), *messages), method="HEAD")
    assert (stage.peer.status, stage.peer.content, stage.length) == (200, b"", [b"99"])
    assert stage.peer.ended
    assert not stage.peer.cut
    assert stage.records.of("misuse") == []


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_content_takes_an_empty_body(status: int) -> None:
    stage = perform(sends(start(status), body(b"", more=True), body(b"")))
    assert (stage.peer.status, stage.peer.ended, stage.records.of("misuse")) == (status, True, [])


def test_the_servers_own_fields_stand_behind_the_applications() -> None:
    stage = perform(sends(start(200, (b"server", b"mine")), LAST), fields=[(b"date", b"now"), (b"server", b"ours")])
    assert stage.peer.headers == [(b"server", b"mine"), (b"date", b"now")]


def test_the_log_knows_the_request_by_its_id_and_no_other() -> None:
    seen: list[str | None] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(REQUEST_ID.get())
        await send(START)
        await send(LAST)

    async def scene() -> None:
        stage = Stage(application)
        await stage.begin()
        assert REQUEST_ID.get() is None
        [answer] = stage.records.answers()
        assert answer["request_id"] == "id-1"

    play(scene())
    assert seen == ["id-1"]


def test_the_access_record_tells_what_was_done() -> None:
    async def scene() -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(start(201))
            await send(body(b"12345"))

        stage = Stage(application, method="POST", end=False)
        stage.cycle.feed(b"abc", end=True)
        await stage.cycle.run()
        [answer] = stage.records.answers()
        wanted = {
            "http_method": "POST",
            "http_target": "/path?query",
            "http_status": 201,
            "http_version": "1.1",
            "client_addr": "192.0.2.1",
            "bytes_received": 3,
            "bytes_sent": 5,
            "listener": "listener",
            "outcome": "complete",
            "http_host": "a.example",
        }
        assert wanted.items() <= answer.items()

    play(scene())


# Misuse


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        ([LAST], "expected http.response.start"),
        ([MORE], "expected http.response.start"),
        ([START, START], "expected http.response.body"),
        ([start(199), LAST], "status must be a number"),
        ([start(1000), LAST], "status must be a number"),
        ([start("200"), LAST], "status must be a number"),
        ([start(None), LAST], "status must be a number"),
        ([start(True), LAST], "status must be a number"),
        ([{"type": "http.response.start"}, LAST], "status must be a number"),
        ([start(200, (b"a", b"1\r\nb: 2")), LAST], "holds CR, LF or NUL"),
        ([start(200, (b"a", b"1\n")), LAST], "holds CR, LF or NUL"),
        ([start(200, (b"a", b"1\0")), LAST], "holds CR, LF or NUL"),
        ([start(200, (b"a\r\nb", b"1")), LAST], "header name"),
        ([start(200, ("a", "1")), LAST], "byte strings|header name"),
        ([start(200, (b"a", "1")), LAST], "byte strings"),
        ([{"type": "http.response.start", "status": 200, "headers": 7}, LAST], "byte strings"),
        ([START, body("text")], "body must be bytes, not str"),
        ([START, body(None)], "body must be bytes, not NoneType"),
        ([START, body([1, 2])], "body must be bytes, not list"),
        ([start(204), body(b"x")], "a 204 response has no body"),
        ([start(304), body(b"x", more=True)], "a 304 response has no body"),
        ([start(200, (b"content-length", b"3")), body(b"four")], "1 bytes longer than its content-length"),
        ([start(200, (b"content-length", b"5")), body(b"four")], "1 bytes shorter than its content-length"),
        ([start(200, (b"content-length", b"5")), body(b"sixsix", more=True)], "1 bytes longer"),
    ],
)
def test_misuse_before_anything_was_sent_is_a_500_and_one_record(messages: list[Message], complaint: str) -> None:
    stage = perform(sends(*messages))
    assert (stage.peer.status, stage.peer.content, stage.peer.cut) == (500, b"Internal Server Error\n", False)
    [record] = stage.records.of("misuse")
    assert any(part in record["message"] for part in complaint.split("|"))
    assert record["code_file"] == sends.__code__.co_filename
    assert record["code_func"] == "application"
    assert stage.records.of("application_error") == []
    assert stage.service.figures.failed == 1


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        ([START, MORE, START], "expected http.response.body"),
        ([START, MORE, body("text")], "body must be bytes"),
        ([start(200, (b"content-length", b"5")), MORE, LAST], "3 bytes longer"),
        ([start(200, (b"content-length", b"9")), MORE, LAST], "1 bytes shorter"),
    ],
)
def test_misuse_in_mid_answer_cuts_it_visibly(messages: list[Message], complaint: str) -> None:
    stage = perform(sends(*messages))
    assert (stage.peer.status, stage.peer.cut, stage.peer.content) == (200, True, b"more")
    [record] = stage.records.of("misuse")
    assert complaint in record["message"]
    [answer] = stage.records.answers()
    assert answer["outcome"] == "cut"
    assert answer["level"] == "warning"


def test_a_message_behind_the_end_is_misuse_and_harms_nothing() -> None:
    stage = perform(sends(START, LAST, LAST))
    assert (stage.peer.status, stage.peer.content, stage.peer.cut) == (200, b"last", False)
    [record] = stage.records.of("misuse")
    assert "nothing more" in record["message"]


def test_a_mistake_that_the_application_makes_good_is_forgiven() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(MisuseError):
            await send(LAST)
        await send(START)
        with pytest.raises(MisuseError):
            await send(body("text"))
        await send(LAST)

    assert perform(application).peer.content == b"last"


@pytest.mark.parametrize(
    ("messages", "status", "cut"), [([], 500, False), ([START], 500, False), ([START, MORE], 200, True)]
)
def test_returning_without_an_answer_is_misuse(messages: list[Message], status: int, cut: bool) -> None:
    stage = perform(sends(*messages))
    assert (stage.peer.status, stage.peer.cut) == (status, cut)
    [record] = stage.records.of("misuse")
    assert "returned without ending its response" in record["message"]


@pytest.mark.parametrize("error", [ValueError("broken"), SystemExit(7), KeyboardInterrupt(), GeneratorExit()])
@pytest.mark.parametrize(
    ("messages", "status", "cut"), [([], 500, False), ([START], 500, False), ([START, MORE], 200, True)]
)
def test_an_exception_before_and_after_the_start(
    messages: list[Message],
    status: int,
    cut: bool,
    error: BaseException,
) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)
        raise error

    stage = perform(application)
    assert (stage.peer.status, stage.peer.cut) == (status, cut)
    [record] = stage.records.of("application_error")
    assert type(error).__name__ in record["message"]
    assert "test_http.py" in record["traceback"]


def test_an_exception_behind_the_answer_is_told_and_changes_nothing() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send(LAST)
        raise ValueError("late")

    stage = perform(application)
    assert (stage.peer.status, stage.peer.content, stage.peer.cut) == (200, b"last", False)
    assert len(stage.records.of("application_error")) == 1
    assert stage.service.figures.failed == 0


def test_sys_exit_in_a_request_does_not_end_the_process() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        sys.exit(3)

    assert perform(application).peer.status == 500


@pytest.mark.parametrize(("messages", "status", "cut"), [([START], 503, False), ([START, MORE], 200, True)])
def test_a_cancelled_application_still_gets_its_client_an_answer(
    messages: list[Message],
    status: int,
    cut: bool,
) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)
        await asyncio.Event().wait()

    async def scene() -> None:
        stage = Stage(application)
        task = stage.begin()
        await breathe()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (stage.peer.status, stage.peer.cut) == (status, cut)

    play(scene())


# The request's side


def test_a_request_without_a_body_is_one_empty_message() -> None:
    async def scene() -> None:
        stage = Stage()
        assert await stage.cycle.receive() == {"type": "http.request", "body": b"", "more_body": False}
        assert stage.peer.credit == 0

    play(scene())


def test_a_body_arrives_in_order_and_is_given_back_as_credit() -> None:
    async def scene() -> None:
        stage = Stage(end=False)
        large = b"x" * PIECE_SIZE
        for piece, end in ((b"one", False), (b"", False), (large, False), (b"three", False), (b"", True)):
            stage.cycle.feed(piece, end)
        assert stage.cycle.unread == 8 + PIECE_SIZE
        got = [await stage.cycle.receive() for _ in range(3)]
        assert [(message["body"], message["more_body"]) for message in got] == [
            (b"one", True),
            (large, True),
            (b"three", False),
        ]
        assert (stage.cycle.unread, stage.peer.credit) == (0, 8 + PIECE_SIZE)

    play(scene())


def test_a_body_in_single_bytes_is_kept_in_few_pieces() -> None:
    async def scene() -> None:
        stage = Stage(end=False)
        for _ in range(3 * PIECE_SIZE):
            stage.cycle.feed(b"x", end=False)
        assert len(stage.cycle._queue) == 3

    play(scene())


def test_receive_waits_for_what_has_not_come() -> None:
    async def scene() -> None:
        stage = Stage(end=False)
        waiting = asyncio.create_task(stage.cycle.receive())
        await breathe()
        assert not waiting.done()
        stage.cycle.feed(b"now", end=True)
        assert await waiting == {"type": "http.request", "body": b"now", "more_body": False}

    play(scene())


def test_concurrent_receive_calls_share_the_body_and_then_the_disconnect() -> None:
    async def scene() -> None:
        stage = Stage(end=False)
        waiting = [asyncio.create_task(stage.cycle.receive()) for _ in range(3)]
        await breathe()
        stage.cycle.feed(b"one", end=True)
        await breathe()
        stage.cycle.disconnect()
        got = [await task for task in waiting]
        assert sorted(message["type"] for message in got) == ["http.disconnect", "http.disconnect", "http.request"]

    play(scene())


def test_a_cancelled_receive_loses_nothing() -> None:
    async def scene() -> None:
        stage = Stage(end=False)
        waiting = asyncio.create_task(stage.cycle.receive())
        await breathe()
        waiting.cancel()
        await breathe()
        stage.cycle.feed(b"kept", end=True)
        assert (await stage.cycle.receive())["body"] == b"kept"

    play(scene())


def test_after_the_answer_receive_tells_the_disconnect() -> None:
    async def scene() -> None:
        stage = Stage()
        await stage.cycle.receive()
        waiting = asyncio.create_task(stage.cycle.receive())
        await breathe()
        assert not waiting.done()
        await stage.cycle.send(START)
        await stage.cycle.send(LAST)
        assert await waiting == {"type": "http.disconnect"}
        assert await stage.cycle.receive() == {"type": "http.disconnect"}

    play(scene())


def test_100_continue_is_sent_when_the_application_first_reads_and_has_to_wait() -> None:
    async def scene() -> None:
        stage = Stage(end=False, expects=True)
        await breathe()
        assert stage.peer.proceeded == 0
        waiting = asyncio.create_task(stage.cycle.receive())
        await breathe()
        assert stage.peer.proceeded == 1
        stage.cycle.feed(b"body", end=True)
        await waiting

    play(scene())


def test_100_continue_is_not_sent_for_a_body_that_is_there() -> None:
    async def scene() -> None:
        stage = Stage(end=False, expects=True)
        stage.cycle.feed(b"body", end=True)
        await stage.cycle.receive()
        assert stage.peer.proceeded == 0

    play(scene())


# The client goes


@pytest.mark.parametrize("messages", [[], [START], [START, MORE]])
def test_send_to_a_client_that_has_gone_raises_an_oserror(messages: list[Message]) -> None:
    async def scene() -> None:
        stage = Stage()
        for message in messages:
            await stage.cycle.send(message)
        stage.cycle.disconnect()
        for message in (START, MORE, LAST, {}):
            with pytest.raises(OSError, match="gone"):
                await stage.cycle.send(message)

    play(scene())


def test_a_client_that_goes_is_recorded_once_and_is_no_fault() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        assert (await receive())["type"] == "http.disconnect"
        await send(START)

    async def scene() -> None:
        stage = Stage(application)
        task = stage.begin()
        await breathe()
        stage.cycle.disconnect()
        await task
        stage.cycle.disconnect()
        [answer] = stage.records.answers()
        assert (answer["http_status"], answer["outcome"], answer["level"]) == (499, "client_gone", "info")
        figures = stage.service.figures
        assert (figures.requests, figures.answered, figures.failed) == (0, 1, 0)
        assert stage.records.tracebacks() == []
        assert stage.peer.status is None

    play(scene())


def test_an_application_that_is_silent_to_a_client_that_has_gone_is_forgiven() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async def scene() -> None:
        stage = Stage(application)
        task = stage.begin()
        await breathe()
        stage.cycle.disconnect()
        await task
        assert stage.records.of("misuse") == []

    play(scene())


def test_a_half_closed_client_still_gets_its_answer() -> None:
    async def scene() -> None:
        stage = Stage()
        stage.cycle.half_close()
        assert (await stage.cycle.receive())["type"] == "http.request"
        assert (await stage.cycle.receive())["type"] == "http.disconnect"
        await stage.cycle.send(START)
        await stage.cycle.send(LAST)
        assert stage.peer.content == b"last"

    play(scene())


BODILESS = [("HEAD", 200), ("GET", 204), ("GET", 304)]
EMPTY: Message = {"type": "http.response.body", "body": b"", "more_body": True}


async def hear(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@pytest.mark.parametrize(("method", "status"), BODILESS)
@pytest.mark.parametrize("beside", [False, True])
def test_an_application_is_told_when_its_client_has_an_answer_without_a_body(
    method: str, status: int, *, beside: bool
) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        hearing = asyncio.create_task(hear(receive))
        if beside:
            await breathe()
        await send(start(status))
        await send(EMPTY)
        await hearing

    stage = perform(application, method=method)
    assert (stage.peer.status, stage.peer.ended, stage.peer.cut) == (status, True, False)
    [answer] = stage.records.answers()
    assert (answer["http_status"], answer["outcome"]) == (status, "complete")
    assert stage.records.of("misuse") == []


def test_an_application_may_go_on_with_a_body_that_nobody_gets() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        for message in (START, MORE, MORE):
            await send(message)
        await hear(receive)
        for message in (MORE, FILE_MORE, LAST):
            await send(message)

    stage = perform(application, method="HEAD")
    assert (stage.peer.content, stage.peer.ended, stage.peer.cut) == (b"", True, False)
    assert [answer["outcome"] for answer in stage.records.answers()] == ["complete"]


def test_a_body_that_nobody_gets_does_not_keep_the_loop_from_the_others() -> None:
    async def scene() -> None:
        stage = Stage(sends(START, *[MORE] * 100, LAST), method="HEAD")
        task = stage.begin()
        await breathe()
        assert (stage.peer.status, task.done()) == (200, False)
        await task
        assert [answer["outcome"] for answer in stage.records.answers()] == ["complete"]

    play(scene())


def test_an_answer_without_a_body_is_not_over_for_who_still_reads_the_request() -> None:
    async def scene() -> None:
        stage = Stage(method="HEAD", end=False)
        await stage.cycle.send(START)
        await stage.cycle.send(MORE)
        stage.cycle.feed(b"some", False)
        assert (await stage.cycle.receive())["body"] == b"some"
        told = asyncio.create_task(stage.cycle.receive())
        await breathe()
        assert not told.done()
        stage.cycle.feed(b"rest", True)
        assert (await told)["body"] == b"rest"
        assert (await stage.cycle.receive())["type"] == "http.disconnect"

    play(scene())


def test_an_exception_behind_an_answer_without_a_body_is_told_and_cuts_nothing() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send(MORE)
        raise ValueError("broken")

    stage = perform(application, method="HEAD")
    assert (stage.peer.ended, stage.peer.cut) == (True, False)
    assert len(stage.records.tracebacks()) == 1
    assert [answer["outcome"] for answer in stage.records.answers()] == ["complete"]


def test_a_client_that_goes_with_its_answer_without_a_body_has_got_it() -> None:
    async def scene() -> None:
        stage = Stage(method="HEAD")
        await stage.cycle.send(START)
        await stage.cycle.send(MORE)
        stage.cycle.disconnect()
        assert [answer["outcome"] for answer in stage.records.answers()] == ["complete"]
        with pytest.raises(ClientDisconnectedError):
            await stage.cycle.send(MORE)

    play(scene())


@pytest.mark.parametrize(("messages", "status", "cut"), [([], 400, False), ([START, MORE], 200, True)])
def test_a_body_that_turns_bad_is_answered_where_that_can_still_be_done(
    messages: list[Message],
    status: int,
    cut: bool,
) -> None:
    async def scene() -> None:
        stage = Stage(end=False)
        for message in messages:
            await stage.cycle.send(message)
        waiting = asyncio.create_task(stage.cycle.receive())
        await breathe()
        stage.cycle.refuse(400)
        assert await waiting == {"type": "http.disconnect"}
        assert (stage.peer.status, stage.peer.cut) == (status, cut)
        with pytest.raises(ClientDisconnectedError):
            await stage.cycle.send(LAST)

    play(scene())


# What send() returns


def test_send_to_a_slow_client_waits_for_it() -> None:
    async def scene() -> None:
        stage = Stage()
        await stage.cycle.send(START)
        stage.peer.slow = True
        waiting = asyncio.ensure_future(stage.cycle.send(MORE))
        await breathe()
        assert not waiting.done()
        stage.peer.slow = False
        stage.peer.relief.set()
        await waiting

    play(scene())


def test_a_client_that_goes_while_send_waits_raises_there() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        with pytest.raises(OSError, match="gone"):
            await send(MORE)

    async def scene() -> None:
        stage = Stage(application)
        stage.peer.slow = True
        task = stage.begin()
        await breathe()
        stage.peer.gone = True
        stage.cycle.disconnect()
        stage.peer.relief.set()
        await task
        assert stage.records.tracebacks() == []

    play(scene())


def test_the_last_message_never_waits() -> None:
    async def scene() -> None:
        stage = Stage()
        await stage.cycle.send(START)
        stage.peer.slow = True
        assert stage.cycle.send(LAST) is DONE

    play(scene())


def test_what_send_returns_can_be_a_task() -> None:
    async def scene() -> None:
        stage = Stage()
        await asyncio.create_task(stage.cycle.send(START))  # type: ignore[arg-type]
        await asyncio.gather(stage.cycle.send(MORE), asyncio.wait_for(stage.cycle.send(MORE), 20))
        async with asyncio.TaskGroup() as group:
            group.create_task(stage.cycle.send(LAST))  # type: ignore[arg-type]
        assert stage.peer.content == b"moremorelast"

    play(scene())


def test_what_send_returns_can_run_in_an_anyio_task_group() -> None:
    anyio = pytest.importorskip("anyio")

    async def scene() -> None:
        stage = Stage()
        await stage.cycle.send(START)
        async with anyio.create_task_group() as group:
            group.start_soon(stage.cycle.send, MORE)
        async with anyio.create_task_group() as group:
            group.start_soon(stage.cycle.send, LAST)
        assert stage.peer.content == b"morelast"

    play(scene())


def test_what_send_returns_is_a_coroutine_to_the_letter() -> None:
    DONE.close()
    with pytest.raises(StopIteration):
        DONE.send(None)
    with pytest.raises(ValueError, match="thrown"):
        DONE.throw(ValueError("thrown"))
    with pytest.raises(ValueError, match="^$"):
        DONE.throw(ValueError)


def test_the_application_runs_in_a_context_of_its_own() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        variable.set("set")
        await send(START)
        await send(LAST)

    async def scene() -> None:
        await Stage(application).begin()
        assert variable.get() == "unset"

    play(scene())


# 205 Reset Content: RFC 9110 section 15.3.6


@pytest.mark.parametrize(
    "messages",
    [
        [start(205), body(b"more than nothing")],
        [start(205), body(b"", more=True), body(b"more than nothing")],
        [start(205, (b"content-length", b"3")), body(b"abc")],
    ],
)
def test_a_205_with_content_is_misuse(messages: list[Message]) -> None:
    stage = perform(sends(*messages))
    assert len(stage.records.of("misuse")) == 1
    assert stage.peer.status == 500 or stage.peer.cut
    assert b"nothing" not in stage.peer.content


def test_a_205_without_content_is_sent() -> None:
    stage = perform(sends(start(205), body(b"")))
    assert (stage.peer.status, stage.peer.content, stage.peer.ended) == (205, b"", True)
    assert stage.records.of("misuse") == []
