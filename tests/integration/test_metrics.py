"""What is told of real processes: to Prometheus, to statsd and in /status."""

import json
import os
import signal
import socket
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.certificates import Issuer
from tests.integration.servers import PATIENCE, Starter, UnixConnection, get
from tests.integration.test_workers import Begin, begin
from tests.integration.workers import Crew, eventually

__all__ = ["begin"]

Samples: TypeAlias = dict[tuple[str, ...], float]

UPGRADE: Final = (
    b"GET /echo HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def scrape(control: Path) -> Samples:
    status, body = get(UnixConnection(control), "/metrics")
    assert status == 200
    families = text_string_to_metric_families(body.decode())
    return {
        (one.name.removeprefix("appserver_"), *one.labels.values()): one.value
        for family in families
        for one in family.samples
    }


def status_of(control: Path) -> dict[str, Any]:
    status, body = get(UnixConnection(control), "/status")
    assert status == 200
    report: dict[str, Any] = json.loads(body)
    return report


def until(control: Path, right: Callable[[Samples], bool], what: str) -> Samples:
    """The first samples that are as they should be; workers tell theirs once a second."""

    def find() -> Samples | None:
        samples = scrape(control)
        return samples if right(samples) else None

    return eventually(find, what)


def answered(samples: Samples) -> float:
    """All responses; the histogram has as many."""
    count = sum(value for name, value in samples.items() if name[0] == "requests_total")
    assert count == samples["request_duration_seconds_count",]
    assert count == samples["request_duration_seconds_bucket", "+Inf"]
    return count


# --- a single process -------------------------------------------------------------------------------------------------


def test_a_single_process_tells_all_of_its_requests(serve: Starter, tmp_path: Path) -> None:
    control = tmp_path / "control.sock"
    server = serve("behaviour:app", "--control", f"unix:{control}", tracebacks=True)
    for _ in range(3):
        server.get("/whoami")
    server.get("/fail")
    server.get("/none")
    with socket.create_connection(server.address, PATIENCE) as bad:
        bad.sendall(b"GET / HTTP/1.1\r\nHost : a\r\n\r\n")
        bad.recv(1024)
    with closing(server.connect()) as idle:
        samples = until(
            control, lambda now: now["connections", "http/1.1"] == 1, "the connections before this one to be over"
        )
        idle.close()
    assert answered(samples) == 5
    assert samples["requests_total", "2xx"] >= 3
    assert samples["requests_total", "5xx"] == samples["requests_failed_total",] == 1
    assert samples["requests_refused_total",] == 1
    assert samples["connections_accepted_total",] == 7
    assert samples["requests_in_flight",] == 0
    assert samples["received_bytes_total",] > 300
    assert samples["sent_bytes_total",] > 300
    assert samples["accept_queue_limit_connections", server.url] == 2048
    assert not any(name[0].startswith("worker") for name in samples)


def test_what_is_asked_of_the_control_socket_is_no_traffic(serve: Starter, tmp_path: Path) -> None:
    control = tmp_path / "control.sock"
    serve("behaviour:app", "--control", f"unix:{control}")
    for _ in range(3):
        samples = scrape(control)
    assert answered(samples) == samples["connections_accepted_total",] == samples["sent_bytes_total",] == 0


def test_status_tells_latencies_bytes_and_how_late_the_event_loop_was(serve: Starter, tmp_path: Path) -> None:
    control = tmp_path / "control.sock"
    server = serve("behaviour:app", "--control", f"unix:{control}")
    server.get("/block?seconds=2.5")

    def find() -> dict[str, Any] | None:
        report = status_of(control)
        return report if report["latency_p50_us"] and report["loop_lag_us"] >= 1_000_000 else None

    report = eventually(find, "a second's look at a loop that was blocked for 2.5 s")
    assert report["latency_p99_us"] >= report["latency_p50_us"] >= 2_000_000
    assert report["statuses"]["2xx"] == 1
    assert report["bytes_received"] > 0
    assert report["bytes_sent"] > 0


def test_websockets_and_http2_are_told_apart(serve: Starter, tmp_path: Path) -> None:
    control = tmp_path / "control.sock"
    server = serve("websocket_echo:app", "--control", f"unix:{control}")
    with socket.create_connection(server.address, PATIENCE) as old, socket.create_connection(server.address) as new:
        old.sendall(UPGRADE)
        assert old.recv(1024).startswith(b"HTTP/1.1 101 ")
        new.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
        new.recv(1024)
        samples = until(control, lambda now: now["connections", "h2"] == 1, "a connection of HTTP/2")
        assert samples["connections", "websocket"] == samples["websockets",] == samples["websockets_opened_total",] == 1
        assert samples["connections", "http/1.1"] == 0
        assert samples["requests_total", "1xx"] == answered(samples) == 1
    until(control, lambda now: not sum(now["connections", one] for one in ("h2", "websocket")), "none to be left")


def test_without_the_library_the_answer_says_what_to_install(serve: Starter, tmp_path: Path) -> None:
    folder, control = tmp_path / "packages", tmp_path / "control.sock"
    (folder / "prometheus_client").mkdir(parents=True)
    (folder / "prometheus_client" / "__init__.py").write_text("raise ImportError\n")
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    serve("behaviour:app", "--control", f"unix:{control}", variables={"PYTHONPATH": path})
    status, body = get(UnixConnection(control), "/metrics")
    assert status == 501
    assert "pip install prometheus_client" in json.loads(body)["error"]
    assert get(UnixConnection(control), "/status")[0] == 200


# --- workers ----------------------------------------------------------------------------------------------------------


def load(crew: Crew, count: int) -> Samples:
    """Ask so often, and wait until the workers have told of it."""
    before = answered(scrape(crew.control))
    # Each keeps its worker to itself for a moment, so that the others get some too.
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(crew.server.get, ["/block?seconds=0.02"] * count))
    return until(crew.control, lambda now: answered(now) == before + count, f"{count} more requests to be told")


