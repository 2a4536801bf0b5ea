"""One WebSocket and its application: when it may send what, and how it ends.

What it may send is a table, `asgi.websocket_transitions`; what becomes of that, and of what the client sends, is
`asgi.channel`. It ends in one of four ways, and the application is told each as `websocket.disconnect`: the client's
Close, with its code; a fault of the client's, with the code that it was told (1002, 1007, 1009); our own Close, of the
application or of a server that leaves (1012); and with 1006 where there was none.
"""

import reprlib
from asyncio import AbstractEventLoop, sleep
from collections.abc import Awaitable
from math import inf

from appserver.asgi.channel import Channel
from appserver.asgi.cycle import COMPLETE
from appserver.asgi.faults import report_silence
from appserver.asgi.peer import DONE, Peer
from appserver.asgi.service import Service, WebSockets
from appserver.asgi.transitions import HELD, STREAMING
from appserver.asgi.types import Message, Scope, mark_awaited
from appserver.asgi.websocket_transitions import CLOSED, CONNECTING, OPEN, SEND, TRANSITIONS, expectation, specify
from appserver.errors import ClientDisconnectedError, MisuseError
from appserver.wire.engine import Head
from appserver.wire.websocket import ABNORMAL, INTERNAL_ERROR, NORMAL, RESTART, WebSocket
from appserver.wire.websocket_handshake import Handshake


