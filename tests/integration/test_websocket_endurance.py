"""Very many WebSockets at once, clients that vanish, and what misuse costs the others."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final, Self

import pytest

from tests.integration.http2 import remarks, take_peak
from tests.integration.servers import PATIENCE, Server, Starter, UnixConnection, get

CROWD: Final = Path(__file__).with_name("crowd.py")
FULL: Final = bool(os.environ.get("FULL"))
COUNT: Final = 10_000 if FULL else 1000
"""WebSockets that are open at once."""
STAY: Final = 60.0 if FULL else 4.0
"""Seconds that they are open."""
PINGS: Final = 10 if FULL else 1
"""Seconds between pings."""
DRAIN: Final = 15.0
"""Seconds in which all of them are told and gone, of the 30 that `--graceful-timeout` gives."""
KIB: Final = 1024
MIB: Final = 1024 * KIB


class Crowd:
    """What crowd.py does, while the block runs; `report` is there behind it."""

    def __init__(self, server: Server, kind: str, *words: str | float) -> None:
        command = [sys.executable, str(CROWD), kind, str(server.address[1]), *map(str, words)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.report: Any = None

    def __enter__(self) -> Self:
        return self

    def wait_until_open(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"open\n"

    def __exit__(self, *error: object) -> None:
        try:
            output, _ = self._process.communicate(timeout=PATIENCE * 3)  # input ends
            assert self._process.returncode == 0
            self.report = json.loads(output)
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait(PATIENCE)


def run(server: Server, kind: str, *words: str | float) -> Any:
    """What comes of a crowd that ends by itself."""
    with Crowd(server, kind, *words) as crowd:
        pass
    return crowd.report


def resident(server: Server) -> int:
    """Bytes."""
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * KIB for line in lines if line.startswith("VmRSS:"))


def descriptors(server: Server) -> int:
    """How many are open, without those of a moment."""
    folder = Path(f"/proc/{server.process.pid}/fd")
    counts = []
    for _ in range(5):
        counts.append(len(list(folder.iterdir())))
        sleep(0.05)
    return min(counts)


@pytest.fixture
def control(tmp_path: Path) -> Path:
    return tmp_path / "control"


def start(serve: Starter, control: Path, *arguments: str) -> Server:
    server = serve("websocket_echo:app", "--control", f"unix:{control}", "--no-access-log", *arguments)
    run(server, "churn", 50)  # what is taken once, for the first
    return server


def wait_for_nobody(control: Path) -> dict[str, Any]:
    """Wait until no WebSocket is open; what the control socket tells then."""
    end = monotonic() + PATIENCE
    while True:
        told: dict[str, Any] = json.loads(get(UnixConnection(control), "/status")[1])
        if told["websockets"] == 0 and told["requests"] == 0 and told["connections"] == 0:
            return told
        assert monotonic() < end, told
        sleep(0.02)


def ends(server: Server, count: int) -> Counter[int]:
    """Codes that the application has been told, once it has been told so many."""

    def find() -> Counter[int] | None:
        codes = Counter(record["close_code"] for record in server.records if record["message"] == "disconnected")
        return codes if codes.total() >= count else None

    return server.until(find, f"{count} ends")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("deflate", ["none", "offer", "use"])
def test_idle_websockets_are_all_told_when_the_server_stops(deflate: str, serve: Starter, control: Path) -> None:
    # The default would not do for 10,000 that compress.
    server = start(serve, control, "--ws-ping-interval", str(PINGS), "--ws-deflate-memory", "1G")
    before = resident(server)
    with Crowd(server, "idle", COUNT, deflate) as crowd:
        crowd.wait_until_open()
        sleep(STAY)
        each = (resident(server) - before) / COUNT
        told = json.loads(get(UnixConnection(control), "/status")[1])
        assert told["websockets"] == COUNT
        begun = monotonic()
        server.send_signal(signal.SIGTERM)
        assert server.wait(DRAIN) == 0
        seconds = monotonic() - begun
    assert crowd.report["codes"] == {"1012": COUNT}
    # Deadlines are looked at once a second: a ping may be one late.
    assert crowd.report["pings"][0] >= (int(STAY / (PINGS + 1)) if FULL else 1)
    assert ends(server, COUNT + 50) == {1012: COUNT, 1000: 50}
    # On a busy machine 10,000 ends, with a record of the application's each, may take the loop more than a second.
    assert {record["event"] for record in remarks(server)} <= ({"watchdog"} if FULL else set())
    print(
        f"{COUNT} WebSockets, deflate {deflate}: {each / KIB:.1f} KiB each; all told and gone in {seconds:.2f} s;"
        f" {crowd.report['pings'][0]} pings at least"
    )


def test_many_come_and_go_and_leave_nothing_behind(serve: Starter, control: Path) -> None:
    server = start(serve, control)
    wait_for_nobody(control)
    run(server, "churn", 500)  # the allocator's own growth
    fds, before = descriptors(server), resident(server)
    report = run(server, "churn", COUNT * 2)
    assert report["codes"] == {"1000": COUNT * 2}
    told = wait_for_nobody(control)
    assert (told["failed"], told["refused"]) == (0, 0)
    assert descriptors(server) == fds
    growth = resident(server) - before
    assert growth < 4 * MIB, f"grew by {growth / KIB:.0f} KiB"
    print(f"{COUNT * 2} came and went: {growth / KIB:+.0f} KiB")


def test_clients_that_vanish_leave_nothing_behind(serve: Starter, control: Path) -> None:
    server = start(serve, control)
    wait_for_nobody(control)
    fds = descriptors(server)
    with Crowd(server, "vanish", 200) as crowd:
        crowd.wait_until_open()
        assert json.loads(get(UnixConnection(control), "/status")[1])["websockets"] == 200
    assert ends(server, 250) == {1006: 200, 1000: 50}
    wait_for_nobody(control)
    assert descriptors(server) == fds
    assert run(server, "churn", 50)["codes"] == {"1000": 50}
    server.stop()
    assert not remarks(server)


def test_clients_that_answer_no_ping_are_gone(serve: Starter, control: Path) -> None:
    server = start(serve, control, "--ws-ping-interval", "1", "--ws-ping-timeout", "1")
    wait_for_nobody(control)
    fds = descriptors(server)
    report = run(server, "silent", 200)
    assert 1 < report["seconds"] < 15  # and not the 40 s of the defaults
    assert ends(server, 250) == {1006: 200, 1000: 50}
    wait_for_nobody(control)
    assert descriptors(server) == fds


# What others notice


def measure(server: Server) -> float:
    """p99 of another client, in seconds."""
    times: list[float] = run(server, "echo", 1.0)
    assert times
    return times[int(len(times) * 0.99)]


@contextmanager
def misuse(server: Server, kind: str) -> Iterator[Crowd]:
    with Crowd(server, kind) as crowd:
        crowd.wait_until_open()
        yield crowd


@pytest.mark.parametrize(("kind", "bound"), [("ping", 0.05), ("bomb", 0.25)])
def test_a_flood_leaves_others_served(kind: str, bound: float, serve: Starter, control: Path) -> None:
    # The bounds on times hold where the machine is quiet.
    server = start(serve, control)
    run(server, "echo", 0.2)
    quiet = measure(server)
    take_peak(server)
    before = resident(server)
    with misuse(server, kind) as crowd:
        loud = measure(server)
    growth = take_peak(server) - before
    print(
        f"{kind} flood: others' p99 {loud * 1e3:.2f} ms, in quiet {quiet * 1e3:.2f} ms;"
        f" {crowd.report['sent'] / MIB:.1f} MiB came, memory {growth / MIB:+.1f} MiB"
    )
    assert growth < 64 * MIB
    wait_for_nobody(control)
    assert loud < bound or not FULL
