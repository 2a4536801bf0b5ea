"""Find the application that the operator named, and say what is wrong when it cannot be served.

    module:attribute[.attribute]    module:factory()    path/to/file.py[:attribute]    module

Without an attribute it is `app`, then `application`. Two kinds of failure look different to the operator: what was
named wrongly is one line with the nearest name; what the application itself raised is the `__cause__` of the error,
with a traceback that begins in the application's own code.
"""

import importlib
import inspect
import os
import pkgutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from types import ModuleType, TracebackType
from typing import Any, Final, NamedTuple

from appserver.errors import LoadError
from appserver.kinds import nearest

_ATTRIBUTES: Final = ("app", "application")
ASGI: Final = "asgi3"
WSGI: Final = "wsgi"

_EXPECTED: Final = (
    "expected an ASGI 3 application, a callable(scope, receive, send), or a WSGI application, a callable(environ,"
    " start_response)"
)
# Files whose frames come before the application's when it is imported or called.
_MACHINERY: Final = frozenset({__file__, importlib.__file__})
# By the number of positional arguments that a callable takes when it does not take three.
_SHAPES: Final = {
    2: "takes two arguments as a WSGI application does, and is async",
    1: "looks like an ASGI 2 application, a callable(scope)",
    0: "takes no arguments and looks like a factory: write {app}() or add --factory",
}


class Found(NamedTuple):
    """An application."""

    application: Any
    interface: str
    """`ASGI` or `WSGI`."""


def load(app: str, app_dir: str, factory: bool, interface: str = "auto") -> Found:
    """Import the application.

    `app_dir` is put first on `sys.path`; with a file, the folder that its top package or module is in.

    Args:
        app: What to import, in one of the forms above; a file's path is relative to `app_dir`.
        app_dir: The folder to import from.
        factory: Call what was found to get the application, as with `()`.
        interface: What it is; `auto` goes by the arguments that it takes.

    Raises:
        LoadError: Nothing of that name, no application, or an exception of its own, then as `__cause__`.
    """
    folder = Path(app_dir).resolve()
    if not S_ISDIR(_look_at(folder, app, f"--app-dir {folder}")):
        raise LoadError(f"{app}: --app-dir {folder} is not a folder")
    source, attribute, called = _split(app)
    _put_first(folder)
    module = _import_file(folder / source, app) if _is_file(source) else _import(source, folder, app)
    found, name = _find(module, attribute, app)
    if factory or called:
        found = _call(found, app)
    if not callable(found):
        raise LoadError(f"{app}: is a {type(found).__name__} object, not callable; {_EXPECTED}")
    return Found(found, interface if interface != "auto" else _guess(found, app, f"{app.partition(':')[0]}:{name}"))


def _split(app: str) -> tuple[str, str, bool]:
    source, _, attribute = app.partition(":")
    called = attribute.endswith("()")
    attribute = attribute.removesuffix("()")
    named = attribute.split(".") if attribute else []
    # A module's name may be any text between dots: importlib takes `my-app`, too.
    if not all(part.isidentifier() for part in named) or not (_is_file(source) or all(source.split("."))):
        meant = attribute if source in ("asgi", "wsgi") and ":" in attribute else None  # as hypercorn has it
        raise LoadError(f"{app}: expected module:attribute, module:factory() or a file's path" + _hint(meant))
    return source, attribute, called


def _look_at(path: Path, app: str, name: str) -> int:
    """The mode of a file or a folder; 0 where there is none.

    Raises:
        LoadError: It cannot be looked at. Path.is_dir() says no to that, or raises, as the version of Python has it.
    """
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except PermissionError:
        raise LoadError(
            f"{app}: {name}: the server's user may not look there (a folder on the way without x; ProtectHome=)"
        ) from None
    except OSError as error:
        raise LoadError(f"{app}: {name}: {error.strerror}") from None


def _is_file(source: str) -> bool:
    return source.endswith(".py") or "/" in source


def _put_first(folder: Path) -> None:
    if sys.path[:1] != [str(folder)]:
        sys.path.insert(0, str(folder))


def _import_file(path: Path, app: str) -> ModuleType:
    """Import a file under the name that `import` would give it, so that its relative imports work."""
    if not S_ISREG(_look_at(path, app, str(path))):
        siblings = {f"{path.parent / name}.py" for name in _modules([str(path.parent)])}
        raise LoadError(f"{app}: no file {path}" + _hint(nearest(str(path), siblings)))
    folder, names = path.parent, [] if path.name == "__init__.py" else [path.stem]
    while (folder / "__init__.py").is_file():
        names.insert(0, folder.name)
        folder = folder.parent
    _put_first(folder)
    module = _import(".".join(names), folder, app)
    origin = getattr(module, "__file__", None)
    if origin is None or not Path(origin).samefile(path):
        raise LoadError(
            f"{app}: its name is taken by the module {module.__name__} ({origin or 'built in'}); rename {path}"
        )
    return module


