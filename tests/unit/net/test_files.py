"""Files on their way to real sockets, by sendfile(2) and by the way round it, on both event loops."""

import asyncio
import os
import random
import select
import socket
import ssl
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest
import uvloop

from appserver.asgi.types import Application, Message, Receive, Scope, Send
from appserver.net.connection import PIECE_SIZE, Connection
from appserver.net.flow import FILE_TURN, HIGH_WATER
from appserver.net.serial import SerialConnection
from tests.unit.net.serving import EAGER, TIMEOUTS, Client, Serving, get, pair, post

Play: TypeAlias = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]

MEBIBYTE: Final = 1024 * 1024
SIZE: Final = 3 * FILE_TURN + 12_345
CONTENT: Final = random.Random(7).randbytes(SIZE)
START: Final[Message] = {"type": "http.response.start", "status": 200, "headers": []}


@pytest.fixture(autouse=True)
def _descriptors() -> Iterator[None]:
    """Whatever becomes of a transfer, every descriptor is closed at its end."""
    uvloop.new_event_loop().close()  # the first of a process opens two for all that follow
    folder = Path("/proc/self/fd")
    before = list(folder.iterdir())
    yield
    assert list(folder.iterdir()) == before


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "content"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """More than any socket holds; it takes no place on the disk."""
    path = tmp_path / "large"
    path.touch()
    os.truncate(path, 64 * MEBIBYTE)
    return path


def by_path(path: Path) -> Application:
    """Answers with a file, but on `/hello` with a greeting."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        if scope["path"] == "/hello":
            await send({"type": "http.response.body", "body": b"hello"})
        else:
            await send({"type": "http.response.pathsend", "path": str(path)})

    return application


def in_pieces(path: Path, *, length: int | None = None) -> Application:
    """Answers with a body message, a file, a body message, and the file's last byte."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        head = [] if length is None else [(b"content-length", b"%d" % length)]
        await send({**START, "headers": head})
        with open_file(path) as file:
            await send({"type": "http.response.body", "body": b"a" * 300_000, "more_body": True})
            await send({"type": "http.response.zerocopysend", "file": file, "more_body": True})
            await send({"type": "http.response.body", "body": b"b" * 300_000, "more_body": True})
            await send({"type": "http.response.zerocopysend", "file": file, "offset": SIZE - 1})

    return application


def open_file(path: Path) -> Any:
    return path.open("rb")


PIECES: Final = b"a" * 300_000 + CONTENT + b"b" * 300_000 + CONTENT[-1:]


async def begin(serving: Serving, *, tcp: bool = False, target: str = "/") -> Client:
    """A client whose file is on its way and waits for it."""
    client = await serving.connect(tcp=tcp)
    await client.send(get(target))
    await stuck(serving)
    return client


def can_write(sock: socket.socket) -> bool:
    return select.select([], [sock], [], 0)[1] != []


async def stuck(serving: Serving) -> None:
    """Wait until the socket takes nothing more of the file, and the client's time for that runs."""

    def is_stuck() -> bool:
        if not serving.endpoint.connections:
            return False
        out = serving.connection._out
        assert out._transport is not None
        # Before, it may be the head that is waited for, which the event loop writes in its next turn.
        return out.deadline != float("inf") and not can_write(out._transport.get_extra_info("socket"))

    await serving.until(is_stuck)


async def take(client: Client, size: int) -> None:
    """Read the rest of an answer with a body of so many bytes, and keep none of it."""
    await client.until(b"\r\n\r\n")
    left = size - len(client.got.partition(b"\r\n\r\n")[2])
    while left:
        data = await asyncio.get_running_loop().sock_recv(client.sock, min(left, MEBIBYTE))
        assert data, f"{left} bytes did not come"
        left -= len(data)


# The way there


@pytest.mark.parametrize("eager", [False, EAGER])
@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
def test_a_file_comes_whole_between_other_answers(run: Play, path: Path, *, tcp: bool, eager: bool) -> None:
    async def scene() -> None:
        serving = Serving(by_path(path), eager=eager)
        client = await serving.connect(tcp=tcp)
        await client.send(get("/hello") + get("/first") + get("/hello") + get("/second"))
        bodies = [response.body for response in await client.responses(4)]
        assert bodies == [b"hello", CONTENT, b"hello", CONTENT]
        await client.send(get("/hello"))
        assert (await client.responses(5))[-1].body == b"hello"
        assert [answer["bytes_sent"] for answer in serving.records.answers()] == [5, SIZE, 5, SIZE, 5]
        await serving.end()

    run(scene)


@pytest.mark.parametrize("length", [len(PIECES), None], ids=["sendfile", "chunks"])
@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
def test_files_and_other_bodies_keep_their_order(run: Play, path: Path, length: int | None, *, tcp: bool) -> None:
    async def scene() -> None:
        serving = Serving(in_pieces(path, length=length))
        client = await serving.connect(tcp=tcp)
        for count in (1, 2):
            await client.send(get("/"))
            response = (await client.responses(count))[-1]
            assert response.body == PIECES
            assert (response.values(b"transfer-encoding") == []) is (length is not None)
        await serving.end()

    run(scene)


