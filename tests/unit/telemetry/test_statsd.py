"""What is sent to statsd, and that nothing ever waits for it."""

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import uvloop

from appserver.binds import TcpBind, UnixBind
from appserver.telemetry import statsd
from appserver.telemetry.metrics import Backlog, Metrics, Snapshot, Supervision
from appserver.telemetry.statsd import DATAGRAM_SIZE, SAMPLES, Statsd, pack, write_lines
from tests.unit.records import Records

NOTHING = Snapshot("", Metrics(), (), None)
PATIENCE = 10.0


def after(*seconds: float, status: int = 200) -> Snapshot:
    metrics = Metrics()
    for each in seconds:
        metrics.observe(status, each)
    return NOTHING._replace(metrics=metrics)


def values(lines: list[str], name: str) -> list[str]:
    return [line.partition(":")[2] for line in lines if line.startswith(f"{name}:")]


# --- lines ------------------------------------------------------------------------------------------------------------


def test_names_are_those_of_gunicorn() -> None:
    supervision = Supervision({"serving": 2, "leaving": 1}, {"lost": 1}, {"succeeded": 1}, 2)
    told = after(0.004)._replace(supervision=supervision, backlogs=(Backlog("http://a", 5, 10, 0),))
    lines = list(write_lines(NOTHING, told))
    assert values(lines, "requests") == ["1|c"]
    assert values(lines, "request.status.200") == ["1|c"]
    assert values(lines, "workers") == ["3|g"]
    assert values(lines, "backlog") == ["5|g"]
    [duration] = values(lines, "request.duration")
    assert 3 <= float(duration.removesuffix("|ms")) <= 4


def test_counts_are_what_has_been_added_and_those_without_are_left_out() -> None:
    lines = list(write_lines(after(0.1, 0.1), after(0.1, 0.1, 0.1)))
    assert values(lines, "requests") == ["1|c"]
    assert len(values(lines, "request.duration")) == 1
    assert values(list(write_lines(after(0.1), after(0.1))), "requests") == []


def test_of_many_durations_a_few_stand_for_all_in_number_and_spread() -> None:
    lines = list(write_lines(NOTHING, after(*[0.001] * 900, *[1.0] * 100)))
    durations = values(lines, "request.duration")
    assert len(durations) == SAMPLES
    times = []
    for text in durations:
        time, kind, rate = text.split("|")
        assert kind == "ms"
        assert float(rate.removeprefix("@")) == pytest.approx(SAMPLES / 1000)
        times.append(float(time))
    assert sum(time > 500 for time in times) == SAMPLES / 10


def test_a_datagram_is_of_whole_lines_and_passes_an_ethernet() -> None:
    lines = [f"metric.{number}:1|c" for number in range(500)]
    datagrams = list(pack(lines))
    assert len(datagrams) > 1
    assert max(map(len, datagrams)) <= DATAGRAM_SIZE
    assert b"\n".join(datagrams).decode().split("\n") == lines


def test_a_line_that_is_longer_than_a_datagram_goes_alone() -> None:
    assert list(pack(["a" * 2000, "b"])) == [b"a" * 2000, b"b"]


# --- sending ----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def play(request: pytest.FixtureRequest) -> Callable[[Callable[[], Coroutine[Any, Any, None]]], None]:
    def run(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(asyncio.wait_for(scene(), PATIENCE))

    return run


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statsd, "INTERVAL_SECONDS", 0.05)


async def hear(sock: socket.socket) -> list[str]:
    data = await asyncio.get_running_loop().sock_recv(sock, 65536)
    return data.decode().split("\n")


