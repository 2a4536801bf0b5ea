"""One client connection: what an asyncio protocol for any HTTP version has in common.

A connection moves bytes between a transport and an engine, events between the engine and the cycles, and keeps three
things that neither knows of: how much may be held (back-pressure), how long a peer may take (deadlines), and how it
ends without losing the last answer (`_close`). Two kinds differ in how many requests they have at a time:
`net.serial` one after the other (HTTP/1.1), `net.multiplexed` many at once (HTTP/2).

    phase     waits for                          deadline
    OPENING   the first byte; in HTTP/2 request  header
    IDLE      the next request                   keep-alive; linger while draining
    HEAD      the rest of a head                 header, from its first byte
    BODY      the rest of a body                 body, renewed while it or the answer moves as it should
    SERVING   the application                    none; 2 s once the peer has ended its input
    WEBSOCKET the application or the client      what its cycle asks for
    CLOSING   the peer's end, after ours         2 s

A peer that reads too slowly has a deadline of its own in whatever phase; `net.flow` keeps it. The streams of a
multiplexed connection have theirs too: `net.deadlines`.
"""

import os
import socket
import struct
from abc import abstractmethod
from asyncio import BufferedProtocol, Task, Transport
from collections.abc import Coroutine
from contextlib import suppress
from itertools import islice
from math import inf
from time import monotonic
from typing import Any, Final

from appserver.asgi.answers import ANSWERS, answer_fields
from appserver.asgi.cycle import Cycle
from appserver.asgi.scope import Scopes
from appserver.errors import ClientDisconnectedError
from appserver.net.endpoint import Endpoint
from appserver.net.flow import Outflow
from appserver.wire.engine import Engine, Head, Headers
from appserver.wire.http2_frames import INTERNAL_ERROR
from appserver.wire.semantics import Refusal

OPENING: Final = "opening"
IDLE: Final = "idle"
HEAD: Final = "head"
BODY: Final = "body"
SERVING: Final = "serving"
WEBSOCKET: Final = "websocket"
CLOSING: Final = "closing"

PIECE_SIZE: Final = 128 * 1024
"""Bytes of a file that are read at once where they cannot be sent past the engine."""

SMALL_FILE: Final = 64 * 1024
"""Bytes up to which a file is read and written with the head, in one piece: half of what sendfile(2) would cost."""

PATIENCE: Final = 2.0
"""Seconds in which a peer that says nothing more may still be there: for its answer, or to end after us."""

REQUESTS_SHOWN: Final = 8
"""Requests of one connection that an operator is shown."""

_STATES: Final = {HEAD: "reading head", BODY: "reading body", SERVING: "in application"}
"""What an operator is told of phases whose own names say too little."""

_NO_LINGER: Final = struct.pack("ii", 1, 0)


