"""The access log: one record for each answer, made in two steps.

    record() ─▶ waiting ──flush()──▶ rendered ──▶ the log's outlet
                facts     batches    lines, datagrams

While a request is answered its facts are kept, and no more. They are rendered and written together with those of other
requests, `FLUSH_SECONDS` later or as soon as there are `BATCH` of them. Nothing here waits for whoever reads the log:
what he does not take is kept, up to `BACKLOG_BYTES`; then records are dropped, counted and told of.
docs/adr/0013-access-records-in-batches.md has the figures.
"""

from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Sequence
from http import HTTPMethod
from os import urandom
from time import monotonic, time_ns
from typing import Final, NamedTuple, Protocol, TypeAlias

from appserver.telemetry.log import LEVELS, Log
from appserver.telemetry.stream import STALL_SECONDS

COMPLETE: Final = "complete"
"""The outcome of a request whose answer was handed over whole."""

FLUSH_SECONDS: Final = 0.05
"""A record is written this long after its answer, at the latest."""

BATCH: Final = 64
"""So many records are rendered at once: 0.1 ms, for which the event loop stands still. Until then their requests are
kept. Those of 256, with the fields that a browser sends, leave the nearest caches, and cost 1 us more each."""

PIECE: Final = 256
"""So many records are offered at once to a reader that has fallen behind."""

BACKLOG_BYTES: Final = 4 * 1024 * 1024
"""What is kept for a reader that falls behind: about 10,000 records."""

RETRY_SECONDS: Final = 0.002
"""When a reader that falls behind, but reads, is offered more: 32 MB/s through a pipe of 64 KiB."""

TOLD_SECONDS: Final = 5.0
"""That records were dropped is told in pairs of events, and no pair is shorter."""

TEMPLATES: Final = 512
"""Templates that are kept; a server needs some ten."""

_METHODS: Final = frozenset(method.value for method in HTTPMethod)

_SECOND: Final = 1_000_000_000
"""In nanoseconds."""

_HEADERS: Final = {b"host": "http_host", b"user-agent": "user_agent", b"referer": "referer"}
"""The fields of the request that are recorded, and their names."""


class Request(Protocol):
    """What a record tells of a request; `wire.engine.Head` is one."""

    @property
    def method(self) -> str:
        """As the client sent it."""
        ...

    @property
    def target(self) -> bytes:
        """Path and query, as the client sent them."""
        ...

    @property
    def headers(self) -> Sequence[tuple[bytes, bytes]]:
        """Host, user-agent and referer are recorded."""
        ...

    @property
    def version(self) -> str:
        """`1.0`, `1.1` or `2`."""
        ...


_Facts: TypeAlias = tuple[int, Request, int, float, str, str | None, int, int, str, str]
"""The time in nanoseconds since 1970, then the arguments of `AccessLog.record`."""

_Key: TypeAlias = tuple[str, int, str, bool, str, str, tuple[bytes, ...]]
"""What is alike in the records of one template: method, status, version, whether there is a request id, listener,
outcome, and which fields of `_HEADERS` there are."""


