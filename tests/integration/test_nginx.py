"""A real nginx in front, with packaging/nginx/appserver.conf as it is, over the UNIX socket that it names."""

import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from appserver.asgi import forwarded
from tests.apps.behaviour import BLOCK, blocks
from tests.integration.isolation import FORGED, Isolation, arrived, curl, forge, requires_root
from tests.integration.servers import COMMAND, ROOT, Server, Starter

pytestmark = requires_root

PACKAGED = ROOT / "packaging" / "nginx" / "appserver.conf"
SOCKET = "/run/appserver/appserver.sock"
CONTROL = "/run/appserver/control.sock"
MUCH = 1024 if os.environ.get("FULL") else 256  # blocks, of a MiB: far more than may be held

# Around the packaged file only what /etc/nginx/nginx.conf has, with the paths of the test.
CONFIGURATION = """
user www-data;
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log notice;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {packaged};
}}
"""


@pytest.fixture
def inside() -> Iterator[Isolation]:
    with Isolation("/run", folders=["/run/appserver"]) as isolation:
        yield isolation


@pytest.fixture
def server(inside: Isolation, serve: Starter) -> Server:
    return serve(
        "behaviour:app",
        *("--uds", SOCKET, "--uds-group", "www-data", "--control", f"unix:{CONTROL}", "--no-access-log"),
        bind=False,
        command=[*inside.command, *COMMAND],
    )


@pytest.fixture
def nginx(inside: Isolation, server: Server, tmp_path: Path) -> Iterator[Isolation]:
    """The way to nginx: curl inside."""
    assert server.listeners[0] == f"unix:{SOCKET}"
    file = tmp_path / "nginx.conf"
    file.write_text(CONFIGURATION.format(folder=tmp_path, packaged=PACKAGED))
    words: list[str | Path] = ["nginx", "-c", file, "-p", tmp_path, "-e", tmp_path / "error.log"]
    with inside.running(*words, stop=signal.SIGQUIT, output=tmp_path / "output"):
        # It refuses connections until it listens; curl asks again then.
        inside.curl("--retry", "50", "--retry-delay", "0", "--retry-connrefused", "http://127.0.0.1/")
        yield inside
    log = (tmp_path / "error.log").read_text()
    # "upstream prematurely closed", "upstream sent invalid header": what a server must not do to its proxy.
    assert not any(word in log for word in ("prematurely", "invalid", "[alert]", "[emerg]")), log


def status(inside: Isolation) -> dict[str, Any]:
    """What the control socket tells."""
    report: dict[str, Any] = json.loads(inside.curl("--unix-socket", CONTROL, "http://localhost/status"))
    return report


def peak(server: Server) -> int:
    """The most memory that the process has held, in bytes."""
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


@contextmanager
def bounded(server: Server) -> Iterator[None]:
    before = peak(server)
    yield
    growth = peak(server) - before
    assert growth < 64 * 1024**2, f"grew by {growth / 1024**2:.1f} MiB"


@pytest.mark.parametrize(("host", "client"), [("127.0.0.1", "203.0.113.7"), ("[::1]", "2001:db8::7")])
def test_client_scheme_host_and_request_id_come_from_nginx_and_not_from_the_client(
    host: str, client: str, nginx: Isolation
) -> None:
    options = [*forge(), "--header", "Host: shop.example:8080"]
    scope = json.loads(nginx.curl("--interface", client, *options, f"http://{host}/scope?q=%C3%A4"))
    assert arrived(scope) == {"X-Forwarded-For", "X-Forwarded-Proto", "X-Request-ID"}  # those that nginx sets
    assert (scope["client"], scope["scheme"], scope["query"]) == ([client, 0], "http", "q=%C3%A4")
    assert scope["headers"]["host"] == "shop.example:8080"
    assert scope["headers"]["x-forwarded-for"] == f"198.51.100.1, {client}"
    # nginx makes 32 hexadecimal digits.
    assert scope["state"]["request_id"] == scope["headers"]["x-request-id"] != "mine"
    assert len(scope["state"]["request_id"]) == 32


def test_every_field_that_is_believed_from_a_proxy_is_tried() -> None:
    assert {name.lower().encode() for name in FORGED} == forwarded._FIELDS


def test_a_hundred_requests_take_one_connection_to_the_server(nginx: Isolation) -> None:
    before = status(nginx)["answered"]
    nginx.curl("--no-globoff", "--output", "/dev/null", "http://127.0.0.1/whoami?[1-100]")
    report = status(nginx)
    assert report["answered"] - before == 100
    # A connection for each would have been closed by nginx, and one more for each kept would be 100, or 16.
    assert report["connections"] == 1


def test_an_upload_comes_up_whole_and_is_not_held(nginx: Isolation, server: Server) -> None:
    digest = hashlib.sha256()
    words = curl("--request", "POST", "--upload-file", "-", "http://127.0.0.1/upload")
    with bounded(server), nginx.start(*words, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for data in blocks(MUCH):
            digest.update(data)
            process.stdin.write(data)
        process.stdin.close()
        told = json.loads(process.stdout.read())
    assert told == {"count": MUCH * BLOCK, "sha256": digest.hexdigest()}


def test_a_body_of_known_length_comes_up_whole_too(nginx: Isolation, tmp_path: Path) -> None:
    # What has come up above came from a pipe, and so in chunks.
    path = tmp_path / "upload"
    path.write_bytes(b"".join(blocks(16)))
    told = json.loads(nginx.curl("--request", "POST", "--upload-file", path, "http://127.0.0.1/upload"))
    assert told == {"count": 16 * BLOCK, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def test_a_download_comes_down_whole_and_is_not_held(nginx: Isolation, server: Server) -> None:
    expected, digest = hashlib.sha256(), hashlib.sha256()
    with bounded(server), nginx.start(*curl(f"http://127.0.0.1/download?blocks={MUCH}")) as process:
        assert process.stdout is not None
        for data in blocks(MUCH):
            expected.update(data)
            digest.update(process.stdout.read(BLOCK))
        assert process.stdout.read() == b""
    assert digest.digest() == expected.digest()


def test_a_slow_reader_behind_nginx_does_not_fill_the_memory(nginx: Isolation, server: Server) -> None:
    with bounded(server), nginx.start(*curl("http://127.0.0.1/download?blocks=256")) as process:
        assert process.stdout is not None
        process.stdout.read(BLOCK)
        # While it reads nothing more, others are served.
        assert [nginx.curl("http://127.0.0.1/") for _ in range(20)] == ["hello"] * 20
        process.terminate()


def test_nginx_finds_the_server_again_after_a_restart(nginx: Isolation, server: Server, serve: Starter) -> None:
    server.stop()
    gone = nginx.run(*curl("--write-out", "%{http_code}", "--output", "/dev/null", "http://127.0.0.1/"), check=False)
    assert gone.stdout == "502"
    serve(
        "behaviour:app",
        *("--uds", SOCKET, "--uds-group", "www-data"),
        bind=False,
        command=[*nginx.command, *COMMAND],
    )
    assert nginx.curl("http://127.0.0.1/") == "hello"
