"""What an operator is shown of connections, each in its phase."""

import asyncio
import json
from time import monotonic
from typing import Any

from appserver.asgi.types import Receive, Scope, Send
from appserver.net.inspection import list_connections
from tests.unit.net.conftest import Play
from tests.unit.net.serving import GET, Serving, echo, get, post

PLENTY = 1 << 20


def show(serving: Serving) -> dict[str, Any]:
    [one] = list_connections([serving.endpoint], 10, PLENTY)["connections"]
    assert isinstance(one, dict)
    return one


async def hang(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.Event().wait()


async def flood(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 203, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})


def test_a_connection_is_shown_in_each_phase_of_its_requests(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(echo)
        client = await serving.connect()
        shown = show(serving)
        assert (shown["state"], shown["answered"], shown["in_flight"], shown["requests"]) == ("opening", 0, 0, [])
        assert (shown["peer"], shown["protocol"], shown["tls"], shown["listener"]) == ("unix", "http/1.1", None, "http")
        await client.send(GET)
        await client.responses(1)
        assert (show(serving)["state"], show(serving)["answered"]) == ("idle", 1)
        await client.send(b"GET / HTTP/1.1\r\n")
        await serving.until(lambda: show(serving)["state"] == "reading head")
        await client.send(b"Host: a\r\nContent-Length: 3\r\n\r\nab")
        await serving.until(lambda: show(serving)["state"] == "reading body")
        assert (show(serving)["answered"], show(serving)["in_flight"]) == (1, 1)
        await client.send(b"c")
        await serving.until(lambda: (show(serving)["state"], show(serving)["answered"]) == ("idle", 2))
        await serving.end()

    run(scene)


def test_a_request_is_shown_without_its_query_and_cut(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(hang)
        client = await serving.connect(tcp=True)
        await client.send(get("/shop/" + "x" * 200 + "?token=hunter2"))
        await serving.until(lambda: show(serving)["state"] == "in application")
        shown = show(serving)
        [request] = shown["requests"]
        assert request["path"] == "/shop/" + "x" * 73 + "…"
        assert (request["method"], request["status"], request["client"]) == ("GET", None, "127.0.0.1")
        assert shown["peer"].startswith("127.0.0.1:")
        assert "hunter2" not in json.dumps(shown)
        serving.drop()

    run(scene)


def test_a_client_that_does_not_read_is_shown_as_written_to(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(flood)
        client = await serving.connect()
        await client.send(GET)
        await serving.until(lambda: show(serving)["state"] == "writing")
        assert show(serving)["unwritten"] > 0
        assert show(serving)["requests"][0]["status"] == 203
        serving.drop()

    run(scene)


def test_what_a_window_holds_back_is_shown_as_unwritten(http2: str, run: Play) -> None:
    async def scene() -> None:
        serving = Serving(flood, http2=http2)
        client = await serving.connect_http2({4: 100})  # SETTINGS_INITIAL_WINDOW_SIZE
        client.peer.ask("/")
        await client.flush()
        await serving.until(lambda: show(serving)["unwritten"] >= 65436)
        assert show(serving)["state"] == "writing"
        serving.drop()

    run(scene)


def test_many_requests_of_one_connection_are_counted_and_the_first_are_shown(http2: str, run: Play) -> None:
    async def scene() -> None:
        serving = Serving(hang, http2=http2)
        client = await serving.connect_http2()
        for number in range(12):
            client.peer.ask(f"/{number}")
        await client.flush()
        await serving.until(lambda: show(serving)["in_flight"] == 12)
        shown = show(serving)
        assert [request["path"] for request in shown["requests"]] == [f"/{number}" for number in range(8)]
        assert (shown["protocol"], shown["state"], shown["answered"]) == ("h2", "in application", 0)
        serving.drop()

    run(scene)


def test_a_connection_that_goes_over_to_http2_keeps_its_age(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(echo, http2="h2")
        client = await serving.connect()
        [connection] = serving.endpoint.connections
        connection.begun -= 1000
        await client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\4\0\0\0\0\0")
        await serving.until(lambda: show(serving)["protocol"] == "h2")
        assert show(serving)["age"] >= 1000
        serving.drop()

    run(scene)


def test_the_oldest_are_shown_and_the_others_counted(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(echo)
        for _ in range(30):
            await serving.connect()
        now = monotonic()
        for age, connection in enumerate(serving.endpoint.connections):
            connection.begun = now - age
        answer = list_connections([serving.endpoint], 5, PLENTY)
        assert [int(one["age"]) for one in answer["connections"]] == [29, 28, 27, 26, 25]
        assert answer["left_out"] == 25
        small = list_connections([serving.endpoint], 30, 1000)
        assert len(json.dumps(small["connections"])) <= 1000
        assert len(small["connections"]) + small["left_out"] == 30
        assert len(small["connections"]) >= 2
        assert list_connections([], 5, PLENTY) == {"connections": [], "left_out": 0}
        await serving.end()

    run(scene)


def test_a_post_is_one_request(run: Play) -> None:
    async def scene() -> None:
        serving = Serving(echo)
        client = await serving.connect()
        await client.send(post(b"abc") + GET)
        await client.responses(2)
        assert show(serving)["answered"] == 2
        await serving.end()

    run(scene)
