import errno
import grp
import os
import pwd
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from appserver.errors import Exit, ListenError
from appserver.net.listeners import Listener, address_text, open_listeners
from appserver.settings import Settings
from appserver.system.fds import InheritedSocket
from tests.unit.records import Records

LISTENING = """
import socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
    listener.bind(sys.argv[1])
    listener.listen()
    print(flush=True)
    sys.stdin.read()
"""

Listen: TypeAlias = Callable[..., list[Listener]]

IPV6 = socket.has_ipv6 and Path("/proc/net/if_inet6").exists()
needs_ipv6 = pytest.mark.skipif(not IPV6, reason="this host has no IPv6")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name: a socket's path has 107 bytes, and tmp_path may need them all."""
    with tempfile.TemporaryDirectory(prefix="as-") as name:
        yield Path(name)


@pytest.fixture
def records() -> Records:
    return Records()


@pytest.fixture
def listen(records: Records) -> Iterator[Listen]:
    """Opens listeners for some settings, and closes them after the test."""
    opened: list[Listener] = []

    def listen(*binds: str, inherited: tuple[InheritedSocket, ...] = (), **options: Any) -> list[Listener]:
        listeners = open_listeners(Settings(bind=binds, **options), inherited, records.log)
        opened.extend(listeners)
        return listeners

    yield listen
    for listener in opened:
        listener.close()


@pytest.fixture
def handed() -> Iterator[Callable[..., InheritedSocket]]:
    """Sockets as the service manager hands them over."""
    socks: list[socket.socket] = []

    def hand(name: str, *, connected: bool = False) -> InheritedSocket:
        if connected:
            sock, other = socket.socketpair()
            socks.append(other)
        else:
            sock = socket.create_server(("127.0.0.1", 0))
        socks.append(sock)
        return InheritedSocket(sock, name, sock.fileno(), not connected)

    yield hand
    for sock in socks:
        sock.close()


def can_connect(listener: Listener) -> bool:
    """Whether somebody is there when a client calls."""
    with socket.socket(listener.sock.family, socket.SOCK_STREAM) as client:
        client.settimeout(20)
        try:
            client.connect(listener.sock.getsockname())
        except OSError:
            return False
        return True


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


# TCP


def test_port_0_is_a_port_that_the_kernel_chooses(listen: Listen) -> None:
    [listener] = listen("127.0.0.1:0")
    port = listener.sock.getsockname()[1]
    assert port > 0
    assert (listener.name, listener.url) == (f"127.0.0.1:{port}", f"http://127.0.0.1:{port}")
    assert can_connect(listener)


def test_a_listener_does_not_block_and_is_not_inherited_by_children(listen: Listen) -> None:
    [listener] = listen("127.0.0.1:0")
    assert not listener.sock.getblocking()
    assert not listener.sock.get_inheritable()
    assert (listener.inherited, listener.connected, listener.control) == (False, False, False)


def test_host_and_port_are_a_bind_too(listen: Listen) -> None:
    [listener] = listen(host="127.0.0.1", port=0)
    assert can_connect(listener)


@needs_ipv6
def test_an_ipv6_address_is_shown_in_brackets(listen: Listen) -> None:
    [listener] = listen("[::1]:0")
    port = listener.sock.getsockname()[1]
    assert (listener.name, listener.url) == (f"[::1]:{port}", f"http://[::1]:{port}")
    assert can_connect(listener)


@needs_ipv6
def test_a_host_of_two_families_is_two_listeners_on_one_port(listen: Listen) -> None:
    listeners = listen(":0")
    assert {listener.sock.family for listener in listeners} == {socket.AF_INET, socket.AF_INET6}
    assert len({listener.sock.getsockname()[1] for listener in listeners}) == 1
    assert all(can_connect(listener) for listener in listeners)


@needs_ipv6
def test_both_wildcards_stand_side_by_side(listen: Listen) -> None:
    port = free_port()
    assert len(listen(f"0.0.0.0:{port}", f"[::]:{port}")) == 2


