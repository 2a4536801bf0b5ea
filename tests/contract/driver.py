"""Drive an engine as `net.connection` does, with an application that answers every request once it is whole."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from appserver.wire.engine import Body, Closed, Engine, Event, Head, Headers, Refused

ANSWER: Final = b"answered"

# More rounds than any input of these tests has requests: an engine that keeps yielding loops.
_ROUNDS: Final = 10_000

# Characters of a reason: one phrase, not the line that is at fault.
_PHRASE: Final = 120


def written(engine: Engine) -> bytes:
    """All that the engine has to write, in one piece."""
    return b"".join(engine.take())


@dataclass(slots=True)
class SeenRequest:
    """A request as its events told it, adjacent pieces of body joined."""

    stream: int
    method: str
    target: bytes
    headers: Headers
    version: str
    expects: bool
    body: bytes = b""
    whole: bool = False


@dataclass(slots=True)
class Driver:
    """One connection: feed it bytes, then look at what it saw and what was written."""

    engine: Engine
    requests: list[SeenRequest] = field(default_factory=list)
    refused: Refused | None = None
    closed: bool = False
    output: bytes = b""

    def feed(self, data: bytes) -> None:
        """Hand over bytes; requests that become whole are answered, and those behind them looked for."""
        if self.engine.closing:
            return
        events = self.engine.receive(data)
        for _ in range(_ROUNDS):
            if not self._take(events) and not self.engine.more:
                return
            events = self.engine.receive(b"")
        raise AssertionError("the engine yields events without end")

    def end(self) -> None:
        """End the input, and serve what is still there."""
        if self.engine.closing:
            return
        if self._take(self.engine.eof()):
            self.feed(b"")

    def run(self, pieces: Iterable[bytes], *, eof: bool = False) -> "Driver":
        """Feed all pieces, then end the input if the client does."""
        for piece in pieces:
            self.feed(piece)
        if eof:
            self.end()
        return self

    @property
    def requests_told(self) -> list[tuple[object, ...]]:
        """The requests, without what depends on how the input was cut: how much of a refused body was handed over."""
        return [
            (
                seen.method,
                seen.target,
                seen.headers,
                seen.version,
                seen.expects,
                seen.whole,
                seen.body if seen.whole else b"",
            )
            for seen in self.requests
        ]

    @property
    def story(self) -> list[object]:
        """All that must not depend on how the input was cut."""
        refused = None if self.refused is None else (self.refused.stream, self.refused.status)
        return [*self.requests_told, refused, self.closed, self.engine.closing]

    def _take(self, events: list[Event]) -> bool:
        """Follow the events; true when a response ended, so that there may be more to look at."""
        answered = False
        for event, more in _with_more(events):
            assert self.refused is None, f"{event} after {self.refused}"
            if isinstance(event, Head):
                self._head(event)
            elif isinstance(event, Body):
                self._body(event)
            elif isinstance(event, Refused):
                self._refused(event)
            else:
                assert isinstance(event, Closed), f"{event} is no event of HTTP/1"
                self.closed = True
            if self.requests and self.requests[-1].whole and not answered and isinstance(event, Head | Body):
                assert not more, "the events of a second request before the first was answered"
                self._answer(self.requests[-1])
                answered = True
        if self.requests and self.requests[-1].expects and not self.requests[-1].whole and self.refused is None:
            self.engine.inform(self.requests[-1].stream, 100, [])
            self.output += written(self.engine)
        return answered

    def _head(self, event: Head) -> None:
        assert not self.requests or self.requests[-1].whole, "a second head before the first request was whole"
        assert not self.requests or event.stream != self.requests[-1].stream, "two requests on one stream"
        assert all(name == name.lower() for name, _ in event.headers)
        self.requests.append(
            SeenRequest(
                event.stream,
                event.method,
                event.target,
                event.headers,
                event.version,
                event.expects,
                whole=event.end,
            )
        )

    def _body(self, event: Body) -> None:
        seen = self.requests[-1]
        assert event.stream == seen.stream
        assert not seen.whole, "body behind the end of the body"
        assert event.data or event.end, "an event that says nothing"
        seen.body += event.data
        seen.whole = event.end

    def _refused(self, event: Refused) -> None:
        self.refused = event
        assert event.reason.isascii(), "bytes from the client in a reason"
        assert event.reason.isprintable(), "bytes from the client in a reason"
        assert len(event.reason) <= _PHRASE, f"a client fills the log: {event.reason}"
        body = event.reason.encode()
        headers = [(b"content-length", b"%d" % len(body))]
        self.engine.respond(event.stream, event.status, headers, body, end=True)
        self.output += written(self.engine)
        assert self.engine.closing, "a refusal that leaves the connection open"
        assert self.engine.receive(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n") == []

    def _answer(self, seen: SeenRequest) -> None:
        headers = [(b"content-length", b"%d" % len(ANSWER))]
        self.engine.respond(seen.stream, 200, headers, b"" if seen.method == "HEAD" else ANSWER, end=True)
        self.output += written(self.engine)
        assert written(self.engine) == b"", "take() hands bytes over twice"


def _with_more(events: list[Event]) -> Iterator[tuple[Event, bool]]:
    """Each event, and whether a head or body follows it in the same list."""
    for index, event in enumerate(events):
        yield event, any(isinstance(later, Head | Body) for later in events[index + 1 :])


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Cut `data` at the given places."""
    edges = [0, *sorted({place for place in places if 0 < place < len(data)}), len(data)]
    return [data[start:stop] for start, stop in pairwise(edges)]
