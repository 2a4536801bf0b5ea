"""Reloads and restarts under load: what clients that keep their connections lose by them.

    python -m bench.reloads [--servers appserver,uvicorn] [--clients 32] [--times 3] [--workers 2]

A reload is SIGHUP to the main process. A restart is what a service manager does that holds the socket: SIGTERM to the
main process, and a new one on the same socket as soon as that has ended. Clients are good ones: they ask for one page
after the other, keep the connection until they are told that it is closed, and look before each request whether it is.
What is counted as lost is a request that was sent, or a connection that was asked for, and not answered.
"""

import argparse
import asyncio
import os
import random
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Final

from bench.machine import choose_cpus
from bench.processes import ROOT, Session

APPLICATION: Final = "bench.apps.pid:app"
PATIENCE: Final = 15.0
"""Seconds that an answer, a start and an end may take."""
PAUSE: Final = 0.02
"""Seconds between two requests of a client, at most."""


@dataclass(frozen=True, slots=True)
class Server:
    """One server: its command line for workers, and for a port or an inherited socket."""

    module: str
    options: tuple[str, ...]
    port: tuple[str, ...]
    inherited: tuple[str, ...] | None
    """With `{}` for the descriptor; None where it takes none."""

    def command(self, workers: int, port: int, descriptor: int | None) -> list[str]:
        """The command line; raises `LookupError` where it takes no descriptor."""
        if descriptor is not None and self.inherited is None:
            raise LookupError("takes no inherited socket")
        where = self.port if descriptor is None else self.inherited or ()
        at = [word.format(port if descriptor is None else descriptor) for word in where]
        return [sys.executable, "-m", self.module, APPLICATION, "--workers", str(workers), *self.options, *at]


_GUNICORN: Final = ("--log-level", "warning", "--no-control-socket")

SERVERS: Final = {
    "appserver": Server("appserver", ("--log-level", "warning", "--no-access-log"), ("--port", "{}"), ("--fd", "{}")),
    "uvicorn": Server("uvicorn", ("--log-level", "warning", "--no-access-log"), ("--port", "{}"), ("--fd", "{}")),
    "gunicorn, asgi": Server("gunicorn", ("-k", "asgi", *_GUNICORN), ("--bind", "127.0.0.1:{}"), ("--bind", "fd://{}")),
    "gunicorn, uvicorn": Server(
        "gunicorn",
        ("-k", "uvicorn_worker.UvicornWorker", *_GUNICORN),
        ("--bind", "127.0.0.1:{}"),
        ("--bind", "fd://{}"),
    ),
    "granian": Server(
        "granian", ("--interface", "asgi", "--log-level", "warning", "--no-access-log"), ("--port", "{}"), None
    ),
    "hypercorn": Server("hypercorn", ("--log-level", "warning"), ("--bind", "127.0.0.1:{}"), ("--bind", "fd://{}")),
}


