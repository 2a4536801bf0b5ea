"""`appserver APP …`: read the settings, then serve."""

import os
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from functools import partial

from appserver import __version__, arguments
from appserver.errors import AppserverError, Exit
from appserver.settings import Loaded, command_line, load, resolve
from appserver.system.image import ESTATE, REHEARSAL


def main(argv: Sequence[str] | None = None) -> int:
    """Run the server until it is told to stop.

    Args:
        argv: Arguments, without the program's name; None for the process's own.

    Returns:
        One of `errors.Exit`.
    """
    words = sys.argv[1:] if argv is None else argv
    if ESTATE in os.environ:
        return _resume(words)
    rehearsal = os.environ.pop(REHEARSAL, None)
    parser = command_line()
    add_version(parser)
    try:
        own = arguments.read(parser, words)
        if own.version:
            print(version_line(parser.prog))  # noqa: T201 - what was asked for
            if rehearsal is not None:
                _rehearse(resolve(own.given, os.environ), int(rehearsal))
            return Exit.OK
        loaded = resolve(own.given, os.environ)
        if loaded.settings.workers is not None:
            return _supervise(loaded, partial(resolve, own.given, dict(os.environ)))
        os.environ.update(loaded.variables)
        return _serve(loaded)
    except AppserverError as error:
        if rehearsal is None:
            from appserver.system.notify import Notifier  # noqa: PLC0415 - nothing has been served: it is told here

            Notifier().failed(int(error.exit_code), str(error))
        return complain(parser.prog, error)


def add_version(parser: ArgumentParser) -> None:
    """Add `--version`, whose answer needs more than the settings know."""
    parser.add_argument("--version", action="store_true", help="show the versions of what serves, and exit")


def complain(program: str, error: AppserverError) -> Exit:
    """Write an error as one line on stderr and give the exit code that belongs to it."""
    from appserver.telemetry.log import is_journal  # noqa: PLC0415 - for mistakes only

    level = "<3>" if is_journal(sys.stderr, os.environ) else ""  # sd-daemon(3): an error, else it would be information
    print(f"{level}{program}: {error}", file=sys.stderr)  # noqa: T201 - no log yet: its settings are what failed
    return error.exit_code


def version_line(program: str) -> str:
    """Name the program, its build, Python, the event loop, the engines and the way to systemd, with their versions."""
    # Here, and not for every start: importlib.metadata alone takes a fifth of what Python itself needs to start.
    import platform  # noqa: PLC0415

    from appserver.wire.select import build, engines, http2_engines  # noqa: PLC0415

    parts = {"Python": platform.python_version(), "uvloop": _installed("uvloop")}
    parts |= {**engines(), **http2_engines(), "systemd-python": _installed("systemd-python")}
    return f"{program} {__version__} ({build()}, {', '.join(f'{name} {number}' for name, number in parts.items())})"


def _installed(distribution: str) -> str:
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - as above

    try:
        return version(distribution)
    except PackageNotFoundError:
        return "missing"


def _supervise(loaded: Loaded, again: Callable[[], Loaded]) -> Exit:
    from appserver.process.supervise import supervise  # noqa: PLC0415 - as below

    return supervise(loaded, again)


def _resume(words: Sequence[str]) -> Exit:
    from appserver.process.supervise import resume  # noqa: PLC0415 - as below

    # Read when they are wanted: workers serve already, whatever is wrong with them.
    environ = {name: value for name, value in os.environ.items() if name != ESTATE}
    return resume(partial(load, words, environ))


def _rehearse(loaded: Loaded, descriptor: int) -> None:
    from appserver.process.rehearsal import play  # noqa: PLC0415 - as below

    play(loaded, descriptor)


def _serve(loaded: Loaded) -> Exit:
    from appserver.process.worker import serve  # noqa: PLC0415 - nor are the loop and the log

    return serve(loaded)
