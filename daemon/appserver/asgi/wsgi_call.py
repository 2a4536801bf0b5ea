"""One call of a WSGI application, between the thread that it runs in and the event loop.

    event loop                         thread
    scope, small bodies whole ───────▶ application(environ, start_response)
    receive()  ◀── RECEIVE ─────────── wsgi.input is read
    send()     ◀── SEND, BODY ──────── write(), or a piece of the iterable
    returns    ◀── DONE ────────────── its close() has returned

What a thread posts wakes the loop once, however much it is. A thread waits only for a body that has not come, and for a
client that does not read.
"""

import re
from asyncio import Future, get_running_loop, sleep
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Final, TypeAlias

from appserver.asgi.faults import is_disconnect
from appserver.asgi.fields import check_head
from appserver.asgi.types import Message, Receive, Send
from appserver.asgi.wsgi_streams import ErrorStream, FileWrapper
from appserver.errors import ClientDisconnectedError, MisuseError
from appserver.telemetry.log import Log

Environ: TypeAlias = dict[str, Any]
ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None]
WsgiApplication: TypeAlias = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

AHEAD_SIZE: Final = 64 * 1024
"""Bytes that a thread may be ahead of what the client's connection has taken."""

PIECE_COST: Final = 1024
"""What a piece counts for besides its bytes: of very many small ones the event loop would see nothing else."""

TURN: Final = 8
"""Pieces that are sent before others have their turn."""

_STATUS: Final = re.compile(r"([2-9][0-9]{2})(?: .*)?", re.DOTALL)

RECEIVE: Final = "receive"
SEND: Final = "send"
BODY: Final = "body"
DONE: Final = "done"