class AccessLog:
    """Makes access records.

    They skip the processors: what these would add is known here, and there is a record for every request.

    Until `start()`, and after `close()`, each record is written at once.

    Args:
        log: The pipeline whose form and output are used.
    """

    __slots__ = (
        "_backlog",
        "_batch",
        "_channel",
        "_dropped",
        "_dropping",
        "_failed",
        "_loop",
        "_plain",
        "_rendered",
        "_templates",
        "_threshold",
        "_timer",
        "_waiting",
    )

    def __init__(self, log: Log) -> None:
        self._channel = log.channel
        # Leaves what is plain, and only that, as it is.
        self._plain = bytes(byte if byte in log.channel.form.plain else byte ^ 0x80 for byte in range(256))
        self._loop: AbstractEventLoop | None = None
        self._timer: TimerHandle | None = None
        self._batch = 1
        self._waiting: list[_Facts] = []
        self._rendered: list[bytes] = []
        self._backlog = 0  # bytes, of what is rendered
        self._dropping: float | None = None  # since when
        self._dropped = 0  # since then
        self._failed = False  # the last write
        self._templates: dict[_Key, bytes] = {}
        self._threshold = log.channel.threshold  # that these were made for

    def start(self, loop: AbstractEventLoop) -> None:
        """Write in batches from now on, by timers of the loop."""
        self._loop, self._batch = loop, BATCH

    def record(
        self,
        request: Request,
        status: int,
        duration: float,
        client: str,
        request_id: str | None,
        received: int,
        sent: int,
        listener: str,
        outcome: str,
    ) -> None:
        """Keep the facts of one answer: a warning when it is a 5xx or was cut, else info. Never raises.

        Args:
            request: What was answered.
            status: Of the final response.
            duration: Seconds from the head's arrival to the end of the answer.
            client: Its address, or `unix`.
            request_id: What the application's records of this request carry too.
            received: Bytes of the request's body.
            sent: Bytes of the response's body.
            listener: The socket's name or address.
            outcome: `complete`, or how the exchange ended otherwise.
        """
        waiting = self._waiting
        waiting.append((time_ns(), request, status, duration, client, request_id, received, sent, listener, outcome))
        if len(waiting) >= self._batch:
            self.flush()
        elif self._timer is None:
            self._arm(FLUSH_SECONDS)

    def flush(self) -> None:
        """Render what waits, and write a batch of it as far as the reader takes it now. Never raises."""
        if (
            self._dropping is not None
            and not (self._rendered or self._failed)
            and monotonic() - self._dropping >= TOLD_SECONDS
        ):
            self._recover()
        if self._waiting:
            self._keep()
        if self._rendered or self._channel.outlet.unfinished:
            self._write()

    def close(self) -> None:
        """Write all that is left, and wait `STALL_SECONDS` at most for who reads it: the event loop stands still."""
        self._loop, self._batch = None, 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wait, end = self._channel.outlet.wait, monotonic() + STALL_SECONDS
        self.flush()
        while wait(max(0.0, end - monotonic())) and self._rendered and monotonic() < end:
            self.flush()
        if self._rendered:
            self._drop(len(self._rendered))
            self._rendered.clear()
            self._backlog = 0
        elif self._dropping is not None and not self._failed:
            self._recover()
            self.flush()

    # Rendering

    def _keep(self) -> None:
        """Render what waits, or drop it where too much is kept already."""
        waiting, self._waiting = self._waiting, []
        if self._backlog < BACKLOG_BYTES:
            rendered = self._render(waiting)
            self._rendered += rendered
            self._backlog += sum(map(len, rendered))
        else:
            if self._dropping is None:
                self._tell("Access records are dropped: the log is written faster than it is read")
            self._drop(len(waiting))

    def _render(self, batch: list[_Facts]) -> list[bytes]:
        # One loop over bytes with everything at hand: calls and strings would cost 1 us more for each record.
        form, templates, names = self._channel.form, self._templates, _HEADERS
        if self._threshold != self._channel.threshold:
            # `change_level`: a template tells too whether its level is written.
            self._threshold = self._channel.threshold
            templates.clear()
        plain, unit = self._plain, 10 ** (9 - form.digits)
        second, at = -_SECOND, b""
        rendered: list[bytes] = []
        for facts in batch:
            try:
                time, request, status, duration, client, request_id, received, sent, listener, outcome = facts
                target = request.target
                texts = [target, client.encode("utf-8", "surrogatepass")]
                if request_id is not None:
                    texts.append(request_id.encode("utf-8", "surrogatepass"))
                found: tuple[bytes, ...] = ()
                for name, value in request.headers:
                    if name in names and name not in found:
                        found += (name,)
                        texts.append(value)
                key = (request.method, status, request.version, request_id is None, listener, outcome, found)
                template = templates.get(key)
                if template is None:
                    if request.method not in _METHODS or len(templates) >= TEMPLATES:
                        self._render_alone(facts, rendered)  # clients may make methods up: no templates for those
                        continue
                    template = self._make_template(key)
                if not template:
                    continue
                joined = b"".join(texts)
                if joined.translate(plain) != joined:
                    rendered.append(form.render(*_make_record(facts)))
                    continue
                if not 0 <= (rest := time - second) < _SECOND:
                    rest = time % _SECOND
                    second = time - rest
                    at = form.stamp(second // _SECOND).encode()
                micros = int(duration * 1_000_000 + 0.5)
                tenths = (micros + 50) // 100
                rendered.append(
                    template % (at, rest // unit, target, tenths // 10, tenths % 10, micros, received, sent, *texts)
                )
            except Exception:  # noqa: BLE001 - whatever a record is made of, it costs this record and no other
                self._drop(1)
        return rendered

    def _render_alone(self, facts: _Facts, rendered: list[bytes]) -> None:
        level, record = _make_record(facts)
        if LEVELS[level] >= self._channel.threshold:
            rendered.append(self._channel.form.render(level, record))

    def _make_template(self, key: _Key) -> bytes:
        """Render a record of marks, and make holes of them; empty where its level is not written."""
        method, status, version, bare, listener, outcome, found = key
        # A client chooses its method, and could choose a mark that it can guess.
        target, client, name, *values = (urandom(32).hex() for _ in range(3 + len(found)))
        request_id = None if bare else name
        # Under 2**51: as many microseconds are the same number after a way through seconds in a float.
        micros, received, sent = (1 << 50 | int.from_bytes(urandom(6)) for _ in range(3))
        seconds = micros / 1_000_000
        request = _Sample(method, target.encode(), [*zip(found, map(str.encode, values), strict=True)], version)
        level, record = _make_record(
            (_SECOND, request, status, seconds, client, request_id, received, sent, listener, outcome)
        )
        template = b""
        if LEVELS[level] >= self._channel.threshold:
            form = self._channel.form
            marks = [(form.stamp(1) + "0" * form.digits, b"%%b%%0%dd" % form.digits)]
            marks += [(target, b"%b"), (_show_ms(micros), b"%d.%d")]
            marks += [(str(number), b"%d") for number in (micros, received, sent)]
            marks += [(text, b"%b") for text in (target, client, request_id, *values) if text is not None]
            template = _cut(form.render(level, record), marks)
        self._templates[key] = template
        return template

    # Writing

    def _arm(self, seconds: float) -> None:
        if self._loop is not None:
            self._timer = self._loop.call_later(seconds, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.flush()

    def _write(self) -> None:
        batch = self._rendered[:PIECE]
        try:
            taken = self._channel.outlet.offer(batch)
        except Exception:  # noqa: BLE001 - EPIPE, ENOSPC, a journal that is gone: none may end a request
            self._failed = True
            self._drop(len(self._rendered))
            self._rendered.clear()
            self._backlog = 0
            return
        self._failed = False
        del self._rendered[:taken]
        self._backlog = self._backlog - sum(map(len, batch[:taken])) if self._rendered else 0
        if (self._rendered or self._channel.outlet.unfinished) and self._timer is None:
            self._arm(RETRY_SECONDS if taken else FLUSH_SECONDS)

    # What is lost

    def _drop(self, count: int) -> None:
        if self._dropping is None:
            self._dropping, self._dropped = monotonic(), 0
        self._dropped += count
        self._channel.dropped += count

    def _recover(self) -> None:
        self._dropping = None
        self._tell(f"{self._dropped} access records were dropped", dropped=self._dropped)

    def _tell(self, event: str, **fields: int) -> None:
        """Put an event behind what is kept. The log itself would wait for the same reader."""
        self._rendered.append(self._channel.form.render("warning", {"event": event, "code": "log_dropped", **fields}))


class _Sample(NamedTuple):
    """A request that never was."""

    method: str
    target: bytes
    headers: list[tuple[bytes, bytes]]
    version: str


def _make_record(facts: _Facts) -> tuple[str, dict[str, object]]:
    """Level and record, for any renderer. The numbers and texts that differ come in the order that templates have."""
    time, request, status, duration, client, request_id, received, sent, listener, outcome = facts
    target = request.target.decode("utf-8", "backslashreplace")
    micros = int(duration * 1_000_000 + 0.5)
    event = f"{request.method} {target} {status} {_show_ms(micros)} ms"
    fields: dict[str, object] = {
        "http_method": request.method,
        "http_status": status,
        "http_version": request.version,
        "duration_us": micros,
        "bytes_received": received,
        "bytes_sent": sent,
        "http_target": target,
        "client_addr": client,
        "request_id": request_id,
        "listener": listener,
        "outcome": outcome,
    }
    for name, value in request.headers:
        key = _HEADERS.get(name)
        if key is not None and key not in fields:
            fields[key] = value.decode("utf-8", "backslashreplace")
    words = {
        "event": event if outcome == COMPLETE else f"{event} ({outcome})",
        "captured": time // 1000,
        "said": fields.keys() - {"client_addr"},
    }
    return "warning" if status >= 500 or outcome == "cut" else "info", words | fields


def _show_ms(micros: int) -> str:
    tenths = (micros + 50) // 100
    return f"{tenths // 10}.{tenths % 10}"


def _cut(line: bytes, marks: list[tuple[str, bytes]]) -> bytes:
    """Put holes where the marks are. One that the format does not show takes its values and shows nothing (`%.0a`)."""
    template = b""
    for mark, hole in marks:
        if mark and mark.encode() in line:
            before, _, line = line.partition(mark.encode())
            template += before.replace(b"%", b"%%") + hole
        else:
            template += b"%.0a" * hole.count(b"%")
    return template + line.replace(b"%", b"%%")
