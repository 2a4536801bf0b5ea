"""The command line, built from the rows of the settings table."""

import argparse
from argparse import SUPPRESS, ArgumentError, ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from appserver.errors import Exit, UsageError
from appserver.kinds import Kind, nearest

_GIVEN: Final = "given"


@dataclass(frozen=True, slots=True)
class Row:
    """One setting, as the command line, the environment, the file and the help text know it."""

    name: str
    """The field of `Settings`, and the key in the file."""
    default: Any
    kind: Kind[Any]
    flags: tuple[str, ...]
    """The canonical flag first, then aliases, which the help text leaves out; the positional has `APP`."""
    group: str
    help: str
    reload: bool
    variables: tuple[str, ...]
    """Environment variables, ours first."""

    @property
    def positional(self) -> bool:
        """True for the one setting that needs no flag."""
        return not self.flags[0].startswith("-")


@dataclass(frozen=True, slots=True)
class Given:
    """One occurrence of a setting on the command line."""

    name: str
    flag: str
    text: str


@dataclass(frozen=True, slots=True)
class Command:
    """One of the commands of a program that has several."""

    help: str
    """One sentence, without a full stop."""
    run: Callable[[Namespace], Exit]
    """Takes what `read` has read."""
    options: Sequence[tuple[str, Mapping[str, Any]]] = ()
    """Those of its own, as `ArgumentParser.add_argument` takes them."""
    settings: bool = False
    """Whether it takes the settings, too."""


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print with the whole usage in front."""
        raise UsageError("command line", None, message)


class _Record(argparse.Action):
    """Keep the flag as it was typed: an error names it, and `appserverctl config` shows it."""

    def __call__(
        self, parser: ArgumentParser, namespace: Namespace, values: object, option_string: str | None = None
    ) -> None:
        del parser
        if values is None:  # argparse calls the optional positional's action when it is absent, too
            return
        flag = option_string or str(self.metavar)
        text = str(values) if self.nargs != 0 else str(not flag.startswith("--no-"))
        namespace.__dict__.setdefault(_GIVEN, []).append(Given(self.dest, flag, text))


def make_parser(prog: str, description: str, **others: Any) -> ArgumentParser:
    """Make a parser without settings, whose errors are `UsageError`."""
    # An abbreviation in somebody's unit would break when a flag is added.
    return _Parser(prog=prog, description=description, allow_abbrev=False, exit_on_error=False, **others)


def build(rows: Sequence[Row], prog: str, description: str) -> ArgumentParser:
    """Build a parser that records what was given, as text, and leaves its meaning to the rows' kinds."""
    parser = make_parser(
        prog,
        description,
        usage="%(prog)s [OPTIONS] [APP]",
        epilog="Every setting is also an environment variable (--log-level: APPSERVER_LOG_LEVEL) and a key of the"
        " TOML file (log_level). A flag goes before the environment, the environment before the file.",
    )
    groups: dict[str, Any] = {}
    for row in rows:
        group = groups.get(row.group) or groups.setdefault(row.group, parser.add_argument_group(row.group))
        help_text = _help(row)
        if row.positional:
            group.add_argument(row.name, metavar=row.flags[0], nargs="?", action=_Record, default=None, help=help_text)
            continue
        shorts = [flag for flag in row.flags if not flag.startswith("--")]
        canonical, *aliases = [flag for flag in row.flags if flag.startswith("--")]
        for flags, shown in (([*shorts, canonical], help_text), (aliases, SUPPRESS)):
            if row.kind.switch:
                flags += [f"--no-{flag.removeprefix('--')}" for flag in flags]
            if flags:
                group.add_argument(
                    *flags,
                    dest=row.name,
                    action=_Record,
                    nargs=0 if row.kind.switch else None,
                    metavar=row.kind.metavar or None,
                    default=SUPPRESS,
                    help=shown,
                )
    return parser


def read(parser: ArgumentParser, argv: Sequence[str]) -> Namespace:
    """Parse a command line.

    Returns:
        What flags other than the rows' set, and as `given` the occurrences of the rows' in order.

    Raises:
        UsageError: An unknown option, a missing value, a second positional.
        SystemExit: After `--help`.
    """
    try:
        namespace, unknown = parser.parse_known_args(list(_joined(parser, argv)))
    except ArgumentError as error:
        raise UsageError(error.argument_name or "command line", None, error.message) from None
    if unknown:
        flag = unknown[0].partition("=")[0]
        if flag.startswith("-") and flag != "-":
            raise UsageError(flag, None, "unknown option", _meant(flag, _flags(parser)))
        takes = any(not action.option_strings for action in parser._actions)  # noqa: SLF001 - as in _flags()
        raise UsageError("command line", unknown[0], f"expected {'one APP and ' if takes else ''}no other argument")
    namespace.__dict__.setdefault(_GIVEN, [])
    return namespace


def _joined(parser: ArgumentParser, argv: Sequence[str]) -> Iterator[str]:
    """Join a value that begins with a hyphen to its flag, which is how argparse takes it.

    `--config -/etc/appserver/appserver.toml` needs it: the hyphen marks a file that may be missing.
    """
    valued, known = _flags(parser, valued=True), _flags(parser)
    words = iter(argv)
    for word in words:
        if word == "--":
            yield word
            break
        value = next(words, None) if word in valued else None
        if value is None:
            yield word
        elif value.startswith("-") and value != "-" and value not in known:
            yield f"{word}={value}" if word.startswith("--") else f"{word}{value}"
        else:
            yield from (word, value)
    yield from words


def _meant(flag: str, known: Iterable[str]) -> str | None:
    """Which option was meant, without the hyphens, which make any two alike.

    Not less alike than this: by another server's option, as `--chdir`, none of ours is meant (docs/migration.md).
    """
    names = {other.lstrip("-"): other for other in known if other.startswith("--")}
    return names.get(nearest(flag.lstrip("-"), names, 0.75) or "")


def _flags(parser: ArgumentParser, *, valued: bool = False) -> set[str]:
    # argparse keeps no public list of its actions; this one has been the same since Python 2.7.
    actions = parser._actions  # noqa: SLF001
    return {flag for action in actions if not valued or action.nargs is None for flag in action.option_strings}


def _help(row: Row) -> str:
    default = row.kind.show(row.default) if row.default else ""
    text = f"{row.help} (default: {default})" if default else row.help
    return text.replace("%", "%%")  # argparse formats it
