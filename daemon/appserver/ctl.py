"""`appserverctl`: try a configuration, show where its values come from, ask a running server how it is.

appserverctl check  [arguments of appserver]             every line `ok`: exit 0; else 2 or 3, as appserver would;
                                                         in the place of APP a file of settings can stand, FILE.toml
appserverctl config [--json] [arguments of appserver]    each setting, its value and where that was said
appserverctl status [--json] [--control PATH]            what the control socket answers
appserverctl ready  [--control PATH]                     exit 0 while requests should come here, else 3
appserverctl reload [--control PATH]                     new workers: exit 0 when they serve, else 3

and those of `orders` and `top`, which speak to the control socket too.
"""

import argparse
import dataclasses
import http.client
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from appserver import arguments, orders
from appserver.arguments import Command
from appserver.binds import Bind, FdBind, TcpBind
from appserver.cli import add_version, complain, version_line
from appserver.errors import (
    AppserverError,
    CertificateError,
    CredentialError,
    Exit,
    ListenError,
    LoadError,
    UsageError,
)
from appserver.kinds import nearest
from appserver.remote import CONTROL, JSON, RemoteError, ask, find_control, get
from appserver.settings import DEFAULT_HOST, DEFAULT_PORT, TABLE, Loaded, Settings, command_line, resolve

if TYPE_CHECKING:
    from appserver.net.certificates import Files

