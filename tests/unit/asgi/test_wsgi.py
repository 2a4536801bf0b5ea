"""asgi.wsgi: WSGI applications in real threads, behind the real cycle of a request."""

import asyncio
import gc
import gzip
import re
import sys
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

import pytest

from appserver.asgi.wsgi import WHOLE_SIZE, Wsgi
from appserver.asgi.wsgi_call import AHEAD_SIZE, WsgiApplication
from appserver.asgi.wsgi_streams import FileWrapper
from appserver.errors import MisuseError
from appserver.telemetry.context import REQUEST_ID
from appserver.telemetry.log import Log
from tests.unit.asgi.stage import Stage, breathe, play

START = ("200 OK", [("Content-Type", "text/plain")])
PATIENCE = 20.0


class Closable:
    """An iterable that counts what is done with it."""

    def __init__(self, *pieces: Any) -> None:
        self._pieces, self.closed, self.asked = pieces, 0, 0

    def __iter__(self) -> Iterator[Any]:
        for piece in self._pieces:
            self.asked += 1
            if isinstance(piece, BaseException):
                raise piece
            if callable(piece):
                piece()
            else:
                yield piece

    def close(self) -> None:
        self.closed += 1


def answering(result: Any, *start: Any) -> WsgiApplication:
    """An application that starts a response and returns this."""

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        start_response(*(start or START))
        return result

    return application


async def serving(
    application: WsgiApplication,
    scene: Callable[[Stage, "asyncio.Task[None]"], Awaitable[None]] | None = None,
    threads: int = 2,
    **options: Any,
) -> Stage:
    stage = Stage(**options)
    adapter = stage.service.application = Wsgi(application, threads, stage.records.log, multiprocess=False)
    task = stage.begin()
    try:
        if scene is not None:
            await breathe()
            await scene(stage, task)
        await asyncio.wait({task}, timeout=PATIENCE)
        assert task.done()
    finally:
        adapter.close()
    return stage


def perform(application: WsgiApplication, **options: Any) -> Stage:
    return play(serving(application, **options))


async def until(condition: Callable[[], object], what: str) -> None:
    for _ in range(int(PATIENCE / 0.005)):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"waited for {what}")


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [[b"hello"], [b"he", b"", b"llo"], (b"hello",)])
def test_a_body_that_is_all_there_is_one_write_with_its_length(pieces: Any) -> None:
    stage = perform(answering(pieces))
    assert (stage.peer.status, stage.peer.content, stage.peer.writes, stage.peer.ended) == (200, b"hello", 1, True)
    assert (b"content-type", b"text/plain") in stage.peer.headers
    assert stage.records.answers()[0]["http_status"] == 200


def test_pieces_are_sent_before_the_next_is_asked_for() -> None:
    async def scene(stage: Stage, task: "asyncio.Task[None]") -> None:
        await until(lambda: stage.peer.content == b"first", "the first piece")
        assert not task.done()
        go.set()

    go = threading.Event()
    body = Closable(b"first", lambda: go.wait(PATIENCE), b"", b"second")
    stage = play(serving(answering(body), scene))
    assert (stage.peer.content, stage.peer.ended, body.closed) == (b"firstsecond", True, 1)


def test_the_last_byte_that_was_promised_ends_the_answer_whatever_is_still_done() -> None:
    async def scene(stage: Stage, task: "asyncio.Task[None]") -> None:
        await until(lambda: stage.peer.ended, "the end of the answer")
        assert (stage.peer.content, task.done(), body.closed) == (b"hello", False, 0)
        go.set()

    go = threading.Event()
    body = Closable(b"he", b"llo", lambda: go.wait(PATIENCE))
    stage = play(serving(answering(body, "200 OK", [("Content-Length", "5")]), scene))
    assert (stage.length, body.closed) == ([b"5"], 1)


