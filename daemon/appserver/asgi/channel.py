"""What has been received and sent of one WebSocket.

    feed() ─▶ inbox ──_pump()──▶ wire.websocket ──messages──▶ queue ─▶ asgi.websocket
                                      │ pongs, Close
    accept(), emit(), finish() ──▶ wire.websocket ─▶ peer.body()

What the application has not taken is bounded: with `max_queue` messages in the queue nothing more is taken from the
inbox, and with something in the inbox no more is read from the client.

The actions of the table in `asgi.websocket_transitions` are here too; it says when each of them may come. One that
finds a mistake raises `MisuseError` and has sent nothing.
"""

import reprlib
from abc import abstractmethod
from asyncio import AbstractEventLoop, Task
from collections import deque
from contextlib import suppress
from math import inf
from time import monotonic
from typing import Final

from appserver.asgi.fields import check_fields
from appserver.asgi.peer import Peer
from appserver.asgi.response import Response
from appserver.asgi.service import Service, WebSockets
from appserver.asgi.types import Message, Scope
from appserver.errors import ClientDisconnectedError, MisuseError
from appserver.wire.engine import Head
from appserver.wire.websocket import NORMAL, WORK, WebSocket
from appserver.wire.websocket_handshake import Handshake

# The handshake is the server's to answer.
_NOT_IN_ACCEPT: Final = frozenset(
    b"sec-websocket-accept sec-websocket-extensions sec-websocket-protocol sec-websocket-version"
    b" upgrade connection content-length".split()
)


