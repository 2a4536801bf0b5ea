"""Upgrade in place: another version of appserver as the same process, and nothing is lost; what is broken changes
nothing.
"""

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

from tests.certificates import Issuer
from tests.integration.releases import Releases, replace
from tests.integration.servers import APPS, PATIENCE, Server, Starter, listening, run
from tests.integration.test_metrics import sums
from tests.integration.test_reload import CLIENTS, FULL, clients
from tests.integration.test_sockets import get_from, handed
from tests.integration.workers import Crew, count_fds, eventually, find_children, is_alive

SLOW: Final = 3 * PATIENCE
"""An upgrade is four or five starts of Python, one behind the other."""
UPGRADES: Final = 20 if FULL else 3

SHOP: Final = f"""
import sys
sys.path.insert(0, {str(APPS)!r})
from appserver import __version__
from behaviour import answer, app as behave

async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({{"type": "websocket.accept"}})
        while (message := await receive())["type"] == "websocket.receive":
            await send({{"type": "websocket.send", "text": message["text"]}})
    elif scope["type"] == "http" and scope["path"] == "/version":
        await answer(send, __version__.partition("+")[0].encode())
    else:
        await behave(scope, receive, send)
"""

WINDOW: Final = """
import os, pathlib, signal, time
if "APPSERVER_ESTATE" in os.environ and not pathlib.Path({mark!r}).exists():
    pathlib.Path({mark!r}).touch()
    for number in {signals}:
        os.kill(os.getpid(), number)
    time.sleep({seconds})
__version__ = \""""
"""A version that gets signals when its image runs and it has no handlers yet; once."""

BROKEN: Final[dict[str, dict[str, tuple[str, str]]]] = {
    "syntax": {"process_worker": ("import asyncio", "import asyncio (")},
    "half a copy": {"process_supervise": ("    finally:", "    finally")},
    "import": {"net_listeners": ("import errno", "import no_such_module")},
    "exit": {"wire_engine": ('"""', 'import os; os._exit(0)\n"""')},
    "another format": {"process_estate": ("FORMAT: Final = 1", "FORMAT: Final = 2")},
    "no upgrade": {"cli": ("os.environ.pop(REHEARSAL, None)", "None")},
}

Begin = Callable[..., Crew]


@pytest.fixture
def releases(tmp_path: Path) -> Releases:
    """Version one and version two, and one is installed."""
    found = Releases(tmp_path)
    found.build("one")
    found.build("two")
    found.install("one")
    return found


@pytest.fixture
def begin(serve: Starter, tmp_path: Path, releases: Releases) -> Begin:
    """Starts the installed version with workers and a control socket."""
    control = tmp_path / "control.sock"
    (tmp_path / "shop.py").write_text(SHOP)

    def start(workers: int, *arguments: str | Path, **options: Any) -> Crew:
        words = ("--app-dir", tmp_path, "--control", f"unix:{control}", "--timeout-worker-start", "15", "-w", workers)
        variables = {"PYTHONPATH": str(releases.current), **options.pop("variables", {})}
        return Crew(serve("shop:app", *map(str, words), *arguments, variables=variables, **options), control)

    return start


def upgrade(crew: Crew) -> subprocess.CompletedProcess[str]:
    return run("upgrade", "--control", f"unix:{crew.control}", program="appserverctl", timeout=SLOW)


def version(crew: Crew) -> str:
    """Of the worker that a new connection gets."""
    status, body = crew.server.get("/version")
    assert status == 200
    return body.decode()


def master(crew: Crew) -> str:
    """The version of the master."""
    running: str = crew.report()["version"]
    return running.partition("+")[0]


def upgraded(crew: Crew, count: int) -> None:
    """Wait until so many upgrades have succeeded."""
    eventually(lambda: crew.report()["upgrades"] == count, f"{count} upgrades", SLOW)


def words_of(server: Server) -> list[str]:
    """What was said of readiness, in order."""
    return [name for one in server.notified.messages for name in ("READY", "RELOADING") if name in one.fields]


# --- what is new ------------------------------------------------------------------------------------------------------


