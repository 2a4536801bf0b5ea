"""The WebSocket of a real browser: Chromium loads `/page` of tests/apps/websocket_echo.py, which talks and reports.

A page that has come over HTTP/2 has its WebSockets on the same connection (RFC 8441), where the server allows it.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.browser import STARTING, browsing, trust
from tests.integration.http2 import ENGINES
from tests.integration.websocket import Place, serving

WAYS: Final[dict[str, tuple[str, str, list[str]]]] = {
    "plain": ("plain", "1.1", []),
    "tls-http1": ("tls", "1.1", ["--no-http2"]),
    **{f"tls-{engine}": ("tls", "2", ["--http2-engine", engine]) for engine in ENGINES},
}
"""Where the page comes from, in what version of HTTP, and what the server is told."""


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def place(way: str, tmp_path: Path) -> Iterator[Place]:
    listener, _, arguments = WAYS[way]
    # One path fails, and leaves the application's traceback.
    with serving(tmp_path, listener, "websocket_echo:app", *arguments, quiet=False, tracebacks=True) as place:
        yield place


def test_a_page_talks(way: str, place: Place, tmp_path: Path) -> None:
    version = WAYS[way][1]

    def find() -> dict[str, Any] | None:
        reports = [record["report"] for record in place.server.records if record["message"] == "reported"]
        return json.loads(reports[0]) if reports else None

    words = [trust(place.path.with_name("localhost.pem"))] if place.context else []
    with browsing(place.url("/page").replace("ws", "http", 1), tmp_path, *words):
        report = place.server.until(find, "the report", STARTING)
        # A frame that was taken out of its page goes away (RFC 6455 section 7.4.1). On a stream of HTTP/2 this browser
        # (156) takes its Close back, as RST_STREAM comes before it in its queue: its own log says so.
        assert place.told("/echo/left") in (((1001, ""), (1006, "")) if version == "2" else ((1001, ""),))
    assert report["protocol"] == ("h2" if version == "2" else "http/1.1")
    assert report["told"]["http_version"] == version
    assert report["told"]["scheme"] == ("wss" if place.context else "ws")
    assert (report["page"] == report["told"]["client"]) is (version == "2")  # the same connection
    talked = report["talked"]
    assert (talked["protocol"], talked["echoed"]) == ("chat.v2", 6)
    assert talked["extensions"].startswith("permessage-deflate")
    assert talked["closed"] == [4001, "Käse", True]
    assert place.told("/echo/browser") == (4001, "Käse")
    assert report["crowd"] == {"right": 50, "clean": 50}
    assert report["closed"] == [4002, "Käse", True]
    assert report["restarted"] == [1012, "", True]
    assert report["denied"] == [False, 1006, "", False]
    assert report["failed"] == [True, 1011, "", True]
    records = [record for record in place.server.records if record.get("http_target", "").startswith("/echo/crowd/")]
    assert {(record["http_version"], record["http_status"]) for record in records} == {
        (version, 200 if version == "2" else 101)
    }
    assert len(records) == 50
