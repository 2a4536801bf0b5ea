"""The commands of `appserverctl` that look into a running server, or change it."""

import http.client
import json
import shutil
import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from appserver.arguments import Command
from appserver.errors import Exit, UsageError
from appserver.remote import ANSWER_SECONDS, CONTROL, JSON, RemoteError, ask, find_control, get, order

PROGRAM: Final = "appserverctl"

ASK_SECONDS: Final = 0.1
"""How often a server is asked what has become of an upgrade."""

START_SECONDS: Final = 600.0
"""A worker takes as long as the application's startup; the server has a deadline for that (--timeout-worker-start)."""


def drain(own: Namespace) -> Exit:
    """Have /readyz answer 503; requests are answered as before."""
    order(find_control(own), "/drain")
    _say(f"drained: /readyz answers 503 until `{PROGRAM} resume` or a restart; requests are answered")
    return Exit.OK


def resume(own: Namespace) -> Exit:
    """Have /readyz answer 200 again."""
    order(find_control(own), "/resume")
    _say("resumed: /readyz answers 200")
    return Exit.OK


def restart_worker(own: Namespace) -> Exit:
    """Have another worker take the place of one."""
    path = find_control(own)
    for text in own.pid:
        if not (text.isascii() and text.isdecimal()):
            raise UsageError("PID", text, "expected the process id of a worker")
    for text in own.pid:
        report = order(path, "/restart-worker", START_SECONDS, pid=int(text))
        _say(f"worker {report['pid']} leaves, worker {report['successor']} serves")
    return Exit.OK


def upgrade(own: Namespace) -> Exit:
    """Have the installed version of appserver take over, in place."""
    path = find_control(own)
    before = get(path, "/status")
    code, answer = ask(path, "POST", "/upgrade", START_SECONDS)
    if code == http.client.INTERNAL_SERVER_ERROR:
        raise RemoteError(f"the upgrade has failed, and nothing has changed: {answer.get('error')}")
    if code != http.client.ACCEPTED:
        raise RemoteError(f"{path}: {answer.get('error')}")
    after = _await_upgrade(path, before)
    if after["upgrades"] == before["upgrades"]:
        raise RemoteError(f"{after['version']} runs, and the workers from before go on: {after['failure']}")
    _say(f"upgraded from {before['version']} to {after['version']}")
    return Exit.OK


def _await_upgrade(path: str, before: Mapping[str, Any]) -> Mapping[str, Any]:
    """Ask the next image of the server until it tells what has become of its upgrade."""
    heard = time.monotonic()
    end = heard + START_SECONDS
    while time.monotonic() < end:
        try:
            report = get(path, "/status")
        except RemoteError as error:
            # What the image before has accepted ends with it. Who comes later waits for the next one, which starts.
            if isinstance(error.__cause__, TimeoutError):
                heard = time.monotonic()
            elif time.monotonic() - heard > ANSWER_SECONDS:
                raise
        else:
            heard = time.monotonic()
            if any(report[name] != before[name] for name in ("upgrades", "upgrades_failed")):
                return report
        time.sleep(ASK_SECONDS)
    raise RemoteError(f"{path}: nothing is heard of the upgrade")


def log_level(own: Namespace) -> Exit:
    """Show or change the log level, until the next reload."""
    path = find_control(own)
    if own.level is None:
        _say(str(get(path, "/log-level")["level"]))
        return Exit.OK
    report = order(path, "/log-level", level=own.level)
    _say(str(report["level"]))
    return _tell_silent(report)


def connections(own: Namespace) -> Exit:
    """Show the open connections, the oldest first."""
    report = get(find_control(own), "/connections")
    if own.json:
        _say(json.dumps(report, indent=2, ensure_ascii=False))
        return _tell_silent(report)
    rows = [_cells(one) for one in report["connections"]]
    if rows:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
        for line in _align([tuple(name.upper() for name in rows[0]), *(tuple(row.values()) for row in rows)]):
            _say(line[:width] if width else line)
    if report["left_out"]:
        _say(f"and {report['left_out']} younger ones")
    elif not rows:
        _say("no connections")
    return _tell_silent(report)


def _cells(one: Mapping[str, Any]) -> dict[str, str]:
    requests = [f"{request['method']} {request['path']}" for request in one["requests"]]
    more = one["in_flight"] - len(requests)
    return {
        **({"worker": str(one["pid"])} if "pid" in one else {}),
        "peer": one["peer"],
        "protocol": one["protocol"],
        "tls": one["tls"] or "-",
        "age": str(timedelta(seconds=int(one["age"]))),
        "state": one["state"],
        "answered": str(one["answered"]),
        "unwritten": str(one["unwritten"]),
        "requests": ", ".join(requests) + (f" and {more} more" if more > 0 else "") or "-",
    }


def _align(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def _tell_silent(report: Mapping[str, Any]) -> Exit:
    """Workers that have not answered: what was shown is not all, what was ordered was not done by all."""
    silent = report["silent"]
    if not silent:
        return Exit.OK
    pids = ", ".join(map(str, silent))
    print(f"{PROGRAM}: not all of it: no answer in time of worker {pids}", file=sys.stderr)  # noqa: T201
    return Exit.STARTUP


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - a command's answer


COMMANDS: Final[Mapping[str, Command]] = {
    "upgrade": Command("Have the installed version of appserver take over, in place", upgrade, (CONTROL,)),
    "restart-worker": Command(
        "Have other workers take the place of some",
        restart_worker,
        (("pid", {"nargs": "+", "metavar": "PID", "help": "Process id of a worker, as `status` shows it"}), CONTROL),
    ),
    "drain": Command("Have /readyz answer 503; requests are answered as before", drain, (CONTROL,)),
    "resume": Command("Have /readyz answer 200 again", resume, (CONTROL,)),
    "log-level": Command(
        "Show or change the log level, until the next reload",
        log_level,
        (
            ("level", {"nargs": "?", "metavar": "LEVEL", "help": "trace, debug, info, warning, error or critical"}),
            CONTROL,
        ),
    ),
    "connections": Command("Show the open connections, the oldest first", connections, (JSON, CONTROL)),
}
