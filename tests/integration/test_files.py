"""Files sent by the server's own means: real processes, real clients, whole files."""

import hashlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from appserver.net.connection import SMALL_FILE
from tests.integration.isolation import Isolation, curl, requires_root
from tests.integration.servers import COMMAND, Server, Starter, receive

MEBIBYTE: Final = 1024 * 1024
LOOPS: Final = ("asyncio", "uvloop")
MUCH: Final = (1024 if os.environ.get("FULL") else 256) * MEBIBYTE
"""Far more than may be held."""

# As packaging/nginx has it, but for paths and for what has nothing to do with files.
NGINX: Final = """
user root;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log notice;
events {{}}
http {{
    access_log off;
    proxy_temp_path {folder}/proxy;
    client_body_temp_path {folder}/body;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream appserver {{ server unix:{socket}; keepalive 4; }}
    server {{
        listen 127.0.0.1:80;
        location / {{
            proxy_pass http://appserver;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_max_temp_file_size 0;
        }}
    }}
}}
"""


@pytest.fixture(params=LOOPS)
def server(request: pytest.FixtureRequest, serve: Starter) -> Server:
    """tests/apps/files.py on either event loop."""
    return serve("files:app", "--loop", request.param)


def make_file(path: Path, size: int) -> str:
    """Random bytes at both ends and a hole between them; the digest of it all."""
    ends = [os.urandom(MEBIBYTE // 2), os.urandom(MEBIBYTE // 2)]
    with path.open("wb") as file:
        file.write(ends[0])
        file.seek(size - len(ends[1]))
        file.write(ends[1])
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(url: str, *options: str) -> str:
    """What curl gets."""
    with subprocess.Popen(curl(*options, url), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        found = hashlib.file_digest(process.stdout, "sha256").hexdigest()  # type: ignore[arg-type]
    assert process.returncode == 0
    return found


def memory(server: Server) -> int:
    """The most that the process has held, in bytes."""
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


@contextmanager
def traced(server: Server, output: Path) -> Iterator[None]:
    """Follow the system calls by which a server sends bytes."""
    words = ["strace", "-f", "-p", str(server.process.pid), "-e", "trace=sendfile,write,pread64", "-o", str(output)]
    with subprocess.Popen(words, stderr=subprocess.PIPE) as strace:
        assert strace.stderr is not None
        assert b"attached" in strace.stderr.readline()
        yield
        server.get("/pid")  # the last call has returned, which it may not have when the client has its last byte
        strace.send_signal(signal.SIGINT)


def assert_sent_by_sendfile(output: Path, size: int) -> None:
    """All bytes but for a small rest, which is written like a small file."""
    lines = [line for line in output.read_text().splitlines() if "= -1" not in line]
    sent, copied = (
        sum(int(line.rpartition("= ")[2]) for line in lines if name in line) for name in ("sendfile", "pread64")
    )
    assert sent + copied == size
    assert copied <= SMALL_FILE


@pytest.mark.parametrize("size", [MEBIBYTE, 100 * MEBIBYTE + 1])
@pytest.mark.parametrize("target", ["path", "descriptor"])
def test_a_file_comes_whole(server: Server, tmp_path: Path, target: str, size: int) -> None:
    expected = make_file(tmp_path / "file", size)
    assert digest(f"{server.url}/{target}?file={tmp_path}/file") == expected


def test_a_file_comes_whole_in_chunks_too(server: Server, tmp_path: Path) -> None:
    make_file(tmp_path / "file", 20 * MEBIBYTE)
    whole = b"<" + (tmp_path / "file").read_bytes() + b"<"
    found = digest(f"{server.url}/descriptor?file={tmp_path}/file&around=%3C")
    assert found == hashlib.sha256(whole).hexdigest()


def test_head_tells_the_length_of_a_file_of_3_gib_and_reads_nothing(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    os.truncate(path, 3 << 30)
    connection = server.connect()
    for method in ("HEAD", "HEAD", "GET"):
        connection.request(method, f"/path?file={path}")
        response = connection.getresponse()
        assert (response.status, response.getheader("content-length")) == (200, str(3 << 30))
        if method == "HEAD":
            assert response.read() == b""
    connection.close()  # in the middle of the file
    assert server.get("/pid")[0] == 200


def test_pipelined_requests_around_a_file_are_answered_in_order(server: Server, tmp_path: Path) -> None:
    make_file(tmp_path / "file", MEBIBYTE)
    fields = "Host: a.example\r\n"
    targets = ["/pid", f"/path?file={tmp_path}/file", "/pid", f"/descriptor?file={tmp_path}/file", "/pid"]
    sent = "".join(f"GET {target} HTTP/1.1\r\n{fields}\r\n" for target in targets[:-1])
    sent += f"GET {targets[-1]} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n"
    with socket.create_connection(server.address, 20) as client:
        client.sendall(sent.encode())
        got = receive(client)
    content = (tmp_path / "file").read_bytes()
    number = b"%d" % server.process.pid
    bodies = [number, content, number, content, number]
    for body in bodies:
        head, _, got = got.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert got[: len(body)] == body
        got = got[len(body) :]
    assert got == b""


def test_fifty_clients_get_their_files_at_once_and_nothing_stays_open(server: Server, tmp_path: Path) -> None:
    expected = make_file(tmp_path / "file", 4 * MEBIBYTE)
    before = server.get("/descriptors")
    targets = ["path", "descriptor"] * 25
    with ThreadPoolExecutor(50) as pool:
        bodies = pool.map(lambda target: server.get(f"/{target}?file={tmp_path}/file")[1], targets)
        assert {hashlib.sha256(body).hexdigest() for body in bodies} == {expected}
    assert server.get("/descriptors") == before


def test_a_large_file_is_not_held(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    os.truncate(path, MUCH)
    server.get(f"/path?file={__file__}")
    before = memory(server)
    with subprocess.Popen(curl(f"{server.url}/path?file={path}"), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        count = 0
        while data := process.stdout.read(MEBIBYTE):
            count += len(data)
    assert count == MUCH
    growth = memory(server) - before
    assert growth < 10 * MEBIBYTE, f"grew by {growth / MEBIBYTE:.1f} MiB"


def test_a_stop_lets_a_file_come_to_its_end(server: Server, tmp_path: Path) -> None:
    expected = make_file(tmp_path / "file", 50 * MEBIBYTE)
    connection = server.connect()
    connection.request("GET", f"/path?file={tmp_path}/file")
    response = connection.getresponse()
    got = hashlib.sha256(response.read(MEBIBYTE))
    server.send_signal(signal.SIGTERM)
    server.record(event="stopping")
    got.update(response.read())
    connection.close()
    assert got.hexdigest() == expected
    assert server.wait() == 0


def test_a_file_that_is_missing_is_a_500_and_in_the_log(serve: Starter) -> None:
    server = serve("files:app", tracebacks=True)
    assert server.get("/path?file=/missing/file")[0] == 500
    assert "FileNotFoundError" in server.record(event="application_error")["traceback"]


# What frameworks send


@pytest.fixture
def pages(tmp_path: Path) -> str:
    """A module for uvicorn's kind of start: a page by FileResponse, and a folder."""
    (tmp_path / "pages.py").write_text(
        "from starlette.applications import Starlette\n"
        "from starlette.responses import FileResponse\n"
        "from starlette.routing import Mount, Route\n"
        "from starlette.staticfiles import StaticFiles\n"
        f"page = Route('/page', lambda request: FileResponse({str(tmp_path / 'file')!r}))\n"
        f"app = Starlette(routes=[page, Mount('/static', StaticFiles(directory={str(tmp_path)!r}))])\n"
    )
    return "pages:app"


@pytest.mark.parametrize("target", ["page", "static/file"])
def test_starlette_sends_files_by_sendfile(serve: Starter, tmp_path: Path, target: str, pages: str) -> None:
    expected = make_file(tmp_path / "file", 5 * MEBIBYTE)
    server = serve(pages, "--app-dir", tmp_path)
    with traced(server, tmp_path / "trace"):
        assert digest(f"{server.url}/{target}") == expected
    assert_sent_by_sendfile(tmp_path / "trace", 5 * MEBIBYTE)
    head = subprocess.run(
        curl("--head", f"{server.url}/{target}"), capture_output=True, text=True, check=True, timeout=20
    ).stdout
    assert f"content-length: {5 * MEBIBYTE}" in head
    part = digest(f"{server.url}/{target}", "--range", "10-19")
    assert part == hashlib.sha256((tmp_path / "file").read_bytes()[10:20]).hexdigest()


def test_the_bytes_of_a_file_go_past_the_process(server: Server, tmp_path: Path) -> None:
    make_file(tmp_path / "file", 5 * MEBIBYTE)
    with traced(server, tmp_path / "trace"):
        server.get(f"/path?file={tmp_path}/file")
    assert_sent_by_sendfile(tmp_path / "trace", 5 * MEBIBYTE)


@pytest.fixture
def inside() -> Iterator[Isolation]:
    with Isolation() as isolation:
        yield isolation


@requires_root
def test_a_file_comes_whole_through_nginx_over_a_unix_socket(inside: Isolation, serve: Starter, tmp_path: Path) -> None:
    expected = make_file(tmp_path / "file", 100 * MEBIBYTE)
    path = tmp_path / "app.sock"
    (tmp_path / "nginx.conf").write_text(NGINX.format(folder=tmp_path, socket=path))
    serve("files:app", "--uds", path, bind=False, command=[*inside.command, *COMMAND])
    words: list[str | Path] = ["nginx", "-c", tmp_path / "nginx.conf", "-p", tmp_path, "-e", tmp_path / "error.log"]
    with inside.running(*words, stop=signal.SIGQUIT, output=tmp_path / "output"):
        inside.curl("--retry", "50", "--retry-delay", "0", "--retry-connrefused", "http://127.0.0.1/pid")
        for target in ("path", "descriptor"):
            url = f"http://127.0.0.1/{target}?file={tmp_path}/file"
            inside.run(*curl("--output", tmp_path / "got", url))
            with (tmp_path / "got").open("rb") as file:
                assert hashlib.file_digest(file, "sha256").hexdigest() == expected
    assert "prematurely" not in (tmp_path / "error.log").read_text()