def test_an_upgrade_is_another_version_as_the_same_process(begin: Begin, releases: Releases) -> None:
    crew = begin(2, *("--keep-alive", "60", "--linger", "60", "--graceful-timeout", "60"))
    old, begun = crew.settle(2), crew.report()["uptime"]
    assert (master(crew), version(crew)) == ("one", "one")
    with closing(crew.server.connect()) as kept, closing(crew.server.connect()) as slow:
        kept.request("GET", "/version")
        assert kept.getresponse().read() == b"one"
        slow.request("GET", "/wait?seconds=3")
        run("drain", "--control", f"unix:{crew.control}", program="appserverctl")
        releases.install("two")
        ended = upgrade(crew)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout.startswith("upgraded from one+")
        assert " to two+" in ended.stdout
        assert master(crew) == "two"
        eventually(lambda: version(crew) == "two", "the new version")
        # An open connection is answered once more by the process that has it, and told to go.
        kept.request("GET", "/version")
        response = kept.getresponse()
        assert (response.read(), response.getheader("connection")) == (b"one", "close")
        assert slow.getresponse().read() == b"waited"
    assert not crew.settle(2) & old
    report = crew.report()
    assert (report["generation"], report["reloads"], report["upgrades"], report["upgrades_failed"]) == (2, 1, 1, 0)
    assert report["uptime"] > begun
    assert (report["workers_lost"], report["failure"]) == (0, None)
    assert (report["state"], report["ready"]) == ("serving", False)  # the operator has not said otherwise
    assert report["answered"] >= 4  # what those of version one have answered is counted on
    assert words_of(crew.server) == ["READY", "RELOADING", "READY"]
    assert any("MONOTONIC_USEC" in one.fields for one in crew.server.notified.messages if "RELOADING" in one.fields)
    crew.assert_tidy()
    assert crew.server.stop() == 0
    assert not crew.control.exists()


def test_figures_of_before_are_not_told_as_new(begin: Begin, releases: Releases) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.setblocking(False)
        address = f"127.0.0.1:{receiver.getsockname()[1]}"
        crew = begin(1, "--statsd-host", address, "--dogstatsd-tags", "env:test")
        told = Counter[str]()

        def requests() -> int:
            told.update(sums(receiver)[0])
            return told["appserver.requests"]

        for _ in range(5):
            version(crew)
        eventually(lambda: requests() == 5, "what is told every few seconds")
        version(crew)
        eventually(lambda: crew.report()["answered"] == 6, "what the worker tells")
        releases.install("two")
        assert upgrade(crew).returncode == 0
        assert crew.report()["latency_p99_us"] == 0  # what is told as recent is counted anew
        version(crew)
        assert crew.server.stop() == 0
        assert requests() == 7
    assert told["appserver.reloads.succeeded"] == 1


def test_a_swapped_virtual_environment_is_followed(serve: Starter, tmp_path: Path) -> None:
    releases, control = Releases(tmp_path), tmp_path / "control.sock"
    for name in ("one", "two"):
        releases.build_environment(name)
    releases.install("one")
    (tmp_path / "shop.py").write_text(SHOP)
    words = ("--app-dir", str(tmp_path), "-w", "1", "--control", f"unix:{control}")
    command, variables = (str(releases.current / "bin" / "appserver"),), {"PYTHONPATH": ""}
    crew = Crew(serve("shop:app", *words, command=command, variables=variables), control)
    assert (master(crew), version(crew)) == ("one", "one")
    releases.install("two")
    assert upgrade(crew).returncode == 0
    assert master(crew) == "two"
    eventually(lambda: version(crew) == "two", "the new version")
    assert f"{tmp_path}/two/bin" in Path(f"/proc/{crew.pid}/cmdline").read_text().partition("\0")[0]
    # And one that is gone changes nothing.
    crew.settle(1)
    releases.current.unlink()
    ended = upgrade(crew)
    assert ended.returncode == 3
    assert "cannot be executed: No such file or directory" in ended.stderr
    assert version(crew) == "two"


def test_sockets_that_were_handed_over_stay(serve: Starter, tmp_path: Path, releases: Releases) -> None:
    control = tmp_path / "control.sock"
    (tmp_path / "shop.py").write_text(SHOP)
    words = ("--app-dir", str(tmp_path), "-w", "1", "--control", f"unix:{control}")
    with listening() as listener:
        variables = {"PYTHONPATH": str(releases.current)}
        crew = Crew(serve("shop:app", *words, variables=variables, **handed("http", listener)), control)
        releases.install("two")
        assert upgrade(crew).returncode == 0
        crew.settle(1)
        assert get_from(listener, "/version") == (200, b"two")
        # What was said to the first image is not said to the second.
        environ = Path(f"/proc/{crew.pid}/environ").read_bytes()
        assert b"LISTEN_" not in environ
        assert b"NOTIFY_SOCKET=" in environ
        assert crew.server.stop() == 0
        socket.create_connection(listener.getsockname()).close()  # it is the service manager's, and goes on


