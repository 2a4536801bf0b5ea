"""A real supervisord with packaging/supervisor/appserver.conf as it is: port 8000, /srv/shop, user www-data.

What its commands do to requests:
- one process after the other (`restart appserver:appserver-0`, …): nothing is lost, the others accept meanwhile;
- all at once (`restart appserver:*`): supervisord stops all four before it starts the first, and closes the port once
  nobody uses it. What had reached a process is answered; what still waits in the backlog then, and what comes before
  the port is open again, is refused or reset.
"""

import pwd
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.isolation import Isolation, Load, find_processes, requires_root, wait_until_served
from tests.integration.servers import PATIENCE, ROOT, SCRIPTS

pytestmark = requires_root

PACKAGED = ROOT / "packaging" / "supervisor" / "appserver.conf"
URL = "http://127.0.0.1:8000"
PROCESSES = 4

# Around the packaged file only what /etc/supervisor/supervisord.conf has, with the paths of the test.
CONFIGURATION = """
[supervisord]
nodaemon = true
user = root
environment = {environment}
logfile = {folder}/supervisord.log
pidfile = {folder}/supervisord.pid
childlogdir = {folder}
[unix_http_server]
file = {folder}/supervisor.sock
[supervisorctl]
serverurl = unix://{folder}/supervisor.sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[include]
files = {packaged}
"""


@dataclass(frozen=True)
class Supervisor:
    inside: Isolation
    folder: Path

    def control(self, *words: str) -> str:
        """What supervisorctl says."""
        return self.inside.run(SCRIPTS / "supervisorctl", "-c", self.folder / "supervisord.conf", *words).stdout

    @property
    def log(self) -> str:
        return (self.folder / "supervisord.log").read_text()

    def find_processes(self) -> tuple[set[int], set[int]]:
        # Each request keeps its process to itself for a moment, so that the others get some too.
        return find_processes(self.inside, PROCESSES, f"{URL}/block?seconds=0.02")


@pytest.fixture
def supervisor(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Supervisor]:
    """The parameter, if any, is the environment of all processes: settings beside the packaged file's."""
    file = tmp_path / "supervisord.conf"
    environment = getattr(request, "param", "")
    file.write_text(CONFIGURATION.format(folder=tmp_path, packaged=PACKAGED, environment=environment))
    folders = ["/srv/shop", "/var/log/supervisor"]
    with Isolation("/srv", "/var/log", folders=folders, applications="/srv/shop") as inside:
        with inside.running(SCRIPTS / "supervisord", "-c", file, output=tmp_path / "output"):
            wait_until_served(inside, f"{URL}/whoami")
            yield Supervisor(inside, tmp_path)
        logs = [f"/var/log/supervisor/appserver-{number}.log" for number in range(PROCESSES)]
        assert "Traceback" not in inside.run("cat", *logs).stdout


def test_all_four_answer_as_the_user_that_is_named(supervisor: Supervisor) -> None:
    pids, users = supervisor.find_processes()
    assert len(pids) == PROCESSES
    assert users == {pwd.getpwnam("www-data").pw_uid}


def test_they_stop_cleanly_and_start_again(supervisor: Supervisor) -> None:
    before, _ = supervisor.find_processes()
    supervisor.control("stop", "appserver:*")
    assert re.findall(r"stopped: appserver-\d \((.*)\)", supervisor.log) == ["exit status 0"] * PROCESSES
    supervisor.control("start", "appserver:*")
    after, _ = supervisor.find_processes()
    assert len(after) == PROCESSES
    assert not before & after


def test_a_process_that_is_killed_is_replaced_and_the_others_serve_on(supervisor: Supervisor) -> None:
    before, _ = supervisor.find_processes()
    victim = min(before)
    # Nobody is asked meanwhile: what a killed process has in hand is lost with any server.
    supervisor.inside.run("kill", "-KILL", str(victim))
    after, _ = supervisor.find_processes()
    assert len(after) == PROCESSES
    assert len(after & before) == PROCESSES - 1


@pytest.mark.parametrize("supervisor", ["APPSERVER_MAX_REQUESTS=200"], indirect=True)
def test_processes_that_have_answered_their_share_are_started_again(supervisor: Supervisor) -> None:
    before, _ = supervisor.find_processes()
    # What ends before is a failed start to supervisord.
    end = time.monotonic() + PATIENCE
    while supervisor.control("status").count("RUNNING") < PROCESSES:
        assert time.monotonic() < end, supervisor.log
        time.sleep(0.1)
    with Load(supervisor.inside, f"{URL}/whoami") as load:
        end = time.monotonic() + PATIENCE
        while len(set(re.findall(r"exited: (appserver-\d) \(exit status 0; expected\)", supervisor.log))) < PROCESSES:
            assert time.monotonic() < end, supervisor.log
            time.sleep(0.1)
    after, _ = supervisor.find_processes()
    assert len(after) == PROCESSES
    assert not before & after
    assert not [how for how in load.lost if how.startswith("cut")]


def test_a_restart_of_one_after_the_other_loses_nothing(supervisor: Supervisor) -> None:
    before, _ = supervisor.find_processes()
    with Load(supervisor.inside, f"{URL}/whoami") as load:
        for number in range(PROCESSES):
            supervisor.control("restart", f"appserver:appserver-{number}")
    after, _ = supervisor.find_processes()
    assert not before & after
    assert load.lost == {}
    assert load.answered > 100


def test_a_restart_of_all_at_once_cuts_nothing_that_had_begun(supervisor: Supervisor) -> None:
    before, _ = supervisor.find_processes()
    with Load(supervisor.inside, f"{URL}/whoami") as load:
        supervisor.control("restart", "appserver:*")
    after, _ = supervisor.find_processes()
    assert len(after) == PROCESSES
    assert not before & after
    assert not [how for how in load.lost if how.startswith("cut")]
    stops = re.findall(r"stopped: appserver-\d \((.*)\)", supervisor.log)
    assert stops == ["exit status 0"] * PROCESSES
