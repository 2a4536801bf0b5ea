"""What the cycles of requests and of WebSockets have in common: the application's call, and how it ends.

A cycle stands between the events of an engine and one call of an ASGI application. Whatever the application does, its
client gets an answer, or sees that there is none; and there is one access record.
"""

from abc import ABC, abstractmethod
from asyncio import AbstractEventLoop, CancelledError, Future, Task, current_task
from collections.abc import Awaitable
from time import monotonic
from typing import Any, Final, NoReturn

from appserver.asgi.answers import ANSWERS, answer_fields
from appserver.asgi.faults import is_disconnect, report_error, report_misuse
from appserver.asgi.peer import Peer
from appserver.asgi.service import Service
from appserver.asgi.types import Message, Scope
from appserver.errors import MisuseError
from appserver.telemetry.context import REQUEST_ID
from appserver.wire.engine import Head

COMPLETE: Final = "complete"
"""The state in which nothing more can be sent."""

PATH_SHOWN: Final = 80
"""Characters of a path that an operator is shown."""

# What the client did not stay for, as nginx logs it.
CLIENT_CLOSED_REQUEST: Final = 499


class Cycle(ABC):
    """Runs the application for one request.

    Args:
        service: What is served.
        peer: Where the response goes.
        head: The request.
        scope: Its ASGI scope.
        loop: The running loop.
        listener: Name of the listener, for the access record.

    Attributes:
        status: 0 until there is one.
        received: Bytes of the request's body.
        sent: Bytes of the response's body.
        unread: Bytes that have been received and that the application has not taken yet.
        gone: The client is gone, or nothing more is sent to it.
        task: Runs the application; None for one that has returned without ever waiting.
    """

    __slots__ = (
        "_begun",
        "_client",
        "_listener",
        "_loop",
        "_misused",
        "_observed",
        "_request_id",
        "_state",
        "_waiters",
        "gone",
        "head",
        "peer",
        "received",
        "scope",
        "sent",
        "service",
        "status",
        "task",
        "unread",
    )

    def __init__(
        self, service: Service, peer: Peer, head: Head, scope: Scope, loop: AbstractEventLoop, listener: str
    ) -> None:
        self.service, self.peer, self.head, self.scope = service, peer, head, scope
        self._loop, self._listener = loop, listener
        self._begun = monotonic()
        # Kept here, because the scope is the application's from now on: it may replace what it likes in it.
        client = scope["client"]
        self._client: str = client[0] if client else "unix"
        self._request_id: str = scope["state"]["request_id"]
        self._state = ""
        self._misused = False
        self._observed = False  # it is in the metrics already
        self._waiters: list[Future[None]] | tuple[()] = ()
        self.task: Task[None] | None = None
        self.gone = False
        self.status = self.sent = self.received = self.unread = 0
        service.figures.requests += 1

    # What the connection tells

    @abstractmethod
    def feed(self, data: bytes, end: bool) -> None:
        """Bytes from the client; the last ones with `end`."""

    @abstractmethod
    def half_close(self) -> None:
        """The client sends nothing more."""

    @abstractmethod
    def disconnect(self) -> None:
        """The client is gone: `receive()` tells, and `send()` raises."""

    @abstractmethod
    def refuse(self, status: int) -> None:
        """Nothing more is read or waited for: answer with `status` if that can still be done."""

    @property
    @abstractmethod
    def full(self) -> bool:
        """No more should be read from the client until the application has taken some of what there is."""

    @property
    @abstractmethod
    def whole(self) -> bool:
        """Nothing more of the request is waited for."""

    @property
    @abstractmethod
    def answering(self) -> bool:
        """The response has begun to leave."""

    def leave(self) -> None:  # noqa: B027 - a request has nothing to do
        """The server is about to stop: what would go on for ever should end."""

    def tick(self, now: float, *, excused: bool = False) -> float | None:  # noqa: B027 - a request has none
        """Enforce the deadlines that the cycle has of its own.

        Args:
            now: Of a monotonic clock, in seconds.
            excused: What the client's other requests wait for keeps it from sending anything.

        Returns:
            When the next one is due; None where there is none.
        """

    def describe(self, now: float) -> dict[str, Any]:
        """What an operator is shown of it: of the target the path alone, because queries carry secrets."""
        head = self.head
        path = head.target.partition(b"?")[0].decode("latin-1")
        return {
            "method": head.method,
            "path": path if len(path) <= PATH_SHOWN else path[: PATH_SHOWN - 1] + "…",
            "client": self._client,
            "status": self.status or None,
            "age": round(now - self._begun, 3),
        }

    # ASGI

    @abstractmethod
    async def receive(self) -> Message:
        """ASGI `receive`."""

    @abstractmethod
    def send(self, message: Message) -> Awaitable[None]:
        """ASGI `send`."""

    def _wait(self) -> Future[None]:
        """What is done when something has happened; `_forget()` is for whoever waits for it no longer."""
        waiter = self._loop.create_future()
        if self._waiters:
            self._waiters.append(waiter)
        else:
            self._waiters = [waiter]
        return waiter

    def _forget(self, waiter: Future[None]) -> None:
        """Nobody waits for it any more, and nothing may happen for as long as a WebSocket lasts."""
        if waiter in self._waiters:
            self._waiters = [one for one in self._waiters if one is not waiter]

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, ()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _misuse(self, expectation: str, got: str) -> NoReturn:
        """Name the application's mistake in the log, with its place, and raise it there."""
        self._misused = True
        report_misuse(self.service.log, self.head, self._state, expectation, got)
        raise MisuseError(expectation) from None

    # The application's call

    async def run(self) -> None:
        """Call the application and see to it that the client gets an answer, whatever the application does."""
        # The task has a context of its own: records of this request carry its id, and no other's.
        REQUEST_ID.set(self._request_id)
        try:
            await self.service.application(self.scope, self.receive, self.send)
        except CancelledError as error:
            task = current_task()
            if task is not None and task.cancelling():
                self._fail(503)
                raise
            # Nobody cancelled this call: the application let one through that it met elsewhere.
            report_error(self.service.log, self.head, error)
            self._fail(500)
        except BaseException as error:  # SystemExit too: a request must not end the process
            if isinstance(error, GeneratorExit) and not self._loop.is_running():
                raise  # the process ends, and with it what would not be cancelled
            # That the client is gone was told to the application; passing that on, in whatever wrapping, is no fault.
            if not (self.gone and is_disconnect(error)):
                if not self._misused or not isinstance(error, MisuseError):
                    report_error(self.service.log, self.head, error)
                self._fail(500)
        else:
            if self._state != COMPLETE:
                self._returned()
        finally:
            if self.task is not None:  # here, because a call-back of the task's would cost a turn of the loop
                self.service.tasks.discard(self.task)

    @abstractmethod
    def _returned(self) -> None:
        """The application has returned, and the exchange is not complete."""

    @abstractmethod
    def _fail(self, status: int) -> None:
        """End the exchange for the application."""

    def answer(self, status: int) -> None:
        """Answer in the application's place."""
        self.status = status
        body = b"" if self.head.method == "HEAD" else ANSWERS[status]
        self.sent = len(body)
        self.peer.respond(self.head.stream, status, answer_fields(status) + self.service.fields, body, True)

    def _record(self, outcome: str) -> None:
        service, head = self.service, self.head
        if self.status == 0:
            self.status = CLIENT_CLOSED_REQUEST
        figures, duration = service.figures, monotonic() - self._begun
        figures.requests -= 1
        figures.answered += 1
        if self.status >= 500 or outcome == "cut":
            figures.failed += 1
        if not self._observed:
            figures.observe(self.status, duration)
        if service.access is not None:
            service.access.record(
                head,
                self.status,
                duration,
                self._client,
                self._request_id,
                self.received,
                self.sent,
                self._listener,
                outcome,
            )
