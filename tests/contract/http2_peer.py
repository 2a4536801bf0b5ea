"""The client's end of an HTTP/2 connection, on h2's client side: bytes in and bytes out, as an engine has them.

GOAWAY is kept from the library, which would take nothing more behind it; a client may (RFC 9113 section 6.8).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    Event,
    InformationalResponseReceived,
    PushedStreamReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.settings import SettingCodes, Settings

from appserver.wire.engine import Headers
from tests.conformance.http2 import frames
from tests.conformance.http2.frames import HEAD_SIZE, MAX_WINDOW, WINDOW, Frame, Kind

ROOM: Final = 1 << 26
"""The connection's window, so that only those of streams hold anything back."""


@dataclass(slots=True)
class Answer:
    """What the server has sent on one stream."""

    status: int = 0
    fields: Headers = field(default_factory=list)
    body: bytes = b""
    trailers: Headers = field(default_factory=list)
    interim: list[tuple[int, Headers]] = field(default_factory=list)
    promised: Headers = field(default_factory=list)
    """The fields of the request that the server has made up (section 8.4)."""
    ended: bool = False
    reset: int | None = None


class Http2Peer:
    """One connection, client side.

    Args:
        settings: What it says of itself, beyond h2's defaults.
        room: The connection's window.
    """

    def __init__(self, settings: Mapping[int, int] | None = None, *, room: int = ROOM) -> None:
        self.library = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        said = {
            SettingCodes(code): value
            for code, value in [*self.library.local_settings.items(), *(settings or {}).items()]
        }
        self.library.local_settings = Settings(client=True, initial_values=said)
        self.answers: dict[int, Answer] = {}
        self.goaways: list[tuple[int, int]] = []
        """Last stream and code."""
        self.frames: list[Frame] = []
        """All that has come, in order."""
        self.slow: set[int] = set()
        """Streams whose windows are not given back."""
        self._room = room
        self._received = b""

    def start(self) -> None:
        """Send the preface."""
        self.library.initiate_connection()
        self._widen()

    def upgrade(self) -> bytes:
        """Send the preface, with the request of an HTTP/1.1 connection as stream 1; its HTTP2-Settings."""
        value = self.library.initiate_upgrade_connection()
        assert value is not None
        self._widen()
        self.answers[1] = Answer()
        return value

    def _widen(self) -> None:
        if self._room > WINDOW:
            self.library.increment_flow_control_window(self._room - WINDOW)

    def ask(self, path: str = "/", *fields: tuple[str, str], method: str = "GET", end: bool = True) -> int:
        """Send a request's head; its stream."""
        stream = self.library.get_next_available_stream_id()
        line = [(":method", method), (":scheme", "http"), (":authority", "a.example"), (":path", path)]
        self.library.send_headers(stream, [*line, *fields], end_stream=end)
        self.answers[stream] = Answer()
        return stream

    def post(self, path: str, *pieces: bytes, end: bool = True) -> int:
        """Send a request with a body, of as many frames."""
        stream = self.ask(path, method="POST", end=False)
        for index, piece in enumerate(pieces):
            self.send(stream, piece, end=end and index == len(pieces) - 1)
        return stream

    def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """Send some of a body, as far as the windows go; more is an error."""
        size = self.library.max_outbound_frame_size
        for at in range(0, max(len(data), 1), size):
            self.library.send_data(stream, data[at : at + size], end_stream=end and at + size >= len(data))

    def reset(self, stream: int, code: int = frames.Code.CANCEL) -> None:
        """Give a stream up."""
        self.library.reset_stream(stream, code)

    def grant(self, stream: int, increment: int) -> None:
        """Give a stream's window back, so much of it."""
        self.library.increment_flow_control_window(increment, stream)

    def leave(self) -> None:
        """Send GOAWAY; the library would take nothing more behind its own."""
        self.library._data_to_send += frames.goaway()

    def take(self) -> bytes:
        """What is to be sent to the server."""
        return self.library.data_to_send()

    def feed(self, data: bytes) -> None:
        """Take bytes from the server; an answer that breaks the RFC raises."""
        self._received += data
        for got in frames.read(self._received):
            self._received = self._received[HEAD_SIZE + len(got.payload) :]
            self.frames.append(got)
            if got.kind == Kind.GOAWAY:
                self.goaways.append((got.number & MAX_WINDOW, int.from_bytes(got.payload[4:8])))
            else:
                whole = frames.frame(got.kind, got.payload, stream=got.stream, flags=got.flags)
                self._follow(self.library.receive_data(whole))

    def _follow(self, events: Iterable[Event]) -> None:
        for event in events:
            if isinstance(event, PushedStreamReceived):
                self.answers[event.pushed_stream_id or 0] = Answer(promised=[*map(_plain, event.headers or ())])
                continue
            answer = self.answers.get(getattr(event, "stream_id", None) or 0)
            if answer is None:
                continue
            if isinstance(event, InformationalResponseReceived):
                fields = [*map(_plain, event.headers)]
                answer.interim.append((int(fields[0][1]), fields[1:]))
            elif isinstance(event, ResponseReceived):
                fields = [*map(_plain, event.headers)]
                answer.status, answer.fields = int(fields[0][1]), fields[1:]
            elif isinstance(event, DataReceived):
                answer.body += event.data
                if event.stream_id not in self.slow and event.flow_controlled_length:
                    self.library.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, TrailersReceived):
                answer.trailers = [*map(_plain, event.headers)]
            elif isinstance(event, StreamEnded):
                answer.ended = True
            elif isinstance(event, StreamReset):
                answer.reset = int(event.error_code)

    def kinds(self, stream: int) -> list[Kind]:
        """The frames that have come on a stream, in order."""
        return [Kind(got.kind) for got in self.frames if got.stream == stream]


def _plain(name_and_value: Iterable[bytes | str]) -> tuple[bytes, bytes]:
    """A field without hpack's own type for it."""
    name, value = name_and_value
    assert isinstance(name, bytes)
    assert isinstance(value, bytes)
    return name, value
