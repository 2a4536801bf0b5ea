import json
import random
import statistics

import pytest

from appserver.telemetry.metrics import (
    BOUNDS,
    BUCKETS,
    WINDOW_SECONDS,
    Metrics,
    Window,
    brief,
    bucket_counts,
    quantile,
    summarize,
    total,
)


def observed(*seconds: float, status: int = 200) -> Metrics:
    metrics = Metrics()
    for each in seconds:
        metrics.observe(status, each)
    return metrics


# --- one process ------------------------------------------------------------------------------------------------------


def test_the_exposed_bounds_are_among_those_that_are_counted_by() -> None:
    assert set(BUCKETS) <= set(BOUNDS)
    assert list(BOUNDS) == sorted(set(BOUNDS))


@pytest.mark.parametrize(("seconds", "bound"), [(0.0, 0.001), (0.001, 0.001), (0.00101, 0.0025), (60.0, 60.0)])
def test_a_response_is_in_the_first_bucket_that_it_does_not_exceed(seconds: float, bound: float) -> None:
    counts = dict(zip(BUCKETS, bucket_counts(observed(seconds).latencies), strict=False))
    assert [edge for edge, count in counts.items() if count] == [edge for edge in BUCKETS if edge >= bound]


@pytest.mark.parametrize("seconds", [60.5, 1e6])
def test_what_took_longer_than_any_bound_is_counted_all_the_same(seconds: float) -> None:
    metrics = observed(seconds, 0.5)
    assert bucket_counts(metrics.latencies)[-2:] == [1, 2]
    assert metrics.seconds == seconds + 0.5


def test_classes_are_there_before_a_response_of_them_is() -> None:
    assert Metrics().classes == {"1xx": 0, "2xx": 0, "3xx": 0, "4xx": 0, "5xx": 0}


def test_classes_sum_up_the_statuses_of_them_odd_ones_too() -> None:
    metrics = Metrics()
    for status in (101, 200, 204, 499, 500, 599, 999):
        metrics.observe(status, 0.1)
    assert metrics.classes == {"1xx": 1, "2xx": 2, "3xx": 0, "4xx": 1, "5xx": 2, "9xx": 1}


def test_a_websocket_over_http2_is_no_connection() -> None:
    metrics = Metrics(connections=10, connections_http2=3, websockets=6, websockets_http2=4)
    assert metrics.protocols == {"http/1.1": 5, "h2": 3, "websocket": 2}
    assert sum(metrics.protocols.values()) == metrics.connections


# --- several ----------------------------------------------------------------------------------------------------------


def test_counts_and_gauges_are_summed_and_of_lags_the_worst_is_taken() -> None:
    one, other = observed(0.002, 0.2), observed(0.002, status=404)
    one.connections, other.connections = 3, 4
    one.loop_lag, other.loop_lag = 0.5, 0.1
    both = total((one, other))
    assert (both.connections, both.loop_lag) == (7, 0.5)
    assert both.seconds == pytest.approx(0.204)
    assert both.statuses == {200: 2, 404: 1}
    assert bucket_counts(both.latencies)[-1] == 3
    # They are as they were: the next sum is made of them too.
    assert (one.statuses, other.statuses, one.connections) == ({200: 2}, {404: 1}, 3)


def test_of_a_certificate_that_two_have_the_nearer_expiry_is_taken() -> None:
    one = Metrics(certificates={"a.example": 2.0, "b.example": 5.0})
    other = Metrics(certificates={"a.example": 1.0, "c.example": 3.0})
    assert (one + other).certificates == {"a.example": 1.0, "b.example": 5.0, "c.example": 3.0}


def test_of_a_process_that_is_gone_counts_stay_and_nothing_else() -> None:
    metrics = observed(0.1)
    metrics.connections, metrics.requests, metrics.websockets, metrics.loop_lag = 5, 4, 3, 9.0
    metrics.answered, metrics.bytes_sent, metrics.certificates = 1, 100, {"a.example": 1.0}
    kept = metrics.kept()
    assert (kept.answered, kept.bytes_sent, kept.statuses, kept.seconds) == (1, 100, {200: 1}, 0.1)
    assert (kept.connections, kept.requests, kept.websockets, kept.loop_lag, kept.certificates) == (0, 0, 0, 0, {})


def test_a_report_comes_through_json_as_it_was() -> None:
    metrics = observed(0.001, 3.0, 99.0)
    metrics.connections, metrics.certificates, metrics.loop_lag = 2, {"ä.example": 1.5}, 0.25
    loaded = Metrics.load(json.loads(json.dumps(metrics.dump())))
    assert loaded == metrics
    loaded.observe(200, 0.001)  # and goes on counting
    assert loaded.statuses[200] == 4


@pytest.mark.parametrize(
    "broken",
    [{}, {"statuses": []}, {"statuses": {"x": 1}}, {"latencies": {"1": None}}, {"connections": "many"}],
    ids=str,
)
def test_what_is_no_report_is_refused(broken: dict[str, object]) -> None:
    dumped = {} if not broken else Metrics().dump() | broken
    with pytest.raises((ValueError, TypeError, KeyError, AttributeError)):
        Metrics.load(dumped)


# --- latencies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_a_quantile_is_off_by_a_quarter_at_most(share: float) -> None:
    chance = random.Random(7)
    times = [chance.lognormvariate(-6, 1.5) for _ in range(5000)]
    expected = statistics.quantiles(times, n=1000)[round(share * 1000) - 1]
    assert quantile(observed(*times).latencies, share) == pytest.approx(expected, rel=0.25)


def test_without_responses_there_is_no_time() -> None:
    assert quantile({}, 0.99) == 0.0


def test_a_time_over_all_bounds_is_told_as_the_last_of_them() -> None:
    assert quantile(observed(500.0).latencies, 0.5) == BOUNDS[-1]


def test_the_window_forgets_what_is_older() -> None:
    window, metrics = Window(), Metrics()
    metrics.observe(200, 1.0)
    window.look(metrics.latencies, 0.75)
    for _ in range(WINDOW_SECONDS - 1):
        assert (window.latencies.total(), window.lag) == (1, 0.75)
        window.look(metrics.latencies)
    metrics.observe(200, 0.001)
    window.look(metrics.latencies)
    assert (window.latencies.total(), window.lag) == (1, 0.0)
    assert quantile(window.latencies, 0.99) <= 0.001


def test_a_tick_that_comes_early_is_no_lag() -> None:
    window = Window()
    window.look(Metrics().latencies, -0.001)
    assert window.lag == 0.0


# --- status -----------------------------------------------------------------------------------------------------------


def test_the_summary_has_microseconds_and_what_a_worker_tells_is_a_part_of_it() -> None:
    window, metrics = Window(), observed(*[0.01] * 100)
    metrics.loop_lag = 0.0015
    window.look(metrics.latencies)
    summary = summarize(metrics, window)
    assert brief(metrics).items() <= summary.items()
    assert summary["loop_lag_us"] == 1500
    assert 8_000 <= summary["latency_p50_us"] <= summary["latency_p99_us"] <= 10_000
    assert summary["statuses"]["2xx"] == 100
