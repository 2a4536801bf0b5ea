"""Figures for statsd and dogstatsd: sent every few seconds, as what has been added since the last time.

Names are gunicorn's where it has them, behind our own prefix: `requests`, `request.status.200`, `request.duration`,
`workers`, `backlog`. A datagram holds several lines, as https://github.com/statsd/statsd/blob/master/docs/metric_types.md
allows, and tags are those of https://docs.datadoghq.com/developers/dogstatsd/datagram_shell.

Nobody ever waits for it. What cannot be sent is lost, and told once.
"""

import signal
import socket
from asyncio import AbstractEventLoop, Future, Task, TimerHandle
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from errno import EINVAL
from threading import Thread
from typing import Any, Final, TypeAlias

from appserver.binds import TcpBind, UnixBind
from appserver.telemetry.log import Log
from appserver.telemetry.metrics import Metrics, Snapshot, quantile

INTERVAL_SECONDS: Final = 5.0
"""Servers of statsd sum up what comes in 10 s."""

DATAGRAM_SIZE: Final = 1432
"""Bytes that pass any Ethernet in one piece, as the documentation of statsd has it."""

SAMPLES: Final = 50
"""Durations in an interval, at most: evenly over all of them, each with the sample rate that stands for the rest."""

STEADY: Final = 2
"""Times that sending must have gone well before a failure is told again: with nobody there, every other one does."""

_Found: TypeAlias = Sequence[tuple[Any, ...]]
"""Addresses, as socket.getaddrinfo() gives them."""


