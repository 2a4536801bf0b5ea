"""Clients that know which worker they talk to, so that a loss can be laid at the door of one that was killed."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from time import monotonic

CLIENTS = 8
PAUSE = 0.05
"""Seconds between two requests of a client: all of them stay under what the journal takes of one service."""
PATIENCE = 30.0
REQUEST = b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Loss:
    """A request that was sent and not answered, or a connection that was not had.

    Attributes:
        worker: The process that had answered on the connection before; None if none had.
        text: What the client saw.
    """

    worker: int | None
    text: str


@dataclass(slots=True)
class Witness:
    """Keep-alive clients of an application that answers with its process id.

    Attributes:
        path: Of the service's UNIX socket.
        answered: How many answers each client has had.
        workers: Who gave the last one.
        lost: What went wrong.
        slowest: Seconds of the slowest answer, connecting included, since somebody set it back.
    """

    path: str
    answered: list[int] = field(default_factory=lambda: [0] * CLIENTS)
    workers: list[int | None] = field(default_factory=lambda: [None] * CLIENTS)
    lost: list[Loss] = field(default_factory=list)
    slowest: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Run the clients for the time of a with statement, in a thread of theirs."""
        thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    async def _run(self) -> None:
        await asyncio.gather(*(self._client(number) for number in range(CLIENTS)))

    async def _client(self, number: int) -> None:
        while not self._stop.is_set():
            worker: int | None = None
            began = monotonic()
            try:
                reader, writer = await asyncio.open_unix_connection(self.path)
                with closing(writer):
                    leaving = False
                    while not (leaving or self._stop.is_set()):
                        async with asyncio.timeout(PATIENCE):
                            worker, leaving = await _exchange(reader, writer)
                        self.answered[number] += 1
                        self.workers[number] = worker
                        self.slowest = max(self.slowest, monotonic() - began)
                        await asyncio.sleep(PAUSE)
                        began = monotonic()
            except (OSError, EOFError, ValueError) as error:
                self.lost.append(Loss(worker, f"{error!r} after {monotonic() - began:.2f} s"))
                await asyncio.sleep(PAUSE)


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[int, bool]:
    """One request and its answer: who has answered, and whether it closes the connection."""
    writer.write(REQUEST)
    await writer.drain()
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
    body = await reader.readexactly(int(fields[b"content-length"]))
    if not head.startswith(b"http/1.1 200 "):
        raise ValueError(f"{head!r} {body!r}")
    return int(body), fields.get(b"connection") == b"close"
