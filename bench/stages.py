"""Where the time of a request goes, without a socket: `python -m bench.stages [ENGINE]`.

Each stage of the hot path is timed alone, on the real objects, with the request of `hello` (3 fields) and the browser's
(13); the last line is all of it, from the bytes to the call of the transport's write(). The least of many short
runs is taken: what disturbs a run only ever adds to it.
"""

import asyncio
import sys
import timeit
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from appserver.asgi.fields import Defaults, check_fields
from appserver.asgi.forwarded import Trust
from appserver.asgi.http import HttpCycle
from appserver.asgi.scope import Scopes
from appserver.asgi.service import Service
from appserver.net.endpoint import Endpoint, Timeouts
from appserver.net.serial import SerialConnection
from appserver.telemetry.log import build
from appserver.wire.engine import Head, Limits
from appserver.wire.http1 import IDLE, SERVED, Http1Engine
from appserver.wire.select import pick
from bench.apps.hello import app
from bench.workloads import CHROME

RUNS: Final = 80
REQUESTS: Final = 500

ADDRESS: Final = ("127.0.0.1", 8000)
FIELDS: Final = [(b"content-type", b"text/plain"), (b"content-length", b"13")]
HELLO: Final = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"


class Sink(asyncio.Transport):
    """A transport that takes everything at once."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Names of the sockets, all the same."""
        return ADDRESS if name in ("sockname", "peername") else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """No buffer."""

    def is_closing(self) -> bool:
        """Never."""
        return False

    def get_write_buffer_size(self) -> int:
        """Nothing waits."""
        return 0

    def write(self, data: object) -> None:
        """Take it."""


def microseconds(run: Callable[[], object]) -> float:
    """The least time of one call."""
    return min(timeit.repeat(run, number=REQUESTS, repeat=RUNS)) / REQUESTS * 1e6


def stages(endpoint: Endpoint, request: bytes) -> dict[str, float]:
    """Microseconds by stage."""
    service, loop = endpoint.service, endpoint.loop
    engine = endpoint.make_engine()
    assert isinstance(engine, Http1Engine)
    scopes = Scopes(service, "http", ADDRESS, ADDRESS)

    def receive() -> Head:
        engine._phase = IDLE  # noqa: SLF001 - the stage is repeated alone
        (head,) = engine.receive(request)
        assert isinstance(head, Head)
        return head

    head = receive()
    fields, _ = check_fields(FIELDS, service.fields)

    def respond() -> list[bytes]:
        engine._phase = SERVED  # noqa: SLF001
        engine.respond(engine._stream, 200, fields, b"Hello, world!", True)  # noqa: SLF001
        return engine.take()

    async def nothing() -> None:
        pass

    def call() -> object:
        context = endpoint.context.copy()
        if endpoint.eager:
            return asyncio.Task(nothing(), loop=loop, context=context, eager_start=True)
        return nothing().close()

    connection = SerialConnection(endpoint)
    connection.connection_made(Sink())
    buffer = connection.get_buffer(-1)
    buffer[: len(request)] = request
    scope = scopes.make(head)

    def serve() -> None:
        connection.buffer_updated(len(request))
        endpoint.turn._run()  # noqa: SLF001 - the loop, which would call it, stands still meanwhile

    return {
        "read the head": microseconds(lambda: engine.read_head(request)),
        "engine: bytes to event": microseconds(receive),
        "make the scope": microseconds(lambda: scopes.make(head)),
        "make the cycle": microseconds(lambda: HttpCycle(service, connection, head, scope, loop, "http")),
        "start a task": microseconds(call),
        "check the answer's fields": microseconds(lambda: check_fields(FIELDS, service.fields)),
        "engine: answer to bytes": microseconds(respond),
        # Without eager tasks (Python 3.11) the application runs in a later turn of the loop, which has none here.
        **({"all, application included": microseconds(serve)} if endpoint.eager else {}),
    }


async def main(name: str) -> None:
    """Print the table for an engine."""
    loop = asyncio.get_running_loop()
    defaults = Defaults([(b"date", b"Sat, 21 Nov 2026 07:08:46 GMT"), (b"server", b"appserver")])
    trust = Trust(("127.0.0.1", "unix"))
    service = Service(application=app, log=build("warning", "json"), trust=trust, fields=defaults)
    make_engine = partial(pick(name), Limits())
    timeouts = Timeouts(header=10, body=30, write=30, keep_alive=5, linger=2, min_rate=500)
    endpoint = Endpoint("http", service, loop, make_engine, timeouts, eager=sys.version_info >= (3, 12))
    lines = ["GET / HTTP/1.1", "Host: 127.0.0.1:8000", *(f"{field}: {value}" for field, value in CHROME), "", ""]
    browser = "\r\n".join(lines).encode("ascii")
    few, many = stages(endpoint, HELLO), stages(endpoint, browser)
    print(f"{make_engine().name}, Python {sys.version.split()[0]}: least us a request")  # noqa: T201 - the result
    for stage in few:
        print(f"  {stage:28}{few[stage]:8.2f}{many[stage]:8.2f}")  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "auto"))
