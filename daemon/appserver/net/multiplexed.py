"""A connection that serves many requests at once: HTTP/2.

Each stream has its own cycle, its own back-pressure and its own deadlines; one that is slow or broken does not touch
the others. Whatever a turn of the loop brings for the peer (answers, bodies, credit, acknowledgements) is written
together at its end.
"""

from asyncio import Future, Task, Transport
from math import inf
from time import monotonic
from typing import Final

from appserver.asgi.cycle import Cycle
from appserver.asgi.http import HttpCycle
from appserver.asgi.scope import Scopes
from appserver.errors import ClientDisconnectedError
from appserver.net.connection import CLOSING, IDLE, OPENING, PATIENCE, SERVING, Connection
from appserver.net.deadlines import HEAD, SHARED, UPLOAD, StreamDeadlines, is_window_taken
from appserver.net.endpoint import Endpoint
from appserver.net.flow import HIGH_WATER
from appserver.net.tls import is_adequate
from appserver.wire.engine import Body, Broken, Event, Head, Headers, Refused, Reset, Switch
from appserver.wire.http2 import Http2Engine
from appserver.wire.http2_frames import CANCEL, INADEQUATE_SECURITY, REFUSED_STREAM, name_error

ABANDONED_LIMIT: Final = 100
"""Applications that may still run for requests which their client has given up, before it gets no more begun: resets
free the protocol's count of streams at once, and an application when it pleases (CVE-2023-44487)."""

EXCUSE_SECONDS: Final = 5.0
"""What a client gets for its pongs once there is room for them again."""


