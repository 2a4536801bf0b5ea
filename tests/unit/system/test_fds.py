"""Inherited sockets, handed over as systemd, Supervisor and inetd do it: in a process of their own."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appserver.errors import ListenError
from appserver.system.fds import adopt, is_nameless, take_inherited

# Puts the given descriptors at 3, 4, … and reports what take_inherited() makes of them.
CHILD = """
import fcntl, json, os, sys
fds = [fcntl.fcntl(int(text), fcntl.F_DUPFD, 100) for text in sys.argv[2:]]
for number, fd in enumerate(fds, 3):
    os.dup2(fd, number)
for name, value in json.loads(sys.argv[1]).items():
    os.environ[name] = value.replace("OWN", str(os.getpid()))
from appserver.errors import ListenError
from appserver.system.fds import take_inherited
try:
    inherited = take_inherited()
except ListenError as error:
    report = {"error": str(error)}
else:
    report = {
        "ignored": inherited.ignored,
        "sockets": [
            [item.fd, item.name, item.listening, item.sock.family.name, item.sock.fileno(),
             os.get_inheritable(item.fd), os.get_blocking(item.fd)]
            for item in inherited.sockets
        ],
    }
import subprocess
report["environ"] = [name for name in os.environ if name.startswith("LISTEN_")]
report["child"] = [l for l in subprocess.check_output(["env"], text=True).split() if l.startswith("LISTEN_")]
print(json.dumps(report))
"""


def hand_over(variables: dict[str, str], *descriptors: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(variables), *map(str, descriptors)],
        pass_fds=descriptors,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert isinstance(report, dict)
    assert report.pop("environ") == report.pop("child") == []
    return report


@pytest.fixture
def tcp() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.fixture
def unix(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "socket"))
        sock.listen()
        yield sock


def test_sockets_arrive_with_names_families_and_flags(tcp: socket.socket, unix: socket.socket) -> None:
    variables = {"LISTEN_PID": "OWN", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "http:control"}
    assert hand_over(variables, tcp.fileno(), unix.fileno()) == {
        "ignored": None,
        "sockets": [
            [3, "http", True, "AF_INET", 3, False, False],
            [4, "control", True, "AF_UNIX", 4, False, False],
        ],
    }


def test_without_names_they_are_unknown(tcp: socket.socket) -> None:
    report = hand_over({"LISTEN_PID": "OWN", "LISTEN_FDS": "1"}, tcp.fileno())
    assert [item[1] for item in report["sockets"]] == ["unknown"]


def test_a_connection_is_told_from_a_listener() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        variables = {"LISTEN_PID": "OWN", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "connection"}
        report = hand_over(variables, ours.fileno())
    assert report["sockets"] == [[3, "connection", False, "AF_UNIX", 3, False, False]]


def test_sockets_of_another_process_are_ignored(tcp: socket.socket) -> None:
    report = hand_over({"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "http"}, tcp.fileno())
    assert report["sockets"] == []
    assert report["ignored"].startswith("LISTEN_FDS ignored: it is for process '1', and this is ")


def test_sockets_without_a_process_are_ignored(tcp: socket.socket) -> None:
    report = hand_over({"LISTEN_FDS": "1"}, tcp.fileno())
    assert report["sockets"] == []
    assert "LISTEN_PID is not set" in report["ignored"]


def test_nothing_inherited_is_nothing_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LISTEN_FDS", raising=False)
    inherited = take_inherited()
    assert inherited.sockets == ()
    assert inherited.ignored is None


def find_pidfd_support() -> bool:
    """Whether a pidfd's inode tells processes apart (Linux 6.9)."""
    first, second = os.pidfd_open(os.getpid()), os.pidfd_open(os.getppid())
    try:
        return os.fstat(first).st_ino != os.fstat(second).st_ino
    finally:
        os.close(first)
        os.close(second)


def test_a_pid_used_again_is_seen_by_its_pidfd(tcp: socket.socket) -> None:
    variables = {"LISTEN_PID": "OWN", "LISTEN_PIDFDID": "1", "LISTEN_FDS": "1"}
    report = hand_over(variables, tcp.fileno())
    if find_pidfd_support():
        assert "for an earlier process" in report["ignored"]
        assert report["sockets"] == []
    else:
        assert report["ignored"] is None
        assert len(report["sockets"]) == 1


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"LISTEN_FDS": "many"}, "LISTEN_FDS='many': the inherited sockets cannot be taken"),
        ({"LISTEN_FDS": "0"}, "LISTEN_FDS='0'"),
        ({"LISTEN_FDS": "1", "LISTEN_FDNAMES": "a:b"}, "LISTEN_FDNAMES='a:b'"),
        ({"LISTEN_FDS": "9"}, "Bad file descriptor"),
    ],
)
def test_variables_that_cannot_be_are_an_error(variables: dict[str, str], said: str, tcp: socket.socket) -> None:
    assert said in hand_over({"LISTEN_PID": "OWN", **variables}, tcp.fileno())["error"]