def test_several_binds_of_all_kinds_are_served_together(listen: Listen, folder: Path) -> None:
    listeners = listen("127.0.0.1:0", f"unix:{folder}/a.sock", "unix:@appserver-test-several", uds=f"{folder}/b.sock")
    assert [listener.sock.family for listener in listeners] == [socket.AF_INET, *[socket.AF_UNIX] * 3]
    assert all(can_connect(listener) for listener in listeners)


def test_a_port_that_is_taken_is_refused_with_a_way_to_find_out_by_whom(listen: Listen) -> None:
    [first] = listen("127.0.0.1:0")
    with pytest.raises(ListenError, match=r"^127\.0\.0\.1:\d+: the address is in use; `ss -ltnp`") as caught:
        listen(first.name)
    assert caught.value.exit_code is Exit.STARTUP


def test_when_one_bind_fails_those_before_it_are_closed(listen: Listen, folder: Path) -> None:
    [taken] = listen("127.0.0.1:0")
    port = free_port()
    with pytest.raises(ListenError):
        listen(f"127.0.0.1:{port}", f"unix:{folder}/a.sock", taken.name)
    assert list(folder.iterdir()) == []
    socket.create_server(("127.0.0.1", port)).close()


@pytest.mark.parametrize(
    ("bind", "complaint"),
    [
        ("192.0.2.1:0", "192.0.2.1:0: no interface of this host has that address"),
        ("name.invalid:80", "name.invalid:80: 'name.invalid' cannot be resolved"),
    ],
)
def test_an_address_that_is_not_ours_is_refused(listen: Listen, bind: str, complaint: str) -> None:
    with pytest.raises(ListenError) as caught:
        listen(bind)
    assert str(caught.value).startswith(complaint)


# UNIX sockets


def test_a_unix_socket_is_known_by_its_path(listen: Listen, folder: Path) -> None:
    path = folder / "app.sock"
    [listener] = listen(f"unix:{path}")
    assert (listener.name, listener.url) == (str(path), f"unix:{path}")
    assert listener.sock.getsockname() == str(path)
    assert can_connect(listener)
    assert list(folder.iterdir()) == [path]


@pytest.mark.parametrize(("mode", "wanted"), [(None, 0o660), (0o600, 0o600), (0o666, 0o666)])
def test_a_unix_socket_has_the_mode_asked_for_whatever_the_umask(
    listen: Listen, folder: Path, mode: int | None, wanted: int
) -> None:
    before = os.umask(0o077)
    try:
        listen(uds=f"{folder}/app.sock", **({} if mode is None else {"uds_mode": mode}))
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder / "app.sock").stat().st_mode) == wanted


@needs_root
@pytest.mark.parametrize("by_name", [False, True])
def test_a_unix_socket_is_given_to_its_owner_and_group(listen: Listen, folder: Path, *, by_name: bool) -> None:
    user, group = pwd.getpwnam("nobody"), grp.getgrnam("daemon")
    owner, owning_group = ("nobody", "daemon") if by_name else (str(user.pw_uid), str(group.gr_gid))
    listen(uds=f"{folder}/app.sock", uds_owner=owner, uds_group=owning_group)
    status = (folder / "app.sock").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (user.pw_uid, group.gr_gid, 0o660)


@pytest.mark.parametrize("option", ["uds_owner", "uds_group"])
def test_an_owner_that_nobody_knows_is_an_error_and_leaves_nothing_behind(
    listen: Listen, folder: Path, option: str
) -> None:
    with pytest.raises(ListenError, match="no-such-name: this host knows no such name"):
        listen(uds=f"{folder}/app.sock", **{option: "no-such-name"})
    assert list(folder.iterdir()) == []


def test_a_stale_socket_is_replaced(listen: Listen, folder: Path) -> None:
    path = folder / "app.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))
        dead.listen()
    assert path.is_socket()
    [listener] = listen(f"unix:{path}")
    assert can_connect(listener)


def test_a_folder_that_may_be_written_and_not_be_read_is_good_enough(
    listen: Listen, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, flags: int) -> int:
        raise PermissionError(errno.EACCES, "as for everybody but root", str(path))

    monkeypatch.setattr(os, "open", refuse)
    [listener] = listen(f"unix:{folder}/app.sock")
    assert can_connect(listener)


