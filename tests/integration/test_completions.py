"""What shells complete, typed into them."""

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.integration.servers import ROOT
from tests.integration.terminal import running

COMPLETIONS: Final = ROOT / "packaging" / "completions"

SHELLS: Final = {
    "bash": [
        "bash --norc --noprofile -i",
        "PS1='$ '; . {0}/bash-completion/completions/appserver; . {0}/bash-completion/completions/appserverctl",
    ],
    "zsh": [
        "zsh -f -i",
        "PS1='$ '; fpath=({0}/zsh/vendor-completions $fpath); autoload -Uz compinit; compinit -u -d dump",
    ],
    "fish": [
        "fish --no-config",
        "function fish_prompt; echo '$ '; end; for one in {0}/fish/vendor_completions.d/*; source $one; end",
    ],
}


def test_what_is_generated_is_fresh(tmp_path: Path) -> None:
    def read(folder: Path) -> dict[str, str]:
        return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}

    subprocess.run([sys.executable, ROOT / "tools" / "generate_completions.py", tmp_path], check=True)
    assert read(COMPLETIONS) == read(tmp_path), "run tools/generate_completions.py"


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes_options_their_values_files_and_commands(shell: str, tmp_path: Path) -> None:
    (tmp_path / "settings.toml").touch()
    command, setup = SHELLS[shell]
    with running(tmp_path, ["sh", "-c", f"cd {tmp_path} && exec {command}"], HOME=str(tmp_path)) as terminal:
        terminal.press(setup.format(COMPLETIONS) + "; clear; echo re''ady", "Enter")
        terminal.shows("ready")
        terminal.press("appserver --graceful-t", "Tab")
        terminal.shows("appserver --graceful-timeout")
        terminal.press("3 --log-level deb", "Tab")
        terminal.shows("--log-level debug")
        terminal.press("--config sett", "Tab")
        terminal.shows("--config settings.toml")
        terminal.press("C-c")
        terminal.press("appserverctl restart-w", "Tab")
        terminal.shows("appserverctl restart-worker")
        terminal.press("C-c")
        terminal.press("appserverctl connec", "Tab")
        terminal.shows("appserverctl connections")
        terminal.press("--js", "Tab")
        terminal.shows("appserverctl connections --json")
