"""The benchmark runs, and what it measures can be true."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from shutil import which

import pytest

from tests.integration.servers import ROOT, clean_environment

requires_load = pytest.mark.skipif(which("wrk") is None, reason="wrk is not installed")
requires_two_processors = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="servers and load share a core")


def bench(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *map(str, arguments)],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


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


def test_an_unknown_workload_is_refused_with_the_names_that_there_are() -> None:
    ended = bench("--workloads", "helo")
    assert ended.returncode == 2
    assert "unknown: helo; there are hello, " in ended.stderr