@pytest.mark.parametrize("again", [{"uds": "{}/app.sock"}, {"control": "unix:{}/app.sock"}, {}])
def test_a_socket_that_is_named_twice_is_said_to_be(listen: Listen, folder: Path, again: dict[str, str]) -> None:
    named = {name: value.format(folder) for name, value in again.items()}
    binds = [f"unix:{folder}/app.sock"] * (1 if named else 2)
    with pytest.raises(ListenError, match=f"unix:{folder}/app.sock: it is named twice"):
        listen(*binds, **named)
    assert list(folder.iterdir()) == []


def test_a_socket_that_is_named_twice_by_two_names_is_said_to_be(listen: Listen, folder: Path) -> None:
    (folder / "other").symlink_to(folder)
    with pytest.raises(ListenError, match=f"unix:{folder}/other/app.sock: it is named twice, by another name"):
        listen(f"unix:{folder}/app.sock", f"unix:{folder}/other/app.sock")


def test_a_port_that_is_named_twice_is_said_to_be(listen: Listen) -> None:
    with pytest.raises(ListenError, match="127.0.0.1:8000: it is named twice"):
        listen("127.0.0.1:8000", "127.0.0.1:8000?http2=off")
    assert len(listen("127.0.0.1:0", "127.0.0.1:0")) == 2


def test_a_live_socket_is_refused_and_goes_on(listen: Listen, folder: Path) -> None:
    path = folder / "app.sock"
    command = [sys.executable, "-c", LISTENING, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(ListenError, match=rf"another process \(PID {other.pid}\) is listening there; stop it"):
            listen(f"unix:{path}")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(str(path))
        other.communicate()


def test_a_live_socket_with_a_full_backlog_is_refused_too(listen: Listen, folder: Path) -> None:
    [first] = listen(f"unix:{folder}/app.sock", backlog=1)
    waiting = []
    try:
        while True:
            client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            client.setblocking(False)
            waiting.append(client)
            client.connect(first.name)
    except BlockingIOError:
        pass
    try:
        with pytest.raises(ListenError, match="another process is listening there"):
            listen(f"unix:{folder}/app.sock")
    finally:
        for client in waiting:
            client.close()


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, lambda path: path.symlink_to("elsewhere")])
def test_what_is_no_socket_is_not_touched(listen: Listen, folder: Path, make: Callable[[Path], None]) -> None:
    path = folder / "app.sock"
    make(path)
    before = path.lstat()
    with pytest.raises(ListenError, match="a file that is no socket"):
        listen(f"unix:{path}")
    assert path.lstat().st_ino == before.st_ino


def test_a_missing_folder_is_named_as_the_cause(listen: Listen, folder: Path) -> None:
    with pytest.raises(ListenError, match=r"missing/app\.sock: its folder does not exist"):
        listen(f"unix:{folder}/missing/app.sock")


def test_a_path_may_be_as_long_as_the_kernel_allows(listen: Listen, folder: Path) -> None:
    path = folder / ("x" * (107 - len(str(folder)) - 1))
    [listener] = listen(f"unix:{path}")
    assert len(str(path)) == 107
    assert can_connect(listener)


def test_the_path_is_removed_at_the_end(listen: Listen, folder: Path) -> None:
    [listener] = listen(f"unix:{folder}/app.sock")
    listener.close()
    listener.close()
    assert list(folder.iterdir()) == []


def test_a_path_that_has_become_somebody_elses_is_not_removed(listen: Listen, folder: Path) -> None:
    path = folder / "app.sock"
    [listener] = listen(f"unix:{path}")
    path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as successor:
        successor.bind(str(path))
        listener.close()
        assert path.is_socket()


def test_an_abstract_socket_leaves_no_file(listen: Listen) -> None:
    [listener] = listen("unix:@appserver-test-abstract")
    assert (listener.name, listener.url) == ("@appserver-test-abstract", "unix:@appserver-test-abstract")
    assert listener.sock.getsockname() == b"\0appserver-test-abstract"
    assert listener.path is None
    assert can_connect(listener)
    with pytest.raises(ListenError, match="in use"):
        listen("unix:@appserver-test-abstract")


