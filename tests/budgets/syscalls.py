"""System calls a request of a real process: what strace(1) sees between two marks."""

import re
import shutil
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Final

from tests.budgets.measure import Measure, sort_parts
from tests.budgets.workloads import HELLO_WORLD, PIPELINED, Workload, request
from tests.integration.servers import Starter, listening

APPLICATION: Final = Path(__file__).with_name("application.py")
BURST: Final = f"{PIPELINED.name}, together"
LOGGED: Final = f"{BURST}, access log"

_REPEATS: Final = 25
_PATIENCE: Final = 10.0
_PAUSE_SECONDS: Final = 0.002
"""Between an answer and the next request: the server is asleep by then. Without it, on Python 3.11, the loop often
finds the request on a turn that it makes anyway, and saves an epoll_wait(2): 3 calls, and on another machine 4."""

# -D: strace is the child, and the process that was started is the server, which then gets the signals itself.
# Coverage would be traced too, as it writes its files.
_STRACE: Final = (
    "env",
    "--unset=COVERAGE_PROCESS_CONFIG",
    "--unset=COVERAGE_PROCESS_START",
    "strace",
    "-D",
    "-f",
    "-s80",
)
# `PID name(arguments…`; the second line of a call that another thread has interrupted is `PID <... name resumed>…`.
_CALL: Final = re.compile(r"^\d+ +(\w+)\(")
_REQUEST: Final = '"GET / HTTP/1.1'


def names() -> list[str]:
    """Of the measures."""
    return [HELLO_WORLD.name, BURST, LOGGED]


def probe() -> list[Measure]:
    """Trace two servers, without the access log and with it. Takes about five seconds.

    Raises:
        FileNotFoundError: strace is not installed.
    """
    if shutil.which("strace") is None:
        raise FileNotFoundError("strace is not installed")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return [
            *_trace(folder / "quiet", {HELLO_WORLD.name: HELLO_WORLD, BURST: PIPELINED}, logged=False),
            *_trace(folder / "logged", {LOGGED: PIPELINED}, logged=True),
        ]


def _trace(folder: Path, workloads: dict[str, Workload], *, logged: bool) -> list[Measure]:
    folder.mkdir()
    trace, log = folder / "trace", folder / "log"
    with _serving(folder, trace, log, "--access-log" if logged else "--no-access-log") as client:
        for name, workload in workloads.items():
            # Twice, to have made what is made on first use.
            for played in (workload, _mark(name, "begin"), *[workload] * _REPEATS, _mark(name, "end")):
                before = log.read_bytes().count(b"\n")
                _exchange(client, played)
                # Records are written in batches by a timer: so every exchange is one batch, on a slow machine too.
                sleep(_PAUSE_SECONDS)
                while logged and log.read_bytes().count(b"\n") < before + played.depth:
                    sleep(0.005)
    lines = _read_lines(trace)
    return [_count(lines, name) for name in workloads]


@contextmanager
def _serving(folder: Path, trace: Path, log: Path, *arguments: str) -> Iterator[socket.socket]:
    """A traced server, its log in a file, and a connection to it."""
    starter = Starter(folder)
    command = (*_STRACE, "-o", str(trace), sys.executable, "-m", "appserver")
    try:
        with listening() as listener, log.open("wb") as stderr:
            starter(
                str(APPLICATION),
                "--fd",
                "0",
                *arguments,
                bind=False,
                command=command,
                stdin=listener.fileno(),
                stderr=stderr,
            )
            with socket.create_connection(listener.getsockname(), timeout=_PATIENCE) as client:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                yield client
    finally:
        starter.finish()


def _exchange(client: socket.socket, workload: Workload) -> None:
    client.sendall(workload.sent)
    received = b""
    while not workload.is_answered(received):
        data = client.recv(65536)
        assert data, f"closed after {received!r}"
        received += data


def _mark(name: str, end: str) -> Workload:
    """A request that is found again in the trace."""
    return Workload(end, request(f"GET /{re.sub(r'[^a-z0-9]+', '-', name)}-{end}"))


def _read_lines(trace: Path) -> list[str]:
    """The whole trace: strace ends a little after the process that it has traced."""
    end = monotonic() + _PATIENCE
    while monotonic() < end:
        lines = trace.read_text().splitlines()
        if lines and " +++ exited with " in lines[-1]:
            return lines
        sleep(0.01)
    raise TimeoutError("strace has not ended")


def _count(lines: list[str], name: str) -> Measure:
    """The median exchange: what happens once a second, whoever asks, is in a few of them and is not counted."""
    begin, end = (
        next(number for number, line in enumerate(lines) if _mark(name, mark).sent.split()[1].decode() in line)
        for mark in ("begin", "end")
    )
    exchanges: list[Counter[str]] = []
    for line in lines[begin + 1 : end]:
        if _REQUEST in line:
            exchanges.append(Counter())
        found = _CALL.match(line)
        if found and exchanges:
            exchanges[-1][f"{found[1]}()"] += 1
    assert len(exchanges) == _REPEATS, f"{name}: {len(exchanges)} exchanges in the trace"
    median = sorted(exchanges, key=Counter.total)[_REPEATS // 2]
    return Measure(name, median.total(), sort_parts(median))
