"""sd_notify to real datagram sockets."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from time import CLOCK_MONOTONIC, clock_gettime_ns

import pytest

from appserver.system.notify import BATCH, Notifier, hear


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@appserver-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        sock.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        for variable in ("WATCHDOG_USEC", "WATCHDOG_PID"):
            monkeypatch.delenv(variable, raising=False)
        yield sock


def take(manager: socket.socket) -> list[str]:
    messages = []
    while True:
        try:
            messages.append(manager.recv(4096).decode())
        except BlockingIOError:
            return messages


def test_a_life(manager: socket.socket) -> None:
    notifier = Notifier()
    assert notifier.enabled
    notifier.ready("Serving")
    notifier.watchdog()
    notifier.extend(2.5)
    notifier.stopping("Draining")
    assert take(manager) == [
        "READY=1\nSTATUS=Serving",
        "WATCHDOG=1",
        "EXTEND_TIMEOUT_USEC=2500000",
        "STOPPING=1\nSTATUS=Draining",
    ]


def test_a_status_is_sent_when_it_changes(manager: socket.socket) -> None:
    notifier = Notifier()
    notifier.ready("a")
    for text in ("a", "b", "b", "a"):
        notifier.status(text)
    assert take(manager) == ["READY=1\nSTATUS=a", "STATUS=b", "STATUS=a"]


def test_a_failure_has_its_cause(manager: socket.socket) -> None:
    notifier = Notifier()
    notifier.failed(3, "port taken", errno=98)
    notifier.failed(2, "unknown option")
    assert take(manager) == [
        "EXIT_STATUS=3\nERRNO=98\nSTATUS=port taken",
        "EXIT_STATUS=2\nSTATUS=unknown option",
    ]


def test_a_status_cannot_make_another_assignment(manager: socket.socket) -> None:
    Notifier().status("a\nREADY=1\x1b\udc80é")
    assert take(manager) == ["STATUS=a READY=1  é"]


def test_a_manager_that_vanished_costs_nothing_but_the_message(manager: socket.socket, tmp_path: Path) -> None:
    notifier = Notifier()
    manager.close()
    (tmp_path / "notify").unlink(missing_ok=True)
    notifier.ready("x")
    notifier.watchdog()
    assert notifier.lost == 2


def test_a_status_that_was_lost_is_sent_again(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    notifier = Notifier()
    address = os.environ["NOTIFY_SOCKET"]
    monkeypatch.setenv("NOTIFY_SOCKET", "/nonexistent/notify")
    notifier.status("x")
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notifier.status("x")
    assert take(manager) == ["STATUS=x"]


def test_without_a_manager_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    notifier = Notifier()
    notifier.ready("x")
    assert not notifier.enabled
    assert notifier.watchdog_interval is None
    assert notifier.lost == 0


@pytest.mark.parametrize(
    ("usec", "pid", "interval"),
    [
        ("3000000", None, 1.5),
        ("3000000", "own", 1.5),
        ("3000000", "1", None),
        ("0", None, None),
        ("-5", None, None),
        ("soon", None, None),
        ("3000000", "me", None),
        (None, None, None),
    ],
)
@pytest.mark.usefixtures("manager")
def test_the_watchdog_interval_is_half_of_the_managers(
    usec: str | None, pid: str | None, interval: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if usec is not None:
        monkeypatch.setenv("WATCHDOG_USEC", usec)
    if pid is not None:
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "own" else pid)
    assert Notifier().watchdog_interval == interval


def test_a_reload_says_since_when(manager: socket.socket) -> None:
    before = clock_gettime_ns(CLOCK_MONOTONIC) // 1000
    notifier = Notifier()
    notifier.reloading("Reloading")
    notifier.ready("Serving")
    after = clock_gettime_ns(CLOCK_MONOTONIC) // 1000
    began, ready = take(manager)
    first, since, status = began.split("\n")
    assert (first, status) == ("RELOADING=1", "STATUS=Reloading")
    # systemd takes a READY=1 for the reload's end if it began after the reload was asked for (sd_notify(3)).
    assert before <= int(since.removeprefix("MONOTONIC_USEC=")) <= after
    assert ready == "READY=1\nSTATUS=Serving"


def test_a_report_is_for_a_master_alone(manager: socket.socket) -> None:
    Notifier().report({"answered": 1})
    assert take(manager) == []


# --- between a worker and its master ----------------------------------------------------------------------------------


@pytest.fixture
def line() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The master's end and the worker's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        yield ours, theirs


Line = tuple[socket.socket, socket.socket]


def test_a_worker_tells_its_master_what_it_would_tell_systemd(line: Line, manager: socket.socket) -> None:
    ours, theirs = line
    notifier = Notifier(theirs, 3.0)
    assert notifier.enabled
    assert notifier.watchdog_interval == 1.5
    notifier.ready("Serving")
    notifier.report({"answered": 1, "listeners": ["a\nREADY=1"]})
    notifier.stopping("Draining")
    assert hear(ours) == (
        [
            {"READY": "1", "STATUS": "Serving"},
            {"X_REPORT": '{"answered": 1, "listeners": ["a\\nREADY=1"]}'},
            {"STOPPING": "1", "STATUS": "Draining"},
        ],
        True,
    )
    assert take(manager) == []  # and nobody else


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        (b"READY", {}),
        (b"=1", {"": "1"}),
        (b"\n\n=\nREADY=1\n", {"": "", "READY": "1"}),
        (b"READY=0\nREADY=1", {"READY": "1"}),
        (b"STATUS=a=b", {"STATUS": "a=b"}),
        (b"\xff\x00=\xfe", {"\ufffd\x00": "\ufffd"}),
    ],
)
def test_a_malformed_message_is_taken_for_what_it_says(message: bytes, fields: dict[str, str], line: Line) -> None:
    ours, theirs = line
    theirs.send(message)
    theirs.send(b"WATCHDOG=1")
    assert hear(ours) == ([fields, {"WATCHDOG": "1"}], True)


def test_a_message_that_is_too_long_is_cut_and_the_next_one_is_whole(line: Line) -> None:
    ours, theirs = line
    theirs.send(b"STATUS=" + b"x" * 100_000)
    theirs.send(b"READY=1")
    (long, ready), _ = hear(ours)
    assert len(long["STATUS"]) < 100_000
    assert ready == {"READY": "1"}


def test_a_master_that_does_not_listen_keeps_no_worker_waiting_and_is_not_kept_itself(line: Line) -> None:
    ours, theirs = line
    notifier, sent = Notifier(theirs, 1.0), 0
    while not notifier.lost:
        notifier.watchdog()
        sent += 1
        assert sent < 100_000
    assert sent > BATCH
    told, more = hear(ours)
    assert (len(told), more) == (BATCH, True)
    # What is left is read in the next turn.
    rest, _ = hear(ours)
    assert rest
    notifier.ready("Serving")
    while told:
        last, (told, _) = told, hear(ours)
    assert last[-1] == {"READY": "1", "STATUS": "Serving"}


def test_a_line_that_has_ended_is_told(line: Line) -> None:
    ours, theirs = line
    assert hear(ours) == ([], True)
    theirs.send(b"STOPPING=1")
    theirs.close()
    assert hear(ours) == ([{"STOPPING": "1"}], False)
    assert hear(ours) == ([], False)


def test_a_master_that_is_gone_costs_nothing_but_the_message(line: Line) -> None:
    ours, theirs = line
    ours.close()
    notifier = Notifier(theirs, 1.0)
    notifier.watchdog()
    assert notifier.lost == 1
