"""Autobahn's cases, over HTTP/1.1 and as streams of HTTP/2 with each engine.

1 to 10 are framing, pings, fragments, text, closing and large messages; 12 and 13 are permessage-deflate, in 18 sizes
each, of which only some are run without FULL: `make test-all`.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from appserver.wire.select import http2_engines
from tests.conformance.websocket.autobahn import run_cases
from tests.conformance.websocket.bridge import bridging
from tests.integration.servers import Starter

FULL: Final = bool(os.environ.get("FULL"))

FRAMING: Final = {"1": 16, "2": 11, "3": 7, "4": 10, "5": 20, "6": 145, "7": 37, "9": 54, "10": 1}
"""How many cases each section has."""
DEFLATE: Final = tuple(f"{section}.{group}" for section, groups in ((12, 5), (13, 7)) for group in range(1, groups + 1))
SIZES: Final = range(1, 19) if FULL else (1, 2, 5, 11)
"""Of 16 and 64 bytes, of 4 KiB, and of 8 KiB in fragments."""
SIZES_HTTP2: Final = range(1, 19) if FULL else (2, 11)

INFORMATIONAL: Final = {
    "7.1.6": "it is left open what becomes of a large message that a Close follows at once",
    "7.13.1": "it is left open what a server says to the close code 5000",
    "7.13.2": "and to 65535",
}
_ONE_READ: Final = (
    "a good message and a bad frame come in one read: the Close that answers the bad one leaves before the application"
    " has seen the good one, and behind a Close nothing may be sent (RFC 6455 section 5.5.1)"
)
_ONE_FRAME: Final = (
    "the bytes of one frame come one after the other: its text is looked at when the frame is whole, and not before;"
    " a text of many frames is looked at frame by frame (6.4.1, 6.4.2), as RFC 6455 section 8.1 has it"
)
NON_STRICT: Final = {
    **dict.fromkeys(("3.2", "3.3", "3.4"), _ONE_READ),
    **dict.fromkeys(("4.1.3", "4.1.4", "4.1.5", "4.2.3", "4.2.4", "4.2.5", "5.15"), _ONE_READ),
    **dict.fromkeys(("6.4.3", "6.4.4"), _ONE_FRAME),
}
"""What may be less than strict, with the reason; where it hangs on what comes in one read, it is not always so."""


WAYS: Final = ("plain-http1", *(f"plain-http2-{engine}" for engine in sorted(http2_engines())))


class Site(NamedTuple):
    """Where the cases are run.

    Attributes:
        port: On loopback.
        sizes: Which cases of 12 and 13.
    """

    port: int
    sizes: Sequence[int]


@pytest.fixture(scope="module", params=WAYS)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server, or a bridge in front of it."""
    _, kind, *engines = request.param.split("-")
    starter = Starter(tmp_path_factory.mktemp(request.param))
    try:
        # A case takes a ping of the server's for the end of its messages; some last longer than it would wait with one.
        arguments = ["--ws-max-size", "64M", "--ws-ping-interval", "0"]
        server = starter("websocket_echo:app", *arguments, *("--http2-engine" for _ in engines), *engines)
        with ExitStack() as stack:
            if kind == "http1":
                yield Site(server.address[1], SIZES)
            else:
                bridge = stack.enter_context(bridging(*server.address))
                yield Site(bridge.port, SIZES_HTTP2)
                # What one of them has done wrong ends a stream, and not the connection of the others.
                assert bridge.links == 1
        versions = Counter(record["http_version"] for record in server.records if "http_status" in record)
        assert set(versions) == {"1.1" if kind == "http1" else "2"}
        assert not [record for record in server.records if record["level"] in ("error", "critical")]
    finally:
        starter.finish()


def check(site: Site, folder: Path, count: int, *patterns: str, timeout: float) -> None:
    """Run cases, and hold each to what is said of it above."""
    verdicts = run_cases(site.port, folder, *patterns, timeout=timeout)
    assert len(verdicts) == count
    wrong = []
    for verdict in verdicts:
        allowed = {"OK"}
        if verdict.case in INFORMATIONAL:
            allowed = {"INFORMATIONAL"}
        elif verdict.case in NON_STRICT:
            allowed = {"OK", "NON-STRICT"}
        if verdict.messages not in allowed or verdict.end not in allowed - {"NON-STRICT"}:
            wrong.append(verdict)
    assert wrong == []
    print(f"{', '.join(patterns)}: {dict(Counter(verdict.messages for verdict in verdicts))}")


@pytest.mark.parametrize("section", FRAMING)
def test_framing(section: str, site: Site, tmp_path: Path) -> None:
    check(site, tmp_path, FRAMING[section], f"{section}.*", timeout=110)


@pytest.mark.timeout(1200 if FULL else 120)
@pytest.mark.parametrize("group", DEFLATE)
def test_compression(group: str, site: Site, tmp_path: Path) -> None:
    check(site, tmp_path, len(site.sizes), *(f"{group}.{size}" for size in site.sizes), timeout=1190 if FULL else 110)
