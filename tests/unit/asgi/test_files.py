import asyncio
import io
import os
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from appserver.asgi.cycle import COMPLETE
from appserver.asgi.files import open_file, open_path
from appserver.asgi.http import HttpCycle
from appserver.asgi.transitions import SENDING
from appserver.asgi.types import Message, Receive, Scope, Send
from appserver.errors import ClientDisconnectedError, MisuseError
from tests.unit.asgi.stage import (
    CONTENT,
    FILE_LAST,
    FILE_MORE,
    HINT,
    LAST,
    MORE,
    PATH,
    PUSH,
    START,
    TRAILERS,
    Stage,
    body,
    breathe,
    play,
    sends,
    start,
)
from tests.unit.asgi.stage import perform as run

DIGITS = b"0123456789"


@pytest.fixture(autouse=True)
def _descriptors() -> Iterator[None]:
    """Whatever a test does, every descriptor that the server has opened is closed at its end."""
    folder = Path("/proc/self/fd")
    before = list(folder.iterdir())
    yield
    assert list(folder.iterdir()) == before


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "digits"
    path.write_bytes(DIGITS)
    return path


def by_path(path: object) -> Message:
    return {"type": "http.response.pathsend", "path": path}


def by_file(file: object, **options: Any) -> Message:
    return {"type": "http.response.zerocopysend", "file": file, **options}


def perform(*messages: Message, **options: Any) -> Stage:
    return run(sends(*messages), **options)


# What is sent


def test_a_path_is_sent_whole_with_its_length(path: Path) -> None:
    stage = perform(START, by_path(str(path)))
    assert (stage.peer.content, stage.peer.cut, stage.length) == (DIGITS, False, [b"10"])
    [answer] = stage.records.answers()
    assert (answer["bytes_sent"], answer["outcome"]) == (10, "complete")


@pytest.mark.parametrize("kind", [str, os.fsencode, Path])
def test_a_path_may_be_whatever_the_system_takes_for_one(kind: Callable[[Path], object], path: Path) -> None:
    assert perform(START, by_path(kind(path))).peer.content == DIGITS


def test_a_length_that_agrees_is_kept(path: Path) -> None:
    stage = perform(start(200, (b"content-length", b"10")), by_path(str(path)))
    assert (stage.peer.content, stage.length) == (DIGITS, [b"10"])


@pytest.mark.parametrize(("length", "word"), [(b"9", "longer"), (b"11", "shorter")])
def test_a_length_that_does_not_agree_is_a_500(length: bytes, word: str, path: Path) -> None:
    stage = perform(start(200, (b"content-length", length)), by_path(str(path)))
    assert stage.peer.status == 500
    [record] = stage.records.of("misuse")
    assert f"1 bytes {word} than its content-length" in record["message"]
    assert record["code_func"] == "application"


@pytest.mark.parametrize(
    ("options", "content"),
    [
        ({}, DIGITS),
        ({"offset": 3}, b"3456789"),
        ({"offset": 3, "count": 4}, b"3456"),
        ({"count": 4}, b"0123"),
        ({"offset": 10}, b""),
        ({"offset": 99}, None),
        ({"count": 0}, b""),
        ({"offset": 5, "count": 6}, None),
        ({"count": 11}, None),
    ],
)
def test_a_file_is_sent_from_offset_so_far_as_count_says(options: Any, content: bytes | None, path: Path) -> None:
    with path.open("rb") as file:
        stage = perform(START, by_file(file, **options))
    if content is None:
        assert stage.peer.status == 500
        assert "and the file at 10" in stage.records.of("misuse")[0]["message"]
    else:
        assert (stage.peer.content, stage.length) == (content, [b"%d" % len(content)])


@pytest.mark.parametrize("buffering", [0, -1])
def test_without_offset_a_file_goes_on_where_it_stands(buffering: int, path: Path) -> None:
    with path.open("rb", buffering) as file:
        assert file.read(1) == b"0"
        stage = perform(START, by_file(file, count=3, more_body=True), body(b"|", more=True), by_file(file))
        assert file.tell() == 10
    assert (stage.peer.content, stage.length) == (b"123|456789", [])


