"""What a serving process tells of itself."""

import json

import pytest

from appserver.process.metering import Meter, read_report
from appserver.telemetry.log import build
from appserver.telemetry.metrics import Metrics


def test_what_was_read_does_not_go_on_counting() -> None:
    figures = Metrics()
    figures.observe(200, 0.1)
    meter = Meter(figures, [], build("critical", "json"), None)
    before = meter.snapshot().metrics
    figures.observe(200, 0.1)
    assert (before.statuses, meter.snapshot().metrics.statuses) == ({200: 1}, {200: 2})
    assert sum(before.latencies.values()) == 1


def test_a_look_that_is_late_is_the_lag_of_the_loop() -> None:
    meter = Meter(Metrics(), [], build("critical", "json"), None)
    meter.look(0.25)
    meter.look(0.001)
    assert meter.read().loop_lag == 0.25
    assert meter.report()["loop_lag_us"] == 250_000


def test_a_report_is_read_with_its_state() -> None:
    metrics = Metrics(connections=3)
    metrics.observe(200, 0.1)
    assert read_report(json.dumps({"state": "serving", **metrics.dump()})) == (metrics, "serving")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", '{"state": "serving"}', "9" * 5000, "[" * 100_000])
def test_what_is_no_report_tells_nothing(text: str) -> None:
    assert read_report(text) == (None, None)