def test_a_preloader_ends_with_the_version_that_started_it(begin: Begin, releases: Releases) -> None:
    crew = begin(2, "--preload")
    crew.settle(2)
    (before,) = crew.report()["preloaders"]
    releases.install("two")
    ended = upgrade(crew)
    assert (ended.returncode, ended.stderr) == (0, "")
    crew.settle(2)
    eventually(lambda: not is_alive(before["pid"]), "the end of the preloader")
    (after,) = crew.report()["preloaders"]
    assert after["generation"] == 2
    assert version(crew) == "two"
    eventually(lambda: len(find_children(crew.pid)) == 3, "the preloader and two workers alone")


# --- what is broken ---------------------------------------------------------------------------------------------------


@pytest.mark.timeout(900 if FULL else 150)
def test_a_broken_version_changes_nothing(begin: Begin, releases: Releases) -> None:
    crew = begin(1, tracebacks=True)  # of the new version, in the field OUTPUT
    old, descriptors = crew.settle(1), count_fds(crew.pid)
    said = {}
    for number, what in enumerate(BROKEN, 1):
        releases.build("broken", **BROKEN[what])
        releases.install("broken")
        ended = upgrade(crew)
        assert ended.returncode == 3, what
        assert "the upgrade has failed, and nothing has changed: " in ended.stderr
        said[what] = ended.stderr.partition("changed: ")[2].strip()
        assert crew.report()["upgrades_failed"] == number
        assert (master(crew), version(crew)) == ("one", "one")
        assert crew.settle(1) == old
        crew.server.status("Upgrade failed: ")
    assert "SyntaxError" in said["syntax"]
    failed = crew.server.record(message=f"The upgrade has failed, and nothing has changed: {said['syntax']}")
    assert failed["event"] == "upgrade_failed"
    assert "/appserver/process/worker.py" in failed["output"]
    assert "SyntaxError" in said["half a copy"]
    assert "no_such_module" in said["import"]
    assert "needs a restart" in said["exit"]
    assert "reads the format 2 of what another version has left, and this is 1" in said["another format"]
    assert "knows of no upgrade in place, and needs a restart" in said["no upgrade"]
    assert crew.report()["failure"].startswith("Upgrade failed: ")
    assert words_of(crew.server) == ["READY"]
    eventually(lambda: count_fds(crew.pid) <= descriptors, "descriptors as before")
    crew.assert_tidy()
    releases.install("two")
    assert upgrade(crew).returncode == 0
    crew.settle(1)
    assert (master(crew), crew.report()["failure"]) == ("two", None)


def test_a_version_that_hangs_changes_nothing(begin: Begin, releases: Releases) -> None:
    crew = begin(1, "--timeout-worker-start", "5")
    old = crew.settle(1)
    releases.build("broken", process_life=("import asyncio", "import time; time.sleep(600)"))
    releases.install("broken")
    ended = upgrade(crew)
    assert ended.returncode == 3
    assert ended.stderr.endswith("changed: the new version did not say within 5 s that it can take over\n")
    assert (master(crew), version(crew), crew.settle(1)) == ("one", "one", old)
    crew.assert_tidy()


def test_settings_are_read_anew_and_those_that_cannot_be_taken_change_nothing(
    begin: Begin, releases: Releases, tmp_path: Path
) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text('header = ["X-Shop: old"]\nbacklog = 100\n')
    crew = begin(1, "--config", settings)
    old = crew.settle(1)
    settings.write_text("no_such_key = 1\n")
    releases.install("two")
    ended = upgrade(crew)
    assert ended.returncode == 3
    assert f"appserver: {settings}: no_such_key: unknown key" in ended.stderr
    assert (master(crew), crew.settle(1)) == ("one", old)
    settings.write_text('header = ["X-Shop: new"]\nbacklog = 200\n')
    assert upgrade(crew).returncode == 0
    crew.settle(1)
    with closing(crew.server.connect()) as connection:
        connection.request("GET", "/")
        assert connection.getresponse().getheader("x-shop") == "new"
    crew.server.record(message="backlog cannot change without a restart: 100 stays")


