"""What is sent to the server while it is counted."""

from dataclasses import dataclass
from typing import Final

from tests.budgets.application import HELLO

_LAST_CHUNK: Final = b"\r\n0\r\n\r\n"
_DEPTH: Final = 16


@dataclass(frozen=True, slots=True)
class Workload:
    """Bytes that are written at once, and how to tell that they are answered.

    Attributes:
        name: In budgets.toml.
        sent: One request, or several that are pipelined.
        end: The last bytes of each answer.
        depth: How many requests `sent` holds.
        begin: The first bytes of what is answered.
        opening: What has to come before it on a connection, once.
    """

    name: str
    sent: bytes
    end: bytes = HELLO
    depth: int = 1
    begin: bytes = b"HTTP/1.1 200 "
    opening: "Workload | None" = None

    def is_answered(self, received: bytes) -> bool:
        """Whether every answer has come, whole."""
        return received.count(self.end) >= self.depth


def request(line: str, *fields: str, content: bytes = b"") -> bytes:
    """A request as it is sent."""
    return "".join(f"{text}\r\n" for text in (f"{line} HTTP/1.1", "Host: a.example", *fields, "")).encode() + content


_GET: Final = request("GET /", "User-Agent: budgets", "Accept: */*")

HELLO_WORLD: Final = Workload("hello", _GET)
BROWSER: Final = Workload(
    "13 fields",
    request(
        "GET /articles/17?page=2",
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "Accept-Language: en-GB,en;q=0.7,de;q=0.3",
        "Accept-Encoding: gzip, deflate, br, zstd",
        "Referer: http://a.example/articles",
        "Connection: keep-alive",
        "Cookie: session=8f14e45fceea167a5a36dedd4bea2543; theme=dark",
        "Upgrade-Insecure-Requests: 1",
        "Sec-Fetch-Dest: document",
        "Sec-Fetch-Mode: navigate",
        "Sec-Fetch-Site: same-origin",
        "Priority: u=0, i",
    ),
)
POST: Final = Workload(
    "small POST",
    request("POST /form", "Content-Type: text/plain", "Content-Length: 64", content=b"x" * 64),
)
STREAM: Final = Workload("10 chunks", request("GET /stream"), end=_LAST_CHUNK)
PIPELINED: Final = Workload("16 pipelined", _GET * _DEPTH, depth=_DEPTH)

_HANDSHAKE: Final = Workload(
    "handshake",
    request(
        "GET /",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
    ),
    end=b"\r\n\r\n",
    begin=b"HTTP/1.1 101 ",
)
# A text of 14 bytes, with a mask of zeros, and back without one.
ECHO: Final = Workload(
    "WebSocket echo",
    b"\x81" + bytes([0x80 | len(HELLO)]) + bytes(4) + HELLO,
    end=b"\x81" + bytes([len(HELLO)]) + HELLO,
    begin=b"\x81",
    opening=_HANDSHAKE,
)
