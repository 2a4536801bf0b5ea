"""What a master leaves to the next image of itself: its listeners, its workers, and what it has counted.

It is JSON, because another version of appserver reads it. A reader passes over what it does not know, and takes a
default for what it misses; what has no default here is what every version says and means the same by. What cannot be
told in this way needs another `FORMAT`, which versions that do not know it refuse while the old one still runs
(`process.upgrade`).

Times are of CLOCK_MONOTONIC, which goes on through an exec.
"""

import json
import os
import socket
from asyncio import AbstractEventLoop
from collections.abc import Iterable, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from time import monotonic
from typing import Any, Final, TypeVar

from appserver import __version__
from appserver.errors import AppserverError
from appserver.net.listeners import Listener
from appserver.process.crew import Crew
from appserver.process.generation import Generation
from appserver.process.handover import read_settings, write_settings
from appserver.process.policy import EXITED, LEAVING, SERVING, TABLE
from appserver.process.spawn import Adopted, Worker
from appserver.settings import Settings
from appserver.system.image import ESTATE
from appserver.telemetry.metrics import Metrics

FORMAT: Final = 1

R = TypeVar("R")


class EstateError(AppserverError):
    """What another version has left cannot be read."""


@dataclass(frozen=True, slots=True)
class ListenerRecord:
    """A `net.listeners.Listener`; `device` and `inode` are those of a UNIX socket's file that is ours."""

    fd: int
    name: str
    control: bool = False
    inherited: bool = False
    activated: bool = False
    tls: bool = False
    http2: bool = False
    path: str | None = None
    device: int = 0
    inode: int = 0


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """A `process.spawn.Worker`: a child that has not been waited for, so that its process id is no other's."""

    pid: int
    line: int
    stacks: int
    number: int
    state: str
    since: float
    beat: float
    begun: float
    been: list[str] = field(default_factory=list)
    failures: int = 0
    succeeded: bool = False
    initial: int = 0
    report: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class GenerationRecord:
    """A `process.generation.Generation`, its settings as a file of settings has them."""

    number: int
    wanted: int
    voice: int
    workers: list[WorkerRecord]
    settings: dict[str, Any] = field(default_factory=dict)
    environ: dict[str, str] = field(default_factory=dict)
    retired: bool = False


@dataclass(frozen=True, slots=True)
class Tally:
    """What a master has counted since the service began.

    Attributes:
        begun: When that was.
        last: The number of the last generation.
        lost: Workers that ended without having been told to.
        restarts: Workers that another one has replaced, by cause.
        past: Figures of workers that are gone.
        reloads: That have succeeded, and so on.
        drained: An operator has ordered it.
        memory_pressure: How often memory was short.
    """

    begun: float = field(default_factory=monotonic)
    last: int = 0
    lost: int = 0
    restarts: dict[str, int] = field(default_factory=dict)
    past: dict[str, Any] = field(default_factory=dict)
    reloads: int = 0
    reloads_failed: int = 0
    upgrades: int = 0
    upgrades_failed: int = 0
    drained: bool = False
    memory_pressure: int = 0


@dataclass(frozen=True, slots=True)
class Estate:
    """All that is left.

    Attributes:
        format: `FORMAT` of the version that wrote it.
        version: That one's name.
        listeners: Open sockets.
        generations: The one that serves, and those that leave.
        current: The number of the one that serves.
        fixed: Settings that only a restart changes, and all others as they were at the start.
        tally: What was counted.
        written: When this was written.
    """

    format: int
    version: str
    listeners: list[ListenerRecord]
    generations: list[GenerationRecord]
    current: int
    fixed: dict[str, Any]
    tally: Tally
    written: float = field(default_factory=monotonic)

    @property
    def descriptors(self) -> list[int]:
        """What the next image has to inherit."""
        return [
            *(listener.fd for listener in self.listeners),
            *(generation.voice for generation in self.generations),
            *(
                descriptor
                for generation in self.generations
                for worker in generation.workers
                for descriptor in (worker.line, worker.stacks)
            ),
        ]


# --- leaving ----------------------------------------------------------------------------------------------------------


def gather(listeners: Iterable[Listener], crew: Crew, fixed: Settings, tally: Tally) -> Estate:
    """Write down what there is, with a crew that serves."""
    return Estate(
        FORMAT,
        __version__,
        [_record_listener(listener) for listener in listeners],
        [_record_generation(generation) for generation in crew.generations],
        crew.current.number if crew.current is not None else 0,
        write_settings(fixed),
        replace(tally, last=crew.last, lost=crew.lost, restarts=dict(crew.restarts), past=crew.past.dump()),
    )


def write(estate: Estate) -> int:
    """Write an estate into a file without a name (memfd_create(2)).

    Returns:
        Its descriptor, to be closed by the caller.
    """
    descriptor = os.memfd_create("appserver-estate")
    with os.fdopen(os.dup(descriptor), "w") as file:
        json.dump(asdict(estate), file)
    return descriptor


def _record_listener(listener: Listener) -> ListenerRecord:
    record = ListenerRecord(
        listener.sock.fileno(),
        listener.name,
        listener.control,
        listener.inherited,
        listener.activated,
        listener.tls,
        listener.http2,
    )
    if listener.path is None:
        return record
    path, status = listener.path
    return replace(record, path=str(path), device=status.st_dev, inode=status.st_ino)


