"""appserver.asgi.edge in front of an application: real requests, real files."""

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from appserver.asgi.edge import CHALLENGES, HTTPS_PORT, wrap
from appserver.asgi.forwarded import Trust
from appserver.asgi.http import HttpCycle
from appserver.asgi.scope import Scopes
from appserver.asgi.service import Service
from appserver.asgi.types import Message, Receive, Scope, Send
from appserver.wire.engine import Head
from tests.unit.asgi.stage import Peer, play
from tests.unit.records import Records

TOKEN = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr_oA"
AUTHORIZATION = f"{TOKEN}.nP1qzpXGymHBrUEepNY9HCsQk7K8KhOypzEt62jcerQ".encode()
CHALLENGE = CHALLENGES + TOKEN
OPEN = Path("/proc/self/fd")


class Answer(NamedTuple):
    status: int | None
    headers: dict[bytes, bytes]
    content: bytes
    records: Records

    @property
    def location(self) -> bytes:
        assert self.status == 308
        return self.headers[b"location"]


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"server", b"the application")]})
    await send({"type": "http.response.body", "body": b"the application"})


APPLICATION = b"the application"


class Front:
    """An application behind the edge, and clients of it."""

    def __init__(self, *, https_port: int | None = None, acme_dir: Path | None = None, root_path: str = "") -> None:
        self.records = Records()
        folder = None if acme_dir is None else str(acme_dir)
        self.service = Service(
            application=wrap(application, self.records.log, https_port=https_port, acme_dir=folder),
            log=self.records.log,
            access=self.records.access,
            trust=Trust(["127.0.0.1"]),
            root_path=root_path,
        )

    def ask(
        self,
        target: str,
        *,
        method: str = "GET",
        scheme: str = "http",
        host: str | None = "shop.example",
        peer: str = "192.0.2.1",
        more: Sequence[tuple[bytes, bytes]] = (),
    ) -> Answer:
        headers = [*more]
        if host is not None:
            headers.append((b"host", host.encode("latin-1")))
        head = Head(1, method, target.encode(), headers, "1.1", end=True, expects=False)

        async def scene() -> Peer:
            client = Peer()
            scope = Scopes(self.service, scheme, ("192.0.2.80", 80), (peer, 1)).make(head)
            await HttpCycle(self.service, client, head, scope, asyncio.get_running_loop(), "listener").run()
            return client

        client = play(scene())
        assert client.ended
        assert not client.cut
        assert not self.records.tracebacks()
        return Answer(client.status, dict(client.headers), client.content, self.records)


def warnings(answer: Answer) -> list[str]:
    return [record["message"] for record in answer.records.all() if record["level"] == "warning"]


@pytest.fixture
def webroot(tmp_path: Path) -> Path:
    """As certbot leaves it."""
    folder = tmp_path / "webroot"
    place = folder / ".well-known" / "acme-challenge"
    place.mkdir(parents=True)
    (place / TOKEN).write_bytes(AUTHORIZATION)
    return folder


def test_nothing_is_in_the_way_where_nothing_is_configured() -> None:
    assert wrap(application, Records().log, https_port=None, acme_dir=None) is application


# --- ACME -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("https_port", [None, HTTPS_PORT])
def test_a_challenge_is_answered_on_every_listener_and_before_the_redirect(
    scheme: str, https_port: int | None, webroot: Path
) -> None:
    answer = Front(acme_dir=webroot, https_port=https_port).ask(CHALLENGE, scheme=scheme)
    assert (answer.status, answer.content) == (200, AUTHORIZATION)
    assert answer.headers[b"content-type"] == b"text/plain"
    assert answer.headers[b"content-length"] == b"%d" % len(AUTHORIZATION)
    assert [record["http_status"] for record in answer.records.answers()] == [200]


def test_head_has_the_fields_of_get_and_no_content(webroot: Path) -> None:
    got, head = (Front(acme_dir=webroot).ask(CHALLENGE, method=method) for method in ("GET", "HEAD"))
    assert (head.status, head.headers, head.content) == (200, got.headers, b"")