def test_write_sends_before_what_is_returned() -> None:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        write = start_response(*START)
        write(b"one ")
        write(b"two ")
        return [b"three"]

    stage = perform(application)
    assert (stage.peer.content, stage.peer.writes) == (b"one two three", 3)


def test_a_generator_may_start_the_response_with_its_first_piece() -> None:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response("201 Created", [])
        yield b"made"

    stage = perform(application)
    assert (stage.peer.status, stage.peer.content) == (201, b"made")


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_an_answer_without_a_body_has_none(status: str) -> None:
    stage = perform(answering([], status, []))
    assert (stage.peer.status, stage.peer.content, stage.peer.ended) == (int(status[:3]), b"", True)


def test_the_body_of_head_is_not_streamed_for_nobody() -> None:
    body = Closable(*[b"x"] * 100)
    stage = perform(answering(body), method="HEAD")
    assert (stage.peer.status, stage.peer.content, stage.peer.ended) == (200, b"", True)
    assert (body.asked, body.closed) == (1, 1)

    def writing(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response(*START)(b"x")
        return []

    assert perform(writing, method="HEAD").peer.status == 200


def test_head_has_the_fields_and_no_body() -> None:
    stage = perform(answering([b"hello"], "200 OK", [("Content-Length", "5")]), method="HEAD")
    assert (stage.peer.content, stage.length, stage.peer.ended) == (b"", [b"5"], True)


# --- files ------------------------------------------------------------------------------------------------------------


def wrapping(file: Any, *fields: tuple[str, str]) -> WsgiApplication:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        start_response("200 OK", list(fields))
        return environ["wsgi.file_wrapper"](file, 4)

    return application


def test_a_regular_file_is_sent_by_its_descriptor_from_where_it_stands_and_closed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    for fields, content in (((), b"23456789"), ((("Content-Length", "3"),), b"234")):
        file = (tmp_path / "file").open("rb")
        file.seek(2)
        stage = perform(wrapping(file, *fields))
        assert (stage.peer.content, stage.length) == (content, [b"%d" % len(content)])
        assert file.closed


def test_what_has_no_descriptor_is_read_in_blocks_and_closed() -> None:
    file = BytesIO(b"0123456789")
    stage = perform(wrapping(file))
    assert stage.peer.content == b"0123456789"
    assert file.closed


def test_a_descriptor_that_is_not_what_is_read_is_not_sent(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "file.gz", "wb") as packed:
        packed.write(b"0123456789")
    packed_file: Any = gzip.open(tmp_path / "file.gz")  # noqa: SIM115 - it is closed there, as the next one is
    assert perform(wrapping(packed_file)).peer.content == b"0123456789"
    # Files of the kernel have no size.
    empty: Any = Path("/proc/self/cmdline").open("rb")  # noqa: SIM115 - as above
    assert perform(wrapping(empty)).peer.content

    class Odd:
        """Has a descriptor and no position."""

        def __init__(self) -> None:
            self.read = BytesIO(b"0123456789").read
            self.fileno = packed_file.fileno

    with (tmp_path / "file.gz").open("rb") as packed_file:
        assert perform(wrapping(Odd())).peer.content == b"0123456789"


def test_a_wrapper_may_be_iterated_by_a_middleware_and_its_file_need_not_close() -> None:
    class Readable:
        def __init__(self) -> None:
            self._rest = [b"a", b"b"]

        def read(self, size: int) -> bytes:
            assert size > 0
            return self._rest.pop(0) if self._rest else b""

    wrapper = FileWrapper(Readable())
    assert b"".join(wrapper) == b"ab"
    wrapper.close()


# --- requests ---------------------------------------------------------------------------------------------------------


def reading(read: Callable[[Any], Any]) -> WsgiApplication:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        said = repr(read(environ["wsgi.input"])).encode()
        start_response(*START)
        return [said]

    return application


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (lambda body: body.read(), b"one\ntwo\nthree"),
        (lambda body: [body.read(2), body.read(4), body.read(100), body.read(1)], [b"on", b"e\ntw", b"o\nthree", b""]),
        (lambda body: [body.readline(), body.readline(2), body.read(1)], [b"one\n", b"tw", b"o"]),
        (lambda body: body.readlines(), [b"one\n", b"two\n", b"three"]),
        (list, [b"one\n", b"two\n", b"three"]),
        (lambda _: "unread", "unread"),
    ],
)
@pytest.mark.parametrize("pieces", [(b"one\ntwo\nthree",), (b"on", b"e\nt", b"wo\nth", b"ree")])
def test_a_body_can_be_read_in_every_way_however_it_comes(
    read: Callable[[Any], Any], said: Any, pieces: tuple[bytes, ...]
) -> None:
    async def scene(stage: Stage, task: "asyncio.Task[None]") -> None:
        for piece in pieces:
            stage.cycle.feed(piece, piece is pieces[-1])
            await asyncio.sleep(0.01)

    stage = play(serving(reading(read), scene, method="POST", end=False))
    assert stage.peer.content == repr(said).encode()


