"""The documentation keeps up with the code: generated pages are fresh, lists are whole, links lead somewhere."""

import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from appserver.errors import Exit, UsageError
from appserver.process import life
from appserver.process.operations import Alone
from appserver.settings import TABLE, load
from appserver.telemetry.access import AccessLog
from appserver.telemetry.journal import Event
from appserver.telemetry.log import build
from appserver.wire.engine import Head
from tests.links import broken_links

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
OPERATIONS = DOCS / "operations.md"
MIGRATION = DOCS / "migration.md"
GENERATOR = ROOT / "tools" / "generate_docs.py"

pytestmark = pytest.mark.skipif(not GENERATOR.exists(), reason="the tests stand here without the rest of the checkout")

FOREIGN_FLAGS = {"--help", "--version", "--json"}
"""What the two programs take besides the settings."""


def pages() -> Iterator[Path]:
    for folder in (ROOT, ROOT / ".github"):
        yield from folder.glob("*.md")
    for name in ("docs", "tests", "examples", "packaging"):
        yield from (ROOT / name).rglob("*.md")


def section(title: str, page: Path = OPERATIONS) -> str:
    """The text of a page under a heading of level 2."""
    _, _, rest = page.read_text().partition(f"\n## {title}\n")
    assert rest, f"{page.name} has no section {title!r}"
    return rest.partition("\n## ")[0]


def first_cells(text: str) -> set[str]:
    """The code in the first cells of the tables' rows."""
    return {code for row in re.findall(r"^\|([^|]*)\|", text, re.MULTILINE) for code in re.findall(r"`([^`]+)`", row)}


@pytest.mark.parametrize("name", ["settings.md", "states.md"])
def test_what_is_generated_is_fresh(name: str, tmp_path: Path) -> None:
    subprocess.run([sys.executable, GENERATOR, tmp_path], check=True)
    assert (DOCS / name).read_text() == (tmp_path / name).read_text(), "run tools/generate_docs.py"


def test_every_exit_code_is_told() -> None:
    assert first_cells(section("Exit codes")) == {str(code.value) for code in Exit}


def test_every_event_is_told() -> None:
    assert first_cells(section("Events")) == {event.name.lower() for event in Event}


def test_every_route_of_the_control_socket_is_told() -> None:
    class Told(Alone):
        def __init__(self) -> None:
            pass  # the table is the same for every server

    routes = {f"{route.method} {route.path}" for route in Told().routes}
    known = {cell for cell in first_cells(section("The control socket")) if cell.startswith(("GET", "POST"))}
    assert known == {"GET /", *routes}


def test_every_field_of_an_access_record_is_told() -> None:
    stream = io.StringIO()
    headers = [(b"host", b"a"), (b"user-agent", b"b"), (b"referer", b"c")]
    request = Head(1, "GET", b"/", headers, "1.1", end=True, expects=False)
    AccessLog(build("info", "json", stream)).record(request, 200, 0.1, "unix", "id", 0, 0, "http", "complete")
    fields = json.loads(stream.getvalue()).keys() - {"timestamp", "level", "message"}
    assert first_cells(section("Access records")) == {field.upper() for field in fields}


def test_every_state_is_told() -> None:
    states = {life.STARTING, life.SERVING, life.DRAINING, life.STOPPED}
    assert first_cells(section("States")) == states


@pytest.mark.parametrize("page", sorted(pages()), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def test_the_index_has_every_page_and_every_decision() -> None:
    there = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} - {"index.md"}
    assert set(re.findall(r"\]\(([^)#]+)\)", (DOCS / "index.md").read_text())) == there


# These name other programs' flags too.
FOREIGN_PAGES = {MIGRATION, DOCS / "benchmark.md"}


@pytest.mark.parametrize(
    "page", sorted({*DOCS.glob("*.md"), ROOT / "README.md"} - FOREIGN_PAGES), ids=lambda page: page.name
)
def test_every_flag_that_is_named_exists(page: Path) -> None:
    known = {flag for row in TABLE for flag in row.flags} | FOREIGN_FLAGS
    known |= {f"--no-{flag.removeprefix('--')}" for row in TABLE if row.kind.switch for flag in row.flags}
    assert set(re.findall(r"`(--[a-z][\w-]*)`", page.read_text())) <= known


def test_every_flag_that_is_said_not_to_be_there_is_an_error() -> None:
    flags = {code for code in first_cells(section("Not there", MIGRATION)) if code.startswith("-")}
    assert flags
    for flag in flags:
        with pytest.raises(UsageError) as caught:
            load(flag.split(), {})
        # With a value that is said, the flag may be there, and only the value is not.
        assert " " in flag or "unknown option" in str(caught.value)
