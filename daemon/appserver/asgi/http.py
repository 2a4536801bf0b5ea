"""One HTTP request and its response, between the events of an engine and an ASGI application.

The response is a state machine: `asgi.transitions` says what the application may send and what comes of it, and
`asgi.response` does it. The request's side is a queue: `receive()` takes from it, and what it took is given back to the
peer as credit.
"""

import reprlib
from asyncio import AbstractEventLoop, sleep
from collections import deque
from collections.abc import Awaitable
from typing import Final

from appserver.asgi.cycle import COMPLETE
from appserver.asgi.faults import report_silence
from appserver.asgi.files import File
from appserver.asgi.peer import DONE, Peer
from appserver.asgi.response import Response
from appserver.asgi.service import Service
from appserver.asgi.transitions import (
    AWAITED,
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
from appserver.asgi.types import Message, Scope, mark_awaited
from appserver.errors import ClientDisconnectedError, MisuseError
from appserver.wire.engine import Head

PIECE_SIZE: Final = 4096
"""Pieces of a body that the application has not asked for yet are joined up to this size, in bytes."""

# One for all requests without a body: it can hold nothing, so that nothing can pass from one to another.
_NO_BODY: Final[deque[bytes]] = deque(maxlen=0)

READ_AHEAD: Final = 192 * 1024
"""Bytes of a request's body that wait for the application before the peer has to. With 64 KiB, one read, each read was
followed by a pause: 10 MiB cost 5.2 ms of CPU and not 2.1."""


class HttpCycle(Response):
    """Runs the application for one HTTP request; the arguments are those of `Cycle`."""

    __slots__ = ("_ended", "_eof", "_queue", "_told", "_untold")

    def __init__(
        self, service: Service, peer: Peer, head: Head, scope: Scope, loop: AbstractEventLoop, listener: str
    ) -> None:
        super().__init__(service, peer, head, scope, loop, listener)
        self.trailers = None
        self._state = AWAITED
        self._queue: deque[bytes] = _NO_BODY if head.end else deque()
        self._untold = head.end
        self._ended = head.end
        self._eof = False
        self._told = False

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
    def full(self) -> bool:
        """See `Cycle`."""
        return self.unread >= READ_AHEAD

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
            self._record("complete" if self._is_answered() else "client_gone")
        self.gone = self._eof = True
        self._wake()

    def _is_answered(self) -> bool:
        """The client has all of its answer, though the application may go on with a body that nobody gets.

        That of HEAD, 204 and 304 ends with its head (RFC 9112 section 6.3; in HTTP/2 the stream ends there).
        """
        return self._ended and self.answering and self._bodiless

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
            if self._eof or self._state == COMPLETE or (self._ended and self._is_answered()):
                if self._told:
                    await sleep(0)  # whoever asks again and again must not keep the loop from the others
                self._told = True
                return {"type": "http.disconnect"}
            if self.head.expects and not self._ended:
                self.peer.proceed(self.head.stream)
            waiter = self._wait()
            try:
                await waiter
            except BaseException:  # cancelled, or closed where an application polls by hand
                self._forget(waiter)
                raise

    # The response: messages out

    @mark_awaited
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
        elif following == STREAMING:
            if self._bodiless:
                self._wake()  # receive() tells that the client has all it wants, so that a stream without end ends
                return sleep(0)  # what is thrown away fills no buffer that would ever make the application wait
            if self.peer.choked(self.head.stream):
                return self.peer.writable(self.head.stream)
        return DONE

    async def _transfer(self, file: File, following: str) -> None:
        """Send a file; then the response is in the state that the table says."""
        try:
            while True:
                # Also before the first piece: until somebody awaits us, the client may go and the server cut.
                if self.gone or self._state != SENDING:
                    raise ClientDisconnectedError("the response was cut")  # noqa: TRY301 - as send_file() does
                if not file.count:
                    break
                sent = await self.peer.send_file(self.head.stream, file.source.fileno(), file.offset, file.count)
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
            self._finish()

    # The end

    def _finish(self) -> None:
        """End an answer whose bytes have all been given to the peer."""
        self._state = COMPLETE
        self._record("complete")
        self._wake()
        self.peer.body(self.head.stream, b"", True)

    def _returned(self) -> None:
        if not self.gone:
            if self._told and self._is_answered():
                self._finish()
            elif self._told:
                self._give_up()
            else:
                report_silence(self.service.log, self.head, self._state, expectation(self._state))
                self._fail(500)

    def _fail(self, status: int) -> None:
        """End the response for the application: with an answer where none has begun, else with a visible cut."""
        if self._state == COMPLETE or self.gone:
            return
        if self._is_answered():
            self._finish()  # there is nothing to cut
            return
        cut = self.answering
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
