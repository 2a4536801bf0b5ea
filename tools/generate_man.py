#!/usr/bin/env python3
"""Write the manual pages from packaging/man/*.rst, with what they take from the code in the places of @NAMES@.

    tools/generate_man.py [FOLDER]

FOLDER is packaging/man/ unless named; tests/unit/test_man.py names another and compares.
"""

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Final

from docutils.core import publish_string

from appserver import __version__
from appserver.arguments import Command, Row
from appserver.ctl import COMMANDS
from appserver.remote import CONTROL, JSON
from appserver.settings import TABLE

MAN: Final = Path(__file__).parents[1] / "packaging" / "man"

Lines = Iterator[str]


def main(folder: Path) -> None:
    """Write all pages into a folder that exists."""
    for template in sorted(MAN.glob("*.rst")):
        text = re.sub("@([A-Z]+)@", lambda found: PARTS[found[1]](), template.read_text(encoding="utf-8"))
        # Nothing but what is printed: no marks for a web page, and an error for what docutils would put on the page.
        options = {"halt_level": 2, "output_encoding": "unicode", "generator": False, "smart_quotes": False}
        page = publish_string(text, writer="manpage", settings_overrides=options)
        (folder / template.stem).write_text(page.replace(".SH Name\n", ".SH NAME\n"), encoding="utf-8")


def options(rows: Iterable[Row] = TABLE) -> Lines:
    """A section for each group, an item for each option."""
    for group, members in groupby(rows, key=lambda row: row.group):
        yield from (group, "-" * len(group), "")
        for row in members:
            if row.positional:
                term = f"*{row.flags[0]}*"
            else:
                # As in the help: short first. Aliases are for those who come from elsewhere (docs/migration.md).
                canonical = next(flag for flag in row.flags if flag.startswith("--"))
                shown = [*(flag for flag in row.flags if not flag.startswith("--")), canonical]
                shown += [f"--no-{canonical.removeprefix('--')}"] if row.kind.switch else []
                value = f" *{_escape(row.kind.metavar)}*" if row.kind.metavar else ""
                term = ", ".join(f"**{flag}**{value}" for flag in shown)
            yield from (term, f"    {_escape(row.help)}.{_default(row)}", "")


def keys(rows: Iterable[Row] = TABLE) -> Lines:
    """A section for each group, an item for each key."""
    for group, members in groupby((row for row in rows if row.name != "config"), key=lambda row: row.group):
        yield from (group.upper(), "=" * len(group), "")
        for row in members:
            kind = row.kind
            marks = [_type(row), *([] if row.reload else ["*restart*"])]
            expected = _escape(kind.expected.removeprefix("expected "))
            yield f"**{row.name}** ({', '.join(marks)})"
            yield f"    {_escape(row.help)}.{_default(row, ('true', 'false'))}"
            if not kind.switch and expected != "a path" and expected not in _escape(row.help):
                yield from ("", f"    Expected: {expected}.")
            yield ""


def _type(row: Row) -> str:
    names = {bool: "boolean", int: "integer", float: "float"}
    types = ["array of strings"] if row.kind.many else []
    types += ["string"] if row.kind.text else []
    types += [names[native] for native in row.kind.native]
    return " or ".join(types)


def _default(row: Row, switch: tuple[str, str] = ("on", "off")) -> str:
    if row.kind.switch:
        return f" Default: {switch[not row.default]}."
    if row.default in (None, "", ()):
        return ""
    return f" Default: **{_escape(row.kind.show(row.default))}**."


def variables(rows: Iterable[Row] = TABLE) -> Lines:
    """Those of other programs."""
    for row in rows:
        for name in row.variables[1:]:
            yield from (f"**{name}**", f"    Read where **{row.variables[0]}** is not set.", "")


def commands(known: Mapping[str, Command] = COMMANDS) -> Lines:
    """An item for each command of appserverctl."""
    for name, command in known.items():
        words = " [*OPTIONS*] [*APP*]" if command.settings else ""
        for option, how in command.options:
            if option.startswith("--"):
                words += f" [**{option}**{' *' + how['metavar'] + '*' if 'metavar' in how else ''}]"
            else:
                words += {"+": " *{0}*...", "?": " [*{0}*]"}[how["nargs"]].format(how["metavar"])
        yield f"**{name}**{words}"
        told = "".join(
            f" *{how['metavar']}*: {_escape(how['help'][0].lower() + how['help'][1:])}."
            for option, how in command.options
            if not option.startswith("--")
        )
        yield from (f"    {_escape(command.help)}.{told}", "")


def command_options() -> Lines:
    """An item for each option that commands share."""
    for flag, how in (CONTROL, JSON):
        value = f" *{how['metavar']}*" if "metavar" in how else ""
        yield from (f"**{flag}**{value}", f"    {_escape(str(how['help']))}.", "")


def _escape(text: str) -> str:
    return re.sub(r"([\\*`|_])", r"\\\1", text)


def _joined(lines: Callable[[], Lines]) -> Callable[[], str]:
    return lambda: "\n".join(lines())


PARTS: Final[Mapping[str, Callable[[], str]]] = {
    "VERSION": lambda: f"appserver {__version__}",
    "OPTIONS": _joined(options),
    "KEYS": _joined(keys),
    "VARIABLES": _joined(variables),
    "COMMANDS": _joined(commands),
    "SHARED": _joined(command_options),
}

if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else MAN)
