"""The reference HTTP/2 engine: `h2`, always there.

The library ends a connection where RFC 9113 would have it end a stream, and forgets the events before a bad frame of
the same read; so it gets one frame at a time, does not check fields (`http2_head` does), and never sees a GOAWAY, after
which it would write no more. It keeps no bodies: what the windows hold back waits here, and streams take turns.
"""

from base64 import urlsafe_b64encode
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from struct import iter_unpack, pack
from typing import Any, ClassVar, Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    PingAckReceived,
    RequestReceived,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import DenialOfServiceError, H2Error, ProtocolError
from h2.settings import SettingCodes, Settings
from hpack import Encoder
from hpack.exceptions import HPACKError
from hyperframe.exceptions import HyperframeError

from appserver.wire.engine import Event, Head, Headers, Limits
from appserver.wire.http2 import (
    ANY_STREAMS,
    CONNECTION_WINDOW,
    LEAVE_PING,
    STREAM_WINDOW,
    TAKE_SIZE,
    Http2Engine,
)
from appserver.wire.http2_frames import (
    COMPRESSION_ERROR,
    HEADER_SIZE,
    LAST_STREAM,
    PREFACE,
    PROTOCOL_ERROR,
    RST_STREAM,
    SETTINGS,
    Violation,
    goaway,
)
from appserver.wire.http2_gate import MAX_FRAME_SIZE

_SPARE: Final = 4  # beyond our own limits, which are answered with 431, the library's end the connection
_INITIAL_WINDOW: Final = 65_535
# What its HPACK decoder raises for a block that is none.
_IN_BLOCK: Final = (HPACKError, IndexError, TypeError, UnicodeDecodeError)
_TABLE_SIZE: Final = 4096  # bytes of HPACK's table that we use, however many more the client allows
_CODED_SIZE: Final = 1024  # bytes of a field that are Huffman-coded: 0.3 ms
_REASON_LENGTH: Final = 100
_SETTING_SIZE: Final = 6
_RESET_SIZE: Final = HEADER_SIZE + 4
_RESET_KIND: Final = bytes([RST_STREAM])


@dataclass(slots=True)
class _Queue:
    """What is to be sent of a response behind its head."""

    pieces: deque[bytes] = field(default_factory=deque)
    size: int = 0
    ended: bool = False
    trailers: Headers | None = None


class _Encoder(Encoder):
    """Writes long fields as they are, as RFC 7541 section 5.2 lets us.

    The library codes a value as one number, in a time that grows with the square of its length: 64 KB took 0.3 s, and
    300 KB 7 s, with the event loop at a stand.
    """

    def add(self, to_add: tuple[bytes, bytes], sensitive: bool, huffman: bool = False) -> bytes:  # noqa: FBT002
        """Encode one field; see `Encoder`."""
        name, value = to_add
        return super().add(to_add, sensitive, huffman and len(name) + len(value) <= _CODED_SIZE)


class _Connection(H2Connection):
    """Leaves Content-Length to http2.py: for one that does not fit it would end the connection, and not the stream."""

    def _begin_new_stream(self, stream_id: int, allowed_ids: Any) -> Any:
        stream = super()._begin_new_stream(stream_id, allowed_ids)
        stream._initialize_content_length = stream._track_content_length = _ignore  # type: ignore[assignment]  # noqa: SLF001
        return stream


def _ignore(*_: Any) -> None:
    pass


