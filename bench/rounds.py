"""The measuring: every contender of a workload is up at the same time, and they take turns in rounds.

What disturbs the machine for a while so disturbs all of them. Each workload starts its servers anew: the memory that it
finds is its own, and the luck of one process's address layout does not decide the whole run.
"""

import json
import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from typing import Final, TypeAlias, TypeVar

from bench.addresses import Address, find_port
from bench.certificate import make_certificate
from bench.client import check_answer, connect, count_closed, hold_connections, wait_for_answer
from bench.errors import ContenderError
from bench.http2 import Http2Client
from bench.journal import Journal
from bench.load import Answered, choose_program, generate, pick
from bench.messages import broadcast, echo, hold_websockets
from bench.processes import ROOT, Session, Usage
from bench.servers import Contender, Entry, Launch, list_entries, require
from bench.workloads import Kind, Log, Workload

Round: TypeAlias = dict[str, float]
"""The figures of one contender in one round. The unit is the end of each name."""

T = TypeVar("T")

_IDLE_ROUNDS: Final = 2
"""A round opens all connections anew, on a new server, and the figures hardly differ."""
_IDLE_REQUESTS: Final = 100
"""Requests before the memory is read the first time: what is made once is not the connections'."""
_SETTLE: Final = 1.0
"""Seconds between the last connection's answer and the first look at what the idle process does."""
_RECORD: Final = b'"GET '
"""In the access records of all contenders, and in none of their lines about starts and stops."""
_PACE: Final = 0.001
"""Seconds between an answer and the next request of the client whose latencies are measured."""
_RECOVERY: Final = 10.0
"""Seconds that a server gets to work off what it was sent."""

# Nothing of the caller's environment reaches a server: variables are settings for most of them.
_ENVIRONMENT: Final = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | {"LANG": "C.UTF-8"}


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured, and where.

    Attributes:
        rounds: Measurements of each contender.
        seconds: Length of each.
        starts: Cold starts of each contender.
        server_cpu: The processor of the servers.
        folder: For temporary files.
    """

    rounds: int
    seconds: int
    starts: int
    server_cpu: int
    folder: Path


@dataclass(slots=True)
class Result:
    """What came out of a workload, by the label of an entry."""

    workload: Workload
    rounds: dict[str, list[Round]] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    """Access records that were not written, where a log was asked for."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Who is missing, and why."""
    error: str | None = None
    """What ended the workload early, other than a contender."""

    @contextmanager
    def leaving_out(self, label: str) -> Iterator[None]:
        """Take an entry out of the results if it fails in here."""
        try:
            yield
        except ContenderError as error:
            self.rounds.pop(label, None)
            self.left_out[label] = str(error)

    def add(self, label: str, figures: Round) -> None:
        """Keep the figures of a round."""
        self.rounds.setdefault(label, []).append(figures)


@dataclass(frozen=True, slots=True)
class _Server:
    entry: Entry
    session: Session
    address: Address
    output: Path
    journal: Journal | None


def measure(workload: Workload, chosen: Sequence[Contender], plan: Plan) -> Result:
    """Run a workload, all rounds of it. What goes wrong is in the result.

    Args:
        workload: Which.
        chosen: The contenders that are wanted; those that do not fit the workload are passed over.
        plan: How much.
    """
    result = Result(workload)
    entries = list_entries(workload, chosen)
    program = choose_program(workload)
    if workload.kind in (Kind.LOAD, Kind.CONNECT) and program is not None and which(program) is None:
        result.left_out = {entry.label: f"not installed: {program}" for entry in entries}
        return result
    run = {
        Kind.LOAD: _measure_load,
        Kind.CONNECT: _measure_load,
        Kind.IDLE: _measure_idle,
        Kind.START: _measure_starts,
        Kind.RESET: _measure_resets,
        Kind.ECHO: _measure_load,
        Kind.ROOM: _measure_load,
    }[workload.kind]
    try:
        with TemporaryDirectory(prefix="run-", dir=plan.folder) as folder:
            run(result, entries, plan, Path(folder))
    except Exception as error:  # noqa: BLE001 - the workloads that follow are not to be lost, whatever it was
        traceback.print_exc()
        result.error = f"{type(error).__name__}: {error}"
    return result


def estimate(workload: Workload, chosen: Sequence[Contender], plan: Plan) -> float:
    """About how many seconds measure() will take; the constants are what starts and stops took on one machine."""
    count = len(list_entries(workload, chosen))
    match workload.kind:
        case Kind.LOAD | Kind.CONNECT:
            return count * (2.5 + plan.rounds * (plan.seconds + 0.1))
        case Kind.IDLE:
            rounds = min(plan.rounds, _IDLE_ROUNDS)
            return count * rounds * (2 + _SETTLE + plan.seconds + workload.connections * 0.0005)
        case Kind.START:
            return count * (plan.starts + 1) * 0.8
        case Kind.ECHO | Kind.ROOM:
            return count * (2.5 + plan.rounds * (plan.seconds + 0.2 + workload.connections * 0.001))
        case Kind.RESET:
            return count * (1.5 + plan.rounds * (2 * plan.seconds + 1))


