"""What a serving process tells of itself."""

from appserver.process.metering import Meter
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