def test_a_mount_point_is_not_part_of_the_path(webroot: Path) -> None:
    front = Front(acme_dir=webroot, root_path="/shop")
    assert front.ask(CHALLENGE).content == AUTHORIZATION


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_are_refused(method: str, webroot: Path) -> None:
    answer = Front(acme_dir=webroot).ask(CHALLENGE, method=method)
    assert (answer.status, answer.headers[b"allow"]) == (405, b"GET, HEAD")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "unknown",
        "../secret",
        "..%2Fsecret",
        "%2e%2e/secret",
        "%2E%2E%2Fsecret",
        "..",
        ".",
        ".hidden",
        "sub/secret",
        "sub%2Fsecret",
        "sub",
        "with.dot",
        f"{TOKEN}=",
        f"{TOKEN}%0A",
        f"{TOKEN}%00",
        f"{TOKEN}/",
        f"/{TOKEN}",
        "t%C3%B6ken",
        "x" * 255,
        "x" * 256,
    ],
)
def test_what_is_no_challenge_is_not_found_and_not_the_applications(name: str, webroot: Path) -> None:
    place = webroot / ".well-known" / "acme-challenge"
    (place / "sub").mkdir()
    for secret in (
        place / "sub/secret",
        place / ".hidden",
        place / "with.dot",
        place / f"{TOKEN}=",
        webroot / ".well-known/secret",
    ):
        secret.write_text("secret")
    answer = Front(acme_dir=webroot, https_port=HTTPS_PORT).ask(CHALLENGES + name)
    assert (answer.status, answer.content) == (404, b"Not Found\n")


@pytest.mark.parametrize("target", ["/", CHALLENGES.rstrip("/"), f"/shop{CHALLENGE}", f"/x/..{CHALLENGE}", "/?x"])
def test_other_paths_are_the_applications(target: str, webroot: Path) -> None:
    assert Front(acme_dir=webroot).ask(target).content == APPLICATION


def _link_the_file(webroot: Path) -> None:
    secret = webroot.parent / "secret"
    secret.write_text("secret")
    challenge = webroot / CHALLENGE[1:]
    challenge.unlink()
    challenge.symlink_to(secret)


def _link_a_folder(webroot: Path) -> None:
    (webroot / ".well-known").rename(webroot.parent / "elsewhere")
    (webroot / ".well-known").symlink_to(webroot.parent / "elsewhere")


def _make_a_fifo(webroot: Path) -> None:
    challenge = webroot / CHALLENGE[1:]
    challenge.unlink()
    os.mkfifo(challenge)


def _make_a_folder(webroot: Path) -> None:
    challenge = webroot / CHALLENGE[1:]
    challenge.unlink()
    challenge.mkdir()


def _make_it_large(webroot: Path) -> None:
    (webroot / CHALLENGE[1:]).write_bytes(bytes(1025))


@pytest.mark.parametrize("spoil", [_link_the_file, _link_a_folder, _make_a_fifo, _make_a_folder, _make_it_large])
def test_what_only_looks_like_a_challenge_is_not_shown_and_the_log_says_why(
    spoil: Callable[[Path], None], webroot: Path
) -> None:
    spoil(webroot)
    answer = Front(acme_dir=webroot).ask(CHALLENGE)
    assert (answer.status, answer.content) == (404, b"Not Found\n")
    assert warnings(answer)[0].startswith(f"The ACME challenge {TOKEN} cannot be answered: ")


def test_the_folder_itself_may_be_a_link_and_be_replaced_while_serving(webroot: Path) -> None:
    link = webroot.parent / "link"
    link.symlink_to(webroot.parent)
    front = Front(acme_dir=link)
    answer = front.ask(CHALLENGE)
    assert (answer.status, warnings(answer)) == (404, [])
    link.unlink()
    link.symlink_to(webroot)
    assert front.ask(CHALLENGE).content == AUTHORIZATION


def test_a_folder_that_is_missing_is_told(tmp_path: Path) -> None:
    answer = Front(acme_dir=tmp_path / "missing").ask(CHALLENGE)
    assert answer.status == 404
    assert str(tmp_path / "missing") in warnings(answer)[0]


def test_no_descriptor_is_left_open(webroot: Path) -> None:
    front = Front(acme_dir=webroot)
    before = len(list(OPEN.iterdir()))
    for name in (TOKEN, "unknown", "with.dot"):
        front.ask(CHALLENGES + name)
    assert len(list(OPEN.iterdir())) == before


