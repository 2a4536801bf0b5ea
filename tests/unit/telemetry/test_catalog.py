"""The journal's catalog and the table of events agree."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from appserver.telemetry.journal import Event

CATALOG = Path(__file__).parents[3] / "systemd" / "appserver.catalog"


def read_entries() -> dict[str, str]:
    text = "\n".join(line for line in CATALOG.read_text().split("\n") if not line.startswith("#"))
    head, *parts = re.split(r"^-- ([0-9a-f]{32})$", text, flags=re.MULTILINE)
    assert not head.strip()
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_every_event_has_an_entry_and_the_other_way_round() -> None:
    ids = re.findall(r"^-- (.*)$", CATALOG.read_text(), re.MULTILINE)
    assert len(ids) == len(set(ids))
    assert set(ids) == {event.value for event in Event}


@pytest.mark.parametrize("event", Event, ids=lambda event: event.name.lower())
def test_an_entry_says_what_happened_and_what_to_do(event: Event) -> None:
    head, _, body = read_entries()[event.value].strip().partition("\n\n")
    assert re.fullmatch(r"Subject: \S.{8,70}\nDefined-By: appserver", head)
    happened, _, todo = body.partition("\n\n")
    assert len(happened) > 80
    assert len(todo) > 10
    assert max(map(len, body.split("\n"))) <= 80


@pytest.mark.skipif(shutil.which("journalctl") is None, reason="journalctl is not installed")
def test_journalctl_compiles_it(tmp_path: Path) -> None:
    source, database = tmp_path / "usr/lib/systemd/catalog", tmp_path / "var/lib/systemd/catalog"
    source.mkdir(parents=True)
    database.mkdir(parents=True)
    shutil.copy(CATALOG, source)

    def journalctl(*arguments: str) -> str:
        done = subprocess.run(
            ["journalctl", f"--root={tmp_path}", *arguments], check=True, capture_output=True, text=True
        )
        assert not done.stderr
        return done.stdout

    journalctl("--update-catalog")
    assert len(journalctl("--list-catalog").splitlines()) == len(Event.__members__)
    assert "The server is ready" in journalctl("--dump-catalog", Event.READY.value)
