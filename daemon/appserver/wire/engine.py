"""The engine interface: one for every HTTP version.

An engine turns bytes into events and calls into bytes. It does no I/O, keeps no time and writes no log; it is driven
by `net.connection`, and the contract tests drive every engine with one fixture.

    bytes ──receive()──▶ Engine ──▶ [Head, Body, …, Refused, Closed]
    bytes ◀──take()───── Engine ◀── respond(), body(), inform(), reset(), drain()

A stream is one request and its response. HTTP/1.1 is the case of one stream at a time: the head of a pipelined
request is parsed only once the response before it has ended, so that answers leave in order. Whoever ends a response
then calls `receive(b"")` for what the engine has kept.

An HTTP/2 engine carries many streams (`multiplexed`). It keeps what the peer's windows do not let leave yet, and
`queued()` tells how much of it there is, so that an application waits for its own client's stream and for no other.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

Headers: TypeAlias = list[tuple[bytes, bytes]]
"""Field lines in order, names in lower case: what goes into the ASGI scope as it is."""


class Head(NamedTuple):
    """A request's head, whole: the boundary between wire and application is crossed once a message."""

    stream: int
    method: str
    """Upper case, as ASGI wants it; a method with lower-case letters is refused (RFC 9110 section 9.1)."""
    target: bytes
    """Origin-form `path?query`, or `*`; absolute-form arrives here already taken apart (RFC 9112 section 3.2)."""
    headers: Headers
    """Never changed: further requests of the client may have the same list, where they have the same fields."""
    version: str
    """`1.0`, `1.1` or `2`."""
    end: bool
    """True when no body follows: a GET is one event."""
    expects: bool
    """The client waits for `100 Continue` before it sends the body (RFC 9110 section 10.1.1)."""
    websocket: bool = False
    """The client asks for a WebSocket: RFC 6455 section 4, over HTTP/2 RFC 8441. Where it is given one, by `accept()`,
    what follows on the stream are bytes of that, in both directions."""
    kept: bool = False
    """The engine keeps `headers` for further requests: to hold it as well takes no memory."""


class Body(NamedTuple):
    """Some bytes of a request's body, or of a WebSocket; `end` marks the last."""

    stream: int
    data: bytes
    end: bool


class Reset(NamedTuple):
    """The peer gave up this stream alone (HTTP/2 RST_STREAM)."""

    stream: int
    code: int


class Refused(NamedTuple):
    """The input cannot be served; `status` is the answer, if one can still be given.

    0 where the message is so malformed that HTTP/2 has no answer for it: its stream has been reset.
    The engine takes no more input of this stream (HTTP/1.1: of this connection). An application that is already
    running on the stream must be told that the client is gone.
    """

    stream: int
    status: int
    reason: str
    """One phrase for the log and the answer; never contains bytes from the client unescaped."""


class Closed(NamedTuple):
    """The peer sends nothing more: end of input, or GOAWAY."""


class Broken(NamedTuple):
    """The peer has broken the protocol itself: the connection is over, and all its streams with it (GOAWAY)."""

    code: int
    """RFC 9113 section 7."""
    reason: str


class Switch(NamedTuple):
    """The connection goes on in HTTP/2; this engine takes and gives nothing more once `take()` has been written.

    Either the client began with HTTP/2's preface (prior knowledge, RFC 9113 section 3.3), or it asked for `h2c` and
    has been answered 101 (RFC 7540 section 3.2): then its request is the first stream of the new engine.
    """

    received: bytes
    """What the new engine is to `receive()`."""
    settings: bytes | None
    """The client's HTTP2-Settings, decoded; None with prior knowledge."""
    head: Head | None
    """The request that asked for it; its stream is 1."""


