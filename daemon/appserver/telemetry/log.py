"""The one pipeline that every record takes.

    log.info(…) ─┐                                            ┌─ journal fields ─▶ sd_journal_sendv(3)
    logging.… ───┼─▶ Log ─▶ processors ─▶ Channel: renderer ──┼─ JSON lines ────▶ stderr
    warnings ────┘                                            └─ console ───────▶ stderr
                     AccessLog ─▶ batches of records, of the same Channel's form and to the same place

The renderer is chosen once, by what stderr is. Nothing here is global but what `capture_stdlib` installs, and nothing
raises into the caller: a server whose log is full or gone goes on serving, and counts what was lost.
"""

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Generic, TextIO, TypeAlias, TypeVar

import structlog
from structlog.types import EventDict

from appserver.telemetry.context import REQUEST_ID
from appserver.telemetry.datagrams import JOURNAL_SOCKET, Datagrams
from appserver.telemetry.journal import MESSAGE_IDS, render_datagram, render_fields
from appserver.telemetry.lines import CONSOLE_PLAIN, JSON_PLAIN, Console, render_json, stamp_local, stamp_utc
from appserver.telemetry.record import CODE_FIELDS, WORDS, Form, Outlet
from appserver.telemetry.stream import Stream, find_descriptor
from appserver.telemetry.text import PLAIN

LEVELS: Final[dict[str, int]] = {
    "trace": 5,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}
"""Lowest first; the numbers are the standard library's."""

ExcInfo: TypeAlias = (
    bool
    | BaseException
    | tuple[type[BaseException], BaseException, TracebackType | None]
    | tuple[None, None, None]
    | None
)
"""What `logging` takes as exc_info."""

Site: TypeAlias = tuple[str, int, str]
"""File, line and function that a record comes from."""

Rendered = TypeVar("Rendered")

_RESERVED: Final = WORDS | {*CODE_FIELDS, "logger"}
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class Channel(Generic[Rendered]):
    """A renderer and where its output goes.

    Args:
        render: From level and record to what `send` takes.
        send: Writes it; what it raises is counted as a lost record.
        threshold: Number of the lowest level that is written.
        form: Renders the records that are written in batches.
        outlet: Takes these.

    Attributes:
        dropped: How many records could not be written since the start.
    """

    __slots__ = ("_render", "_send", "dropped", "form", "outlet", "threshold")

    def __init__(
        self,
        render: Callable[[str, Mapping[str, Any]], Rendered],
        send: Callable[[Rendered], object],
        threshold: int,
        form: Form,
        outlet: Outlet,
    ) -> None:
        self._render, self._send, self.threshold, self.form, self.outlet = render, send, threshold, form, outlet
        self.dropped = 0

    def write(self, level: str, record: Mapping[str, Any]) -> None:
        """Render and send a whole record; never raises."""
        try:
            self._send(self._render(level, record))
        except Exception:  # noqa: BLE001 - EPIPE, ENOSPC, a journal that is gone: none may end a request
            self.dropped += 1


