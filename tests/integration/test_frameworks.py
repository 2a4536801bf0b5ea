"""FastAPI, Starlette and Django applications, asked by httpx and by curl."""

import json
import socket
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.isolation import curl
from tests.integration.servers import APPS, PATIENCE, Server, Starter, UnixConnection, receive

STARLETTE, FASTAPI, DJANGO = "starlette_app:app", "fastapi_app:app", "django_app:app"
EVERY = pytest.mark.parametrize("app", [STARLETTE, FASTAPI, DJANGO])
NAME = "Käse & Brötchen / 日本"
ENCODED = "K%C3%A4se%20%26%20Br%C3%B6tchen%20%2F%20%E6%97%A5%E6%9C%AC"


def ask_curl(*words: str | Path) -> str:
    """What curl writes."""
    return subprocess.run(curl(*words), capture_output=True, text=True, check=True, timeout=PATIENCE).stdout


def head_of(server: Server, target: str) -> tuple[httpx.Headers, httpx.Headers]:
    """The fields that GET and HEAD give, and that HEAD gives no body."""
    with server.browser() as browser:
        got, headed = browser.get(target), browser.head(target)
        assert got.status_code == headed.status_code
        assert (headed.content, len(got.content) > 0) == (b"", True)
        # The connection still knows where an answer ends.
        assert browser.get(target).content == got.content
    return got.headers, headed.headers


# --- every framework --------------------------------------------------------------------------------------------------


@EVERY
def test_what_is_not_found_is_404_and_what_fails_is_500(app: str, serve: Starter) -> None:
    server = serve(app, tracebacks=True)
    with server.browser() as browser:
        assert [browser.get(target).status_code for target in ("/nowhere", "/missing", "/fail")] == [404, 404, 500]
        assert browser.get("/nowhere").status_code == 404
    assert server.access("/fail")["http_status"] == 500
    assert any("RuntimeError: no database" in record.get("traceback", "") for record in server.records)


@EVERY
def test_a_stream_comes_in_parts_and_whole(app: str, serve: Starter) -> None:
    server = serve(app)
    with server.browser() as browser, browser.stream("GET", "/stream") as response:
        parts = list(response.iter_raw())
    assert response.headers["transfer-encoding"] == "chunked"
    assert len(parts) > 1
    assert ask_curl(f"{server.url}/stream").encode() == b"".join(parts)
    # A client of HTTP/1.0 knows no chunks: the end of the connection ends the answer.
    assert ask_curl("--http1.0", f"{server.url}/stream").encode() == b"".join(parts)


@EVERY
def test_cookies_go_both_ways(app: str, serve: Starter) -> None:
    with serve(app).browser() as browser:
        first = browser.get("/cookies")
        second = browser.get("/cookies")
    if app == FASTAPI:
        assert (first.json(), second.json()) == (None, "7")
    else:
        assert len(first.headers.get_list("set-cookie")) == 2
        assert (first.json(), second.json()["one"]) == ({}, "1")


@EVERY
def test_many_requests_share_a_connection(app: str, serve: Starter) -> None:
    server = serve(app)
    with server.browser() as browser:
        assert {browser.get("/cookies").status_code for _ in range(50)} == {200}
        server.status("1 connection, 0 requests in flight, 50 answered, 0 failed")


@pytest.mark.parametrize("app", [STARLETTE, DJANGO])
def test_a_client_that_goes_away_ends_the_stream(app: str, serve: Starter) -> None:
    server = serve(app)
    with server.browser() as browser, browser.stream("GET", "/endless") as response:
        assert next(response.iter_raw()) == b"more\n"
    server.record(message="client gone")
    server.record(http_target="/endless", outcome="client_gone")
    server.stop()
    assert not [record for record in server.records if record["level"] in ("error", "critical")]