PROGRAM: Final = "appserverctl"
RELOAD_SECONDS: Final = 600.0
"""A reload takes as long as the application's startup; the server has a deadline for that (--timeout-worker-start)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments, without the program's name; None for the process's own.

    Returns:
        One of `errors.Exit`. Ctrl-C ends the process by its signal, which a shell shows as 130.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if not words or words[0] in ("-h", "--help"):
            _parser().print_help(sys.stdout if words else sys.stderr)
            return Exit.OK if words else Exit.USAGE
        if words[0] == "--version":
            _say(version_line(PROGRAM))
            return Exit.OK
        command = COMMANDS.get(words[0])
        if command is None:
            raise UsageError(words[0], None, "unknown command", nearest(words[0], COMMANDS))
        return command.run(arguments.read(make_parser(words[0]), words[1:]))
    except AppserverError as error:
        return complain(PROGRAM, error)
    except BrokenPipeError:
        # `appserverctl config | head`: what was wanted has been read. The interpreter must not try again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK
    except KeyboardInterrupt:
        # By the signal itself, without a traceback: a shell that waits ends the loop or the script around it too.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGINT)
        return 128 + signal.SIGINT  # process 1 of a container: the kernel ends it by no signal without a handler


def make_parser(name: str) -> argparse.ArgumentParser:
    """Make the parser of a command."""
    command = COMMANDS[name]
    make = command_line if command.settings else arguments.make_parser
    parser = make(f"{PROGRAM} {name}", f"{command.help}.")
    for option, how in command.options:
        parser.add_argument(option, **how)
    return parser


def check(own: Namespace) -> Exit:
    """Try settings, certificates, application and sockets."""
    from appserver.wire.select import pick  # noqa: PLC0415 - for this command alone

    # `check FILE`: no application ends like that.
    files = [one for one in own.given if one.name == "app" and one.text.endswith(".toml")]
    given = [dataclasses.replace(one, name="config") if one in files else one for one in own.given]
    loaded = resolve(given, os.environ)
    settings = loaded.settings.anchored()
    pick(loaded.settings.http)
    said = sum(origin != "default" for origin in loaded.origins.values())
    _report("settings", "ok", f"{said} set, {len(loaded.origins) - said} default")
    from appserver.process.doubts import find_doubts  # noqa: PLC0415 - for this command alone

    for warning in (*loaded.warnings, *find_doubts(settings, encrypted=settings.encrypted)):
        _report("settings", "warning", warning)
    if loaded.settings.env_file is not None:
        count = len(loaded.variables)
        _report("env file", "ok", f"{loaded.settings.env_file}: {count} variable{'' if count == 1 else 's'} to be set")
    # A list: every check is made, also behind one that failed.
    passed = [*_check_certificates(settings), _check_application(loaded), *_check_sockets(loaded.settings)]
    return Exit.OK if all(passed) else Exit.STARTUP


def config(own: Namespace) -> Exit:
    """Show the value of each setting and where it was said."""
    loaded = resolve(own.given, os.environ)
    values = {row.name: row.kind.write(getattr(loaded.settings, row.name)) for row in TABLE}
    if own.json:
        table = {name: {"value": value, "origin": loaded.origins[name]} for name, value in values.items()}
        _say(json.dumps(table, indent=2, ensure_ascii=False))
        return Exit.OK
    shown = {
        row.name: "-"
        if values[row.name] is None
        else row.kind.show(getattr(loaded.settings, row.name)).replace("\n", ", ")
        for row in TABLE
    }
    left, middle = max(map(len, shown)), min(32, max(map(len, shown.values())))
    for name, text in shown.items():
        _say(f"{name:<{left}}  {text:<{middle}}  {loaded.origins[name]}")
    for warning in loaded.warnings:
        print(f"{PROGRAM}: {warning}", file=sys.stderr)  # noqa: T201
    return Exit.OK


def status(own: Namespace) -> Exit:
    """Ask the control socket of a running server for its figures."""
    report = get(find_control(own), "/status")
    if own.json:
        _say(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        for line in _table(report):
            _say(line)
    return Exit.OK


def ready(own: Namespace) -> Exit:
    """Tell probes, by the exit code, whether requests should come."""
    path = find_control(own)
    code, report = ask(path, "GET", "/readyz")
    if code != http.client.OK:
        drained = ", drained by the operator" if report.get("drained") else ""
        raise RemoteError(f"{path}: not ready: {report.get('state') or report.get('error')}{drained}")
    _say("ready")
    return Exit.OK


def reload(own: Namespace) -> Exit:
    """Have the workers of a server replaced: new settings, new code."""
    path = find_control(own)
    code, report = ask(path, "POST", "/reload", RELOAD_SECONDS)
    if code == http.client.OK:
        _say("reloaded")
        return Exit.OK
    if code == http.client.INTERNAL_SERVER_ERROR:
        raise RemoteError(f"the reload has failed, and the workers from before go on: {report.get('error')}")
    raise RemoteError(f"{path}: {report.get('error')}")


def top(own: Namespace) -> Exit:
    """Watch the figures of a running server on a terminal."""
    from appserver.top import watch  # noqa: PLC0415 - curses is for this command alone

    return watch(own)


COMMANDS: Final[Mapping[str, Command]] = {
    "check": Command("Try settings, certificates, application and sockets", check, settings=True),
    "config": Command("Show the value of each setting and where it was said", config, (JSON,), settings=True),
    "status": Command("Show the state and the figures of a running server", status, (JSON, CONTROL)),
    "ready": Command("Exit with 0 while requests should come here, else with 3", ready, (CONTROL,)),
    "reload": Command("Have new workers take over, with new settings and new code", reload, (CONTROL,)),
    **orders.COMMANDS,
    "top": Command("Watch the figures of a running server on a terminal; q quits", top, (CONTROL,)),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        usage="%(prog)s COMMAND [OPTIONS]",
        description="\n".join(f"  {name:<16}{command.help}" for name, command in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_version(parser)
    return parser


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - a command's answer


def _report(what: str, verdict: str, text: str) -> None:
    _say(f"{what:<13}{verdict:<9}{text}")


# --- check ------------------------------------------------------------------------------------------------------------

_TRY_IMPORT: Final = "import sys; from appserver.ctl import try_import; try_import(*sys.argv[1:])"


def _check_application(loaded: Loaded) -> bool:
    """Import the application in a process of its own: it may do anything, exit and crash included."""
    settings = loaded.settings
    began = time.monotonic()
    # No pipe: its end would be that of the last process that the import leaves behind.
    answer = os.memfd_create("appserver-answer")
    # -P: like the installed script, and unlike a plain -c, without the working folder on sys.path.
    command = [
        sys.executable,
        "-P",
        "-c",
        _TRY_IMPORT,
        settings.app,
        settings.app_dir,
        str(settings.factory),
        settings.interface,
        str(answer),
    ]
    with os.fdopen(answer, "rb") as file:
        code = _run_to_its_end(command, {**os.environ, **loaded.variables}, answer)
        file.seek(0)
        said = file.read().decode(errors="replace")
    if code == 0 and said == "ok":
        _report("application", "ok", f"{settings.app} imported in {time.monotonic() - began:.2f} s")
        return True
    if said == "ok" or not said:
        ended = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        said = f"{settings.app}: importing it ended the process with {ended}"
    _report("application", "FAILED", said)
    return False


def _run_to_its_end(command: Sequence[str], environment: Mapping[str, str], answer: int) -> int:
    """Run a process that inherits a descriptor, and end with it what it leaves behind; its exit code."""
    # Ignored by who has started this process, it would have the kernel reap the child: waitid(2), ECHILD.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # What the application prints is no part of the answer, and goes to stderr (2).
    child = subprocess.Popen(  # noqa: S603 - our own
        command, pass_fds=[answer], stdout=2, env=environment, start_new_session=True
    )
    try:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    finally:
        # Before it is reaped: its number may be another one's then. Not SIGKILL for all: multiprocessing's resource
        # tracker, which ignores SIGTERM, still removes what the application has in /dev/shm.
        os.killpg(child.pid, signal.SIGTERM)
        child.kill()  # at Ctrl-C, whatever it makes of SIGTERM
        child.wait()
    return child.returncode


def try_import(app: str, app_dir: str, factory: str, interface: str, answer: str) -> None:
    """Do the child's half of `check`: import, write `ok` or what is wrong to the descriptor `answer`, and end."""
    from appserver.asgi.loader import load  # noqa: PLC0415 - only the child needs it

    with os.fdopen(int(answer), "w") as out:
        try:
            load(app, app_dir, factory == "True", interface)
        except LoadError as error:
            out.write(str(error))
            if error.__cause__ is not None:
                out.write("\n" + "".join(traceback.format_exception(error.__cause__)).rstrip())
        else:
            out.write("ok")
    os._exit(0)  # threads that the application has started do not keep it


