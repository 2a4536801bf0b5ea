"""What a serving process counts, and how that of several processes becomes one.

Each field of `Metrics` says what becomes of it over processes: counts and gauges are summed, of peaks the greatest is
taken, of dates the nearest. Counts of a process that is gone are kept, and nothing else of it is.

No clock and no lock: the event loop counts, and it alone.
"""

import dataclasses
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Final, NamedTuple, Self

BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
"""Upper bounds of the latency histogram as it is exposed, in seconds: those that Prometheus's clients have by default,
so that dashboards fit; two below them, for applications that answer in a millisecond; and one above, behind what
proxies wait for by default."""

# The preferred numbers of ISO 3: ten a decade, from 10 us to 100 s. A quantile is off by a quarter at most.
_STEPS: Final = (1.0, 1.25, 1.6, 2.0, 2.5, 3.15, 4.0, 5.0, 6.3, 8.0)
BOUNDS: Final = tuple(
    sorted({*BUCKETS, 100.0} | {float(f"{step}e{power}") for power in range(-5, 2) for step in _STEPS})
)
"""Upper bounds that latencies are counted by; `BUCKETS` are among them."""

WINDOW_SECONDS: Final = 10
"""What latencies and lags `/status` shows: of so many last seconds."""

_COUNT: Final = {"merge": "sum", "kept": True}
_GAUGE: Final = {"merge": "sum", "kept": False}
_PEAK: Final = {"merge": "max", "kept": False}
_NEAREST: Final = {"merge": "nearest", "kept": False}


@dataclass(slots=True)
class Metrics:
    """Live figures of a process that serves, or the sums of several.

    Attributes:
        connections: Open, of all protocols.
        connections_http2: Those of them that speak HTTP/2.
        requests: In flight, WebSockets included.
        websockets: Open.
        websockets_http2: Those of them that are streams of HTTP/2 connections.
        accepted: Connections since the start.
        answered: Requests that are over, WebSockets included.
        failed: Answered with 5xx or cut short by a fault of the application.
        refused: Refused as bad input, before there was a request.
        websockets_opened: Since the start.
        bytes_received: Of HTTP and WebSockets, heads and frames included; without TLS.
        bytes_sent: The same of what was written.
        statuses: Responses by status. A WebSocket is one, 101 or over HTTP/2 200, when it opens.
        latencies: The same responses by the time they took, by index in `BOUNDS`; behind the last are all others.
        seconds: What they took together.
        log_dropped: Records of the log that could not be written.
        handshakes_failed: Of TLS.
        loop_lag: How much later than planned the event loop came to a timer, at worst in the last `WINDOW_SECONDS`.
        certificates: When each certificate expires, in seconds since 1970, by its first name.
    """

    connections: int = field(default=0, metadata=_GAUGE)
    connections_http2: int = field(default=0, metadata=_GAUGE)
    requests: int = field(default=0, metadata=_GAUGE)
    websockets: int = field(default=0, metadata=_GAUGE)
    websockets_http2: int = field(default=0, metadata=_GAUGE)
    accepted: int = field(default=0, metadata=_COUNT)
    answered: int = field(default=0, metadata=_COUNT)
    failed: int = field(default=0, metadata=_COUNT)
    refused: int = field(default=0, metadata=_COUNT)
    websockets_opened: int = field(default=0, metadata=_COUNT)
    bytes_received: int = field(default=0, metadata=_COUNT)
    bytes_sent: int = field(default=0, metadata=_COUNT)
    statuses: dict[int, int] = field(default_factory=dict, metadata=_COUNT)
    latencies: dict[int, int] = field(default_factory=dict, metadata=_COUNT)
    seconds: float = field(default=0.0, metadata=_COUNT)
    log_dropped: int = field(default=0, metadata=_COUNT)
    handshakes_failed: int = field(default=0, metadata=_COUNT)
    loop_lag: float = field(default=0.0, metadata=_PEAK)
    certificates: dict[str, float] = field(default_factory=dict, metadata=_NEAREST)

    def observe(self, status: int, seconds: float) -> None:
        """Count a response."""
        # For each request: a Counter would take three times as long.
        index = bisect_left(BOUNDS, seconds)
        try:
            self.statuses[status] += 1
        except KeyError:
            self.statuses[status] = 1
        try:
            self.latencies[index] += 1
        except KeyError:
            self.latencies[index] = 1
        self.seconds += seconds

    @property
    def classes(self) -> dict[str, int]:
        """Responses by the first digit of their status, `2xx`; those that are usual are there also with 0."""
        classes = {f"{first}xx": 0 for first in range(1, 6)}
        for status, count in sorted(self.statuses.items()):
            name = f"{status // 100}xx"
            classes[name] = classes.get(name, 0) + count
        return classes

    @property
    def protocols(self) -> dict[str, int]:
        """Open connections by what is spoken on them; WebSockets over HTTP/2 are streams, and no connections."""
        upgraded = self.websockets - self.websockets_http2
        return {
            "http/1.1": self.connections - self.connections_http2 - upgraded,
            "h2": self.connections_http2,
            "websocket": upgraded,
        }

    # From one process to another

    def dump(self) -> dict[str, Any]:
        """What `load` reads back, for JSON."""
        return {name: getattr(self, name) for name in _FIELDS}

    @classmethod
    def load(cls, dumped: Mapping[str, Any]) -> Self:
        """Read what another process has dumped. What it does not count is 0: it may be of another version.

        Raises:
            ValueError, TypeError, AttributeError, OverflowError: It has not.
        """
        self = cls()
        known = _FIELDS.keys() & dumped.keys()
        if not known:
            raise ValueError("no figures")
        for name in known:
            raw, default = dumped[name], getattr(self, name)
            value: Any
            if name == "certificates":
                value = {str(key): float(date) for key, date in raw.items()}
            elif isinstance(default, dict):
                value = {int(key): int(count) for key, count in raw.items()}
            else:
                value = type(default)(raw)
            setattr(self, name, value)
        return self

    def kept(self) -> Self:
        """What stays of a process that is gone."""
        return type(self)(**{name: getattr(self, name) for name, one in _FIELDS.items() if one.metadata["kept"]})

    def __add__(self, other: Self) -> Self:
        """Those of both; neither is changed."""
        merged = {
            name: _MERGES[one.metadata["merge"]](getattr(self, name), getattr(other, name))
            for name, one in _FIELDS.items()
        }
        return type(self)(**merged)