class Statsd:
    """Sends figures to a server of statsd.

    Args:
        address: Of the server.
        prefix: Of all names; empty for none.
        tags: Of dogstatsd, `name:value,name`; empty for none.
        take: What is to be told now.
        loop: The running loop.
        log: For what goes wrong.
    """

    __slots__ = (
        "_address",
        "_before",
        "_failures",
        "_log",
        "_loop",
        "_opening",
        "_prefix",
        "_sock",
        "_steady",
        "_tags",
        "_take",
        "_timer",
    )

    def __init__(
        self,
        address: TcpBind | UnixBind,
        prefix: str,
        tags: str,
        take: Callable[[], Snapshot],
        loop: AbstractEventLoop,
        log: Log,
    ) -> None:
        self._address, self._take, self._loop, self._log = address, take, loop, log
        self._prefix = f"{prefix}." if prefix else ""
        self._tags = f"|#{tags}" if tags else ""
        self._before = Snapshot("", Metrics(), (), None)
        self._sock: socket.socket | None = None
        self._opening: Task[None] | None = None
        self._timer: TimerHandle | None = None
        self._steady = STEADY
        self._failures = 0

    def start(self) -> None:
        """Begin: with what is counted from now on, not with what an image before this one has told."""
        self._before = self._take()
        self._opening = self._loop.create_task(self._open())
        self._timer = self._loop.call_later(INTERVAL_SECONDS, self._tick)

    def close(self) -> None:
        """Send what has come together since the last time, and end."""
        if self._timer is not None:
            self._timer.cancel()
        if self._opening is not None:
            self._opening.cancel()
        self.send()
        self._drop()

    def _tick(self) -> None:
        self._timer = self._loop.call_later(INTERVAL_SECONDS, self._tick)
        self.send()
        if self._sock is None and (self._opening is None or self._opening.done()):
            self._opening = self._loop.create_task(self._open())

    async def _open(self) -> None:
        """Look the server up anew: its address may have changed."""
        address = self._address
        try:
            if isinstance(address, UnixBind):
                path = address.path
                self._connect(socket.AF_UNIX, "\0" + path[1:] if path.startswith("@") else path)
            else:
                # First IPv4, as other senders do; where nobody is there, the next one.
                found = sorted(await self._look_up(address), key=lambda one: one[0] != socket.AF_INET)
                family, _, _, _, place = found[self._failures % len(found)]
                self._connect(family, place)
        except OSError as error:
            self._fail(error)

    async def _look_up(self, address: TcpBind) -> _Found:
        """Ask for its addresses, in a thread of its own: those of the loop are waited for when the process ends.

        Raises:
            OSError: It has none, or nobody can tell.
        """
        found: Future[_Found] = self._loop.create_future()

        def settle(addresses: _Found, error: Exception | None) -> None:
            if found.done():  # cancelled
                return
            if error is None:
                found.set_result(addresses)
            else:
                found.set_exception(error)

        def ask() -> None:
            # Signals are for the main thread: what this one takes in the moment of an upgrade's exec would be gone.
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            addresses: _Found = ()
            error = None
            try:
                addresses = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_DGRAM)
            except OSError as raised:
                error = raised
            except UnicodeError as raised:  # a part of its name is empty, or too long
                error = OSError(EINVAL, str(raised))
            with suppress(RuntimeError):  # the loop has ended meanwhile
                self._loop.call_soon_threadsafe(settle, addresses, error)

        Thread(target=ask, name="appserver-statsd", daemon=True).start()
        return await found

    def _connect(self, family: int, address: str | tuple[object, ...]) -> None:
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            sock.connect(address)
        except OSError:
            sock.close()
            raise
        self._sock = sock

    def send(self) -> None:
        """Send what has come together since the last time."""
        if self._sock is None:
            return
        after = self._take()
        lines = (f"{self._prefix}{line}{self._tags}" for line in write_lines(self._before, after))
        self._before = after
        try:
            for datagram in pack(lines):
                with suppress(BlockingIOError):  # it reads too slowly
                    self._sock.send(datagram)
        except OSError as error:
            self._fail(error)
        else:
            self._steady += 1

    def _fail(self, error: OSError) -> None:
        if self._steady < STEADY:
            self._failures += 1  # not the first time: a server that is started anew has the same address
        else:
            self._log.warning(f"No figures reach statsd at {self._address}: {error.strerror}", errno=error.errno)
        self._steady = 0
        self._drop()

    def _drop(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None


def write_lines(before: Snapshot, after: Snapshot) -> Iterator[str]:
    """What has been added, and how it is now; one line for each, without prefix and tags."""
    old = _counts(before)
    for name, count in _counts(after).items():
        if added := count - old.get(name, 0):
            yield f"{name}:{added}|c"
    for name, value in _gauges(after).items():
        yield f"{name}:{value:g}|g"
    latencies = Counter(after.metrics.latencies) - Counter(before.metrics.latencies)
    number = latencies.total()
    samples = min(number, SAMPLES)
    rate = f"|@{samples / number:.6g}" if samples < number else ""
    for index in range(samples):
        yield f"request.duration:{quantile(latencies, (index + 0.5) / samples) * 1000:.3f}|ms{rate}"


def pack(lines: Iterable[str]) -> Iterator[bytes]:
    """Datagrams of as many lines as go into each."""
    datagram = b""
    for line in lines:
        data = line.encode()
        if datagram and len(datagram) + 1 + len(data) > DATAGRAM_SIZE:
            yield datagram
            datagram = b""
        datagram = datagram + b"\n" + data if datagram else data
    if datagram:
        yield datagram


def _counts(snapshot: Snapshot) -> dict[str, int]:
    metrics, supervision = snapshot.metrics, snapshot.supervision
    counts = {
        "requests": sum(metrics.statuses.values()),
        "requests.failed": metrics.failed,
        "requests.refused": metrics.refused,
        "connections.accepted": metrics.accepted,
        "websockets.opened": metrics.websockets_opened,
        "bytes.received": metrics.bytes_received,
        "bytes.sent": metrics.bytes_sent,
        "handshakes.failed": metrics.handshakes_failed,
        "log.dropped": metrics.log_dropped,
        "backlog.dropped": sum(backlog.dropped for backlog in snapshot.backlogs),
        **{f"request.status.{status}": count for status, count in metrics.statuses.items()},
    }
    if supervision is not None:
        counts |= {f"workers.restarted.{cause}": count for cause, count in supervision.restarts.items()}
        counts |= {f"reloads.{outcome}": count for outcome, count in supervision.reloads.items()}
    return counts


def _gauges(snapshot: Snapshot) -> dict[str, float]:
    metrics, supervision = snapshot.metrics, snapshot.supervision
    gauges: dict[str, float] = {
        "connections": metrics.connections,
        "requests.in_flight": metrics.requests,
        "websockets": metrics.websockets,
        "loop_lag": metrics.loop_lag * 1000,
    }
    if snapshot.backlogs:
        gauges["backlog"] = sum(backlog.waiting for backlog in snapshot.backlogs)
    if supervision is not None:
        gauges["workers"] = sum(supervision.workers.values())
    return gauges