class Connection(BufferedProtocol):
    """Serves one client; implements `asgi.peer.Peer`.

    Args:
        endpoint: What is the same for all connections of its listener.
        engine: Of the HTTP version that is spoken.

    Attributes:
        begun: When it was accepted and TLS agreed on, or up to a second before; of a monotonic clock, in seconds.
        phase: As above.
        deadline: When that ends.
    """

    __slots__ = (
        "_cycles",
        "_endpoint",
        "_engine",
        "_eof",
        "_out",
        "_scopes",
        "_transport",
        "_turn",
        "_view",
        "begun",
        "deadline",
        "phase",
    )

    def __init__(self, endpoint: Endpoint, engine: Engine) -> None:
        self._endpoint = endpoint
        self._engine = engine
        self._view = memoryview(endpoint.buffer)
        self._out = Outflow(endpoint.loop, endpoint.timeouts, endpoint.service.figures)
        self._transport: Transport | None = None
        self._cycles: dict[int, Cycle] = {}
        self._scopes: Scopes
        self._turn = endpoint.turn
        self._eof = False
        self.phase = OPENING
        self.begun = 0.0
        self.deadline = inf

    # The transport's call-backs

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Begin: the constant half of the scope, and the deadline for the first request."""
        endpoint = self._endpoint
        self._transport = transport
        self._out.attach(transport)
        tls = transport.get_extra_info("ssl_object")
        self._scopes = Scopes(
            endpoint.service,
            "http" if tls is None else "https",
            transport.get_extra_info("sockname"),
            transport.get_extra_info("peername"),
            None if tls is None or endpoint.describe_tls is None else endpoint.describe_tls(tls),
        )
        endpoint.connections.add(self)
        endpoint.service.figures.connections += 1
        endpoint.service.figures.accepted += 1
        self.begun = endpoint.now
        self.deadline = monotonic() + endpoint.timeouts.header
        if endpoint.draining:
            self._engine.drain()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        """Where the loop reads into: one buffer for all connections."""
        return self._view

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - a reset is an ordinary end
        """The connection is over, both ways."""
        endpoint = self._endpoint
        self.deadline = inf
        self.phase = CLOSING
        self._transport = None
        self._out.detach()
        endpoint.connections.discard(self)
        endpoint.service.figures.connections -= 1
        self._disconnect()
        if endpoint.on_last is not None and not endpoint.connections:
            endpoint.on_last()

    def pause_writing(self) -> None:
        """Too much waits for the peer: applications wait too, and no further request is taken."""
        self._out.pause()

    def _disconnect(self) -> None:
        """Tell all applications that their client is gone."""
        cycles = list(self._cycles.values())
        self._cycles.clear()
        for cycle in cycles:
            cycle.disconnect()

    def describe(self, now: float) -> dict[str, Any]:
        """What an operator is shown of it; times are seconds, sizes are bytes."""
        transport, engine, cycles = self._transport, self._engine, self._cycles
        tls = None if transport is None else transport.get_extra_info("ssl_object")
        peer = None if transport is None else transport.get_extra_info("peername")
        host, port = peer[:2] if isinstance(peer, tuple) else ("unix", None)
        websocket = any(cycle.head.websocket for cycle in cycles.values())
        version = "h2" if engine.version == "2" else "http/1.1"
        unwritten = self._out.waiting + sum(engine.queued(stream) for stream in engine.waiting())
        # `deadline`: of a file that is on its way past the transport nothing waits in it.
        writing = unwritten > 0 or self._out.deadline < inf
        state = _STATES.get(self.phase, self.phase)
        return {
            "peer": host if port is None else f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
            "listener": self._endpoint.name,
            "protocol": "websocket" if websocket and version != "h2" else version,
            "tls": None if tls is None else tls.version(),
            "age": round(now - self.begun, 3),
            "state": "writing" if writing and self.phase in (OPENING, IDLE, SERVING) else state,
            "requests": [cycle.describe(now) for cycle in islice(cycles.values(), REQUESTS_SHOWN)],
            "in_flight": len(cycles),
            "answered": max(0, engine.seen - len(cycles)),
            "unwritten": unwritten,
        }

    # The turn's phases

    @abstractmethod
    def run(self, cycle: Cycle) -> None:
        """The turn's second phase: run the application up to its first wait."""

    @abstractmethod
    def conclude(self) -> None:
        """The turn's last phase: write what has come together."""

    def crash(self, error: Exception) -> None:
        """A fault of ours: tell it, and end this connection, whose peer would wait for ever."""
        context = {"message": "A connection could not go on", "exception": error}
        self._endpoint.loop.call_exception_handler(context)
        self.abort()

    def _make_websocket(self, head: Head) -> Cycle | None:
        """Begin what a request for a WebSocket asks for; None where it has been refused."""
        # 30 ms of the start that many never need; warm() has it.
        from appserver.asgi.websocket import WebSocketCycle  # noqa: PLC0415
        from appserver.wire.websocket_handshake import read_handshake  # noqa: PLC0415

        endpoint = self._endpoint
        service, options = endpoint.service, endpoint.service.websockets
        assert options is not None  # noqa: S101 - else no engine tells of a WebSocket
        try:
            handshake = read_handshake(head, options.origins, options.window_bits)
        except Refusal as refusal:
            status = refusal.status
            self._note_refusal(status, refusal.reason)
            self.respond(head.stream, status, answer_fields(status) + service.fields, ANSWERS[status], True)
            return None
        scope = self._scopes.make_websocket(head, handshake.subprotocols)
        cycle = WebSocketCycle(service, self, head, scope, endpoint.loop, endpoint.name, handshake, options)
        if endpoint.draining:
            cycle.leave()
        return cycle

    def _start(self, cycle: Cycle) -> None:
        endpoint = self._endpoint
        service = endpoint.service
        # Every call starts from the context that the process started with: a request that begins in the call-back of
        # another one must not see what that one has set.
        context = endpoint.context.copy()
        task: Task[None]
        if endpoint.eager:
            task = Task(cycle.run(), loop=endpoint.loop, context=context, eager_start=True)
            if task.done():
                return
        else:
            task = endpoint.loop.create_task(cycle.run(), context=context)
        cycle.task = task
        service.tasks.add(task)

    def _note_refusal(self, status: int, reason: str) -> None:
        self._endpoint.service.figures.refused += 1
        self._log(f"Refused a request: {reason}", "deadline" if status == 408 else "refused", http_status=status)

    def _refuse(self, stream: int, status: int, reason: str) -> None:
        self._note_refusal(status, reason)
        cycle = self._cycles.get(stream)
        if cycle is not None:
            cycle.refuse(status)
        else:
            fields = answer_fields(status) + self._endpoint.service.fields
            self._engine.respond(stream, status, fields, ANSWERS[status], True)

    # asgi.peer.Peer, as far as it is the same

    @abstractmethod
    def choked(self, stream: int) -> bool:
        """See `asgi.peer.Peer`."""

    @abstractmethod
    def writable(self, stream: int) -> Coroutine[Any, Any, None]:
        """See `asgi.peer.Peer`."""

    @abstractmethod
    def accept(self, stream: int, headers: Headers) -> None:
        """See `asgi.peer.Peer`."""

    @abstractmethod
    def remind(self, stream: int, when: float) -> None:
        """See `asgi.peer.Peer`."""

    @abstractmethod
    def proceed(self, stream: int) -> None:
        """See `asgi.peer.Peer`."""

    @abstractmethod
    def consumed(self, stream: int, count: int) -> None:
        """See `asgi.peer.Peer`."""

    @abstractmethod
    def respond(self, stream: int, status: int, headers: Headers, body: bytes, end: bool) -> None:
        """See `asgi.peer.Peer`."""

    @abstractmethod
    def inform(self, stream: int, status: int, headers: Headers) -> None:
        """See `asgi.peer.Peer`."""

    @abstractmethod
    def trailers(self, stream: int, headers: Headers) -> None:
        """See `asgi.peer.Peer`."""

    @abstractmethod
    def push(self, stream: int, path: bytes, headers: Headers) -> None:
        """See `asgi.peer.Peer`."""

    @abstractmethod
    def body(self, stream: int, data: bytes, end: bool) -> None:
        """See `asgi.peer.Peer`."""

    async def send_file(self, stream: int, file: int, offset: int, count: int) -> int:
        """See `asgi.peer.Peer`: read, in a thread where it is not small, and written as any other body."""
        if self.choked(stream):
            await self.writable(stream)
        if count <= SMALL_FILE:
            data = os.pread(file, count, offset)
        else:
            data = await self._endpoint.loop.run_in_executor(None, os.pread, file, min(count, PIECE_SIZE), offset)
        if stream not in self._cycles:
            raise ClientDisconnectedError("the client is gone")
        self.body(stream, data, False)
        return len(data)

    def reset(self, stream: int) -> None:
        """See `asgi.peer.Peer`."""
        self._engine.reset(stream, INTERNAL_ERROR)
        self._end(stream)

    @abstractmethod
    def _end(self, stream: int) -> None:
        """A response is complete."""

    # The end

    def _close(self) -> None:
        """End the connection so that the peer gets the last answer.

        Closing while bytes of the peer are unread, or still come, makes the kernel send a reset, which may overtake
        the answer. So only our side is shut, and what still comes is thrown away until the peer closes too or its
        time is over (RFC 9112 section 9.6).
        """
        transport = self._transport
        if transport is None:
            return
        self.phase = CLOSING
        if self._engine.abrupt:
            self._cut(transport)  # without framing only a reset tells that the body is not whole (RFC 9112 section 8)
        elif self._eof or not transport.can_write_eof():
            self._close_transport()
        else:
            self._out.watch_rest()
            self.deadline = monotonic() + PATIENCE
            with suppress(OSError):  # the peer has reset the connection: that is told in connection_lost()
                transport.write_eof()

    def _cut(self, transport: Transport) -> None:
        """End at once, by a reset: the kernel throws away what it still holds for the peer."""
        with suppress(OSError, AttributeError):  # a TLS transport that has ended a moment ago has no socket any more
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        transport.abort()

    def _close_transport(self) -> None:
        """Close once what is written has left; the peer has its time to take that, and no more."""
        self.phase, self.deadline = CLOSING, monotonic() + PATIENCE
        self._out.close()

    @abstractmethod
    def drain(self) -> None:
        """Answer what comes once more, then close; an idle connection gets the linger time for it."""

    def finish(self) -> None:
        """Answer 503 in the place of applications that still run, and end once that has left."""
        for cycle in list(self._cycles.values()):
            cycle.refuse(503)
        self.conclude()
        self._close_transport()

    def abort(self) -> None:
        """End at once."""
        if self._transport is not None:
            with suppress(AttributeError):  # Debian 12's asyncio: of a TLS transport that has ended a moment ago
                self._transport.abort()

    # Deadlines

    def is_due(self, now: float) -> bool:
        """Whether a deadline has passed."""
        return now > self.deadline or now > self._out.deadline

    def expire(self, now: float) -> None:
        """A deadline has passed: see whether the peer has earned more time, else end the connection."""
        transport = self._transport
        if transport is None:
            return
        if self._out.is_too_slow(now):
            self._log("Cut a connection: the client reads too slowly", "deadline", bytes_unread=self._out.waiting)
            self._cut(transport)
        elif now <= self.deadline:
            return
        elif self.phase is CLOSING:
            # A TLS transport waits for the peer's farewell (close_notify), and many peers never say it.
            if self._out.delivered:
                transport.abort()
            else:
                self.deadline = now + PATIENCE
        else:
            self._expire(now)

    @abstractmethod
    def _expire(self, now: float) -> None:
        """The phase's deadline has passed."""

    def _patience(self) -> float:
        """Until when an application may answer without a word about its client.

        For ever, unless the peer has ended its input: most who do are gone, and some wait for their answer (RFC 9112
        section 9.6); it cannot be told which. Applications give up when they hear of it, so they get a while first.
        """
        return monotonic() + PATIENCE if self._eof else inf

    def _log(self, event: str, code: str, **fields: Any) -> None:
        endpoint = self._endpoint
        endpoint.service.log.info(event, code=code, client_addr=self._scopes.client, listener=endpoint.name, **fields)
