"""Where the values of settings come from: the command line, the environment, a file of variables, a TOML file.

A source is a function from a row of the settings table to what it has for it. `pick` asks sources in order of
precedence and reads the first answer by the row's kind.
"""

import io
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from appserver.arguments import Given, Row
from appserver.errors import UsageError
from appserver.kinds import UnfitError, nearest

PREFIX: Final = "APPSERVER_"
# What Kubernetes and Docker links set for a Service that is named appserver; APPSERVER_PORT itself is in `_explain`.
_INJECTED: Final = re.compile(r"APPSERVER_(?:SERVICE_(?:HOST|PORT(?:_\w+)?)|PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_\w+)?)")


@dataclass(frozen=True, slots=True)
class Found:
    """What a source has for one setting."""

    raws: Sequence[Any]
    """Each occurrence, in order; never empty."""
    place: str
    """Where it stands, as an error names it."""
    origin: str
    """Where it stands, as `Loaded.origins` names it."""
    native: bool = False
    """The values have TOML's types; else they are text."""


Source: TypeAlias = Callable[[Row], Found | None]


def pick(row: Row, *sources: Source) -> tuple[Any, str]:
    """Take a setting's value from the first source that has it, or its default.

    Returns:
        The value, and its origin in words.

    Raises:
        UsageError: The value cannot be taken.
    """
    found = next((found for source in sources if (found := source(row)) is not None), None)
    if found is None:
        return row.default, "default"
    read = row.kind.read if found.native else row.kind.parse
    values = []
    for raw in found.raws:
        try:
            values.append(read(raw))
        except UnfitError as error:
            expected = error.expected or row.kind.expected
            shown = None if row.kind.secret else raw
            raise UsageError(found.place, shown, expected + _hint(found.place, raw), error.nearest) from None
    return row.kind.join(values), found.origin


def _hint(place: str, raw: object) -> str:
    # Kubernetes sets NAME_PORT for every Service of the namespace, in the form of Docker's links.
    if place == "APPSERVER_PORT" and isinstance(raw, str) and re.match(r"(?:tcp|udp|sctp)://", raw):
        return "; Kubernetes sets this for a Service named appserver: put `enableServiceLinks: false` in the pod"
    return ""


def from_flags(given: Sequence[Given]) -> Source:
    """Make a source of what stood on the command line."""

    def find(row: Row) -> Found | None:
        mine = [item for item in given if item.name == row.name]
        # Without `many` the last one wins, and the others are not looked at.
        mine = mine if row.kind.many else mine[-1:]
        return Found([item.text for item in mine], mine[-1].flag, f"flag {mine[-1].flag}") if mine else None

    return find


def from_environment(environ: Mapping[str, str], path: str = "") -> Source:
    """Make a source of environment variables; `path` is the file that they stand in, if it is one."""

    def find(row: Row) -> Found | None:
        for name in row.variables:
            if name in environ:
                place = f"{path}: {name}" if path else name
                return Found([environ[name]], place, f"environment {name}" + (f" ({path})" if path else ""))
        return None

    return find


def from_file(table: Mapping[str, Any], path: str) -> Source:
    """Make a source of the keys of a TOML file."""

    def find(row: Row) -> Found | None:
        if row.name not in table:
            return None
        return Found([table[row.name]], f"{path}: {row.name}", f"file {path}", native=True)

    return find


def unknown_variables(environ: Mapping[str, str], known: Collection[str]) -> Iterator[str]:
    """Say which `APPSERVER_*` variables mean nothing; no error, since the environment is not ours alone."""
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in known and not _INJECTED.fullmatch(name):
            # Without the prefix, which would make any two names alike.
            meant = nearest(name.removeprefix(PREFIX), (other.removeprefix(PREFIX) for other in known))
            yield f"environment {name}: unknown, ignored" + (f"; did you mean {PREFIX}{meant}?" if meant else "")


def read_toml(path: str | None, known: Iterable[str]) -> tuple[dict[str, Any], str]:
    """Read a TOML file of settings.

    Args:
        path: The file; after a hyphen it may be missing.
        known: The keys that it may have.

    Returns:
        Its keys with their values, and the path without the hyphen.

    Raises:
        UsageError: It cannot be read, is not TOML, or has an unknown key.
    """
    if path is None:
        return {}, ""
    import tomllib  # noqa: PLC0415 - 4 ms that a start without a file need not pay

    text, path = _read(path)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # Its one message without a place: "at end of document".
        reason = str(error).replace("end of document", _place(text, len(text)))
        raise UsageError(path, None, f"is not TOML: {reason}") from None
    except (ValueError, RecursionError) as error:
        # A number of more digits than int() takes; arrays in arrays in arrays.
        reason = str(error).partition(";")[0]  # what follows is advice for who can change the program
        raise UsageError(path, None, f"cannot be read: {reason}") from None
    names = set(known)
    for key, value in table.items():
        if key not in names and isinstance(value, dict):
            raise UsageError(f"{path}: [{key}]", None, "unknown table: expected keys alone, before any table")
        if key not in names:
            raise UsageError(f"{path}: {key}", None, "unknown key", nearest(key.lower().replace("-", "_"), names, 0.75))
    return table, path


def read_variables(path: str | None) -> tuple[dict[str, str], str]:
    """Read a file of environment variables, as python-dotenv reads it.

    Returns:
        The variables, and the path without the hyphen.

    Raises:
        UsageError: It cannot be read, or has what no environment can hold.
    """
    if path is None:
        return {}, ""
    from dotenv import dotenv_values  # noqa: PLC0415 - 5 ms, as above
    from dotenv.parser import parse_stream  # noqa: PLC0415

    text, path = _read(path)
    for binding in parse_stream(io.StringIO(text)):
        if binding.error:  # which dotenv_values would leave out; not shown, since it may be a secret
            said = binding.original.string
            line = binding.original.line + said[: len(said) - len(said.lstrip())].count("\n")
            raise UsageError(f"{path}: line {line}", None, "expected NAME=value")
    values = {name: value for name, value in dotenv_values(stream=io.StringIO(text)).items() if value is not None}
    for name, value in values.items():
        # What putenv(3) and execve(2) cannot take: `'A=B'=x` is a name for python-dotenv.
        if "=" in name or "\0" in name:
            raise UsageError(path, name, "expected a name without = and without NUL")
        if "\0" in value:
            raise UsageError(f"{path}: {name}", None, "expected a value without NUL")  # which may be a secret
    return values, path


def _read(path: str) -> tuple[str, str]:
    """Read a text file, which may be missing if its path begins with a hyphen, as in systemd's EnvironmentFile=."""
    optional, path = path.startswith("-"), path.removeprefix("-")
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        if optional and isinstance(error, FileNotFoundError):
            return "", path
        raise UsageError(path, None, f"cannot be read: {error.strerror}") from error
    try:
        return data.decode(), path
    except UnicodeDecodeError as error:
        place = _place(data[: error.start].decode(), error.start)
        raise UsageError(path, None, f"is not UTF-8 (at {place})") from None


def _place(text: str, offset: int) -> str:
    before = text[:offset]
    return f"line {before.count(chr(10)) + 1}, column {len(before) - before.rfind(chr(10))}"
