import json
import sys
from typing import Any

import pytest

from appserver.asgi.control import make_control
from appserver.asgi.types import Message, Scope
from appserver.telemetry.metrics import Metrics, Snapshot
from tests.unit.asgi.stage import play

SNAPSHOT = Snapshot("1.0", Metrics(), (), None)


def ask(path: str, method: str = "GET", state: str = "serving") -> tuple[int, dict[bytes, bytes], Any]:
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("the control application has no use for a body")

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {"type": "http", "method": method, "path": path, "headers": []}
    control = make_control(lambda: {"state": state, "requests": 3}, snapshot=lambda: SNAPSHOT)

    async def scene() -> None:
        await control(scope, receive, send)

    play(scene())
    head, tail = sent
    headers = dict(head["headers"])
    read = json.loads if headers[b"content-type"] == b"application/json" else bytes
    return head["status"], headers, read(tail["body"])


def test_status_is_the_report() -> None:
    status, headers, content = ask("/status")
    assert (status, content) == (200, {"state": "serving", "requests": 3})
    assert headers == {b"content-type": b"application/json", b"cache-control": b"no-store"}


@pytest.mark.parametrize("state", ["starting", "serving", "draining", "stopped"])
def test_the_server_is_alive_in_every_state_and_ready_in_one(state: str) -> None:
    assert ask("/livez", state=state)[0] == 200
    status, _, content = ask("/readyz", state=state)
    assert (status, content["ready"]) == ((200, True) if state == "serving" else (503, False))


@pytest.mark.parametrize("path", ["/", "/status/", "/STATUS", "*"])
def test_other_paths_are_not_found_and_the_known_ones_named(path: str) -> None:
    status, _, content = ask(path)
    assert status == 404
    assert content["paths"] == ["/livez", "/readyz", "/status", "/metrics"]


@pytest.mark.parametrize("method", ["POST", "DELETE", "OPTIONS"])
def test_only_questions_are_answered(method: str) -> None:
    status, headers, _ = ask("/status", method)
    assert (status, headers[b"allow"]) == (405, b"GET, HEAD")


def test_metrics_are_text() -> None:
    status, headers, content = ask("/metrics")
    assert (status, headers[b"content-type"][:11]) == (200, b"text/plain;")
    assert b"appserver_requests_total" in content


def test_only_questions_are_answered_with_metrics() -> None:
    status, headers, _ = ask("/metrics", "POST")
    assert (status, headers[b"allow"]) == (405, b"GET, HEAD")


def test_without_the_library_metrics_are_501_and_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "appserver.telemetry.prometheus", raising=False)
    monkeypatch.setitem(sys.modules, "prometheus_client.core", None)  # as for one that cannot be found
    status, _, content = ask("/metrics")
    assert status == 501
    assert "apt install python3-prometheus-client" in content["error"]


def test_head_is_a_question() -> None:
    assert ask("/livez", "HEAD")[0] == 200


def test_it_has_no_lifespan() -> None:
    async def scene() -> None:
        with pytest.raises(NotImplementedError, match="lifespan"):
            await make_control(dict, snapshot=lambda: SNAPSHOT)({"type": "lifespan"}, None, None)  # type: ignore[arg-type]

    play(scene())


@pytest.mark.parametrize(("failure", "expected"), [(None, 202), ("no such file", 500)])
def test_an_upgrade_is_accepted_or_has_failed(failure: str | None, expected: int) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("the control application has no use for a body")

    async def send(message: Message) -> None:
        sent.append(message)

    async def upgrade() -> str | None:
        return failure

    async def scene() -> None:
        control = make_control(lambda: {"state": "serving"}, upgrade=upgrade, snapshot=lambda: SNAPSHOT)
        await control({"type": "http", "method": "POST", "path": "/upgrade"}, receive, send)

    play(scene())
    assert sent[0]["status"] == expected
    assert json.loads(sent[1]["body"]) == {"upgrading": failure is None, "error": failure}


def test_an_upgrade_is_nothing_for_a_single_process_or_for_a_question() -> None:
    status, headers, _ = ask("/upgrade", "POST")
    assert (status, headers[b"allow"]) == (405, b"POST")
    assert ask("/upgrade")[0] == 405
