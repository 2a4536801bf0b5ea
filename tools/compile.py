"""Build hook: compiles the modules that pyproject.toml lists with mypyc, from the source as it is.

hatchling runs it for a wheel where HATCH_BUILD_HOOK_ENABLE_CUSTOM is true, and never else (docs/compiled.md). What is
made on the way goes to a temporary folder: a native module left beside its source would be imported in its place.
"""

import sys
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE: Final = "daemon"

MYPY: Final = [
    "--config-file=",
    "--explicit-package-bases",
    # Types are checked by `make lint`, with everything installed: here only those of the listed modules matter, and
    # calls of other packages need none.
    "--follow-imports=silent",
    "--ignore-missing-imports",
    # But of a class whose base has no type mypyc forgets the base, without a word.
    "--disallow-subclassing-any",
]


class CompilingHook(BuildHookInterface[Any]):
    """Puts native modules into the wheel, beside their source, which tracebacks show."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before the wheel is put together; an editable install runs the source.

        Args:
            version: `standard` or `editable`.
            build_data: What hatchling knows of the wheel; see https://hatch.pypa.io/latest/plugins/builder/wheel/.
        """
        if version == "editable":
            return
        self._folder = TemporaryDirectory()
        built = Path(self._folder.name, "lib")
        with chdir(Path(self.root, SOURCE)):
            compile_modules(self.config["modules"], built, Path(self._folder.name, "temporary"))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"].update({str(path): str(path.relative_to(built)) for path in built.rglob("*.so")})

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """The wheel is written."""
        if version != "editable":
            self._folder.cleanup()


def compile_modules(modules: list[str], built: Path, temporary: Path) -> None:
    """Compile modules to one library and, for each, a file that Python finds under its name.

    Args:
        modules: Paths, from the working directory.
        built: Gets the library and the files.
        temporary: Gets what the compilers leave.

    Raises:
        SystemExit: mypy found an error.
    """
    from mypyc.build import mypycify  # noqa: PLC0415 - installed only where the hook is enabled
    from setuptools import Distribution  # noqa: PLC0415

    options = [*MYPY, f"--python-executable={sys.executable}", f"--cache-dir={temporary / 'mypy'}"]
    extensions = mypycify(
        [*options, *modules], target_dir=str(temporary / "c"), group_name="appserver", opt_level="3", debug_level="0"
    )
    command = Distribution({"ext_modules": extensions}).get_command_obj("build_ext")
    command.build_lib, command.build_temp = str(built), str(temporary / "objects")
    command.ensure_finalized()
    command.run()
