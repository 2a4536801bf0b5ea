"""A real `appserver` process, and a connection to it over TCP or TLS."""

import select
import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Final

import httpx

from tests.certificates import Issuer
from tests.conformance.http2.client import Silence
from tests.integration.servers import Server, Starter

PATIENCE: Final = 20.0
"""Seconds; what is right takes milliseconds."""

PIECE: Final = 65_536


class Wire:
    """One connection; implements `client.Pipe`.

    While it sends it also reads: whoever floods a server and does not read what it answers would wait for ever.
    """

    live = True

    def __init__(self, sock: socket.socket, engine: str, tls: ssl.SSLContext | None) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        self.engine = engine
        self.scheme = b"http" if tls is None else b"https"
        self._sock = sock
        self._received = bytearray()
        self._ended = self._refused = False
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = None if tls is None else tls.wrap_bio(self._in, self._out, server_hostname="localhost")
        if self._tls is not None:
            self._shake_hands(self._tls)

    def _shake_hands(self, tls: ssl.SSLObject) -> None:
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                self._write(self._out.read())
                self._wait(reading=True, writing=False)
                self._in.write(self._sock.recv(PIECE))
            else:
                self._write(self._out.read())
                assert tls.selected_alpn_protocol() == "h2"
                return

    @property
    def over(self) -> bool:
        return self._ended or self._refused

    def send(self, data: bytes) -> None:
        if self._tls is None:
            self._write(data)
        else:
            for place in range(0, len(data), PIECE):
                self._tls.write(data[place : place + PIECE])
                self._write(self._out.read())

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            readable, writable = self._wait(reading=not self._ended, writing=True)
            if readable:
                self._read()
            if writable:
                try:
                    rest = rest[self._sock.send(rest) :]
                except (BrokenPipeError, ConnectionResetError):
                    self._refused = True
                    return  # it has closed; what it has said before is still there

    def _wait(self, *, reading: bool, writing: bool) -> tuple[bool, bool]:
        readers, writers = [self._sock] if reading else [], [self._sock] if writing else []
        readable, writable, _ = select.select(readers, writers, [], PATIENCE)
        if not readable and not writable:
            raise Silence
        return bool(readable), bool(writable)

    def _read(self) -> None:
        """Take what is there; plain bytes go to `_received`."""
        try:
            data = self._sock.recv(PIECE)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if not data:
            self._ended = True
            self._in.write_eof()
        elif self._tls is None:
            self._received += data
            return
        else:
            self._in.write(data)
        while self._tls is not None:
            try:
                data = self._tls.read(PIECE)
            except ssl.SSLWantReadError:
                return
            except ssl.SSLError:  # it has closed without saying so in TLS
                data = b""
            if not data:
                self._ended = True
                return
            self._received += data

    def receive(self) -> bytes:
        end = monotonic() + PATIENCE
        while not self._received and not self._ended and monotonic() < end:
            self._wait(reading=True, writing=False)
            self._read()
        data = bytes(self._received)
        self._received.clear()
        if not data and not self._ended:
            raise Silence
        return data

    def end(self) -> None:
        if self._tls is None:
            self._sock.shutdown(socket.SHUT_WR)
            return
        with suppress(ssl.SSLWantReadError):  # the server's own close_notify is not waited for
            self._tls.unwrap()
        self._write(self._out.read())

    def close(self) -> None:
        """By a reset: what the server still has for this connection must not hold up its end."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()


class Live:
    """A server with one engine, on a plain listener and one with TLS."""

    def __init__(self, server: Server, engine: str, tls: ssl.SSLContext) -> None:
        self._server, self._engine, self._tls = server, engine, tls
        tls.set_alpn_protocols(["h2"])

    def connect(self, *, tls: bool) -> Wire:
        """A new connection, with HTTP/2 by prior knowledge or by ALPN."""
        url = next(httpx.URL(url) for url in self._server.listeners if url.startswith("https:" if tls else "http:"))
        sock = socket.create_connection((url.host, url.port or 0), PATIENCE)
        return Wire(sock, self._engine, self._tls if tls else None)


@contextmanager
def serving(folder: Path, engine: str) -> Iterator[Live]:
    """Such a server."""
    issuer = Issuer()
    pair = issuer.issue(folder / "localhost.pem", "localhost")
    starter = Starter(folder)
    try:
        server = starter(
            "frames:app",
            *("--bind", "127.0.0.1:0?tls=off", "--bind", "127.0.0.1:0", "--http2-engine", engine),
            *(*pair.arguments, "--no-access-log", "--http2-upgrade"),
            bind=False,
        )
        yield Live(server, engine, issuer.client())
    finally:
        starter.finish()