def test_a_client_is_asked_for_its_body_when_the_application_wants_it() -> None:
    async def asking(stage: Stage, task: "asyncio.Task[None]") -> None:
        await until(lambda: stage.peer.proceeded, "100 Continue")
        stage.cycle.feed(b"data", True)

    expecting: dict[str, Any] = {
        "method": "POST",
        "end": False,
        "expects": True,
        "headers": [(b"expect", b"100-continue")],
    }
    assert play(serving(reading(lambda body: body.read()), asking, **expecting)).peer.content == b"b'data'"
    refused = play(serving(answering([b"no"], "403 Forbidden", []), **expecting))
    assert (refused.peer.status, refused.peer.proceeded) == (403, 0)


def test_who_reads_on_for_a_client_that_is_gone_is_told() -> None:
    async def scene(stage: Stage, task: "asyncio.Task[None]") -> None:
        stage.cycle.feed(bytes(WHOLE_SIZE), False)
        await until(lambda: told, "the first read")
        stage.cycle.disconnect()

    def read(body: Any) -> None:
        told.append(body.read(WHOLE_SIZE))
        try:
            body.read(2)
        except OSError as error:
            told.append(error)
            raise

    told: list[Any] = []
    stage = play(serving(reading(read), scene, method="POST", end=False))
    assert told[0] == bytes(WHOLE_SIZE)
    assert "body is not whole" in str(told[1])
    assert [record for record in stage.records.all() if record["level"] == "error"] == []


# --- the client -------------------------------------------------------------------------------------------------------


def test_a_thread_is_not_far_ahead_of_a_client_that_reads_slowly() -> None:
    async def scene(stage: Stage, task: "asyncio.Task[None]") -> None:
        stage.peer.slow = True
        go.set()
        await until(lambda: len(stage.peer.content) > 0, "something")
        for _ in range(50):
            before = body.asked
            await asyncio.sleep(0.02)
        assert body.asked == before < 2 + AHEAD_SIZE // 8192 + 2
        stage.peer.slow = False
        stage.peer.relief.set()

    go = threading.Event()
    body = Closable(lambda: go.wait(PATIENCE), *[bytes(8192)] * 100)
    stage = play(serving(answering(body), scene))
    assert (len(stage.peer.content), body.closed) == (100 * 8192, 1)


@pytest.mark.parametrize("waiting", [False, True])
def test_who_writes_to_a_client_that_is_gone_is_told_and_close_is_called(waiting: bool) -> None:
    async def scene(stage: Stage, task: "asyncio.Task[None]") -> None:
        stage.peer.slow = waiting
        go.set()
        await until(lambda: len(stage.peer.content) > 0, "something")
        await asyncio.sleep(0.1)  # so that it waits
        stage.peer.gone = True
        stage.cycle.disconnect()
        stage.peer.relief.set()

    class Endless(Closable):
        def __iter__(self) -> Iterator[Any]:
            go.wait(PATIENCE)
            while True:
                yield bytes(8192)
                time.sleep(0.001)

    go = threading.Event()
    body = Endless()
    stage = play(serving(answering(body), scene))
    assert body.closed == 1
    [answer] = stage.records.answers()
    assert answer["outcome"] == "client_gone"
    assert [record for record in stage.records.all() if record["level"] == "error"] == []