class MultiplexedConnection(Connection):
    """Serves one client, as many requests at a time as the engine allows."""

    __slots__ = (
        "_abandoned",
        "_answers",
        "_asked",
        "_crowded",
        "_deadlines",
        "_leaving",
        "_most",
        "_patient",
        "_scheduled",
        "_told",
        "_waiters",
    )

    _engine: Http2Engine

    def __init__(self, endpoint: Endpoint, engine: Http2Engine) -> None:
        super().__init__(endpoint, engine)
        self._answers: list[tuple[int, int, Headers, bytes]] = []  # of responses that have ended in this turn
        self._waiters: dict[int, list[Future[None]]] = {}
        self._deadlines = StreamDeadlines(endpoint.timeouts)
        self._asked: set[int] = set()  # clients that have been sent 100 Continue
        self._abandoned: set[Task[None]] = set()
        self._most = 2 * engine.limit  # applications that may run at once
        self._scheduled = self._leaving = False
        self._told = False  # of a request that was reset for a fault of the client's
        self._crowded = -inf  # when the client last had no window to send anything in
        self._patient = inf  # how long applications may run on once the peer has ended its input

    # The transport's call-backs

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Begin: our SETTINGS need not wait for the client's."""
        super().connection_made(transport)
        self._endpoint.service.figures.connections_http2 += 1
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and not is_adequate(tls):
            self._handle(self._engine.fail(INADEQUATE_SECURITY, "a cipher suite that HTTP/2 must not be spoken over"))
        self._schedule()

    def take_over(self, transport: Transport, scopes: Scopes, switch: Switch) -> None:
        """Go on with a connection that began in HTTP/1.1."""
        endpoint = self._endpoint
        self._transport = transport
        self._scopes = scopes
        self._out.attach(transport)
        endpoint.connections.add(self)
        endpoint.service.figures.connections_http2 += 1
        self.deadline = monotonic() + endpoint.timeouts.header
        if endpoint.draining:
            self._engine.drain()
        if switch.head is not None and switch.settings is not None:
            self._handle(self._engine.upgrade(switch.settings, switch.head))
        if switch.received:
            self._handle(self._engine.receive(switch.received))
            if self._engine.more:
                self._put_off()

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have come."""
        if self.phase is CLOSING:
            return  # read only so that the kernel does not answer with a reset and take our last answer with it
        self._endpoint.service.figures.bytes_received += nbytes
        self._handle(self._engine.receive(self._view[:nbytes].tobytes()))
        if self._engine.more:
            self._put_off()

    def _put_off(self) -> None:
        """Leave the rest of what has been read to further turns; until then nothing more is."""
        if self._transport is not None:
            self._transport.pause_reading()
            self._endpoint.loop.call_soon(self._read_on, context=self._endpoint.context)

    def _read_on(self) -> None:
        """Handle the rest of a read that brought very many frames, a turn's worth at a time."""
        transport = self._transport
        if transport is None or self.phase is CLOSING:
            if transport is not None and not transport.is_closing():
                transport.resume_reading()
            return
        try:
            self._handle(self._engine.receive(b""))
        except Exception as error:  # noqa: BLE001 - of ours; its client would wait for ever
            self.crash(error)
            return
        if self._engine.more:
            self._endpoint.loop.call_soon(self._read_on, context=self._endpoint.context)
        else:
            transport.resume_reading()

    def eof_received(self) -> bool:
        """The peer has shut its sending side; it may still read."""
        self._eof = True
        if self.phase is CLOSING:
            return False
        self._patient = self._patience()
        self._handle(self._engine.eof())
        return self._transport is not None and self._transport.can_write_eof()

    def resume_writing(self) -> None:
        """The peer has taken what waited."""
        self._out.resume()
        self._schedule()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over, both ways."""
        super().connection_lost(exc)
        self._endpoint.service.figures.connections_http2 -= 1
        self._wake()

    # Events

    def _handle(self, events: list[Event]) -> None:
        # What is given up in the read that brings it is never begun: most of what a rapid reset costs.
        given_up = {event.stream for event in events if type(event) is Reset}
        for event in events:
            if type(event) is not Head:
                self._dispatch(event)
            elif event.stream not in given_up:
                self._begin(event)
        self._schedule()

    def _dispatch(self, event: Event) -> None:
        if isinstance(event, Body):
            cycle = self._cycles.get(event.stream)
            if cycle is not None:
                cycle.feed(event.data, event.end)
        elif isinstance(event, Reset):
            self._give_up(event.stream)
        elif isinstance(event, Refused):
            if event.status:
                self._refuse(event.stream, event.status, event.reason)
            else:
                self._endpoint.service.figures.refused += 1
                # The first one tells why. A flood of them has a record of its own when it ends the connection; one for
                # each, 214 a connection, made others wait for three times as long.
                if not self._told:
                    self._told = True
                    self._log(f"Reset a request: {event.reason}", "refused")
                self._give_up(event.stream)
        elif isinstance(event, Broken):
            self._endpoint.service.figures.refused += 1
            name = name_error(event.code)
            self._log(f"Closed an HTTP/2 connection: {event.reason} ({name})", "refused", http2_error=name)
            self._answers.clear()
            self._disconnect()
            self._wake()

    def _begin(self, head: Head) -> None:
        endpoint = self._endpoint
        if endpoint.cutting or ((self._abandoned or len(self._cycles) >= self._most) and self._is_crowded()):
            self._engine.reset(head.stream, REFUSED_STREAM)
            return
        self.phase = SERVING
        cycle: Cycle | None
        if head.websocket:
            cycle = self._make_websocket(head)
            if cycle is None:
                return
        else:
            scope = self._scopes.make(head, self._engine.pushes)
            cycle = HttpCycle(endpoint.service, self, head, scope, endpoint.loop, endpoint.name)
        self._cycles[head.stream] = cycle
        if endpoint.eager:
            self._turn.begin(self, cycle)
        else:  # a task that is not eager waits for the next turn anyway
            self._start(cycle)

    def _is_crowded(self) -> bool:
        """Too many applications run for this client: more than the protocol's count of streams tells."""
        self._abandoned = {task for task in self._abandoned if not task.done()}
        return len(self._cycles) >= self._most or len(self._abandoned) >= ABANDONED_LIMIT

    def _give_up(self, stream: int) -> None:
        """The peer has given up a request, or lost it by a fault of its own."""
        cycle = self._cycles.pop(stream, None)
        if cycle is None:
            return
        cycle.disconnect()
        self._asked.discard(stream)
        self._wake()
        self._abandon(cycle)

    def _refuse(self, stream: int, status: int, reason: str) -> None:
        cycle = self._cycles.get(stream)
        super()._refuse(stream, status, reason)
        if cycle is not None:
            self._abandon(cycle)

    def _abandon(self, cycle: Cycle) -> None:
        """Nobody waits for this application any more; it runs as long as it likes."""
        if cycle.task is not None and not cycle.task.done():
            self._abandoned.add(cycle.task)

    def run(self, cycle: Cycle) -> None:
        """See `Connection`."""
        if self._cycles.get(cycle.head.stream) is cycle and not self._endpoint.cutting:
            self._start(cycle)

    # asgi.peer.Peer

    def choked(self, stream: int) -> bool:
        """See `asgi.peer.Peer`."""
        return self._out.choked or self._engine.queued(stream) >= HIGH_WATER

    async def writable(self, stream: int) -> None:
        """See `asgi.peer.Peer`: wait for the connection and for the stream's own window."""
        await self._out.breathe()
        while stream in self._cycles and self._is_blocked(stream):
            waiter = self._endpoint.loop.create_future()
            self._waiters.setdefault(stream, []).append(waiter)
            await waiter
        if stream not in self._cycles:
            raise ClientDisconnectedError("the client is gone")

    def _is_blocked(self, stream: int) -> bool:
        return self._out.paused or self._engine.queued(stream) >= HIGH_WATER

    def _wake(self) -> None:
        """Wake those who wait for a stream that takes more again, or never will."""
        for stream in list(self._waiters):
            if stream not in self._cycles or not self._is_blocked(stream):
                for waiter in self._waiters.pop(stream):
                    if not waiter.done():
                        waiter.set_result(None)

    def proceed(self, stream: int) -> None:
        """See `asgi.peer.Peer`."""
        self._engine.inform(stream, 100, [])
        self._asked.add(stream)
        self._schedule()

    def consumed(self, stream: int, count: int) -> None:
        """See `asgi.peer.Peer`."""
        self._engine.consumed(stream, count)
        self._schedule()

    def inform(self, stream: int, status: int, headers: Headers) -> None:
        """See `asgi.peer.Peer`."""
        self._engine.inform(stream, status, headers)
        self._schedule()

    def accept(self, stream: int, headers: Headers) -> None:
        """See `asgi.peer.Peer`."""
        self._engine.accept(stream, headers)
        self._schedule()

    def remind(self, stream: int, when: float) -> None:
        """See `asgi.peer.Peer`: all streams are looked at in each sweep."""

    def respond(self, stream: int, status: int, headers: Headers, body: bytes, end: bool) -> None:
        """See `asgi.peer.Peer`."""
        if end:
            self._answers.append((stream, status, headers, body))
            self._end(stream)
        else:
            self._engine.respond(stream, status, headers, body, False)
            self._schedule()

    def body(self, stream: int, data: bytes, end: bool) -> None:
        """See `asgi.peer.Peer`."""
        self._engine.body(stream, data, end)
        if end:
            self._end(stream)
        else:
            self._schedule()

    def trailers(self, stream: int, headers: Headers) -> None:
        """See `asgi.peer.Peer`."""
        self._engine.trailers(stream, headers)
        self._end(stream)

    def push(self, stream: int, path: bytes, headers: Headers) -> None:
        """See `asgi.peer.Peer`: what is promised is a request like any other, that comes from ourselves."""
        head = self._engine.push(stream, path, headers)
        if head is not None:
            self._begin(head)
            self._schedule()

    def _end(self, stream: int) -> None:
        cycle = self._cycles.pop(stream, None)
        if cycle is not None and cycle.head.websocket:
            self._abandon(cycle)  # it ends for its client before it does for the application
        if self._asked:
            self._asked.discard(stream)
        if not self._scheduled:
            self._schedule()

    # Writing

    def _schedule(self) -> None:
        """See to it that this turn ends with `conclude()`."""
        if not self._scheduled:
            self._scheduled = True
            self._turn.end(self)

    def conclude(self) -> None:
        """See `Connection`: write what this turn has brought."""
        self._scheduled = False
        if self._transport is None or self.phase is CLOSING:
            return
        answers = self._answers
        if answers:
            self._answers = []
            respond = self._engine.respond
            for stream, status, headers, body in answers:
                respond(stream, status, headers, body, True)
        self._write()
        while self._engine.pending:  # what was found while writing
            for event in self._engine.news():
                self._dispatch(event)
            self._write()
        if self._waiters:
            self._wake()
        self._settle()

    def _write(self) -> None:
        engine, out = self._engine, self._out
        while not out.paused:
            pieces = engine.take()
            if not pieces:
                break
            out.write(pieces)
            if self._transport is None or self._transport.is_closing():
                break

    def _settle(self) -> None:
        """Set phase and deadline for what is waited for now."""
        engine = self._engine
        if self._transport is None:
            return
        if engine.closing and not self._out.paused:
            self._disconnect()
            self._close()
        elif self._cycles or not engine.idle:
            # Looked at in each sweep: the streams have deadlines of their own.
            self.phase, self.deadline = SERVING, 0.0
        elif self.phase is SERVING:
            # Not where nothing but a PING came: that would be a way to stay for ever.
            timeouts = self._endpoint.timeouts
            self.phase = IDLE
            self.deadline = monotonic() + (timeouts.linger if self._endpoint.draining else timeouts.keep_alive)

    # The end

    def drain(self) -> None:
        """See `Connection`: GOAWAY, in two steps."""
        self._engine.drain()
        self._leaving = True
        for cycle in list(self._cycles.values()):
            cycle.leave()
        if self.phase in (IDLE, OPENING):
            self.deadline = min(self.deadline, monotonic() + self._endpoint.timeouts.linger)
        self._schedule()

    # Deadlines

    def _expire(self, now: float) -> None:
        if self.phase is SERVING:
            self._expire_streams(now)
            if now > self._patient:
                self._patient = inf
                for cycle in list(self._cycles.values()):
                    cycle.half_close()
        elif self._leaving:
            self._close_transport()
        else:
            self.drain()  # so that a request which is under way is answered, or known not to have been seen
            self.deadline = monotonic() + PATIENCE

    def _expire_streams(self, now: float) -> None:
        engine = self._engine
        if is_window_taken(self._cycles.values()):  # there is no room for a pong either; it comes a little after that
            self._crowded = now
        for cycle in list(self._cycles.values()):
            cycle.tick(now, excused=now - self._crowded < EXCUSE_SECONDS)
        waiting: dict[int, int] = {}
        untaken = engine.waiting()
        for stream, sent in untaken.items():
            # What its own window does not hold back waits for its turn, or for the window of them all.
            place = stream if engine.send_window(stream) <= 0 else SHARED
            waiting[place] = waiting.get(place, 0) + sent
        late = self._deadlines.overdue(
            now, self._cycles, waiting, self._asked, untaken if self._out.deadline == inf else self._cycles
        )
        for stream, what in late:
            if what == HEAD:
                self._handle(engine.refuse(408, "its head did not arrive in time"))
            elif stream == SHARED:
                self._handle(engine.refuse(408, "it takes no more of its answers"))
            elif what == UPLOAD:
                self._handle(engine.refuse(408, "its body arrives too slowly", stream))
            else:
                self._log("Cut a response: the client reads it too slowly", "deadline")
                engine.reset(stream, CANCEL)
                self._give_up(stream)
        self._schedule()