Event: TypeAlias = Head | Body | Reset | Refused | Closed | Broken | Switch


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what a peer may send. Units are bytes unless said otherwise; 0 in `body` means unlimited."""

    request_line: int = 8 * 1024
    field: int = 8 * 1024
    """One field line, name and value."""
    fields: int = 100
    """Number of field lines."""
    head: int = 64 * 1024
    body: int = 0
    streams: int = 100
    """Requests that a connection may have open at once (HTTP/2)."""


class Engine(Protocol):
    """What `net.connection` needs of a protocol; every engine passes the same contract tests."""

    @property
    def name(self) -> str:
        """As `--version` and the start-up log name it: `h11`."""
        ...

    def receive(self, data: bytes) -> list[Event]:
        """Take bytes from the peer; with `b""`, look again at what was kept. Never raises for bad input."""
        ...

    def eof(self) -> list[Event]:
        """Take the end of the peer's input: `Closed`, or `Refused` where it cuts a message short."""
        ...

    def refuse(self, status: int, reason: str, stream: int = 0) -> list[Event]:
        """Take no more input, for a reason that only the caller sees (a deadline): the same as for bad input.

        With a stream, an HTTP/2 engine refuses that one alone; without, the whole connection.
        """
        ...

    def consumed(self, stream: int, count: int) -> None:
        """The application has read `count` bytes of body: credit may be given back (HTTP/2 WINDOW_UPDATE)."""
        ...

    def inform(self, stream: int, status: int, headers: Headers) -> None:
        """Write an interim response (1xx, RFC 9110 section 15.2)."""
        ...

    def accept(self, stream: int, headers: Headers) -> None:
        """Give the client the WebSocket that it asked for: `body()` writes to it, `Body` events read from it."""
        ...

    def respond(self, stream: int, status: int, headers: Headers, body: bytes, end: bool) -> None:
        """Write the head of the final response and the first bytes of its body, framed as the version needs."""
        ...

    def body(self, stream: int, data: bytes, end: bool) -> None:
        """Write more of the response's body."""
        ...

    def trailers(self, stream: int, headers: Headers) -> None:
        """End the response with trailer fields, where the framing allows them."""
        ...

    def reset(self, stream: int, code: int) -> None:
        """Give up the stream so that the peer sees the response as cut short."""
        ...

    def drain(self) -> None:
        """Announce the end: `Connection: close` on the next responses, or GOAWAY."""
        ...

    def take(self) -> list[bytes]:
        """Bytes to write to the peer, handed over once: in one piece, but for large ones, which are not copied."""
        ...

    def queued(self, stream: int) -> int:
        """Bytes of the response's body that the engine keeps until the peer's window lets them leave."""
        ...

    def waiting(self) -> dict[int, int]:
        """The streams that have something `queued()`, with the bytes of each body that have left so far."""
        ...

    def push(self, stream: int, path: bytes, headers: Headers) -> Head | None:
        """Promise the peer an answer that it has not asked for (RFC 9113 section 8.4): the head of its request.

        None where the peer does not want it or cannot take it now.
        """
        ...

    def raw(self, stream: int) -> bool:
        """Whether the bytes of the response's body go to the peer as they are, and may do so past the engine.

        Such bytes belong behind all that `take()` has given; the body is then ended by `body(stream, b"", True)`.
        """
        ...

    @property
    def idle(self) -> bool:
        """No stream is open and no part of a head has arrived."""
        ...

    @property
    def closing(self) -> bool:
        """Nothing more will be served on this connection: close it once `take()` has been written."""
        ...

    @property
    def abrupt(self) -> bool:
        """A response was cut short where no framing shows it: end the connection by a TCP reset, not by FIN."""
        ...

    @property
    def pending(self) -> int:
        """What is kept for the next `receive()`: bytes of pipelined requests, or events found while writing."""
        ...

    @property
    def more(self) -> bool:
        """So much came at once that the rest is kept for the next `receive()`, whoever else is to have a turn first."""
        ...

    @property
    def version(self) -> str:
        """`1.1` or `2`."""
        ...

    @property
    def seen(self) -> int:
        """How many requests the peer has begun."""
        ...

    @property
    def multiplexed(self) -> bool:
        """Several streams at once: `take()` gives a bounded piece, and more when called again."""
        ...

    @property
    def pushes(self) -> bool:
        """`push()` can succeed."""
        ...
