"""One client connection: the only asyncio protocol there is, for every HTTP version.

It moves bytes between a transport and an engine, events between the engine and the cycles, and keeps three things
that neither knows of: how much may be held (back-pressure), how long a peer may take (deadlines), and how a
connection ends without losing the last answer (`_close`).

    phase     waits for                          deadline
    OPENING   the first byte                     header
    IDLE      the next request                   keep-alive; linger while draining
    HEAD      the rest of a head                 header, from its first byte
    BODY      the rest of a body                 body, renewed while the peer keeps the minimum rate
    SERVING   the application                    none; linger once the peer has ended its input
    CLOSING   the peer's end, after ours         linger

A peer that reads too slowly has a deadline of its own in whatever phase; `net.flow` keeps it.
"""

import os
import socket
import struct
from asyncio import BufferedProtocol, Task, Transport
from collections.abc import Coroutine
from contextlib import suppress
from math import inf
from time import monotonic
from typing import Any, Final

from appserver.asgi.answers import ANSWERS, answer_fields
from appserver.asgi.http import HttpCycle
from appserver.asgi.scope import Scopes
from appserver.errors import ClientDisconnectedError
from appserver.net.endpoint import Endpoint
from appserver.net.flow import HIGH_WATER, Outflow
from appserver.wire.engine import Body, Event, Head, Headers, Refused, Reset

OPENING: Final = "opening"
IDLE: Final = "idle"
HEAD: Final = "head"
BODY: Final = "body"
SERVING: Final = "serving"
CLOSING: Final = "closing"

PIECE_SIZE: Final = 128 * 1024
"""Bytes of a file that are read at once where they cannot be sent past the engine."""

READ_AHEAD: Final = 192 * 1024
"""Bytes of a request's body that wait for the application before the peer has to. With 64 KiB, one read, each read was
followed by a pause: 10 MiB cost 5.2 ms of CPU and not 2.1."""

SMALL_FILE: Final = 64 * 1024
"""Bytes up to which a file is read and written with the head, in one piece: half of what sendfile(2) would cost."""

_NO_LINGER: Final = struct.pack("ii", 1, 0)
_HEAD_SIZE: Final = 256  # about what the head of an answer takes, for counting what is collected


