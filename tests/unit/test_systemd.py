import subprocess
import sys
from pathlib import Path
from typing import Final

import systemd
from systemd import daemon, journal

ROOT: Final = Path(__file__).parents[2]


def test_systemd_is_the_package_and_not_our_folder_of_units() -> None:
    assert systemd.__file__ is not None, "a namespace package: systemd-python is missing"
    assert not Path(systemd.__file__).is_relative_to(ROOT / "systemd")
    assert callable(daemon.notify)
    assert callable(journal.sendv)


def test_systemd_is_the_package_from_the_repositorys_root_too() -> None:
    program = "import systemd.daemon, systemd; print(systemd.__file__)"
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == str(systemd.__file__)
