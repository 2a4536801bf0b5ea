#!/usr/bin/env python3
"""Write what has bash, zsh and fish complete both programs, from the tables of settings and of commands.

    tools/generate_completions.py [FOLDER]

FOLDER is packaging/completions/ unless named; tests/integration/test_completions.py names another and compares.
"""

import re
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, Final

import shtab

from appserver.cli import add_version
from appserver.ctl import COMMANDS, PROGRAM, make_parser
from appserver.settings import command_line

COMPLETIONS: Final = Path(__file__).parents[1] / "packaging" / "completions"

PLACES: Final = {
    "bash": "bash-completion/completions/{}",
    "zsh": "zsh/vendor-completions/_{}",
    "fish": "fish/vendor_completions.d/{}.fish",
}
"""Where each shell looks below /usr/share, in Debian."""

KINDS: Final = {"PATH": shtab.FILE, "FOLDER": shtab.DIRECTORY, "APP": shtab.FILE}
"""What stands for a value in the help text, and what may be there."""


def main(folder: Path) -> None:
    """Write a file for each program and each shell."""
    for parser in (_server(), _control()):
        for shell, place in PLACES.items():
            path = folder / place.format(parser.prog)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_trim(shtab.complete(parser, shell=shell)), encoding="utf-8")


def _trim(text: str) -> str:
    """Leave out how to install it, which the package does, and white space at the ends of lines."""
    text = re.sub(r"^# Usage:\n(?:#.*\n)+", "", text, flags=re.MULTILINE)
    return re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)


def _server() -> ArgumentParser:
    parser = command_line()
    add_version(parser)
    _describe(parser)
    return parser


def _control() -> ArgumentParser:
    parser = ArgumentParser(prog=PROGRAM)
    add_version(parser)
    commands = parser.add_subparsers()
    for name, command in COMMANDS.items():
        one = commands.add_parser(name, help=command.help, parents=[make_parser(name)], add_help=False)
        _describe(one)
    return parser


def _describe(parser: ArgumentParser) -> None:
    """Say what values there are, which appserver itself reads by the kinds of its settings."""
    for action in parser._actions:  # noqa: SLF001 - argparse keeps no public list of them
        known: Any = action
        if isinstance(action.metavar, str):
            if "|" in action.metavar:
                known.choices = action.metavar.split("|")
            elif action.metavar in KINDS:
                known.complete = KINDS[action.metavar]


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else COMPLETIONS)
