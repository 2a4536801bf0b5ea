"""Access records."""

import io
import json
from typing import Any

import pytest

from appserver.telemetry.access import AccessLog
from appserver.telemetry.journal import render_fields
from appserver.telemetry.log import Channel, Log, build

EXCHANGE: dict[str, Any] = {
    "method": "GET",
    "target": b"/shop?q=1",
    "status": 200,
    "duration": 0.00123,
    "client": "192.0.2.7",
    "request_id": "r1",
    "version": "1.1",
    "bytes_received": 3,
    "bytes_sent": 500,
    "listener": "http",
    "headers": [(b"host", b"example.org"), (b"user-agent", b"curl/8\xff"), (b"accept", b"*/*"), (b"host", b"second")],
}


def record(**changes: Any) -> dict[str, str]:
    sent: list[list[bytes]] = []
    AccessLog(Log(Channel(render_fields, sent.append, 0), [], {})).record(**{**EXCHANGE, **changes})
    return dict(field.decode().split("=", 1) for field in sent[0])


def test_the_fields_of_a_record() -> None:
    assert record() == {
        "MESSAGE": "GET /shop?q=1 200 1.2 ms",
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "appserver",
        "HTTP_METHOD": "GET",
        "HTTP_TARGET": "/shop?q=1",
        "HTTP_STATUS": "200",
        "HTTP_VERSION": "1.1",
        "DURATION_US": "1230",
        "CLIENT_ADDR": "192.0.2.7",
        "REQUEST_ID": "r1",
        "BYTES_RECEIVED": "3",
        "BYTES_SENT": "500",
        "LISTENER": "http",
        "OUTCOME": "complete",
        "HTTP_HOST": "example.org",
        "USER_AGENT": "curl/8\\xff",
    }


@pytest.mark.parametrize(
    ("status", "outcome", "priority"),
    [(404, "complete", "6"), (499, "client_gone", "6"), (500, "complete", "4"), (503, "cut", "4"), (200, "cut", "4")],
)
def test_faults_of_ours_are_warnings(status: int, outcome: str, priority: str) -> None:
    assert record(status=status, outcome=outcome)["PRIORITY"] == priority


def test_an_unusual_outcome_is_in_the_message() -> None:
    assert record(outcome="cut")["MESSAGE"] == "GET /shop?q=1 200 1.2 ms (cut)"


def test_a_target_cannot_forge_a_line() -> None:
    fields = record(target=b"/\xc2\x85\x1b[2J\xff", headers=[(b"referer", b"a\x7fb")])
    assert fields["HTTP_TARGET"] == "/\\x85\\x1b[2J\\xff"
    assert fields["REFERER"] == "a\\x7fb"


def test_the_console_shows_the_message_and_the_client() -> None:
    stream = io.StringIO()
    AccessLog(build("info", "console", stream)).record(**EXCHANGE)
    assert stream.getvalue().partition(" ")[2] == "info     GET /shop?q=1 200 1.2 ms client_addr=192.0.2.7\n"


def test_json_numbers_are_numbers() -> None:
    stream = io.StringIO()
    AccessLog(build("info", "json", stream)).record(**EXCHANGE)
    data = json.loads(stream.getvalue())
    assert (data["http_status"], data["duration_us"], data["bytes_sent"]) == (200, 1230, 500)


def test_the_level_decides_which_are_written() -> None:
    stream = io.StringIO()
    access = AccessLog(build("warning", "json", stream))
    access.record(**EXCHANGE)
    assert not stream.getvalue()
    access.record(**{**EXCHANGE, "status": 500})
    assert json.loads(stream.getvalue())["http_status"] == 500


def test_a_log_that_cannot_be_written_raises_nothing() -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        log = build("info", "json", full)
        AccessLog(log).record(**EXCHANGE)
    assert log.dropped == 1
