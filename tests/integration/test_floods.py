"""Floods, live: how the server ends each, what it costs in memory, and what others notice. pytest -rP shows figures."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import IO, Any, Final

import pytest

from tests.integration.floods import FLOODS
from tests.integration.http2 import ENGINES, Site, remarks, serving
from tests.integration.neighbours import ROUND, Neighbours
from tests.integration.servers import PATIENCE, ROOT, clean_environment

BOMBS: Final = "hpack_bombs"

# Once there is TLS between, nothing is another flood: one stands for all.
WAYS: Final = (*(f"plain-{engine}" for engine in ENGINES), f"tls-{ENGINES[0]}")
CASES: Final = [(way, flood) for way in WAYS for flood in (*FLOODS, BOMBS) if way[0] == "p" or flood == "rapid_reset"]


@pytest.fixture(scope="module")
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp(request.param)
    with serving(folder, request.param, "behaviour:app", "--no-access-log", quiet=False) as site:
        yield site


class Flooder:
    """floods.py as a process."""

    def __init__(self, site: Site, flood: str) -> None:
        host, port = site.server.address
        root = [str(site.root)] if site.tls else []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.floods", flood, host, str(port), *root],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=clean_environment(),
        )
        self.ends: Counter[str] = Counter()

    @property
    def _pipes(self) -> tuple[IO[str], IO[str]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout

    def begin(self, seconds: float) -> None:
        """Flood for so long."""
        self._pipes[0].write(f"{seconds}\n")
        self._pipes[0].flush()

    def finish(self) -> None:
        """Wait for the end of what was begun."""
        line = self._pipes[1].readline()
        assert line, "the flood failed"
        self.ends.update(json.loads(line))

    def close(self) -> None:
        self._process.communicate(timeout=PATIENCE)


@pytest.mark.parametrize(("site", "flood"), CASES, indirect=["site"], scope="module")
def test_a_flood_is_ended_and_others_are_served(
    flood: str, site: Site, tmp_path_factory: pytest.TempPathFactory
) -> None:
    neighbours = Neighbours(site, tmp_path_factory.mktemp("neighbours"))
    said = len(remarks(site.server))
    with closing(Flooder(site, flood)) as flooder:
        flooder.begin(0.0)  # its own start is no part of a round
        flooder.finish()
        while not neighbours.settled:
            neighbours.ask_in_quiet()
            flooder.begin(ROUND)
            neighbours.ask_meanwhile()
            flooder.finish()
    count = flooder.ends.total()
    assert count > 0

    def find() -> list[dict[str, Any]] | None:
        found = [record for record in remarks(site.server)[said:] if record["message"].startswith("Closed")]
        return found if len(found) >= count else None

    # One line for each connection that was ended, and for a reset that it got before.
    ended = site.server.until(find, f"{count} lines")
    assert Counter((record["event"], record["level"]) for record in ended) == {("refused", "info"): count}
    assert set(flooder.ends) == {"ENHANCE_YOUR_CALM"}
    assert len(remarks(site.server)) - said <= 2 * count
    message = Counter(record["message"] for record in ended).most_common(1)[0][0]
    neighbours.check(f"{flood}: {count} times {message!r}")
