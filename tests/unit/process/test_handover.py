"""What a worker is given, through a real child process, and that it is given nothing else."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from appserver.encryption import Password
from appserver.net.listeners import Listener
from appserver.process.handover import RETIRE, VARIABLE, environment_for_workers, read_settings, write, write_settings
from appserver.settings import TABLE, Settings, load

CHILD = """
import json, os, sys
before = {int(name) for name in os.listdir("/proc/self/fd")}
from appserver.process.handover import take
handover = take(os.environ)
voices = [handover.take_voice(), handover.take_voice()]
left = [name for name in os.environ if name.startswith("APPSERVER_")]
os.write(handover.stacks, b"stacks")
told = {
    "app": handover.settings.app,
    "header": handover.settings.header,
    "listeners": [
        [one.name, one.url, one.inherited, one.tls, one.http2, one.sock.getblocking(), one.sock.get_inheritable()]
        for one in handover.listeners
    ],
    "inheritable": [os.get_inheritable(fd) for fd in (handover.line.fileno(), handover.stacks, handover.voice)],
    "blocking": handover.line.getblocking(),
    "left": left,
    "voices": voices,
    "before": sorted(before),
    "after": sorted(int(name) for name in os.listdir("/proc/self/fd")),
}
json.dump(told, sys.stdout)
"""


@pytest.fixture
def listeners(tmp_path: Path) -> Iterator[list[Listener]]:
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket(socket.AF_UNIX) as control,
    ):
        for sock, name in ((unix, "web.sock"), (control, "control.sock")):
            sock.bind(str(tmp_path / name))
            sock.listen()
        yield [
            Listener(tcp, "web", tls=True, http2=True),
            Listener(unix, "proxy", inherited=True),
            Listener(control, "control", control=True),
        ]


def hand_over(settings: Settings, listeners: list[Listener], stacks: int) -> tuple[dict[str, Any], list[int]]:
    """What a child tells of its handover, and which descriptors it was meant to have."""
    line, end = socket.socketpair()
    voice = os.eventfd(1, os.EFD_NONBLOCK)
    with closing(line), closing(end):
        descriptor, inherited = write(settings, listeners, end, stacks, voice)
        try:
            child = subprocess.run(
                [sys.executable, "-c", CHILD],
                pass_fds=inherited,
                env={**environment_for_workers(os.environ), VARIABLE: str(descriptor)},
                stdout=subprocess.PIPE,
                check=True,
                timeout=20,
            )
        finally:
            os.close(descriptor)
            os.close(voice)
    return json.loads(child.stdout), inherited


def test_a_worker_gets_its_settings_and_its_listeners(listeners: list[Listener], tmp_path: Path) -> None:
    settings = Settings(app="shop:app", header=(("X-Shop", "é"),))
    stacks = os.memfd_create("stacks")
    try:
        told, _ = hand_over(settings, listeners, stacks)
        # Both have the same file.
        assert os.pread(stacks, 64, 0) == b"stacks"
    finally:
        os.close(stacks)
    assert told["app"] == "shop:app"
    assert told["header"] == [["X-Shop", "é"]]
    tcp = f"https://127.0.0.1:{listeners[0].sock.getsockname()[1]}"
    unix = f"unix:{tmp_path}/web.sock"
    # Neither blocking nor inheritable; and without the control socket, which is the master's.
    assert told["listeners"] == [
        ["web", tcp, False, True, True, False, False],
        ["proxy", unix, True, False, False, False, False],
    ]
    assert told["inheritable"] == [False, False, False]
    assert told["voices"] == [True, False]  # one of a generation tells what went wrong
    assert told["blocking"] is False


def test_a_worker_inherits_nothing_else(listeners: list[Listener]) -> None:
    # Even what the master has left inheritable by mistake.
    stray = os.dup(0)
    os.set_inheritable(stray, True)
    stacks = os.memfd_create("stacks")
    try:
        told, inherited = hand_over(Settings(app="shop:app"), listeners, stacks)
    finally:
        os.close(stray)
        os.close(stacks)
    listing = 1  # that of /proc/self/fd itself
    assert len(told["before"]) == 3 + len(inherited) + listing
    assert {0, 1, 2, *inherited} < set(told["before"])
    assert len(inherited) == 4 + 2  # its handover, its line, its stacks and its voice, and two listeners
    # What has been read is closed.
    assert len(told["after"]) == len(told["before"]) - 1


def test_what_is_meant_for_the_master_alone_is_kept_from_workers(listeners: list[Listener]) -> None:
    environ = {
        "NOTIFY_SOCKET": "/run/systemd/notify",
        "WATCHDOG_USEC": "1",
        "WATCHDOG_PID": "1",
        "LISTEN_FDS": "1",
        "LISTEN_PID": "1",
        "LISTEN_FDNAMES": "http",
        "LISTEN_PIDFDID": "1",
        VARIABLE: "3",
        "SHOP_DATABASE": "x",
    }
    assert environment_for_workers(environ) == {"SHOP_DATABASE": "x"}


def test_the_application_does_not_see_the_handover(listeners: list[Listener]) -> None:
    """A program that it starts, perhaps appserver again, would take the variable for a setting of its own."""
    stacks = os.memfd_create("stacks")
    try:
        told, _ = hand_over(Settings(app="shop:app"), listeners, stacks)
    finally:
        os.close(stacks)
    assert VARIABLE not in told["left"]


def test_the_word_to_leave_is_one_message() -> None:
    line, end = socket.socketpair()
    with closing(line), closing(end):
        line.send(RETIRE)
        assert end.recv(64) == RETIRE
        line.close()
        assert end.recv(64) == b""


UNUSUAL = """
--factory --bind=127.0.0.1:80?tls=off --bind=unix:/run/a.sock --insecure-bind=[::1]:80 --uds-mode=0640 --workers=auto
--graceful-timeout=0.25 --max-age=2h --header=X-Shop:a,b --header=X-Two:c
--tls-cert=/a.pem --tls-cert=credential:b --tls-key-password=secret --hsts=365d;preload --no-access-log
--forwarded-allow-ips=10.0.0.0/8,unix --ws-origin=https://*.example.org --limit-request-body=10M --log-level=DEBUG
"""


def test_settings_that_are_written_and_read_are_the_same() -> None:
    settings = load(["shop:app", *UNUSUAL.split()], {}).settings
    assert settings.tls_key_password == Password("secret")
    assert sum(getattr(settings, row.name) != row.default for row in TABLE) >= 17
    written = json.loads(json.dumps(write_settings(settings)))
    assert read_settings(written) == settings
    assert read_settings(json.loads(json.dumps(write_settings(Settings())))) == Settings()


def test_a_certificate_keeps_its_path_whatever_folder_it_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "shop, v2 "
    folder.mkdir()
    monkeypatch.chdir(folder)
    settings = load(["--tls-cert=a.pem,b.pem", "--tls-key=a.key", "--tls-key=credential:b"], {}).settings.anchored()
    assert settings.tls_cert == (f"{folder}/a.pem", f"{folder}/b.pem")
    assert read_settings(json.loads(json.dumps(write_settings(settings)))) == settings


def test_settings_of_another_version_are_read_as_far_as_they_are_known() -> None:
    told = {"app": "shop:app", "no_such_setting": 1, "linger": "for ever", "backlog": 7}
    assert read_settings(told) == Settings(app="shop:app", backlog=7)
