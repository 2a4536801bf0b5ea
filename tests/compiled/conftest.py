"""The compiled package, built as a user builds it, and kept under build/ until the sources change."""

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "build" / "compiled"


@pytest.fixture(scope="session")
def site() -> Path:
    """A folder with the compiled package in it, for `PYTHONPATH`: before the editable install, which has the source."""
    digest = hashlib.sha256()
    for path in [*sorted((ROOT / "daemon").rglob("*.py")), ROOT / "pyproject.toml", ROOT / "tools/compile.py"]:
        digest.update(f"{path}\n".encode() + path.read_bytes())
    python = str(sysconfig.get_config_var("SOABI"))
    folder = KEPT / f"{python}-{digest.hexdigest()[:16]}"
    if not folder.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=KEPT) as temporary:
            build(Path(temporary))
            for old in KEPT.glob(f"{python}-*"):
                shutil.rmtree(old)
            Path(temporary, "site").rename(folder)
    return folder


def build(folder: Path) -> None:
    """Make the wheel, as docs/compiled.md says, and unpack it into `site`."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", f"--wheel-dir={folder}", str(ROOT)]
    done = subprocess.run(
        command,
        env=os.environ | {"HATCH_BUILD_HOOK_ENABLE_CUSTOM": "true"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [wheel] = folder.glob("*.whl")
    with ZipFile(wheel) as archive:
        archive.extractall(folder / "site")


@pytest.fixture
def compiled(site: Path) -> dict[str, str]:
    """The environment in which Python finds the compiled package; coverage of native code is none."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    return kept | {"PYTHONPATH": f"{site}"}