def test_one_that_cannot_be_served_is_named(tcp: socket.socket) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        variables = {"LISTEN_PID": "OWN", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "http:dns"}
        report = hand_over(variables, tcp.fileno(), datagram.fileno())
    assert report == {"error": "fd 4 (dns): a datagram socket, where a stream socket is needed"}


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_family_is_asked(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        original = socket.create_server((host, 0), family=family)
    except OSError as error:
        pytest.skip(f"no {family.name} here: {error}")
    original.set_inheritable(True)
    item = adopt(original.detach(), "web")
    with item.sock:
        assert item.sock.family is family
        assert item.listening
        assert not item.sock.getblocking()
        assert not item.sock.get_inheritable()


def test_a_descriptor_that_is_not_open(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    os.close(fd)
    with pytest.raises(ListenError, match=rf"fd {fd} \(x\): not open"):
        adopt(fd, "x")
    with pytest.raises(ListenError, match="not open"):
        adopt(2**40, "x")


def test_what_is_no_socket_is_described(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    reader, writer = os.pipe()
    cases = {
        os.open(file, os.O_RDONLY): rf"not a socket but a regular file \({file}\)",
        os.open(os.devnull, os.O_RDONLY): r"not a socket but a character device \(/dev/null\)",
        os.open(tmp_path, os.O_RDONLY): "not a socket but a directory",
        reader: "not a socket but a pipe",
    }
    for fd, said in cases.items():
        with pytest.raises(ListenError, match=said):
            adopt(fd, "x")
        os.close(fd)  # raises when it is no longer open: a descriptor that is refused is left as it was
    os.close(writer)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (socket.SOCK_DGRAM, "a datagram socket"),
        (socket.SOCK_SEQPACKET, "a sequential packet socket"),
        (socket.SOCK_STREAM, "neither listening nor connected"),
    ],
)
def test_sockets_that_cannot_be_served(kind: socket.SocketKind, said: str) -> None:
    with socket.socket(socket.AF_UNIX, kind) as sock:
        with pytest.raises(ListenError, match=said):
            adopt(sock.fileno(), "x")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == kind  # still open


def test_standard_input_and_output_are_let_go_of() -> None:
    ours, theirs = socket.socketpair()
    program = """
import os, sys
from appserver.system.fds import adopt
item = adopt(0, "connection")
print("this must not reach the client", flush=True)
names = [os.readlink(f"/proc/self/fd/{fd}") for fd in (0, 1)]
item.sock.send(f"{item.fd} {item.listening} {item.sock.fileno() > 2} {names}".encode())
item.sock.close()
os.write(2, b"closed")
os.read(int(sys.argv[1]), 1)
"""
    gate, opener = os.pipe()
    with ours, theirs:
        child = subprocess.Popen(
            [sys.executable, "-c", program, str(gate)],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=subprocess.PIPE,
            pass_fds=[gate],
        )
        theirs.close()
        ours.settimeout(30)
        answer = b""
        while data := ours.recv(4096):  # ends while the child still runs: its close() hung up
            answer += data
        assert child.poll() is None
        os.write(opener, b"x")
        assert child.communicate(timeout=30)[1] == b"closed"
    os.close(gate)
    os.close(opener)
    assert answer == b"0 False True ['/dev/null', '/dev/null']"


def test_the_limit_of_descriptors_is_raised_as_far_as_it_goes() -> None:
    program = (
        "from appserver.system.fds import *; raise_limit(); print(read_limit()); raise_limit(); print(read_limit())"
    )
    words = ["prlimit", "--nofile=100:200", sys.executable, "-c", program]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["200", "200"]


NAMESPACE = """
import os
from appserver.system.fds import is_nameless
print(os.geteuid(), is_nameless(65534), is_nameless(0))
"""


def test_in_a_user_namespace_nobody_may_be_anybody() -> None:
    words = ["unshare", "--user", "--map-user=65534", sys.executable, "-c", NAMESPACE]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["65534", "True", "False"]


def test_among_all_users_nobody_is_nobody() -> None:
    assert Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]
    assert not is_nameless(65534)
