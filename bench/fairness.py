"""How connections spread over workers that share one listener, and over such that have one each (SO_REUSEPORT).

    python -m bench.fairness [--workers 4] [--clients 64] [--seconds 5] [--rounds 3]

The workers are single processes, given their sockets: so both ways differ in nothing else. Told are the requests of the
worker with the fewest and of the one with the most, by an even share, and the CPU time of all for a request.
"""

import argparse
import asyncio
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from bench.machine import choose_cpus
from bench.processes import ROOT, Session
from bench.reloads import APPLICATION, Load

WARM: Final = 3.0
"""Seconds from the start of the processes to the first connection."""


def listen(workers: int, *, reuse: bool) -> list[socket.socket]:
    """A listener for each worker, or the same one for all."""
    sockets: list[socket.socket] = []
    for _ in range(workers):
        if sockets and not reuse:
            sockets.append(sockets[0])
            continue
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, reuse)
        sock.bind(sockets[0].getsockname() if sockets else ("127.0.0.1", 0))
        sock.listen(2048)
        sockets.append(sock)
    return sockets


async def measure(port: int, sessions: Sequence[Session], options: argparse.Namespace, *, keep: bool) -> str:
    """A row of figures."""
    load = Load(port, keep=keep)
    before = sum(session.measure_cpu().total for session in sessions)
    clients = [asyncio.create_task(load.run()) for _ in range(options.clients)]
    await asyncio.sleep(options.seconds)
    load.stopped = True
    await asyncio.gather(*clients)
    used = sum(session.measure_cpu().total for session in sessions) - before
    answered = load.pids.total()
    shares = sorted(count * len(sessions) / answered for count in load.pids.values())
    idle = len(sessions) - len(shares)
    least = 0.0 if idle else shares[0]
    return f"{answered} | {least:.2f} | {shares[-1]:.2f} | {used / answered * 1e6:.0f} | {load.lost.total()} |"


def run(options: argparse.Namespace, cpu: int, folder: Path, *, reuse: bool) -> None:
    """Both kinds of clients against one way to listen."""
    with ExitStack() as stack:
        sockets = listen(options.workers, reuse=reuse)
        for sock in sockets:
            stack.callback(sock.close)
        command = [sys.executable, "-m", "appserver", APPLICATION, "--no-access-log", "--log-level", "warning"]
        environment = {"PYTHONPATH": ":".join([str(ROOT), *filter(None, sys.path)])}
        sessions = [
            stack.enter_context(
                Session([*command, "--fd", str(fd)], cpu, folder / f"log{number}", environment, pass_fds=[fd])
            )
            for number, fd in enumerate(sock.fileno() for sock in sockets)
        ]
        port = sockets[0].getsockname()[1]

        async def all_clients() -> None:
            await asyncio.sleep(WARM)
            for keep in (True, False):
                row = await measure(port, sessions, options, keep=keep)
                what = f"{'one each' if reuse else 'shared'} | {'kept' if keep else 'new for each request'}"
                sys.stdout.write(f"| {what} | {row}\n")
                sys.stdout.flush()

        asyncio.run(all_clients())


def main() -> int:
    """Print a table, the ways to listen by turns."""
    parser = argparse.ArgumentParser(prog="python -m bench.fairness")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    cpu, load_cpu = choose_cpus()
    os.sched_setaffinity(0, {load_cpu})
    sys.stdout.write(
        "| Listener | connections | answered | least | most | CPU us/req | lost |\n|---|---|---|---|---|---|---|\n"
    )
    with TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            for reuse in (False, True):
                run(options, cpu, Path(folder), reuse=reuse)
    return 0


if __name__ == "__main__":
    sys.exit(main())
