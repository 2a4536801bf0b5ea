"""The native HTTP/2 engine: libnghttp2, by way of ngh2 (the extra `appserverd[fast]`).

It handles a request in a twentieth of the time that `h2` takes, schedules streams by the client's priorities (RFC 9218)
and answers malformed messages by itself. Errors that it cannot go on from end its session before it has written a
GOAWAY; that one is ours then.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import ClassVar, Final

from ngh2 import (
    Configuration,
    Connection,
    ConnectionClosed,
    ConnectionProtocolError,
    ConnectionStateError,
    DataReceived,
    DenialOfServiceError,
    NGH2Error,
    PingAcknowledged,
    Priority,
    RequestReceived,
    Role,
    SettingsReceived,
    StreamClosed,
    StreamReset,
    TrailersReceived,
    pack_settings_payload,
)

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
    CONTINUATIONS_LIMIT,
    ENHANCE_YOUR_CALM,
    INTERNAL_ERROR,
    PROTOCOL_ERROR,
    Violation,
    goaway,
    name_error,
)
from appserver.wire.http2_gate import MAX_FRAME_SIZE

_ENABLE_PUSH: Final = 0x2
_MAX_CONCURRENT_STREAMS: Final = 0x3
_INITIAL_WINDOW_SIZE: Final = 0x4
_MAX_FRAME_SIZE: Final = 0x5
_MAX_HEADER_LIST_SIZE: Final = 0x6
_ENABLE_CONNECT_PROTOCOL: Final = 0x8  # RFC 8441
_NO_RFC7540_PRIORITIES: Final = 0x9

_ANY_HEAD: Final = 1 << 24  # of a response: over the library's limit, 64 KiB, the stream is reset without a word
_NO_SIGNAL: Final = Priority()
_SHARED: Final = Priority(incremental=True)

# Beyond our own limits, which are answered with 431, the library's end the connection.
_SPARE: Final = 4


class Ngh2Engine(Http2Engine):
    """HTTP/2 on libnghttp2."""

    __slots__ = ("_closed", "_final", "_given_up", "_library", "_pushes", "_settings", "_streams_limit")

    name: ClassVar[str] = "ngh2"
    prioritises: ClassVar[bool] = True

    def __init__(self, limits: Limits, clock: Callable[[], float], *, websocket: bool = False) -> None:
        super().__init__(limits, clock, websocket=websocket)
        size = limits.head + 32 * limits.fields  # as RFC 9113 section 6.5.2 counts
        self._library = Connection(
            Role.SERVER,
            Configuration(
                auto_window_update=False,
                max_continuations=CONTINUATIONS_LIMIT,
                max_send_header_block_length=_ANY_HEAD,
                max_inbound_header_list_size=_SPARE * size,
                max_inbound_header_count=_SPARE * limits.fields,
                # What a peer may do in vain is counted in `http2_frames.Budget`, alike for all engines.
                stream_reset_rate_limit=(1 << 32, 1 << 32),
                glitch_rate_limit=(1 << 32, 1 << 32),
            ),
        )
        self._settings = {
            _MAX_CONCURRENT_STREAMS: ANY_STREAMS,
            _INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            _MAX_FRAME_SIZE: MAX_FRAME_SIZE,
            _MAX_HEADER_LIST_SIZE: size,
            _NO_RFC7540_PRIORITIES: 1,
        }
        if websocket:
            self._settings[_ENABLE_CONNECT_PROTOCOL] = 1
        # Until its SETTINGS say otherwise (RFC 9113 section 6.5.2).
        self._pushes = True
        self._streams_limit = 1 << 32
        self._final = b""  # to be written yet: what came with bad news, or our own GOAWAY where the library failed
        self._closed = False
        self._given_up: set[int] = set()  # streams that were reset by the peer, or by us for reasons of ours

    def begin(self) -> None:
        """See `Http2Engine`."""
        self._library.initiate_connection(self._settings)
        self._introduce()

    def _introduce(self) -> None:
        self._library.set_local_window_size(CONNECTION_WINDOW)
        any_streams, streams = (
            pack_settings_payload({_MAX_CONCURRENT_STREAMS: number}) for number in (ANY_STREAMS, self._limits.streams)
        )
        self.own += self._library.data_to_send().replace(any_streams, streams, 1)

    def upgrade(self, settings: bytes, head: Head) -> list[Event]:
        """See `Http2Engine`."""
        self._begun = True
        try:
            self._library.initiate_upgrade(settings, local_settings=self._settings, head_request=head.method == "HEAD")
        except (NGH2Error, ValueError):
            return self.fail(PROTOCOL_ERROR, "HTTP2-Settings that are none")
        self._introduce()
        events: list[Event] = [self.adopt(head)]
        try:
            self._follow(events)
        except Violation as violation:  # a value that no setting has
            events += self.fail(violation.code, violation.reason)
        return events

    # In

    def feed(self, data: bytes, events: list[Event]) -> None:
        """See `Http2Engine`."""
        try:
            self._library.receive_data(data)
        except DenialOfServiceError as error:
            self._fail(ENHANCE_YOUR_CALM, error)
        except ConnectionProtocolError as error:
            self._fail(PROTOCOL_ERROR, error)
        except NGH2Error as error:
            self._fail(INTERNAL_ERROR, error)
        self._follow(events)

    def _fail(self, code: int, error: NGH2Error) -> None:
        """The library cannot go on: its session is gone, with all that waits in it."""
        self._closed = True
        self._final = goaway(self.last, code)
        raise Violation(code, str(error).removeprefix("HTTP/2 engine error: ")) from error

    def _follow(self, events: list[Event]) -> None:
        """Follow what the library has to tell."""
        for event in self._library.events():
            if isinstance(event, RequestReceived):
                self.request(event.stream_id, event.headers, event.end_stream, events)
            elif isinstance(event, StreamClosed):
                code = event.error_code
                if self._given_up and event.stream_id in self._given_up:
                    self._given_up.discard(event.stream_id)
                    code = 0
                self.gone(event.stream_id, code)
            elif isinstance(event, DataReceived):
                self.data(event.stream_id, event.data, event.end_stream, events)
            elif isinstance(event, TrailersReceived):
                self.trailers_read(event.stream_id, event.headers, events)
            elif isinstance(event, StreamReset):
                if event.stream_id in self._streams:
                    self._given_up.add(event.stream_id)
                self.peer_reset(event.stream_id, event.error_code, events)
            elif isinstance(event, SettingsReceived):
                self._pushes = bool(event.settings.get(_ENABLE_PUSH, self._pushes))
                self._streams_limit = event.settings.get(_MAX_CONCURRENT_STREAMS, self._streams_limit)
            elif isinstance(event, PingAcknowledged):
                self.pong(event.opaque_data)
            elif isinstance(event, ConnectionClosed):
                self._closed = True
                if event.error_code and not self.closing and not self._peer_left:
                    reason = event.debug_data.decode("ascii", "replace") or name_error(event.error_code)
                    raise Violation(event.error_code, reason)
                self.closing = True

    def credit(self, stream: int, count: int) -> None:
        """See `Http2Engine`."""
        if not self._closed:
            with suppress(ConnectionStateError):  # the last stream is gone, and the library takes nothing more
                self._library.acknowledge_received_data(count, stream)

    # Out

    def write_head(self, stream: int, fields: Headers, end: bool) -> None:
        """See `Http2Engine`."""
        self._library.send_response(stream, fields, end_stream=end)

    def write_body(self, stream: int, data: bytes, end: bool) -> None:
        """See `Http2Engine`."""
        library = self._library
        library.send_data(stream, data, end_stream=end)
        # Without a signal from the client the library sends one stream after the other (RFC 9218 section 10), and an
        # answer without end would keep all others waiting.
        if (not end or len(data) > MAX_FRAME_SIZE) and library.get_stream_priority(stream) == _NO_SIGNAL:
            library.set_stream_priority(stream, _SHARED)

    def write_interim(self, stream: int, fields: Headers) -> None:
        """See `Http2Engine`."""
        self._library.send_informational_response(stream, fields)

    def write_trailers(self, stream: int, fields: Headers) -> None:
        """See `Http2Engine`."""
        self._library.send_trailers(stream, fields)

    def write_reset(self, stream: int, code: int) -> None:
        """See `Http2Engine`."""
        if not self._closed:
            self._given_up.add(stream)
            self._library.reset_stream(stream, code)

    def write_promise(self, stream: int, fields: Headers) -> int | None:
        """See `Http2Engine`."""
        try:
            return self._library.send_push_promise(stream, fields)
        except NGH2Error:
            return None

    def write_goaway(self, code: int, *, final: bool) -> None:
        """See `Http2Engine`."""
        if final:
            self._library.send_goaway(code, last_stream_id=self.last)
        else:
            self._library.send_shutdown_notice()
            self._library.ping(LEAVE_PING)

    def break_off(self, code: int) -> None:
        """See `Http2Engine`."""
        if not self._closed:
            self._library.terminate_connection(code, last_stream_id=self.last)

    def drive(self) -> bytes:
        """See `Http2Engine`."""
        data, self._final = self._final, b""
        if self._closed:
            return data
        data += self._library.data_to_send(TAKE_SIZE)
        if data:
            try:
                self._follow(self._late)
            except Violation:
                self._final = data  # with the library's GOAWAY in it, if it has written one
                raise
        return data

    def send_window(self, stream: int) -> int:
        """See `FrameGate`."""
        return self._library.stream_remote_window_size(stream)

    def queued(self, stream: int) -> int:
        """See `wire.engine.Engine`."""
        return 0 if self._closed else self._library.queued_body_size(stream)

    @property
    def pushes(self) -> bool:
        """See `wire.engine.Engine`."""
        return self._pushes and not self.closing

    @property
    def streams_limit(self) -> int:
        """See `Http2Engine`."""
        return self._streams_limit
