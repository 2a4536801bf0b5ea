"""The one place that picks an engine.

A native engine is never a need: where its library is missing, another serves the same bytes the same way. The choice
is logged at the start, and `--version` names all that are there.
"""

from collections import deque
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from appserver import __version__
from appserver.errors import UsageError
from appserver.wire.engine import Engine, Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from appserver.wire.http2 import Http2Engine

AUTO: Final = "auto"


class MakeEngine(Protocol):
    """Makes the HTTP/1.1 engine of one connection."""

    def __call__(
        self, limits: Limits, *, http2: bool = False, upgrade: bool = False, websocket: bool = False
    ) -> Engine:
        """With `http2` the peer may begin in HTTP/2, with `upgrade` ask for it (`h2c`), with `websocket` for one."""
        ...


class MakeHttp2:
    """Makes the HTTP/2 engine of one connection, and imports it for the first: 5 ms of the start that few need then.

    Attributes:
        name: Of the engine.
        flaw: Why it is not the one that was to be; empty if it is.
    """

    __slots__ = ("_make", "_others", "flaw", "name")

    def __init__(self, names: "Iterable[str]") -> None:
        self._others = deque(names)
        self.name = self._others.popleft()
        self.flaw = ""
        self._make: type[Http2Engine] | None = None

    def __call__(self, limits: Limits, clock: "Callable[[], float]", *, websocket: bool = False) -> "Http2Engine":
        """Make one; it asks the clock for seconds that only grow. With `websocket` the peer may ask for one."""
        if self._make is None:
            self.load()
            assert self._make is not None  # noqa: S101 - for the type checker
        return self._make(limits, clock, websocket=websocket)

    def load(self) -> None:
        """Import it, or else the next: a native library that is installed may still lack another that it needs.

        Raises:
            ImportError: There is no next.
        """
        while self._make is None:
            source = _HTTP2[self.name]
            try:
                self._make = getattr(import_module(source.module), source.name)
            except ImportError as error:
                if not self._others:
                    raise
                failed, self.name = self.name, self._others.popleft()
                self.flaw = f"the engine {failed} cannot be loaded, {self.name} takes its place: {error}"


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

_HTTP2: Final = {
    "ngh2": _Source("appserver.wire.http2_ngh2", "Ngh2Engine", "ngh2"),
    "h2": _Source("appserver.wire.http2_h2", "H2Engine", "h2"),
}

# uvicorn's name for its native engine: who brings that option wants the fast one.
_SYNONYMS: Final = {"httptools": "h1c"}


def build() -> str:
    """The build that runs: `compiled` where the hot path is native code (docs/compiled.md), else `interpreted`."""
    spec = find_spec(Limits.__module__)
    return "interpreted" if spec is None or str(spec.origin).endswith(".py") else "compiled"


def engines() -> dict[str, str]:
    """The HTTP/1.1 engines that can be used here, fastest first: name to version of the library behind it."""
    return _installed(_HTTP1)


def http2_engines() -> dict[str, str]:
    """The HTTP/2 engines that can be used here, fastest first: name to version of the library behind it."""
    return _installed(_HTTP2)


def _installed(sources: dict[str, _Source]) -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - 20 ms that no start needs

    found = {}
    for name, source in sources.items():
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
            make: MakeEngine = getattr(import_module(source.module), source.name)
        except ImportError as error:
            reason = f"{error}: install {source.distribution}, or use auto"
        else:
            return make
    raise UsageError("--http", name, reason)


def pick_http2(name: str = AUTO) -> MakeHttp2:
    """The engine behind a value of `--http2-engine`.

    Raises:
        UsageError: Its library is not installed.
    """
    if name == AUTO:
        return MakeHttp2(one for one, source in _HTTP2.items() if find_spec(str(source.distribution)) is not None)
    make = MakeHttp2([name])
    try:
        make.load()
    except ImportError as error:
        hint = f"install {_HTTP2[name].distribution}, or use auto"
        raise UsageError("--http2-engine", name, f"{error}: {hint}") from error
    return make