def test_over_tls_a_file_is_encrypted(run: Play, path: Path, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    subject = ["-subj", "/CN=a.example", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*words, *subject], check=True, capture_output=True)
    ours_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours_context.load_cert_chain(certificate, key)
    theirs_context = ssl.create_default_context(cafile=str(certificate))
    theirs_context.check_hostname = False

    async def scene() -> None:
        serving = Serving(by_path(path))
        ours, theirs = pair(tcp=True)
        accepted = asyncio.ensure_future(
            serving.loop.connect_accepted_socket(partial(SerialConnection, serving.endpoint), ours, ssl=ours_context)
        )
        reader, writer = await asyncio.open_connection(sock=theirs, ssl=theirs_context, server_hostname="a.example")
        await accepted
        writer.write(get("/", "Connection: close"))
        assert (await reader.read()).partition(b"\r\n\r\n")[2] == CONTENT
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        await serving.over()

    run(scene)


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
def test_a_file_does_not_overtake_what_the_transport_holds(run: Play, path: Path, *, tcp: bool) -> None:
    async def scene() -> None:
        client: Client
        held, written = asyncio.Event(), 0

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal written
            await send(START)
            transport = serving.connection._transport
            assert transport is not None
            # Else the kernel takes some megabytes, and the test seconds.
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 100_000)
            while not transport.get_write_buffer_size():
                await send({"type": "http.response.body", "body": b"a" * 50_000, "more_body": True})
                written += 50_000
            # Now the transport holds some bytes; the client makes room for more, and the loop does not turn.
            with suppress(BlockingIOError):
                while True:
                    client.got += client.sock.recv(MEBIBYTE)
            held.set()
            await send(message)

        with open_file(path) as file:
            message = {"type": "http.response.zerocopysend", "file": file}
            serving = Serving(application)
            client = await serving.connect(tcp=tcp)
            await client.send(b"GET / HTTP/1.0\r\n\r\n")
            await held.wait()  # who reads before that may take all that is written, without an end
            [response] = await client.all_responses()
        assert response.body[:written] == b"a" * written
        assert response.body[written:] == CONTENT
        await serving.end()

    run(scene)


def test_an_http_1_0_client_gets_a_file_and_the_end(run: Play, path: Path) -> None:
    async def scene() -> None:
        serving = Serving(in_pieces(path))
        client = await serving.connect(tcp=True)
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        [response] = await client.all_responses()
        assert response.body == PIECES
        await serving.end()

    run(scene)


def test_a_file_may_be_the_answer_to_a_body_that_still_comes(run: Play, path: Path) -> None:
    async def scene() -> None:
        serving = Serving(by_path(path))
        client = await serving.connect()
        whole = post(b"x" * 1000)
        await client.send(whole[:-500])
        await client.responses(1)
        await client.send(whole[-500:] + get("/hello"))
        assert [response.body for response in await client.responses(2)] == [CONTENT, b"hello"]
        await serving.end()

    run(scene)


def test_a_half_closed_client_gets_its_file(run: Play, path: Path) -> None:
    async def scene() -> None:
        serving = Serving(by_path(path))
        client = await serving.connect(tcp=True)
        await client.send(get("/"))
        client.half_close()
        [response] = await client.all_responses()
        assert response.body == CONTENT
        await serving.over()

    run(scene)


def test_a_file_leaves_the_loop_to_others(run: Play, path: Path) -> None:
    async def scene() -> None:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await send(START)
            before = turns
            await send({"type": "http.response.pathsend", "path": str(path)})
            assert turns - before >= SIZE // FILE_TURN

        serving = Serving(application)
        client = await serving.connect(tcp=True)
        counting = asyncio.ensure_future(count())
        await client.send(get("/"))
        await client.responses(1)
        counting.cancel()
        assert serving.records.tracebacks() == []
        await serving.end()

    run(scene)


@pytest.mark.parametrize("length", [64 * MEBIBYTE, None], ids=["sendfile", "chunks"])
def test_a_client_that_does_not_read_makes_nothing_be_held(run: Play, large: Path, length: int | None) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send({**START, "headers": [] if length is None else [(b"content-length", b"%d" % length)]})
        with open_file(large) as file:
            await send({"type": "http.response.zerocopysend", "file": file, "more_body": True})

    async def scene() -> None:
        serving = Serving(application)
        await begin(serving)
        await serving.until(lambda: serving.held() <= (0 if length else HIGH_WATER + PIECE_SIZE))
        await serving.quiet()
        assert serving.held() <= (0 if length else HIGH_WATER + PIECE_SIZE)
        serving.drop()
        await serving.over()

    run(scene)


# The client's time


def test_a_client_that_reads_a_byte_a_second_of_its_file_is_cut(run: Play, large: Path) -> None:
    async def scene() -> None:
        serving = Serving(by_path(large))
        client = await begin(serving)
        serving.later(TIMEOUTS.write - 10)
        assert len(serving.endpoint.connections) == 1
        await client.read(1)
        serving.later(TIMEOUTS.write + 1)
        await serving.over()
        [record] = serving.records.of("deadline")
        assert "reads too slowly" in record["message"]
        [answer] = serving.records.answers()
        assert answer["outcome"] == "client_gone"
        assert 0 < answer["bytes_sent"] < 8 * MEBIBYTE
        assert serving.records.tracebacks() == []

    run(scene)


