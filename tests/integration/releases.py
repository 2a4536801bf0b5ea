"""Versions of appserver beside each other, and a symbolic link to the one that is installed."""

import shutil
import site
import sys
import venv
from pathlib import Path

from tests.integration.servers import ROOT

PACKAGE = ROOT / "daemon" / "appserver"


class Releases:
    """Copies of the package under `folder`, each in a folder of its own that is on PYTHONPATH by way of `current`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.current = folder / "current"

    def build(self, version: str, **texts: tuple[str, str]) -> Path:
        """Make a version; of a module, named with underscores for dots, a text may be replaced by another."""
        return self.copy(self._folder / version, version, **texts)

    def copy(self, folder: Path, version: str, **texts: tuple[str, str]) -> Path:
        """Copy the package into a folder, as another version."""
        package = folder / "appserver"
        if package.exists():
            shutil.rmtree(package)
        shutil.copytree(PACKAGE, package)
        replace(package / "__init__.py", '__version__ = "', f'__version__ = "{version}+')
        for module, (before, after) in texts.items():
            replace(package / (module.replace("_", "/", 1) + ".py"), before, after)
        return folder

    def install(self, version: str) -> None:
        """Let the link lead to a version, without a moment in which there is none."""
        new = self._folder / "next"
        new.symlink_to(self._folder / version)
        new.replace(self.current)

    def build_environment(self, version: str) -> Path:
        """Make a virtual environment with a version in it, whose scripts name their interpreter as pip writes it."""
        folder = self._folder / version
        venv.EnvBuilder(symlinks=True).create(folder)
        (packages,) = folder.glob("lib/python3*/site-packages")
        self.copy(packages, version)
        (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
        script = folder / "bin" / "appserver"
        program = "import sys\nfrom appserver.cli import main\nsys.exit(main())\n"
        script.write_text(f"#!{folder}/bin/{Path(sys.executable).name}\n{program}")
        script.chmod(0o755)
        return folder


def replace(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text, f"{path} has no {before!r}"
    path.write_text(text.replace(before, after, 1))
