"""An engine in this process, driven as `net.connection` does, with the application of tests/apps/frames.py."""

from dataclasses import dataclass, field
from typing import Final

from appserver.wire.engine import Body, Broken, Closed, Event, Head, Headers, Limits, Refused, Reset
from appserver.wire.http2 import Http2Engine
from appserver.wire.select import pick_http2
from tests.apps.frames import HINT, tell
from tests.conformance.http2.client import Silence

_ROUNDS: Final = 100_000  # pieces of output for one input: an engine that keeps giving loops


@dataclass(slots=True)
class Clock:
    """A clock that goes when it is told to."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass(slots=True)
class Exchange:
    """One request, as the application sees it."""

    head: Head
    body: bytes = b""
    whole: bool = False
    begun: bool = False
    """Its response is."""
    ended: bool = False
    lost: int | None = None
    """The code of the Reset."""


@dataclass(slots=True)
class Memory:
    """The engine's side of a connection; implements `client.Pipe`."""

    engine_made: Http2Engine
    engine: str
    clock: Clock = field(default_factory=Clock)
    live: bool = False
    scheme: bytes = b"http"
    exchanges: dict[int, Exchange] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    closed: bool = False
    _out: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        self._flush()

    def send(self, data: bytes) -> None:
        if self.closed:
            return
        self._follow(self.engine_made.receive(data))
        while self.engine_made.more and not self.closed:
            self._follow(self.engine_made.receive(b""))

    @property
    def over(self) -> bool:
        return self.closed

    def receive(self) -> bytes:
        if self._out:
            data = bytes(self._out)
            self._out.clear()
            return data
        if self.closed:
            return b""
        raise Silence

    def end(self) -> None:
        if not self.closed:
            self._follow(self.engine_made.eof())

    def close(self) -> None:
        self.closed = True

    def leave(self) -> None:
        """The server is to stop: the connection takes its leave."""
        self.engine_made.drain()
        self._follow([])

    def _flush(self) -> None:
        engine = self.engine_made
        for _ in range(_ROUNDS):
            pieces = engine.take()
            if not any(pieces):
                break
            self._out += b"".join(pieces)
        else:
            raise AssertionError("the engine writes without end")
        if engine.closing:
            self.closed = True

    def _follow(self, events: list[Event]) -> None:
        for event in events:
            self.events.append(event)
            if isinstance(event, Head):
                assert event.stream not in self.exchanges, f"a second head on one stream: {event}"
                self.exchanges[event.stream] = Exchange(event, whole=event.end)
                self._serve(self.exchanges[event.stream])
            elif isinstance(event, Body):
                self._feed(event)
            elif isinstance(event, Refused):
                self._refuse(event)
            elif isinstance(event, Reset):
                exchange = self.exchanges.get(event.stream)
                if exchange is not None:
                    assert exchange.lost is None, f"told twice: {event}"
                    exchange.lost = event.code
            elif isinstance(event, Broken):
                assert self.engine_made.closing, f"a broken connection that goes on: {event}"
            else:
                assert isinstance(event, Closed), f"{event} is no event of HTTP/2"
        self._flush()
        if late := self.engine_made.receive(b""):  # found while it wrote
            self._follow(late)

    def _feed(self, event: Body) -> None:
        exchange = self.exchanges[event.stream]
        assert not exchange.whole, f"behind the end: {event}"
        assert event.data or event.end, "an event that says nothing"
        exchange.body += event.data
        exchange.whole = event.end
        if exchange.head.target != b"/unread":
            self.engine_made.consumed(event.stream, len(event.data))
        self._serve(exchange)

    def _refuse(self, event: Refused) -> None:
        assert event.reason.isascii(), "bytes from the client in a reason"
        assert event.reason.isprintable(), "bytes from the client in a reason"
        exchange = self.exchanges.get(event.stream)
        if not event.status:  # the stream has been reset already
            if exchange is not None:
                exchange.ended = True
            return
        if exchange is not None and (exchange.begun or exchange.ended):
            if not exchange.ended:
                self.engine_made.reset(event.stream, 0)
                exchange.ended = True
            return
        if exchange is not None:
            exchange.ended = True
        body = event.reason.encode()
        self.engine_made.respond(event.stream, event.status, _fields(body), body, True)

    def _serve(self, exchange: Exchange) -> None:
        head, engine, stream = exchange.head, self.engine_made, exchange.head.stream
        path, _, query = head.target.partition(b"?")
        if exchange.ended or exchange.lost is not None or path in (b"/hold", b"/unread"):
            return
        if path == b"/early":
            exchange.begun = exchange.ended = True
            engine.respond(stream, 200, _fields(b"early"), b"early", True)
            return
        if head.expects and not exchange.body and not exchange.whole:
            engine.inform(stream, 100, [])
        if path == b"/begun" and not exchange.begun:
            exchange.begun = True
            engine.respond(stream, 200, [], b"begun", False)
            return
        if path == b"/begun" or not exchange.whole:
            return
        exchange.begun = exchange.ended = True
        if path == b"/bytes":
            body = bytes(int(query))
            engine.respond(stream, 200, _fields(body), body, True)
        elif path == b"/count":
            body = b"%d" % len(exchange.body)
            engine.respond(stream, 200, _fields(body), body, True)
        elif path == b"/trailers":
            engine.respond(stream, 200, [(b"trailer", b"x-sum")], b"body", False)
            engine.trailers(stream, [(b"x-sum", b"4")])
        elif path == b"/hints":
            engine.inform(stream, 103, [(b"link", HINT)])
            engine.respond(stream, 200, _fields(b"hinted"), b"hinted", True)
        elif path == b"/push":
            promised = engine.push(stream, b"/pushed", [(b"host", b"a.example"), (b"accept", b"*/*")])
            engine.respond(stream, 200, _fields(b"pushing"), b"pushing", True)
            if promised is not None:
                self._follow([promised])
        else:
            answer = _echo(head, exchange.body)
            sent = b"" if head.method == "HEAD" else answer
            engine.respond(stream, 200, [(b"content-type", b"application/json"), *_fields(answer)], sent, True)


def make_memory(engine: str) -> Memory:
    """A connection of this engine, by its name."""
    clock = Clock()
    return Memory(pick_http2(engine)(Limits(), clock, websocket=True), engine, clock)


def _fields(body: bytes) -> Headers:
    return [(b"content-length", b"%d" % len(body))]


def _echo(head: Head, body: bytes) -> bytes:
    path, _, query = head.target.partition(b"?")
    scope = {
        "method": head.method,
        "raw_path": path,
        "query_string": query,
        "http_version": head.version,
        "headers": head.headers,
    }
    return tell(scope, body)