def _measure_load(result: Result, entries: Sequence[Entry], plan: Plan, folder: Path) -> None:
    workload = result.workload
    servers: list[_Server] = []
    answered: dict[str, int] = {}
    with ExitStack() as stack:
        with ExitStack() as running:
            for number, entry in enumerate(entries):
                with result.leaving_out(entry.label):
                    journal = None
                    if entry.log is Log.JOURNAL:
                        journal = stack.enter_context(Journal(folder / f"{number}.journal"))
                    servers.append(running.enter_context(_serve(entry, workload, plan, folder, number, journal)))
            for server in servers:
                with result.leaving_out(server.entry.label):
                    answered[server.entry.label] = _generate(server, workload, 1, folder)[0].requests
            for number in range(plan.rounds):
                for server in _rotate(servers, number):
                    label = server.entry.label
                    if label not in result.left_out:
                        with result.leaving_out(label):
                            figures = _load(server, workload, plan.seconds, folder)
                            answered[label] += int(figures["requests"])
                            result.add(label, figures)
        # By now they have ended, and what they still had to log is written.
        for server in servers:
            label = server.entry.label
            if label in result.rounds and server.entry.log is not Log.NONE:
                written = server.journal.finish() if server.journal else _count_records(server.output)
                result.lost[label] = max(0, answered[label] - written)


def _generate(server: _Server, workload: Workload, seconds: int, folder: Path) -> tuple[Answered, Usage, float]:
    """The load, the CPU time that it took the server, and how many seconds that was."""
    with ExitStack() as stack:
        # WebSockets are open before: what is measured is messages.
        clients = stack.enter_context(hold_websockets(server.address, workload)) if workload.websocket else []
        before, begin = server.session.measure_cpu(), monotonic()
        if workload.kind is Kind.ROOM:
            answered = broadcast(clients, seconds)
        elif workload.kind is Kind.ECHO:
            answered = echo(clients, seconds)
        else:
            answered = generate(workload, server.address, seconds, folder)
        return answered, server.session.measure_cpu() - before, monotonic() - begin


def _load(server: _Server, workload: Workload, seconds: int, folder: Path) -> Round:
    answered, used, elapsed = _generate(server, workload, seconds, folder)
    memory = server.session.measure_memory()
    if not answered.requests:
        raise ContenderError(f"nothing answered in {seconds} s under load")
    cpu_us = used.total / answered.requests * 1e6
    return {
        "cpu_us": cpu_us,
        "cpu_user_us": used.user / answered.requests * 1e6,
        "cpu_system_us": used.system / answered.requests * 1e6,
        "requests_per_s": answered.requests / answered.seconds,
        "requests_per_cpu_s": 1e6 / cpu_us if cpu_us else 0.0,
        # Far below 1 the load generator, or the other end of the log, was what held the server up.
        "busy": used.total / elapsed,
        "rss_kib": memory.rss,
        "pss_kib": memory.pss,
        **asdict(answered),
    }


def _measure_idle(result: Result, entries: Sequence[Entry], plan: Plan, folder: Path) -> None:
    for number in range(min(plan.rounds, _IDLE_ROUNDS)):
        for entry in _rotate(entries, number):
            if entry.label not in result.left_out:
                with result.leaving_out(entry.label), _serve(entry, result.workload, plan, folder, number) as server:
                    result.add(entry.label, _idle(server, result.workload, plan.seconds))


def _idle(server: _Server, workload: Workload, seconds: int) -> Round:
    for _ in range(_IDLE_REQUESTS):
        check_answer(server.address, workload)
    empty = server.session.measure_memory()
    with _hold(server.address, workload) as connections:
        sleep(_SETTLE)
        full = server.session.measure_memory()
        before = server.session.measure_cpu()
        sleep(seconds)
        used = server.session.measure_cpu() - before
        closed = count_closed(connections)
    if closed:
        raise ContenderError(f"closed {closed} of {workload.connections} idle connections")
    return {
        "connection_kib": (full.pss - empty.pss) / workload.connections,
        "idle_cpu_ms_per_s": used.total / seconds * 1e3,
        "rss_kib": full.rss,
        "pss_kib": full.pss,
        "pss_before_kib": empty.pss,
        "seconds": seconds,
    }


@contextmanager
def _hold(address: Address, workload: Workload) -> Iterator[list[socket.socket]]:
    if workload.websocket:
        with hold_websockets(address, workload) as clients:
            yield [client.connection for client in clients]
    else:
        with hold_connections(address, workload) as connections:
            yield connections