def _check_certificates(settings: Settings) -> Iterator[bool]:
    """Read every certificate with its key, each whatever became of the others."""
    from appserver.net.certificates import find_files, read_password  # noqa: PLC0415 - ssl takes 15 ms

    try:
        found = find_files(settings)
        password = read_password(settings.tls_key_password)
    except (CertificateError, CredentialError) as error:
        _report("certificate", "FAILED", str(error))
        yield False
        return
    for files in found:
        yield _check_certificate(files, settings, password)


def _check_certificate(files: "Files", settings: Settings, password: bytes | None) -> bool:
    from appserver.net.certificates import read_identity  # noqa: PLC0415 - as above
    from appserver.net.renewal import SOON_SECONDS  # noqa: PLC0415
    from appserver.net.tls import make_context  # noqa: PLC0415
    from appserver.telemetry.text import show_time  # noqa: PLC0415

    try:
        identity = read_identity(files)
        make_context(identity, settings, password, http2=settings.http2)
    except (CertificateError, CredentialError) as error:
        _report("certificate", "FAILED", str(error))
        return False
    facts, now, mode = identity.facts, time.time(), files.key.stat().st_mode
    flaws = [
        ("it has expired", facts.ends <= now),
        ("it expires soon", now < facts.ends <= now + SOON_SECONDS),
        (f"it is not good before {show_time(facts.begins)}", now < facts.begins),
        ("it has neither names nor addresses (subjectAltName), and clients look at nothing else", not facts.hosts),
        (f"every user can read the key {files.key} (mode {mode & 0o777:04o})", bool(mode & 0o004)),
    ]
    told = "".join(f"; {flaw}" for flaw, there in flaws if there)
    names = ", ".join(facts.hosts) or facts.subject
    text = f"{files.certificate}: {names}, good until {show_time(facts.ends)}{told}"
    _report("certificate", "warning" if told else "ok", text)
    return True


def _check_sockets(settings: Settings) -> Iterator[bool]:
    """Bind each address and let go of it."""
    from appserver.net.listeners import find_twice  # noqa: PLC0415 - brings the loop and the log along

    twice = find_twice(settings)
    if twice is not None:
        _report("socket", "FAILED", f"{twice}: it is named twice")
        yield False
    for bind in (*settings.binds, *settings.insecure_binds):
        if isinstance(bind, FdBind):
            _report("socket", "ok", f"{bind}: handed over at the start")
        else:
            yield _check_socket(bind, settings, "FAILED")
    if settings.control is not None:
        yield _check_socket(settings.control, settings, "FAILED")
    if not settings.binds:
        # Under systemd this address is never bound, and may well be another program's.
        _check_socket(TcpBind(DEFAULT_HOST, DEFAULT_PORT), settings, "warning")


def _check_socket(bind: Bind | str, settings: Settings, verdict: str) -> bool:
    from appserver.net.listeners import open_listeners  # noqa: PLC0415 - brings the loop and the log along
    from appserver.telemetry.log import build  # noqa: PLC0415

    alone = dataclasses.replace(
        settings, bind=(str(bind),), insecure_bind=(), host=None, port=None, uds=None, fd=None, control=None
    )
    try:
        listeners = open_listeners(alone, (), build(settings.log_level, "console"))
    except ListenError as error:
        hint = "" if verdict == "FAILED" else "; needed only when no socket is handed over"
        _report("socket", verdict, f"{error}{hint}")
        return False
    for listener in listeners:
        listener.close()
    _report("socket", "ok", f"{bind}")
    return True


# --- status -----------------------------------------------------------------------------------------------------------


def _table(report: Mapping[str, Any]) -> Iterator[str]:
    """Lay out a report: a line for each figure, and for each item of a list."""
    width = max(map(len, report), default=0)
    for key, value in report.items():
        name = key.replace("_", " ")
        for item in (value or ["-"]) if isinstance(value, list) else [value]:
            yield f"{name:<{width}}  {_text(key, item)}"
            name = ""


def _text(key: str, value: object) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{name} {_text(name, part)}" for name, part in value.items())
    if key == "memory" and isinstance(value, int):
        return f"{value / 1024**2:.1f} MiB"
    if key == "uptime" and isinstance(value, int | float):
        return str(timedelta(seconds=int(value)))
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
