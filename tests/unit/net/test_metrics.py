"""What is counted of real connections."""

from pathlib import Path

import pytest

from appserver.telemetry.metrics import bucket_counts
from tests.unit import websocket_frames as frames
from tests.unit.net.conftest import Play
from tests.unit.net.serving import GET, Serving, echo, post
from tests.unit.net.sockets import WAYS, Ways


@pytest.fixture(params=WAYS)
def ways(request: pytest.FixtureRequest, tmp_path: Path) -> Ways:
    return Ways(request.param, tmp_path)


def test_bytes_are_those_of_the_wire_heads_included(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(echo)
        client = await serving.connect()
        sent = post(b"hello") + GET
        await client.send(sent)
        await client.responses(2)
        figures = serving.service.figures
        assert (figures.bytes_received, figures.bytes_sent) == (len(sent), len(client.got))
        assert (figures.statuses, bucket_counts(figures.latencies)[-1]) == ({200: 2}, 2)
        assert 0 < figures.seconds < 10
        await serving.end()

    run(scene)


def test_connections_are_told_apart_by_their_protocol(run: Play, http2: str) -> None:
    async def scene() -> None:
        serving = Serving(echo, http2=http2)
        figures = serving.service.figures
        await serving.connect()
        client = await serving.connect_http2()
        assert (await client.get("/")).status == 200
        assert figures.protocols == {"http/1.1": 1, "h2": 1, "websocket": 0}
        assert figures.accepted == 2
        assert figures.bytes_received > 0
        serving.drop()
        await serving.over()
        assert figures.protocols == {"http/1.1": 0, "h2": 0, "websocket": 0}
        assert (figures.accepted, figures.statuses) == (2, {200: 1})

    run(scene)


def test_a_request_whose_client_has_gone_is_one_of_499(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(echo)
        client = await serving.connect(tcp=True)
        await client.send(post(b"", length=5))
        await serving.until(lambda: serving.service.figures.requests == 1)
        client.reset()
        await serving.over()
        assert serving.service.figures.statuses == {499: 1}

    run(scene)


def test_a_websocket_is_counted_when_it_opens_and_with_the_time_of_its_handshake(run: Play, ways: Ways) -> None:
    async def scene() -> None:
        serving = ways.serve()
        figures = serving.service.figures
        socket = await ways.open(serving)
        over_http2 = socket.status == 200
        assert figures.protocols == {"http/1.1": 0, "h2": over_http2, "websocket": not over_http2}
        assert (figures.websockets, figures.websockets_opened) == (1, 1)
        assert figures.statuses == {socket.status: 1}
        before, taken = figures.bytes_sent, figures.seconds
        await socket.send(frames.text("hello"))
        await socket.until(1)
        assert figures.bytes_sent >= before + len("hello")
        await socket.send(frames.close(1000, b""))
        await socket.rest()
        await serving.until(lambda: figures.answered == 1)
        # Not once more at its end: how long it stayed is no latency.
        assert figures.statuses == {socket.status: 1}
        assert figures.seconds == taken
        assert (figures.websockets, figures.websockets_http2, figures.websockets_opened) == (0, 0, 1)
        await serving.end()

    run(scene)