def test_a_client_that_reads_its_file_at_the_rate_gets_more_time(run: Play, large: Path) -> None:
    async def scene() -> None:
        serving = Serving(by_path(large))
        client = await begin(serving)
        for _ in range(3):
            before = serving.connection._out.deadline
            while serving.connection._out.deadline in (before, float("inf")):
                await client.read(16 * 1024)
                await asyncio.sleep(0)
            serving.later(TIMEOUTS.write - 10)
        assert len(serving.endpoint.connections) == 1
        await take(client, 64 * MEBIBYTE)
        assert serving.connection._out.deadline == float("inf")
        await serving.end()

    run(scene)


# The end before the end


@pytest.mark.parametrize("way", [Client.close, Client.reset])
@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
@pytest.mark.parametrize("target", ["/", "/reading"])
def test_a_client_that_goes_is_told_to_the_application(
    run: Play, large: Path, way: Callable[[Client], None], target: str, *, tcp: bool
) -> None:
    async def scene() -> None:
        told = []

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await send(START)
            try:
                await send({"type": "http.response.pathsend", "path": str(large)})
            except OSError as error:
                told.append(str(error))
                raise

        serving = Serving(application)
        client = await begin(serving, tcp=tcp)
        if target == "/":  # the transport does not read, and so learns of the end from us alone
            serving.connection._pause_reading()
        way(client)
        await serving.over()
        assert told == ["the client is gone"]
        [answer] = serving.records.answers()
        assert answer["outcome"] == "client_gone"
        assert serving.records.tracebacks() == []

    run(scene)


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
@pytest.mark.parametrize("size", [1, 64 * MEBIBYTE])
def test_a_file_that_the_application_awaits_too_late_is_not_counted_again(
    run: Play, large: Path, size: int, *, tcp: bool
) -> None:
    async def scene() -> None:
        begun, gone = asyncio.Event(), asyncio.Event()
        os.truncate(large, size)

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await send(START)
            sending = send({"type": "http.response.pathsend", "path": str(large)})
            begun.set()
            await gone.wait()
            await sending

        serving = Serving(application)
        client = await serving.connect(tcp=tcp)
        await client.send(get("/"))
        await begun.wait()
        client.reset()
        await serving.until(lambda: not serving.endpoint.connections)
        gone.set()
        await serving.over()
        [answer] = serving.records.answers()
        assert answer["outcome"] == "client_gone"
        figures = serving.service.figures
        assert (figures.requests, figures.answered) == (0, 1)
        assert serving.records.tracebacks() == []

    run(scene)


@pytest.mark.parametrize("end", [Connection.finish, Connection.abort])
@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
def test_the_end_of_the_server_cuts_a_file(
    run: Play, large: Path, end: Callable[[Connection], None], *, tcp: bool
) -> None:
    async def scene() -> None:
        serving = Serving(by_path(large))
        client = await begin(serving, tcp=tcp)
        end(serving.connection)
        await serving.until(lambda: not serving.service.tasks)
        try:
            got = await client.rest()
        except ConnectionResetError:
            got = client.got
        assert len(got) < 64 * MEBIBYTE
        await serving.over()
        assert len(serving.records.answers()) == 1
        assert serving.records.tracebacks() == []

    run(scene)


def test_a_cancelled_application_cuts_its_file(run: Play, large: Path) -> None:
    async def scene() -> None:
        serving = Serving(by_path(large))
        client = await begin(serving)
        [task] = serving.service.tasks
        task.cancel()
        assert len(await client.rest()) < 64 * MEBIBYTE
        client.close()
        await serving.over()
        [answer] = serving.records.answers()
        assert answer["outcome"] == "cut"

    run(scene)


@pytest.mark.parametrize("length", [64 * MEBIBYTE, None], ids=["sendfile", "chunks"])
def test_a_file_that_becomes_shorter_is_seen_by_the_client(run: Play, large: Path, length: int | None) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send({**START, "headers": [] if length is None else [(b"content-length", b"%d" % length)]})
        with open_file(large) as file:
            await send({"type": "http.response.zerocopysend", "file": file, "more_body": True})
            await send({"type": "http.response.body"})

    async def scene() -> None:
        serving = Serving(application)
        client = await begin(serving)
        os.truncate(large, MEBIBYTE // 2)
        got = await client.rest()
        assert len(got) < 64 * MEBIBYTE
        assert not got.endswith(b"0\r\n\r\n")
        client.close()
        await serving.over()
        [answer] = serving.records.answers()
        assert answer["outcome"] == "cut"
        assert "shorter while it was sent" in serving.records.tracebacks()[0]

    run(scene)


def test_a_draining_server_sends_a_file_to_its_end(run: Play, large: Path) -> None:
    async def scene() -> None:
        serving = Serving(by_path(large))
        client = await begin(serving)
        serving.drain()
        await take(client, 64 * MEBIBYTE)
        await serving.end()

    run(scene)