@EVERY
def test_a_client_that_only_shut_its_sending_side_still_gets_its_answer(app: str, serve: Starter) -> None:
    # docs/adr/0006-half-close.md, with what frameworks make of `http.disconnect`.
    server = serve(app)
    with closing(server.connect()) as connection:
        connection.sock.sendall(b"GET /cookies HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        connection.sock.shutdown(socket.SHUT_WR)
        assert receive(connection.sock).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("app", [STARLETTE, DJANGO])
def test_an_answer_without_body_has_no_length_and_keeps_the_connection(app: str, serve: Starter) -> None:
    with serve(app).browser() as browser:
        response = browser.get("/nothing")
        assert (response.status_code, response.content) == (204, b"")
        assert "content-length" not in response.headers
        assert browser.get("/nothing").status_code == 204


# --- Starlette --------------------------------------------------------------------------------------------------------


def test_starlette_gets_paths_and_queries_as_they_were_meant(serve: Starter) -> None:
    server = serve(STARLETTE)
    with server.browser() as browser:
        told = browser.get(f"/show/{ENCODED}", params=[("q", NAME), ("q", ""), ("plus", "a+b")]).json()
    assert told["name"] == NAME
    assert told["query"] == [["q", NAME], ["q", ""], ["plus", "a+b"]]
    assert told["pool"] == "filled"
    curled = json.loads(ask_curl(f"{server.url}/show/{ENCODED}?q=%C3%A4&empty="))
    assert (curled["name"], curled["query"]) == (NAME, [["q", "ä"], ["empty", ""]])


def test_starlette_gets_json_and_forms_and_files(serve: Starter) -> None:
    server = serve(STARLETTE)
    big = b"\r\n--x" * 500_000
    with server.browser() as browser:
        assert browser.post("/take", json={"name": NAME}).json() == {"name": NAME}
        assert browser.put("/take", content=iter([b"[1,", b"2]"])).json() == [1, 2]
        assert browser.post("/form", data={"a": NAME, "b": ""}).json() == {"a": NAME, "b": ""}
        told = browser.post("/form", data={"a": "1"}, files={"file": ("naïve.bin", big)}).json()
        assert told == {"a": "1", "file": ["naïve.bin", len(big)]}
        assert browser.delete("/take").status_code == 405


def test_starlette_answers_head_as_get_without_the_body(serve: Starter) -> None:
    server = serve(STARLETTE)
    for target in ("/show/x", "/source"):
        got, headed = head_of(server, target)
        assert got["content-length"] == headed["content-length"]
    with server.browser() as browser:
        assert browser.get("/source").content == (APPS / "starlette_app.py").read_bytes()
        ranged = browser.get("/source", headers={"Range": "bytes=3-9"})
    assert (ranged.status_code, ranged.content) == (206, (APPS / "starlette_app.py").read_bytes()[3:10])


def test_starlette_under_a_root_path_builds_urls_with_it(serve: Starter) -> None:
    server = serve(STARLETTE, "--root-path", "/shop")
    with server.browser() as browser:
        told = browser.get("/show/x").json()
        assert told["path"] == "/shop/show/x"
        assert browser.get("/away").headers["location"] == f"{server.url}/shop/show/here"
        assert browser.get("/mounted/show/x").json()["path"] == "/shop/mounted/show/x"


def test_starlette_works_in_the_background_without_keeping_the_client(serve: Starter) -> None:
    server = serve(STARLETTE)
    with server.browser() as browser:
        assert browser.get("/background").text == "at once"
        assert not any(record["message"] == "worked" for record in server.records)
        # What runs in the background is waited for, like a request.
        server.send_signal(15)
        assert server.wait() == 0
    assert server.record(message="worked")["request_id"] == server.access("/background")["request_id"]
    messages = [record["message"] for record in server.records]
    assert messages.index("opened") < messages.index("worked") < messages.index("closed")


def test_starlette_is_told_when_a_client_leaves_in_mid_body(serve: Starter, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    server = serve(STARLETTE, "--uds", path, bind=False)
    with closing(UnixConnection(path)) as connection:
        connection.connect()
        connection.sock.sendall(b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
        server.record(message="some came")
    server.record(message="client gone")
    server.stop()
    assert not [record for record in server.records if record["level"] in ("error", "critical")]


# --- FastAPI ----------------------------------------------------------------------------------------------------------


def test_fastapi_checks_what_it_gets(serve: Starter) -> None:
    server = serve(FASTAPI)
    with server.browser() as browser:
        told = browser.get("/items/7", params={"q": NAME}).json()
        assert told == {"number": 7, "q": NAME, "root_path": "", "pool": "filled"}
        assert browser.get("/items/seven").status_code == 422
        assert browser.get("/names/K%C3%A4se").json() == {"name": "Käse"}
        created = browser.post("/items", json={"name": NAME, "price": 1.5})
        assert (created.status_code, created.json()) == (201, {"name": NAME, "price": 1.5})
        assert browser.post("/items", content=b"{").status_code == 422
        assert browser.head("/items/7").status_code == 405
        assert "/items/{number}" in browser.get("/openapi.json").json()["paths"]
    # Its thread still belongs to the request.
    assert server.record(message="in a thread")["request_id"] == server.access("/names/K%C3%A4se")["request_id"]


def test_fastapi_gets_forms_and_files_from_curl(serve: Starter, tmp_path: Path) -> None:
    server = serve(FASTAPI)
    file = tmp_path / "basket.txt"
    file.write_bytes(b"x" * 3_000_000)
    told: Any = json.loads(ask_curl("--form-string", f"name={NAME}", "--form", "note=b", f"{server.url}/form"))
    assert told == {"name": NAME, "note": "b"}
    told = json.loads(ask_curl("--data-urlencode", f"name={NAME}", "--data", "note=a+b", f"{server.url}/form"))
    assert told == {"name": NAME, "note": "a b"}
    # A body this large makes curl wait for 100 Continue.
    twice = ["--form", f"files=@{file}", "--form", f"files=@{file};filename=b.bin;type=application/x-basket"]
    told = json.loads(ask_curl(*twice, f"{server.url}/upload"))
    assert told == [
        {"name": "basket.txt", "size": 3_000_000, "type": "text/plain"},
        {"name": "b.bin", "size": 3_000_000, "type": "application/x-basket"},
    ]


def test_fastapi_works_in_the_background(serve: Starter) -> None:
    server = serve(FASTAPI)
    assert server.get("/background") == (200, b'"at once"')
    server.record(message="worked")


def test_fastapi_under_a_root_path(serve: Starter) -> None:
    server = serve(FASTAPI, "--root-path", "/shop")
    with server.browser() as browser:
        assert browser.get("/items/7").json()["root_path"] == "/shop"
        assert browser.get("/openapi.json").json()["servers"] == [{"url": "/shop"}]


# --- Django -----------------------------------------------------------------------------------------------------------


def test_django_gets_paths_and_queries_as_they_were_meant(serve: Starter) -> None:
    server = serve(DJANGO)
    with server.browser() as browser:
        told = browser.get("/show/K%C3%A4se%20%26", params=[("q", NAME), ("q", "2")]).json()
    assert (told["name"], told["query"], told["client"]) == ("Käse &", [NAME, "2"], "127.0.0.1")


def test_django_gets_forms_and_files(serve: Starter) -> None:
    server = serve(DJANGO)
    with server.browser() as browser:
        assert browser.post("/take", data={"a": NAME}).json() == {"form": {"a": NAME}, "files": {}}
        # Larger than what Django keeps in memory.
        told = browser.post("/take", data={"a": "1"}, files={"file": ("b.bin", b"x" * 3_000_000)}).json()
    assert told == {"form": {"a": "1"}, "files": {"file": ["b.bin", 3_000_000]}}


def test_django_answers_head_as_get_without_the_body(serve: Starter) -> None:
    got, headed = head_of(serve(DJANGO), "/show/x")
    assert got["content-length"] == headed["content-length"]


def test_django_behind_a_trusted_proxy_knows_scheme_and_client(serve: Starter, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    serve(DJANGO, "--uds", path, "--root-path", "/shop", bind=False)
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.7", "Host": "shop.example"}
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), trust_env=False) as browser:
        told = browser.get("http://shop.example/show/x", headers=headers).json()
    assert told["secure"] is True
    assert told["url"] == "https://shop.example/shop/show/x"
    assert told["client"] == "203.0.113.7"


def test_pipelined_requests_to_a_framework_are_answered_in_order(serve: Starter) -> None:
    server = serve(STARLETTE)
    with closing(server.connect()) as connection:
        requests = [f"GET /show/{number} HTTP/1.1\r\nHost: a\r\n" for number in range(8)]
        requests[-1] += "Connection: close\r\n"
        connection.sock.sendall("".join(request + "\r\n" for request in requests).encode())
        answers = receive(connection.sock)
    places = [answers.index(b'"name":"%d"' % number) for number in range(8)]
    assert places == sorted(places)
