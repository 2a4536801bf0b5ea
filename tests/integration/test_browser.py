"""A real browser over HTTP/2: Chromium loads tests/apps/page.py, with each engine."""

import json
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.apps import page
from tests.integration.browser import STARTING, browsing, trust
from tests.integration.http2 import ENGINES, Site, serving
from tests.integration.servers import UnixConnection, get


@pytest.fixture(scope="module", params=ENGINES)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp(request.param)
    # The browser is still there, and looks at a page that has been loaded, when it is counted who is connected.
    arguments = ["--control", f"unix:{folder}/control", "--timeout-keep-alive", "60"]
    with serving(folder, f"tls-{request.param}", "page:app", *arguments) as site:
        yield site


def load(site: Site, target: str, folder: Path) -> dict[str, Any]:
    """What the page reports, and how many connections are open then."""
    count = len(find_reports(site))

    def find() -> dict[str, Any] | None:
        reports = find_reports(site)
        return reports[count] if len(reports) > count else None

    with browsing(site.url + target, folder, trust(site.root.with_name("localhost.pem"))):
        control = UnixConnection(site.root.parent / "control")
        report = site.server.until(find, f"the report of {target}", STARTING)
        report["open"] = json.loads(get(control, "/status")[1])["connections"]
        return report


def find_reports(site: Site) -> list[dict[str, Any]]:
    return [json.loads(record["report"]) for record in site.server.records if record["message"] == "reported"]


def test_a_page_of_a_hundred_resources_takes_one_connection(site: Site, tmp_path: Path) -> None:
    report = load(site, "/", tmp_path)
    assert report["navigation"]["protocol"] == "h2"
    resources = {entry["name"]: entry for entry in report["resources"] if entry["name"].startswith("/resource/")}
    assert Counter((entry["protocol"], entry["status"]) for entry in resources.values()) == {("h2", 200): page.COUNT}
    assert report["connections"] == 1
    # On a busy machine it may have made another one, in case the first came to nothing, and asks nothing there.
    assert report["open"] <= 2

    # None has waited for the slow one.
    slow = resources.pop(f"/resource/{page.SLOW}.svg")
    assert slow["end"] - slow["start"] > 1000 * page.SLOW_SECONDS
    assert max(entry["end"] for entry in resources.values()) < slow["end"]

    digest = sha256(b"\7" * page.UPLOAD).hexdigest()
    assert report["upload"] == {"count": page.UPLOAD, "sha256": digest}

    # It has cancelled one stream; the connection went on, or there would be no report.
    assert report["given_up"] == "AbortError"
    endless = site.server.record(http_target="/endless")
    assert endless["outcome"] == "client_gone"
    assert not report["pushes"]
    print(f"{page.COUNT} resources in {max(entry['end'] for entry in resources.values()):.0f} ms")


def test_an_early_hint_is_there_before_the_page_comes(site: Site, tmp_path: Path) -> None:
    # What a browser makes of it is its own affair: this one (156) has asked for what was hinted nearly always.
    navigation = load(site, "/?hinted", tmp_path)["navigation"]
    assert 0 < navigation["interim"] < navigation["end"] - 500 * page.SLOW_SECONDS
