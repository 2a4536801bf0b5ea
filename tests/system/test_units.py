"""The unit files themselves."""

import re
from pathlib import Path

import pytest

from tests.system.machine import Machine
from tests.system.service import every_debian

UNITS = ("appserver.socket", "appserver.service", "appserver@shop.socket", "appserver@shop.service")
SYSTEMD = Path(__file__).parents[2] / "systemd"


@every_debian
def test_systemd_has_nothing_to_remark(machine: Machine) -> None:
    done = machine.attempt(["systemd-analyze", "verify", "--man=no", *UNITS])  # no man(1) is there
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    # Nor when it loads them: what it does not know it tells the journal.
    machine.run(["systemctl", "start", "appserver.socket", "appserver.service"])
    assert (
        machine.run("journalctl --quiet --grep 'Unknown key|Failed to parse|ignoring' --unit='appserver*' || true")
        == ""
    )


@every_debian
@pytest.mark.parametrize("unit", ["appserver.service", "appserver@shop.service"])
def test_the_sandbox_is_tight(machine: Machine, unit: str) -> None:
    verdict = machine.run(["systemd-analyze", "security", "--no-pager", unit]).splitlines()[-1]
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", verdict)
    assert found, verdict
    assert float(found[1]) <= 1.1


@pytest.mark.parametrize("kind", ["socket", "service"])
def test_plain_and_template_unit_say_the_same(kind: str) -> None:
    plain = _settings(SYSTEMD / f"appserver.{kind}")
    template = _settings(SYSTEMD / f"appserver@.{kind}")
    differing = {
        "Description": " of %i",
        "ExecStart": "only the template's configuration file has to exist",
    }
    same = [
        line.replace("appserver.socket", "appserver@%i.socket").replace("appserver/appserver", "appserver/%i")
        for line in plain
        if line.partition("=")[0] not in differing
    ]
    assert [line for line in template if line.partition("=")[0] not in differing] == same


def _settings(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
