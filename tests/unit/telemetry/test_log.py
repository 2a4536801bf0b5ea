"""The pipeline: what chooses a renderer, what a record carries, and what happens when it cannot be written."""

import ast
import io
import json
import logging
import os
import pty
import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any, TextIO

import pytest

import appserver
from appserver.telemetry import datagrams
from appserver.telemetry import log as log_module
from appserver.telemetry.context import REQUEST_ID
from appserver.telemetry.datagrams import Datagrams
from appserver.telemetry.journal import MESSAGE_IDS, render_datagram, render_fields
from appserver.telemetry.log import LEVELS, Channel, Log, add_request_id, build, capture_stdlib, choose_format
from appserver.telemetry.record import Form
from appserver.telemetry.text import PLAIN

FORM = Form(render_datagram, lambda _: "", 0, PLAIN)


def records(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def log(stream: io.StringIO) -> Log:
    return build("trace", "json", stream)


@pytest.fixture
def captured(log: Log) -> Iterator[logging.Logger]:
    restore = capture_stdlib(log)
    yield logging.getLogger("shop")
    restore()


# What is chosen


@pytest.fixture
def pipe() -> Iterator[tuple[TextIO, TextIO]]:
    reader, writer = os.pipe()
    with open(reader) as read, open(writer, "w") as write:  # noqa: PTH123 - descriptors have no path
        yield read, write


def name_journal(stream: TextIO) -> dict[str, str]:
    status = os.fstat(stream.fileno())
    return {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}


def test_a_pipe_gets_json(pipe: tuple[TextIO, TextIO]) -> None:
    assert choose_format("auto", pipe[1], {}) == "json"


def test_a_terminal_gets_the_console() -> None:
    leader, follower = pty.openpty()
    with open(leader, "rb", buffering=0), open(follower, "w") as terminal:  # noqa: PTH123
        assert choose_format("auto", terminal, {}) == "console"


def test_the_journal_is_known_by_the_stream_itself(
    pipe: tuple[TextIO, TextIO], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(log_module, "JOURNAL_SOCKET", tmp_path)
    assert choose_format("auto", pipe[1], name_journal(pipe[1])) == "journal"
    with Path(os.devnull).open("w") as redirected:
        assert choose_format("auto", redirected, name_journal(pipe[1])) == "json"


def test_without_the_journals_socket_lines_go_to_its_stream(
    pipe: tuple[TextIO, TextIO], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(log_module, "JOURNAL_SOCKET", tmp_path / "missing")
    assert choose_format("auto", pipe[1], name_journal(pipe[1])) == "json"
    assert choose_format("journal", pipe[1], {}) == "json"


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colour_on_a_terminal(
    variables: dict[str, str],
    coloured: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    leader, follower = pty.openpty()
    with open(leader, "rb", buffering=0) as screen, open(follower, "w") as terminal:  # noqa: PTH123
        build("info", "auto", terminal).info("Hello")
        assert (b"\x1b[" in screen.read(1000)) is coloured


def test_a_stream_in_memory_gets_json(stream: io.StringIO) -> None:
    build("info", "auto", stream).info("Hello")
    assert records(stream)[0]["message"] == "Hello"


def test_the_default_stream_is_the_present_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    build("info", "json").info("Hello")
    assert json.loads(capsys.readouterr().err)["message"] == "Hello"


def test_the_journal_can_be_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(log_module, "JOURNAL_SOCKET", tmp_path)
    sent: list[tuple[bytes, ...]] = []
    monkeypatch.setattr(datagrams, "sendv", lambda *fields: sent.append(fields))
    log = build("info", "journal")
    log.info("Hello", listener="http")
    outlet = log.channel.outlet
    assert isinstance(outlet, datagrams.Datagrams)
    outlet.close()
    assert b"MESSAGE=Hello" in sent[0]
    assert b"LISTENER=http" in sent[0]


# Levels


@pytest.mark.parametrize("threshold", LEVELS)
def test_levels_below_the_threshold_are_silent(threshold: str, stream: io.StringIO) -> None:
    log = build(threshold, "json", stream)
    for level in LEVELS:
        getattr(log, level)(level)
    names = list(LEVELS)
    assert [record["level"] for record in records(stream)] == names[names.index(threshold) :]


# What a record carries


def test_bound_fields_and_the_request_id(log: Log, stream: io.StringIO) -> None:
    token = REQUEST_ID.set("r1")
    log.bind(listener="http").info("Hello", code="ready", size=3)
    REQUEST_ID.reset(token)
    log.info("Later")
    first, second = records(stream)
    assert (first["listener"], first["size"], first["request_id"], first["event"]) == ("http", 3, "r1", "ready")
    assert "request_id" not in second


def test_the_place_is_the_callers() -> None:
    sent: list[list[bytes]] = []
    log = Log(Channel(render_fields, sent.append, 0, FORM, Datagrams()), [add_request_id], {})
    line = sys._getframe().f_lineno + 1
    log.info("Hello")
    assert f"CODE_LINE={line}".encode() in sent[0]
    assert f"CODE_FILE={__file__}".encode() in sent[0]


def test_exceptions_given_or_being_handled(log: Log, stream: io.StringIO) -> None:
    try:
        raise KeyError("x")  # noqa: TRY301
    except KeyError as error:
        log.error("one", exc_info=True)  # noqa: G201
        given = error
    log.error("two", exc_info=given)
    log.error("three", exc_info=True)  # noqa: LOG014 - none is being handled: that is the case
    one, two, three = records(stream)
    assert one["exception_type"] == two["exception_type"] == "KeyError"
    assert one["traceback"].splitlines()[-1] == "KeyError: 'x'"
    assert "traceback" not in three


def test_an_exception_of_a_module_has_its_full_name(log: Log, stream: io.StringIO) -> None:
    log.error("x", exc_info=json.JSONDecodeError("m", "d", 0))
    assert records(stream)[0]["exception_type"] == "json.decoder.JSONDecodeError"


def test_an_unknown_code_warns_where_it_is_used(log: Log) -> None:
    with pytest.warns(RuntimeWarning, match="no event has the code 'redy'") as caught:
        log.info("Hello", code="redy")
    assert caught[0].filename == __file__


def test_every_code_in_the_source_is_an_event() -> None:
    used = {
        node.value.value
        for path in Path(appserver.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.keyword) and node.arg == "code" and isinstance(node.value, ast.Constant)
    }
    codes = {code for code in used if isinstance(code, str)}
    assert "ready" in codes
    assert codes <= MESSAGE_IDS.keys()


# What cannot be written


def test_a_full_disk_is_counted_and_serving_goes_on() -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        log = build("info", "json", full)
        log.info("one")
        log.bind(x=1).info("two")
    assert log.dropped == 2


def test_a_pipe_that_nobody_reads_is_counted() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as broken:  # noqa: PTH123
        log = build("info", "json", broken)
        log.info("one")
    assert log.dropped == 1


def test_no_stderr_at_all_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    log = build()
    log.info("one")
    assert log.dropped == 1


class Explosive(Exception):  # noqa: N818
    @property
    def __cause__(self) -> BaseException:  # type: ignore[override]
        raise RuntimeError("boom")


def test_an_exception_that_cannot_be_shown_costs_its_record_alone(log: Log, stream: io.StringIO) -> None:
    log.error("lost", exc_info=Explosive())
    log.error("kept")
    assert log.dropped == 1
    assert [record["message"] for record in records(stream)] == ["kept"]


# The standard library's logging and warnings


def test_logging_goes_through_the_pipeline(captured: logging.Logger, stream: io.StringIO) -> None:
    captured.warning("Order %d", 7, extra={"user": "ann", "code": 3, "event": "e"})
    record = records(stream)[0]
    assert (record["level"], record["message"], record["logger"]) == ("warning", "Order 7", "shop")
    assert (record["user"], record["extra_code"], record["extra_event"]) == ("ann", 3, "e")
    assert set(record) == {"timestamp", "level", "message", "logger", "user", "extra_code", "extra_event"}


def test_logging_keeps_its_place(stream: io.StringIO) -> None:
    sent: list[list[bytes]] = []
    restore = capture_stdlib(Log(Channel(render_fields, sent.append, 0, FORM, Datagrams()), [], {}))
    line = sys._getframe().f_lineno + 1
    logging.getLogger("shop").error("x")
    restore()
    assert {f"CODE_FILE={__file__}".encode(), f"CODE_LINE={line}".encode(), b"LOGGER=shop"} <= set(sent[0])
    assert not stream.getvalue()


@pytest.mark.parametrize(
    ("number", "level"),
    [(1, "trace"), (5, "trace"), (10, "debug"), (25, "info"), (30, "warning"), (40, "error"), (99, "critical")],
)
def test_levels_of_logging(number: int, level: str, captured: logging.Logger, stream: io.StringIO) -> None:
    captured.setLevel(1)
    captured.log(number, "x")
    captured.setLevel(logging.NOTSET)
    assert [record["level"] for record in records(stream)] == ([level] if number >= 1 else [])


def test_exceptions_and_stacks_of_logging(captured: logging.Logger, stream: io.StringIO) -> None:
    try:
        raise OSError(5, "io")  # noqa: TRY301
    except OSError:
        captured.exception("failed", stack_info=True)
    captured.info("stack", stack_info=True)
    captured.info("nothing", exc_info=True)
    failed, stack, nothing = records(stream)
    assert failed["exception_type"] == "OSError"
    assert failed["traceback"].startswith("Stack (most recent call last):\n")
    assert failed["traceback"].endswith("OSError: [Errno 5] io")
    assert stack["traceback"].startswith("Stack (most recent call last):\n")
    assert "traceback" not in nothing


def test_a_mistake_in_a_logging_call_is_told_not_raised(log: Log, stream: io.StringIO) -> None:
    restore = capture_stdlib(log)  # here and not in the fixture: pytest's own handler would raise
    logging.getLogger("shop").info("%d items", "many")
    restore()
    record = records(stream)[0]
    assert record["message"] == "%d items"
    assert record["logging_error"].startswith("TypeError(")


def test_a_thread_that_carries_the_context_carries_the_id(captured: logging.Logger, stream: io.StringIO) -> None:
    token = REQUEST_ID.set("r2")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(copy_context().run, captured.info, "inside").result()
    REQUEST_ID.reset(token)
    thread = threading.Thread(target=captured.info, args=("outside",))
    thread.start()
    thread.join()
    inside, outside = records(stream)
    assert inside["request_id"] == "r2"
    assert "request_id" not in outside


def test_warnings_go_through_the_pipeline(captured: logging.Logger, stream: io.StringIO) -> None:
    del captured
    with warnings.catch_warnings():
        # catch_warnings() keeps showwarning as it finds it: the captured one.
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    record = records(stream)[0]
    assert (record["level"], record["message"]) == ("warning", "DeprecationWarning: old")
    assert record["logger"] == "py.warnings"


def test_a_warning_for_a_file_is_left_to_who_showed_it_before(
    log: Log, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(warnings, "showwarning", lambda *arguments: shown.append(arguments))
    restore = capture_stdlib(log)
    warnings.showwarning("old", UserWarning, "a.py", 3, other := io.StringIO(), "source")
    restore()
    assert shown == [("old", UserWarning, "a.py", 3, other, "source")]
    assert not stream.getvalue()


def test_what_event_loops_say_for_each_write_behind_the_end_is_not_told(
    log: Log, captured: logging.Logger, stream: io.StringIO
) -> None:
    logging.getLogger("asyncio").warning("SSL connection is closed")
    logging.getLogger("asyncio").warning("socket.send() raised exception.")
    assert not stream.getvalue()
    captured.warning("SSL connection is closed")
    logging.getLogger("asyncio").warning("Executing took 1 s")
    assert len(stream.getvalue().splitlines()) == 2


def test_capture_is_taken_back_whole(log: Log) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level, warnings.showwarning
    restore = capture_stdlib(log)
    assert root.handlers != before[0]
    restore()
    assert (root.handlers[:], root.level, warnings.showwarning) == before
