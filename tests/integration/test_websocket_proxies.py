"""nginx and HAProxy in front, with the files of packaging/ as they are: nginx over HTTP/1.1, HAProxy over HTTP/2."""

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.http2 import ENGINES, remarks
from tests.integration.isolation import Isolation, requires_root
from tests.integration.servers import COMMAND, ROOT, Server, Starter

pytestmark = requires_root

NGINX: Final = ROOT / "packaging" / "nginx" / "appserver.conf"
HAPROXY: Final = ROOT / "packaging" / "haproxy" / "appserver.cfg"
TALK: Final = Path(__file__).with_name("talk.py")
SOCKET: Final = "/run/appserver/appserver.sock"
URL: Final = "ws://127.0.0.1"

# Around the packaged file only what /etc/nginx/nginx.conf has, with the paths of the test.
CONFIGURATION: Final = """
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

Proxy = Callable[[Isolation, Path], AbstractContextManager[None]]


@contextmanager
def nginx(inside: Isolation, folder: Path) -> Iterator[None]:
    file, log = folder / "nginx.conf", folder / "error.log"
    file.write_text(CONFIGURATION.format(folder=folder, packaged=NGINX))
    words: list[str | Path] = ["nginx", "-c", file, "-p", folder, "-e", log]
    with inside.running(*words, stop=signal.SIGQUIT, output=folder / "output"):
        yield
    text = log.read_text()
    assert not any(word in text for word in ("prematurely", "invalid", "[alert]", "[emerg]", "[error]")), text


@contextmanager
def haproxy(inside: Isolation, folder: Path, file: Path = HAPROXY) -> Iterator[None]:
    log = folder / "haproxy.log"
    with inside.running("haproxy", "-db", "-f", file, stop=signal.SIGUSR1, output=log):
        yield
    assert "[ALERT]" not in log.read_text(), log.read_text()


@contextmanager
def haproxy_http1(inside: Isolation, folder: Path) -> Iterator[None]:
    """As its file says of `proto h2`."""
    file = folder / "haproxy.cfg"
    text = HAPROXY.read_text()
    assert text.count(f"unix@{SOCKET} proto h2") == 1
    file.write_text(text.replace(f"unix@{SOCKET} proto h2", f"unix@{SOCKET}"))
    with haproxy(inside, folder, file):
        yield


WAYS: Final[dict[str, tuple[Proxy, str, str, list[str]]]] = {
    "nginx": (nginx, "www-data", "1.1", []),
    "haproxy-http1": (haproxy_http1, "haproxy", "1.1", []),
    **{f"haproxy-{name}": (haproxy, "haproxy", "2", ["--http2-engine", name]) for name in ENGINES},
}
"""The proxy, the group of the socket, in what it speaks to the server, and what that is told."""


@pytest.fixture
def inside() -> Iterator[Isolation]:
    with Isolation("/run", folders=["/run/appserver"]) as isolation:
        yield isolation


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def server(way: str, inside: Isolation, serve: Starter, tmp_path: Path) -> Iterator[Server]:
    """A server behind the proxy."""
    proxy, group, _, arguments = WAYS[way]
    server = serve(
        "websocket_echo:app",
        *("--uds", SOCKET, "--uds-group", group, *arguments),
        bind=False,
        command=[*inside.command, *COMMAND],
    )
    with proxy(inside, tmp_path):
        # It refuses connections until it listens; curl asks again then.
        inside.curl("--retry", "50", "--retry-delay", "0", "--retry-connrefused", "http://127.0.0.1/")
        yield server
        server.stop()
    assert not remarks(server)


def test_websockets_pass_with_their_ends_and_denials(way: str, inside: Isolation, server: Server) -> None:
    told: dict[str, Any] = json.loads(inside.run(sys.executable, TALK, URL).stdout)
    assert told["denied"] == [418, "short and stout", "I am a teapot"]
    assert (told["http_version"], told["scheme"], told["path"]) == (WAYS[way][2], "ws", "/tell")
    assert told["client"] == ["127.0.0.1", 0]
    assert told["subprotocols"] == ["chat.v1", "chat.v2"]
    assert len(told["state"]["request_id"]) in (32, 36)  # of the proxy's making
    for code, reason in ((1000, ""), (1001, "away"), (4999, "Käse")):
        record = server.record(message="disconnected", path=f"/echo/{code}")
        assert (record["close_code"], record["close_reason"]) == (code, reason)
    assert server.record(http_target="/tell", outcome="complete")["http_version"] == WAYS[way][2]


def test_a_server_that_stops_closes_through_its_proxy(inside: Isolation, server: Server) -> None:
    with inside.start(sys.executable, TALK, "until", f"{URL}/waiting") as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"open\n"
        server.send_signal(signal.SIGTERM)
        assert json.loads(client.stdout.read()) == [1012, ""]
    assert server.wait() == 0
    record = server.record(message="disconnected", path="/waiting")
    assert record["close_code"] == 1012