def _sum(one: Any, other: Any) -> Any:
    return dict(Counter(one) + Counter(other)) if isinstance(one, dict) else one + other


def _nearest(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    both = {**one, **other}
    return {name: min(one.get(name, date), date) for name, date in both.items()}


_FIELDS: Final = {one.name: one for one in dataclasses.fields(Metrics)}
_MERGES: Final[Mapping[str, Callable[[Any, Any], Any]]] = {"sum": _sum, "max": max, "nearest": _nearest}


def total(parts: Iterable[Metrics]) -> Metrics:
    """Those of several processes as one."""
    return sum(parts, Metrics())


# --- latencies --------------------------------------------------------------------------------------------------------


def bucket_counts(latencies: Mapping[int, int]) -> list[int]:
    """Responses that took no longer than each of `BUCKETS`, and all of them last."""
    counts = list(accumulate(latencies.get(index, 0) for index in range(len(BOUNDS) + 1)))
    return [*(counts[BOUNDS.index(bound)] for bound in BUCKETS), counts[-1]]


def quantile(latencies: Mapping[int, int], share: float) -> float:
    """The time that this share of the responses did not exceed, in seconds; 0 where there are none.

    Within a bucket they are taken to be spread evenly, as histogram_quantile() of Prometheus does.

    Args:
        latencies: Counts by index in `BOUNDS`.
        share: From 0 to 1.
    """
    rank, passed = share * sum(latencies.values()), 0
    for index, count in sorted(latencies.items()):
        if passed + count >= rank and index < len(BOUNDS):
            low = BOUNDS[index - 1] if index else 0.0
            return low + (BOUNDS[index] - low) * (rank - passed) / count
        passed += count
    return BOUNDS[-1] if latencies else 0.0


class Window:
    """The latencies and the event loop's lags of the last `WINDOW_SECONDS`, by a look each second.

    Args:
        before: What has been counted before it begins, by index in `BOUNDS`.
    """

    __slots__ = ("_before", "_lags", "latencies")

    def __init__(self, before: Mapping[int, int] | None = None) -> None:
        self._before: deque[Counter[int]] = deque([Counter(before)], WINDOW_SECONDS)
        self._lags: deque[float] = deque([0.0], WINDOW_SECONDS)
        self.latencies: Counter[int] = Counter()

    def look(self, latencies: Mapping[int, int], lag: float = 0.0) -> None:
        """Take what has been counted since the start, once a second.

        Args:
            latencies: Counts by index in `BOUNDS`.
            lag: By how much this look is late, in seconds.
        """
        now = Counter(latencies)
        self.latencies = now - self._before[0]
        self._before.append(now)
        self._lags.append(max(0.0, lag))

    @property
    def lag(self) -> float:
        """The worst one, in seconds."""
        return max(self._lags)


# --- what is told of a server -----------------------------------------------------------------------------------------


class Backlog(NamedTuple):
    """Connections that wait in a listening socket."""

    listener: str
    """Its address."""
    waiting: int
    limit: int
    dropped: int
    """Those that the kernel has not let in since the socket was made: it was full."""


class Supervision(NamedTuple):
    """What a master knows of its workers; each by name: of a state, of a cause, of an outcome."""

    workers: Mapping[str, int]
    restarts: Mapping[str, int]
    reloads: Mapping[str, int]
    generation: int


class Snapshot(NamedTuple):
    """All that is told to those who watch a server, at one moment."""

    version: str
    metrics: Metrics
    backlogs: tuple[Backlog, ...]
    supervision: Supervision | None
    """None for a process that serves by itself."""


def summarize(metrics: Metrics, window: Window) -> dict[str, Any]:
    """The figures of `/status`. Times are microseconds."""
    return {
        **brief(metrics),
        "bytes_received": metrics.bytes_received,
        "bytes_sent": metrics.bytes_sent,
        "statuses": metrics.classes,
        "latency_p50_us": round(quantile(window.latencies, 0.5) * 1_000_000),
        "latency_p99_us": round(quantile(window.latencies, 0.99) * 1_000_000),
    }


def brief(metrics: Metrics) -> dict[str, Any]:
    """The figures of one worker among others in `/status`."""
    return {
        "connections": metrics.connections,
        "requests": metrics.requests,
        "websockets": metrics.websockets,
        "answered": metrics.answered,
        "failed": metrics.failed,
        "refused": metrics.refused,
        "log_dropped": metrics.log_dropped,
        "loop_lag_us": round(metrics.loop_lag * 1_000_000),
    }
