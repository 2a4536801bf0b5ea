"""A client at the level of frames: it sends what it is told, right or wrong, and says what must come of it."""

from collections.abc import Callable, Iterable
from typing import Protocol

from hpack import Encoder

from tests.conformance.http2 import frames
from tests.conformance.http2.fields import Fields, encode, request
from tests.conformance.http2.frames import HEAD_SIZE, MAX_FRAME_SIZE, PREFACE, Code, Kind, Setting
from tests.conformance.http2.ledger import PING_SIZE, Answer, Ledger


class Silence(Exception):  # noqa: N818 - no error where silence is what is right
    """The server has nothing more to say until it hears something."""


class Pipe(Protocol):
    """What carries bytes to a server and back."""

    engine: str
    """The server's engine, by its name."""
    live: bool
    """A process behind a socket, and not an engine in this one."""
    scheme: bytes

    @property
    def over(self) -> bool:
        """The server has closed, or is known to be about to."""
        ...

    def send(self, data: bytes) -> None:
        """Bytes to the server; dropped if it has closed."""
        ...

    def receive(self) -> bytes:
        """Some bytes from the server; none when it has closed.

        Raises:
            Silence: There are none, and none will come.
        """
        ...

    def end(self) -> None:
        """End the input: half-close."""
        ...

    def close(self) -> None: ...


