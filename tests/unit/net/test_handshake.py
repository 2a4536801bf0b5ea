"""Handshakes of real clients with a real acceptor, on both event loops."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from appserver.net import handshake
from appserver.net.acceptor import Acceptor
from appserver.net.handshake import Handshakes
from appserver.net.listeners import Listener
from appserver.net.serial import SerialConnection
from appserver.net.tls import describe, load
from appserver.settings import Settings
from tests.certificates import Issuer
from tests.unit.net.conftest import Play
from tests.unit.net.serving import GET, Client, Serving, echo, pair
from tests.unit.records import Records

HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
"""How a TLS handshake begins."""


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


class Secured:
    """A listener that speaks TLS, with its acceptor."""

    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        timeout: float = 5.0,
        connected: socket.socket | None = None,
        bound: int = handshake.PENDING_MAX,
    ) -> None:
        self.serving = Serving(echo)
        self.serving.endpoint.describe_tls = describe
        loop, records = self.serving.loop, self.serving.records
        sock = connected or socket.create_server(("127.0.0.1", 0))
        sock.setblocking(False)
        self.listener = Listener(
            sock, "tls", connected=connected is not None, inherited=connected is not None, tls=True
        )
        make = partial(SerialConnection, self.serving.endpoint)
        self.handshakes = Handshakes("tls", loop, lambda: context, make, timeout, 30.0, records.log, bound)
        self.acceptor = Acceptor(self.listener, loop, make, records.log, 128, self.handshakes)
        self.acceptor.start()

    def raw(self) -> Client:
        """A client without TLS."""
        client = Client(socket.create_connection(self.listener.sock.getsockname()), self.serving.loop)
        self.serving.clients.append(client)
        return client

    async def ask(self, context: ssl.SSLContext) -> bytes:
        """One request over TLS, and the whole answer."""
        host, port = self.listener.sock.getsockname()
        reader, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname="a.example")
        writer.write(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        answer = await reader.read()
        writer.close()
        with suppress(ssl.SSLError, ConnectionError):
            await writer.wait_closed()
        return answer

    def messages(self) -> list[str]:
        return [record["message"] for record in self.serving.records.all()]

    async def end(self) -> None:
        self.acceptor.stop()
        self.acceptor.abort()
        await self.serving.until(lambda: not self.acceptor.pending)
        await self.serving.end()


@pytest.fixture
def context(issuer: Issuer, tmp_path: Path) -> ssl.SSLContext:
    made = issuer.issue(tmp_path / "a.pem", "a.example")
    settings = Settings(tls_cert=(str(made.certificate),), tls_key=(str(made.key),))
    return load(settings, [False]).contexts[False]


def test_a_client_is_served_over_tls(run: Play, issuer: Issuer, context: ssl.SSLContext) -> None:
    async def scene() -> None:
        secured = Secured(context)
        for _ in range(3):
            assert (await secured.ask(issuer.client())).startswith(b"HTTP/1.1 200 ")
        assert secured.handshakes.failed == 0
        assert len(secured.serving.records.answers()) == 3
        await secured.end()

    run(scene)


def test_a_connected_socket_is_served_over_tls(run: Play, issuer: Issuer, context: ssl.SSLContext) -> None:
    async def scene() -> None:
        ours, theirs = pair()
        secured = Secured(context, connected=ours)
        theirs.setblocking(False)
        _, writer = await asyncio.open_connection(sock=theirs, ssl=issuer.client(), server_hostname="a.example")
        await secured.serving.until(lambda: len(secured.serving.endpoint.connections) == 1)
        writer.close()
        with suppress(ssl.SSLError, ConnectionError):
            await writer.wait_closed()
        await secured.end()

    run(scene)


def test_plain_http_is_told_that_the_port_speaks_tls(run: Play, context: ssl.SSLContext) -> None:
    async def scene() -> None:
        secured = Secured(context)
        client = secured.raw()
        await client.send(GET + b"x" * 200_000)  # more than is looked at: a reset would take the answer with it
        [answer] = await client.all_responses()
        assert answer.status == 400
        assert b"speaks TLS" in answer.body
        assert (b"connection", b"close") in [(name.lower(), value) for name, value in answer.headers]
        client.close()
        await secured.serving.until(lambda: not secured.acceptor.pending)
        [record] = secured.serving.records.of("refused")
        assert (record["http_status"], record["client_addr"], record["listener"]) == (400, "127.0.0.1", "tls")
        assert secured.handshakes.failed == 1
        assert secured.serving.endpoint.connections == set()
        await secured.end()

    run(scene)


def test_plain_http_that_does_not_wait_for_its_answer_is_told_once(run: Play, context: ssl.SSLContext) -> None:
    async def scene() -> None:
        secured = Secured(context)
        client = secured.raw()
        await client.send(GET)
        client.close()
        await secured.serving.until(lambda: secured.handshakes.failed > 0 and not secured.acceptor.pending)
        assert secured.handshakes.failed == 1
        assert secured.messages() == ["Refused a connection without TLS on a port that speaks TLS"]
        await secured.end()

    run(scene)


def test_a_client_that_does_not_take_the_plain_answer_is_left(
    run: Play, context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        monkeypatch.setattr(handshake, "ANSWER_SECONDS", 0.05)
        secured = Secured(context)
        client = secured.raw()
        await client.send(GET)
        await client.until(b"speaks TLS")
        await secured.serving.until(lambda: not secured.acceptor.pending)
        await secured.end()

    run(scene)


@pytest.mark.parametrize("sent", [b"", HELLO[:1], HELLO])
def test_a_handshake_that_stalls_is_ended_by_its_deadline(sent: bytes, run: Play, context: ssl.SSLContext) -> None:
    async def scene() -> None:
        secured = Secured(context, timeout=100.0)
        client = secured.raw()
        await client.send(sent)
        await secured.serving.until(lambda: secured.acceptor.pending == 1)
        secured.acceptor.sweep(monotonic() + 90)
        await secured.serving.quiet()
        assert secured.acceptor.pending == 1
        secured.acceptor.sweep(monotonic() + 101)
        assert await client.rest() == b""
        [record] = secured.serving.records.of("handshake_failed")
        assert record["message"] == "A TLS handshake failed: it took too long"
        assert secured.handshakes.failed == 1
        await secured.end()

    run(scene)


def test_the_loops_own_deadline_is_the_same(run: Play, context: ssl.SSLContext) -> None:
    async def scene() -> None:
        secured = Secured(context, timeout=0.1)
        client = secured.raw()
        await client.send(HELLO)
        assert await client.rest() == b""
        [record] = secured.serving.records.of("handshake_failed")
        assert record["message"] == "A TLS handshake failed: it took too long"
        await secured.end()

    run(scene)


@pytest.mark.parametrize(
    ("sent", "cause"),
    [
        (b"\x16\x03\x01\x00\x05hello", "unexpected message"),
        (b"\x16\x02\x00\x00\x05hello", "wrong version number"),
        (b"\x16\x03\x01\xff\xffhello", "packet length too long"),
    ],
)
def test_what_is_no_handshake_is_told_in_openssls_words(
    sent: bytes, cause: str, run: Play, context: ssl.SSLContext
) -> None:
    async def scene() -> None:
        secured = Secured(context)
        client = secured.raw()
        await client.send(sent)
        with suppress(ConnectionResetError):
            assert await client.rest() == b""
        await secured.serving.until(lambda: not secured.acceptor.pending)
        assert secured.messages() == [f"A TLS handshake failed: {cause}"]
        assert secured.serving.records.tracebacks() == []
        await secured.end()

    run(scene)


@pytest.mark.parametrize("sent", [b"", HELLO])
@pytest.mark.parametrize("how", ["close", "reset", "half_close"])
def test_a_client_that_goes_away_is_no_failure(how: str, sent: bytes, run: Play, context: ssl.SSLContext) -> None:
    async def scene() -> None:
        secured = Secured(context)
        client = secured.raw()
        await client.send(sent)
        await secured.serving.until(lambda: secured.acceptor.pending == 1)
        getattr(client, how)()
        await secured.serving.until(lambda: not secured.acceptor.pending)
        [record] = secured.serving.records.all()
        assert record["level"] == "debug"
        assert secured.handshakes.failed == 0
        await secured.end()

    run(scene)


def test_a_client_that_cannot_agree_is_told_of(run: Play, issuer: Issuer, context: ssl.SSLContext) -> None:
    async def scene() -> None:
        secured = Secured(context)
        client = issuer.client()
        client.maximum_version = ssl.TLSVersion.TLSv1_2
        client.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")  # and the certificate has an ECDSA key
        with pytest.raises(ssl.SSLError, match="alert handshake failure"):
            await secured.ask(client)
        assert secured.messages() == ["A TLS handshake failed: no shared cipher"]
        assert (await secured.ask(issuer.client())).startswith(b"HTTP/1.1 200 ")
        await secured.end()

    run(scene)


def test_above_the_bound_the_oldest_is_given_up(run: Play, issuer: Issuer, context: ssl.SSLContext) -> None:
    async def scene() -> None:
        secured = Secured(context, bound=3)
        silent = [secured.raw() for _ in range(3)]
        await secured.serving.until(lambda: secured.acceptor.pending == 3)
        assert (await secured.ask(issuer.client())).startswith(b"HTTP/1.1 200 ")
        assert await silent[0].rest() == b""
        assert secured.acceptor.pending == 2
        await secured.end()
        causes = [record["message"].partition(": ")[2] for record in secured.serving.records.of("handshake_failed")]
        assert causes == ["it stalled while too many later ones were under way", *["the server stops"] * 2]

    run(scene)


def test_one_that_is_given_up_before_it_began_is_closed(run: Play, context: ssl.SSLContext) -> None:
    async def scene() -> None:
        secured = Secured(context)
        ours, theirs = pair()
        task = secured.handshakes.begin(ours, "unix")
        secured.handshakes.abort()
        await asyncio.wait([task])
        assert ours.fileno() == -1
        theirs.close()
        await secured.end()

    run(scene)


def test_while_stopping_handshakes_have_less_time_and_hold_up_nobody(
    run: Play, issuer: Issuer, context: ssl.SSLContext
) -> None:
    async def scene() -> None:
        secured = Secured(context, timeout=1000.0)
        gone: list[bool] = []
        secured.acceptor.on_gone = lambda: gone.append(True)
        stalled = secured.raw()
        await stalled.send(HELLO)
        await secured.serving.until(lambda: secured.acceptor.pending == 1)
        secured.acceptor.stop()
        secured.acceptor.hurry(100.0)
        await asyncio.wait_for(secured.acceptor.settled(), 20)
        secured.acceptor.sweep(monotonic() + 90)
        await secured.serving.quiet()
        assert (secured.acceptor.pending, gone) == (1, [])
        secured.acceptor.sweep(monotonic() + 101)
        assert await stalled.rest() == b""
        await secured.serving.until(lambda: gone == [True])
        await secured.end()

    run(scene)


@pytest.mark.parametrize(
    ("descriptors", "listeners", "bound"),
    [(1024, 1, 256), (1024, 2, 128), (524288, 1, 1000), (2**63 - 1, 3, 1000), (3, 1, 1)],
)
def test_the_bound_leaves_half_of_the_descriptors_to_connections(descriptors: int, listeners: int, bound: int) -> None:
    assert handshake.find_bound(descriptors, listeners) == bound


def test_for_want_of_descriptors_the_oldest_is_given_up_unless_it_is_young(
    run: Play, context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        secured = Secured(context)
        assert not secured.handshakes.relieve()
        stalled = [secured.raw() for _ in range(2)]
        await secured.serving.until(lambda: secured.acceptor.pending == 2)
        assert not secured.handshakes.relieve()
        monkeypatch.setattr(handshake, "RELIEF_SECONDS", 0)
        assert secured.handshakes.relieve()
        assert secured.handshakes.relieve()  # the same one: it has not ended yet
        assert await stalled[0].rest() == b""
        assert secured.acceptor.pending == 1
        assert secured.messages() == ["A TLS handshake failed: it stalled while the process was out of descriptors"]
        await secured.end()

    run(scene)


class Greeter(asyncio.Protocol):
    """Says hello, and ends when it is told to; `meanwhile` runs as soon as the handshake is done."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        self._meanwhile = meanwhile
        self.transport: asyncio.Transport | None = None
        self.lost = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self._meanwhile()
        transport.write(b"hello")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio.Protocol has it
        self.lost = True


