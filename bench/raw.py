"""The floor under every Python server: uvloop, one read, one write of fixed bytes, and no parsing at all.

python -m bench.raw PORT
"""

import asyncio
import sys
from typing import cast

import uvloop

from bench.apps.hello import BODY

_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n%s" % (len(BODY), BODY)


class _Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._write = cast("asyncio.Transport", transport).write

    def data_received(self, data: bytes) -> None:  # noqa: ARG002 # each read is taken for one request
        self._write(_ANSWER)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Echo, "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    loop = uvloop.new_event_loop()
    loop.run_until_complete(_serve(int(sys.argv[1])))