class Call:
    """One call of the application.

    Args:
        receive: ASGI's.
        send: ASGI's.
        log: For what becomes of a call that nobody waits for any more.
        head_only: The client wants no body.
    """

    def __init__(self, receive: Receive, send: Send, log: Log, *, head_only: bool) -> None:
        self._receive, self._send, self._log, self._head_only = receive, send, log, head_only
        self._loop = get_running_loop()
        # From the thread to the loop, and back.
        self._posts: deque[tuple[str, Any, int]] = deque()
        self._woken = False
        self._waiter: Future[None] | None = None
        self._replies: SimpleQueue[Any] = SimpleQueue()
        self._failure: Exception | None = None  # what could not be sent, and why
        self._over = False  # nobody takes posts any more
        # The thread's alone
        self._head: Message | None = None
        self._begun = False
        self._left: int | None = None
        self._ahead = self._unanswered = 0
        self._complete = False

    # In the event loop

    async def serve(self) -> BaseException | None:
        """Do what the thread posts, until it has ended.

        Returns:
            What the application raised, or what became of its answer.
        """
        done = False
        turn = 0
        try:
            while True:
                while not self._posts:  # what has woken us may be a post that has been taken already
                    self._waiter = self._loop.create_future()
                    await self._waiter
                kind, what, size = self._posts.popleft()
                if kind == DONE:
                    done = True
                    break
                if kind == RECEIVE:
                    try:
                        self._replies.put(await self._receive())
                    except Exception as error:  # noqa: BLE001 - it is the thread's to know
                        self._replies.put(error)
                    continue
                count = 1
                if kind == BODY:
                    # The application goes on meanwhile, so nothing of it waits for what comes later.
                    pieces = [what]
                    while self._posts and self._posts[0][0] == BODY:
                        _, piece, cost = self._posts.popleft()
                        pieces.append(piece)
                        size += cost
                    count = len(pieces)
                    what = [{"type": "http.response.body", "body": b"".join(pieces), "more_body": True}]
                await self._pass(what)
                for _ in range(count - 1):
                    self._replies.put(0)
                self._replies.put(self._failure or size)
                turn += 1
                if turn % TURN == 0:
                    await sleep(0)
        finally:
            self._over = True
            if not done:
                self._replies.put(ClientDisconnectedError("the response was cut"))
        # Errors hold frames, and those what is in them: nothing here may hold one on.
        while not self._replies.empty():
            self._replies.get_nowait()
        try:
            return what if what is not None else self._failure
        finally:
            what = self._failure = None

    async def _pass(self, messages: list[Message]) -> None:
        try:
            for message in messages:
                if self._failure is None:
                    await self._send(message)
        except Exception as error:  # noqa: BLE001 - it is the thread's to know
            self._failure = error

    def _wake(self) -> None:
        self._woken = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # In the thread

    def run(self, application: WsgiApplication, environ: Environ, errors: ErrorStream) -> None:
        """Call the application, and post what comes of it."""
        try:
            try:
                self._call(application, environ)
            finally:
                errors.flush()
        except StopIteration as error:  # which a coroutine could not pass on
            self._post(DONE, RuntimeError("the application raised StopIteration").with_traceback(error.__traceback__))
        except BaseException as error:  # noqa: BLE001 - whatever it is, the request has an end
            if self._over and not is_disconnect(error):
                self._log.error(
                    f"The application raised {type(error).__name__} behind the end of its request",
                    code="application_error",
                    exc_info=error,
                )
            self._post(DONE, error)
        else:
            self._post(DONE, None)

    def _call(self, application: WsgiApplication, environ: Environ) -> None:
        if self._over:
            return  # it was cut while it waited for a thread
        result = application(environ, self.start_response)
        try:
            if type(result) is list or type(result) is tuple:
                self._end(b"".join(result))
            elif type(result) is FileWrapper and result.regular and not self._complete:
                self._send_file(result.file)
            else:
                for piece in result:
                    if piece:
                        self.write(piece)
                        if self._head_only:
                            break  # what streams without end would do so for nobody
                self._end(b"")
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        """WSGI's.

        Raises:
            MisuseError: It is called twice, or with what cannot be sent.
        """
        if exc_info is not None:
            try:
                if self._begun:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # or its frames would be kept by this one, which they hold
        elif self._head is not None:
            raise MisuseError("start_response was called twice, the second time without exc_info")
        try:
            code = _STATUS.fullmatch(status)
            fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        except (AttributeError, TypeError, ValueError) as error:
            raise MisuseError(
                "start_response takes a status such as '200 OK' and a list of pairs of strings in latin-1,"
                f" not {status!r:.200} and {headers!r:.200}"
            ) from error
        if code is None:
            raise MisuseError(f"start_response takes a status such as '200 OK', from 200 to 999, not {status!r:.200}")
        fields, self._left = check_head(fields)
        self._head = {"type": "http.response.start", "status": int(code[1]), "headers": fields}
        if self._head_only or code[1] in ("204", "304"):
            self._left = None  # it tells of what GET would give
        return self.write

    def write(self, data: Any) -> None:
        """Send a piece of the body: WSGI's `write()`.

        Raises:
            ClientDisconnectedError: The client is gone.
            MisuseError: It is not bytes, or longer than Content-Length says.
        """
        if type(data) is not bytes:
            if not isinstance(data, bytes | bytearray | memoryview):
                raise MisuseError(f"the body must be bytes, not {type(data).__name__}")
            data = bytes(data)  # now, because the application may change it
        if not data:
            return
        if self._head_only:
            self._end(b"")
            return
        left = self._count(data)
        if left == 0:
            # It is known to be the last: the client need not wait for what the application still does.
            self._complete = True
            self._post(SEND, [*self._start(), {"type": "http.response.body", "body": data}])
            return
        if self._begun:
            self._post(BODY, data, len(data) + PIECE_COST)
        else:
            body = {"type": "http.response.body", "body": data, "more_body": True}
            self._post(SEND, [*self._start(), body], len(data) + PIECE_COST)
        while self._ahead > AHEAD_SIZE:
            self._reply()

    def _count(self, data: bytes) -> int | None:
        """Count against Content-Length; what is left of that, None where there is none."""
        if self._head is None:
            raise MisuseError("the application has not called start_response")
        if self._head["status"] in (204, 304) and not self._head_only:
            raise MisuseError(f"a {self._head['status']} response has no body, and {len(data)} bytes came")
        if self._left is None:
            return None
        if len(data) > self._left:
            raise MisuseError(f"the body is {len(data) - self._left} bytes longer than its content-length")
        self._left -= len(data)
        return self._left

    def _end(self, data: bytes) -> None:
        if data and not self._head_only and self._count(data):
            raise MisuseError(f"the body is {self._left} bytes shorter than its content-length")
        if not self._complete:
            if self._left:
                raise MisuseError(f"the body is {self._left} bytes shorter than its content-length")
            self._complete = True
            self._post(SEND, [*self._start(), {"type": "http.response.body", "body": data}])

    def _send_file(self, file: Any) -> None:
        message: Message = {"type": "http.response.zerocopysend", "file": file}
        if self._left is not None:
            message["count"] = self._left
        self._complete = True
        self._post(SEND, [*self._start(), message])
        while self._unanswered:  # the file is the application's to close, and sent until then
            self._reply()

    def _start(self) -> list[Message]:
        if self._begun:
            return []
        if self._head is None:
            raise MisuseError("the application has not called start_response")
        self._begun = True
        return [self._head]

    def receive(self) -> tuple[bytes, bool]:
        """The next piece of the request's body, and whether there are more.

        Raises:
            ClientDisconnectedError: The client is gone, and the body is not whole.
        """
        self._post(RECEIVE, None)
        while (message := self._reply()) is None:
            pass
        if message["type"] == "http.request":
            return message["body"], message["more_body"]
        if self._complete:
            return b"", False  # the client has its answer, and is asked for no more
        raise ClientDisconnectedError("the client is gone, and its request's body is not whole")

    def _reply(self) -> Message | None:
        """Wait for the next answer to a post; None for one to `SEND`."""
        reply = self._replies.get()
        if isinstance(reply, BaseException):
            try:
                raise reply
            finally:
                del reply  # it holds this frame
        if isinstance(reply, int):
            self._ahead -= reply
            self._unanswered -= 1
            return None
        message: Message = reply
        return message

    def _post(self, kind: str, what: Any, size: int = 0) -> None:
        if kind != DONE:
            if self._failure is not None:
                raise self._failure
            if self._over:
                raise ClientDisconnectedError("the response was cut")
        if kind in (SEND, BODY):
            self._unanswered += 1
            self._ahead += size
        self._posts.append((kind, what, size))
        if not self._woken:
            self._woken = True
            with suppress(RuntimeError):  # the loop is closed: the process ends
                self._loop.call_soon_threadsafe(self._wake)
