"""One client connection: the only asyncio protocol there is, for every HTTP version.

It moves bytes between a transport and an engine, events between the engine and the cycles, and keeps three things
that neither knows of: how much may be held (back-pressure), how long a peer may take (deadlines), and how a
connection ends without losing the last answer (`_close`).

    phase     waits for                          deadline
    OPENING   the first byte                     header
    IDLE      the next request                   keep-alive; linger while draining
    HEAD      the rest of a head                 header, from its first byte
    BODY      the rest of a body                 body, renewed while the peer keeps the minimum rate
    SERVING   the application                    none
    CLOSING   the peer's end, after ours         linger

A peer that reads too slowly has a deadline of its own, `write_deadline`, in whatever phase.
"""

import socket
import struct
from asyncio import BufferedProtocol, Future, Task, Transport
from math import inf
from time import monotonic
from typing import Any, Final

from appserver.asgi.http import ANSWERS, HttpCycle, answer_fields
from appserver.asgi.scope import Scopes
from appserver.errors import ClientDisconnectedError
from appserver.net.endpoint import Endpoint
from appserver.wire.engine import Body, Closed, Event, Head, Headers, Refused, Reset

HIGH_WATER: Final = 64 * 1024
"""Bytes held in either direction before the other side has to wait. With one read of 64 KiB on top and one message of
the application, a connection holds at most 192 KiB."""

OPENING: Final = "opening"
IDLE: Final = "idle"
HEAD: Final = "head"
BODY: Final = "body"
SERVING: Final = "serving"
CLOSING: Final = "closing"

_NO_LINGER: Final = struct.pack("ii", 1, 0)


