"""What a serving process tells of itself: its own counters, with those that its parts keep."""

import json
from asyncio import AbstractEventLoop
from collections.abc import Callable, Sequence
from time import time
from typing import TYPE_CHECKING, Any

from appserver import __version__
from appserver.binds import parse_statsd
from appserver.net.acceptor import Acceptor
from appserver.net.backlog import read_backlogs
from appserver.settings import Settings
from appserver.telemetry.log import Log
from appserver.telemetry.metrics import Metrics, Snapshot, Window, summarize
from appserver.telemetry.text import show_expiry, show_time

if TYPE_CHECKING:
    from appserver.net.renewal import Certificates
    from appserver.telemetry.statsd import Statsd


class Meter:
    """Reads the figures of a process.

    Args:
        figures: Of its service.
        acceptors: Of all listeners.
        log: Counts the records that it dropped.
        certificates: What TLS is spoken with; None without TLS.
    """

    __slots__ = ("_acceptors", "_certificates", "_figures", "_log", "_window")

    def __init__(
        self, figures: Metrics, acceptors: Sequence[Acceptor], log: Log, certificates: "Certificates | None"
    ) -> None:
        self._figures, self._acceptors, self._log, self._certificates = figures, acceptors, log, certificates
        self._window = Window()

    def look(self, lag: float) -> None:
        """Take the latencies of the last second; `lag` is by how much that comes late, in seconds."""
        self._window.look(self._figures.latencies, lag)

    def read(self) -> Metrics:
        """All figures, as they are now."""
        certificates = self._certificates
        handshakes = (acceptor.handshakes for acceptor in self._acceptors)
        # A sum is new: who keeps it, to compare it with a later one, must not see it go on counting.
        return self._figures + Metrics(
            log_dropped=self._log.dropped,
            handshakes_failed=sum(one.failed for one in handshakes if one is not None),
            loop_lag=self._window.lag,
            certificates={} if certificates is None else certificates.expiries,
        )

    def report(self) -> dict[str, Any]:
        """The figures of `/status`."""
        return summarize(self.read(), self._window)

    def snapshot(self) -> Snapshot:
        """What those who watch are told."""
        backlogs = read_backlogs(acceptor.listener for acceptor in self._acceptors)
        return Snapshot(__version__, self.read(), backlogs, None)


def read_report(text: str) -> tuple[Metrics | None, str | None]:
    """The figures of a report to a master and the state that it tells, whatever the text is."""
    try:
        report = json.loads(text)
        return Metrics.load(report), report.get("state")
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None, None


def report_certificates(metrics: Metrics) -> dict[str, Any]:
    """What a master's `/status` tells of TLS, by what its workers have told; nothing without."""
    if not metrics.certificates:
        return {}
    nearest = sorted(metrics.certificates.items(), key=lambda one: one[1])
    return {
        "certificates": [f"{name}: {show_time(ends)}" for name, ends in nearest],
        "certificate_expires": show_time(nearest[0][1]),
        "handshakes_failed": metrics.handshakes_failed,
    }


def describe_certificate(metrics: Metrics) -> str:
    """What a master's STATUS= says of the certificate that expires first; empty without TLS."""
    if not metrics.certificates:
        return ""
    name, ends = min(metrics.certificates.items(), key=lambda one: one[1])
    return f", {show_expiry(name, ends, time())}"


def describe_lost(dropped: int) -> str:
    """What STATUS= says of log records that could not be written; empty where all were."""
    return f", {dropped} log record{'' if dropped == 1 else 's'} lost" if dropped else ""


def make_statsd(settings: Settings, take: Callable[[], Snapshot], loop: AbstractEventLoop, log: Log) -> "Statsd | None":
    """Begin to send what `take` tells to a server of statsd; None where there is none."""
    if settings.statsd_host is None:
        return None
    from appserver.telemetry.statsd import Statsd  # noqa: PLC0415 - few have one

    address = parse_statsd(settings.statsd_host)
    statsd = Statsd(address, settings.statsd_prefix, settings.dogstatsd_tags, take, loop, log)
    statsd.start()
    return statsd
