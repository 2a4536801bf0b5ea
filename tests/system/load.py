"""Keep-alive clients of a service that is restarted and reloaded under them."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

CLIENTS = 32
REQUEST = b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n"


@dataclass(slots=True)
class Load:
    """Keep-alive clients that never pause.

    A client that is told `Connection: close` opens a new connection, as any does. What counts as lost: a connection
    that ends without that, or before an answer to a request that was written on it.
    """

    path: str
    stop: bool = False
    answered: Counter[bytes] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    connections: int = 0

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(self._client())

    async def _client(self) -> None:
        while not self.stop:
            try:
                reader, writer = await asyncio.open_unix_connection(self.path)
            except OSError as error:
                self.lost.append(f"connect: {error!r}")
                await asyncio.sleep(0.05)
                continue
            self.connections += 1
            try:
                while not self.stop and await self._exchange(reader, writer):  # type: ignore[redundant-expr]  # set meanwhile
                    pass
            except (OSError, asyncio.IncompleteReadError) as error:
                self.lost.append(repr(error))
            finally:
                writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; whether the connection stays."""
        writer.write(REQUEST)
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        if b"content-length" in fields:
            await reader.readexactly(int(fields[b"content-length"]))
        else:
            assert fields[b"transfer-encoding"] == b"chunked"
            await reader.readuntil(b"0\r\n\r\n")
        self.answered[head.split(b" ")[1]] += 1
        return fields.get(b"connection") != b"close"
