"""WSGI applications in the real server: the reference's validator, Django and Flask, asked by real clients."""

import hashlib
import http.client
import json
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.certificates import Issuer
from tests.integration.servers import APPS, PATIENCE, Server, Starter, UnixConnection, get, receive, run
from tests.integration.workers import eventually

APP, VALIDATED = "wsgi_app:app", "wsgi_app:validated"


def tell(server: Server, target: str = "/tell", **fields: str) -> dict[str, object]:
    told: dict[str, object] = json.loads(server.get(target, **fields)[1])
    return told


# --- requests and answers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_the_reference_validator_has_nothing_to_remark(loop: str, serve: Starter) -> None:
    server = serve(VALIDATED, "--loop", loop, "--interface", "wsgi")  # it takes *args
    with server.browser() as browser:
        assert browser.get("/tell?a=b%20c").json()["QUERY_STRING"] == "a=b%20c"
        assert browser.head("/tell").content == b""
        data = os.urandom(3_000_000)
        expected = f"{len(data)} {hashlib.sha256(data).hexdigest()}"
        assert browser.post("/digest", content=data).text == expected
        # Without a length, in chunks: it ends where the client ends it.
        assert (
            browser.post("/digest", content=(data[at : at + 70_001] for at in range(0, len(data), 70_001))).text
            == expected
        )
        assert browser.get("/stream?3,0").text == "0\n1\n2\n"
        assert browser.get(f"/file?{__file__}").text == Path(__file__).read_text()
    assert [record["message"] for record in server.records if record["level"] == "error"] == []


def test_an_environ_says_what_came(serve: Starter) -> None:
    server = serve(APP, "--root-path", "/shop", "--threads", "3")
    told = tell(server, "/tell/%C3%A4?x=1", X_Name="a", Proxy="http://evil.example")
    host, port = server.address
    assert (
        told.items()
        >= {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "/shop",
            "PATH_INFO": "/tell/Ã¤",
            "QUERY_STRING": "x=1",
            "REQUEST_URI": "/shop/tell/%C3%A4?x=1",
            "SERVER_NAME": host,
            "SERVER_PORT": str(port),
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "HTTP_X_NAME": "a",
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.url_scheme": "http",
        }.items()
    )
    assert "HTTP_PROXY" not in told


def test_a_proxy_is_believed_as_for_asgi_and_a_unix_socket_has_a_name(serve: Starter, tmp_path: Path) -> None:
    serve(APP, "--uds", tmp_path / "shop.sock", bind=False)
    forwarded = {"Host": "shop.example:8443", "X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https"}
    with closing(UnixConnection(tmp_path / "shop.sock")) as connection:
        told = json.loads(get(connection, "/tell", **forwarded)[1])
    assert (told["REMOTE_ADDR"], told["wsgi.url_scheme"]) == ("203.0.113.7", "https")
    assert (told["SERVER_NAME"], told["SERVER_PORT"]) == ("shop.example", "8443")


def test_pieces_come_when_they_are_made_and_the_iterable_is_closed(serve: Starter) -> None:
    server = serve(APP)
    with server.browser() as browser, browser.stream("GET", "/stream?3,0.3") as response:
        came = [(time.monotonic(), piece) for piece in response.iter_raw()]
    assert [piece for _, piece in came] == [b"0\n", b"1\n", b"2\n"]
    assert came[2][0] - came[0][0] > 0.4
    server.record(message="closed")


def test_http2_and_tls_serve_it_too(serve: Starter, tmp_path: Path) -> None:
    issuer = Issuer()
    server = serve(APP, *issuer.issue(tmp_path / "site.pem", "localhost").arguments)
    with httpx.Client(verify=issuer.client(), http2=True, timeout=PATIENCE, trust_env=False) as browser:
        url = f"https://localhost:{server.address[1]}"
        answer = browser.get(f"{url}/tell")
        told = answer.json()
        assert (answer.http_version, told["SERVER_PROTOCOL"]) == ("HTTP/2", "HTTP/2.0")
        assert (told["wsgi.url_scheme"], told["HTTP_HOST"]) == ("https", f"localhost:{server.address[1]}")
        assert browser.post(f"{url}/digest", content=bytes(200_000)).text.startswith("200000 ")
        assert browser.get(f"{url}/file?{__file__}").text == Path(__file__).read_text()
        assert len(browser.get(f"{url}/large?64").content) == 64 * 65536