class Client:
    """One connection."""

    def __init__(self, pipe: Pipe) -> None:
        self.pipe = pipe
        self.encoder = Encoder()
        self.ledger = Ledger()
        self.closed = False
        self._received = b""
        self._pings = 0

    # Sending

    def send(self, *pieces: bytes) -> None:
        """Send bytes as they are."""
        data = b"".join(pieces)
        for sent in frames.read(data.removeprefix(PREFACE)):
            if sent.kind == Kind.HEADERS:
                self.ledger.highest = max(self.ledger.highest, sent.stream)
        self.pipe.send(data)

    def start(self, values: dict[int, int] | None = None) -> None:
        """The preface and SETTINGS of both sides, all acknowledged."""
        self.send(PREFACE)
        self.set(values or {})
        self.send(frames.SETTINGS_ACK)

    def upgrade(self, request: bytes) -> bytes:
        """Begin in HTTP/1.1; the response's head, and nothing of what is behind it (RFC 7540 section 3.2)."""
        self.pipe.send(request)
        while b"\r\n\r\n" not in self._received:
            data = self.pipe.receive()
            assert data, "closed before an answer"
            self._received += data
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        self.ledger.highest = 1
        return head

    def set(self, values: dict[int, int]) -> None:
        """Change settings, and wait until the server has."""
        ledger, acks = self.ledger, self.ledger.acks
        initial = values.get(Setting.INITIAL_WINDOW_SIZE, ledger.initial_window)
        ledger.max_frame_size = max(ledger.max_frame_size, values.get(Setting.MAX_FRAME_SIZE, 0))
        if initial > ledger.initial_window:
            ledger.resize(initial)
        self.send(frames.settings(values))
        self.until(lambda: ledger.acks > acks, "the acknowledgement of SETTINGS")
        if initial < ledger.initial_window:
            ledger.resize(initial)
        ledger.max_frame_size = values.get(Setting.MAX_FRAME_SIZE, ledger.max_frame_size)
        ledger.pushes = bool(values.get(Setting.ENABLE_PUSH, ledger.pushes))

    def headers(
        self, stream: int, fields: Fields | None = None, *, end: bool = True, padding: int | None = None
    ) -> None:
        """HEADERS, and CONTINUATION if one frame cannot hold them; a plain GET if no fields are given."""
        block = encode(self.encoder, request(scheme=self.pipe.scheme) if fields is None else fields)
        pieces = [block[place : place + MAX_FRAME_SIZE] for place in range(0, len(block), MAX_FRAME_SIZE)] or [b""]
        self.send(frames.headers(stream, pieces[0], end=end, whole=len(pieces) == 1, padding=padding))
        for piece in pieces[1:]:
            self.send(frames.continuation(stream, piece, whole=piece is pieces[-1]))

    def ask(
        self,
        path: bytes = b"/",
        *more: tuple[bytes, bytes],
        method: bytes = b"GET",
        end: bool = True,
        stream: int | None = None,
    ) -> int:
        """Open the next stream with a request."""
        stream = self.next_stream if stream is None else stream
        self.headers(stream, request(path, method, *more, scheme=self.pipe.scheme), end=end)
        return stream

    def post(self, path: bytes = b"/", body: bytes = b"", *more: tuple[bytes, bytes], end: bool = True) -> int:
        """Open the next stream with a request that has a body."""
        stream = self.ask(path, *more, method=b"POST", end=False)
        self.send(frames.data(stream, body, end=end))
        return stream

    @property
    def next_stream(self) -> int:
        highest = self.ledger.highest
        return 1 if highest == 0 else highest + 2 - (highest + 1) % 2

    def grant(self, stream: int, increment: int) -> None:
        """WINDOW_UPDATE."""
        self.ledger.grant(stream, increment)
        self.send(frames.window_update(stream, increment))

    # Receiving

    def read(self) -> bool:
        """Take some frames of the server's; False once it has closed."""
        if self.closed:
            return False
        data = self.pipe.receive()
        if not data:
            self.closed = True
            return False
        self._received += data
        for got in frames.read(self._received):
            self._received = self._received[HEAD_SIZE + len(got.payload) :]
            self.ledger.take(got)
        return True

    def until(self, find: Callable[[], bool], what: str) -> None:
        """Read until something has come."""
        while not find():
            try:
                going = self.read()
            except Silence:
                raise AssertionError(f"waited for {what}: {self.story}") from None
            assert going or find(), f"waited for {what}: closed: {self.story}"

    @property
    def story(self) -> str:
        """What has come so far, for whoever looks at a failure."""
        ledger = self.ledger
        parts = [f"GOAWAY {code:#x} last {last} {debug.decode('latin-1')}" for last, code, debug in ledger.goaways]
        for stream, answer in ledger.answers.items():
            state = "ended" if answer.ended else "open"
            reset = "" if answer.reset is None else f", RST_STREAM {answer.reset:#x}"
            parts.append(f"stream {stream}: {answer.status or '-'} {len(answer.body)} bytes, {state}{reset}")
        return "; ".join(parts) or "nothing has come"

    def sync(self) -> None:
        """All that was sent so far has been looked at: PING is answered in its turn."""
        self._pings += 1
        payload = self._pings.to_bytes(PING_SIZE)
        self.send(frames.ping(payload))
        self.until(lambda: payload in self.ledger.pongs, "the answer to PING")

    # Expectations

    def answer(self, stream: int) -> Answer:
        """The whole answer on a stream."""
        answer = self.ledger.answer(stream)
        self.until(lambda: answer.ended, f"the end of stream {stream}")
        return answer

    def expect_answer(self, stream: int, status: int = 200, body: bytes | None = None) -> Answer:
        """A whole answer with this status, and this body if one is given."""
        answer = self.answer(stream)
        assert answer.status == status, f"{answer.status} {answer.body!r}"
        assert body is None or answer.body == body
        return answer

    def expect_alive(self) -> None:
        """The connection goes on: PING is answered and so is a new request."""
        self.sync()
        self.expect_answer(self.ask())
        assert not self.ledger.goaways, self.story

    def expect_goaway(self, *codes: int) -> None:
        """A connection error with one of these codes; then the server closes (section 5.4.1)."""
        goaways = self.ledger.goaways
        self.until(lambda: bool(goaways) and goaways[-1][1] != 0, f"GOAWAY with {_names(codes)}")
        assert goaways[-1][1] in codes, f"wanted {_names(codes)}: {self.story}"
        self.expect_closed()

    def expect_closed(self) -> None:
        """The server closes the connection."""
        self.until(lambda: self.closed, "the end of the connection")

    def expect_stream_error(self, stream: int, *codes: int, coarse: Iterable[str] = (), before: bool = True) -> None:
        """A stream error with one of these codes, in words RST_STREAM, and a connection that goes on.

        A refusal may be answered before it is reset (section 8.1.1).

        Args:
            stream: The stream.
            codes: The error codes that are right.
            coarse: Engines that make it a connection error (which section 5.4.1 leaves them).
            before: The stream has not been answered before.
        """
        if self.pipe.engine in coarse:
            self.expect_goaway(*codes)
            return
        answer = self.ledger.answer(stream)
        self.until(lambda: answer.reset is not None, f"RST_STREAM with {_names(codes)} on stream {stream}")
        assert answer.reset in codes, f"wanted {_names(codes)}: {self.story}"
        if before:
            assert answer.status == 0 or 400 <= answer.status < 500, self.story
        self.expect_alive()

    def expect_malformed(self, stream: int, *, coarse: Iterable[str] = ()) -> None:
        """A malformed request: a stream error of type PROTOCOL_ERROR (section 8.1.1)."""
        self.expect_stream_error(stream, Code.PROTOCOL_ERROR, coarse=coarse)

    def expect_ignored(self, *codes: int) -> None:
        """Ignored, or a connection error with one of these codes where the RFC leaves the choice."""
        try:
            self.expect_alive()
        except AssertionError:
            self.expect_goaway(*codes)

    def expect_error(self, stream: int, code: int) -> None:
        """An error of the stream or of the connection, where the RFC leaves the choice."""
        answer, goaways = self.ledger.answer(stream), self.ledger.goaways
        self.until(
            lambda: bool(answer.reset) or (bool(goaways) and goaways[-1][1] != 0), f"an error of type {_names((code,))}"
        )
        if goaways:
            self.expect_goaway(code)
        else:
            assert answer.reset == code, self.story
            self.expect_alive()


def _names(codes: Iterable[int]) -> str:
    return " or ".join(Code(code).name for code in codes)