def bind(family: int, address: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind(address)
    return sock


def make(address: TcpBind | UnixBind, records: Records, prefix: str = "shop", tags: str = "") -> Statsd:
    loop = asyncio.get_running_loop()
    taken = iter(range(1_000_000))
    return Statsd(address, prefix, tags, lambda: after(*[0.1] * (next(taken) + 1)), loop, records.log)


def test_each_line_has_the_prefix_and_the_tags(play: Any) -> None:
    async def scene() -> None:
        records = Records()
        with bind(socket.AF_INET, ("127.0.0.1", 0)) as server:
            sender = make(TcpBind("localhost", server.getsockname()[1]), records, tags="env:prod,shop")
            sender.start()
            lines = await hear(server)
            assert "shop.requests:1|c|#env:prod,shop" in lines
            assert all(line.startswith("shop.") and line.endswith("|#env:prod,shop") for line in lines)
            assert "shop.requests:1|c|#env:prod,shop" in await hear(server)
            sender.close()
            assert "shop.requests:1|c|#env:prod,shop" in await hear(server)  # what had come together at the end

    play(scene)


def test_what_was_counted_before_it_began_is_not_told(play: Any) -> None:
    async def scene() -> None:
        with bind(socket.AF_INET, ("127.0.0.1", 0)) as server:
            before = after(*[0.1] * 100)._replace(backlogs=(Backlog("http://a", 0, 10, 7),))
            address = TcpBind("127.0.0.1", server.getsockname()[1])
            sender = Statsd(address, "", "", lambda: before, asyncio.get_running_loop(), Records().log)
            sender.start()
            lines = await hear(server)
            assert [line for line in lines if line.endswith("|c")] == []
            sender.close()

    play(scene)


@pytest.mark.parametrize("abstract", [False, True])
def test_a_unix_socket_is_an_address_too(abstract: bool, play: Any, tmp_path: Path) -> None:
    path = f"@appserver-{tmp_path}" if abstract else str(tmp_path / "statsd.sock")

    async def scene() -> None:
        with bind(socket.AF_UNIX, "\0" + path[1:] if abstract else path) as server:
            sender = make(UnixBind(path), Records(), prefix="")
            sender.start()
            assert "requests:1|c" in await hear(server)
            sender.close()

    play(scene)


def test_a_server_that_comes_later_gets_what_has_come_together(play: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "statsd.sock")

    async def scene() -> None:
        records = Records()
        sender = make(UnixBind(path), records)
        sender.start()
        while not records.all():
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)  # some intervals more
        assert [record["message"] for record in records.all() if record["level"] == "warning"] == [
            f"No figures reach statsd at unix:{path}: No such file or directory"
        ]
        with bind(socket.AF_UNIX, path) as server:
            assert any(line.startswith("shop.requests:") for line in await hear(server))
        sender.close()

    play(scene)


def test_a_port_where_nobody_listens_is_told_once(play: Any) -> None:
    async def scene() -> None:
        records = Records()
        with bind(socket.AF_INET, ("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        sender = make(TcpBind("127.0.0.1", port), records)
        sender.start()
        while not records.all():
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        sender.close()
        assert len(records.all()) == 1
        assert "Connection refused" in records.all()[0]["message"]

    play(scene)


def test_a_host_that_is_not_known_is_told_and_asked_for_again(play: Any) -> None:
    async def scene() -> None:
        records = Records()
        sender = make(TcpBind("host.invalid", 8125), records)
        sender.start()
        while not records.all():
            await asyncio.sleep(0.01)
        assert "No figures reach statsd at host.invalid:8125" in records.all()[0]["message"]
        sender.close()

    play(scene)


def test_a_name_that_nobody_tells_the_address_of_holds_nobody_up(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, over = Event(), Event()

    def ask(*_: object, **__: object) -> list[Any]:  # as one whose server of names does not answer
        asked.set()
        over.wait(PATIENCE)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", ask)

    async def scene() -> None:
        sender = make(TcpBind("statsd.example", 8125), Records())
        sender.start()
        while not asked.is_set():
            await asyncio.sleep(0.01)
        sender.close()

    begun = time.monotonic()
    try:
        play(scene)  # and the end of its loop
        assert time.monotonic() - begun < PATIENCE / 2
    finally:
        over.set()


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_name_with_two_addresses_is_that_of_a_server_which_has_one_of_them(
    family: int, host: str, play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = socket.getaddrinfo

    def both(_: str, port: int, **options: Any) -> list[Any]:  # as /etc/hosts has them for localhost
        return [*ask("::1", port, **options), *ask("127.0.0.1", port, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", both)

    async def scene() -> None:
        records = Records()
        with bind(family, (host, 0)) as server:
            sender = make(TcpBind("localhost", server.getsockname()[1]), records)
            sender.start()
            assert any(line.startswith("shop.requests:") for line in await hear(server))
            sender.close()
        assert len(records.all()) == (family == socket.AF_INET6)

    play(scene)


def test_a_host_that_cannot_be_one_is_told(play: Any) -> None:
    async def scene() -> None:
        records = Records()
        sender = make(TcpBind("a" * 64 + ".example", 8125), records)
        sender.start()
        while not records.all():
            await asyncio.sleep(0.01)
        assert "No figures reach statsd at" in records.all()[0]["message"]
        sender.close()

    play(scene)


def test_one_that_does_not_read_holds_nobody_up(play: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "statsd.sock")

    async def scene() -> None:
        records = Records()
        with bind(socket.AF_UNIX, path) as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sender = make(UnixBind(path), records)
            sender.start()
            await asyncio.sleep(0.01)
            for _ in range(300):
                sender.send()
            sender.close()
        assert records.all() == []

    play(scene)
