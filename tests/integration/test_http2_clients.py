"""Real clients over HTTP/2: curl, nghttp, h2load and httpx, with each engine, plain and over TLS.

That nothing but access records is in the server's log is looked at when the last test of a server is over.
"""

import asyncio
import hashlib
import json
import re
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from appserver.wire.http2 import CONNECTION_WINDOW, STREAM_WINDOW
from tests.apps.behaviour import BLOCK, blocks
from tests.apps.extensions import PIECE
from tests.integration.http2 import ENGINES, WAYS, Site, serving
from tests.integration.servers import PATIENCE


@pytest.fixture(scope="module", params=WAYS)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serving(tmp_path_factory.mktemp(request.param), request.param, "behaviour:app") as site:
        yield site


@pytest.fixture(scope="module", params=[way for way in WAYS if way.startswith("plain")])
def plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serving(tmp_path_factory.mktemp(request.param), request.param, "behaviour:app") as site:
        yield site


@pytest.fixture(scope="module", params=ENGINES)
def extended(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """With the application that sends trailers and promises."""
    way = f"plain-{request.param}"
    with serving(tmp_path_factory.mktemp(way), way, "extensions:app") as site:
        yield site


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight MiB."""
    path = tmp_path_factory.mktemp("upload") / "file"
    path.write_bytes(b"".join(blocks(8)))
    return path


def told_of(path: Path) -> dict[str, Any]:
    """What the application tells of this file as a body."""
    return {"count": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def run(*words: str | Path) -> str:
    """What a client writes; it has to end well."""
    done = subprocess.run(
        [*map(str, words)], capture_output=True, text=True, check=False, timeout=PATIENCE * 2, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# curl

CURL = ["curl", "--silent", "--show-error", "--fail", "--noproxy", "*", "--http2"]
"""On a plain connection it asks for an upgrade."""

FACTS = "\n%{http_version} %{http_code} %{num_connects}"


def test_curl_speaks_http2_by_prior_knowledge_and_by_alpn(site: Site) -> None:
    assert run(*site.curl, "-w", FACTS, f"{site.url}/") == "hello\n2 200 1"
    assert run(*site.curl, "-w", FACTS, "--head", f"{site.url}/").endswith("\n2 200 1")
    scope = json.loads(run(*site.curl, f"{site.url}/scope?q=%C3%A4"))
    assert (scope["http_version"], scope["query"]) == ("2", "q=%C3%A4")
    assert scope["scheme"] == ("https" if site.tls else "http")
    assert scope["headers"]["host"] == httpx.URL(site.url).netloc.decode()
    assert site.server.access("/scope?q=%C3%A4")["http_version"] == "2"


def test_curl_that_wants_http_1_1_gets_it_from_the_same_listener(site: Site) -> None:
    assert run(*site.curl, "--http1.1", "-w", FACTS, f"{site.url}/") == "hello\n1.1 200 1"


def test_curl_asks_fifty_times_over_one_connection(site: Site) -> None:
    # This curl (7.88) cannot do that with prior knowledge, whatever the server: it begins each request with a preface.
    words = [*site.curl, "--parallel", "--parallel-max", "50"] if site.tls else CURL
    facts = run(*words, "-o", "/dev/null", "-w", FACTS, f"{site.url}/whoami?[1-50]")
    assert Counter(facts.split("\n")[1:]) == {"2 200 1": 1, "2 200 0": 49}


@pytest.mark.parametrize("length", ["known", "unknown"])
def test_curl_uploads(length: str, site: Site, file: Path) -> None:
    body = str(file) if length == "known" else "-"
    with file.open("rb") as stream:
        done = subprocess.run(
            [*site.curl, "-T", body, f"{site.url}/upload"], stdin=stream, capture_output=True, check=True, timeout=60
        )
    assert json.loads(done.stdout) == told_of(file)


def test_curl_downloads(site: Site) -> None:
    done = subprocess.run(
        [*site.curl, f"{site.url}/download?blocks=32"], capture_output=True, check=True, timeout=PATIENCE * 2
    )
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(b"".join(blocks(32))).digest()


def test_an_upgrade_with_a_body_is_passed_over(plain: Site) -> None:
    told, facts = run(*CURL, "-w", FACTS, "-d", "body", f"{plain.url}/upload").split("\n")
    assert json.loads(told)["count"] == 4
    assert facts == "1.1 200 1"


# nghttp


def errors(log: str) -> set[str]:
    """Error codes in what nghttp -v tells."""
    return set(re.findall(r"error_code=(\w+)", log))


def test_nghttp_asks_a_hundred_times_at_once(site: Site) -> None:
    table = run("nghttp", "--null-out", "--stat", "--multiply=100", f"{site.url}/whoami")
    rows = [line.split() for line in table.splitlines() if line.endswith(" /whoami")]
    assert Counter(row[4] for row in rows) == {"200": 100}


def test_nghttp_uploads_with_trailers(site: Site, file: Path) -> None:
    told = run("nghttp", "--data", file, "--trailer=x-sum: 1", "--no-content-length", f"{site.url}/upload")
    assert json.loads(told) == told_of(file)


def test_nghttp_waits_for_100_continue(site: Site, file: Path) -> None:
    log = run("nghttp", "--verbose", "--expect-continue", "--data", file, f"{site.url}/upload")
    assert log.index(":status: 100") < log.index("send DATA") < log.index(":status: 200")
    assert told_of(file)["sha256"] in log


@pytest.mark.parametrize(
    "option",
    ["--continuation", "--no-dep", "--header-table-size=0", "--encoder-header-table-size=0", "--window-bits=10"],
)
def test_nghttp_with_what_is_unusual(option: str, site: Site) -> None:
    log = run("nghttp", "--verbose", "--null-out", option, "--multiply=5", f"{site.url}/download?blocks=1")
    assert log.count(":status: 200") == 5
    assert errors(log) <= {"NO_ERROR"}
    assert sum(map(int, re.findall(r"recv DATA frame <length=(\d+)", log))) == 5 * BLOCK


def test_nghttp_upgrades(plain: Site) -> None:
    log = run("nghttp", "--verbose", "--upgrade", f"{plain.url}/", f"{plain.url}/whoami")
    assert "HTTP/1.1 101 " in log
    assert log.count(":status: 200") == 2
    assert "hello" in log
    assert errors(log) <= {"NO_ERROR"}


def test_nghttp_sees_trailers(extended: Site) -> None:
    log = run("nghttp", "--verbose", "--null-out", "--header=te: trailers", f"{extended.url}/summed?pieces=50")
    digest = hashlib.sha256(PIECE * 50).hexdigest()
    assert f"x-sha256: {digest}" in log
    assert log.rindex("recv DATA") < log.index("x-sha256: ")
    assert errors(log) <= {"NO_ERROR"}


def test_nghttp_is_promised_an_answer_unless_it_wants_none(extended: Site) -> None:
    log = run("nghttp", "--verbose", f"{extended.url}/promising")
    assert ":path: /promised?by=push" in log
    assert "promised_stream_id=2" in log
    assert "push kept" in log
    refusing = subprocess.run(
        ["nghttp", "--verbose", "--no-push", f"{extended.url}/"], capture_output=True, text=True, check=True, timeout=60
    )
    assert "PUSH_PROMISE" not in refusing.stdout
    assert "http.response.push" not in refusing.stdout


# h2load


@pytest.mark.parametrize("streams", [1, 50])
def test_h2load_loses_nothing(streams: int, site: Site) -> None:
    told = run("h2load", "--requests=3000", "--clients=8", f"--max-concurrent-streams={streams}", f"{site.url}/")
    assert "3000 succeeded, 0 failed, 0 errored, 0 timeout" in told
    assert "status codes: 3000 2xx," in told
    assert f"Application protocol: {'h2' if site.tls else 'h2c'}" in told


def test_h2load_uploads_on_many_streams(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"".join(blocks(1))[: BLOCK // 2])
    told = run(
        *("h2load", "--requests=100", "--clients=4", "--max-concurrent-streams=10", "--data", path),
        f"{site.url}/upload",
    )
    assert "status codes: 100 2xx," in told
    assert "100 succeeded, 0 failed" in told


# httpx


def test_httpx_has_fifty_streams_at_once_on_one_connection(site: Site) -> None:
    async def ask() -> list[httpx.Response]:
        async with httpx.AsyncClient(**site.options) as client:
            await client.get("/")
            targets = [f"/{'wait?seconds=0.3&' if number % 2 else 'scope?'}{number}" for number in range(50)]
            return await asyncio.gather(*map(client.get, targets))

    answers = asyncio.run(ask())
    assert Counter((answer.http_version, answer.status_code) for answer in answers) == {("HTTP/2", 200): 50}
    assert len({json.loads(answer.content)["client"][1] for answer in answers[::2]}) == 1
    assert {answer.text for answer in answers[1::2]} == {"waited"}
    assert max(answer.elapsed.total_seconds() for answer in answers[1::2]) < 25 * 0.3 / 2  # not one after the other


def test_httpx_uploads_while_it_downloads(site: Site) -> None:
    # Not more than the windows allow at once: httpcore 1.0 loses track of window updates where several streams wait.
    body = PIECE * 50
    assert 4 * len(body) < CONNECTION_WINDOW
    assert len(body) < STREAM_WINDOW

    async def pieces() -> AsyncIterator[bytes]:
        for begin in range(0, len(body), len(PIECE)):
            yield body[begin : begin + len(PIECE)]
            await asyncio.sleep(0)

    async def ask() -> list[httpx.Response]:
        async with httpx.AsyncClient(**site.options) as client:
            uploads = [client.post("/upload", content=pieces()) for _ in range(4)]
            return await asyncio.gather(*uploads, *(client.get("/download?blocks=4") for _ in range(4)))

    answers = asyncio.run(ask())
    told = {"count": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    assert [answer.json() for answer in answers[:4]] == [told] * 4
    whole = b"".join(blocks(4))
    assert [answer.content == whole for answer in answers[4:]] == [True] * 4


def test_httpx_uploads_more_than_the_windows_hold(site: Site, file: Path) -> None:
    with site.client() as client, file.open("rb") as stream:
        assert client.post("/upload", content=stream).json() == told_of(file)


def test_httpx_that_does_not_read_an_answer_to_its_end_can_go_on(site: Site) -> None:
    with site.client() as client:
        with client.stream("GET", "/download?blocks=64&early") as answer:
            assert len(next(answer.iter_raw())) > 0
        before, after = (json.loads(client.get("/scope").content)["client"] for _ in range(2))
        assert before == after
    gone = site.server.record(http_target="/download?blocks=64&early")
    assert gone["outcome"] == "client_gone"
    assert gone["bytes_sent"] < 64 * BLOCK