@pytest.mark.parametrize("when", ["a turn later", "in the same call"])
def test_one_that_is_given_up_in_the_turn_in_which_it_is_done_keeps_its_socket_to_itself(
    when: str, run: Play, issuer: Issuer, context: ssl.SSLContext
) -> None:
    """Closed behind its transport's back, the descriptor would be another connection's in the next moment."""

    async def scene() -> None:
        loop, records = asyncio.get_running_loop(), Records()
        faults: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, told: faults.append(told))

        def meanwhile() -> None:
            if when == "a turn later":
                loop.call_soon(handshakes.abort)
            else:
                handshakes.abort()

        greeter = Greeter(meanwhile)
        handshakes = Handshakes("tls", loop, lambda: context, lambda: greeter, 5.0, 1.0, records.log)
        ours, theirs = pair()
        theirs.setblocking(False)
        begun = handshakes.begin(ours, "unix")
        reader, writer = await asyncio.open_connection(sock=theirs, ssl=issuer.client(), server_hostname="a.example")
        made = await begun
        assert made == (when == "a turn later")
        if made:
            assert await reader.readexactly(5) == b"hello"
            assert greeter.transport is not None
            greeter.transport.close()
        with suppress(ssl.SSLError, ConnectionError):
            await reader.read()
        writer.close()
        with suppress(ssl.SSLError, ConnectionError):
            await writer.wait_closed()
        while not greeter.lost:
            await asyncio.sleep(0.01)
        assert faults == []
        assert handshakes.pending == 0

    run(scene)


def test_a_fault_of_ours_ends_the_handshake_and_is_told(run: Play, context: ssl.SSLContext) -> None:
    async def scene() -> None:
        secured = Secured(context)
        gone: list[bool] = []
        secured.acceptor.on_gone = lambda: gone.append(True)

        def fail() -> ssl.SSLContext:
            raise LookupError("no context")

        secured.handshakes._pick_context = fail
        client = secured.raw()
        await client.send(HELLO)
        with suppress(ConnectionResetError):
            assert await client.rest() == b""
        await secured.serving.until(lambda: gone == [True])
        [record] = secured.serving.records.of("handshake_failed")
        assert record["level"] == "error"
        assert "LookupError: no context" in record["traceback"]
        await secured.end()

    run(scene)
