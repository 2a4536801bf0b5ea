"""One HTTP request and its response, between the events of an engine and an ASGI application.

The response is a state machine: `asgi.transitions` says what the application may send and what comes of it, and
`asgi.response` does it. The request's side is a queue: `receive()` takes from it, and what it took is given back to the
peer as credit.
"""

import reprlib
from asyncio import AbstractEventLoop, CancelledError, Future, Task, current_task, sleep
from collections import deque
from collections.abc import Awaitable
from time import monotonic
from typing import Final, NoReturn

from appserver.asgi.answers import ANSWERS, answer_fields
from appserver.asgi.faults import is_disconnect, report_error, report_misuse, report_silence
from appserver.asgi.files import File
from appserver.asgi.peer import DONE, Peer
from appserver.asgi.response import Response
from appserver.asgi.service import Service
from appserver.asgi.transitions import (
    AWAITED,
    COMPLETE,
    LAST,
    LAST_OF_BODY,
    MORE,
    SENDING,
    START,
    STREAMING,
    TRAILING,
    TRANSITIONS,
    expectation,
    specify,
)
from appserver.asgi.types import Message, Scope
from appserver.errors import ClientDisconnectedError, MisuseError
from appserver.telemetry.context import REQUEST_ID
from appserver.wire.engine import Head

PIECE_SIZE: Final = 4096
"""Pieces of a body that the application has not asked for yet are joined up to this size, in bytes."""

# One for all requests without a body: it can hold nothing, so that nothing can pass from one to another.
_NO_BODY: Final[deque[bytes]] = deque(maxlen=0)

# What the client did not stay for, as nginx logs it.
CLIENT_CLOSED_REQUEST: Final = 499


