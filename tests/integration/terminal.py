"""A real terminal: tmux, of its own server, with one window."""

import shlex
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Final

from tests.integration.servers import PATIENCE, clean_environment
from tests.integration.workers import eventually

STARTING: Final = 2 * PATIENCE

_numbers: Final = count()


class Terminal:
    """One window; what is in it, and its keys."""

    def __init__(self, socket: Path) -> None:
        self._tmux = ["tmux", "-S", str(socket), "-f", "/dev/null"]

    def tmux(self, *words: str) -> str:
        done = subprocess.run(
            [*self._tmux, *words],
            check=True,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env=clean_environment(LC_ALL="C.UTF-8"),
        )
        return done.stdout

    @property
    def screen(self) -> list[str]:
        return self.tmux("capture-pane", "-p").splitlines()

    def until(self, condition: Callable[[list[str]], bool], what: str) -> list[str]:
        """Wait until the screen is so."""
        return eventually(lambda: screen if condition(screen := self.screen) else None, what, STARTING)

    def shows(self, text: str) -> list[str]:
        """Wait for a text."""
        return self.until(lambda screen: any(text in line for line in screen), f"{text!r} on the screen")

    def press(self, *keys: str) -> None:
        self.tmux("send-keys", "--", *keys)  # a text may begin with a hyphen

    def resize(self, width: int, height: int) -> None:
        self.tmux("resize-window", "-x", str(width), "-y", str(height))


@contextmanager
def running(
    folder: Path, command: Sequence[str], width: int = 80, height: int = 24, **variables: str
) -> Iterator[Terminal]:
    """A terminal in which a command runs; its exit code is shown behind it."""
    terminal = Terminal(folder / f"tmux{next(_numbers)}")
    given = "".join(f"{name}={shlex.quote(value)} " for name, value in variables.items())
    program = f"{given}{shlex.join(command)}; echo ended with $?; cat"
    terminal.tmux("new-session", "-d", "-x", "80", "-y", "24", f"sh -c {shlex.quote(program)}")
    try:
        yield terminal
    finally:
        terminal.tmux("kill-server")