def test_a_call_that_is_cut_ends_for_the_client_and_its_thread_is_told() -> None:
    async def scene(stage: Stage, task: "asyncio.Task[None]") -> None:
        await until(lambda: stage.peer.content == b"first", "the first piece")
        task.cancel()
        await asyncio.wait({task})
        assert (stage.peer.cut, body.closed) == (True, 0)
        go.set()
        await until(lambda: body.closed, "close()")

    go = threading.Event()
    body = Closable(b"first", lambda: go.wait(PATIENCE), b"second", b"third")
    play(serving(answering(body), scene))
    assert body.asked == 3


def test_a_call_that_is_cut_before_it_has_a_thread_is_never_made() -> None:
    async def scene() -> None:
        calls = list[str]()

        def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
            calls.append(environ["QUERY_STRING"])
            go.wait(PATIENCE)
            start_response(*START)
            return []

        go = threading.Event()
        adapter = Wsgi(application, 1, Stage().records.log, multiprocess=False)
        first, second = Stage(adapter), Stage(adapter)
        tasks = [first.begin(), second.begin()]
        await until(lambda: calls, "the first call")
        tasks[1].cancel()
        await asyncio.wait({tasks[1]})
        assert second.peer.status == 503
        go.set()
        await tasks[0]
        adapter.close()
        assert len(calls) == 1

    play(scene())


# --- what the application does wrong ----------------------------------------------------------------------------------


def test_an_exception_is_a_500_with_a_traceback_that_begins_in_the_application() -> None:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        raise RuntimeError("no database")

    stage = perform(application)
    assert stage.peer.status == 500
    [trace] = stage.records.tracebacks()
    assert "RuntimeError: no database" in trace
    assert re.findall(r'File ".*/(\w+\.py)", line \d+, in (\w+)', trace) == [("test_wsgi.py", "application")]


def test_an_exception_behind_the_head_cuts_and_close_is_called() -> None:
    body = Closable(b"some", ZeroDivisionError("late"))
    stage = perform(answering(body))
    assert (stage.peer.content, stage.peer.cut, body.closed) == (b"some", True, 1)
    assert "ZeroDivisionError" in stage.records.tracebacks()[0]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), StopIteration()])
def test_nothing_that_is_raised_ends_a_thread_or_the_process(error: BaseException) -> None:
    assert perform(answering(Closable(error)), threads=1).peer.status == 500


@pytest.mark.parametrize(
    ("start", "result", "says"),
    [
        (None, [b"a"], "has not called start_response"),
        (None, Closable(b"a"), "has not called start_response"),
        (("200 OK", [("a", 1)]), [b"a"], "pairs of strings"),
        ((200, []), [b"a"], "a status such as '200 OK'"),
        (("OK", []), [b"a"], "a status such as '200 OK'"),
        (("200 OK", [("a", "\u20ac")]), [b"a"], "in latin-1"),
        (("200 OK", [("a", "b\r\nc: d")]), [b"a"], "CR, LF or NUL"),
        (("200 OK", [("Content-Length", "x")]), [b"a"], "content-length must be one number"),
        (("200 OK", [("Content-Length", "3")]), [b"abcd"], "1 bytes longer than its content-length"),
        (("200 OK", [("Content-Length", "5")]), [b"abcd"], "1 bytes shorter than its content-length"),
        (("100 Continue", []), [b"a"], "from 200 to 999, not '100 Continue'"),
        (("2000 OK", []), [b"a"], "from 200 to 999, not '2000 OK'"),
        ((b"200 OK", []), [b"a"], "a status such as '200 OK'"),
        (("204 No Content", []), [b"a"], "a 204 response has no body, and 1 bytes came"),
        (START, ["text"], "sequence item 0: expected a bytes-like object, str found"),
        (START, Closable("text"), "the body must be bytes, not str"),
        (START, "text", "the body must be bytes, not str"),
    ],
)
def test_what_cannot_be_an_answer_is_a_500_that_says_why(start: Any, result: Any, says: str) -> None:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        if start is not None:
            start_response(*start)
        return result

    stage = perform(application)
    assert stage.peer.status == 500
    assert len([record for record in stage.records.all() if record["level"] == "error"]) == 1
    told = " ".join(stage.records.tracebacks() + [record["message"] for record in stage.records.all()])
    assert says in told
    assert getattr(result, "closed", 1) == 1


