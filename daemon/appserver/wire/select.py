"""The one place that picks an engine.

A native engine is never a need: where its library is missing, another serves the same bytes the same way. The choice
is logged at the start, and `--version` names all that are there.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Final, NamedTuple, TypeAlias

from appserver import __version__
from appserver.errors import UsageError
from appserver.wire.engine import Engine, Limits

AUTO: Final = "auto"

MakeEngine: TypeAlias = Callable[[Limits], Engine]
"""Makes the engine of one connection."""


class _Source(NamedTuple):
    module: str
    name: str
    distribution: str | None
    """Where it comes from; None for our own."""


# Fastest first. Named and not imported: h11 takes 8 ms, and `--help` needs none of them.
_HTTP1: Final = {
    "h1c": _Source("appserver.wire.http1_h1c", "H1cEngine", "gunicorn_h1c"),
    "plain": _Source("appserver.wire.http1_plain", "PlainEngine", None),
    "h11": _Source("appserver.wire.http1_h11", "H11Engine", "h11"),
}

# uvicorn's name for its native engine: who brings that option wants the fast one.
_SYNONYMS: Final = {"httptools": "h1c"}


def engines() -> dict[str, str]:
    """The engines that can be used here, fastest first: name to version of the library behind it."""
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - 20 ms that no start needs

    found = {}
    for name, source in _HTTP1.items():
        try:
            found[name] = __version__ if source.distribution is None else version(source.distribution)
        except PackageNotFoundError:
            continue
    return found


def warm() -> None:
    """Import the reference engine, which the native one asks only about heads that are not plain.

    For a while after the start, when nobody waits: not at the first such head, when a package upgrade may have put
    another version in its place.
    """
    import_module(_HTTP1["h11"].module)


def pick(name: str = AUTO) -> MakeEngine:
    """The engine behind a value of `--http`.

    Raises:
        UsageError: Its library is not installed.
    """
    wanted = _SYNONYMS.get(name, name)
    reason = ""
    for engine, source in _HTTP1.items():
        if wanted not in (engine, AUTO):
            continue
        try:
            made: MakeEngine = getattr(import_module(source.module), source.name)
        except ImportError as error:
            reason = f"{error}: install appserverd[fast], or use auto"
        else:
            return made
    raise UsageError("--http", name, reason)