def test_what_workers_count_is_summed_and_a_killed_one_keeps_its_counts(begin: Begin) -> None:
    crew = begin("behaviour:app", 2)
    samples = load(crew, 40)
    for pid in crew.settle(2):
        os.kill(pid, signal.SIGKILL)
    crew.until_lost(2)
    crew.settle(2)
    after = scrape(crew.control)
    assert answered(after) == answered(samples)
    for name in ("received_bytes_total", "sent_bytes_total", "connections_accepted_total"):
        assert after[name,] >= samples[name,] > 0
    assert after["worker_restarts_total", "lost"] == 2
    assert after["workers", "serving"] == 2
    assert answered(load(crew, 5)) == answered(samples) + 5


def test_a_reload_keeps_all_counts_and_is_one_itself(begin: Begin, tmp_path: Path) -> None:
    crew = begin("behaviour:app", 2)
    samples = load(crew, 10)
    before = crew.settle(2)
    crew.server.send_signal(signal.SIGHUP)
    crew.server.record(event="reloaded")
    assert not before & crew.settle(2)
    after = scrape(crew.control)
    assert answered(after) == answered(samples)
    assert (after["reloads_total", "succeeded"], after["generation",]) == (1, 2)
    assert sum(value for name, value in after.items() if name[0] == "worker_restarts_total") == 0


def test_a_worker_that_hung_is_counted_as_that(begin: Begin) -> None:
    crew = begin("behaviour:app", 1, "--timeout-worker", "3")
    before = crew.settle(1)
    connection = crew.server.connect()
    connection.request("GET", "/block?seconds=30")
    samples = until(crew.control, lambda now: now["worker_restarts_total", "hung"] == 1, "a worker to be replaced")
    assert samples["worker_restarts_total", "lost"] == 0
    connection.close()
    assert not before & crew.settle(1)


@pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["single", "workers"])
def test_the_expiry_of_certificates_and_failed_handshakes_are_told(
    workers: tuple[str, ...], serve: Starter, tmp_path: Path
) -> None:
    control = tmp_path / "control.sock"
    pair = Issuer().issue(tmp_path / "a.pem", "a.example", "127.0.0.1")
    server = serve("behaviour:app", *workers, "--control", f"unix:{control}", *pair.arguments)
    host, port = server.url.removeprefix("https://").split(":")
    with socket.create_connection((host, int(port)), PATIENCE) as bad:
        bad.sendall(b"GET / HTTP/1.1\r\n\r\n")
        bad.recv(1024)
    samples = until(control, lambda now: now["tls_handshakes_failed_total",] == 1, "a handshake that failed")
    assert samples["certificate_expiry_timestamp_seconds", "a.example"] > 1_700_000_000
    report = status_of(control)
    [certificate] = report["certificates"]
    assert certificate.startswith("a.example")
    assert certificate.endswith(f": {report['certificate_expires']}")
    assert report["handshakes_failed"] == 1
    server.status(f", certificate a.example good until {report['certificate_expires'][:10]}")


# --- statsd -----------------------------------------------------------------------------------------------------------


def sums(receiver: socket.socket) -> tuple[Counter[str], dict[str, str]]:
    """The counts of all datagrams that have come, and the last value of everything else."""
    counts, last = Counter[str](), dict[str, str]()
    while True:
        try:
            data = receiver.recv(65536)
        except BlockingIOError:
            return counts, last
        for line in data.decode().split("\n"):
            name, _, rest = line.partition(":")
            value, kind, *more = rest.split("|")
            assert more[-1] == "#env:test"
            if kind == "c":
                counts[name] += int(value)
            else:
                last[name] = value


@pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["single", "workers"])
def test_statsd_gets_every_request_those_of_the_last_moment_too(workers: tuple[str, ...], serve: Starter) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.setblocking(False)
        address = f"localhost:{receiver.getsockname()[1]}"
        words = ("--statsd-host", address, "--statsd-prefix", "shop.", "--dogstatsd-tags", "env:test")
        server = serve("behaviour:app", *workers, *words)
        for _ in range(25):
            assert server.get("/whoami")[0] == 200
        assert server.stop() == 0
        counts, last = sums(receiver)
    assert counts["shop.requests"] == counts["shop.request.status.200"] == 25
    assert float(last["shop.request.duration"]) > 0
    assert ("shop.workers" in last) == bool(workers)


def test_a_server_of_statsd_that_is_not_there_is_told_and_changes_nothing_else(serve: Starter, tmp_path: Path) -> None:
    server = serve("behaviour:app", "--statsd-host", f"unix:{tmp_path}/none.sock")
    record = server.record(level="warning")
    assert record["message"].startswith(f"No figures reach statsd at unix:{tmp_path}/none.sock")
    assert server.get("/whoami")[0] == 200