def _import(name: str, folder: Path, app: str) -> ModuleType:
    try:
        with _blame(app, "importing it"):
            return importlib.import_module(name)
    except LoadError as error:
        cause = error.__cause__
        missing = cause.name if isinstance(cause, ModuleNotFoundError) and cause.name else ""
        if name != missing and not name.startswith(f"{missing}."):
            raise
    parent = missing.rpartition(".")[0]
    if parent and not hasattr(sys.modules[parent], "__path__"):
        named = missing.rpartition(".")[2]
        meant = f"{parent}:{named}" if hasattr(sys.modules[parent], named) else None
        raise LoadError(f"{app}: {parent} is a module, not a package: it has no {missing}" + _hint(meant))
    searched = list(sys.modules[parent].__path__) if parent else [str(folder)]
    known = {f"{parent}.{found}" if parent else found for found in _modules(searched)}
    where = ", ".join(searched) + ("" if parent else " or on Python's path")
    closed = [found for found in searched if Path(found).is_dir() and not os.access(found, os.R_OK, effective_ids=True)]
    if closed:
        raise LoadError(f"{app}: no module {missing} in {where}: the server's user may not list {', '.join(closed)}")
    raise LoadError(f"{app}: no module {missing} in {where}" + _hint(nearest(missing, known)))


def _modules(folders: list[str]) -> Iterator[str]:
    return (module.name for module in pkgutil.iter_modules(folders))


def _find(module: ModuleType, attribute: str, app: str) -> tuple[Any, str]:
    """Get the attribute of the module, or the first of the usual ones; return it with its name."""
    if not attribute:
        for name in _ATTRIBUTES:
            if hasattr(module, name):
                return getattr(module, name), name
        meant = next(_applications(module), None)
        raise LoadError(
            f"{app}: {module.__name__} has neither {' nor '.join(_ATTRIBUTES)}" + _hint(meant and f"{app}:{meant}")
        )
    found: Any = module
    for part in attribute.split("."):
        try:
            with _blame(app, f"getting {part}", passing=AttributeError):
                found = getattr(found, part)
        except AttributeError:
            owner = found.__name__ if isinstance(found, ModuleType) else f"{type(found).__name__} object"
            known = [name for name in dir(found) if not name.startswith("__")]
            raise LoadError(f"{app}: {owner} has no {part}" + _hint(nearest(part, known))) from None
    return found, attribute


def _applications(module: ModuleType) -> Iterator[str]:
    """Name what could be meant: applications that the module made, not the classes that it imported."""
    for name, value in vars(module).items():
        if not name.startswith("_") and callable(value) and not inspect.isclass(value) and _looks_right(value):
            yield name


def _looks_right(value: Callable[..., Any]) -> bool:
    # Many functions take two arguments.
    return _takes(value) == 3 or (_takes(value) == 2 and _begins_with_environ(value))


def _call(found: Any, app: str) -> Any:
    if not callable(found):
        raise LoadError(f"{app}: is a {type(found).__name__}, which cannot be called as a factory")
    with _blame(app, "calling the factory"):
        made = found()
    if inspect.iscoroutine(made):
        made.close()
        raise LoadError(f"{app}: the factory is async; expected a plain function that returns the application")
    return made


def _guess(found: Callable[..., Any], app: str, name: str) -> str:
    """Which interface a callable has, by the arguments that it takes."""
    count = _takes(found)
    is_async = inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(type(found).__call__)
    if not is_async and (count == 2 or _begins_with_environ(found)):
        return WSGI
    shape = _SHAPES.get(count)
    if shape is not None:
        raise LoadError(f"{app}: {shape.format(app=name)}; {_EXPECTED}, or say which it is: --interface")
    return ASGI


def _begins_with_environ(found: Callable[..., Any]) -> bool:
    """Whether it names its first argument as WSGI applications do, whatever others it takes."""
    try:
        return next(iter(inspect.signature(found).parameters), None) in ("environ", "env")
    except (TypeError, ValueError):
        return False


def _takes(found: Callable[..., Any]) -> int:
    """Count the positional arguments that a callable takes: 3 if it can take three, else 2, 1 or 0."""
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):  # some callables of C extensions have none: served, and found out there
        return 3
    for count in (3, 2, 1, 0):
        try:
            signature.bind(*[None] * count)
        except TypeError:
            continue
        return count
    return -1


def _hint(meant: str | None) -> str:
    return f"; did you mean {meant}?" if meant else ""


@contextmanager
def _blame(app: str, doing: str, passing: type[Exception] | tuple[()] = ()) -> Iterator[None]:
    """Turn what the application raises while `doing` into a `LoadError`; `passing` goes through as it is."""
    try:
        yield
    except passing:
        raise
    # SystemExit: a module without `if __name__ == "__main__"` must not end the server without a word.
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever foreign code raises is reported
        sentence = f"{app}: {doing} raised {type(error).__name__}: {error}"
        raise LoadError(sentence) from error.with_traceback(_own_part(error.__traceback__))


def _own_part(trace: TracebackType | None) -> TracebackType | None:
    """Drop the frames of this module and of the import system in front of the application's."""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file not in _MACHINERY and not file.startswith("<frozen importlib"):
            break
        trace = trace.tb_next
    return trace
