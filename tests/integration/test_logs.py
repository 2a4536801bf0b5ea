"""What the server writes, by what its stderr is; and that nothing which happens to stderr stops it."""

import json
import os
import pty
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from time import monotonic

import pytest

from appserver.telemetry.datagrams import JOURNAL_SOCKET
from tests.integration.servers import COMMAND, Starter, UnixConnection, ask, get, receive
from tests.integration.workers import Crew, eventually

CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")
"""What must not stand in a log raw; the line feed ends each line."""


# --- which form -------------------------------------------------------------------------------------------------------


def test_a_pipe_gets_one_json_object_a_line(serve: Starter) -> None:
    server = serve("behaviour:app", tracebacks=True)
    server.get("/log?x")
    server.stop()
    assert server.lines
    for line in server.lines:
        record = json.loads(line)
        assert {"timestamp", "level", "message"} <= record.keys()
        assert record["timestamp"].endswith("Z")


def test_a_file_gets_json_too(serve: Starter, tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        server = serve("behaviour:app", stderr=file)
    server.stop()
    assert [json.loads(line)["event"] for line in path.read_text().splitlines()] == ["ready", "stopping", "stopped"]


@contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    """The two ends of a terminal: whoever looks at it, and the program."""
    ends = pty.openpty()
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_a_terminal_gets_lines_for_people(no_color: str, coloured: bool, serve: Starter, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    with terminal() as (screen, program):
        variables = {"NO_COLOR": no_color, "TERM": "xterm"}
        server = serve("behaviour:app", "--uds", path, bind=False, stderr=program, variables=variables)
        assert get(UnixConnection(path), "/log?\x5bx") == (200, b"logged")
        assert server.stop() == 0
        shown = os.read(screen, 65536).decode()
    lines = shown.replace("\r\n", "\n").splitlines()
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
    assert any(re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3} info +Serving behaviour:app on unix:.*", line) for line in plain)
    assert any("info     GET /log?[x 200 " in line for line in plain)
    assert ("\x1b[" in shown) is coloured
    # Besides our own colours nothing drives the terminal, and only a record or a traceback makes a line.
    assert not CONTROL.search("".join(plain))
    assert all(re.match(r"\d\d:\d\d:\d\d\.|    ", line) for line in plain)


def test_the_format_can_be_said(serve: Starter) -> None:
    server = serve("behaviour:app", "--log-format", "console")
    server.stop()
    assert not server.records
    assert "Serving behaviour:app on " in server.stderr


@pytest.mark.skipif(JOURNAL_SOCKET.exists(), reason="there is a journal")
@pytest.mark.parametrize("workers", [(), ("-w", "1")])
def test_a_journal_that_is_asked_for_and_not_there_is_told_once_and_stderr_gets_json(
    workers: tuple[str, ...], serve: Starter
) -> None:
    server = serve("behaviour:app", *workers, "--log-format", "journal")
    server.get("/")
    server.access("/")
    server.stop()
    assert all(line.startswith("{") for line in server.lines)
    warnings = [record["message"] for record in server.records if record["level"] == "warning"]
    assert warnings == [
        f"--log-format journal: there is no journal at {JOURNAL_SOCKET}; the log goes to stderr, as JSON lines"
    ]


@pytest.mark.skipif(JOURNAL_SOCKET.exists(), reason="there is a journal")
@pytest.mark.parametrize("workers", [(), ("-w", "1")])
def test_why_nothing_is_served_is_told_without_the_journal_that_was_asked_for(
    workers: tuple[str, ...], serve: Starter
) -> None:
    server = serve("nothing_at_all:app", *workers, "--log-format", "journal", ready=False, expected=3)
    assert server.wait() == 3
    assert "nothing_at_all" in server.record(event="application_failed", level="critical")["message"]


def test_the_level_can_be_said(serve: Starter, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    server = serve("behaviour:app", "--uds", path, "--log-level", "error", bind=False, tracebacks=True)
    get(UnixConnection(path), "/log?x")
    server.stop()
    assert {record["level"] for record in server.records} == {"error"}


# --- access records ---------------------------------------------------------------------------------------------------


def test_an_access_record_has_the_fields_of_its_request(serve: Starter) -> None:
    server = serve("behaviour:app")
    with server.browser() as browser:
        headers = {"Host": "shop.example", "User-Agent": "tests/1", "Referer": "http://shop.example/before"}
        browser.post("/upload?a=b", content=b"12345", headers=headers)
    record = server.access("/upload?a=b")
    expected = {
        "level": "info",
        "http_method": "POST",
        "http_status": 200,
        "http_version": "1.1",
        "http_host": "shop.example",
        "user_agent": "tests/1",
        "referer": "http://shop.example/before",
        "client_addr": "127.0.0.1",
        "listener": server.url.removeprefix("http://"),
        "bytes_received": 5,
    }
    assert expected.items() <= record.items()
    assert record["bytes_sent"] > 5
    assert 0 < record["duration_us"] < 5_000_000
    assert re.fullmatch(r"POST /upload\?a=b 200 [0-9.]+ ms", record["message"])


def test_the_duration_is_that_of_the_request(serve: Starter) -> None:
    server = serve("behaviour:app")
    server.get("/wait?seconds=0.3")
    assert 300_000 <= server.access("/wait?seconds=0.3")["duration_us"] < 10_000_000


def test_a_500_is_a_warning_and_the_error_says_why(serve: Starter) -> None:
    server = serve("behaviour:app", tracebacks=True)
    assert server.get("/fail")[0] == 500
    record = server.record(http_status=500)
    error = server.record(event="application_error")
    assert (record["level"], error["level"]) == ("warning", "error")
    assert error["request_id"] == record["request_id"]
    assert error["traceback"].rstrip().endswith("at all")


def test_access_records_can_be_switched_off(serve: Starter) -> None:
    server = serve("behaviour:app", "--no-access-log")
    server.get("/")
    server.stop()
    assert not [record for record in server.records if "http_target" in record]


def test_every_request_has_its_record_after_a_clean_stop(serve: Starter, tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        server = serve("behaviour:app", "--uds", tmp_path / "web.sock", stderr=file)
    with closing(UnixConnection(tmp_path / "web.sock")) as connection:
        connection.connect()
        for number in range(0, 8000, 16):
            requests = [f"GET /?{number + more} HTTP/1.1\r\nHost: a\r\n\r\n" for more in range(16)]
            connection.sock.sendall("".join(requests).encode())
            receive(connection.sock, lambda data: data.count(b"hello") == 16)
    assert server.stop() == 0
    records = [json.loads(line) for line in path.read_text().splitlines()]
    targets = [record["http_target"] for record in records if "http_target" in record]
    assert targets == [f"/?{number}" for number in range(8000)]
    assert records[-1]["event"] == "stopped"


def test_a_record_comes_soon_after_its_answer(serve: Starter) -> None:
    server = serve("behaviour:app")
    server.get("/")  # the first one pays for imports

    def fetch(target: str) -> float:
        begun = monotonic()
        server.get(target)
        server.access(target)
        return monotonic() - begun

    # The soonest of some, because others may want the processor for a while.
    assert min(fetch(f"/?soon{number}") for number in range(5)) < 0.5


def test_a_log_that_nobody_reads_slows_no_request_and_its_losses_are_told(serve: Starter, tmp_path: Path) -> None:
    # Once more where others wanted the processor; who waits for the reader of a log waits for a second each time.
    assert any(fill_log(serve, tmp_path / str(number)) < 0.9 for number in range(3))


def fill_log(serve: Starter, folder: Path) -> float:
    """Ask a server whose log nobody reads until records are lost; seconds of the slowest 16 requests."""
    folder.mkdir()
    path, control = folder / "web.sock", folder / "control.sock"
    reading, writing = os.pipe()
    with open(reading, "rb") as log:  # noqa: PTH123 - a descriptor
        server = serve("behaviour:app", "--uds", path, "--control", f"unix:{control}", bind=False, stderr=writing)
        os.close(writing)
        with closing(UnixConnection(path)) as connection:
            connection.connect()
            slowest, request = 0.0, b"GET /?%s HTTP/1.1\r\nHost: a\r\n\r\n" % (b"x" * 4000)
            for _ in range(100):
                begun = monotonic()
                connection.sock.sendall(request * 16)
                receive(connection.sock, lambda data: data.count(b"hello") == 16)
                slowest = max(slowest, monotonic() - begun)
        assert server.status(" log records lost")
        records = map(json.loads, log)
        told = (record for record in records if record.get("event") == "log_dropped")
        assert "dropped" not in next(told)
        # Nothing is asked any more: the end is told by the life's tick. Before, the last batch may still be on its way.
        dropped = next(told)["dropped"]
        assert dropped > 0
        with closing(UnixConnection(control)) as connection:
            assert ask(connection, "/status")["log_dropped"] == dropped
        assert server.stop() == 0
    return slowest


# --- request ids ------------------------------------------------------------------------------------------------------


def test_a_trusted_peers_request_id_is_taken_everywhere(serve: Starter, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    server = serve("behaviour:app", "--uds", path, bind=False, tracebacks=True)
    get(UnixConnection(path), "/log?x", X_Request_ID="order-66")
    assert server.access("/log?x")["request_id"] == "order-66"
    for message in ("said x", "from a thread", "caught"):
        assert server.record(message=message)["request_id"] == "order-66"
    with closing(UnixConnection(path)) as connection:
        connection.request("GET", "/scope", headers={"X-Request-ID": "order-67"})
        assert json.loads(connection.getresponse().read())["state"]["request_id"] == "order-67"


def test_requests_without_an_id_get_one_each(serve: Starter, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    server = serve("behaviour:app", "--uds", path, bind=False)
    with closing(UnixConnection(path)) as connection:
        ids = [ask(connection, f"/scope?{number}")["state"]["request_id"] for number in range(3)]
    assert len(set(ids)) == 3
    assert [server.access(f"/scope?{number}")["request_id"] for number in range(3)] == ids


@pytest.mark.parametrize("forged", ["two words", "x" * 129, "a\x01b"])
def test_an_id_that_is_none_is_not_taken(forged: str, serve: Starter, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    server = serve("behaviour:app", "--uds", path, bind=False)
    with closing(UnixConnection(path)) as connection:
        connection.connect()
        connection.sock.sendall(
            f"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Request-ID: {forged}\r\n\r\n".encode("latin-1")
        )
        assert receive(connection.sock).startswith(b"HTTP/1.1 ")
    server.stop()
    assert forged not in server.stderr
    assert forged.encode("unicode_escape").decode() not in server.stderr


def test_a_peer_that_is_not_trusted_cannot_choose_its_id_client_or_scheme(serve: Starter) -> None:
    server = serve("behaviour:app", "--forwarded-allow-ips", "192.0.2.1")
    with server.browser() as browser:
        headers = {"X-Request-ID": "mine", "X-Forwarded-For": "198.51.100.1", "X-Forwarded-Proto": "https"}
        scope = browser.get("/scope", headers=headers).json()
    assert (scope["client"][0], scope["scheme"]) == ("127.0.0.1", "http")
    assert not scope["headers"].keys() & {"x-request-id", "x-forwarded-for", "x-forwarded-proto"}
    assert server.access("/scope")["request_id"] == scope["state"]["request_id"] != "mine"


# --- the application's own logging ------------------------------------------------------------------------------------


def test_standard_library_logging_takes_the_same_way(serve: Starter) -> None:
    server = serve("behaviour:app", tracebacks=True)
    server.get("/log?x")
    said = server.record(message="said x")
    assert said["logger"] == "shop"
    assert said["basket"] == 7
    assert said["request_id"] == server.access("/log?x")["request_id"]
    assert server.record(logger="py.warnings")["message"] == "UserWarning: old"
    caught = server.record(message="caught")
    assert caught["exception_type"] == "KeyError"
    assert "KeyError: 'basket'" in caught["traceback"]


# --- control characters -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_control_characters_never_reach_the_log_raw(log_format: str, serve: Starter, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    server = serve(
        "behaviour:app", "--uds", path, "--log-format", log_format, bind=False, tracebacks=True, variables={"TERM": ""}
    )
    with closing(UnixConnection(path)) as connection:
        connection.connect()
        # No control character in a request is served, but these bytes above 0x7f are no ASCII and may be.
        connection.sock.sendall(
            b"GET /log?\x9b\xc2\x9b31m%0a%1b HTTP/1.1\r\nHost: a\r\nUser-Agent: \x9b\xe2\x80\xa8\r\n"
            b"Connection: close\r\n\r\n"
        )
        receive(connection.sock)
    get(UnixConnection(path), "/fail")
    get(UnixConnection(path), "/log?x")
    server.stop()
    assert "line one" in server.stderr
    assert not CONTROL.search("".join(server.lines))
    if log_format == "console":
        # The newline of the message is shown and begins no line.
        assert any("line one\\x0aline two \\x1b[31mred\\x9b\\u2028" in line for line in server.lines)
        assert all(re.match(r"\d\d:\d\d:\d\d\.|    ", line) for line in server.lines)


def test_an_escape_in_a_path_is_refused_and_its_record_is_safe(serve: Starter) -> None:
    server = serve("behaviour:app")
    with closing(server.connect()) as connection:
        connection.sock.sendall(b"GET /\x1b[2J HTTP/1.1\r\nHost: a\r\n\r\n")
        assert receive(connection.sock).startswith(b"HTTP/1.1 400 ")
    server.record(event="refused")
    assert not CONTROL.search("".join(server.lines))


# --- stderr that fails ------------------------------------------------------------------------------------------------


def test_serving_goes_on_when_nobody_reads_the_log_any_more(serve: Starter, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    reading, writing = os.pipe()
    try:
        server = serve("behaviour:app", "--uds", path, bind=False, stderr=writing)
    finally:
        os.close(writing)
        os.close(reading)
    assert [get(UnixConnection(path), "/log?x") for _ in range(3)] == [(200, b"logged")] * 3
    assert server.stop() == 0


def test_serving_goes_on_when_the_disk_is_full(serve: Starter, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    with Path("/dev/full").open("wb") as full:
        server = serve("behaviour:app", "--uds", path, bind=False, stderr=full)
        assert [get(UnixConnection(path), "/log?x") for _ in range(3)] == [(200, b"logged")] * 3
        assert server.stop() == 0


def test_what_a_master_and_its_workers_lose_is_told_as_one(serve: Starter, tmp_path: Path) -> None:
    path, control = tmp_path / "web.sock", tmp_path / "control.sock"
    with Path("/dev/full").open("wb") as full:
        server = serve(
            "behaviour:app", "-w", "1", "--uds", path, "--control", f"unix:{control}", bind=False, stderr=full
        )
        for _ in range(3):
            get(UnixConnection(path), "/")
        crew = Crew(server, control)
        report = eventually(lambda: (found := crew.report())["workers"][0]["log_dropped"] >= 3 and found, "the losses")
        assert report["log_dropped"] > report["workers"][0]["log_dropped"]

        def told() -> bool:
            phrase = f", {crew.report()['log_dropped']} log records lost"
            return any(phrase in message.fields.get("STATUS", "") for message in server.notified.messages)

        eventually(told, "all losses in STATUS=")
        assert server.stop() == 0


def test_serving_goes_on_without_any_stderr(serve: Starter, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    command = ["/bin/sh", "-c", 'exec "$@" 2>&-', "sh", *COMMAND]
    server = serve("behaviour:app", "--uds", path, bind=False, command=command)
    assert get(UnixConnection(path), "/log?x") == (200, b"logged")
    assert server.stop() == 0
    assert server.lines == []


# --- development mode -------------------------------------------------------------------------------------------------


def test_a_whole_life_gives_no_warning_in_development_mode(serve: Starter, tmp_path: Path) -> None:
    # Unclosed sockets and files, coroutines that nobody awaited, deprecated calls: all are told in this mode.
    path = tmp_path / "web.sock"
    variables = {"PYTHONDEVMODE": "1", "PYTHONASYNCIODEBUG": "0"}
    server = serve("startup:good", "-b", f"unix:{path}", "--control", f"unix:{path}.control", variables=variables)
    assert get(UnixConnection(path), "/wait?seconds=0.1") == (200, b"waited")
    assert get(UnixConnection(f"{path}.control"), "/status")[0] == 200
    with closing(server.connect()) as connection:
        ask(connection, "/whoami")
        server.send_signal(15)
        server.told("STOPPING")
    assert server.wait() == 0
    assert all(line.startswith("{") for line in server.lines), server.stderr
    assert not [record for record in server.records if record.get("logger") == "py.warnings"]
