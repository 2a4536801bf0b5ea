"""The benchmark runs, and what it measures can be true."""

import json
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from shutil import which
from time import monotonic, sleep
from typing import Any

import pytest

from bench.addresses import find_port
from bench.client import check_answer, wait_for_answer
from bench.processes import Session
from bench.rounds import _count_records
from bench.servers import CONTENDERS, Launch
from bench.workloads import WORKLOADS, Log
from tests.integration.servers import ROOT, clean_environment

requires_load = pytest.mark.skipif(which("wrk") is None, reason="wrk is not installed")
requires_h2load = pytest.mark.skipif(which("h2load") is None, reason="h2load is not installed")
requires_two_processors = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="servers and load share a core")


def bench(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *map(str, arguments)],
        cwd=ROOT,
        env=clean_environment() | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def measure(folder: Path, *workloads: str) -> list[dict[str, Any]]:
    """The medians of appserver, by workload."""
    figures = folder / "results.json"
    ended = bench(
        *("--quick", "--servers", "appserver", "--workloads", ",".join(workloads)),
        *("--json", figures, "--svg", folder / "results.svg"),
    )
    assert ended.returncode == 0, ended.stderr
    measured = json.loads(figures.read_text())["workloads"]
    assert [workload["name"] for workload in measured] == list(workloads)
    assert all(workload["left_out"] == {} and workload["error"] is None for workload in measured)
    return [workload["servers"]["appserver"]["median"] for workload in measured]


@requires_load
@requires_two_processors
def test_one_run_measures_a_server_and_a_floor_side_by_side(tmp_path: Path) -> None:
    figures, chart = tmp_path / "new" / "results.json", tmp_path / "new" / "results.svg"
    ended = bench(
        *("--quick", "--servers", "appserver,raw", "--workloads", "hello", "--json", figures, "--svg", chart),
    )
    assert ended.returncode == 0, ended.stderr
    (workload,) = json.loads(figures.read_text())["workloads"]
    assert workload["left_out"] == {}
    own, floor = (workload["servers"][name]["median"] for name in ("appserver", "raw"))
    for median in (own, floor):
        assert median["requests"] > 100
        assert 0 < median["p50_us"] <= median["p99_us"] <= median["p999_us"]
        assert median["cpu_us"] == pytest.approx(median["cpu_user_us"] + median["cpu_system_us"])
        # One process on one processor, with a tick of tolerance.
        assert 0 < median["busy"] < 1.02
        assert median["pss_kib"] <= median["rss_kib"]
    # What parses and runs an application costs more than what does neither.
    assert own["cpu_us"] > floor["cpu_us"]
    assert own["rss_kib"] > floor["rss_kib"]
    # Servers that have been started are ended, and their files are gone.
    assert sorted(figures.parent.iterdir()) == [figures, chart]
    texts = [element.text for element in ET.parse(chart).iter("{http://www.w3.org/2000/svg}text")]
    assert {"appserver", "raw"} <= set(texts)
    assert "appserver" in ended.stdout


@requires_load
@requires_h2load
@requires_two_processors
def test_a_new_tls_connection_costs_more_than_a_request_on_one_that_is_kept(tmp_path: Path) -> None:
    kept, new = measure(tmp_path, "tls-hello", "tls-connect")
    assert kept["requests"] > new["requests"] >= 100
    assert new["cpu_us"] > 3 * kept["cpu_us"]
    assert new["requests_per_cpu_s"] == pytest.approx(1e6 / new["cpu_us"])


@requires_h2load
@requires_two_processors
def test_http2_is_measured_under_load_idle_and_beside_a_client_that_resets_its_streams(tmp_path: Path) -> None:
    hello, idle, reset = measure(tmp_path, "h2-hello", "h2-idle", "h2-reset")
    assert hello["requests"] > 1000
    assert idle["connection_kib"] > 1
    assert 0 < reset["quiet_p50_us"] <= reset["quiet_p99_us"]
    assert reset["p99_ratio"] == pytest.approx(reset["p99_us"] / reset["quiet_p99_us"])
    assert reset["attack_connections"] >= 1
    assert reset["resets_per_s"] > 100
    assert reset["answers"] > 10


@requires_load
@requires_two_processors
def test_what_no_server_is_to_blame_for_ends_its_workload_and_not_the_run(tmp_path: Path) -> None:
    programs, figures = tmp_path / "bin", tmp_path / "results.json"
    programs.mkdir()
    for program in ("wrk", "taskset"):  # and no openssl, which makes the certificate
        (programs / program).symlink_to(str(which(program)))
    ended = bench(
        *("--quick", "--servers", "appserver", "--workloads", "tls-hello,hello"),
        *("--json", figures, "--svg", tmp_path / "results.svg"),
        PATH=str(programs),
    )
    failed, measured = json.loads(figures.read_text())["workloads"]
    assert ended.returncode == 1
    assert (failed["name"], failed["servers"]) == ("tls-hello", {})
    assert "openssl" in failed["error"]
    assert f"ended early: {failed['error']}" in ended.stdout
    assert measured["error"] is None
    assert measured["servers"]["appserver"]["median"]["requests"] > 100


@requires_load
@requires_two_processors
def test_a_run_that_is_ended_leaves_the_workloads_that_it_had_finished(tmp_path: Path) -> None:
    figures, chart = tmp_path / "results.json", tmp_path / "results.svg"
    arguments = ("--quick", "--servers", "raw", "--workloads", "hello,hello", "--json", figures, "--svg", chart)
    with subprocess.Popen(
        [sys.executable, "-m", "bench", *map(str, arguments)],
        cwd=ROOT,
        env=clean_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as running:
        end = monotonic() + 30
        while not chart.exists() and monotonic() < end:
            sleep(0.01)
        running.terminate()
        assert running.wait(20) == 128 + signal.SIGTERM
    (workload,) = json.loads(figures.read_text())["workloads"]
    assert workload["servers"]["raw"]["median"]["requests"] > 100
    assert sorted(tmp_path.iterdir()) == [figures, chart]


def test_lines_about_starts_and_stops_are_no_access_records(tmp_path: Path) -> None:
    workload, output = WORKLOADS["log"], tmp_path / "output"
    launch = Launch(
        workload.application, find_port(), Log.FILE, tmp_path, http2=False, websocket=False, certificate=None
    )
    command = CONTENDERS["appserver"].command(launch)
    with Session(command, min(os.sched_getaffinity(0)), output, clean_environment()) as session:
        wait_for_answer(launch.address, workload, lambda: not session.ended)
        check_answer(launch.address, workload)
    assert len(output.read_bytes().splitlines()) > 2
    assert _count_records(output) == 2


def test_an_unknown_workload_is_refused_with_the_names_that_there_are() -> None:
    ended = bench("--workloads", "helo")
    assert ended.returncode == 2
    assert "unknown: helo; there are hello, " in ended.stderr


@requires_two_processors
def test_a_reload_and_a_restart_are_made_under_load_and_counted() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "bench.reloads", "--servers", "appserver", "--times", "1", "--settle", "1.5"],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )
    rows = [line.split("|") for line in ended.stdout.splitlines() if line.startswith("| appserver ")]
    assert len(rows) == 2
    for row in rows:
        assert row[2].strip() == "0"
        assert int(row[4]) > 32, "each client was answered"
