"""Reload: new code and new settings without a lost request; and what is broken changes nothing."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.certificates import Issuer
from tests.integration.servers import APPS, PATIENCE, Server, Starter, clean_environment, get, run
from tests.integration.workers import Crew, count_fds, eventually, find_children

FULL: Final = bool(os.environ.get("FULL"))
CLIENTS: Final = 64
RELOADS: Final = 100 if FULL else 5

SHOP = f"""
import logging, os, sys
sys.path.insert(0, {str(APPS)!r})
from behaviour import answer, app as behave

VERSION = "one"

async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({{"type": "websocket.accept"}})
        while (message := await receive())["type"] == "websocket.receive":
            await send({{"type": "websocket.send", "text": message["text"]}})
    elif scope["type"] == "http" and scope["path"] == "/version":
        logging.getLogger("shop").debug("asked")
        await answer(send, f"{{VERSION}} {{os.environ.get('SHOP_COLOUR', '')}}".encode())
    else:
        await behave(scope, receive, send)
"""

BROKEN = {
    "import": "import nothing_at_all",
    "syntax": "def app(:",
    "exit": "import os; os._exit(1)",
    "no application": "app = None",
    "startup": """
async def app(scope, receive, send):
    await receive()
    raise RuntimeError("no database")
""",
    "startup that hangs": """
import asyncio
async def app(scope, receive, send):
    await asyncio.Event().wait()
""",
    "import that hangs": "import time; time.sleep(600)",
}

Deploy = Callable[..., None]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The application's folder, with version one in it."""
    folder = tmp_path / "shop"
    folder.mkdir()
    write_version(folder, "one")
    return folder


def write_version(folder: Path, version: str) -> None:
    (folder / "shop.py").write_text(SHOP.replace('"one"', repr(version)))


@pytest.fixture
def begin(serve: Starter, tmp_path: Path, shop: Path) -> Callable[..., Crew]:
    """Starts the shop with two workers and a control socket, with a file of settings if one is given."""
    control = tmp_path / "control.sock"

    def start(*arguments: str | Path, **options: Any) -> Crew:
        words = ("--app-dir", shop, "--control", f"unix:{control}")
        options = {"tracebacks": True} | options
        return Crew(serve("shop:app", *words, *arguments, **options), control)

    return start


def version(crew: Crew) -> str:
    """What a new connection is answered."""
    status, body = crew.server.get("/version")
    assert status == 200
    return body.decode().strip()


def reload(crew: Crew) -> subprocess.CompletedProcess[str]:
    return run("reload", "--control", f"unix:{crew.control}", program="appserverctl")


def assert_reloads_are_whole(server: Server, count: int) -> None:
    """Each RELOADING=1 has its time, which is not before the one it answers, and is ended by one READY=1."""
    messages = [one.fields for one in server.notified.messages if one.fields.keys() & {"READY", "RELOADING"}]
    assert [next(iter({"READY", "RELOADING"} & one.keys())) for one in messages] == ["READY"] + [
        "RELOADING",
        "READY",
    ] * count
    times = [int(one["MONOTONIC_USEC"]) for one in messages if "RELOADING" in one]
    assert times == sorted(times)
    assert not any("MONOTONIC_USEC" in one for one in messages if "READY" in one)


# --- what is new ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["signal", "control"])
def test_a_reload_takes_up_new_code(way: str, begin: Callable[..., Crew], shop: Path) -> None:
    crew = begin("-w", "2", *("--keep-alive", "60", "--linger", "60", "--graceful-timeout", "60"))
    old = crew.settle(2)
    with closing(crew.server.connect()) as kept:
        kept.request("GET", "/version")
        assert kept.getresponse().read() == b"one "
        write_version(shop, "two")
        if way == "signal":
            crew.server.send_signal(signal.SIGHUP)
            reloaded = crew.server.record(event="reloaded")
        else:
            ended = reload(crew)
            assert (ended.returncode, ended.stdout) == (0, "reloaded\n")
            reloaded = crew.server.record(event="reloaded")
        assert reloaded["generation"] == 2
        # One from before takes a connection until it has heard that it is to leave.
        eventually(lambda: version(crew) == "two", "the new version")
        # An open connection is answered once more, and told to go.
        kept.request("GET", "/version")
        response = kept.getresponse()
        assert (response.read(), response.getheader("connection")) == (b"one ", "close")
    assert not crew.settle(2) & old
    crew.server.until(lambda: any("READY" in one.fields for one in crew.server.notified.messages[1:]) or None, "READY")
    assert_reloads_are_whole(crew.server, 1)
    assert "request_id" not in reloaded
    crew.assert_tidy()


