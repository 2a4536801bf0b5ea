"""Budgets and what is held against them: budgets.toml, read, compared and written."""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

from appserver.wire.select import engines
from tests.budgets import calls, measure, memory, syscalls
from tests.budgets.measure import Measure

BUDGETS: Final = Path(__file__).with_name("budgets.toml")
PYTHON: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
COMMAND: Final = "python -m tests.budgets --write"

PROBES: Final[Mapping[str, tuple[Callable[[], list[str]], Callable[[], list[Measure]]]]] = {
    "calls": (calls.names, calls.probe),
    "memory": (memory.names, memory.probe),
    "syscalls": (syscalls.names, syscalls.probe),
}
"""Table of budgets.toml: the names of its measures, and what takes them."""

SLACK: Final = {"calls": 0.0, "memory": 0.02, "syscalls": 0.0}
"""By how much of its budget a measure may be above. Counts are exact; how full the tables of the allocator's and the
interpreter's own are differs by some bytes a connection."""

RATCHET: Final = 0.05
"""A measure that is further below its budget than this fails too: what was won is kept, and budgets do not rot."""

_ROOT: Final = Path(__file__).parents[2]
# What changes how Python runs; PYTHONPATH may be how the package is found.
_FOREIGN: Final = re.compile(r"COVERAGE_|APPSERVER_|PYTHON(?!PATH$)")


def take(kind: str, seed: int = 0) -> list[Measure]:
    """Run a probe in a process of its own, without the coverage, warnings and settings of this one.

    Args:
        kind: A key of `PROBES`.
        seed: Of that process's string hashes.

    Raises:
        RuntimeError: It failed.
    """
    environment = {name: text for name, text in os.environ.items() if not _FOREIGN.match(name)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.budgets", kind, "--json"],
        cwd=_ROOT,
        env={**environment, "PYTHONHASHSEED": str(seed)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"the probe of {kind} failed:\n{done.stderr}")
    return measure.load(done.stdout)


def read(kind: str) -> dict[str, float]:
    """The budgets of this version of Python by name; none where it has no table."""
    tables: dict[str, dict[str, dict[str, float]]] = tomllib.loads(BUDGETS.read_text())
    return tables.get(kind, {}).get(PYTHON, {})


def judge(kind: str, taken: Measure, budget: float) -> str | None:
    """What is wrong with a measure, in words for whoever has caused it; None when it is within its budget."""
    if taken.amount > budget * (1 + SLACK[kind]):
        parts = "".join(f"\n  {amount:8g} {part}" for part, amount in list(taken.parts.items())[:40])
        return (
            f"{kind}, {taken.name}: {taken.amount:g}, and the budget is {budget:g}. It consists of{parts}\n"
            f"`python -m tests.budgets {kind}` shows all, on the commit before too. If it is worth it: {COMMAND}"
        )
    if taken.amount < budget * (1 - RATCHET):
        return f"{kind}, {taken.name}: {taken.amount:g}. Lower the budget of {budget:g} to that: {COMMAND}"
    return None


def write(kind: str, taken: Sequence[Measure]) -> None:
    """Replace this version's table of a kind; those of other versions stay as they are."""
    libraries = ", ".join(f"{name} {number}" for name, number in [*engines().items(), ("uvloop", version("uvloop"))])
    header = f'[{kind}."{PYTHON}"]'
    lines = [f"{header} # {libraries}"]
    for entry in taken:
        comment = f" # {entry.describe()}" if entry.parts else ""
        lines.append(f"{json.dumps(entry.name)} = {entry.amount:g}{comment}")
    BUDGETS.write_text(replace_table(BUDGETS.read_text(), header, "\n".join(lines) + "\n"))


def replace_table(text: str, header: str, table: str) -> str:
    """Put a table where the one with its header stands; in order of the headers where there is none.

    Args:
        text: Of the file. What precedes the first table is kept.
        header: `[kind."3.13"]`.
        table: Its lines, the header included.
    """
    head, *tables = re.split(r"^(?=\[)", text, flags=re.MULTILINE)
    kept = [entry.rstrip("\n") + "\n" for entry in tables if not entry.startswith(header)]
    return head.rstrip("\n") + "\n\n" + "\n".join(sorted([*kept, table]))