def test_the_control_socket_is_for_its_owner_alone(listen: Listen, folder: Path) -> None:
    _, control = listen("127.0.0.1:0", control=f"unix:{folder}/control.sock", uds_mode=0o666)
    assert control.control
    assert stat.S_IMODE((folder / "control.sock").stat().st_mode) == 0o600


# Inherited sockets


def test_without_binds_all_inherited_sockets_are_served(listen: Listen, handed: Callable[..., InheritedSocket]) -> None:
    listeners = listen(inherited=(handed("web"), handed("control"), handed("web")))
    assert sorted((listener.name, listener.control) for listener in listeners) == [
        ("control", True),
        ("web", False),
        ("web", False),
    ]
    assert all(listener.inherited and not listener.connected for listener in listeners)


def test_a_connected_socket_is_one_connection(listen: Listen, handed: Callable[..., InheritedSocket]) -> None:
    [listener] = listen(inherited=(handed("connection", connected=True),))
    assert listener.connected


def test_a_bind_picks_by_name_or_number_and_the_rest_is_told(
    listen: Listen, handed: Callable[..., InheritedSocket], records: Records
) -> None:
    web, admin, other = handed("web"), handed("admin"), handed("other")
    listeners = listen("fd://web", f"fd://{admin.fd}", inherited=(web, admin, other))
    assert [listener.name for listener in listeners] == ["web", "admin"]
    [record] = records.of("socket_ignored")
    assert "other" in record["message"]


def test_one_name_may_stand_for_several_sockets(listen: Listen, handed: Callable[..., InheritedSocket]) -> None:
    assert len(listen("fd://web", inherited=(handed("web"), handed("web")))) == 2


def test_a_name_that_no_inherited_socket_has_lists_those_there_are(
    listen: Listen, handed: Callable[..., InheritedSocket]
) -> None:
    with pytest.raises(ListenError, match="fd://wbe: no inherited socket has that name; there are: admin, web"):
        listen("fd://wbe", inherited=(handed("web"), handed("admin")))


def test_without_any_inherited_socket_a_name_is_an_error(listen: Listen) -> None:
    with pytest.raises(ListenError, match="there are: none"):
        listen("fd://web")


def test_one_socket_cannot_be_served_twice(listen: Listen, handed: Callable[..., InheritedSocket]) -> None:
    web = handed("web")
    with pytest.raises(ListenError, match="named twice"):
        listen("fd://web", f"fd://{web.fd}", inherited=(web,))


def test_a_descriptor_that_nobody_announced_is_adopted(listen: Listen) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        fd = sock.detach()
        [listener] = listen(fd=fd)
        assert (listener.name, listener.inherited) == (f"fd{fd}", True)
        assert can_connect(listener)


def test_a_descriptor_that_is_no_socket_is_refused(listen: Listen, folder: Path) -> None:
    with (folder / "file").open("wb") as file, pytest.raises(ListenError, match="not a socket but a regular file"):
        listen(f"fd://{file.fileno()}")


def test_a_connected_control_socket_is_refused(listen: Listen, handed: Callable[..., InheritedSocket]) -> None:
    with pytest.raises(ListenError, match="must be listening"):
        listen(inherited=(handed("control", connected=True),))


def test_an_inherited_control_socket_stands_beside_our_own(
    listen: Listen, handed: Callable[..., InheritedSocket], folder: Path
) -> None:
    path = f"{folder}/control.sock"
    listeners = listen("127.0.0.1:0", inherited=(handed("control"),), control=f"unix:{path}")
    assert [listener.name for listener in listeners if listener.control] == ["control", path]


def test_an_inherited_control_socket_may_be_the_one_that_is_named(listen: Listen, folder: Path) -> None:
    path = f"{folder}/control.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        sock.listen()
        inherited = InheritedSocket(sock, "control", sock.fileno(), listening=True)
        listeners = listen("127.0.0.1:0", inherited=(inherited,), control=f"unix:{path}")
        assert [listener.name for listener in listeners if listener.control] == ["control"]