class Connection(BufferedProtocol):
    """Serves one client; implements `asgi.peer.Peer`."""

    __slots__ = (
        "_answer",
        "_collected",
        "_corked",
        "_cycles",
        "_ended",
        "_endpoint",
        "_engine",
        "_eof",
        "_handling",
        "_mark",
        "_out",
        "_paused",
        "_received",
        "_scopes",
        "_transport",
        "_turn",
        "_view",
        "deadline",
        "phase",
    )

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._engine = endpoint.make_engine()
        self._view = memoryview(endpoint.buffer)
        self._out = Outflow(endpoint.loop, endpoint.timeouts)
        self._transport: Transport | None = None
        self._cycles: dict[int, HttpCycle] = {}
        self._scopes: Scopes
        self._turn = endpoint.turn
        self._answer: tuple[int, int, Headers, bytes] | None = None  # of a response that has ended in this turn
        self._corked = self._handling = self._ended = self._paused = self._eof = False
        self._received = self._mark = self._collected = 0
        self.phase = OPENING
        self.deadline = inf

    # The transport's call-backs

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Begin: the constant half of the scope, and the deadline for the first request."""
        endpoint = self._endpoint
        self._transport = transport
        self._out.attach(transport)
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
        if self.phase is CLOSING or self._endpoint.cutting:
            return  # read only so that the kernel does not answer with a reset and take our last answer with it
        if self._ended:
            self.conclude()  # before the engine sees anything behind the request that it belongs to
        self._received += nbytes
        events = self._engine.receive(self._view[:nbytes].tobytes())
        if len(events) == 1 and type(events[0]) is Head:
            self._begin(events[0], fresh=True)  # what nearly all reads are: there is nothing to write yet
        else:
            self._handle(events, fresh=True)

    def eof_received(self) -> bool:
        """The peer has shut its sending side; it may still read."""
        self._eof = True
        if self.phase is CLOSING:
            return False
        if self._ended:
            self.conclude()
        self._handle(self._engine.eof())
        return True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - a reset is an ordinary end
        """The connection is over, both ways."""
        endpoint = self._endpoint
        self.deadline = inf
        self.phase = CLOSING
        self._transport = None
        self._out.detach()
        endpoint.connections.discard(self)
        endpoint.service.figures.connections -= 1
        for cycle in list(self._cycles.values()):
            cycle.disconnect()
        self._cycles.clear()
        if endpoint.on_last is not None and not endpoint.connections:
            endpoint.on_last()

    def pause_writing(self) -> None:
        """Too much waits for the peer: applications wait too, and no further request is taken."""
        self._out.pause()

    def resume_writing(self) -> None:
        """The peer has taken what waited."""
        self._out.resume()
        if not self._cycles and self.phase is not CLOSING and not self._corked:
            self._handle([])

    # Events

    def _handle(self, events: list[Event], *, fresh: bool = False) -> None:
        """Take the engine's events, and those of pipelined requests as responses end; then write once.

        Args:
            events: What the engine has given.
            fresh: They were read just now, and applications have time until everything has been that can be.
        """
        self._corked = self._handling = True
        try:
            if self._answer is not None:
                self._write_answer()
            while True:
                for event in events:
                    if type(event) is Head:
                        self._begin(event, fresh=fresh and type(events[-1]) is not Refused)
                    else:
                        self._dispatch(event)
                # Whoever pipelines and does not read gets no more answers made than the buffer takes.
                if self._collected >= HIGH_WATER:
                    self._flush()
                if not self._ended:
                    break
                self._ended = False
                engine = self._engine
                if not engine.pending:
                    break
                if engine.closing or self._out.paused or self._endpoint.cutting:
                    self._ended = True
                    break
                events, fresh = engine.receive(b""), False
        finally:
            self._corked = self._handling = False
        self._settle()

    def _dispatch(self, event: Event) -> None:
        if isinstance(event, Body):
            cycle = self._cycles.get(event.stream)
            if event.end:
                self.phase, self.deadline = SERVING, self._patience()
            if cycle is not None:
                cycle.feed(event.data, event.end)
        elif isinstance(event, Refused):
            self._refuse(event.stream, event.status, event.reason)
        elif isinstance(event, Reset):
            cycle = self._cycles.pop(event.stream, None)
            if cycle is not None:
                cycle.disconnect()
        elif self._cycles:  # Closed
            self.deadline = self._patience()

    def _begin(self, head: Head, *, fresh: bool) -> None:
        endpoint = self._endpoint
        cycle = HttpCycle(endpoint.service, self, head, self._scopes.make(head), endpoint.loop, endpoint.name)
        self._cycles[head.stream] = cycle
        if head.end:
            self.phase, self.deadline = SERVING, self._patience()
        else:
            self.phase = BODY
            # A client that waits for 100 Continue has nothing to send yet: its time begins in proceed().
            self.deadline = inf if head.expects else self._body_deadline()
        if fresh and endpoint.eager:
            self._turn.begin(self, cycle)
        else:  # a task that is not eager waits for the next turn anyway
            self._start(cycle)

    def run(self, cycle: HttpCycle) -> None:
        """The turn's second phase: run the application, and collect what it sends before its first wait."""
        if cycle.head.stream not in self._cycles or self._endpoint.cutting:
            return  # refused since, or to be; or the client has gone
        self._corked = True
        try:
            self._start(cycle)
        finally:
            self._corked = False
        if self._collected:
            self._flush()

    def _start(self, cycle: HttpCycle) -> None:
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

    def _refuse(self, stream: int, status: int, reason: str) -> None:
        self._endpoint.service.figures.refused += 1
        self._log(f"Refused a request: {reason}", "deadline" if status == 408 else "refused", http_status=status)
        cycle = self._cycles.get(stream)
        if cycle is not None:
            cycle.refuse(status)
        else:
            fields = answer_fields(status) + self._endpoint.service.fields
            self._engine.respond(stream, status, fields, ANSWERS[status], True)

    # asgi.peer.Peer

    @property
    def choked(self) -> bool:
        """See `asgi.peer.Peer`."""
        return self._out.choked

    def writable(self) -> Coroutine[Any, Any, None]:
        """See `asgi.peer.Peer`."""
        return self._out.writable()

    def proceed(self, stream: int) -> None:
        """See `asgi.peer.Peer`."""
        self._engine.inform(stream, 100, [])
        if self.phase is BODY and self.deadline == inf:
            self.deadline = self._body_deadline()
        self._flush()

    def consumed(self, stream: int, count: int) -> None:
        """See `asgi.peer.Peer`."""
        self._engine.consumed(stream, count)
        if self._paused and not self._is_full():
            self._resume_reading()

    def respond(self, stream: int, status: int, headers: Headers, body: bytes, end: bool) -> None:
        """See `asgi.peer.Peer`."""
        if end and not self._handling:
            self._answer = stream, status, headers, body
            self._end(stream)
            return
        self._engine.respond(stream, status, headers, body, end)
        self._collected += len(body) + _HEAD_SIZE
        if end:
            self._end(stream)
        elif not self._corked or self._collected >= HIGH_WATER:
            self._flush()

    def body(self, stream: int, data: bytes, end: bool) -> None:
        """See `asgi.peer.Peer`."""
        self._engine.body(stream, data, end)
        self._collected += len(data)
        if end:
            self._end(stream)
        elif not self._corked or self._collected >= HIGH_WATER:
            self._flush()

    async def send_file(self, stream: int, file: int, offset: int, count: int) -> int:
        """See `asgi.peer.Peer`: by sendfile(2) where the bytes go to the socket as they are, else read in a thread."""
        if count <= SMALL_FILE:
            if self._out.choked:
                await self._out.writable()
                if stream not in self._cycles:
                    raise ClientDisconnectedError("the client is gone")
            data = os.pread(file, count, offset)
            self.body(stream, data, False)
            return len(data)
        self._flush()
        if self._engine.raw(stream) and not self._out.encrypted:
            return await self._out.send_file(file, offset, count)
        if self._out.choked:
            await self._out.writable()
        data = await self._endpoint.loop.run_in_executor(None, os.pread, file, min(count, PIECE_SIZE), offset)
        if stream not in self._cycles:
            raise ClientDisconnectedError("the client is gone")
        self.body(stream, data, False)
        return len(data)

    def reset(self, stream: int) -> None:
        """See `asgi.peer.Peer`."""
        self._engine.reset(stream, 0)
        self._end(stream)

    def _end(self, stream: int) -> None:
        """A response is complete: on to the next request, in this call-back's loop or at the end of the turn."""
        self._cycles.pop(stream, None)
        self._ended = True
        if not self._handling:
            self._turn.end(self)

    def conclude(self) -> None:
        """The turn's last phase: write the response that has ended, and go on to what came behind its request."""
        if self._transport is None or self.phase is CLOSING:
            return  # nothing more is begun on a connection that is over
        if self._engine.pending:
            self._handle([])
        else:
            self._write_answer()
            self._ended = False
            self._settle()

    def crash(self, error: Exception) -> None:
        """A fault of ours: tell it, and end this connection, whose peer would wait for ever."""
        context = {"message": "A connection could not go on", "exception": error}
        self._endpoint.loop.call_exception_handler(context)
        self.abort()

    def _write_answer(self) -> None:
        """Hand over the response that was held until the turn's last phase, if there is one."""
        answer, self._answer = self._answer, None
        if answer is not None:
            self._engine.respond(*answer, True)
            self._collected += len(answer[3]) + _HEAD_SIZE

    # Flow and end

    def _flush(self) -> None:
        self._collected = 0
        pieces = self._engine.take()
        if pieces:
            self._out.write(pieces)

    def _settle(self) -> None:
        """After a round of events: write, and set phase and deadline for what is waited for now."""
        self._flush()
        if self._transport is None or self.phase is CLOSING:
            return
        engine = self._engine
        if self._cycles:
            if self._is_full():
                self._pause_reading()
            elif self._paused:
                self._resume_reading()
            return
        if engine.closing:
            self._close()
            return
        if self._out.paused and self.phase is not BODY:
            # No more requests until the peer has read its answers: resume_writing(). But a body that is thrown away is
            # read on, for clients that look at no answer before they have sent everything.
            self._pause_reading()
            return
        if self._paused:
            self._resume_reading()
        timeouts = self._endpoint.timeouts
        phase = self.phase
        if engine.idle:
            # Not set anew where nothing but an empty line came: that would be a way to stay for ever.
            if phase is not OPENING and phase is not IDLE:
                self.phase = IDLE
                self.deadline = monotonic() + (timeouts.linger if self._endpoint.draining else timeouts.keep_alive)
        elif phase is OPENING:
            self.phase = HEAD  # with the deadline that has run since the connection began
        elif phase in (IDLE, SERVING) or (phase is BODY and engine.pending):
            self.phase, self.deadline = HEAD, monotonic() + timeouts.header

    def _is_full(self) -> bool:
        """As much waits for applications as may be held; beyond it the peer's own buffers have to hold it."""
        if self.phase is SERVING and self._engine.pending >= HIGH_WATER:
            return True  # pipelined requests
        return any(cycle.unread >= READ_AHEAD for cycle in self._cycles.values())

    def _patience(self) -> float:
        """Until when an application may answer without a word about its client.

        For ever, unless the peer has ended its input: most who do are gone, and some wait for their answer (RFC 9112
        section 9.6); it cannot be told which. Applications give up when they hear of it, so they get a while first.
        """
        return monotonic() + self._endpoint.timeouts.linger if self._eof else inf

    def _body_deadline(self) -> float:
        self._mark = self._received
        return monotonic() + self._endpoint.timeouts.body

    def _pause_reading(self) -> None:
        if not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
            if self.phase is BODY:
                self.deadline = self._body_deadline()  # the application was slow, not the peer

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
        elif self._eof or not transport.can_write_eof():
            self._close_transport()
        else:
            self._out.watch_rest()
            self.deadline = monotonic() + self._endpoint.timeouts.linger
            with suppress(OSError):  # the peer has reset the connection: that is told in connection_lost()
                transport.write_eof()

    def _close_transport(self) -> None:
        """Close once what is written has left; the peer has its time to take that, and no more."""
        self.phase, self.deadline = CLOSING, inf
        self._out.watch_rest()
        if self._transport is not None:
            self._transport.close()

    def drain(self) -> None:
        """Answer what comes once more, then close; an idle connection gets the linger time for it."""
        self._engine.drain()
        if self.phase in (IDLE, OPENING):
            self.deadline = min(self.deadline, monotonic() + self._endpoint.timeouts.linger)

    def finish(self) -> None:
        """Answer 503 in the place of applications that still run, and end once that has left."""
        for cycle in list(self._cycles.values()):
            cycle.refuse(503)
        self.conclude()
        self._close_transport()

    def abort(self) -> None:
        """End at once."""
        if self._transport is not None:
            self._transport.abort()

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
            transport.abort()
        elif now <= self.deadline:
            return
        elif self.phase is BODY:
            timeouts = self._endpoint.timeouts
            if self._paused or self._received - self._mark >= timeouts.min_rate * timeouts.body:
                self.deadline = self._body_deadline()
            else:
                self._time_out("its body arrives too slowly")
        elif self.phase is HEAD:
            self._time_out("its head did not arrive in time")
        elif self.phase is SERVING:
            self.deadline = inf
            for cycle in self._cycles.values():
                cycle.half_close()
        elif self.phase is CLOSING:
            if not self._out.waiting:
                transport.abort()
        else:
            if self.phase is OPENING and not self._endpoint.draining:
                self._log("Closed a connection: the client sent nothing", "deadline")
            self._close_transport()

    def _time_out(self, reason: str) -> None:
        """Answer 408 where an answer can still be given (RFC 9110 section 15.5.9)."""
        self.deadline = inf
        if self._ended:
            self.conclude()
        if self.phase is not CLOSING:
            self._handle(self._engine.refuse(408, reason))

    def _log(self, event: str, code: str, **fields: Any) -> None:
        endpoint = self._endpoint
        endpoint.service.log.info(event, code=code, client_addr=self._scopes.client, listener=endpoint.name, **fields)