def test_a_bare_descriptor_is_a_file_too(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    stage = perform(START, by_file(descriptor, count=3, more_body=True), by_file(descriptor))
    os.close(descriptor)
    assert stage.peer.content == DIGITS


def test_an_offset_leaves_the_position_alone(path: Path) -> None:
    with path.open("rb") as file:
        perform(START, by_file(file, offset=2, count=3))
        assert file.tell() == 0


def test_a_file_counts_against_the_length_as_other_bodies_do(path: Path) -> None:
    with path.open("rb") as file:
        head = start(200, (b"content-length", b"14"))
        good = perform(head, body(b"more", more=True), by_file(file))
        long = perform(head, body(b"more+", more=True), by_file(file, offset=0))
        short = perform(head, body(b"mor", more=True), by_file(file, offset=0))
    assert (good.peer.content, good.peer.cut) == (b"more" + DIGITS, False)
    for cut, word in ((long, "longer"), (short, "shorter")):
        assert cut.peer.cut
        assert f"1 bytes {word}" in cut.records.of("misuse")[0]["message"]


def test_an_empty_file_is_an_answer(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    stage = perform(START, by_path(str(path)))
    assert (stage.peer.content, stage.peer.ended, stage.peer.cut, stage.length) == (b"", True, False, [b"0"])


def test_an_empty_file_may_stand_between_other_bodies(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    with path.open("rb") as file:
        stage = perform(START, by_file(file, more_body=True), MORE, by_file(file, more_body=True), by_file(file))
    assert (stage.peer.content, stage.peer.ended, stage.peer.cut) == (b"more", True, False)


@pytest.mark.parametrize("message", [PATH, FILE_LAST])
def test_head_gets_the_length_and_not_the_file(message: Message) -> None:
    stage = perform(START, message, method="HEAD")
    assert (stage.peer.content, stage.peer.ended, stage.peer.cut) == (b"", True, False)
    assert stage.length == [b"%d" % len(CONTENT)]
    assert stage.records.answers()[0]["bytes_sent"] == 0


@pytest.mark.parametrize("status", [204, 205, 304])
def test_a_status_without_a_body_has_no_file(status: int) -> None:
    stage = perform(start(status), PATH)
    assert stage.peer.status == 500
    assert len(stage.records.of("misuse")) == 1


# What cannot be sent


@pytest.mark.parametrize("path", ["relative", "", None, 7, 1.5, b"relative", "/nul\0", ["/"]])
def test_what_is_no_absolute_path_is_misuse(path: object) -> None:
    with pytest.raises(MisuseError, match="absolute path"):
        open_path(by_path(path))


def test_a_message_without_its_key_is_misuse() -> None:
    with pytest.raises(MisuseError, match="absolute path"):
        open_path({"type": "http.response.pathsend"})
    with pytest.raises(MisuseError, match="have a descriptor"):
        open_file({"type": "http.response.zerocopysend"})


def test_a_file_that_is_missing_or_a_folder_is_the_systems_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_path(by_path(str(tmp_path / "missing")))
    with pytest.raises(IsADirectoryError):
        open_path(by_path(str(tmp_path)))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not read")
def test_a_file_that_may_not_be_read_is_the_systems_error(path: Path) -> None:
    path.chmod(0)
    os.seteuid(65534)
    try:
        with pytest.raises(PermissionError):
            open_path(by_path(str(path)))
    finally:
        os.seteuid(0)


def test_a_fifo_and_a_device_are_no_regular_files(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (fifo, Path("/dev/null")):
        with pytest.raises(MisuseError, match="regular file"):
            open_path(by_path(str(path)))


def test_what_is_no_file_is_misuse(path: Path) -> None:
    with path.open("rb") as closed:
        pass
    for file in (io.BytesIO(DIGITS), closed, None, "name", True, -1, object()):
        with pytest.raises(MisuseError, match="have a descriptor"):
            open_file(by_file(file))


def test_what_is_no_regular_file_is_misuse() -> None:
    ours, theirs = socket.socketpair()
    readable, writable = os.pipe()
    with ours, theirs, os.fdopen(readable) as pipe, os.fdopen(writable, "w"):
        for file in (ours, pipe):
            with pytest.raises(MisuseError, match="regular file"):
                open_file(by_file(file))


def test_a_descriptor_that_is_closed_is_the_systems_error(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.close(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        open_file(by_file(descriptor))


def test_a_file_that_is_open_for_writing_only_is_misuse(path: Path) -> None:
    with path.open("ab") as file, pytest.raises(MisuseError, match="open for reading"):
        open_file(by_file(file))


@pytest.mark.parametrize("options", [{"offset": -1}, {"count": -1}, {"offset": "1"}, {"count": 1.0}])
def test_an_offset_or_count_that_is_no_number_of_bytes_is_misuse(options: Any, path: Path) -> None:
    with path.open("rb") as file, pytest.raises(MisuseError, match="must be a number of bytes"):
        open_file(by_file(file, **options))


def test_a_file_whose_position_must_be_awaited_needs_an_offset(path: Path) -> None:
    class Later:
        def __init__(self, file: io.BufferedReader) -> None:
            self.fileno = file.fileno

        def tell(self) -> object:
            return object()

    with path.open("rb") as file:
        with pytest.raises(MisuseError, match="offset must be given"):
            open_file(by_file(Later(file)))
        assert perform(START, by_file(Later(file), offset=0)).peer.content == DIGITS


@pytest.mark.parametrize("message", [by_path("relative"), by_file(io.BytesIO()), by_path("/missing/file")])
def test_after_a_file_that_cannot_be_sent_another_answer_can(message: Message) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        with pytest.raises((MisuseError, OSError)):
            await send(message)
        await send(LAST)

    async def scene() -> None:
        stage = Stage(application)
        await stage.cycle.run()
        assert (stage.peer.status, stage.peer.content) == (200, b"last")

    play(scene())


def test_a_missing_file_that_the_application_does_not_expect_is_a_500() -> None:
    stage = perform(START, by_path("/missing/file"))
    assert stage.peer.status == 500
    assert "FileNotFoundError" in stage.records.tracebacks()[0]


# While it is sent


@pytest.mark.parametrize("message", [START, MORE, LAST, FILE_LAST, FILE_MORE, PATH, TRAILERS, HINT, PUSH])
def test_no_message_is_taken_while_a_file_is_sent(message: Message) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        sending = asyncio.ensure_future(send(FILE_LAST))
        with pytest.raises(MisuseError, match="send\\(\\) is to be awaited"):
            await send(message)
        await sending

    async def scene() -> None:
        stage = Stage(application, push=True)
        await stage.cycle.run()
        assert (stage.peer.content, stage.peer.cut, stage.peer.informed, stage.peer.pushed) == (CONTENT, False, [], [])

    play(scene())


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited", "ignore:unclosed file")
def test_a_file_that_is_never_awaited_cuts_the_response() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        send(PATH)

    async def scene() -> None:
        stage = Stage(application)
        await stage.cycle.run()
        assert (stage.peer.cut, stage.peer.content) == (True, b"")
        assert "send() is to be awaited" in stage.records.of("misuse")[0]["message"]

    play(scene())


def test_a_file_that_becomes_shorter_cuts_the_response(path: Path) -> None:
    async def scene() -> None:
        stage = Stage()
        await stage.cycle.send(START)
        sending = stage.cycle.send(by_path(str(path)))
        os.truncate(path, 4)
        with pytest.raises(OSError, match="6 bytes shorter"):
            await sending
        assert (stage.peer.content, stage.peer.cut) == (b"0123", True)
        [answer] = stage.records.answers()
        assert (answer["outcome"], answer["bytes_sent"]) == ("cut", 4)
        assert stage.cycle._state == COMPLETE

    play(scene())


def test_a_file_that_grows_is_sent_as_it_was(path: Path) -> None:
    async def scene() -> None:
        stage = Stage()
        await stage.cycle.send(START)
        sending = stage.cycle.send(by_path(str(path)))
        with path.open("ab") as file:
            file.write(b"more")
        await sending
        assert (stage.peer.content, stage.length) == (DIGITS, [b"10"])

    play(scene())


def test_an_application_may_close_its_file_while_it_is_sent(path: Path) -> None:
    async def scene() -> None:
        stage = Stage()
        await stage.cycle.send(START)
        with path.open("rb") as file:
            sending = stage.cycle.send(by_file(file))
        await sending
        assert stage.peer.content == DIGITS

    play(scene())


def test_a_cancelled_transfer_cuts_the_response() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(send(PATH), 0.01)
        with pytest.raises(MisuseError, match="expected nothing more"):
            await send(LAST)

    async def scene() -> None:
        stage = Stage(application)
        stage.peer.slow = True
        await stage.cycle.run()
        assert stage.peer.cut
        [answer] = stage.records.answers()
        assert answer["outcome"] == "cut"

    play(scene())


def test_a_cancelled_application_cuts_the_response() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send(PATH)

    async def scene() -> None:
        stage = Stage(application)
        stage.peer.slow = True
        task = stage.begin()
        await breathe()
        assert stage.cycle._state == SENDING
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert stage.peer.cut
        assert len(stage.records.answers()) == 1

    play(scene())


def test_a_client_that_leaves_is_told_to_the_sender() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        with pytest.raises(ClientDisconnectedError):
            await send(PATH)
        assert (await receive())["type"] == "http.request"
        assert (await receive())["type"] == "http.disconnect"

    async def scene() -> None:
        stage = Stage(application)
        stage.peer.slow = stage.peer.gone = True
        task = stage.begin()
        await breathe()
        stage.peer.relief.set()  # the peer knows before the cycle is told
        await task
        assert not stage.peer.cut
        [answer] = stage.records.answers()
        assert answer["outcome"] == "client_gone"
        stage.cycle.disconnect()
        assert len(stage.records.answers()) == 1

    play(scene())


@pytest.mark.parametrize(
    ("end", "outcome"), [(HttpCycle.disconnect, "client_gone"), (partial(HttpCycle.refuse, status=503), "cut")]
)
def test_a_file_that_is_awaited_after_the_end_is_neither_sent_nor_counted_again(
    end: Callable[[HttpCycle], None], outcome: str
) -> None:
    async def scene() -> None:
        stage = Stage()
        await stage.cycle.send(START)
        sending = stage.cycle.send(PATH)
        end(stage.cycle)
        with pytest.raises(ClientDisconnectedError):
            await sending
        assert stage.peer.content == b""
        [answer] = stage.records.answers()
        assert answer["outcome"] == outcome
        figures = stage.service.figures
        assert (figures.requests, figures.answered) == (0, 1)

    play(scene())


def test_a_refusal_ends_a_file_that_is_sent() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send(PATH)

    async def scene() -> None:
        stage = Stage(application)
        stage.peer.slow = stage.peer.gone = True
        task = stage.begin()
        await breathe()
        stage.cycle.refuse(503)
        assert stage.peer.cut
        stage.peer.relief.set()
        await task
        [answer] = stage.records.answers()
        assert answer["outcome"] == "cut"
        assert stage.records.tracebacks() == []

    play(scene())


def test_receive_tells_the_end_of_a_file() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        waiting = asyncio.ensure_future(receive())
        await send(START)
        await send(PATH)
        assert (await waiting)["type"] == "http.disconnect"

    async def scene() -> None:
        stage = Stage(application)
        await stage.cycle.run()
        assert stage.records.tracebacks() == []
        assert stage.peer.content == CONTENT

    play(scene())
