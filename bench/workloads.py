"""The table of workloads: which application, over what, under which load, and what the right answer is."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from bench.apps import bodies, hello


class Kind(Enum):
    """What is done to the server, and so which figures come out."""

    LOAD = "load"
    """As many requests as it answers."""
    IDLE = "idle"
    """Connections that are kept and do nothing."""
    START = "start"
    """From its start to its first answer."""
    CONNECT = "connect"
    """As many new connections as it takes, with one request each."""
    RESET = "reset"
    """One client resets all of its streams, and the latencies of another are measured."""
    ECHO = "echo"
    """WebSockets: on each, as many messages as it sends back, one at a time."""
    ROOM = "room"
    """WebSockets: what one of them says, all hear."""


class Log(Enum):
    """Where the access log goes."""

    NONE = "none"
    FILE = "file"
    JOURNAL = "journal"


# What curl sends; the host is the third field.
_CURL: Final = (("user-agent", "curl/8.14.1"), ("accept", "*/*"))

# What Chrome sends to a page of a shop on which one is logged in; the host is the thirteenth field.
CHROME: Final = (
    ("connection", "keep-alive"),
    ("sec-ch-ua", '"Chromium";v="142", "Google Chrome";v="142", "Not_A Brand";v="99"'),
    ("sec-ch-ua-mobile", "?0"),
    ("sec-ch-ua-platform", '"Linux"'),
    (
        "user-agent",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    ),
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8"),
    ("sec-fetch-site", "same-origin"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-dest", "document"),
    ("referer", "https://shop.example/orders?page=2"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("cookie", "sessionid=6v3k0q8d1w5z7x2c4b9n; csrftoken=Zk3Tq9Lw2Xv8Rb5Nc7Mj; theme=dark; consent=necessary"),
)

_ORDER: Final = {
    "number": 4711,
    "currency": "CHF",
    "items": [{"sku": f"A-{line}", "count": line, "cents": 999} for line in range(1, 4)],
    "cents": 5994,
}


@dataclass(frozen=True, slots=True)
class Workload:
    """One line of the results.

    Attributes:
        name: What `--workloads` takes.
        title: What the table and the chart call it.
        expected: The body of the right answer, which every contender must give before it is measured.
        kind: What is done.
        application: The application, `module:attribute`.
        target: The request's target.
        fields: The request's header fields besides Host.
        connections: How many are open at once.
        depth: Requests that a connection sends without waiting for an answer.
        upload: Bytes of body in the request; 0 makes it a GET.
        unix: Over a UNIX socket instead of TCP.
        log: The access log. With one, appserver without one is measured beside it.
        floors: nginx and the raw protocol take part.
        tls: TLS 1.3, with the certificate of `bench.certificate`.
        http2: HTTP/2: by ALPN with TLS, else from the first byte on (RFC 9113 section 3.3).
        websocket: WebSockets: `expected` is the message that is sent and comes back.
        text: It is text, in UTF-8.
        deflate: It is compressed (RFC 7692), if the server thinks it worth it.
    """

    name: str
    title: str
    expected: bytes = hello.BODY
    kind: Kind = Kind.LOAD
    application: str = "bench.apps.hello:app"
    target: str = "/"
    fields: tuple[tuple[str, str], ...] = _CURL
    connections: int = 32
    depth: int = 1
    upload: int = 0
    unix: bool = False
    log: Log = Log.NONE
    floors: bool = False
    tls: bool = False
    http2: bool = False
    websocket: bool = False
    text: bool = False
    deflate: bool = False


def _make_message(size: int) -> bytes:
    """So many bytes of what programs tell each other: it repeats itself, as text does, but not at once."""
    lines = (
        f'{{"sku":"A-{line}","count":{line % 7},"cents":{line * 7919 % 100_003}}}\n' for line in range(size // 30 + 1)
    )
    return "".join(lines).encode()[:size]


_BODIES: Final = "bench.apps.bodies:app"

_WEBSOCKET: Final = Workload(
    "ws-64",
    "Echo of 64 bytes",
    _make_message(64),
    kind=Kind.ECHO,
    application="bench.apps.sockets:app",
    target="/echo",
    websocket=True,
    text=True,
)

_TABLE: Final = (
    Workload("hello", "Hello, 3 header fields", floors=True),
    Workload("browser", "Hello, 13 header fields", fields=CHROME),
    Workload(
        "json",
        "JSON through FastAPI",
        json.dumps(_ORDER, separators=(",", ":")).encode(),
        application="bench.apps.shop:app",
        target="/orders/4711?currency=CHF",
    ),
    Workload("medium", "64 KiB down", bodies.MEDIUM, application=_BODIES, target="/medium"),
    Workload("large", "10 MiB down", bodies.LARGE, application=_BODIES, target="/large", connections=4),
    Workload(
        "upload",
        "10 MiB up",
        b"%d" % len(bodies.LARGE),
        application=_BODIES,
        target="/count",
        connections=4,
        upload=len(bodies.LARGE),
    ),
    Workload("stream", "100 chunks of 1 KiB", bodies.CHUNK * bodies.CHUNKS, application=_BODIES, target="/chunks"),
    Workload("pipeline", "Hello, pipelined 16 deep", depth=16, connections=16),
    Workload("unix", "Hello, over a UNIX socket", unix=True),
    Workload("log", "Hello, access log to a file", log=Log.FILE),
    Workload("journal", "Hello, access log to the journal", log=Log.JOURNAL),
    Workload("idle-1000", "1,000 idle connections", kind=Kind.IDLE, connections=1000),
    Workload("idle-10000", "10,000 idle connections", kind=Kind.IDLE, connections=10_000),
    Workload("start", "Cold start to first answer", kind=Kind.START, connections=1),
    Workload("tls-hello", "Hello over TLS 1.3", tls=True),
    Workload("tls-connect", "New TLS 1.3 connections", kind=Kind.CONNECT, connections=100, tls=True),
    # Without TLS, as behind a proxy: all contenders do that, and it tells one HTTP/2 from the other best.
    Workload("h2-hello", "Hello over HTTP/2, 16 streams", connections=16, depth=16, http2=True),
    Workload(
        "h2-10mib",
        "10 MiB down over HTTP/2",
        bodies.LARGE,
        application=_BODIES,
        target="/large",
        connections=4,
        http2=True,
    ),
    Workload("h2-idle", "1,000 idle HTTP/2 connections", kind=Kind.IDLE, connections=1000, http2=True),
    Workload("h2-reset", "HTTP/2 beside a client that resets its streams", kind=Kind.RESET, connections=1, http2=True),
    _WEBSOCKET,
    replace(_WEBSOCKET, name="ws-64-deflate", title="Echo of 64 bytes, permessage-deflate", deflate=True),
    replace(_WEBSOCKET, name="ws-4k", title="Echo of 4 KiB", expected=_make_message(4096), text=False),
    replace(
        _WEBSOCKET,
        name="ws-4k-deflate",
        title="Echo of 4 KiB, permessage-deflate",
        expected=_make_message(4096),
        text=False,
        deflate=True,
    ),
    replace(_WEBSOCKET, name="ws-64k", title="Echo of 64 KiB", expected=_make_message(65_536), text=False),
    replace(
        _WEBSOCKET,
        name="ws-64k-deflate",
        title="Echo of 64 KiB, permessage-deflate",
        expected=_make_message(65_536),
        text=False,
        deflate=True,
    ),
    replace(
        _WEBSOCKET,
        name="ws-room",
        title="A message to 1,000 WebSockets",
        kind=Kind.ROOM,
        target="/room",
        connections=1000,
    ),
    replace(_WEBSOCKET, name="ws-idle-1000", title="1,000 idle WebSockets", kind=Kind.IDLE, connections=1000),
    replace(_WEBSOCKET, name="ws-idle-10000", title="10,000 idle WebSockets", kind=Kind.IDLE, connections=10_000),
    replace(
        _WEBSOCKET,
        name="ws-idle-deflate",
        title="1,000 idle WebSockets, each has had 4 KiB compressed",
        expected=_make_message(4096),
        kind=Kind.IDLE,
        connections=1000,
        deflate=True,
    ),
)

WORKLOADS: Final[Mapping[str, Workload]] = {workload.name: workload for workload in _TABLE}
"""All of them by name, in the order in which they run."""