def test_an_inherited_socket_keeps_its_path(listen: Listen, folder: Path) -> None:
    path = folder / "theirs.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(str(path))
        sock.listen()
        [listener] = listen(inherited=(InheritedSocket(sock, "web", sock.fileno(), listening=True),))
        assert address_text(sock) == listener.url == f"unix:{path}"
        listener.close()
    assert path.is_socket()


# TLS


def spoken(listeners: list[Listener]) -> list[tuple[bool, bool]]:
    """Of each: whether TLS is spoken, and whether HTTP/2 is served."""
    return [(listener.tls, listener.http2) for listener in listeners]


def test_without_a_certificate_nobody_speaks_tls(listen: Listen) -> None:
    assert spoken(listen("127.0.0.1:0", "127.0.0.1:0?http2=off")) == [(False, True), (False, False)]
    assert spoken(listen("127.0.0.1:0", "127.0.0.1:0?http2=on", http2=False)) == [(False, False), (False, True)]


def test_with_a_certificate_all_do_but_those_that_say_otherwise(listen: Listen, folder: Path) -> None:
    listeners = listen(
        *("127.0.0.1:0", "127.0.0.1:0?tls=off", f"unix:{folder}/a", f"unix:{folder}/b?tls=off&http2=off"),
        tls_cert=("a.pem",),
        insecure_bind=("127.0.0.1:0",),
        control=f"unix:{folder}/control",
    )
    assert sorted(
        (listener.url.partition(":")[0], *row) for listener, row in zip(listeners, spoken(listeners), strict=True)
    ) == [
        ("http", False, True),
        ("http", False, True),
        ("https", True, True),
        ("unix", False, False),
        ("unix", False, False),  # the control socket
        ("unix", True, True),
    ]


def test_the_default_address_speaks_tls_beside_an_insecure_one(listen: Listen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appserver.net.listeners.DEFAULT_PORT", 0)
    assert spoken(listen(insecure_bind=("127.0.0.1:0",), tls_dir="/live")) == [(False, True), (True, True)]


def test_names_of_inherited_sockets_say_whether_tls_is_spoken(
    listen: Listen, handed: Callable[..., InheritedSocket]
) -> None:
    sockets = tuple(handed(name) for name in ("http", "https", "web", "control"))
    listeners = listen(inherited=sockets, tls_cert=("a.pem",))
    assert {listener.name: listener.tls for listener in listeners} == {
        "http": False,
        "https": True,
        "web": True,
        "control": False,
    }


def test_what_the_bind_says_goes_before_the_name(listen: Listen, handed: Callable[..., InheritedSocket]) -> None:
    listeners = listen(
        "fd://http?tls=on", "fd://https?tls=off", inherited=(handed("http"), handed("https")), tls_cert=("a.pem",)
    )
    assert {listener.name: listener.tls for listener in listeners} == {"http": True, "https": False}


def test_an_insecure_bind_may_be_an_inherited_socket(listen: Listen, handed: Callable[..., InheritedSocket]) -> None:
    listeners = listen(inherited=(handed("web"), handed("probe")), insecure_bind=("fd://probe",), tls_cert=("a.pem",))
    assert {listener.name: listener.tls for listener in listeners} == {"web": True, "probe": False}


def test_tls_without_a_certificate_is_an_error_that_says_what_to_give(
    listen: Listen, handed: Callable[..., InheritedSocket]
) -> None:
    with pytest.raises(ListenError, match="https: .* give --tls-cert"):
        listen(inherited=(handed("https"),))
    port = free_port()
    with pytest.raises(ListenError, match="give --tls-cert"):
        listen(f"127.0.0.1:{port}?tls=on")
    [listener] = listen(f"127.0.0.1:{port}")  # it was closed again
    assert can_connect(listener)


def test_a_path_is_removed_from_where_it_was_made(
    listen: Listen, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    [listener] = listen("unix:app.sock")
    assert (folder / "app.sock").is_socket()
    monkeypatch.chdir("/")  # as an application may do
    listener.close()
    assert not (folder / "app.sock").exists()