def test_a_reload_reads_the_settings_anew(begin: Callable[..., Crew], tmp_path: Path) -> None:
    settings, environment = tmp_path / "settings.toml", tmp_path / "shop.env"
    settings.write_text("workers = 1\n")
    environment.write_text("SHOP_COLOUR=red\n")
    crew = begin("--config", settings, "--env-file", environment)
    crew.settle(1)
    assert version(crew) == "one red"
    settings.write_text('workers = 3\nlog_level = "debug"\nheader = ["X-Shop: new"]\n')
    environment.write_text("SHOP_COLOUR=blue\n")
    assert reload(crew).returncode == 0
    crew.settle(3)
    assert version(crew) == "one blue"
    assert crew.server.record(message="asked")["level"] == "debug"
    with closing(crew.server.connect()) as connection:
        connection.request("GET", "/")
        assert connection.getresponse().getheader("x-shop") == "new"
    # What is there no more is not there.
    environment.write_text("")
    settings.write_text('workers = 2\nlog_level = "debug"\n')
    assert reload(crew).returncode == 0
    crew.settle(2)
    assert version(crew) == "one"
    # The master's own level is new as well.
    assert crew.server.record(message="Started a worker")["generation"] == 3


def test_what_cannot_change_is_said_and_stays(begin: Callable[..., Crew], tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text("port = 0\n")
    crew = begin("-w", "1", "--config", settings, bind=False)
    address = crew.server.address
    for attempt in (1, 2):
        settings.write_text("port = 8999\n")
        assert reload(crew).returncode == 0
        said = [record["message"] for record in crew.server.records if "restart" in record["message"]]
        # Each time, for it is still not so.
        assert said == ["port cannot change without a restart: 0 stays"] * attempt
    settings.write_text("port = 0\nbacklog = 7\n")
    assert reload(crew).returncode == 0
    assert version(crew) == "one"
    assert crew.server.address == address


def test_what_cannot_change_does_not_change_in_new_workers_either(begin: Callable[..., Crew], tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text('loop = "asyncio"\nws = "none"\n')
    crew = begin("-w", "1", "--config", settings)
    settings.write_text('loop = "auto"\nws = "auto"\nworkers = 1\n')
    assert reload(crew).returncode == 0
    (pid,) = crew.settle(1)
    assert "uvloop" not in Path(f"/proc/{pid}/maps").read_text()
    with closing(crew.server.connect()) as connection:
        fields = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
        connection.request("GET", "/version", headers=fields | {"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="})
        assert connection.getresponse().status == 200


# --- what is broken ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_application_changes_nothing(what: str, begin: Callable[..., Crew], shop: Path) -> None:
    crew = begin("-w", "2", *(("--timeout-worker-start", "8") if "hangs" in what else ()))
    old = crew.settle(2)
    (shop / "shop.py").write_text(BROKEN[what])
    ended = reload(crew)
    assert ended.returncode == 3
    assert "the workers from before go on" in ended.stderr
    failed = crew.server.record(event="reload_failed")
    assert ("did not start in time" in failed["message"]) == ("hangs" in what)
    # Told once, not by each worker.
    assert sum(record.get("event") == "application_failed" for record in crew.server.records) <= 1
    assert crew.settle(2) == old
    assert version(crew) == "one"
    crew.server.status("Reload failed: a worker ")
    # Also with other figures: it is shown until a reload succeeds.
    later = time.monotonic()
    assert version(crew) == "one"
    assert "Serving: 2 of 2 workers, " in crew.server.status("Reload failed: a worker ", after=later)
    assert_reloads_are_whole(crew.server, 1)
    assert crew.report()["reloads_failed"] == 1
    # And a mended one is taken.
    write_version(shop, "two")
    assert reload(crew).returncode == 0
    later = time.monotonic()
    assert version(crew) == "two"
    crew.settle(2)
    assert "Reload failed" not in crew.server.status("Serving: 2 of 2 workers, ", after=later)
    crew.assert_tidy()


@pytest.mark.parametrize(
    "content",
    [b"workers = ", b"\xff\xfe", b"no_such_key = 1\n", b"workers = 0\n", b'workers = "many"\n', b"x = " + b"[" * 5000],
)
def test_a_broken_file_of_settings_changes_nothing(content: bytes, begin: Callable[..., Crew], tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text("workers = 2\n")
    crew = begin("--config", settings)
    old = crew.settle(2)
    settings.write_bytes(content)
    crew.server.send_signal(signal.SIGHUP)
    crew.server.record(event="reload_failed")
    crew.server.status("Reload failed: ")
    assert crew.settle(2) == old
    assert_reloads_are_whole(crew.server, 1)
    settings.unlink()
    assert reload(crew).returncode == 3
    settings.write_text("workers = 1\n")
    assert reload(crew).returncode == 0
    crew.settle(1)
    assert_reloads_are_whole(crew.server, 3)


def test_a_reload_without_the_certificate_fails_and_https_goes_on(begin: Callable[..., Crew], tmp_path: Path) -> None:
    issuer = Issuer()
    pair = issuer.issue(tmp_path / "a.pem", "127.0.0.1")
    settings = tmp_path / "settings.toml"
    settings.write_text(f'tls_cert = "{pair.certificate}"\ntls_key = "{pair.key}"\n')
    crew = begin("-w", "1", "--config", settings)
    old = crew.settle(1)
    settings.write_text("")
    assert reload(crew).returncode == 3
    assert "speaks TLS, and there is no certificate" in crew.server.record(event="certificate_failed")["message"]
    assert crew.settle(1) == old
    connection = http.client.HTTPSConnection(*crew.server.address, timeout=PATIENCE, context=issuer.client())
    assert get(connection, "/version") == (200, b"one ")


def test_a_variable_that_no_environment_can_hold_changes_nothing(begin: Callable[..., Crew], tmp_path: Path) -> None:
    environment = tmp_path / "shop.env"
    environment.write_text("SHOP_COLOUR=red\n")
    crew = begin("-w", "1", "--env-file", environment)
    old = crew.settle(1)
    environment.write_text('SHOP_COLOUR="r\0d"\n')
    assert reload(crew).returncode == 3
    why = f"{environment}: SHOP_COLOUR: expected a value without NUL"
    assert crew.server.record(event="reload_failed")["message"].endswith(f": {why}")
    # Nothing of it is left that could still grow.
    crew.server.send_signal(signal.SIGTTIN)
    assert old < crew.settle(2)
    assert {worker["generation"] for worker in crew.report()["workers"]} == {1}
    assert "Traceback" not in crew.server.stderr


def test_a_reload_that_fails_does_not_change_how_many_workers_are_wanted(
    begin: Callable[..., Crew], tmp_path: Path, shop: Path
) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text("workers = 2\n")
    crew = begin("--config", settings)
    crew.settle(2)
    settings.write_text("workers = 1\n")
    (shop / "shop.py").write_text(BROKEN["import"])
    assert reload(crew).returncode == 3
    assert crew.report()["workers_wanted"] == 2
    write_version(shop, "one")
    os.kill(max(crew.pids()), signal.SIGKILL)
    crew.until_lost(1)
    crew.settle(2)


# --- when -------------------------------------------------------------------------------------------------------------


def test_a_storm_of_fifty_signals_is_a_few_reloads(begin: Callable[..., Crew], shop: Path) -> None:
    crew = begin("-w", "2")
    crew.settle(2)
    for number in range(50):
        crew.server.send_signal(signal.SIGHUP)
        time.sleep(0.02)
        if number == 48:
            write_version(shop, "last")
    # The last one counts, whenever it came.
    eventually(lambda: version(crew) == "last", "the last version")
    time.sleep(1)
    crew.settle(2)
    assert 2 <= crew.report()["reloads"] <= 25  # 6, where nobody else wants the processor
    assert_reloads_are_whole(crew.server, crew.report()["reloads"])
    crew.assert_tidy()


def test_a_change_during_a_reload_is_not_lost(begin: Callable[..., Crew], shop: Path) -> None:
    crew = begin("-w", "1")
    slow = SHOP.replace('"one"', '"two"') + "\nimport time\ntime.sleep(1)\n"
    (shop / "shop.py").write_text(slow)
    crew.server.send_signal(signal.SIGHUP)
    crew.server.told("RELOADING", "1")
    time.sleep(0.7)  # it has been read, and not yet started
    write_version(shop, "three")
    ended = reload(crew)
    assert ended.returncode == 0
    assert version(crew) == "three"


def test_workers_stay_where_a_reload_finds_none_wanted(begin: Callable[..., Crew], tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text("workers = 2\n")
    crew = begin("--config", settings)
    crew.settle(2)
    for attempt in (1, 2):
        settings.write_text("")
        assert reload(crew).returncode == 0
        crew.settle(2)
        said = [record["message"] for record in crew.server.records if "restart" in record["message"]]
        assert said == ["workers cannot go without a restart: 2 stay"] * attempt


def test_a_reload_during_the_start_is_refused(serve: Starter, tmp_path: Path) -> None:
    control = tmp_path / "control.sock"
    words = ("-w", "1", "--control", f"unix:{control}")
    crew = Crew(serve("startup:slow", *words, ready=False, variables={"STARTUP_SECONDS": "5"}), control)
    crew.server.record(message="starting")
    assert "the server is starting" in reload(crew).stderr
    crew.server.send_signal(signal.SIGHUP)
    crew.server.record(message="SIGHUP ignored: the server is starting")
    crew.server.told("READY", "1")
    crew.settle(1)
    assert crew.report()["generation"] == 1


@pytest.mark.timeout(400)
def test_twenty_reloads_leave_nothing_behind(begin: Callable[..., Crew]) -> None:
    crew = begin("-w", "1")
    crew.settle(1)
    begun = count_fds(crew.pid)
    for _ in range(20):
        assert reload(crew).returncode == 0
    crew.settle(1)
    eventually(lambda: count_fds(crew.pid) <= begun, "descriptors as before")
    crew.assert_tidy()
    assert crew.report()["generation"] == 21


# --- under load -------------------------------------------------------------------------------------------------------


@contextmanager
def clients(
    plain: int, secure: int, certificate: Path, count: int, via: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """Clients in a process of their own, started by way of `via`; at the end the dictionary has what they tell."""
    program = Path(__file__).with_name("reload_load.py")
    words = [*via, sys.executable, str(program), str(plain), str(secure), str(certificate), str(count)]
    told: dict[str, Any] = {}
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=clean_environment()
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        guard = threading.Timer(900 if FULL else 90, process.kill)
        guard.start()
        try:
            assert process.stdout.readline() == "running\n"
            yield told
            process.stdin.close()
            told |= json.loads(process.stdout.read())
        finally:
            guard.cancel()
            if process.poll() is None and not told:
                process.kill()


@pytest.mark.timeout(1000 if FULL else 120)
def test_reloads_under_load_lose_nothing(begin: Callable[..., Crew], tmp_path: Path) -> None:
    issuer = Issuer()
    pair = issuer.issue(tmp_path / "a.pem", "127.0.0.1")
    crew = begin(
        *("-w", "2", "--no-access-log"),
        *("-b", "127.0.0.1:0?tls=off", "-b", "127.0.0.1:0?tls=on"),
        *("--tls-cert", pair.certificate, "--tls-key", pair.key),
        bind=False,
    )
    ports = [int(url.rpartition(":")[2]) for url in crew.server.listeners if url.startswith("http")]
    crew.settle(2)
    with clients(ports[0], ports[1], issuer.write_root(tmp_path / "root.pem"), CLIENTS) as told:
        for _ in range(RELOADS):
            ended = reload(crew)
            assert (ended.returncode, ended.stderr) == (0, "")
            time.sleep(0.3)
    print(told)
    assert told["lost"] == {}
    assert set(told["answered"]) == {"small", "slow", "upload", "websocket", "http2"}
    assert told["answered"]["small"] > 100 * RELOADS
    crew.settle(2)
    crew.assert_tidy()
    assert len(find_children(crew.pid)) == 2
    assert crew.report()["reloads"] == RELOADS
    assert crew.report()["workers_lost"] == 0
