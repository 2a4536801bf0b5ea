"""Questions of a master to its workers: a real line, with a worker's end that says what the test wants."""

import asyncio
import json
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, cast

import pytest

from appserver.process import inquiry
from appserver.process.inquiry import CONNECTIONS, LOG_LEVEL, QUESTION_SIZE, Inquiries, Witness
from appserver.process.spawn import Worker
from appserver.telemetry.log import read_level
from tests.unit.records import Records


@dataclass
class Line:
    """What `Inquiries` needs of a worker."""

    pid: int
    line: socket.socket
    end: socket.socket

    def question(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.end.recv(QUESTION_SIZE))
        return told


MakeLine = Callable[[int], Line]


@pytest.fixture
def make_line() -> Iterator[MakeLine]:
    """Makes the line of a worker with that process id."""
    with ExitStack() as stack:

        def make(pid: int) -> Line:
            line, end = (stack.enter_context(sock) for sock in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            line.setblocking(False)
            end.settimeout(5)
            return Line(pid, line, end)

        yield make


def as_workers(*lines: Line) -> list[Worker]:
    return cast("list[Worker]", list(lines))


def play(scene: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scene, 30))


async def begin(inquiries: Inquiries, *lines: Line) -> "asyncio.Task[tuple[dict[int, Any], list[int]]]":
    task = asyncio.create_task(inquiries.ask(as_workers(*lines), CONNECTIONS, limit=3))
    await asyncio.sleep(0)
    return task


def test_each_worker_is_asked_and_each_answer_told_apart(make_line: MakeLine) -> None:
    async def scene() -> None:
        inquiries = Inquiries(asyncio.get_running_loop())
        one, two = make_line(1), make_line(2)
        task = await begin(inquiries, one, two)
        for line in (two, one):
            question = line.question()
            assert {**question, "id": 0} == {"ask": "connections", "id": 0, "limit": 3}
            inquiries.take(as_workers(line)[0], json.dumps({"id": question["id"], "answer": {"of": line.pid}}))
        assert await task == ({1: {"of": 1}, 2: {"of": 2}}, [])
        assert inquiries._waiting == {}

    play(scene())


def test_who_does_not_answer_in_time_is_named(make_line: MakeLine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        monkeypatch.setattr(inquiry, "ANSWER_SECONDS", 0.1)
        inquiries = Inquiries(asyncio.get_running_loop())
        one, two = make_line(1), make_line(2)
        task = await begin(inquiries, one, two)
        question = one.question()
        inquiries.take(as_workers(one)[0], json.dumps({"id": question["id"], "answer": {}}))
        assert await task == ({1: {}}, [2])
        late = json.dumps({"id": two.question()["id"], "answer": {}})
        inquiries.take(as_workers(two)[0], late)  # nobody waits for it
        assert inquiries._waiting == {}

    play(scene())


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "null", '{"id": []}', '{"id": 1, "answer": 3}', "[" * 60_000])
def test_what_is_no_answer_is_dropped(text: str, make_line: MakeLine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        monkeypatch.setattr(inquiry, "ANSWER_SECONDS", 0.05)
        inquiries = Inquiries(asyncio.get_running_loop())
        line = make_line(1)
        task = await begin(inquiries, line)
        inquiries.take(as_workers(line)[0], text)
        assert await task == ({}, [1])

    play(scene())


def test_nobody_waits_for_a_worker_that_has_ended(make_line: MakeLine) -> None:
    async def scene() -> None:
        inquiries = Inquiries(asyncio.get_running_loop())
        line = make_line(1)
        task = await begin(inquiries, line)
        inquiries.forget(as_workers(line)[0])
        assert await task == ({}, [])

    play(scene())


def test_a_question_that_is_given_up_leaves_nothing_behind(make_line: MakeLine) -> None:
    async def scene() -> None:
        inquiries = Inquiries(asyncio.get_running_loop())
        task = await begin(inquiries, make_line(1))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert inquiries._waiting == {}

    play(scene())


def test_without_workers_there_is_nothing_to_wait_for() -> None:
    async def scene() -> None:
        assert await Inquiries(asyncio.get_running_loop()).ask([], CONNECTIONS) == ({}, [])

    play(scene())


def test_a_line_that_is_gone_is_a_worker_that_does_not_answer(
    make_line: MakeLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        monkeypatch.setattr(inquiry, "ANSWER_SECONDS", 0.05)
        line = make_line(1)
        line.end.close()
        assert await Inquiries(asyncio.get_running_loop()).ask(as_workers(line), CONNECTIONS) == ({}, [1])

    play(scene())


def test_a_worker_answers_questions_and_leaves_other_words_to_others() -> None:
    records = Records()
    witness = Witness([], records.log)
    for word in (b"retire", b"hurry", b"", b"answer"):
        assert witness.reply(word) is None
    told = witness.reply(b'{"ask": "connections", "id": 7, "limit": 200}')
    assert told is not None
    assert json.loads(told) == {"id": 7, "answer": {"connections": [], "left_out": 0}}
    assert "\n" not in told
    assert witness.reply(b'{"ask": "what a later version knows", "id": 8}') == '{"id": 8, "answer": {}}'


def test_a_worker_is_told_its_log_level() -> None:
    records = Records()
    witness = Witness([], records.log)
    assert witness.answer(LOG_LEVEL, {"level": "error"}) == {"level": "error"}
    assert read_level(records.log) == "error"
    assert witness.answer(LOG_LEVEL, {"level": "loud"}) == {"level": "error"}
    assert witness.answer(LOG_LEVEL, {}) == {"level": "error"}
