"""The unit, contract and conformance tests on the oldest versions that appserver supports: those of Debian 12."""

import subprocess
from pathlib import Path

import pytest

from tests.system.machine import Machine

ROOT = Path(__file__).parents[2]
SECONDS = 900
"""It takes 100 with two processors, and has taken 400 where others wanted them too."""


@pytest.mark.timeout(SECONDS + 600)
@pytest.mark.parametrize("machine", ["bookworm"], indirect=True)
def test_the_oldest_versions(machine: Machine) -> None:
    versions = machine.run(["appserver", "--version"])
    assert "Python 3.11" in versions
    sources = subprocess.run(
        ["tar", "--create", "--exclude=__pycache__", "pyproject.toml", "tests", "systemd", "docs", "README.md"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    machine.run("mkdir /srv/checkout && tar --extract --directory=/srv/checkout", stdin=sources)
    # The installed package, not daemon/, is what is imported.
    done = machine.attempt(
        "cd /srv/checkout && python3 -m pytest -q -n auto tests/unit tests/contract tests/conformance"
        " -k 'not plain- and not tls-' 2>&1",
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout.decode()[-6000:]