class H2Engine(Http2Engine):
    """HTTP/2 on `h2`."""

    __slots__ = ("_broken", "_extra", "_library", "_queues")

    name: ClassVar[str] = "h2"
    prioritises: ClassVar[bool] = False

    def __init__(self, limits: Limits, clock: Callable[[], float], *, websocket: bool = False) -> None:
        super().__init__(limits, clock, websocket=websocket)
        size = limits.head + 32 * limits.fields  # as RFC 9113 section 6.5.2 counts
        config = H2Configuration(
            client_side=False,
            header_encoding=None,
            validate_inbound_headers=False,
            normalize_inbound_headers=False,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self._library = _Connection(config)
        self._library.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: ANY_STREAMS,
                SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                SettingCodes.MAX_FRAME_SIZE: MAX_FRAME_SIZE,
                SettingCodes.MAX_HEADER_LIST_SIZE: size,
                # h2 tells its default of this one too.
                SettingCodes.ENABLE_CONNECT_PROTOCOL: int(websocket),
            },
        )
        self._library.encoder = _Encoder()
        self._library.decoder.max_header_list_size = _SPARE * size
        self._queues: dict[int, _Queue] = {}
        self._extra = b""  # to be written behind what the library has
        self._broken = False

    def begin(self) -> None:
        """See `Http2Engine`."""
        self._library.initiate_connection()
        self._introduce()

    def _introduce(self) -> None:
        self._library.increment_flow_control_window(CONNECTION_WINDOW - _INITIAL_WINDOW)
        any_streams, streams = (
            SettingCodes.MAX_CONCURRENT_STREAMS.to_bytes(2, "big") + number.to_bytes(4, "big")
            for number in (ANY_STREAMS, self._limits.streams)
        )
        self.own += self._library.data_to_send().replace(any_streams, streams, 1)

    def upgrade(self, settings: bytes, head: Head) -> list[Event]:
        """See `Http2Engine`."""
        self._begun = True
        try:
            self._library.initiate_upgrade_connection(urlsafe_b64encode(_bound_table(settings)))
        except (H2Error, HyperframeError, ValueError):
            return self.fail(PROTOCOL_ERROR, "HTTP2-Settings that are none")
        self._introduce()
        return [self.adopt(head)]

    # In

    def feed(self, data: bytes, events: list[Event]) -> None:
        """See `FrameGate`: one frame at a time."""
        if data == PREFACE:
            self._tell(data, 0, events)
            return
        at, size = 0, len(data)
        while at < size:
            end = at + HEADER_SIZE + int.from_bytes(data[at : at + 3], "big")
            frame = data[at:end]
            if frame[3] == SETTINGS:
                frame = frame[:HEADER_SIZE] + _bound_table(frame[HEADER_SIZE:])
                # Asked for what it does besides: forget the streams that are over. Their windows would be changed too.
                _ = self._library.open_inbound_streams
            self._tell(frame, int.from_bytes(data[at + 5 : at + 9], "big"), events)
            at = end

    def _tell(self, frame: bytes, stream: int, events: list[Event]) -> None:
        library = self._library
        if stream and self.is_forgotten(stream):
            self._extra += library.data_to_send()
        try:
            told = library.receive_data(frame)
        except ProtocolError as error:
            in_block = isinstance(error.__context__, _IN_BLOCK) and not isinstance(error, DenialOfServiceError)
            code = COMPRESSION_ERROR if in_block else int(error.error_code)
            raise Violation(code, _explain(error)) from error
        except (HPACKError, HyperframeError, ValueError) as error:
            raise Violation(PROTOCOL_ERROR, _explain(error)) from error
        if stream and self.is_forgotten(stream):
            # It resets the stream again for what was under way (RFC 9113 section 5.4.2).
            written = library.data_to_send()
            self._extra += written[_RESET_SIZE:] if written[3:4] == _RESET_KIND else written
        for event in told:
            if isinstance(event, RequestReceived):
                self.request(event.stream_id, event.headers, event.stream_ended is not None, events)
            elif isinstance(event, DataReceived):
                padding = event.flow_controlled_length - len(event.data)
                if padding:
                    self.credit(event.stream_id, padding)
                self.data(event.stream_id, event.data, event.stream_ended is not None, events)
            elif isinstance(event, TrailersReceived):
                self.trailers_read(event.stream_id, event.headers, events)
            elif isinstance(event, StreamReset):
                self._queues.pop(event.stream_id, None)
                if event.remote_reset:
                    self.peer_reset(event.stream_id, int(event.error_code), events)
                else:
                    self.gone(event.stream_id, int(event.error_code))
            elif isinstance(event, PingAckReceived):
                self.pong(event.ping_data)

    def credit(self, stream: int, count: int) -> None:
        """See `Http2Engine`."""
        if not self._broken:
            self._library.acknowledge_received_data(count, stream)

    # Out

    def write_head(self, stream: int, fields: Headers, end: bool) -> None:
        """See `Http2Engine`."""
        self._library.send_headers(stream, fields, end_stream=end)
        if end:
            self._sent(stream)
        else:
            self._queues[stream] = _Queue()

    def write_body(self, stream: int, data: bytes, end: bool) -> None:
        """See `Http2Engine`."""
        queue = self._queues[stream]
        if data:
            queue.pieces.append(data)
            queue.size += len(data)
        queue.ended = end

    def write_interim(self, stream: int, fields: Headers) -> None:
        """See `Http2Engine`."""
        self._library.send_headers(stream, fields)

    def write_trailers(self, stream: int, fields: Headers) -> None:
        """See `Http2Engine`."""
        queue = self._queues[stream]
        queue.ended = True
        queue.trailers = fields

    def write_reset(self, stream: int, code: int) -> None:
        """See `Http2Engine`."""
        self._queues.pop(stream, None)
        if not self._broken:
            with suppress(ProtocolError):  # it is closed already
                self._library.reset_stream(stream, ErrorCodes(code))

    def write_promise(self, stream: int, fields: Headers) -> int | None:
        """See `Http2Engine`."""
        promised = self._library.get_next_available_stream_id()
        try:
            self._library.push_stream(stream, promised, fields)
        except ProtocolError:
            return None
        return promised

    def write_goaway(self, code: int, *, final: bool) -> None:
        """See `Http2Engine`."""
        self._extra += self._library.data_to_send() + goaway(self.last if final else LAST_STREAM, code)
        if not final:
            self._library.ping(LEAVE_PING)

    def break_off(self, code: int) -> None:
        """See `Http2Engine`."""
        self._queues.clear()
        if not self._broken:
            self._broken = True
            # Not its own GOAWAY, if it has written one: it may name another error.
            self._extra += goaway(self.last, code)

    def drive(self) -> bytes:
        """See `Http2Engine`."""
        written, self._extra = self._extra, b""
        room = left = TAKE_SIZE
        while left > 0:
            for number in list(self._queues):
                queue = self._queues[number]
                # A frame a turn; then the others are ahead of it.
                left -= self._send_frame(number, queue, left)
                if number in self._queues:
                    self._queues[number] = self._queues.pop(number)
                if left <= 0:
                    break
            if left == room:
                break
            room = left
        return written if self._broken else written + self._library.data_to_send()

    def _send_frame(self, number: int, queue: _Queue, room: int) -> int:
        library = self._library
        # A window is below 0 where the client has made it smaller since (RFC 9113 section 6.9.2).
        window = max(library.local_flow_control_window(number), 0)
        size = min(window, library.max_outbound_frame_size, queue.size, room)
        if queue.size and not size:
            return 0
        data = _cut(queue.pieces, size)
        queue.size -= size
        last = queue.ended and not queue.size
        if data or (last and queue.trailers is None):
            library.send_data(number, data, end_stream=last and queue.trailers is None)
        if last:
            if queue.trailers is not None:
                library.send_headers(number, queue.trailers, end_stream=True)
            del self._queues[number]
            self._sent(number)
        return size

    def _sent(self, number: int) -> None:
        """A response has left whole; the stream is over, if its request is too."""
        stream = self._streams.get(number)
        if stream is not None and not stream.open:
            stream.ended = True
            self.gone(number, 0)

    def send_window(self, stream: int) -> int:
        """See `FrameGate`."""
        found = self._library.streams.get(stream)  # it forgets those that are over before we do
        return 0 if found is None else int(found.outbound_flow_control_window)

    def queued(self, stream: int) -> int:
        """See `wire.engine.Engine`."""
        queue = self._queues.get(stream)
        return 0 if queue is None else queue.size

    @property
    def pushes(self) -> bool:
        """See `wire.engine.Engine`."""
        return not self.closing and bool(self._library.remote_settings.enable_push)

    @property
    def streams_limit(self) -> int:
        """See `Http2Engine`."""
        return self._library.remote_settings.max_concurrent_streams


def _cut(pieces: deque[bytes], size: int) -> bytes:
    """Take so many bytes off the front; there are that many."""
    if not size:
        return b""
    taken = []
    while size:
        piece = pieces.popleft()
        if len(piece) > size:
            pieces.appendleft(piece[size:])
            piece = piece[:size]
        taken.append(piece)
        size -= len(piece)
    return b"".join(taken)


def _bound_table(settings: bytes) -> bytes:
    """SETTINGS with a HEADER_TABLE_SIZE that is not above ours; the library would take any for its own."""
    return b"".join(
        pack("!HL", number, min(value, _TABLE_SIZE) if number == SettingCodes.HEADER_TABLE_SIZE else value)
        for number, value in iter_unpack("!HL", settings)
    )


def _explain(error: Exception) -> str:
    """The library's words, without what could come from the client."""
    text = str(error).partition(":")[0]
    return text[:_REASON_LENGTH] if text.isascii() and text.isprintable() and text else type(error).__name__
