"""What the tests do to appserver.service: configure it, ask it, read its journal."""

import json
import os
import shlex
from time import monotonic
from typing import Any, Final

import pytest

from tests.system.machine import Machine

SERVICE: Final = "appserver.service"
SOCKET: Final = "/run/appserver/appserver.sock"
CONTROL: Final = "/run/appserver/appserver/control.sock"

every_debian = pytest.mark.parametrize("machine", ["trixie", "bookworm"], indirect=True)
"""Run the test on both releases; without it, on Debian 13."""


def configure(machine: Machine, text: str, name: str = "appserver") -> None:
    """Write a configuration file that serves from /srv/shop."""
    machine.write(f"/etc/appserver/{name}.toml", f'app_dir = "/srv/shop"\n{text}\n')


def override(machine: Machine, text: str, unit: str = SERVICE) -> None:
    """Do what `systemctl edit` does: a drop-in, then daemon-reload."""
    machine.write(f"/etc/systemd/system/{unit}.d/test.conf", text)
    machine.run("systemctl daemon-reload")


def serve_probe(machine: Machine, text: str = "") -> None:
    """Have the socket unit listen for the application of apps/probe.py; the service is not started by that."""
    configure(machine, f'app = "probe:app"\n{text}')
    machine.run("systemctl start appserver.socket")


def get(machine: Machine, target: str = "/", socket: str = SOCKET, *options: str) -> str:
    """GET over a UNIX socket in the machine, with curl; the body."""
    words = ["curl", "--silent", "--show-error", "--fail-with-body", "--unix-socket", socket, *options]
    host = "localhost" if "control" in socket else "shop.example"  # the operator's takes no name of others
    return machine.run([*words, f"http://{host}{target}"])


def get_json(machine: Machine, target: str = "/", socket: str = SOCKET, *options: str) -> dict[str, Any]:
    """As `get()`, for a body that is a JSON object."""
    found: dict[str, Any] = json.loads(get(machine, target, socket, *options))
    return found


def status_of(machine: Machine, target: str) -> int:
    """The status code of a GET."""
    words = ["curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}", "--unix-socket", SOCKET]
    return int(machine.run([*words, f"http://shop.example{target}"]))


def records(machine: Machine, *matches: str, patience: float = 20.0) -> list[dict[str, Any]]:
    """Records of the journal, oldest first: `journalctl -o json`. Access records come a little after the answer."""
    lines = ""
    end = monotonic() + patience
    while not lines and monotonic() < end:
        lines = machine.run("journalctl --quiet --output=json " + " ".join(map(shlex.quote, matches)))
    return [json.loads(line) for line in lines.splitlines()]


def main_pid(machine: Machine, unit: str = SERVICE) -> int:
    """The main process as the machine numbers it; 0 when there is none."""
    return int(machine.property(unit, "MainPID"))


def memory_kib(machine: Machine, unit: str = SERVICE) -> int:
    """Resident memory of the main process in KiB."""
    text = machine.run(["cat", f"/proc/{main_pid(machine, unit)}/status"])
    fields = dict(line.split(":", 1) for line in text.splitlines())
    return int(fields["VmRSS"].split()[0])


def host_path(machine: Machine, socket: str = SOCKET) -> str:
    """The socket's path for a client on the host."""
    return os.fspath(machine.path(socket))