def _measure_starts(result: Result, entries: Sequence[Entry], plan: Plan, folder: Path) -> None:
    # The first is not counted: it writes the bytecode and brings the files into the page cache.
    for number in range(plan.starts + 1):
        for entry in _rotate(entries, number):
            if entry.label not in result.left_out:
                with result.leaving_out(entry.label):
                    begin = monotonic()
                    with _serve(entry, result.workload, plan, folder, number) as server:
                        elapsed, used = monotonic() - begin, server.session.measure_cpu()
                        memory = server.session.measure_memory()
                    if number:
                        figures = {"start_ms": elapsed * 1e3, "start_cpu_ms": used.total * 1e3}
                        result.add(entry.label, figures | {"rss_kib": memory.rss, "pss_kib": memory.pss})


def _measure_resets(result: Result, entries: Sequence[Entry], plan: Plan, folder: Path) -> None:
    workload = result.workload
    with ExitStack() as stack:
        servers: list[_Server] = []
        for number, entry in enumerate(entries):
            with result.leaving_out(entry.label):
                servers.append(stack.enter_context(_serve(entry, workload, plan, folder, number)))
        for server in servers:
            with result.leaving_out(server.entry.label):
                _time_answers(server, workload, 1)
        for number in range(plan.rounds):
            for server in _rotate(servers, number):
                if server.entry.label not in result.left_out:
                    with result.leaving_out(server.entry.label):
                        result.add(server.entry.label, _reset(server, workload, plan.seconds))


def _reset(server: _Server, workload: Workload, seconds: int) -> Round:
    quiet = _time_answers(server, workload, seconds)
    before = server.session.measure_memory()
    command = [sys.executable, "-m", "bench.resets", str(server.address)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as attack:
        try:
            assert attack.stdout is not None
            attack.stdout.readline()
            begin = monotonic()
            beside = _time_answers(server, workload, seconds)
            memory, elapsed = server.session.measure_memory(), monotonic() - begin
            output, _ = attack.communicate(timeout=_RECOVERY)
        finally:
            attack.kill()
    sent = json.loads(output)
    _recover(server.session)
    return {
        "p99_ratio": pick(beside, 0.99) / pick(quiet, 0.99),
        "quiet_p50_us": pick(quiet, 0.5),
        "quiet_p99_us": pick(quiet, 0.99),
        "p50_us": pick(beside, 0.5),
        "p99_us": pick(beside, 0.99),
        "answers": len(beside),
        "resets_per_s": sent["streams"] / elapsed,
        "attack_connections": sent["connections"],
        "growth_kib": memory.pss - before.pss,
        "rss_kib": memory.rss,
        "pss_kib": memory.pss,
    }


def _time_answers(server: _Server, workload: Workload, seconds: int) -> list[int]:
    """How many microseconds each answer took, the least first: one at a time, and over one connection.

    Raises:
        ContenderError: There was none, or a wrong one.
    """
    times = []
    try:
        with connect(server.address, workload) as connection:
            client = Http2Client(connection, workload)
            client.ask()
            end = monotonic() + seconds
            while (begin := monotonic()) < end:
                if client.ask() != (200, workload.expected):
                    raise ContenderError("wrong answer")
                times.append(round((monotonic() - begin) * 1e6))
                sleep(_PACE)
    except OSError as error:
        raise ContenderError(f"no answer: {type(error).__name__}: {error}") from error
    return sorted(times)


def _recover(session: Session) -> None:
    """Wait until the server does nothing: the next one is on the same processor."""
    end = monotonic() + _RECOVERY
    while monotonic() < end:
        before = session.measure_cpu().total
        sleep(0.2)
        if session.measure_cpu().total - before < 0.02:
            return


@contextmanager
def _serve(
    entry: Entry, workload: Workload, plan: Plan, folder: Path, number: int, journal: Journal | None = None
) -> Iterator[_Server]:
    """Start a contender and wait for its first answer.

    Raises:
        ContenderError: It is not installed, does not start, or answers wrongly.
    """
    require(entry.contender, workload)
    own = folder / f"{entry.contender.name}-{number}"
    own.mkdir()
    address: Address = own / "socket" if workload.unix else find_port()
    output = own / "output"
    certificate = make_certificate(own) if workload.tls else None
    launch = Launch(workload.application, address, entry.log, own, workload.http2, workload.websocket, certificate)
    command = entry.contender.command(launch)
    if journal is not None:
        command = journal.wrap(command)
    with Session(command, plan.server_cpu, output, _ENVIRONMENT) as session:
        try:
            wait_for_answer(address, workload, lambda: not session.ended)
            # A cold start ends with the answer, and is not to be longer by a second one.
            if workload.kind is not Kind.START:
                check_answer(address, workload)
        except ContenderError:
            sys.stderr.write(f"{entry.label} said:\n{output.read_text(encoding='utf-8', errors='replace')[-2000:]}\n")
            raise
        yield _Server(entry, session, address, output, journal)


def _rotate(items: Sequence[T], number: int) -> list[T]:
    """The items from another one on in each round: no place in the order is always the same one's."""
    if not items:
        return []
    first = number % len(items)
    return [*items[first:], *items[:first]]


def _count_records(path: Path) -> int:
    with path.open("rb") as file:
        return sum(_RECORD in line for line in file)
