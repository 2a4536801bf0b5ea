"""The table of the control socket, with a server of which only the figures are wanted."""

import json
import sys
from typing import Any

import pytest

from appserver.asgi.control import make_control
from appserver.asgi.types import Message, Scope
from appserver.process.operations import Alone
from appserver.telemetry.metrics import Metrics, Snapshot
from tests.unit.asgi.stage import play
from tests.unit.records import Records


class Figures(Alone):
    def __init__(self) -> None:
        self._server = self  # type: ignore[assignment]

    def snapshot(self) -> Snapshot:
        return Snapshot("1.0", Metrics(), (), None)


def ask(method: str) -> tuple[int, dict[bytes, bytes], Any]:
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("a question has no body")

    async def send(message: Message) -> None:
        sent.append(message)

    # A scraper comes by whatever name the host has.
    scope: Scope = {"type": "http", "method": method, "path": "/metrics", "headers": [(b"host", b"shop.example:9100")]}
    scope["query_string"], scope["state"] = b"", {}

    async def scene() -> None:
        await make_control(Figures().routes, Records().log)(scope, receive, send)

    play(scene())
    head, tail = sent
    headers = dict(head["headers"])
    read = json.loads if headers[b"content-type"] == b"application/json" else bytes
    return head["status"], headers, read(tail["body"])


def test_metrics_are_text() -> None:
    status, headers, content = ask("GET")
    assert (status, headers[b"content-type"][:11]) == (200, b"text/plain;")
    assert b"appserver_requests_total" in content


def test_only_questions_are_answered_with_metrics() -> None:
    status, headers, _ = ask("POST")
    assert (status, headers[b"allow"]) == (405, b"GET, HEAD")


def test_without_the_library_metrics_are_501_and_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "appserver.telemetry.prometheus", raising=False)
    monkeypatch.setitem(sys.modules, "prometheus_client.core", None)  # as for one that cannot be found
    status, _, content = ask("GET")
    assert status == 501
    assert "apt install python3-prometheus-client" in content["error"]