class Channel(Response):
    """A WebSocket, as far as its bytes and messages go.

    Args:
        service: What is served.
        peer: Where the bytes go.
        head: The request that asked for it.
        scope: Its ASGI scope.
        loop: The running loop.
        listener: Name of the listener, for the access record.
        handshake: What was asked for.
        options: How WebSockets are served.
    """

    __slots__ = (
        "_closing",
        "_due",
        "_eof",
        "_handshake",
        "_inbox",
        "_memory",
        "_options",
        "_over",
        "_queue",
        "_queued",
        "_resting",
        "_room",
        "_socket",
    )

    def __init__(
        self,
        service: Service,
        peer: Peer,
        head: Head,
        scope: Scope,
        loop: AbstractEventLoop,
        listener: str,
        handshake: Handshake,
        options: WebSockets,
    ) -> None:
        super().__init__(service, peer, head, scope, loop, listener)
        self.trailers = None
        self._handshake, self._options = handshake, options
        self._socket: WebSocket | None = None
        # As it came. Made when there is something for it: an empty one takes 760 bytes.
        self._inbox: deque[bytes] | tuple[()] = ()
        self._queue: list[str | bytes] = []  # for the application; no deque, because it is short
        self._queued = 0  # bytes of it, or characters
        self._memory = 0  # of compression
        self._eof = self._over = False
        self._closing = False  # we have said Close
        self._resting = False  # the rest of what is held waits for the loop's next turn
        self._room: Task[None] | None = None  # waits for a client that takes no more of what answers its frames
        self._due = inf

    # Bytes in

    def feed(self, data: bytes, end: bool) -> None:
        """See `Cycle`."""
        self.received += len(data)
        socket = self._socket
        if socket is not None and not end and not self._inbox and self._is_ready():
            self._parse(socket, data, WORK)  # what nearly all reads are: nothing waits before them
            return
        if data:
            self.unread += len(data)
            self._hold().append(data)
        self._eof = self._eof or end
        self._pump()

    def _hold(self) -> deque[bytes]:
        if isinstance(self._inbox, tuple):
            self._inbox = deque()
        return self._inbox

    def half_close(self) -> None:
        """See `Cycle`: without a Close the client is gone."""
        self._eof = True
        self._pump()

    @property
    def full(self) -> bool:
        """See `Cycle`."""
        return bool(self._inbox)

    def _pump(self) -> None:
        """Take messages from what has come, as far as the application keeps up."""
        inbox, socket = self._inbox, self._socket
        if self._over:
            return
        if socket is None:
            # A denial that is under way may still be read, as any response.
            if self._eof and not self.answering:
                self._lose()
            return
        work = WORK
        while inbox and self._is_ready():
            data = inbox.popleft()
            self.unread -= len(data)
            self._parse(socket, data, work)
            work = socket.work
        if self._eof and not inbox and not self._over:
            self._lose()

    def _parse(self, socket: WebSocket, data: bytes, work: int) -> None:
        """Take bytes apart, as many as may be in this turn."""
        messages = socket.receive(data, work)
        answer, rest, stream = socket.take(), socket.rest, self.head.stream
        if rest:
            self.unread += len(rest)
            self._hold().appendleft(rest)
        if messages and not self._closing:
            self._queue += messages
            for message in messages:
                self._queued += len(message)
            self._wake()
        if answer:
            self.peer.body(stream, answer, False)
        self.peer.consumed(stream, len(data) - len(rest))
        if socket.over:
            self._end(socket)
        elif answer and self.peer.choked(stream):
            self._room = self._loop.create_task(self._await_room())
        elif self._inbox and socket.work < 0:
            self._resting = True
            self._loop.call_soon(self._go_on)

    def _is_ready(self) -> bool:
        if self._resting or self._over or self._room is not None:
            return False
        # Behind our Close nothing counts but the client's, which may stand behind what nobody takes any more.
        return self._closing or (len(self._queue) < self._options.max_queue and self._queued < self._options.max_size)

    def _go_on(self) -> None:
        self._resting = False
        self._pump()

    async def _await_room(self) -> None:
        """Take no more frames from a client that does not read what answers them."""
        with suppress(ClientDisconnectedError):
            await self.peer.writable(self.head.stream)
        self._room = None
        self._pump()

    @abstractmethod
    def _end(self, socket: WebSocket) -> None:
        """Both sides have said Close, or the client has broken the protocol."""

    @abstractmethod
    def _lose(self) -> None:
        """The client has ended its side without a Close."""

    # Messages out

    def accept(self, message: Message) -> None:
        """Answer the handshake; from here on the stream is a WebSocket."""
        offered, subprotocol = self._handshake.subprotocols, message.get("subprotocol")
        if subprotocol is not None and subprotocol not in offered:
            raise MisuseError(
                f"subprotocol must be one of those that the client offers, {offered}, not {subprotocol!r}"
            )
        headers, _ = check_fields(message.get("headers") or (), self.service.fields)
        for name, _ in headers:
            if name in _NOT_IN_ACCEPT:
                raise MisuseError(f"{name.decode('latin-1')} is the server's to set")
        fields = list(self._handshake.answer)
        if subprotocol is not None:
            fields.append((b"sec-websocket-protocol", subprotocol.encode("ascii")))
        deflate, options = self._handshake.deflate, self._options
        if deflate is not None and options.deflating + deflate[0].memory <= options.deflate_memory:
            self._memory = deflate[0].memory
            options.deflating += self._memory
            fields.append((b"sec-websocket-extensions", deflate[1]))
        self._socket = WebSocket(options.max_size, deflate[0] if deflate is not None and self._memory else None)
        self._handshake = self._handshake._replace(deflate=None)  # so that it goes with the socket
        self.status = 101 if self.head.version == "1.1" else 200
        figures = self.service.figures
        figures.websockets += 1
        figures.websockets_opened += 1
        figures.websockets_http2 += self.head.version == "2"
        # Now, and with the time of the handshake: how long a WebSocket stays says nothing of how fast we are.
        figures.observe(self.status, monotonic() - self._begun)
        self._observed = True
        self.peer.accept(self.head.stream, fields + headers)
        self._schedule(options.ping_interval)
        self._loop.call_soon(self._begin)

    def forbid(self, message: Message) -> None:  # noqa: ARG002 - code and reason have no place in an HTTP response
        """Close before the handshake is answered: it is answered with 403, as the specification says."""
        self.answer(403)

    def deny(self, message: Message) -> None:
        """Keep the head of a denial. Its message has no key `trailers`, and none would follow."""
        self.hold(message)
        self.trailers = None

    def emit(self, message: Message) -> None:
        """Send a message."""
        data, text = message.get("bytes"), message.get("text")
        if data is None:
            if not isinstance(text, str):
                raise MisuseError(f"a websocket.send has text, a string, or bytes, and not {reprlib.repr(text)}")
            data = text
        elif not isinstance(data, bytes):
            if not isinstance(data, bytearray | memoryview):
                raise MisuseError(f"bytes must be a byte string, not {type(data).__name__}")
            data = bytes(data)
        assert self._socket is not None  # noqa: S101 - for the type checker
        try:
            frame = self._socket.send(data)
        except UnicodeEncodeError as error:
            raise MisuseError(f"text that is not Unicode: {error.reason}") from error
        self.sent += len(frame)
        self.peer.body(self.head.stream, frame, False)

    def finish(self, message: Message) -> None:
        """Say Close; the client is given time to answer it."""
        code, reason = message.get("code"), message.get("reason") or ""
        if code is None:
            code = NORMAL
        if not isinstance(code, int) or not isinstance(reason, str):
            raise MisuseError(f"code must be a number and reason a string, not {code!r:.100} and {reason!r:.100}")
        try:
            self._say_close(code, reason)
        except ValueError as error:
            raise MisuseError(f"a Close with code {code} and reason {reason!r:.200}: {error}") from error

    def _say_close(self, code: int, reason: str) -> None:
        assert self._socket is not None  # noqa: S101 - for the type checker
        self.peer.body(self.head.stream, self._socket.close(code, reason), False)
        self._closing = True
        self._schedule(self._options.close_timeout)
        if self._inbox:
            self._loop.call_soon(self._pump)

    def _schedule(self, seconds: float) -> None:
        """Have `tick()` called after so many seconds; never for 0."""
        self._due = monotonic() + seconds if seconds else inf
        self.peer.remind(self.head.stream, self._due)

    @abstractmethod
    def _begin(self) -> None:
        """The handshake has been answered."""
