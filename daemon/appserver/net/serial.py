"""A connection that serves one request after the other: HTTP/1.1."""

import os
import select
from asyncio import Transport
from collections.abc import Coroutine
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from appserver.asgi.cycle import Cycle
from appserver.asgi.http import HttpCycle
from appserver.net.connection import (
    BODY,
    CLOSING,
    HEAD,
    IDLE,
    OPENING,
    PATIENCE,
    SERVING,
    SMALL_FILE,
    WEBSOCKET,
    Connection,
)
from appserver.net.endpoint import Endpoint
from appserver.net.flow import HIGH_WATER
from appserver.wire.engine import Body, Event, Head, Headers, Refused, Switch

if TYPE_CHECKING:
    from appserver.net.multiplexed import MultiplexedConnection

STEPS_A_TURN: Final = 16
"""Pipelined requests, or pieces of a body in many small chunks, that are handled in one turn of the loop: with small
applications less than a millisecond's work. Who sends more at once waits for his next turn, as others do for theirs."""

_HEAD_SIZE: Final = 256  # about what the head of an answer takes, for counting what is collected


class SerialConnection(Connection):
    """Serves one client, one request at a time."""

    __slots__ = (
        "_answer",
        "_collected",
        "_corked",
        "_ended",
        "_handling",
        "_mark",
        "_paused",
        "_received",
        "_resting",
        "_tunnel",
    )

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint, endpoint.make_engine())
        self._answer: tuple[int, int, Headers, bytes] | None = None  # of a response that has ended in this turn
        self._corked = self._handling = self._ended = self._paused = False
        self._resting = False  # the rest of what has come waits for the loop's next turn, and reading with it
        self._received = self._mark = self._collected = 0
        self._tunnel: Cycle | None = None  # a WebSocket whose bytes pass as they are, past the engine

    # The transport's call-backs

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Begin; in HTTP/2 where TLS has agreed on it (RFC 9113 section 3.2)."""
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() == "h2":
            successor = self._make_successor(transport)
            if successor is not None:
                successor.connection_made(transport)
                return
        super().connection_made(transport)

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have come."""
        if self.phase is CLOSING or self._endpoint.cutting:
            return  # read only so that the kernel does not answer with a reset and take our last answer with it
        if self._ended:
            self.conclude()  # before the engine sees anything behind the request that it belongs to
        self._received += nbytes
        self._endpoint.service.figures.bytes_received += nbytes
        data = self._view[:nbytes].tobytes()
        tunnel = self._tunnel
        if tunnel is not None:
            tunnel.feed(data, False)
            if tunnel.unread and tunnel.full:
                self._pause_reading()
            return
        events = self._engine.receive(data)
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
        if not self._resting:  # else it stands behind what waits: _read_on()
            self._handle(self._engine.eof())
        # Over TLS there is no half: asyncio closes whatever it is told, and warns of a yes.
        return self._transport is not None and self._transport.can_write_eof()

    def resume_writing(self) -> None:
        """The peer has taken what waited."""
        self._out.resume()
        # With a cycle, what has not been handled are frames that came before their WebSocket was there.
        if (self._ended or not self._cycles) and self.phase is not CLOSING and not (self._corked or self._resting):
            self._turn.end(self)  # in its own time: an answer that ends the connection would end it twice (asyncio)

    # Events

    def _handle(self, events: list[Event], *, fresh: bool = False) -> None:
        """Take the engine's events, and a turn's worth of what was kept behind them; then write once.

        Args:
            events: What the engine has given.
            fresh: They were read just now, and applications have time until everything has been that can be.
        """
        self._corked = self._handling = True
        engine, steps = self._engine, STEPS_A_TURN
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
                if not self._ended and not engine.more:
                    break
                self._ended = False
                if not engine.pending:
                    break
                steps -= 1
                if (
                    not steps
                    or engine.closing
                    # A body is taken though its client reads nothing: it may look at no answer before it has sent all.
                    or (self._out.paused and not engine.more)
                    or self._endpoint.cutting
                ):
                    self._ended = True
                    break
                events, fresh = engine.receive(b""), False
        finally:
            self._corked = self._handling = False
        if steps:
            self._settle()
            self._resting = False
        else:
            self._rest()

    def _rest(self) -> None:
        """Others have their turn before the rest is handled."""
        self._flush()
        self._pause_reading()
        self._resting = True
        self._endpoint.loop.call_soon(self._read_on, context=self._endpoint.context)

    def _read_on(self) -> None:
        """Handle the rest of a read that brought very much, a turn's worth at a time."""
        if self._transport is None or self.phase is CLOSING:
            return
        try:
            self._handle([])
            if self._eof and not self._resting and self.phase is not CLOSING:
                self._handle(self._engine.eof())
        except Exception as error:  # noqa: BLE001 - of ours; its client would wait for ever
            self.crash(error)

    def _dispatch(self, event: Event) -> None:
        if isinstance(event, Body):
            cycle = self._cycles.get(event.stream)
            if event.end:
                self.phase, self.deadline = SERVING, self._patience()
            if cycle is not None:
                if self.phase is WEBSOCKET:
                    self._tunnel = cycle
                cycle.feed(event.data, event.end)
        elif isinstance(event, Refused):
            self._refuse(event.stream, event.status, event.reason)
        elif isinstance(event, Switch):
            self._switch(event)
        elif self.phase is WEBSOCKET:  # Closed: there is no half of it
            for cycle in list(self._cycles.values()):
                cycle.half_close()
        elif self._cycles:
            self.deadline = self._patience()

    def _begin(self, head: Head, *, fresh: bool) -> None:
        endpoint = self._endpoint
        cycle: Cycle | None
        if head.end:
            self.phase, self.deadline = SERVING, self._patience() if self._eof else inf
        else:
            self.phase = BODY
            # A client that waits for 100 Continue has nothing to send yet: its time begins in proceed().
            self.deadline = inf if head.expects else self._body_deadline()
        if head.websocket:
            cycle = self._make_websocket(head)  # which sets the deadline
            if cycle is None:
                return
            self.phase = WEBSOCKET
        else:
            cycle = HttpCycle(endpoint.service, self, head, self._scopes.make(head), endpoint.loop, endpoint.name)
        self._cycles[head.stream] = cycle
        if fresh and endpoint.eager:
            self._turn.begin(self, cycle)
        else:  # a task that is not eager waits for the next turn anyway
            self._start(cycle)

    def _switch(self, switch: Switch) -> None:
        """Go on in HTTP/2: another connection takes the transport over."""
        self._flush()
        transport = self._transport
        if transport is None:
            return
        successor = self._make_successor(transport)
        if successor is not None:
            self._endpoint.connections.discard(self)
            self._out.detach()
            self._transport = None
            self.phase, self.deadline = CLOSING, inf
            successor.begun = self.begun
            successor.take_over(transport, self._scopes, switch)

    def _make_successor(self, transport: Transport) -> "MultiplexedConnection | None":
        """Hand the transport to a connection that speaks HTTP/2; None where that is not served."""
        from appserver.net.multiplexed import MultiplexedConnection  # noqa: PLC0415 - 5 ms of the start; warm() has it

        endpoint = self._endpoint
        if endpoint.make_http2 is None:
            return None
        successor = MultiplexedConnection(endpoint, endpoint.make_http2())
        transport.set_protocol(successor)
        return successor

    def run(self, cycle: Cycle) -> None:
        """See `Connection`: what the application sends before its first wait is collected."""
        if cycle.head.stream not in self._cycles or self._endpoint.cutting:
            return  # refused since, or to be; or the client has gone
        self._corked = True
        try:
            self._start(cycle)
        finally:
            self._corked = False
        if self._collected:
            self._flush()

    # asgi.peer.Peer

    def choked(self, stream: int) -> bool:  # noqa: ARG002 - the connection is the stream
        """See `asgi.peer.Peer`."""
        return self._out.choked

    def writable(self, stream: int) -> Coroutine[Any, Any, None]:  # noqa: ARG002
        """See `asgi.peer.Peer`."""
        return self._out.writable()

    def proceed(self, stream: int) -> None:
        """See `asgi.peer.Peer`."""
        self._engine.inform(stream, 100, [])
        if self.phase is BODY and self.deadline == inf:
            self.deadline = self._body_deadline()
        self._flush()

    def consumed(self, stream: int, count: int) -> None:  # noqa: ARG002
        """See `asgi.peer.Peer`; to the engine it is nothing, as HTTP/1.1 gives no credit."""
        if self._paused and not self._resting and not self._is_full():
            self._resume_reading()

    def inform(self, stream: int, status: int, headers: Headers) -> None:
        """See `asgi.peer.Peer`."""
        self._engine.inform(stream, status, headers)
        self._flush()  # at once: a hint is worth the time that it is ahead of the answer

    def accept(self, stream: int, headers: Headers) -> None:
        """See `asgi.peer.Peer`."""
        self._engine.accept(stream, headers)
        self._collected += _HEAD_SIZE
        if not self._corked:
            self._flush()
        if self._engine.pending:  # frames that came before they were allowed to
            self._ended = True
            if not self._handling:
                self._turn.end(self)
        else:
            self._tunnel = self._cycles.get(stream)

    def remind(self, stream: int, when: float) -> None:  # noqa: ARG002 - the connection is the stream
        """See `asgi.peer.Peer`."""
        self.deadline = when

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
        if self._tunnel is not None and not end and not self._collected:
            self._out.write((data,))
            return
        self._engine.body(stream, data, end)
        self._collected += len(data)
        if end:
            self._end(stream)
        elif not self._corked or self._collected >= HIGH_WATER:
            self._flush()

    def trailers(self, stream: int, headers: Headers) -> None:
        """See `asgi.peer.Peer`."""
        self._engine.trailers(stream, headers)
        self._end(stream)

    def push(self, stream: int, path: bytes, headers: Headers) -> None:
        """See `asgi.peer.Peer`: HTTP/1.1 has no such thing."""

    async def send_file(self, stream: int, file: int, offset: int, count: int) -> int:
        """See `asgi.peer.Peer`: by sendfile(2) where the bytes go to the socket as they are."""
        if count <= SMALL_FILE and not self._out.choked:
            data = os.pread(file, count, offset)
            self.body(stream, data, False)
            return len(data)
        self._flush()
        if count > SMALL_FILE and self._engine.raw(stream) and not self._out.encrypted:
            return await self._out.send_file(file, offset, count)
        return await super().send_file(stream, file, offset, count)

    def _end(self, stream: int) -> None:
        """A response is complete: on to the next request, in this call-back's loop or at the end of the turn."""
        self._cycles.pop(stream, None)
        self._tunnel = None
        self._ended = True
        if not self._handling:
            self._turn.end(self)

    def conclude(self) -> None:
        """See `Connection`: write the response that has ended, and go on to what came behind its request."""
        if self._transport is None or self.phase is CLOSING:
            return  # nothing more is begun on a connection that is over
        if self._resting and not self._endpoint.cutting:
            return  # _read_on() does it
        if self._engine.pending:
            self._handle([])
        else:
            self._write_answer()
            self._ended = False
            self._settle()

    def _write_answer(self) -> None:
        """Hand over the response that was held until the turn's last phase, if there is one."""
        answer, self._answer = self._answer, None
        if answer is not None:
            stream, status, headers, body = answer
            self._engine.respond(stream, status, headers, body, True)
            self._collected += len(body) + _HEAD_SIZE

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
                if self.phase is SERVING and self.deadline == inf:
                    self.deadline = monotonic() + PATIENCE  # to look whether the client is still there
            elif self._paused:
                self._resume_reading()
            return
        if engine.closing:
            self._resume_reading()
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
        elif phase in (IDLE, SERVING, WEBSOCKET) or (phase is BODY and engine.pending):
            self.phase, self.deadline = HEAD, monotonic() + timeouts.header

    def _is_full(self) -> bool:
        """As much waits for applications as may be held; beyond it the peer's own buffers have to hold it."""
        if self.phase in (SERVING, WEBSOCKET) and self._engine.pending >= HIGH_WATER:
            return True  # pipelined requests
        return any(cycle.full for cycle in self._cycles.values())

    def _pause_reading(self) -> None:
        if not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._paused and self._transport is not None:
            self._paused = False
            # Not in the context of the request that has made room: asyncio keeps it for all that is read from now on.
            self._endpoint.context.copy().run(self._transport.resume_reading)
            if self.phase is BODY and not self._resting:
                self.deadline = self._body_deadline()  # the application was slow, not the peer

    def drain(self) -> None:
        """See `Connection`."""
        self._engine.drain()
        for cycle in list(self._cycles.values()):
            cycle.leave()
        if self.phase in (IDLE, OPENING):
            self.deadline = min(self.deadline, monotonic() + self._endpoint.timeouts.linger)

    # Deadlines

    def _body_deadline(self) -> float:
        self._received = 0
        self._mark = sum([cycle.sent for cycle in self._cycles.values()]) if self._cycles else 0
        return monotonic() + self._endpoint.timeouts.body

    def _expire(self, now: float) -> None:
        if self.phase is BODY:
            timeouts, received, sent = self._endpoint.timeouts, self._received, self._mark
            self.deadline = self._body_deadline()
            # Who talks to the application may listen; what waits of its answer has a deadline of its own.
            answering = self._mark != sent or self._out.deadline < inf
            if not answering and not self._paused and received < timeouts.min_rate * timeouts.body:
                self._time_out("its body arrives too slowly")
        elif self.phase is HEAD:
            self._time_out("its head did not arrive in time")
        elif self.phase is WEBSOCKET:
            for cycle in list(self._cycles.values()):
                self.deadline = cycle.tick(now) or inf
        elif self.phase is SERVING and self._paused and not self._eof and not self._is_left():
            self.deadline = now + PATIENCE
        elif self.phase is SERVING:
            self.deadline = inf
            for cycle in self._cycles.values():
                cycle.half_close()
        else:
            if self.phase is OPENING and not self._endpoint.draining:
                self._log("Closed a connection: the client sent nothing", "deadline")
            self._close_transport()

    def _is_left(self) -> bool:
        """Whether the client has ended its side, or is gone, behind bytes that nobody reads now (poll(2))."""
        sock = None if self._transport is None else self._transport.get_extra_info("socket")
        if sock is None:
            return True
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLRDHUP)
        return bool(poll.poll(0))

    def _time_out(self, reason: str) -> None:
        """Answer 408 where an answer can still be given (RFC 9110 section 15.5.9)."""
        self.deadline = inf
        if self._ended:
            self.conclude()
        if self.phase is not CLOSING:
            self._handle(self._engine.refuse(408, reason))