def test_a_body_that_becomes_longer_than_it_was_promised_is_told() -> None:
    stage = perform(answering(Closable(b"hello", b"more"), "200 OK", [("Content-Length", "5")]))
    assert (stage.peer.content, stage.peer.ended, stage.peer.cut) == (b"hello", True, False)
    assert "4 bytes longer than its content-length" in stage.records.tracebacks()[0]


def test_what_cannot_be_sent_is_told_where_it_is_said_so_that_another_answer_can_be_given() -> None:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        try:
            start_response("200 OK", [("a", "b\r\nc: d")])
        except MisuseError:
            start_response("418 I'm a teapot", [])
        return [b"a"]

    stage = perform(application)
    assert (stage.peer.status, stage.records.of("misuse"), stage.records.tracebacks()) == (418, [], [])


def test_a_buffer_that_is_used_again_is_sent_as_it_was() -> None:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[Any]:
        start_response(*START)
        buffer = bytearray(4)
        for number in range(100):
            buffer[:] = b"%04d" % number
            yield buffer

    assert perform(application).peer.content == b"".join(b"%04d" % number for number in range(100))


def test_very_many_small_pieces_leave_the_loop_to_others_and_are_joined() -> None:
    async def scene(stage: Stage, task: "asyncio.Task[None]") -> None:
        while not task.done():
            turns.append(time.monotonic())
            await asyncio.sleep(0)

    turns = list[float]()
    stage = play(serving(answering(Closable(*[b"row\n"] * 20_000)), scene))
    assert stage.peer.content == b"row\n" * 20_000
    assert stage.peer.writes < 15_000
    assert len(turns) > 300