class HttpCycle(Response):
    """Runs the application for one request.

    Args:
        service: What is served.
        peer: Where the response goes.
        head: The request.
        scope: Its ASGI scope.
        loop: The running loop.
        listener: Name of the listener, for the access record.
    """

    __slots__ = (
        "_begun",
        "_client",
        "_ended",
        "_eof",
        "_listener",
        "_loop",
        "_misused",
        "_queue",
        "_request_id",
        "_state",
        "_told",
        "_untold",
        "_waiters",
        "gone",
        "received",
        "task",
        "unread",
    )

    def __init__(
        self, service: Service, peer: Peer, head: Head, scope: Scope, loop: AbstractEventLoop, listener: str
    ) -> None:
        super().__init__(service, peer, head, scope)
        self._loop, self._listener = loop, listener
        self._begun = monotonic()
        # Kept here, because the scope is the application's from now on: it may replace what it likes in it.
        client = scope["client"]
        self._client: str = client[0] if client else "unix"
        self._request_id: str = scope["state"]["request_id"]
        self._state = AWAITED
        self._queue: deque[bytes] = _NO_BODY if head.end else deque()
        self._untold = head.end
        self._ended = head.end
        self._eof = False
        self._told = False
        self._misused = False
        self._waiters: set[Future[None]] | tuple[()] = ()
        self.task: Task[None] | None = None
        """Runs the application; None for one that has returned without ever waiting."""
        self.gone = False
        self.received = self.unread = 0
        service.figures.requests += 1

    # The request: events in

    def feed(self, data: bytes, end: bool) -> None:
        """Bytes of the request's body; the last ones with `end`."""
        queue = self._queue
        if queue and len(queue[-1]) + len(data) <= PIECE_SIZE:
            queue[-1] += data  # one object a byte would cost forty times what is counted
        elif data or end:
            queue.append(data)
        self.received += len(data)
        self.unread += len(data)
        self._ended = end
        self._wake()

    @property
    def whole(self) -> bool:
        """All of the request has come."""
        return self._ended

    @property
    def answering(self) -> bool:
        """The response has begun to leave."""
        return self._state in (STREAMING, SENDING, TRAILING)

    def half_close(self) -> None:
        """The client sends nothing more but may still read: `receive()` tells, `send()` goes on."""
        self._eof = True
        self._wake()

    def disconnect(self) -> None:
        """The client is gone: `receive()` tells, and `send()` raises."""
        if self._state != COMPLETE and not self.gone:
            self.gone = True
            self.unread = 0
            self._record("client_gone")
        self.gone = self._eof = True
        self._wake()

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def receive(self) -> Message:
        """ASGI `receive`: the body in pieces, then `http.disconnect` once the client or the response is over."""
        while True:
            queue = self._queue
            if queue:
                data = queue.popleft()
                if data:
                    self.unread -= len(data)
                    self.peer.consumed(self.head.stream, len(data))
                return {"type": "http.request", "body": data, "more_body": bool(queue) or not self._ended}
            if self._untold:
                self._untold = False
                return {"type": "http.request", "body": b"", "more_body": False}
            if self._eof or self._state == COMPLETE:
                if self._told:
                    await sleep(0)  # whoever asks again and again must not keep the loop from the others
                self._told = True
                return {"type": "http.disconnect"}
            if self.head.expects and not self._ended:
                self.peer.proceed(self.head.stream)
            waiter = self._loop.create_future()
            waiters = self._waiters = self._waiters or set()
            waiters.add(waiter)
            try:
                await waiter
            finally:
                waiters.discard(waiter)

    # The response: messages out

    def send(self, message: Message) -> Awaitable[None]:
        """ASGI `send`.

        Returns:
            At once what is over, unless the client is slow or a file is sent: then a coroutine that waits for it.

        Raises:
            ClientDisconnectedError: The client is gone.
            MisuseError: The message cannot be sent now, or not at all.
            OSError: The file cannot be opened.
        """
        if self.gone:
            raise ClientDisconnectedError("the client is gone")
        try:
            kind = message["type"]
            if kind == LAST:
                if message.get("more_body", False):
                    kind = MORE
                elif self.trailers is not None:
                    kind = LAST_OF_BODY
            elif kind != START:
                kind = specify(kind, message, trailers=self.trailers is not None)
        except (KeyError, TypeError, AttributeError):
            return self._misuse("a message must be a dict with a 'type'", reprlib.repr(message))
        try:
            action, following = TRANSITIONS[self._state, kind]
        except (KeyError, TypeError):
            return self._misuse(f"expected {expectation(self._state)}", reprlib.repr(kind))
        try:
            file = action(self, message)
        except MisuseError as error:
            return self._misuse(str(error), reprlib.repr(kind))
        if file is not None:
            self._state = SENDING
            return self._transfer(file, following)
        self._state = following
        if following == COMPLETE:
            self._record("complete")
            if self._waiters:
                self._wake()
        elif following == STREAMING and self.peer.choked(self.head.stream):
            return self.peer.writable(self.head.stream)
        return DONE

    async def _transfer(self, file: File, following: str) -> None:
        """Send a file; then the response is in the state that the table says."""
        try:
            while file.count:
                sent = await self.peer.send_file(self.head.stream, file.source.fileno(), file.offset, file.count)
                if self._state != SENDING:
                    raise ClientDisconnectedError("the response was cut")  # noqa: TRY301 - as send_file() does
                file.advance(sent)
                self.sent += sent
        except ClientDisconnectedError:
            self.disconnect()
            raise
        except BaseException:
            if self._loop.is_running():  # else the process ends, and with it what would not be cancelled
                self._fail(500)
            raise
        finally:
            file.source.close()
        self._state = following
        if following == COMPLETE:
            self._record("complete")
            self._wake()
            self.peer.body(self.head.stream, b"", True)

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
            if self._state != COMPLETE and not self.gone:
                if self._told:
                    self._give_up()
                else:
                    report_silence(self.service.log, self.head, self._state, expectation(self._state))
                    self._fail(500)
        finally:
            if self.task is not None:  # here, because a call-back of the task's would cost a turn of the loop
                self.service.tasks.discard(self.task)

    def _fail(self, status: int) -> None:
        """End the response for the application: with an answer where none has begun, else with a visible cut."""
        if self._state == COMPLETE or self.gone:
            return
        cut = self._state in (STREAMING, SENDING, TRAILING)
        self._state = COMPLETE
        if cut:
            self.peer.reset(self.head.stream)
        else:
            self.answer(status)
        self._record("cut" if cut else "failed")
        self._wake()

    def _give_up(self) -> None:
        """The application has heard `http.disconnect` and has returned, as it may: there is no answer to send."""
        self._state = COMPLETE
        self.peer.reset(self.head.stream)
        self._record("client_gone")

    def refuse(self, status: int) -> None:
        """Nothing more is read or waited for: answer with `status` if that can still be done."""
        self._eof = True
        self._fail(status)
        self.gone = True

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
        service.figures.requests -= 1
        service.figures.answered += 1
        if self.status >= 500 or outcome == "cut":
            service.figures.failed += 1
        if service.access is not None:
            service.access.record(
                head,
                self.status,
                monotonic() - self._begun,
                self._client,
                self._request_id,
                self.received,
                self.sent,
                self._listener,
                outcome,
            )
