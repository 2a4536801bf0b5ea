"""The load generators: wrk, and h2load where wrk does not do.

wrk has no HTTP/2, cannot reach UNIX sockets, and its percentiles of pipelined requests are wrong: what it adds to
correct for coordinated omission takes the time between two answers for the time between two batches. Where it opens a
connection anew, it may resume the TLS session of the last one.
"""

import json
import re
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Final

from bench.addresses import Address
from bench.errors import ContenderError
from bench.workloads import Kind, Workload

_SCRIPT: Final = Path(__file__).with_name("wrk.lua")
_GRACE: Final = 30.0
"""Seconds beyond its time after which a generator counts as hung."""
_COUNTS: Final = re.compile(r"^requests: .* (\d+) failed, (\d+) errored", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Answered:
    """What a load generator saw. Latencies are in microseconds, from the request's first byte to the answer's last."""

    requests: int
    seconds: float
    p50_us: int
    p99_us: int
    p999_us: int
    answer_bytes: float = 0.0
    """Of a WebSocket's message, framed and perhaps compressed; 0 for requests."""


def generate(workload: Workload, address: Address, seconds: int, folder: Path) -> Answered:
    """Ask as much as one server answers.

    Args:
        workload: The requests and the number of connections.
        address: The server.
        seconds: How long.
        folder: For temporary files.

    Raises:
        ContenderError: An answer was wrong or late, or a connection broke.
    """
    if workload.kind is Kind.CONNECT:
        return _connect_anew(workload, address, seconds, folder)
    if choose_program(workload) == "h2load":
        return summarize(_run_h2load(workload, address, ("--duration", f"{seconds}s"), seconds, folder), seconds)
    return _run_wrk(workload, address, seconds)


def choose_program(workload: Workload) -> str | None:
    """The program that generates a workload's load; None where this process does."""
    if workload.websocket:
        return None
    beyond_wrk = workload.unix or workload.depth > 1 or workload.http2 or workload.kind is Kind.CONNECT
    return "h2load" if beyond_wrk else "wrk"


def _run_wrk(workload: Workload, address: Address, seconds: int) -> Answered:
    output = _run(
        [
            *("wrk", "--threads", "1", "--connections", str(workload.connections), "--duration", f"{seconds}s"),
            *("--timeout", "10s", "--script", str(_SCRIPT)),
            *_list_fields(workload),
            f"{_name_scheme(workload)}://127.0.0.1:{address}{workload.target}",
            *("--", str(workload.upload)),
        ],
        seconds,
    )
    figures = json.loads(output.rpartition("\nfigures ")[2])
    errors = {name: figures[name] for name in ("connect", "read", "write", "timeout", "status") if figures[name]}
    if errors:
        raise ContenderError(f"errors under load: {', '.join(f'{name} {count}' for name, count in errors.items())}")
    return Answered(figures["requests"], figures["seconds"], figures["p50_us"], figures["p99_us"], figures["p999_us"])


def _connect_anew(workload: Workload, address: Address, seconds: int, folder: Path) -> Answered:
    """Have h2load open the connections, for a request each, again and again until the time is over."""
    once = ("--requests", str(workload.connections))
    times: list[int] = []
    begin = monotonic()
    while (elapsed := monotonic() - begin) < seconds:
        times += _run_h2load(workload, address, once, seconds, folder)
    return summarize(times, elapsed)


def _run_h2load(workload: Workload, address: Address, extent: tuple[str, str], seconds: int, folder: Path) -> list[int]:
    """The microseconds that each answer took. `extent` is the option that says how many requests, or how long."""
    log = folder / "h2load.log"
    scheme = _name_scheme(workload)
    base = f"unix:{address}" if workload.unix else f"{scheme}://127.0.0.1:{address}"
    output = _run(
        [
            *("h2load", "--threads", "1", "--clients", str(workload.connections)),
            *("--max-concurrent-streams", str(workload.depth), *extent),
            *(() if workload.http2 else ("--h1",)),
            *(f"--log-file={log}", f"--base-uri={base}"),
            *_list_fields(workload),
            f"{scheme}://127.0.0.1{workload.target}",
        ],
        seconds,
    )
    counts = _COUNTS.search(output)
    if counts is None:
        raise ContenderError("h2load came to no result")
    failed, errored = map(int, counts.groups())
    # Its columns: start of the request, status (-1 without one), time to the end of the response; in microseconds.
    lines = [line.split("\t") for line in log.read_text(encoding="ascii").splitlines()]
    log.unlink()
    statuses = Counter(status for _, status, _ in lines)
    # Where the reason phrase is empty, which RFC 9112 section 4 allows and hypercorn does, h2load 1.52 does not see the
    # status: it tells 0, and counts a failure.
    wrong = statuses.total() - statuses["200"] - statuses["0"]
    if wrong or errored or failed != statuses["0"]:
        raise ContenderError(f"errors under load: {failed} failed, {errored} errored, {wrong} with another status")
    return [int(time) for *_, time in lines]


def summarize(times: Sequence[int], seconds: float) -> Answered:
    """The figures of so many answers, from the microseconds that each took."""
    times = sorted(times)
    return Answered(len(times), seconds, pick(times, 0.5), pick(times, 0.99), pick(times, 0.999))


def _name_scheme(workload: Workload) -> str:
    return "https" if workload.tls else "http"


def _list_fields(workload: Workload) -> list[str]:
    words = []
    for name, value in workload.fields:
        words += ["--header", f"{name}: {value}"]
    return words


def pick(ordered: Sequence[int], quantile: float) -> int:
    """The nearest rank; 0 of nothing."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * quantile))] if ordered else 0


def _run(command: Sequence[str], seconds: int) -> str:
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=seconds + _GRACE, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        raise ContenderError(f"{command[0]} hung") from error
    if ended.returncode:
        raise ContenderError(f"{command[0]} ended with {ended.returncode}: {ended.stderr.strip()}")
    return ended.stdout
