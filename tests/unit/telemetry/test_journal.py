"""Records become journal fields; the journal itself is met in tests/system."""

import re
from collections.abc import Mapping
from contextlib import closing
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appserver.telemetry.datagrams import Datagrams
from appserver.telemetry.journal import MESSAGE_IDS, Event, name_field, render_datagram, render_fields
from appserver.telemetry.log import Channel, Log, add_request_id, add_traceback
from appserver.telemetry.record import Form
from appserver.telemetry.text import PLAIN

FORM = Form(render_datagram, lambda _: "", 0, PLAIN)


def split(fields: list[bytes]) -> dict[str, str]:
    pairs = [field.decode().split("=", 1) for field in fields]
    assert len({name for name, _ in pairs}) == len(pairs)
    return {name: value for name, value in pairs}  # noqa: C416 - a list of lists


def render(level: str = "info", **record: Any) -> dict[str, str]:
    return split(render_fields(level, {"event": "Said", **record}))


def test_a_keyword_becomes_a_field_of_its_own() -> None:
    assert render(http_status=500, duration_us=12, client_addr="::1", missing=None) == {
        "MESSAGE": "Said",
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "appserver",
        "HTTP_STATUS": "500",
        "DURATION_US": "12",
        "CLIENT_ADDR": "::1",
    }


@pytest.mark.parametrize(
    ("level", "priority"),
    [("critical", "2"), ("error", "3"), ("warning", "4"), ("info", "6"), ("debug", "7"), ("trace", "7")],
)
def test_priorities_are_those_of_syslog(level: str, priority: str) -> None:
    assert render(level)["PRIORITY"] == priority


def test_a_code_gives_the_message_id() -> None:
    fields = render(code="ready")
    assert fields["MESSAGE_ID"] == Event.READY.value == MESSAGE_IDS["ready"]
    assert fields["EVENT"] == "ready"


def test_an_unknown_code_gives_no_message_id() -> None:
    assert "MESSAGE_ID" not in render(code="nonsense")


def test_message_ids_are_random_uuids_and_differ() -> None:
    ids = [UUID(event.value) for event in Event]
    assert {identity.version for identity in ids} == {4}
    assert len(set(ids)) == len(Event.__members__)


def test_a_place_named_by_the_caller_takes_the_place_of_the_site() -> None:
    assert render(site=("a.py", 3, "f"))["CODE_LINE"] == "3"
    assert render(code_file="app.py", code_line=9, code_func="g")["CODE_FILE"] == "app.py"


def test_only_a_traceback_and_stacks_have_lines() -> None:
    fields = render(traceback="Traceback\n  x\x1b[0m\nError: y", note="a\nb", stacks="Thread 1\n  File \x1b[0m")
    assert fields["STACKS"] == "Thread 1\n  File \\x1b[0m"
    assert fields["MESSAGE"] == "Said\nTraceback\n  x\\x1b[0m\nError: y"
    assert fields["NOTE"] == "a\\x0ab"
    assert render(event="a\r\nPRIORITY=0")["MESSAGE"] == "a\\x0d\\x0aPRIORITY=0"


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("http_status", b"HTTP_STATUS="),
        ("user id", b"USER_ID="),
        ("_pid", b"PID="),
        ("4chan", b"EXTRA_4CHAN="),
        ("priority", b"EXTRA_PRIORITY="),
        ("message_id", b"EXTRA_MESSAGE_ID="),
        ("é_x", b"X="),
        ("", b"EXTRA_="),
        ("x" * 99, b"X" * 64 + b"="),
    ],
)
def test_field_names(key: str, name: bytes) -> None:
    assert name_field(key) == name


@given(st.text())
def test_every_field_name_is_one_the_journal_takes(key: str) -> None:
    assert re.fullmatch(rb"[A-Z][A-Z0-9_]{0,63}=", name_field(key))


def fail() -> ValueError:
    try:
        raise ValueError("b\x00d")  # noqa: TRY301 - for its traceback
    except ValueError as error:
        return error


def test_the_whole_pipeline_up_to_sendv() -> None:
    sent: list[list[bytes]] = []
    log = Log(Channel(render_fields, sent.append, 0, FORM, Datagrams()), [add_request_id, add_traceback], {})
    log.error("Failed", code="application_error", exc_info=fail(), http_status=500)
    fields = split(sent[0])
    assert fields["MESSAGE"].startswith("Failed\nTraceback (most recent call last):\n")
    assert fields["MESSAGE"].endswith("ValueError: b\\x00d")
    assert fields["EXCEPTION_TYPE"] == "ValueError"
    assert fields["CODE_FILE"] == __file__
    assert fields["CODE_FUNC"] == "test_the_whole_pipeline_up_to_sendv"


def test_a_record_that_libsystemd_refuses_is_counted() -> None:
    def spoil(level: str, record: Mapping[str, Any]) -> list[bytes]:
        return [*render_fields(level, record), b"no equals sign"]

    with closing(Datagrams()) as journal:
        with pytest.raises(OSError, match="Invalid argument"):
            journal.write(spoil("info", {"event": "x"}))
        log = Log(Channel(spoil, journal.write, 0, FORM, journal), [], {})
        log.info("lost")
    assert log.dropped == 1