class Log(structlog.BoundLoggerBase):
    """Where events are told. `bind(listener="http")` gives one whose records all carry that field.

    The words of a record are those of `telemetry.record`.
    """

    _logger: "Channel[Any]"

    @property
    def channel(self) -> "Channel[Any]":
        """The output, for records that are written in batches (access records)."""
        return self._logger

    @property
    def dropped(self) -> int:
        """How many records could not be written since the start."""
        return self._logger.dropped

    def trace(self, event: str, *, code: str | None = None, exc_info: ExcInfo = None, **fields: Any) -> None:
        """Tell what only the developers of appserver want to know."""
        self.emit("trace", event, code=code, exc_info=exc_info, site=None, fields=fields)

    def debug(self, event: str, *, code: str | None = None, exc_info: ExcInfo = None, **fields: Any) -> None:
        """Tell what helps to find a fault."""
        self.emit("debug", event, code=code, exc_info=exc_info, site=None, fields=fields)

    def info(self, event: str, *, code: str | None = None, exc_info: ExcInfo = None, **fields: Any) -> None:
        """Tell what happened as it should."""
        self.emit("info", event, code=code, exc_info=exc_info, site=None, fields=fields)

    def warning(self, event: str, *, code: str | None = None, exc_info: ExcInfo = None, **fields: Any) -> None:
        """Tell what somebody should look at one day."""
        self.emit("warning", event, code=code, exc_info=exc_info, site=None, fields=fields)

    def error(self, event: str, *, code: str | None = None, exc_info: ExcInfo = None, **fields: Any) -> None:
        """Tell what went wrong, for one request or for all."""
        self.emit("error", event, code=code, exc_info=exc_info, site=None, fields=fields)

    def critical(self, event: str, *, code: str | None = None, exc_info: ExcInfo = None, **fields: Any) -> None:
        """Tell why the process ends."""
        self.emit("critical", event, code=code, exc_info=exc_info, site=None, fields=fields)

    def emit(
        self,
        level: str,
        event: str,
        *,
        code: str | None,
        exc_info: ExcInfo,
        site: Site | None,
        fields: dict[str, Any],
    ) -> None:
        """Send a record down the pipeline; never raises.

        Args:
            level: A key of `LEVELS`.
            event: The message.
            code: The name of a `journal.Event`, in lower case. An unknown one warns (RuntimeWarning), so that tests
                fail on it, and the record is written without an id.
            exc_info: An exception, or True for the one that is being handled.
            site: Where the record comes from; None is the caller of the method that called this one.
            fields: The record's fields.
        """
        channel = self._logger
        if LEVELS[level] < channel.threshold:
            return
        if code is not None and code not in MESSAGE_IDS:
            warnings.warn(f"no event has the code {code!r}", RuntimeWarning, stacklevel=3)
        if site is None and "code_file" not in fields:
            frame = sys._getframe(2)  # noqa: SLF001 - as logging does; inspect.stack() would read source files
            site = (frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
        try:
            fields.update(code=code, exc_info=exc_info, site=site)
            _, record = self._process_event(level, event, fields)
        except Exception:  # noqa: BLE001 - an exception whose traceback cannot be shown costs the record, no more
            channel.dropped += 1
            return
        channel.write(level, record)


def build(level: str = "info", log_format: str = "auto", stream: TextIO | None = None) -> Log:
    """Make the pipeline.

    Args:
        level: The lowest level that is written, a key of `LEVELS`.
        log_format: `journal`, `json`, `console`, or `auto` to choose by what the stream is. Without a journal `journal`
            is `json`, which `process.doubts` tells.
        stream: Where lines go; stderr by default.
    """
    stream = sys.stderr if stream is None else stream
    threshold = LEVELS[level]
    chosen = choose_format(log_format, stream, os.environ)
    channel: Channel[Any]
    if chosen == "journal":
        form = Form(render_datagram, lambda _: "", 0, PLAIN)
        journal = Datagrams()
        channel = Channel(render_fields, journal.write, threshold, form, journal)
    else:
        sink = Stream(stream)
        if chosen == "console":
            terminal = is_terminal(stream) and os.environ.get("TERM") != "dumb"
            console = Console(colour=terminal and not os.environ.get("NO_COLOR"))
            form = Form(console.render, stamp_local, 3, CONSOLE_PLAIN)
        else:
            form = Form(render_json, stamp_utc, 6, JSON_PLAIN)
        channel = Channel(form.render, sink.write, threshold, form, sink)
    return Log(channel, [add_request_id, add_traceback], {})


def choose_format(asked: str, stream: TextIO, environ: Mapping[str, str]) -> str:
    """What was asked for; of `auto`, `journal` where the stream leads to it, `console` on a terminal, else `json`.

    The journal also needs its socket, or every record would be lost.
    """
    if asked == "auto" and is_journal(stream, environ) and has_journal():
        return "journal"
    if asked == "auto":
        return "console" if is_terminal(stream) else "json"
    return "json" if asked == "journal" and not has_journal() else asked


def has_journal() -> bool:
    """Whether the journal's socket is there.

    In a chroot or a container it may be missing while stderr leads to the journal, and libsystemd then drops every
    record and reports success.
    """
    return JOURNAL_SOCKET.exists()


def is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether JOURNAL_STREAM, device and inode in decimal, names this very stream (systemd.exec(5)).

    The variable alone says little: it is inherited by processes whose output was redirected since.
    """
    fd = find_descriptor(stream)
    if fd is None:
        return False
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def is_terminal(stream: TextIO) -> bool:
    """Whether a person reads the stream."""
    fd = find_descriptor(stream)
    return fd is not None and os.isatty(fd)


def add_request_id(_logger: Any, _level: str, record: EventDict) -> EventDict:
    """Processor: the id of the request that the code runs for."""
    request_id = REQUEST_ID.get()
    if request_id is not None:
        record.setdefault("request_id", request_id)
    return record


def add_traceback(_logger: Any, _level: str, record: EventDict) -> EventDict:
    """Processor: an exception becomes its type and the text of its traceback."""
    error = record.pop("exc_info", None)
    if error is True:
        error = sys.exception()
    if isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        record["exception_type"] = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
        text = "".join(traceback.format_exception(error)).rstrip("\n")
        before = record.get("traceback")  # the stack that logging's stack_info=True asks for
        record["traceback"] = f"{before}\n{text}" if before else text
    return record


def capture_stdlib(log: Log) -> Callable[[], None]:
    """Lead the application's `logging` and `warnings` through the pipeline.

    The root logger's handlers are replaced. An application that configures logging itself afterwards is free to.

    Args:
        log: The pipeline.

    Returns:
        A function that puts everything back.
    """
    root = logging.getLogger()
    before = root.handlers[:], root.level, warnings.showwarning
    logging.addLevelName(LEVELS["trace"], "TRACE")
    root.handlers[:] = [_Handler(log)]
    root.setLevel(log.channel.threshold)

    def show_warning(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if file is not None:
            before[2](message, category, filename, lineno, file, line)
            return
        log.emit(
            "warning",
            f"{category.__name__}: {message}",
            code=None,
            exc_info=None,
            site=(filename, lineno, ""),
            fields={"logger": "py.warnings"},
        )

    warnings.showwarning = show_warning

    def restore() -> None:
        root.handlers[:] = before[0]
        root.setLevel(before[1])
        warnings.showwarning = before[2]

    return restore


def read_level(log: Log) -> str:
    """The lowest level that is written."""
    return _name_level(log.channel.threshold)


def change_level(log: Log, level: str) -> None:
    """Write from another level on, of the application's `logging` too where it has not been configured otherwise.

    Args:
        log: The pipeline.
        level: A key of `LEVELS`.
    """
    log.channel.threshold = LEVELS[level]
    root = logging.getLogger()
    if any(isinstance(handler, _Handler) for handler in root.handlers):
        root.setLevel(LEVELS[level])


_NOISE: Final = frozenset({"SSL connection is closed", "socket.send() raised exception."})
"""What the event loops say for each write behind the end of a connection, of which the access record tells once."""


class _Handler(logging.Handler):
    """The root logger's only handler."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Send a standard library record down the pipeline; `extra=` becomes fields."""
        if record.name == "asyncio" and record.msg in _NOISE:
            return
        fields: dict[str, Any] = {
            f"extra_{key}" if key in _RESERVED else key: value
            for key, value in vars(record).items()
            if key not in _STANDARD
        }
        fields["logger"] = record.name
        try:
            message = record.getMessage()
        except Exception as error:  # noqa: BLE001 - logging.info("%d", "x") is the application's mistake: tell it as it is
            message = str(record.msg)
            fields["logging_error"] = repr(error)
        text = record.stack_info or (None if record.exc_info else record.exc_text)
        if text:
            fields["traceback"] = text
        self._log.emit(
            _name_level(record.levelno),
            message,
            code=None,
            exc_info=record.exc_info,
            site=(record.pathname, record.lineno, record.funcName or ""),
            fields=fields,
        )


def _name_level(number: int) -> str:
    """The highest of our levels that is not above a standard library level."""
    return next((name for name in reversed(LEVELS) if LEVELS[name] <= number), "trace")
