"""The master's end of NOTIFY_SOCKET: who speaks is the kernel's word, and nobody can keep it busy."""

import array
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from appserver.system.notifications import Notifications
from appserver.system.notify import Notifier

FLOOD = 20_000


@pytest.fixture
def notifications() -> Iterator[Notifications]:
    found = Notifications()
    yield found
    found.close()


def count_fds() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def name_of(notifications: Notifications) -> bytes:
    return b"\0" + notifications.address[1:].encode()


@pytest.fixture
def sender(notifications: Notifications) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(name_of(notifications))
        sock.setblocking(False)
        yield sock


def test_a_worker_says_what_it_would_say_to_systemd(
    notifications: Notifications, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", notifications.address)
    notifier = Notifier(supervised=True)
    notifier.ready("Serving")
    notifier.report({"answered": 7})
    notifier.stopping("Draining")
    assert list(notifications.read()) == [
        (os.getpid(), {"READY": "1", "STATUS": "Serving"}),
        (os.getpid(), {"X_REPORT": '{"answered": 7}'}),
        (os.getpid(), {"STOPPING": "1", "STATUS": "Draining"}),
    ]


def test_who_said_it_is_told_by_the_kernel(notifications: Notifications) -> None:
    program = "import socket, sys; socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'MAINPID=1', sys.argv[1])"
    command = [sys.executable, "-c", program.replace("sys.argv[1]", repr(name_of(notifications)))]
    with subprocess.Popen(command) as child:
        assert child.wait(20) == 0
        # It has ended, and its word still has its name.
        assert list(notifications.read()) == [(child.pid, {"MAINPID": "1"})]


def test_another_socket_than_the_first_is_another_address(notifications: Notifications) -> None:
    other = Notifications()
    assert other.address != notifications.address
    other.close()


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        (b"", {}),
        (b"READY", {}),
        (b"=1", {"": "1"}),
        (b"\n\n=\nREADY=1\n", {"": "", "READY": "1"}),
        (b"READY=0\nREADY=1", {"READY": "1"}),
        (b"STATUS=a=b", {"STATUS": "a=b"}),
        (b"\xff\x00=\xfe", {"\ufffd\x00": "\ufffd"}),
    ],
)
def test_a_malformed_message_is_taken_for_what_it_says(
    message: bytes, fields: dict[str, str], notifications: Notifications, sender: socket.socket
) -> None:
    sender.send(message)
    sender.send(b"WATCHDOG=1")
    assert list(notifications.read()) == [(os.getpid(), fields), (os.getpid(), {"WATCHDOG": "1"})]


def test_a_message_that_is_too_long_is_cut_and_the_next_one_is_whole(
    notifications: Notifications, sender: socket.socket
) -> None:
    sender.send(b"STATUS=" + b"x" * 100_000)
    sender.send(b"READY=1")
    (_, long), (_, ready) = notifications.read()
    assert len(long["STATUS"]) < 100_000
    assert ready == {"READY": "1"}


def test_descriptors_that_come_along_are_not_kept(notifications: Notifications, sender: socket.socket) -> None:
    begun = count_fds()
    for _ in range(5):
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))
        sender.sendmsg([b"FDSTORE=1"], [rights])
    assert [pid for pid, _ in notifications.read()] == [os.getpid()] * 5
    assert count_fds() == begun


def test_a_flood_does_not_keep_the_reader_for_ever(notifications: Notifications, sender: socket.socket) -> None:
    sender.send(b"WATCHDOG=1")
    read = 0
    for _ in notifications.read():
        read += 1
        if read < FLOOD:
            sender.send(b"WATCHDOG=1")  # there is always one more
    assert read < 1000
    # What is left is read in the next turn.
    assert list(notifications.read()) == [(os.getpid(), {"WATCHDOG": "1"})]


def test_nothing_said_is_nothing_read(notifications: Notifications) -> None:
    assert list(notifications.read()) == []