class Connection(BufferedProtocol):
    """Serves one client; implements `asgi.http.Peer`."""

    __slots__ = (
        "_corked",
        "_cycles",
        "_ended",
        "_endpoint",
        "_engine",
        "_eof",
        "_mark",
        "_paused",
        "_received",
        "_scopes",
        "_transport",
        "_view",
        "_waiters",
        "_write_mark",
        "_written",
        "choked",
        "deadline",
        "phase",
        "write_deadline",
    )

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._engine = endpoint.make_engine()
        self._view = memoryview(endpoint.buffer)
        self._transport: Transport | None = None
        self._cycles: dict[int, HttpCycle] = {}
        self._scopes: Scopes
        self._corked = self._ended = self._paused = self._eof = False
        self._received = self._mark = self._written = self._write_mark = 0
        self._waiters: list[Future[None]] = []
        self.choked = False
        self.phase = OPENING
        self.deadline = self.write_deadline = inf

    # The transport's call-backs

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Begin: the constant half of the scope, and the deadline for the first request."""
        endpoint = self._endpoint
        self._transport = transport
        transport.set_write_buffer_limits(high=HIGH_WATER)
        self._scopes = Scopes(
            endpoint.service, "http", transport.get_extra_info("sockname"), transport.get_extra_info("peername")
        )
        endpoint.connections.add(self)
        endpoint.service.figures.connections += 1
        self.deadline = monotonic() + endpoint.timeouts.header
        if endpoint.draining:
            self._engine.drain()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        """Where the loop reads into: one buffer for all connections."""
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have come."""
        if self.phase is CLOSING:
            return  # read only so that the kernel does not answer with a reset and take our last answer with it
        self._received += nbytes
        self._handle(self._engine.receive(bytes(self._view[:nbytes])))

    def eof_received(self) -> bool:
        """The peer has shut its sending side; it may still read."""
        self._eof = True
        if self.phase is CLOSING:
            return False
        self._handle(self._engine.eof())
        return True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - a reset is an ordinary end
        """The connection is over, both ways."""
        self.deadline = self.write_deadline = inf
        self._transport = None
        self.phase = CLOSING
        for cycle in list(self._cycles.values()):
            cycle.disconnect()
        self._cycles.clear()
        self.resume_writing()
        endpoint = self._endpoint
        if self in endpoint.connections:
            endpoint.connections.discard(self)
            endpoint.service.figures.connections -= 1
            if endpoint.on_last is not None and not endpoint.connections:
                endpoint.on_last()

    def pause_writing(self) -> None:
        """More than `HIGH_WATER` bytes wait for the peer: applications wait too, and the peer's time runs."""
        self.choked = True
        self._watch_writing()

    def resume_writing(self) -> None:
        """The peer has taken what waited."""
        self.choked = False
        self.write_deadline = inf
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    # Events

    def _handle(self, events: list[Event]) -> None:
        """Take the engine's events, and those of pipelined requests as responses end; then write once."""
        self._corked = True
        try:
            while True:
                for event in events:
                    self._take(event)
                if not self._ended or self._engine.closing:
                    break
                self._ended = False
                events = self._engine.receive(b"")
        finally:
            self._corked = False
        self._settle()

    def _take(self, event: Event) -> None:
        if isinstance(event, Head):
            self._begin(event)
        elif isinstance(event, Body):
            cycle = self._cycles.get(event.stream)
            if event.end:
                self.phase, self.deadline = SERVING, inf
            if cycle is not None:
                cycle.feed(event.data, event.end)
                if cycle.unread >= HIGH_WATER:
                    self._pause_reading()
        elif isinstance(event, Refused):
            self._refuse(event.stream, event.status, event.reason)
        elif isinstance(event, Reset):
            cycle = self._cycles.pop(event.stream, None)
            if cycle is not None:
                cycle.disconnect()
        elif isinstance(event, Closed):
            for cycle in self._cycles.values():
                cycle.half_close()

    def _begin(self, head: Head) -> None:
        endpoint = self._endpoint
        service = endpoint.service
        cycle = HttpCycle(service, self, head, self._scopes.make(head), endpoint.loop, endpoint.name)
        self._cycles[head.stream] = cycle
        if head.end:
            self.phase, self.deadline = SERVING, inf
        else:
            self.phase, self._mark = BODY, self._received
            self.deadline = monotonic() + endpoint.timeouts.body
        task: Task[None]
        if endpoint.eager:
            task = Task(cycle.run(), loop=endpoint.loop, eager_start=True)
            if task.done():
                return
        else:
            task = endpoint.loop.create_task(cycle.run())
        service.tasks.add(task)
        task.add_done_callback(service.tasks.discard)

    def _refuse(self, stream: int, status: int, reason: str) -> None:
        self._endpoint.service.figures.refused += 1
        self._log(f"Refused a request: {reason}", "deadline" if status == 408 else "refused", http_status=status)
        cycle = self._cycles.get(stream)
        if cycle is not None:
            cycle.refuse(status)
        else:
            self._answer(stream, status)

    def _answer(self, stream: int, status: int) -> None:
        fields = answer_fields(status) + self._endpoint.service.fields
        self._engine.respond(stream, status, fields, ANSWERS[status], True)

    # asgi.http.Peer

    async def writable(self) -> None:
        """See `asgi.http.Peer`.

        Raises:
            ClientDisconnectedError: The client went away meanwhile.
        """
        while self.choked:
            waiter: Future[None] = self._endpoint.loop.create_future()
            self._waiters.append(waiter)
            await waiter
        if self._transport is None:
            raise ClientDisconnectedError("the client is gone")

    def proceed(self, stream: int) -> None:
        """See `asgi.http.Peer`."""
        self._engine.inform(stream, 100, [])
        self._flush()

    def consumed(self, stream: int, count: int) -> None:
        """See `asgi.http.Peer`."""
        self._engine.consumed(stream, count)
        if self._paused and all(cycle.unread < HIGH_WATER for cycle in self._cycles.values()):
            self._resume_reading()

    def respond(self, stream: int, status: int, headers: Headers, body: bytes, end: bool) -> None:
        """See `asgi.http.Peer`."""
        self._engine.respond(stream, status, headers, body, end)
        if end:
            self._end(stream)
        elif not self._corked or len(body) >= HIGH_WATER:
            self._flush()

    def body(self, stream: int, data: bytes, end: bool) -> None:
        """See `asgi.http.Peer`."""
        self._engine.body(stream, data, end)
        if end:
            self._end(stream)
        else:
            # Also while corked: an application that streams before it first waits would fill the memory otherwise.
            self._flush()

    def reset(self, stream: int) -> None:
        """See `asgi.http.Peer`."""
        self._engine.reset(stream, 0)
        self._end(stream)

    def _end(self, stream: int) -> None:
        """A response is complete: on to the next request, at once or when the present call-back is through."""
        self._cycles.pop(stream, None)
        self._ended = True
        if not self._corked:
            self._handle([])

    # Flow and end

    def _flush(self) -> None:
        data = self._engine.take()
        transport = self._transport
        if data and transport is not None:
            self._written += len(data)
            transport.write(data)

    def _settle(self) -> None:
        """After a round of events: write, and set phase and deadline for what is waited for now."""
        self._flush()
        transport = self._transport
        if transport is None or self.phase is CLOSING:
            return
        engine = self._engine
        if self._cycles:
            # What is pipelined waits in the engine; beyond the mark the peer's own buffers have to hold it.
            if self.phase is SERVING and engine.pending >= HIGH_WATER:
                self._pause_reading()
            return
        if engine.closing:
            self._close()
            return
        if self._paused:
            self._resume_reading()
        timeouts = self._endpoint.timeouts
        if engine.idle:
            # Not set anew where nothing but an empty line came: that would be a way to stay for ever.
            if self.phase is not OPENING and self.phase is not IDLE:
                self.phase = IDLE
                self.deadline = monotonic() + (timeouts.linger if self._endpoint.draining else timeouts.keep_alive)
        elif self.phase is OPENING:
            self.phase = HEAD  # with the deadline that has run since the connection began
        elif self.phase in (IDLE, SERVING):
            self.phase, self.deadline = HEAD, monotonic() + timeouts.header

    def _pause_reading(self) -> None:
        if not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
            if self.phase is BODY:
                # The application was slow, not the peer.
                self._mark = self._received
                self.deadline = monotonic() + self._endpoint.timeouts.body

    def _watch_writing(self) -> None:
        transport = self._transport
        if transport is not None:
            self._write_mark = self._written - transport.get_write_buffer_size()
            self.write_deadline = monotonic() + self._endpoint.timeouts.write

    def _close(self) -> None:
        """End the connection so that the peer gets the last answer.

        Closing while bytes of the peer are unread, or still come, makes the kernel send a reset, which may overtake
        the answer. So only our side is shut, and what still comes is thrown away until the peer closes too or the
        linger time is over (RFC 9112 section 9.6).
        """
        transport = self._transport
        if transport is None:
            return
        self.phase = CLOSING
        self._resume_reading()
        if self._engine.abrupt:
            # Without framing only a reset tells the peer that the body is not whole (RFC 9112 section 8).
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            transport.abort()
            return
        if transport.get_write_buffer_size():
            self._watch_writing()
        if self._eof or not transport.can_write_eof():
            self.deadline = inf
            transport.close()
        else:
            self.deadline = monotonic() + self._endpoint.timeouts.linger
            transport.write_eof()

    def drain(self) -> None:
        """Answer what comes once more, then close; an idle connection gets the linger time for it."""
        self._engine.drain()
        if self.phase in (IDLE, OPENING):
            self.deadline = min(self.deadline, monotonic() + self._endpoint.timeouts.linger)

    def finish(self) -> None:
        """Answer 503 in the place of applications that still run, and end once that has left."""
        for cycle in list(self._cycles.values()):
            cycle.refuse(503)
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End at once."""
        if self._transport is not None:
            self._transport.abort()

    def expire(self, now: float) -> None:
        """A deadline has passed: see whether the peer has earned more time, else end the connection."""
        timeouts = self._endpoint.timeouts
        transport = self._transport
        if transport is None:
            return
        if now > self.write_deadline:
            taken = self._written - transport.get_write_buffer_size() - self._write_mark
            if taken >= timeouts.min_rate * timeouts.write:
                self._watch_writing()
                return
            self._log("Cut a connection: the client reads too slowly", "deadline", bytes_taken=taken)
            transport.abort()
        elif self.phase is BODY:
            if self._paused or self._received - self._mark >= timeouts.min_rate * timeouts.body:
                self._mark = self._received
                self.deadline = now + timeouts.body
                return
            self._time_out("its body arrives too slowly")
        elif self.phase is HEAD:
            self._time_out("its head did not arrive in time")
        elif self.phase is CLOSING:
            if transport.get_write_buffer_size() == 0:
                transport.abort()
        else:
            if self.phase is OPENING and not self._endpoint.draining:
                self._log("Closed a connection: the client sent nothing", "deadline")
            self.phase, self.deadline = CLOSING, inf
            transport.close()

    def _time_out(self, reason: str) -> None:
        """Answer 408 where an answer can still be given (RFC 9110 section 15.5.9)."""
        self.deadline = inf
        self._handle(self._engine.refuse(408, reason))

    def _log(self, event: str, code: str, **fields: Any) -> None:
        endpoint = self._endpoint
        endpoint.service.log.info(event, code=code, client_addr=self._scopes.client, listener=endpoint.name, **fields)