def test_a_broken_application_leaves_the_old_workers_under_the_new_version(
    begin: Begin, releases: Releases, tmp_path: Path
) -> None:
    crew = begin(2, "--timeout-worker", "4", tracebacks=True)
    old = crew.settle(2)
    (tmp_path / "shop.py").write_text("import nothing_at_all")
    releases.install("two")
    ended = upgrade(crew)
    assert ended.returncode == 3
    assert "the workers from before go on: Upgrade failed: a worker ended with exit code 3" in ended.stderr
    assert ended.stderr.startswith("appserverctl: two+")
    assert (master(crew), version(crew)) == ("two", "one")
    assert crew.settle(2) == old
    crew.server.status("Upgrade failed: a worker ended with exit code 3")
    assert words_of(crew.server) == ["READY", "RELOADING", "READY"]
    crew.assert_tidy()
    # One of theirs that hangs or is lost is replaced by a worker of the new version, as soon as that can be.
    (tmp_path / "shop.py").write_text(SHOP)
    with closing(crew.server.connect()) as hung:
        hung.request("GET", "/block?seconds=60")
        told = crew.server.record(event="worker_hung")
        assert told["message"].endswith(" in block")
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            hung.getresponse()
    (left,) = old - {told["worker_pid"]}
    os.kill(left, signal.SIGKILL)
    crew.until_lost(2)
    assert not crew.settle(2) & old
    assert {worker["generation"] for worker in crew.report()["workers"]} == {1}
    crew.server.send_signal(signal.SIGHUP)
    eventually(lambda: crew.report()["reloads"] == 1, "the reload")
    assert not crew.settle(2) & old
    assert version(crew) == "two"
    assert crew.report()["failure"] is None
    crew.assert_tidy()


def test_a_version_that_fails_behind_the_exec_cuts_no_request(begin: Begin, releases: Releases) -> None:
    crew = begin(1, expected=1, tracebacks=True)
    pids = crew.settle(1)
    text = "import os\nif 'APPSERVER_ESTATE' in os.environ: raise RuntimeError('too late')\n"
    replace(releases.build("two") / "appserver" / "__init__.py", "__version__", f"{text}__version__")
    releases.install("two")
    with closing(crew.server.connect()) as waiting:
        waiting.request("GET", "/wait?seconds=4")
        crew.server.record(message="begun")
        crew.server.send_signal(signal.SIGUSR2)
        assert crew.server.wait() == 1
        assert waiting.getresponse().read() == b"waited"
    eventually(lambda: not any(is_alive(pid) for pid in pids), "the end of the workers")


def test_what_cannot_be_taken_over_is_told_and_ends_the_process() -> None:
    ended = run("nothing:app", "-w", "1", APPSERVER_ESTATE="999")
    assert ended.returncode == 1
    (record,) = map(json.loads, ended.stderr.splitlines())
    assert record["message"].startswith("The upgrade has failed: what another version has left cannot be read: ")
    assert record["event"] == "upgrade_failed"


def test_a_single_process_says_what_to_do(serve: Starter, tmp_path: Path) -> None:
    control = tmp_path / "control.sock"
    server = serve("behaviour:app", "--control", f"unix:{control}")
    server.send_signal(signal.SIGUSR2)
    server.record(
        message="SIGUSR2 ignored: a single process is not upgraded in place; restart it, or use --workers",
        level="warning",
    )
    ended = run("upgrade", "--control", f"unix:{control}", program="appserverctl")
    assert ended.returncode == 3
    assert "there is no upgrade in place" in ended.stderr
    assert server.get("/")[0] == 200


def test_the_signal_for_all_of_a_service_ends_no_worker(begin: Begin, releases: Releases) -> None:
    crew = begin(1)
    old = crew.settle(1)
    for pid in old:
        os.kill(pid, signal.SIGUSR2)
    assert version(crew) == "one"
    assert crew.settle(1) == old
    assert crew.report()["workers_lost"] == 0


# --- signals ----------------------------------------------------------------------------------------------------------


def in_window(releases: Releases, tmp_path: Path, *signals: signal.Signals, seconds: float = 0.0) -> None:
    numbers = [int(number) for number in signals]
    text = WINDOW.format(mark=str(tmp_path / "mark"), signals=numbers, seconds=seconds)
    package = releases.build("two") / "appserver"
    replace(package / "__init__.py", '__version__ = "', text)