def _record_generation(generation: Generation) -> GenerationRecord:
    workers = [_record_worker(worker) for worker in generation.workers.values()]
    settings, environ = write_settings(generation.settings), dict(generation.environ)
    return GenerationRecord(
        generation.number, generation.wanted, generation.voice, workers, settings, environ, generation.retired
    )


def _record_worker(worker: Worker) -> WorkerRecord:
    times = worker.since, worker.beat, worker.begun
    return WorkerRecord(
        worker.pid,
        *worker.descriptors,
        worker.number,
        worker.state,
        *times,
        sorted(worker.been),
        worker.failures,
        worker.succeeded,
        worker.initial,
        worker.report.dump() if worker.report is not None else None,
    )


# --- taking over ------------------------------------------------------------------------------------------------------


def read(descriptor: int) -> Estate:
    """Read an estate; the file is closed.

    Raises:
        EstateError: It is none, or of another format.
    """
    try:
        with os.fdopen(descriptor) as file:
            file.seek(0)
            table = json.load(file)
        if not isinstance(table, dict) or table.get("format") != FORMAT:
            raise EstateError(
                f"{__version__} reads the format {FORMAT} of what another version has left, and this is"
                f" {table.get('format') if isinstance(table, dict) else table!r}"
            )
        generations = [
            _pick(GenerationRecord, {**one, "workers": [_pick(WorkerRecord, worker) for worker in one["workers"]]})
            for one in table["generations"]
        ]
        listeners = [_pick(ListenerRecord, one) for one in table["listeners"]]
        tally = _pick(Tally, table["tally"])
        estate = _pick(Estate, {**table, "generations": generations, "listeners": listeners, "tally": tally})
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise EstateError(f"what another version has left cannot be read: {error!r}") from error
    if estate.current not in {generation.number for generation in generations}:
        raise EstateError(f"what another version has left has no generation {estate.current}, and that one serves")
    return estate


def take(environ: MutableMapping[str, str]) -> Estate:
    """Take the estate that the environment names; nothing of it is inherited further.

    Raises:
        EstateError: As `read` does.
    """
    descriptor = environ.pop(ESTATE)
    try:
        estate = read(int(descriptor))
        for kept in estate.descriptors:
            os.set_inheritable(kept, False)
    except (OSError, ValueError) as error:
        raise EstateError(f"{ESTATE}={descriptor!r}: what is named there is not open: {error}") from error
    return estate


def adopt_listeners(estate: Estate) -> list[Listener]:
    """The sockets, as they were."""
    return [_adopt_listener(record) for record in estate.listeners]


def _adopt_listener(record: ListenerRecord) -> Listener:
    sock = socket.socket(fileno=record.fd)
    sock.setblocking(False)
    listener = Listener(
        sock,
        record.name,
        record.control,
        inherited=record.inherited,
        activated=record.activated,
        tls=record.tls,
        http2=record.http2,
    )
    if record.path is not None:
        path = Path(record.path)
        with suppress(OSError):
            status = path.lstat()
            if (status.st_dev, status.st_ino) == (record.device, record.inode):
                listener.path = path, status
    return listener


def adopt_crew(estate: Estate, crew: Crew, loop: AbstractEventLoop) -> Generation:
    """Give a new crew the generations that there are; the one that serves."""
    generations = []
    for record in estate.generations:
        complete = loop.create_future()
        complete.set_result(None)
        generation = Generation(
            record.number,
            read_settings(record.settings),
            record.wanted,
            record.environ,
            complete,
            voice=record.voice,
            retired=record.retired,
        )
        for kept in record.workers:
            worker = generation.workers[kept.pid] = adopt_worker(kept, generation)
            worker.forgive(monotonic() - estate.written)  # nobody has listened meanwhile
        generations.append(generation)
    current = next(generation for generation in generations if generation.number == estate.current)
    crew.lost = estate.tally.lost
    crew.restarts.update(estate.tally.restarts)
    crew.adopt(generations, current, estate.tally.last, _read_figures(estate.tally.past) or Metrics())
    return current


def _pick(kind: type[R], table: Mapping[str, Any]) -> R:
    names = {one.name for one in fields(kind)}  # type: ignore[arg-type]  # a dataclass
    return kind(**{name: value for name, value in table.items() if name in names})


def adopt_worker(record: WorkerRecord, generation: Generation) -> Worker:
    """A worker that an image before this one has started.

    Raises:
        OSError: It is no child of this process.
    """
    line = socket.socket(fileno=record.line)
    line.setblocking(False)
    worker = Worker(record.number, generation.number, generation.settings, Adopted(record.pid), line, record.stacks)
    # A state that this version has no name for: whatever it is in, it is not to be disturbed, and it will end.
    worker.state = record.state if (record.state, EXITED) in TABLE else LEAVING
    worker.been = {*record.been, worker.state, *((SERVING,) if worker.state == LEAVING else ())}
    worker.since, worker.beat, worker.begun = record.since, record.beat, record.begun
    worker.failures, worker.succeeded = record.failures, record.succeeded
    worker.initial, worker.report = record.initial, _read_figures(record.report)
    return worker


def _read_figures(table: Mapping[str, Any] | None) -> Metrics | None:
    """Figures, as far as they are any."""
    if table is None:
        return None
    try:
        return Metrics.load(table)
    except (ValueError, TypeError, AttributeError, OverflowError):
        return None