class WebSocketCycle(Channel):
    """Runs the application for one WebSocket; the arguments are those of `Channel`."""

    __slots__ = ("_code", "_connected", "_leaving", "_mark", "_outcome", "_pinged", "_reason", "_told")

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
        super().__init__(service, peer, head, scope, loop, listener, handshake, options)
        self._state = CONNECTING
        self._connected = self._told = self._leaving = False
        self._code, self._reason = ABNORMAL, ""
        self._outcome = ""  # unless it ends as such things do
        self._pinged = 0.0  # when the last ping left
        self._mark = 0  # bytes that had come by then
        self._schedule(options.open_timeout)

    # What the connection tells

    def disconnect(self) -> None:
        """See `Cycle`."""
        if not self._over:
            self._finish(self._outcome or "client_gone")

    def _lose(self) -> None:
        opened = self._socket is not None
        self._finish(self._outcome or "client_gone")
        if opened:
            self.peer.body(self.head.stream, b"", True)
        else:
            self.peer.reset(self.head.stream)

    def refuse(self, status: int) -> None:
        """See `Cycle`."""
        self._fail(status)
        if self._socket is not None and not self._over:
            # What the application has closed itself is complete, whether the client answers or not.
            self._finish(self._outcome or ("cut" if self.gone else "complete"))
            self.peer.body(self.head.stream, b"", True)

    def leave(self) -> None:
        """See `Cycle`: the client should connect anew, to whoever serves then."""
        self._leaving = True
        if self._state == OPEN:
            self._shut(RESTART)

    def _begin(self) -> None:
        if self._leaving and self._state == OPEN:
            self._shut(RESTART)
        self._pump()

    @property
    def whole(self) -> bool:
        """See `Cycle`: a WebSocket may be silent for as long as it answers pings."""
        return True

    @property
    def answering(self) -> bool:
        """See `Cycle`."""
        return self._state != CONNECTING

    # ASGI

    async def receive(self) -> Message:
        """ASGI `receive`: `websocket.connect`, the messages, then `websocket.disconnect`."""
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        while not self._queue:
            if self._over or self._state == COMPLETE:
                if self._told:
                    await sleep(0)  # whoever asks again and again must not keep the loop from the others
                self._told = True
                return {"type": "websocket.disconnect", "code": self._code, "reason": self._reason}
            waiter = self._wait()
            try:
                await waiter
            except BaseException:  # cancelled, or closed where an application polls by hand
                self._forget(waiter)
                raise
        message = self._queue.pop(0)
        self._queued -= len(message)
        if self._inbox:
            self._pump()
        if isinstance(message, str):
            return {"type": "websocket.receive", "text": message}
        return {"type": "websocket.receive", "bytes": message}

    @mark_awaited
    def send(self, message: Message) -> Awaitable[None]:
        """ASGI `send`.

        Returns:
            At once what is over, unless the client is slow: then a coroutine that waits for it.

        Raises:
            ClientDisconnectedError: The WebSocket is over.
            MisuseError: The message cannot be sent now, or not at all.
        """
        if self.gone:
            raise ClientDisconnectedError("the WebSocket is over")
        try:
            kind = message["type"]
            if kind != SEND:
                kind = specify(kind, message)
        except (KeyError, TypeError, AttributeError):
            return self._misuse("a message must be a dict with a 'type'", reprlib.repr(message))
        try:
            action, following = TRANSITIONS[self._state, kind]
        except (KeyError, TypeError):
            return self._misuse(f"expected {expectation(self._state)}", reprlib.repr(kind))
        try:
            action(self, message)
        except MisuseError as error:
            return self._misuse(str(error), reprlib.repr(kind))
        self._state = following
        if following == COMPLETE:
            self._stop()
            self._record("complete")
            self._wake()
        elif self.peer.choked(self.head.stream) and following in (OPEN, STREAMING):
            return self._await_client()
        return DONE

    async def _await_client(self) -> None:
        """Wait for a client that is slow. One that says Close meanwhile has been sent the message all the same."""
        try:
            await self.peer.writable(self.head.stream)
        except ClientDisconnectedError:
            if self._code == ABNORMAL:
                raise

    # The end

    def _shut(self, code: int) -> None:
        """Close for the application, which may send nothing more."""
        self._state = CLOSED
        self._say_close(code, "")
        self.gone = True

    def _end(self, socket: WebSocket) -> None:
        """Both sides have said Close, or the client has broken the protocol."""
        self._code, self._reason = socket.code, socket.reason
        if socket.failure:
            self.service.figures.refused += 1
            self.service.log.info(
                f"Closed a WebSocket: {socket.failure} ({socket.code})",
                code="refused",
                client_addr=self._client,
                listener=self._listener,
                websocket_code=socket.code,
            )
        self._finish(self._outcome or "complete")
        self.peer.body(self.head.stream, b"", True)

    def _finish(self, outcome: str) -> None:
        """Nothing more comes or goes."""
        self._stop()
        self.gone = True
        if self._room is not None:
            self._room.cancel()
        if self._socket is not None:
            self.service.figures.websockets -= 1
            self.service.figures.websockets_http2 -= self.head.version == "2"
            self._options.deflating -= self._memory
            self._socket = None  # with what it holds: the application may run on for as long as it likes
        if self._state != COMPLETE:
            self._state = COMPLETE
            self._record(outcome)
        self._wake()

    def _stop(self) -> None:
        """Take no more."""
        self._over = True
        self._due = inf
        self._inbox = ()
        self.unread = 0

    def _returned(self) -> None:
        if self._state == OPEN:
            self._shut(NORMAL)
        elif self._state in (CONNECTING, HELD, STREAMING) and not self.gone:
            if not self._told:
                report_silence(self.service.log, self.head, self._state, expectation(self._state))
            self._fail(500)

    def _fail(self, status: int) -> None:
        if self._state in (CLOSED, COMPLETE) or self.gone:
            return
        if self._state == OPEN:
            self._outcome = "cut"
            self._shut(RESTART if status == 503 else INTERNAL_ERROR)
            return
        cut = self._state == STREAMING
        self._state = COMPLETE
        if cut:
            self.peer.reset(self.head.stream)
        else:
            self.answer(status)
        self._record("cut" if cut else "failed")
        self._stop()
        self.gone = True
        self._wake()

    # Time

    def tick(self, now: float, *, excused: bool = False) -> float:
        """See `Cycle`: the handshake, pings, and the client's answer to a Close."""
        socket = self._socket
        if now < self._due or self._over:
            return self._due
        if socket is None:
            self._due = inf
            if self._state == CONNECTING:
                self._give_up_handshake()
        elif self._state == CLOSED:
            self._lose()
        else:
            self._due = self._probe(socket, now, excused=excused)
        return self._due

    def _give_up_handshake(self) -> None:
        self.service.log.warning(
            f"The application did not answer a WebSocket's handshake within {self._options.open_timeout:g} s",
            code="deadline",
            http_target=self.head.target.decode("latin-1"),
        )
        self._fail(503)

    def _probe(self, socket: WebSocket, now: float, *, excused: bool) -> float:
        """Send a ping, or end the WebSocket of a client that has not answered the last one; when to look again."""
        interval, timeout = self._options.ping_interval, self._options.ping_timeout
        # Whoever sends is there; and the pong may be among what the application is too slow for.
        if socket.answered or self.received > self._mark or self._inbox or not timeout:
            if now < self._pinged + interval:
                return self._pinged + interval
            self._pinged, self._mark = now, self.received
            self.peer.body(self.head.stream, socket.ping(), False)
            return now + min(interval, timeout or interval)
        if excused:
            self._pinged = now  # from now on it could answer
        if now < self._pinged + timeout:
            return self._pinged + timeout
        self.service.log.info(
            "Closed a WebSocket: the client did not answer a ping",
            code="deadline",
            client_addr=self._client,
            listener=self._listener,
        )
        self._reason = "a ping was not answered"
        self._lose()
        return inf
