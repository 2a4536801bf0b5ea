"""--preload: the memory of workers that share a model, and how long a killed worker is missed.

    python -m bench.preload [--mib 300] [--workers 1,2,4,8] [--rounds 5]

Memory is PSS (proc_pid_smaps(5)) of all processes of a server, the master's too, when each worker has answered requests
that read all of the model. A model is one object of bytes, or as much memory in millions of small objects: CPython
counts references in the objects themselves, so a worker that reads these gets pages of its own.

A worker is missed from its SIGKILL to the next answer, with one worker, of an application whose import takes a second.
"""

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from statistics import median
from time import monotonic, sleep
from typing import Final

from bench.addresses import find_port
from bench.processes import Session

APPLICATION: Final = "bench.apps.model:app"
PATIENCE: Final = 300.0
"""Seconds that anything may take."""

SERVERS: Final[Mapping[str, Sequence[str]]] = {
    "appserver": ("appserver", "--no-access-log", "--workers", "{workers}", "--port", "{port}"),
    "appserver --preload": ("appserver", "--no-access-log", "--preload", "--workers", "{workers}", "--port", "{port}"),
    "gunicorn --preload": (
        *("gunicorn", "--preload", "--worker-class", "uvicorn_worker.UvicornWorker", "--timeout", "300"),
        *("--workers", "{workers}", "--bind", "127.0.0.1:{port}"),
    ),
}


class Server:
    """A server that answers."""

    def __init__(self, session: Session, port: int) -> None:
        self.session, self._port = session, port

    def ask(self, target: str) -> int | None:
        """Which worker answers; None where nobody does."""
        connection = HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        try:
            connection.request("GET", target)
            return int(connection.getresponse().read())
        except (OSError, HTTPException, ValueError):
            return None
        finally:
            connection.close()

    def until(self, workers: int, target: str) -> set[int]:
        """Ask until so many workers have answered; which."""
        found: set[int] = set()
        end = monotonic() + PATIENCE
        while len(found) < workers:
            if monotonic() > end or self.session.ended:
                raise RuntimeError(f"{len(found)} of {workers} workers have answered")
            with ThreadPoolExecutor(workers) as pool:
                asked = []
                for _ in range(workers):
                    asked.append(pool.submit(self.ask, target))
                    sleep(0.02)  # one after the other: a worker that reads takes no other meanwhile
                answered = {pid for one in asked if (pid := one.result()) is not None}
            found |= answered
            if not answered:
                sleep(0.05)
        return found


@contextmanager
def running(name: str, workers: int, **variables: str) -> Iterator[Server]:
    """A server of that name."""
    port = find_port()
    words = [word.format(workers=workers, port=port) for word in SERVERS[name]]
    # On all processors: with one a worker that has just answered gets the next request as well.
    cpus = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", words[0], APPLICATION, *words[1:]]
        with Session(command, cpus, Path(folder, "log"), {**os.environ, **variables}) as session:
            yield Server(session, port)


def measure_memory(name: str, workers: int, kind: str, mib: int) -> float:
    """PSS in MiB, when all workers have read the model twice."""
    with running(name, workers, MODEL_KIND=kind, MODEL_MIB=str(mib)) as server:
        for _ in range(2):
            server.until(workers, "/read")
        return server.session.measure_memory().pss / 1024


def measure_absence(name: str) -> float:
    """Seconds from the end of the only worker to the next answer."""
    with running(name, 1, IMPORT_SECONDS="1") as server:
        (pid,) = server.until(1, "/")
        os.kill(pid, signal.SIGKILL)
        begun = monotonic()
        while (answered := server.ask("/")) in (None, pid):
            if monotonic() - begun > PATIENCE:
                raise RuntimeError(f"no answer after the end of {pid}: {answered}")
            sleep(0.005)
        return monotonic() - begun


def main() -> int:
    """Measure what the options ask for, and print it as tables of Markdown."""
    parser = argparse.ArgumentParser(prog="python -m bench.preload", description=__doc__.partition("\n")[0])
    parser.add_argument("--mib", type=int, default=300, help="size of the model")
    parser.add_argument("--workers", default="1,2,4,8", help="numbers of workers")
    parser.add_argument("--rounds", type=int, default=5, help="kills of a worker")
    options = parser.parse_args()
    numbers = [int(number) for number in options.workers.split(",")]
    for kind in ("bytes", "objects"):
        tell(f"PSS in MiB, a model of {options.mib} MiB ({kind}), and the ratio to one worker\n")
        tell("| Workers | " + " | ".join(map(str, numbers)) + " |\n|---|" + "---|" * len(numbers))
        for name in SERVERS:
            sizes = [measure_memory(name, number, kind, options.mib) for number in numbers]
            cells = [f"{size:.0f} ({size / sizes[0]:.2f})" for size in sizes]
            tell(f"| {name} | " + " | ".join(cells) + " |")
        tell("")
    tell("Seconds without the only worker, after it was killed; an import of 1 s\n")
    tell("| Server | Median | Range |\n|---|---|---|")
    for name in SERVERS:
        times = [measure_absence(name) for _ in range(options.rounds)]
        tell(f"| {name} | {median(times):.2f} | {min(times):.2f} to {max(times):.2f} |")
    return 0


def tell(line: str) -> None:
    """Write a line of the tables, as soon as it is known."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
