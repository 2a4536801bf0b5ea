"""HAProxy and nginx in front, over HTTP/2 and over TLS; the files of packaging/ as they are, where there are some."""

import grp
import hashlib
import json
import os
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.apps.behaviour import BLOCK, blocks
from tests.apps.extensions import PIECE
from tests.certificates import Issuer
from tests.integration.http2 import ENGINES, remarks, take_peak
from tests.integration.isolation import Isolation, Load, arrived, curl, find_processes, forge, requires_root
from tests.integration.servers import COMMAND, ROOT, Server, Starter

pytestmark = requires_root

HAPROXY: Final = ROOT / "packaging" / "haproxy" / "appserver.cfg"
NGINX_H2C: Final = ROOT / "packaging" / "nginx" / "appserver-h2c.conf"
SOCKET: Final = "/run/appserver/appserver.sock"
CONTROL: Final = "/run/appserver/control.sock"
URL: Final = "http://127.0.0.1:80"
UPLOAD: Final = 100
"""Blocks of 1 MiB."""
RESTARTS: Final = 3

# Around what is included only what /etc/nginx/nginx.conf has, with the paths of the test.
NGINX: Final = """
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
    {site}
}}
"""

TO_TLS: Final = """
    upstream appserver {{ server 127.0.0.1:8443; keepalive 16; }}
    server {{
        listen 80;
        client_max_body_size 1g;
        location / {{
            proxy_request_buffering off;
            proxy_pass https://appserver;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_ssl_name localhost;
            proxy_ssl_server_name on;
            proxy_ssl_verify on;
            proxy_ssl_trusted_certificate {root};
        }}
    }}
"""


@pytest.fixture
def inside() -> Iterator[Isolation]:
    with Isolation("/run", folders=["/run/appserver"]) as isolation:
        yield isolation


def start(serve: Starter, inside: Isolation, *arguments: str | Path, **options: Any) -> Server:
    """A server inside, on what the arguments say."""
    app = options.pop("app", "behaviour:app")
    return serve(app, *arguments, bind=False, command=[*inside.command, *COMMAND], **options)


def wait_until_served(inside: Isolation, *words: str) -> None:
    """A proxy refuses connections until it listens; curl asks again then."""
    inside.curl("--retry", "50", "--retry-delay", "0", "--retry-connrefused", *words, f"{URL}/")


def finish(server: Server) -> None:
    """End it; only access records may be in its log."""
    server.stop()
    said = remarks(server)
    assert not said, said


def upload(inside: Isolation, *words: str) -> tuple[int, str]:
    """Send a hundred MiB from a pipe: how much the application has read, and its digest if that is right."""
    digest = hashlib.sha256()
    command = curl(*words, "--request", "POST", "--upload-file", "-", f"{URL}/upload")
    with inside.start(*command, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for data in blocks(UPLOAD):
            digest.update(data)
            process.stdin.write(data)
        process.stdin.close()
        told = json.loads(process.stdout.read())
    assert told["sha256"] == digest.hexdigest()
    return told["count"], told["sha256"]


# HAProxy


@contextmanager
def haproxy(inside: Isolation, file: Path, folder: Path) -> Iterator[None]:
    words: list[str | Path] = ["haproxy", "-db", "-f", file]
    with inside.running(*words, stop=signal.SIGUSR1, output=folder / "haproxy.log"):
        wait_until_served(inside)
        yield
    log = (folder / "haproxy.log").read_text()
    assert "[ALERT]" not in log, log


def make_socket(inside: Isolation) -> socket.socket:
    """The socket that packaging/haproxy names, made as a socket unit makes it."""
    path = f"{inside.root}{SOCKET}"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    os.chown(path, -1, grp.getgrnam("haproxy").gr_gid)
    Path(path).chmod(0o660)
    listener.listen(512)
    return listener


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=["unix", "tcp"])
def behind(
    request: pytest.FixtureRequest, engine: str, inside: Isolation, serve: Starter, tmp_path: Path
) -> Iterator[Server]:
    """A server behind HAProxy: the packaged file, or the same with the address that it gives for TCP."""
    common = ["--http2-engine", engine, "--control", f"unix:{CONTROL}"]
    file = HAPROXY
    if request.param == "unix":
        server = start(serve, inside, "--uds", SOCKET, "--uds-group", "haproxy", *common)
    else:
        server = start(serve, inside, "-b", "127.0.0.1:8000", *common)
        text = HAPROXY.read_text()
        unix, tcp = f"server appserver unix@{SOCKET} proto h2", "server appserver 127.0.0.1:8000 proto h2"
        assert unix in text
        assert tcp in text
        file = tmp_path / "haproxy.cfg"
        file.write_text(text.replace(unix, tcp))
    with haproxy(inside, file, tmp_path):
        yield server
    finish(server)