@dataclass(slots=True)
class Load:
    """Clients, and what became of their requests.

    Attributes:
        times: Seconds of each answer, with the connection where it needed a new one.
        lost: How, and how often.
        closed: Connections that were found closed before a request was sent: no loss.
        pids: The processes that have answered, and how often.
        keep: Connections are kept; else each request has its own.
    """

    port: int
    keep: bool = True
    times: list[float] = field(default_factory=list)
    lost: Counter[str] = field(default_factory=Counter)
    closed: int = 0
    pids: Counter[bytes] = field(default_factory=Counter)
    stopped: bool = False

    async def run(self) -> None:
        """One client."""
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not self.stopped:
            await asyncio.sleep(random.random() * PAUSE)
            if streams is not None and streams[0].at_eof():
                self.closed += 1
                streams[1].close()
                streams = None
            began = monotonic()
            try:
                async with asyncio.timeout(PATIENCE):
                    if streams is None:
                        streams = await asyncio.open_connection("127.0.0.1", self.port)
                    keeps = await self.ask(*streams)
            except (OSError, EOFError, TimeoutError, ValueError) as error:
                self.lost[type(error).__name__] += 1
                keeps = False
            else:
                self.times.append(monotonic() - began)
            if not keeps and streams is not None:
                streams[1].close()
                streams = None
        if streams is not None:
            streams[1].close()

    async def ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether the connection is kept."""
        last = b"" if self.keep else b"Connection: close\r\n"
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % last)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith(b"http/1.1 200"):
            raise ValueError(head.partition(b"\r\n")[0])
        self.pids[await reader.readexactly(7)] += 1
        return b"\r\nconnection: close" not in head


@contextmanager
def _listening() -> Iterator[socket.socket]:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen(2048)
        listener.set_inheritable(True)
        yield listener


class Bench:
    """Runs one server through its reloads, or restarts."""

    def __init__(self, server: Server, options: argparse.Namespace, cpu: int, folder: Path) -> None:
        self._server, self._options, self._cpu, self._folder = server, options, cpu, folder

    def run(self, *, restart: bool) -> Load:
        """What the clients have met; raises `LookupError` and `TimeoutError` where it cannot be measured."""
        with _listening() as listener:
            port = listener.getsockname()[1]
            if not restart:
                listener.close()  # to be bound by the server itself
            start = self._starter(port, listener.fileno() if restart else None)
            return asyncio.run(self._measure(port, start, restart=restart))

    def _starter(self, port: int, descriptor: int | None) -> Callable[[], Session]:
        command = self._server.command(self._options.workers, port, descriptor)
        passed = () if descriptor is None else (descriptor,)
        environment = {"PYTHONPATH": ":".join([str(ROOT), *filter(None, sys.path)])}
        return lambda: Session(command, self._cpu, self._folder / "log", environment, pass_fds=passed)

    async def _measure(self, port: int, start: Callable[[], Session], *, restart: bool) -> Load:
        load = Load(port)
        session = start()
        try:
            await self._until_up(load)
            clients = [asyncio.create_task(load.run()) for _ in range(self._options.clients)]
            await asyncio.sleep(self._options.settle)
            for _ in range(self._options.times):
                session.tell(signal.SIGTERM if restart else signal.SIGHUP)
                if restart:
                    await self._until_ended(session)
                    session = start()
                await asyncio.sleep(self._options.settle)
            load.stopped = True
            await asyncio.gather(*clients)
        finally:
            session.stop()
        return load

    async def _until_ended(self, session: Session) -> None:
        async with asyncio.timeout(PATIENCE):
            while not session.ended:  # noqa: ASYNC110 - a process, which sets no event
                await asyncio.sleep(0.005)
        session.stop()  # what it has left behind

    async def _until_up(self, load: Load) -> None:
        async with asyncio.timeout(PATIENCE):
            while True:
                with suppress(OSError, EOFError):
                    reader, writer = await asyncio.open_connection("127.0.0.1", load.port)
                    try:
                        await load.ask(reader, writer)
                    finally:
                        writer.close()
                    load.pids.clear()
                    return
                await asyncio.sleep(0.05)


def _row(name: str, load: Load) -> str:
    times = sorted(load.times)
    p99, longest = times[len(times) * 99 // 100] * 1000, times[-1] * 1000
    how = ", ".join(f"{count} {kind}" for kind, count in load.lost.most_common())
    return (
        f"| {name} | {load.lost.total()} | {how or '-'} | {len(times)} | {p99:.0f} | {longest:.0f} | {load.closed} |"
        f" {len(load.pids)} |"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Print two tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.reloads")
    parser.add_argument("--servers", default=",".join(name for name in SERVERS if "," not in name) + ",gunicorn")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--settle", type=float, default=4.0, help="seconds before and after each")
    options = parser.parse_args(argv)
    wanted = set(options.servers.split(","))
    chosen = {name: server for name, server in SERVERS.items() if name.partition(",")[0] in wanted}
    cpu, load_cpu = choose_cpus()
    os.sched_setaffinity(0, {load_cpu})
    with TemporaryDirectory() as folder:
        for restart in (False, True):
            sys.stdout.write(
                f"\n{options.times} {'restarts' if restart else 'reloads'}, {options.clients} clients,"
                f" {options.workers} workers\n\n"
                "| Server | lost | how | answered | p99 ms | max ms | found closed | processes |\n"
                "|---|---|---|---|---|---|---|---|\n"
            )
            for name, server in chosen.items():
                try:
                    row = _row(name, Bench(server, options, cpu, Path(folder)).run(restart=restart))
                except (LookupError, TimeoutError) as error:
                    row = f"| {name} | - | {str(error) or 'did not start or end in time'} | | | | | |"
                if find_spec(server.module) is None:
                    row = f"| {name} | - | not installed | | | | | |"
                sys.stdout.write(row + "\n")
                sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
