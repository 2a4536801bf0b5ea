"""Much that one client sends at once, live: another one is served in its midst, and not only before and behind it.

What is told is an order, not a time: the application numbers the requests, so a gap in the numbers of one client is
where the other had its turn.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from time import monotonic
from typing import Final

import pytest

from tests.corpus.responses import Response, parse
from tests.integration.servers import PATIENCE, Server, Starter

ENGINES: Final = ("h1c", "plain", "h11")
GET: Final = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"
PIPELINED: Final = 800
CHUNKS: Final = 4000
"""Each fits into one read of 64 KiB, which it is to come in."""

UPLOAD: Final = (
    b"POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * CHUNKS + b"0\r\n\r\n"
)
ENOUGH: Final = 5
"""So many times the other client has to have had a turn; by chance, where a read is cut in two, it may have one."""


@contextmanager
def asking(server: Server) -> Iterator[None]:
    """Another client, which asks again and again."""
    going = True

    def ask() -> None:
        with socket.create_connection(server.address, PATIENCE) as sock:
            while going:
                sock.sendall(GET)
                assert sock.recv(1024)

    other = threading.Thread(target=ask)
    other.start()
    try:
        yield
    finally:
        going = False
        other.join(PATIENCE)


def answers(sock: socket.socket, data: bytes, count: int) -> list[bytes]:
    """Send at once, and the bodies of what comes back."""
    sock.sendall(data)
    got, responses = b"", list[Response]()
    while len(responses) < count:
        more = sock.recv(1 << 16)
        assert more
        got += more
        if got.count(b"HTTP/1.1 ") >= count:  # before that, parsing all of it again is in vain
            responses, _ = parse(got, [], ended=False)
    return [response.body for response in responses]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("what", ["requests", "chunks"])
def test_another_client_is_served_amid_what_one_has_sent_at_once(
    what: str, loop: str, engine: str, serve: Starter
) -> None:
    server = serve("order:app", f"--http={engine}", f"--loop={loop}", "--no-access-log")
    turns = 0
    until = monotonic() + PATIENCE
    with asking(server), socket.create_connection(server.address, PATIENCE) as sock:
        while turns < ENOUGH:
            assert monotonic() < until, f"the other client has had {turns} turns"
            if what == "requests":
                numbers = [int(answer) for answer in answers(sock, GET * PIPELINED, PIPELINED)]
                assert numbers == sorted(numbers)
                # The first is begun with all others that its turn of the loop brings, before those behind it.
                turns += any(later - earlier > 1 for earlier, later in pairwise(numbers[1:]))
            else:
                [answer] = answers(sock, UPLOAD, 1)
                first, _, last = answer.partition(b" ")
                turns += bool(last) and int(last) - int(first) > 1
