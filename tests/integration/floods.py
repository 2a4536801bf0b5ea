"""One client that floods a server, in a process of its own that gives way to all others.

    python -m tests.integration.floods FLOOD HOST PORT [ROOT]

For each line on its standard input it floods for that many seconds: one connection at a time, and the next one as soon
as the server has ended it. What came of that goes to its standard output as JSON. ROOT is the certificate's authority,
for TLS.
"""

import json
import os
import socket
import ssl
import sys
from collections import Counter
from collections.abc import Callable
from time import monotonic
from typing import Final

from tests.conformance.http2 import frames
from tests.conformance.http2.client import Client
from tests.conformance.http2.fields import REQUEST, STATIC, indexed, literal
from tests.conformance.http2.frames import Code
from tests.conformance.http2.live import PATIENCE, Wire
from tests.conformance.http2.test_floods import (
    Flood,
    all_settings,
    empty_continuations,
    empty_data,
    large_continuations,
    made_reset,
    pings,
    pour,
    rapid_reset,
    window_updates,
)

FLOODS: Final[dict[str, Flood]] = {
    flood.__name__: flood
    for flood in (
        rapid_reset,
        made_reset,
        empty_continuations,
        large_continuations,
        all_settings,
        pings,
        empty_data,
        window_updates,
    )
}
BOMBS: Final = 20
"""Of one connection."""


def throw_bombs(client: Client) -> None:
    """A field of 4 KiB, named 12,000 times in each of some requests: 48 MiB, if they were believed."""
    bomb = literal(b"x", b"y" * 4000, indexing=True) + indexed(STATIC + 1) * 12_000
    client.send(*(frames.headers(2 * number + 1, REQUEST + bomb) for number in range(BOMBS)))
    client.send(frames.goaway())


def flood_until_cut(flood: str, connect: Callable[[], Wire]) -> str:
    """Flood on one connection: how the server has ended it."""
    wire = connect()
    try:
        client = Client(wire)
        client.start()
        if flood == "hpack_bombs":
            throw_bombs(client)
        else:
            pour(client, FLOODS[flood])
        client.expect_closed()
    finally:
        wire.close()
    answers = {answer.status for answer in client.ledger.answers.values() if answer.status}
    if client.ledger.goaways:
        return Code(client.ledger.goaways[-1][1]).name
    return f"answers {sorted(answers)}" if answers else "closed"


def main(flood: str, host: str, port: str, root: str | None = None) -> None:
    """As the module's text says."""
    os.nice(10)  # it is to be on another machine: here it must not take the processor from those that are measured
    tls: ssl.SSLContext | None = None
    if root is not None:
        tls = ssl.create_default_context(cafile=root)
        tls.set_alpn_protocols(["h2"])
    for line in sys.stdin:
        ends: Counter[str] = Counter()
        end = monotonic() + float(line)
        while monotonic() < end:
            ends[
                flood_until_cut(flood, lambda: Wire(socket.create_connection((host, int(port)), PATIENCE), flood, tls))
            ] += 1
        print(json.dumps(ends), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
