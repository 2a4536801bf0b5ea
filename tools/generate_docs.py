#!/usr/bin/env python3
"""Write what the documentation takes from the code: docs/settings.md and docs/states.md.

    tools/generate_docs.py [FOLDER]

FOLDER is docs/ unless named; tests/unit/test_docs.py names another and compares.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from appserver.arguments import Row
from appserver.asgi import lifespan, transitions, websocket_transitions
from appserver.kinds import Kind
from appserver.process import policy
from appserver.settings import TABLE

DOCS: Final = Path(__file__).parents[1] / "docs"

SETTINGS_HEAD: Final = """\
# Settings

<!-- Written by tools/generate_docs.py from the settings table. Change daemon/appserver/settings.py instead. -->

A setting can be given in four places. The first one that has it wins:

1. a flag: `--log-level debug`;
2. an environment variable, `APPSERVER_` and the key in capitals: `APPSERVER_LOG_LEVEL=debug`;
3. a key of the TOML file that `--config` names: `log_level = "debug"`;
4. the default.

`appserverctl config` takes the same arguments as `appserver` and shows every value with the place it came from.
`--config` and `--env-file` cannot stand in the files that they name.

Sizes are bytes. The suffixes K, M, G and T are powers of 1024. Times are seconds, or have a unit: `500ms`, `10min`,
`2h`. Where a flag may be repeated, the variable and the file take the values in one: a TOML array, or a string with
commas between (for `header`: with line feeds between). In an array a path is taken whole: it may have commas in it.

An unknown flag or key is an error. An unknown `APPSERVER_*` variable is a warning in the log.
"""

COLUMNS: Final = """\
| Key | Flags | Value | In TOML | Default | Meaning |
|---|---|---|---|---|---|
"""

STATES_HEAD: Final = """\
# State tables

<!-- Written by tools/generate_docs.py from the tables. Change the code instead. -->

Each diagram shows a table in the code. A message that the table does not have in the present state is a misuse of ASGI
by the application: it is logged as the event `misuse` with what was expected, and raised in the application.
"""

HTTP_TEXT: Final = """\
The response to one request (`TRANSITIONS` in `daemon/appserver/asgi/transitions.py`). The inputs are the messages that
the application sends. `http.response.start` is held until the first body message. While a file is on its way, after
`pathsend` and `zerocopysend`, the response is `sending`, where every message is misuse. "Before trailers" is what ends
the body where the start has announced trailers.
"""

WEBSOCKET_TEXT: Final = """\
A WebSocket (`TRANSITIONS` in `daemon/appserver/asgi/websocket_transitions.py`). The inputs are the messages that the
application sends. `closed` lasts until the client has answered the Close. A denial in the application's own words is a
response as above, without files and trailers.
"""

LIFESPAN_TEXT: Final = """\
The lifespan of the application (`TRANSITIONS` in `daemon/appserver/asgi/lifespan.py`). The inputs are the messages that
the application sends; `startup()` and `shutdown()` are the server's own moves.
"""

WORKER_TEXT: Final = """\
A worker process, as its master sees it (`TABLE` in `daemon/appserver/process/policy.py`). The inputs are what it says,
its end, and the clock. What the master does is in brackets; inputs that change
nothing are not shown.
"""

LIFESPAN_MOVES: Final = (
    (lifespan.IDLE, "startup()", lifespan.STARTING),
    (lifespan.RUNNING, "shutdown()", lifespan.STOPPING),
)
"""What `Lifespan` does of itself; the table has only what the application may answer."""

Edge = tuple[str, str, str]
"""State, input, next state."""


def main(folder: Path) -> None:
    """Write both files into a folder that exists."""
    for name, text in (("settings.md", settings(TABLE)), ("states.md", states())):
        (folder / name).write_text(text, encoding="utf-8")


def settings(rows: Iterable[Row]) -> str:
    """Lay out the settings table: a section for each group, a row for each setting."""
    parts = [SETTINGS_HEAD]
    for group, members in groupby(rows, key=lambda row: row.group):
        lines = [f"| {' | '.join(map(_cell, _cells(row)))} |\n" for row in members]
        parts.append(f"## {group}\n\n{COLUMNS}{''.join(lines)}")
    return "\n".join(parts)


def _cells(row: Row) -> Iterator[str]:
    kind = row.kind
    flags = [f"`{flag}`" for flag in row.flags]
    if kind.switch:
        flags += [f"`--no-{flag.removeprefix('--')}`" for flag in row.flags]
    yield f"`{row.name}`"
    yield ", ".join(flags)
    yield _escape(kind.expected.removeprefix("expected "))
    # The path of the file cannot stand in it.
    yield "not there" if row.name == "config" else _toml_types(kind)
    yield f"`{kind.show(row.default)}`" if row.default not in (None, "", ()) else "none"
    also = "".join(f"; also read from `${name}`" for name in row.variables[1:])
    yield _escape(row.help) + also


def _toml_types(kind: Kind[Any]) -> str:
    names = {bool: "boolean", int: "integer", float: "float"}
    types = ["array of strings"] if kind.many else []
    types += ["string"] if kind.text else []
    types += [names[native] for native in kind.native]
    return " or ".join(types)


def _escape(text: str) -> str:
    return "".join(f"\\{mark}" if mark in "*_<" else mark for mark in text)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def states() -> str:
    """Draw the state tables as Mermaid diagrams."""
    response = [(state, kind, following) for (state, kind), (_, following) in transitions.TRANSITIONS.items()]
    channel = [(state, kind, following) for (state, kind), (_, following) in websocket_transitions.TRANSITIONS.items()]
    table: Mapping[tuple[str, str], str] = lifespan.TRANSITIONS
    life = [*LIFESPAN_MOVES, *((state, kind, following) for (state, kind), following in table.items())]
    workers = [
        (state, f"{event} ({action})", following)
        for (state, event), (action, following) in policy.TABLE.items()
        if following != state or action != policy.NOTHING
    ]
    return "\n".join(
        [
            STATES_HEAD,
            f"## Response\n\n{HTTP_TEXT}",
            _diagram(transitions.AWAITED, response),
            f"## WebSocket\n\n{WEBSOCKET_TEXT}",
            _diagram(websocket_transitions.CONNECTING, channel),
            f"## Lifespan\n\n{LIFESPAN_TEXT}",
            _diagram(lifespan.IDLE, life),
            f"## Worker\n\n{WORKER_TEXT}",
            _diagram(policy.STARTING, workers),
        ]
    )


def _diagram(first: str, edges: Iterable[Edge]) -> str:
    known = list(edges)
    last = {following for _, _, following in known} - {state for state, _, _ in known}
    lines = [f"    [*] --> {first}"]
    lines += [f"    {state} --> {following}: {kind}" for state, kind, following in known]
    lines += [f"    {state} --> [*]" for state in sorted(last)]
    return "\n".join(["```mermaid", "stateDiagram-v2", *lines, "```", ""])


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS)