# --- the redirect -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "port", "authority"),
    [
        ("shop.example", HTTPS_PORT, "shop.example"),
        ("shop.example:80", HTTPS_PORT, "shop.example"),
        ("shop.example:", HTTPS_PORT, "shop.example"),
        ("shop.example:8080", 8443, "shop.example:8443"),
        ("Shop.Example.", 8443, "Shop.Example.:8443"),
        ("192.0.2.80:8080", HTTPS_PORT, "192.0.2.80"),
        ("[2001:db8::80]:8080", 8443, "[2001:db8::80]:8443"),
        ("[2001:db8::80]", HTTPS_PORT, "[2001:db8::80]"),
        ("a_b.example", HTTPS_PORT, "a_b.example"),
    ],
)
def test_plain_http_is_redirected_to_the_same_host(host: str, port: int, authority: str) -> None:
    answer = Front(https_port=port).ask("/", host=host)
    assert answer.location == f"https://{authority}/".encode()
    assert answer.content == b"Permanent Redirect\n"


@pytest.mark.parametrize(
    "target", ["/", "/a/b", "/a%20b/%C3%A9?x=%2F&y=a+b", "//other.example/", "/?", "/?u=http://other.example/", "/;a=1"]
)
def test_path_and_query_stay_as_the_client_wrote_them(target: str) -> None:
    assert Front(https_port=HTTPS_PORT).ask(target).location == f"https://shop.example{target.rstrip('?')}".encode()


def test_the_mount_point_that_a_proxy_took_off_comes_back() -> None:
    front = Front(https_port=HTTPS_PORT, root_path="/shop")
    assert front.ask("/basket?id=7").location == b"https://shop.example/shop/basket?id=7"


def test_the_whole_server_has_an_address_without_a_path() -> None:
    assert Front(https_port=HTTPS_PORT).ask("*", method="OPTIONS").location == b"https://shop.example"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "HEAD"])
def test_every_method_is_redirected_and_kept(method: str) -> None:
    answer = Front(https_port=HTTPS_PORT).ask("/order", method=method)
    assert answer.location == b"https://shop.example/order"  # 308 forbids to make a GET of it


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        ":443",
        "a b",
        "shop.example:x",
        "user@shop.example",
        "shop.example/path",
        "shop.example?",
        "shop.example#",
        "[::1",
        "::1",
        "[v1.x]",
        "sh\xf6p.example",
        'a"><script>',
        "a%2Fb",
        "a\\b",
    ],
)
def test_without_a_host_that_can_be_named_there_is_nowhere_to_send_the_client(host: str | None) -> None:
    answer = Front(https_port=HTTPS_PORT).ask("/", host=host)
    assert (answer.status, answer.content) == (400, b"Bad Request\n")
    assert b"location" not in answer.headers


def test_two_hosts_are_none() -> None:
    # The engines refuse it; behind them nothing is to hang on that.
    assert Front(https_port=HTTPS_PORT).ask("/", host="a.example", more=[(b"host", b"b.example")]).status == 400


def test_https_is_the_applications() -> None:
    assert Front(https_port=HTTPS_PORT).ask("/", scheme="https").content == APPLICATION


@pytest.mark.parametrize(
    ("peer", "scheme", "proto", "redirected"),
    [
        ("127.0.0.1", "http", "https", False),
        ("127.0.0.1", "http", "http", True),
        ("127.0.0.1", "https", "http", True),
        ("192.0.2.1", "http", "https", True),  # not trusted, so not believed
        ("192.0.2.1", "https", "http", False),
    ],
)
def test_the_scheme_is_the_clients_as_a_trusted_proxy_tells_it(
    peer: str, scheme: str, proto: str, redirected: bool
) -> None:
    answer = Front(https_port=HTTPS_PORT).ask(
        "/", peer=peer, scheme=scheme, more=[(b"x-forwarded-proto", proto.encode())]
    )
    assert answer.status == (308 if redirected else 200)


def test_what_is_not_http_is_passed_on() -> None:
    seen: list[str] = []

    async def any_application(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    async def nothing() -> None:
        raise AssertionError

    wrapped = wrap(any_application, Records().log, https_port=HTTPS_PORT, acme_dir="/")

    async def scene() -> None:
        for kind in ("lifespan", "websocket"):
            await wrapped({"type": kind, "scheme": "wss"}, nothing, nothing)  # type: ignore[arg-type]

    play(scene())
    assert seen == ["lifespan", "websocket"]


def test_a_websocket_in_plain_text_is_refused_where_http_is_redirected() -> None:
    sent: list[Message] = []

    async def any_application(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError

    async def nothing() -> None:
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    wrapped = wrap(any_application, Records().log, https_port=HTTPS_PORT, acme_dir=None)

    async def scene() -> None:
        await wrapped({"type": "websocket", "scheme": "ws"}, nothing, send)  # type: ignore[arg-type]

    play(scene())
    assert sent == [{"type": "websocket.close"}]