@pytest.mark.parametrize("client", ["curl", "h2load"])
def test_a_thousand_requests_come_over_a_few_connections_of_http2(
    client: str, behind: Server, inside: Isolation
) -> None:
    if client == "h2load":
        told = inside.run("h2load", "--requests=1000", "--clients=4", "-m", "10", f"{URL}/whoami").stdout
        assert "status codes: 1000 2xx," in told
    else:  # h2load's HTTP/1.1 takes no status line without a reason, and HAProxy has none for answers of HTTP/2
        facts = ["--output", "/dev/null", "--write-out", "%{http_code} %{http_version}\n"]
        told = inside.curl("--no-globoff", *facts, f"{URL}/whoami?[1-1000]")
        assert Counter(told.split("\n")[:-1]) == {"200 1.1": 1000}

    def find() -> list[str] | None:
        lines = [line for line in behind.lines if "/whoami" in line]
        return lines if len(lines) >= 1000 else None

    records = map(json.loads, behind.until(find, "the access records"))
    assert Counter(record["http_version"] for record in records) == {"2": 1000}
    status = json.loads(inside.curl("--unix-socket", CONTROL, "http://localhost/status"))
    assert 1 <= status["connections"] <= 20


def test_a_hundred_mebibytes_come_up_through_haproxy_and_are_not_held(behind: Server, inside: Isolation) -> None:
    before = take_peak(behind)
    count, _ = upload(inside)
    growth = take_peak(behind) - before
    assert count == UPLOAD * BLOCK
    assert growth < 32 * BLOCK, f"grew by {growth / BLOCK:.1f} MiB"
    print(f"upload of {UPLOAD} MiB through HAProxy: grew by {growth / BLOCK:.1f} MiB")


def test_a_download_comes_whole_through_haproxy(behind: Server, inside: Isolation) -> None:
    expected = hashlib.sha256(b"".join(blocks(UPLOAD))).digest()
    with inside.start(*curl(f"{URL}/download?blocks={UPLOAD}")) as process:
        assert process.stdout is not None
        assert hashlib.sha256(process.stdout.read()).digest() == expected


@pytest.mark.parametrize(("host", "client"), [("127.0.0.1", "203.0.113.7"), ("[::1]", "2001:db8::7")])
def test_client_scheme_and_request_id_come_from_haproxy_and_not_from_the_client(
    host: str, client: str, behind: Server, inside: Isolation
) -> None:
    options = [*forge(), "--header", "Host: shop.example:8080"]
    scope = json.loads(inside.curl("--interface", client, *options, f"http://{host}/scope?q=%C3%A4"))
    assert arrived(scope) == {"X-Forwarded-For", "X-Forwarded-Proto", "X-Request-ID"}  # those that HAProxy sets
    assert (scope["client"], scope["scheme"], scope["query"]) == ([client, 0], "http", "q=%C3%A4")
    assert (scope["http_version"], scope["headers"]["host"]) == ("2", "shop.example:8080")
    # HAProxy makes a UUID.
    assert scope["state"]["request_id"] == scope["headers"]["x-request-id"] != "mine"
    assert len(scope["state"]["request_id"]) == 36


