"""A WSGI application (https://peps.python.org/pep-3333/) behind ASGI: each request is a call in a thread."""

from contextvars import copy_context
from functools import partial
from io import BufferedReader, BytesIO
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, Final

from appserver.asgi.types import Receive, Scope, Send
from appserver.asgi.wsgi_call import Call, WsgiApplication
from appserver.asgi.wsgi_environ import make_environ
from appserver.asgi.wsgi_streams import ErrorStream, FileWrapper, Input
from appserver.telemetry.log import Log

if TYPE_CHECKING:
    from collections.abc import Callable

WHOLE_SIZE: Final = 128 * 1024
"""Bytes of a request's body that are waited for before a thread is: clients that send slowly take none."""


class Wsgi:
    """An ASGI application that calls a WSGI one.

    Args:
        application: WSGI.
        threads: How many requests it serves at a time; others wait in order.
        log: Where `wsgi.errors` goes.
        multiprocess: Other processes serve the same application.
    """

    def __init__(self, application: WsgiApplication, threads: int, log: Log, *, multiprocess: bool) -> None:
        self._application, self._threads, self._log = application, threads, log
        # Not a ThreadPoolExecutor: with its futures a request costs 25 us more.
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._started = 0
        self._constants = {
            "GATEWAY_INTERFACE": "CGI/1.1",
            "SERVER_SOFTWARE": "appserver",
            "wsgi.version": (1, 0),
            "wsgi.multithread": threads > 1,
            "wsgi.multiprocess": multiprocess,
            "wsgi.run_once": False,
            "wsgi.input_terminated": True,  # it ends where the body does, chunked or not
            "wsgi.file_wrapper": FileWrapper,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; ASGI."""
        if scope["type"] == "http":
            await self._serve(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})  # 403: WSGI has none
        else:
            raise NotImplementedError(f"a WSGI application has no {scope['type']}")

    def close(self) -> None:
        """Let the threads end, when they have done what they are at."""
        for _ in range(self._started):
            self._calls.put(None)

    def _start(self) -> None:
        """Start the threads: not before the process is one that serves, because a fork leaves them behind.

        Raises:
            RuntimeError: The system has none to spare (TasksMax=, memory); the next request tries again.
        """
        while self._started < self._threads:
            try:
                Thread(target=self._work, name=f"wsgi-{self._started + 1}").start()
            except RuntimeError:
                if not self._started:
                    raise
                self._log.warning(f"Only {self._started} of {self._threads} threads can be started (--threads)")
                self._threads = self._started
                break
            self._started += 1

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            del call  # or what it holds would live until the next one comes

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call(receive, send, self._log, head_only=scope["method"] == "HEAD")
        errors = ErrorStream(self._log)
        if any(name == b"expect" for name, _ in scope["headers"]):
            # The client is asked for it when the application wants it.
            body: Any = BufferedReader(Input(b"", call.receive))
        else:
            pieces, size, more = [], 0, True
            while more and size < WHOLE_SIZE:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                pieces.append(message["body"])
                size, more = size + len(message["body"]), message["more_body"]
            data = b"".join(pieces)
            body = BufferedReader(Input(data, call.receive)) if more else BytesIO(data)
        environ = make_environ(scope, body, errors, self._constants)
        if not self._started:
            self._start()
        # In the request's context, so that records of the application carry its id.
        self._calls.put(partial(copy_context().run, call.run, self._application, environ, errors))
        failure = await call.serve()
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # it holds this frame
