"""A real circusd with packaging/circus/appserver.ini as it is: port 8000, /srv/shop, user www-data.

circusd itself holds the socket, so that neither of its ways to restart loses a request:
what comes while no process runs waits in the backlog.
"""

import json
import pwd
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.isolation import Isolation, Load, find_processes, requires_root, wait_until_served
from tests.integration.servers import ROOT, SCRIPTS

pytestmark = requires_root

PACKAGED = ROOT / "packaging" / "circus" / "appserver.ini"
URL = "http://127.0.0.1:8000"
PROCESSES = 4


@pytest.fixture
def circus(tmp_path: Path) -> Iterator[Isolation]:
    log = tmp_path / "log"
    with Isolation("/srv", folders=["/srv/shop"], applications="/srv/shop") as inside:
        with inside.running(SCRIPTS / "circusd", PACKAGED, output=log):
            wait_until_served(inside, f"{URL}/whoami")
            yield inside
        # Circus itself tells one when it has to look at its watchers while it stops.
        tracebacks = log.read_text().split("Traceback")[1:]
        assert [one for one in tracebacks if "circus.exc.ConflictError" not in one] == []


def control(inside: Isolation, *words: str) -> dict[str, object]:
    """What circusctl says."""
    told: dict[str, object] = json.loads(inside.run(SCRIPTS / "circusctl", "--json", *words).stdout)
    assert told["status"] == "ok"
    return told


def processes(inside: Isolation) -> tuple[set[int], set[int]]:
    # Each request keeps its process to itself for a moment, so that the others get some too.
    return find_processes(inside, PROCESSES, f"{URL}/block?seconds=0.02")


def test_all_four_answer_as_the_user_that_is_named(circus: Isolation) -> None:
    pids, users = processes(circus)
    assert len(pids) == PROCESSES
    assert users == {pwd.getpwnam("www-data").pw_uid}


@pytest.mark.parametrize("way", ["restart", "reload"])
def test_neither_way_to_restart_loses_a_request(way: str, circus: Isolation) -> None:
    before, _ = processes(circus)
    with Load(circus, f"{URL}/whoami") as load:
        control(circus, way, "appserver", "--waiting")
    after, _ = processes(circus)
    assert len(after) == PROCESSES
    assert not before & after
    assert load.lost == {}
    assert load.answered > 100


def test_they_stop_and_start_again(circus: Isolation) -> None:
    before, _ = processes(circus)
    control(circus, "stop", "appserver", "--waiting")
    assert not any(Path(f"/proc/{pid}").exists() for pid in before)
    control(circus, "start", "appserver", "--waiting")
    after, _ = processes(circus)
    assert len(after) == PROCESSES