def test_restarts_behind_haproxy_lose_no_request(
    engine: str, inside: Isolation, serve: Starter, tmp_path: Path
) -> None:
    with make_socket(inside) as listener:

        def start_next() -> Server:
            arguments = ["--fd", str(listener.fileno()), "--http2-engine", engine]
            return start(serve, inside, *arguments, pass_fds=[listener.fileno()])

        servers = [start_next()]
        with haproxy(inside, HAPROXY, tmp_path), Load(inside, f"{URL}/whoami") as load:
            for _ in range(RESTARTS):
                finish(servers[-1])
                servers.append(start_next())
                # It is the one that is asked now.
                assert find_processes(inside, 1, f"{URL}/whoami")[0] == {servers[-1].process.pid}
        assert load.lost == {}
        assert load.answered > 100
        print(f"{RESTARTS} restarts of {engine} behind HAProxy: {load.answered} requests answered, none lost")


# nginx


@contextmanager
def nginx(inside: Isolation, site: str, folder: Path, *words: str) -> Iterator[None]:
    file = folder / "nginx.conf"
    file.write_text(NGINX.format(folder=folder, site=site))
    command: list[str | Path] = ["nginx", "-c", file, "-p", folder, "-e", folder / "error.log"]
    with inside.running(*command, stop=signal.SIGQUIT, output=folder / "output"):
        wait_until_served(inside, *words)
        yield
    log = (folder / "error.log").read_text()
    assert not any(word in log for word in ("prematurely", "invalid", "[alert]", "[emerg]")), log


def test_plain_requests_and_trailers_pass_nginx_as_grpc_does(
    engine: str, inside: Isolation, serve: Starter, tmp_path: Path
) -> None:
    prior = "--http2-prior-knowledge"
    arguments = ["--uds", SOCKET, "--uds-group", "www-data", "--http2-engine", engine]
    server = start(serve, inside, *arguments)
    with nginx(inside, f"include {NGINX_H2C};", tmp_path, prior):
        scope = json.loads(inside.curl(prior, *forge(), f"{URL}/scope"))
        assert (scope["http_version"], scope["headers"]["x-forwarded-for"]) == ("2", "198.51.100.1, 127.0.0.1")
        assert arrived(scope) == {"X-Forwarded-For", "X-Forwarded-Proto", "X-Request-ID"}  # those that nginx sets
        assert scope["scheme"] == "http"
        assert len(scope["state"]["request_id"]) == 32
        assert upload(inside, prior)[0] == UPLOAD * BLOCK
        told = inside.run("h2load", "--requests=1000", "--clients=4", "--max-concurrent-streams=10", f"{URL}/whoami")
        assert "status codes: 1000 2xx," in told.stdout
    finish(server)
    server = start(serve, inside, *arguments, app="extensions:app")
    with nginx(inside, f"include {NGINX_H2C};", tmp_path, prior):
        log = inside.run("nghttp", "--verbose", "--null-out", "--header=te: trailers", f"{URL}/summed?pieces=50").stdout
        assert f"x-sha256: {hashlib.sha256(PIECE * 50).hexdigest()}" in log
    finish(server)


def test_nginx_speaks_tls_to_the_server(inside: Isolation, serve: Starter, tmp_path: Path) -> None:
    issuer = Issuer()
    pair = issuer.issue(tmp_path / "localhost.pem", "localhost")
    server = start(serve, inside, "-b", "127.0.0.1:8443", *pair.arguments)
    with nginx(inside, TO_TLS.format(root=issuer.write_root(tmp_path / "root.pem")), tmp_path):
        scope = json.loads(inside.curl(f"{URL}/scope"))
        assert (scope["http_version"], scope["scheme"]) == ("1.1", "https")
        assert upload(inside)[0] == UPLOAD * BLOCK
        told = inside.run("h2load", "--h1", "--requests=1000", "--clients=4", f"{URL}/whoami").stdout
        assert "status codes: 1000 2xx," in told
    finish(server)
