"""The end of serving: what can be answered is answered, and what is left when the time is up is cut.

Draining loses nothing that can be answered: what waits in the backlog of our own sockets is accepted, open
connections get their next response with `Connection: close`, and idle ones are kept for the linger time, because a
client may be writing its next request at this moment. A socket that the service manager holds is left alone, and its
backlog is the next process's.
"""

import asyncio
from collections.abc import Sequence
from time import monotonic
from typing import Final

from appserver.net.acceptor import Acceptor
from appserver.net.endpoint import Endpoint
from appserver.settings import Settings
from appserver.telemetry.log import Log
from appserver.telemetry.text import show_count

TICK_SECONDS: Final = 0.05
"""It is asked this often whether all is answered."""

CANCEL_SECONDS: Final = 1.0
"""What applications get to leave after they have been cancelled."""

FLUSH_SECONDS: Final = 0.5
"""What a client gets to read its last answer when connections are cut."""


class Drain:
    """Ends the serving of one process.

    Args:
        settings: How long it may take.
        acceptors: One for each listener, with the endpoint that serves it; those for operators go on to the end.
        log: Where it is told what was cut.
        shared: The listeners are other processes' too.

    Attributes:
        hurried: There is no time any more, somebody has said: what still runs is to be cut.
    """

    def __init__(
        self, settings: Settings, acceptors: Sequence[tuple[Acceptor, Endpoint]], log: Log, *, shared: bool
    ) -> None:
        self._settings, self._acceptors, self._log, self._shared = settings, acceptors, log, shared
        self._served = [(acceptor, endpoint) for acceptor, endpoint in acceptors if not acceptor.listener.control]
        self._end = 0.0
        self.hurried = False

    def begin(self) -> None:
        """Count the time from now on."""
        self._end = monotonic() + self._settings.graceful_timeout

    @property
    def left(self) -> float:
        """Seconds until what still runs is cut."""
        return self._end - monotonic()

    async def run(self) -> int:
        """Answer what can be answered; the number of requests that had to be cut."""
        for acceptor, _ in self._served:
            acceptor.stop()
            acceptor.hurry(self._settings.linger)
            await acceptor.settled()
            if self._shared:
                acceptor.listener.close()  # our end of it: held on to, it would keep the address taken
        for _, endpoint in self._served:
            for _ in endpoint.drain_in_steps():
                await asyncio.sleep(0)
        while self._busy and not self.hurried and self.left > 0:
            await asyncio.sleep(TICK_SECONDS)
            for acceptor, endpoint in self._acceptors:
                acceptor.sweep(monotonic())
                endpoint.sweep(monotonic())
        return await self._cut()

    @property
    def _busy(self) -> bool:
        return any(
            acceptor.pending or endpoint.connections or endpoint.service.running for acceptor, endpoint in self._served
        )

    async def _cut(self) -> int:
        """Cancel the applications that still run, and end what connections are left."""
        for acceptor, endpoint in self._served:
            acceptor.abort()
            endpoint.cutting = True
        service = self._served[0][1].service
        cut, running = service.figures.requests, service.running
        if running or cut:
            why = "told to stop a second time" if self.hurried else "the graceful timeout has passed"
            what = [show_count(cut, "request")] if cut else []
            if len(running) > cut:
                what.append(show_count(len(running) - cut, "background task"))
            self._log.warning(f"Cut {' and '.join(what)}: {why}", code="drain_cut", requests_cut=cut)
            for task in running:
                task.cancel()
            if running:
                await asyncio.wait(running, timeout=CANCEL_SECONDS)
        endpoints = [endpoint for _, endpoint in self._served]
        for endpoint in endpoints:
            for connection in list(endpoint.connections):
                try:
                    connection.finish()
                except Exception as error:  # noqa: BLE001 - of ours; the others are to have their answers
                    connection.crash(error)
        left = FLUSH_SECONDS
        while left > 0 and any(endpoint.connections for endpoint in endpoints):
            await asyncio.sleep(TICK_SECONDS)
            left -= TICK_SECONDS
        for acceptor, endpoint in self._acceptors:
            acceptor.stop()
            for connection in list(endpoint.connections):
                connection.abort()
        return cut