def test_a_websocket_is_refused(serve: Starter) -> None:
    server = serve(APP)
    with socket.create_connection(server.address, timeout=PATIENCE) as sock:
        sock.sendall(
            b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert receive(sock, lambda data: b"\r\n\r\n" in data).startswith(b"HTTP/1.1 403 ")


# --- frameworks -------------------------------------------------------------------------------------------------------


def test_django_is_served_over_wsgi(serve: Starter) -> None:
    server = serve("django_app:wsgi", tracebacks=True)
    with server.browser() as browser:
        shown = browser.get("/show/K%C3%A4se?q=1&q=2").json()
        assert (shown["name"], shown["query"], shown["path"]) == ("Käse", ["1", "2"], "/show/Käse")
        assert shown["url"].startswith(server.url)
        taken = browser.post("/take", data={"a": "b"}, files={"f": ("f.bin", bytes(3_000_000))}).json()
        assert taken == {"form": {"a": "b"}, "files": {"f": ["f.bin", 3_000_000]}}
        assert browser.get("/cookies").headers.get_list("set-cookie")[1].startswith("two=2")
        assert [browser.get(target).status_code for target in ("/missing", "/fail", "/nothing")] == [404, 500, 204]


def test_flask_is_served(serve: Starter) -> None:
    server = serve("flask_app:app", tracebacks=True)
    with server.browser() as browser:
        told = browser.get("/items/K%C3%A4se?a=1").json()
        assert (told["name"], told["query"], told["client"]) == ("Käse", {"a": "1"}, "127.0.0.1")
        assert browser.post("/upload", files={"file": ("f.bin", bytes(100_000))}).text == "f.bin 100000"
        assert browser.get("/stream").text == "0\n1\n2\n"
        text = (APPS / "flask_app.py").read_bytes()
        assert browser.get("/file").content == text
        part = browser.get("/file", headers={"Range": "bytes=5-9"})
        assert (part.status_code, part.content) == (206, text[5:10])
        assert browser.get("/fail").status_code == 500
    # Flask's own logger, of the standard library.
    assert any("RuntimeError: no database" in record.get("traceback", "") for record in server.records)


# --- what is told -----------------------------------------------------------------------------------------------------


def test_what_fails_is_told_with_the_applications_own_frames(serve: Starter) -> None:
    server = serve(APP, tracebacks=True)
    assert server.get("/fail")[0] == 500
    told = server.record(event="application_error")
    assert "appserver/" not in told["traceback"]
    assert "in fail" in told["traceback"]
    assert told["request_id"] == server.record(http_target="/fail", outcome="failed")["request_id"]


def test_errors_of_the_application_are_records_of_the_request(serve: Starter) -> None:
    server = serve(APP)
    assert server.get("/complain", **{"X-Request-ID": "mine"}) == (200, b"complained")
    ids = {
        server.record(message=message, level=level)["request_id"]
        for message, level in (("something is odd", "error"), ("and said otherwise", "warning"))
    }
    assert ids == {server.access("/complain")["request_id"]}


def test_what_it_is_can_be_said_and_check_tries_it(serve: Starter) -> None:
    done = run("check", APP, "--app-dir", APPS, program="appserverctl")
    assert "application  ok" in done.stdout
    serve(APP, "--interface", "wsgi", "--lifespan", "auto")
    refused = serve(APP, "--lifespan", "on", ready=False, expected=3, tracebacks=True)
    assert refused.wait() == 3
    assert "does not support lifespan" in refused.told("EXIT_STATUS", "3").fields["STATUS"]


# --- threads ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("threads", "least", "most"), [("4", 0.0, 1.7), ("1", 1.9, 60.0)])
def test_as_many_requests_as_there_are_threads_are_served_at_a_time(
    threads: str, least: float, most: float, serve: Starter
) -> None:
    server = serve(APP, "--threads", threads)
    began = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(server.get, "/wait?0.5") for _ in range(4)]
        assert {answer.result() for answer in answers} == {(200, b"waited")}
    assert least < time.monotonic() - began < most


def test_slow_clients_and_those_that_leave_give_their_threads_back(serve: Starter) -> None:
    server = serve(APP, "--threads", "2", "--timeout-write", "2")
    threads = tell(server)["threads"]
    for _ in range(2):
        with socket.create_connection(server.address, timeout=PATIENCE) as sock:
            sock.sendall(b"GET /large?1000 HTTP/1.1\r\nHost: a\r\n\r\n")
            assert sock.recv(1000)
    for _ in range(2):  # and who uploads no more
        with socket.create_connection(server.address, timeout=PATIENCE) as sock:
            sock.sendall(b"POST /digest HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc")
    stalled = socket.create_connection(server.address, timeout=PATIENCE)
    stalled.sendall(b"GET /large?1000 HTTP/1.1\r\nHost: a\r\n\r\n")
    with closing(stalled):
        assert server.get("/tell")[0] == 200
        # --timeout-write ends the one that does not read.
        eventually(lambda: sum(record["message"] == "closed" for record in server.records) == 3, "the end of all")
    assert tell(server)["threads"] == threads


# --- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [(), ("--workers", "2"), ("--workers", "2", "--preload")], ids=" ".join)
def test_a_stop_answers_what_runs_and_ends_the_threads(more: tuple[str, ...], serve: Starter) -> None:
    server = serve(APP, *more, "--lifespan", "off")
    connection = server.connect()
    connection.request("GET", "/wait?1")
    server.record(message="begun")
    server.send_signal(signal.SIGTERM)
    with closing(connection):
        assert connection.getresponse().read() == b"waited"
    began = time.monotonic()
    assert server.wait() == 0
    assert time.monotonic() - began < 4  # a thread that is left behind is waited for 5 s


def test_what_runs_longer_than_it_may_is_cut(serve: Starter) -> None:
    server = serve(APP, "--graceful-timeout", "0.5", expected=4)
    connection = server.connect()
    connection.request("GET", "/wait?4")
    server.record(message="begun")
    server.send_signal(signal.SIGTERM)
    with closing(connection):
        assert connection.getresponse().status == 503
    assert server.wait() == 4
    server.record(event="drain_cut", requests_cut=1)


def test_workers_are_processes_with_threads_of_their_own(serve: Starter) -> None:
    server = serve(APP, "--workers", "2", "--preload")
    seen: set[object] = set()

    def ask() -> bool:
        told = tell(server)
        assert told["wsgi.multiprocess"] is True
        seen.add(told["pid"])
        return len(seen) == 2

    eventually(ask, "answers of both")


def test_a_client_that_pipelines_gets_its_answers_in_order(serve: Starter) -> None:
    server = serve(APP)
    with socket.create_connection(server.address, timeout=PATIENCE) as sock:
        targets = [b"/wait?0.2", b"/stream?3,0", b"/wait?0"]
        sock.sendall(b"".join(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % target for target in targets))
        answers = []
        for _ in targets:
            response = http.client.HTTPResponse(sock)
            response.begin()
            answers.append(response.read())
            if len(answers) == 1:
                break  # what follows may be in the first one's buffer
        assert answers == [b"waited"]