def test_start_response_twice_is_an_error_and_with_exc_info_another_answer() -> None:
    def twice(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response(*START)
        start_response(*START)
        return [b"a"]

    def again(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response(*START)
        try:
            raise ValueError("on second thoughts")  # noqa: TRY301 - as applications do
        except ValueError:
            start_response("418 I'm a teapot", [], sys.exc_info())
        return [b"a"]

    assert perform(twice).peer.status == 500
    assert perform(again).peer.status == 418


def test_start_response_with_exc_info_behind_the_head_raises_it() -> None:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response(*START)
        yield b"some"
        try:
            raise ValueError("too late")  # noqa: TRY301 - as applications do
        except ValueError:
            start_response("500 Internal Server Error", [], sys.exc_info())
        yield b"never"

    stage = perform(application)
    assert (stage.peer.content, stage.peer.cut) == (b"some", True)
    assert "ValueError: too late" in stage.records.tracebacks()[0]


# --- around it --------------------------------------------------------------------------------------------------------


def test_the_reference_validator_has_nothing_to_remark() -> None:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        environ["wsgi.errors"].write("")
        environ["wsgi.errors"].flush()
        length = len(environ["wsgi.input"].read(10))
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"%d" % length]

    async def scene(stage: Stage, task: "asyncio.Task[None]") -> None:
        stage.cycle.feed(b"12345", True)

    length = [(b"content-length", b"5"), (b"content-type", b"text/plain")]
    stage = play(serving(validator(application), scene, method="POST", end=False, headers=length))
    assert (stage.peer.content, stage.records.tracebacks()) == (b"5", [])


def test_errors_are_records_of_the_request_a_line_each() -> None:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        errors = environ["wsgi.errors"]
        errors.write("one\ntw")
        errors.writelines(["o\n", "\n", "three"])
        print("four", file=errors)
        errors.write("five")
        start_response(*START)
        return [str(REQUEST_ID.get()).encode()]

    stage = perform(application)
    said = [(one["message"], one["level"], one["request_id"]) for one in stage.records.all() if one["level"] == "error"]
    assert said == [(text, "error", "id-1") for text in ("one", "two", "threefour", "five")]
    assert stage.peer.content == b"id-1"


def test_requests_are_served_side_by_side_in_as_many_threads_as_there_are() -> None:
    async def scene() -> None:
        together = threading.Barrier(3)

        def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
            together.wait(PATIENCE)
            start_response(*START)
            return [threading.current_thread().name.encode()]

        adapter = Wsgi(application, 3, Stage().records.log, multiprocess=True)
        stages = [Stage(adapter) for _ in range(6)]
        await asyncio.gather(*(stage.begin() for stage in stages))
        adapter.close()
        names = [stage.peer.content for stage in stages]
        assert set(names) == {b"wsgi-1", b"wsgi-2", b"wsgi-3"}

    play(scene())


def test_threads_end_with_the_adapter_and_are_not_there_before_the_first_request() -> None:
    def count() -> int:
        return sum(thread.name.startswith("wsgi-") for thread in threading.enumerate())

    async def scene(log: Log) -> None:
        await until(lambda: count() == 0, "the end of other tests' threads")
        adapter = Wsgi(answering([b"a"]), 4, log, multiprocess=False)
        assert count() == 0
        await Stage(adapter).begin()
        assert count() == 4
        adapter.close()
        await until(lambda: count() == 0, "the end of the threads")
        Wsgi(answering([b"a"]), 4, log, multiprocess=False).close()

    async def play_scene() -> None:
        await scene(Stage().records.log)

    play(play_scene())


@pytest.mark.parametrize("there", [0, 2])
def test_threads_that_the_system_has_not_to_spare(there: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which the limits cannot be lowered for root: done in the kernel's place."""

    class Refused(threading.Thread):
        def start(self) -> None:
            if len(started) == there:
                raise RuntimeError("can't start new thread")
            started.append(self)
            super().start()

    async def scene() -> None:
        log = Stage()
        adapter = Wsgi(answering([b"a"]), 4, log.records.log, multiprocess=False)
        statuses = []
        for _ in range(3):
            stage = Stage(adapter)
            await asyncio.wait_for(stage.begin(), PATIENCE)
            statuses.append(stage.peer.status)
            if not there:
                monkeypatch.undo()  # the next request tries again
        adapter.close()
        assert statuses == ([200, 200, 200] if there else [500, 200, 200])
        said = [record["message"] for record in log.records.all()]
        assert said == (["Only 2 of 4 threads can be started (--threads)"] if there else [])

    started: list[threading.Thread] = []
    monkeypatch.setattr("appserver.asgi.wsgi.Thread", Refused)
    play(scene())


def test_nothing_of_a_request_is_kept_without_the_collector() -> None:
    class Marked(dict[str, Any]):
        pass

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        marks.append(weakref.ref(mark := Marked()))
        environ["mark"] = mark
        if len(marks) > 1:
            raise RuntimeError("no database")
        start_response(*START)
        return [b"a"]

    marks: list[Any] = []
    gc.disable()
    try:
        for _ in range(2):
            perform(application)
        end = time.monotonic() + PATIENCE
        while any(mark() is not None for mark in marks):  # a thread may still be at the end of its call
            assert time.monotonic() < end
            time.sleep(0.01)
        assert len(marks) == 2
    finally:
        gc.enable()
