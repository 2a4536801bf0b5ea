"""An HTTP/2 engine and a client, and the bytes that go to and fro between them."""

from dataclasses import dataclass, field
from typing import Final

from appserver.wire.engine import Body, Event, Head, Headers, Limits
from appserver.wire.http2 import Http2Engine
from appserver.wire.select import MakeHttp2
from tests.conformance.http2 import frames
from tests.conformance.http2.frames import Frame
from tests.conformance.http2.memory import Clock
from tests.contract.driver import written
from tests.contract.http2_peer import Http2Peer

# More than any exchange of these tests takes: two that answer each other's answers loop.
_ROUNDS: Final = 1_000

TEXT: Final[Headers] = [(b"content-type", b"text/plain")]


def receive(engine: Http2Engine, data: bytes) -> list[Event]:
    """What the engine tells of these bytes, in as many turns as it takes."""
    events = engine.receive(data)
    while engine.more:
        events += engine.receive(b"")
    return events


@dataclass(slots=True)
class Talk:
    """One connection in memory."""

    engine: Http2Engine
    peer: Http2Peer
    clock: Clock = field(default_factory=Clock)
    told: list[Event] = field(default_factory=list)
    """All that the engine has told."""

    def hear(self) -> list[Event]:
        """Carry what the client has to say to the engine: what that tells."""
        events = receive(self.engine, self.peer.take())
        self.told += events
        return events

    def answer(self) -> None:
        """Carry all that the engine has to say now to the client."""
        while data := written(self.engine):
            self.peer.feed(data)

    def turn(self) -> list[Event]:
        """Carry bytes both ways until nobody has more to say: what the engine has told."""
        events: list[Event] = []
        for _ in range(_ROUNDS):
            sent = self.peer.take()
            events += receive(self.engine, sent)
            data = written(self.engine)
            self.peer.feed(data)
            if not sent and not data and not self.engine.pending:
                self.told += events
                return events
        raise AssertionError("they have never done talking")

    def ask(self, path: str = "/", *fields: tuple[str, str], method: str = "GET", end: bool = True) -> Head:
        """Send one request; the head that the engine tells."""
        self.peer.ask(path, *fields, method=method, end=end)
        [head] = [event for event in self.turn() if isinstance(event, Head)]
        return head

    def ask_without_answers(self, path: str = "/", *fields: tuple[str, str]) -> int:
        """Send one request while nothing of what the engine has to say is carried; its stream."""
        stream = self.peer.ask(path, *fields)
        assert [type(event) for event in self.hear()] == [Head]
        return stream

    def say(self, data: bytes) -> tuple[list[Event], list[Frame]]:
        """Bytes that the client knows nothing of to the engine: what it tells, and what it would send."""
        events = receive(self.engine, data)
        sent = b""
        while (more := written(self.engine)) or self.engine.pending:
            sent += more
            events += self.engine.receive(b"")
        return events, [*frames.read(sent)]

    def is_alive(self) -> bool:
        """The next request is served."""
        head = self.ask("/next")
        self.engine.respond(head.stream, 200, TEXT, b"next", end=True)
        self.turn()
        return self.peer.answers[head.stream].body == b"next" and not self.peer.goaways


def talk(
    make: MakeHttp2, limits: Limits | None = None, settings: dict[int, int] | None = None, *, room: int | None = None
) -> Talk:
    """A connection on which both have sent and acknowledged their SETTINGS."""
    clock = Clock()
    peer = Http2Peer(settings) if room is None else Http2Peer(settings, room=room)
    made = Talk(make(limits or Limits(), clock), peer, clock)
    made.peer.start()
    assert made.turn() == []
    return made


def bodies(events: list[Event], stream: int) -> bytes:
    """What the events bring of one request's body."""
    return b"".join(event.data for event in events if isinstance(event, Body) and event.stream == stream)
