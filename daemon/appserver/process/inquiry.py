"""Questions of a master to its workers, on the line between them, and their answers.

    master ──▶ worker   {"ask": "connections", "id": 7, "limit": 200}    at most `QUESTION_SIZE` bytes
    worker ──▶ master   X_ANSWER={"id": 7, "answer": {…}}                at most `ANSWER_SIZE` bytes

Beside them on the line are the words of `process.handover`, which are no JSON, and what sd_notify(3) has. A worker
answers from its event loop. One that hangs does not, and a message that finds the line full is lost: the master waits
for `ANSWER_SECONDS` and no longer, and says who has not answered.
"""

import asyncio
import json
from asyncio import AbstractEventLoop, Future
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from appserver.net.endpoint import Endpoint
from appserver.net.inspection import list_connections
from appserver.telemetry.log import LEVELS, Log, change_level, read_level

if TYPE_CHECKING:
    from appserver.process.spawn import Worker

CONNECTIONS: Final = "connections"
"""Which connections are open; `limit`: how many to tell of."""
LOG_LEVEL: Final = "log-level"
"""From which level on the log is written; `level`: another one from now on."""

CONNECTIONS_SHOWN: Final = 200
"""Connections that an operator is shown, unless more or fewer are asked for."""

QUESTION_SIZE: Final = 4 * 1024
ANSWER_SIZE: Final = 60 * 1024
"""Less than what `system.notify.hear()` takes for one message."""

ANSWER_SECONDS: Final = 2.0


class Witness:
    """Answers questions about this process.

    Args:
        endpoints: Those that serve the application.
        log: Whose level may be changed.
    """

    def __init__(self, endpoints: Sequence[Endpoint], log: Log) -> None:
        self._endpoints, self._log = endpoints, log

    def answer(self, ask: str, words: Mapping[str, Any]) -> dict[str, Any]:
        """Answer one question; nothing is the answer to what is not known."""
        if ask == CONNECTIONS:
            return list_connections(self._endpoints, int(words["limit"]), ANSWER_SIZE - 1024)
        if ask == LOG_LEVEL:
            level = words.get("level")
            if level in LEVELS:
                change_level(self._log, level)
            return {"level": read_level(self._log)}
        return {}

    def reply(self, word: bytes) -> str | None:
        """The answer to a word on the line, as `Notifier.answer()` takes it; None where the word is no question."""
        if not word.startswith(b"{"):
            return None
        question = json.loads(word)
        return json.dumps({"id": question["id"], "answer": self.answer(question["ask"], question)})


class Inquiries:
    """Asks workers, and waits for what they answer.

    Args:
        loop: The running loop.
    """

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._numbers = count(1)
        self._waiting: dict[tuple[int, int], Future[Any]] = {}  # by worker and question

    def tell(self, worker: "Worker", ask: str, **words: Any) -> int:
        """Ask, and wait for nothing; the number of the question."""
        number = next(self._numbers)
        with suppress(OSError):
            worker.line.send(json.dumps({"ask": ask, "id": number, **words}).encode())
        return number

    async def ask(self, workers: Iterable["Worker"], ask: str, **words: Any) -> tuple[dict[int, Any], list[int]]:
        """Ask some workers; they must have said that they serve: before, nobody reads the line.

        Returns:
            The answers, by process id, and who has not answered in time.
        """
        waiting = {}
        for worker in workers:
            key = worker.pid, self.tell(worker, ask, **words)
            waiting[key] = self._waiting[key] = self._loop.create_future()
        try:
            if waiting:
                await asyncio.wait(waiting.values(), timeout=ANSWER_SECONDS)
        finally:  # who asks may be cancelled: the server stops
            for key in waiting:
                del self._waiting[key]
        answers = {pid: future.result() for (pid, _), future in waiting.items() if future.done()}
        silent = [pid for (pid, _), future in waiting.items() if not future.done()]
        return {pid: answer for pid, answer in answers.items() if answer is not None}, silent

    def take(self, worker: "Worker", text: str) -> None:
        """A worker has answered; an answer that nobody waits for any more is dropped, and so is what is none."""
        with suppress(ValueError, TypeError, KeyError, RecursionError):
            said = json.loads(text)
            self._settle((worker.pid, said["id"]), dict(said["answer"]))

    def forget(self, worker: "Worker") -> None:
        """A worker has ended: nobody need wait for it."""
        for key in [key for key in self._waiting if key[0] == worker.pid]:
            self._settle(key, None)

    def _settle(self, key: tuple[int, int], answer: dict[str, Any] | None) -> None:
        future = self._waiting.get(key)
        if future is not None and not future.done():
            future.set_result(answer)
