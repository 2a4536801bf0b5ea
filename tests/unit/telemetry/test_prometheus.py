import time
from typing import Any

import pytest
from prometheus_client import parser
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import parser as openmetrics_parser

from appserver.telemetry.metrics import Backlog, Metrics, Snapshot, Supervision
from appserver.telemetry.prometheus import render

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def snapshot() -> Snapshot:
    metrics = Metrics(connections=3, answered=3, certificates={"a.example": time.time() + 3600})
    for status, seconds in ((200, 0.0004), (200, 0.3), (404, 70.0)):
        metrics.observe(status, seconds)
    supervision = Supervision({"serving": 2}, {"lost": 1, "hung": 0}, {"succeeded": 4, "failed": 1}, 5)
    return Snapshot("1.2.3", metrics, (Backlog('http://[::1]:80"\\\n', 1, 128, 7),), supervision)


def samples(families: list[Metric]) -> dict[tuple[str, ...], float]:
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


def read(text: bytes) -> dict[tuple[str, ...], float]:
    return samples(list(parser.text_string_to_metric_families(text.decode())))


def test_all_figures_are_there_under_their_names() -> None:
    text, media_type = render(snapshot(), "")
    assert media_type.startswith("text/plain; version=")
    found = read(text)
    assert found["appserver_requests_total", "2xx"] == 2
    assert found["appserver_requests_total", "4xx"] == 1
    assert found["appserver_requests_total", "5xx"] == 0
    assert found["appserver_request_duration_seconds_bucket", "0.001"] == 1
    assert found["appserver_request_duration_seconds_bucket", "60.0"] == 2
    assert found["appserver_request_duration_seconds_bucket", "+Inf"] == 3
    assert found["appserver_request_duration_seconds_count",] == 3
    assert found["appserver_request_duration_seconds_sum",] == pytest.approx(70.3004)
    assert found["appserver_connections", "http/1.1"] == 3
    assert found["appserver_workers", "serving"] == 2
    assert found["appserver_worker_restarts_total", "lost"] == 1
    assert found["appserver_reloads_total", "failed"] == 1
    assert found["appserver_generation",] == 5
    assert found["appserver_accept_queue_drops_total", 'http://[::1]:80"\\\n'] == 7
    assert found["appserver_certificate_expiry_timestamp_seconds", "a.example"] > time.time()
    assert found["appserver_build_info", "1.2.3"] == 1


def test_a_process_without_a_master_tells_of_none() -> None:
    text, _ = render(Snapshot("1.2.3", Metrics(), (), None), "")
    assert b"appserver_requests_total" in text
    for name in ("workers", "worker_restarts", "reloads", "generation", "accept_queue", "certificate"):
        assert f"appserver_{name}".encode() not in text


def test_openmetrics_is_what_is_sent_where_it_is_asked_for() -> None:
    text, media_type = render(snapshot(), OPENMETRICS)
    assert media_type.startswith("application/openmetrics-text")
    read_families: Any = openmetrics_parser.text_string_to_metric_families
    families = list(read_families(text.decode()))
    assert samples(families)["appserver_requests_total", "2xx"] == 2
    assert text.endswith(b"# EOF\n")


@pytest.mark.parametrize("accept", ["*/*", "text/html", "", "application/openmetrics-text;;;q=x, \xff"])
def test_whatever_else_is_accepted_gets_text(accept: str) -> None:
    text, _ = render(snapshot(), accept)
    assert b"appserver_generation 5.0" in text
