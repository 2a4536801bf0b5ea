"""What Prometheus scrapes: `telemetry.metrics.Snapshot` in its text format, or as OpenMetrics where that is asked for.

Names and units are those of https://prometheus.io/docs/practices/naming. Written by prometheus_client, which is only
there where somebody wants this: the import of this module fails without it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from appserver.telemetry.metrics import BUCKETS, Backlog, Metrics, Snapshot, Supervision, bucket_counts

_PREFIX: Final = "appserver"

# Name, what it is, and where it stands.
_COUNTERS: Final[tuple[tuple[str, str, Callable[[Metrics], int]], ...]] = (
    ("requests_failed", "Responses of 5xx, and those cut by a fault of the application.", lambda m: m.failed),
    ("requests_refused", "Refused as bad input, before there was a request.", lambda m: m.refused),
    ("connections_accepted", "Connections since the start.", lambda m: m.accepted),
    ("websockets_opened", "WebSockets since the start.", lambda m: m.websockets_opened),
    ("received_bytes", "Bytes of HTTP and WebSockets that were read, without TLS.", lambda m: m.bytes_received),
    ("sent_bytes", "Bytes of HTTP and WebSockets that were written, without TLS.", lambda m: m.bytes_sent),
    ("tls_handshakes_failed", "TLS handshakes that failed.", lambda m: m.handshakes_failed),
    ("log_records_dropped", "Records of the log that could not be written.", lambda m: m.log_dropped),
)
_GAUGES: Final[tuple[tuple[str, str, Callable[[Metrics], float]], ...]] = (
    ("requests_in_flight", "Requests that are being answered, WebSockets included.", lambda m: m.requests),
    ("websockets", "Open WebSockets, over all versions of HTTP.", lambda m: m.websockets),
    (
        "event_loop_lag_seconds",
        "How late the event loop came to a timer, at worst in the last 10 s and of all workers.",
        lambda m: m.loop_lag,
    ),
)


def render(snapshot: Snapshot, accept: str) -> tuple[bytes, str]:
    """Write a snapshot.

    Args:
        snapshot: What is told.
        accept: The request's Accept field; empty without one.

    Returns:
        The text and its media type.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(snapshot))
    encode, media_type = choose_encoder(accept)
    return encode(registry), media_type


class _Collector(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """All families."""
        snapshot = self._snapshot
        yield _gauge("build_info", "The version that runs.", "version", {snapshot.version: 1})
        yield from _collect_metrics(snapshot.metrics)
        yield from _collect_backlogs(snapshot.backlogs)
        if snapshot.supervision is not None:
            yield from _collect_supervision(snapshot.supervision)


def _collect_metrics(metrics: Metrics) -> Iterator[Metric]:
    yield _counter("requests", "Responses by the class of their status.", "code_class", metrics.classes)
    # Of these the reader makes quantiles; how many there were is its _count.
    counts = bucket_counts(metrics.latencies)
    histogram = HistogramMetricFamily(
        f"{_PREFIX}_request_duration_seconds", "From a request's head to the end of its response."
    )
    bounds = [*map(str, BUCKETS), "+Inf"]
    histogram.add_metric([], list(zip(bounds, counts, strict=True)), metrics.seconds)
    yield histogram
    yield _gauge("connections", "Open connections by what is spoken on them.", "protocol", metrics.protocols)
    for name, text, value in _GAUGES:
        yield GaugeMetricFamily(f"{_PREFIX}_{name}", text, value=value(metrics))
    for name, text, count in _COUNTERS:
        yield CounterMetricFamily(f"{_PREFIX}_{name}", text, value=count(metrics))
    if metrics.certificates:
        yield _gauge(
            "certificate_expiry_timestamp_seconds",
            "When a certificate expires, in seconds since 1970.",
            "certificate",
            metrics.certificates,
        )


def _collect_backlogs(backlogs: Iterable[Backlog]) -> Iterator[Metric]:
    found = list(backlogs)
    if not found:
        return
    waiting = {one.listener: one.waiting for one in found}
    limits = {one.listener: one.limit for one in found}
    dropped = {one.listener: one.dropped for one in found}
    yield _gauge("accept_queue_connections", "Connections that wait to be accepted.", "listener", waiting)
    yield _gauge("accept_queue_limit_connections", "How many may.", "listener", limits)
    yield _counter(
        "accept_queue_drops", "Connections that the kernel did not let in: the queue was full.", "listener", dropped
    )


def _collect_supervision(supervision: Supervision) -> Iterator[Metric]:
    yield _gauge("workers", "Workers by state.", "state", supervision.workers)
    yield _counter("worker_restarts", "Workers that others took the place of, by cause.", "cause", supervision.restarts)
    yield _counter("reloads", "Reloads by outcome.", "outcome", supervision.reloads)
    yield GaugeMetricFamily(f"{_PREFIX}_generation", "The generation that serves.", value=supervision.generation)


def _gauge(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    return _fill(GaugeMetricFamily(f"{_PREFIX}_{name}", text, labels=[label]), values)


def _counter(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    return _fill(CounterMetricFamily(f"{_PREFIX}_{name}", text, labels=[label]), values)


def _fill(family: GaugeMetricFamily | CounterMetricFamily, values: Mapping[str, float]) -> Metric:
    for value, number in values.items():
        family.add_metric([value], number)
    return family
