"""The journal: records as fields that an operator can query."""

from tests.system.machine import Machine
from tests.system.service import SOCKET, every_debian, get, records, serve_probe, status_of

BURST = 3000


@every_debian
def test_an_access_record_has_the_fields(machine: Machine) -> None:
    serve_probe(machine)
    get(machine, "/basket?item=1")
    (record,) = records(machine, "HTTP_TARGET=/basket?item=1")
    assert record["MESSAGE"].startswith("GET /basket?item=1 200 ")
    expected = {
        "SYSLOG_IDENTIFIER": "appserver",
        "PRIORITY": "6",
        "HTTP_METHOD": "GET",
        "HTTP_STATUS": "200",
        "HTTP_VERSION": "1.1",
        "HTTP_HOST": "shop.example",
        "LISTENER": "http",
        "_SYSTEMD_UNIT": "appserver.service",
        "_TRANSPORT": "journal",
    }
    assert {key: record.get(key) for key in expected} == expected
    assert int(record["DURATION_US"]) > 0
    assert int(record["BYTES_SENT"]) > 0
    assert {"REQUEST_ID", "CLIENT_ADDR"} <= record.keys()


@every_debian
def test_failed_requests_are_found_by_their_status(machine: Machine) -> None:
    serve_probe(machine)
    get(machine)
    assert status_of(machine, "/raise") == 500
    (access,) = records(machine, "HTTP_STATUS=500", "HTTP_METHOD=GET")
    assert access["HTTP_TARGET"] == "/raise"
    assert access["PRIORITY"] == "4"
    # The traceback is one record, found by the request's id, and names the place in the application.
    of_request = records(machine, f"REQUEST_ID={access['REQUEST_ID']}")
    (error,) = (record for record in of_request if record["PRIORITY"] == "3")
    assert "ValueError: the application's own mistake" in error["MESSAGE"]
    assert "/srv/shop/probe.py" in error["MESSAGE"]


def test_what_the_application_logs_is_found_by_its_request(machine: Machine) -> None:
    serve_probe(machine)
    get(machine, "/log")
    (access,) = records(machine, "HTTP_TARGET=/log")
    of_request = records(machine, f"REQUEST_ID={access['REQUEST_ID']}")
    (record,) = (record for record in of_request if record["MESSAGE"] == "said by the application")
    assert record["PRIORITY"] == "4"
    assert record["CODE_FILE"] == "/srv/shop/probe.py"
    assert record["CODE_FUNC"] == "app"
    assert record["BASKET"] == "7"


@every_debian
def test_events_are_explained(machine: Machine) -> None:
    serve_probe(machine)
    get(machine)
    explained = machine.run("journalctl --catalog --unit=appserver.service")
    assert "Subject: The server is ready" in explained or "-- Subject: The server is ready" in explained
    assert "Requests are served" in explained or "requests are served" in explained


def test_each_event_has_its_entry(machine: Machine) -> None:
    serve_probe(machine)
    get(machine)
    status_of(machine, "/raise")
    machine.run("systemctl stop appserver.service")
    ids = {record["MESSAGE_ID"] for record in records(machine, "SYSLOG_IDENTIFIER=appserver") if "MESSAGE_ID" in record}
    assert len(ids) >= 4  # ready, application_error, stopping, stopped
    listed = machine.run("journalctl --list-catalog")
    assert not [each for each in ids if each not in listed]


def test_a_hostile_path_stays_on_its_line(machine: Machine) -> None:
    serve_probe(machine)
    get(machine, "/%1b%5b31m%0aforged")
    (record,) = records(machine, "HTTP_METHOD=GET")
    assert isinstance(record["MESSAGE"], str)  # journalctl gives an array of bytes for what is not text
    assert "\x1b" not in record["MESSAGE"]
    assert "\n" not in record["MESSAGE"]


@every_debian
def test_the_journal_keeps_every_record_of_a_burst(machine: Machine) -> None:
    # journald's own limit, a hundredth of the shipped one; it takes a few times that where the disk is large.
    machine.write("/etc/systemd/journald.conf.d/test.conf", "[Journal]\nRateLimitBurst=100\n")
    machine.run("systemctl restart systemd-journald.service")
    serve_probe(machine)
    get(machine, f"/[1-{BURST}]", SOCKET, "--output", "/dev/null")
    count = "journalctl --quiet --output=cat HTTP_HOST=shop.example | wc --lines"
    machine.await_that("all have arrived", lambda: int(machine.run(count)) == BURST)