def test_a_stop_behind_the_exec_is_acted_on(begin: Begin, releases: Releases, tmp_path: Path) -> None:
    crew = begin(2)
    pids = crew.settle(2)
    in_window(releases, tmp_path, signal.SIGTERM)
    with closing(crew.server.connect()) as waiting:
        waiting.request("GET", "/wait?seconds=2")
        crew.server.record(message="begun")
        releases.install("two")
        crew.server.send_signal(signal.SIGUSR2)
        assert waiting.getresponse().read() == b"waited"
    assert crew.server.wait() == 0
    assert crew.server.record(event="stopping")["signal"] == "SIGTERM"
    assert not any(is_alive(pid) for pid in pids)
    assert not crew.control.exists()


@pytest.mark.timeout(900 if FULL else 150)
def test_other_signals_behind_the_exec_are_acted_on(begin: Begin, releases: Releases, tmp_path: Path) -> None:
    crew = begin(1, "--timeout-worker", "5")
    in_window(releases, tmp_path, signal.SIGHUP, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU, seconds=7)
    releases.install("two")
    crew.server.send_signal(signal.SIGUSR2)
    upgraded(crew, 2)
    eventually(lambda: crew.report()["reloads"] == 3, "three reloads: of each upgrade, and of SIGHUP", SLOW)
    crew.settle(1)
    assert crew.report()["workers_lost"] == 0  # the master was silent, and not they
    crew.assert_tidy()


@pytest.mark.timeout(900 if FULL else 150)
def test_a_stop_at_any_moment_is_a_clean_end(begin: Begin, releases: Releases) -> None:
    for _ in range(60 if FULL else 2):
        crew = begin(1)
        crew.server.send_signal(signal.SIGUSR2)
        # The rehearsal and the exec take about half a second each.
        time.sleep(random.random() * 1.2)
        crew.server.send_signal(signal.SIGTERM)
        assert crew.server.wait() == 0
        assert not crew.control.exists()


@pytest.mark.timeout(900 if FULL else 150)
def test_upgrades_with_reloads_among_them_leave_nothing_behind(begin: Begin, releases: Releases) -> None:
    crew = begin(1)
    crew.settle(1)
    descriptors = 0
    for number in range(1, UPGRADES + 1):
        releases.install("two" if number % 2 else "one")
        crew.server.send_signal(signal.SIGUSR2)
        for _ in range(2):
            time.sleep(random.random() * 0.5)
            crew.server.send_signal(signal.SIGHUP)
        upgraded(crew, number)
        eventually(lambda: not crew.report()["failure"], "an upgrade without failure")
        if number == 2:
            crew.settle(1)
            descriptors = count_fds(crew.pid)
    crew.settle(1)
    eventually(lambda: count_fds(crew.pid) <= descriptors, "descriptors as before")
    assert crew.report()["upgrades_failed"] == 0
    assert crew.report()["workers_lost"] == 0
    crew.assert_tidy()


# --- under load -------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(900 if FULL else 150)
def test_upgrades_under_load_lose_nothing(begin: Begin, releases: Releases, tmp_path: Path) -> None:
    issuer = Issuer()
    pair = issuer.issue(tmp_path / "a.pem", "127.0.0.1")
    crew = begin(
        2,
        *("--no-access-log", "-b", "127.0.0.1:0?tls=off", "-b", "127.0.0.1:0?tls=on"),
        *("--tls-cert", pair.certificate, "--tls-key", pair.key),
        bind=False,
    )
    ports = [int(url.rpartition(":")[2]) for url in crew.server.listeners if url.startswith("http")]
    crew.settle(2)
    count = UPGRADES if FULL else 2
    with clients(ports[0], ports[1], issuer.write_root(tmp_path / "root.pem"), CLIENTS if FULL else 24) as told:
        for number in range(1, count + 1):
            releases.install("two" if number % 2 else "one")
            ended = upgrade(crew)
            assert (ended.returncode, ended.stderr) == (0, "")
            time.sleep(0.3)
    print(told)
    assert told["lost"] == {}
    assert set(told["answered"]) == {"small", "slow", "upload", "websocket", "http2"}
    crew.settle(2)
    crew.assert_tidy()
    assert len(find_children(crew.pid)) == 2
    report = crew.report()
    assert (report["upgrades"], report["upgrades_failed"], report["workers_lost"]) == (count, 0, 0)
