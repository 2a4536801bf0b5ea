from collections.abc import Iterable
from typing import Any

import pytest

from appserver.asgi.forwarded import Trust
from appserver.asgi.scope import Scopes, new_request_id
from appserver.asgi.service import Service
from appserver.asgi.types import Receive, Scope, Send
from appserver.wire.engine import Head, Headers
from tests.unit.records import Records

TCP = ("192.0.2.80", 8000)
PEER = ("192.0.2.1", 54321)


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Is never called here."""


def scopes(
    server: object = TCP, peer: object = PEER, *, trust: Iterable[str] | None = None, **options: Any
) -> tuple[Scopes, Service]:
    service = Service(
        application=application, log=Records().log, trust=None if trust is None else Trust(trust), **options
    )
    return Scopes(service, "http", server, peer), service


def make(target: bytes = b"/", headers: Headers | None = None, **options: Any) -> Scope:
    return scopes(**options)[0].make(Head(1, "GET", target, headers or [], "1.1", True, False))


def test_a_scope_has_every_key_of_the_specification() -> None:
    scope = make(b"/a%20b/?x=%20y&z", [(b"host", b"a")])
    request_id = scope["state"].pop("request_id")
    assert len(request_id) >= 16
    assert scope == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/a b/",
        "raw_path": b"/a%20b/",
        "query_string": b"x=%20y&z",
        "root_path": "",
        "headers": [(b"host", b"a")],
        "client": PEER,
        "server": TCP,
        "state": {},
        "extensions": {"http.response.pathsend": {}, "http.response.zerocopysend": {}},
    }


@pytest.mark.parametrize(
    ("target", "path", "raw_path", "query"),
    [
        (b"/", "/", b"/", b""),
        (b"/?", "/", b"/", b""),
        (b"/?a?b", "/", b"/", b"a?b"),
        (b"/%C3%A4", "/ä", b"/%C3%A4", b""),
        (b"/%ff", "/\ufffd", b"/%ff", b""),
        (b"/%2F%2e%2E/x", "//../x", b"/%2F%2e%2E/x", b""),
        (b"/%zz%", "/%zz%", b"/%zz%", b""),
        (b"/%00", "/\0", b"/%00", b""),
        (b"//x", "//x", b"//x", b""),
        (b"*", "*", b"*", b""),
    ],
)
def test_a_target_is_taken_apart_and_decoded_once(target: bytes, path: str, raw_path: bytes, query: bytes) -> None:
    scope = make(target)
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == (path, raw_path, query)


def test_path_begins_with_the_root_path() -> None:
    scope = make(b"/a%20b", root_path="/ä pp")
    assert (scope["root_path"], scope["path"]) == ("/ä pp", "/ä pp/a b")
    assert scope["raw_path"] == b"/%C3%A4%20pp/a%20b"


def test_the_asterisk_is_under_no_root_path() -> None:
    scope = make(b"*", root_path="/app")
    assert (scope["path"], scope["raw_path"]) == ("*", b"*")


@pytest.mark.parametrize(
    ("server", "shown"),
    [
        ("/run/app.sock", ("/run/app.sock", None)),
        (b"\0name", ("@name", None)),
        ("\0name", ("@name", None)),
        ("", None),
        (b"", None),
        (None, None),
        (("::1", 8000, 0, 0), ("::1", 8000)),
    ],
)
def test_the_server_is_an_address_or_a_path(server: object, shown: object) -> None:
    assert make(server=server, peer="")["server"] == shown


@pytest.mark.parametrize("peer", ["", b"", None, "/client.sock"])
def test_a_peer_on_a_unix_socket_is_no_client(peer: object) -> None:
    made, _ = scopes("/run/app.sock", peer)
    assert made.client == "unix"
    assert make(server="/run/app.sock", peer=peer)["client"] is None


def test_a_peer_that_has_gone_before_its_name_was_asked_is_no_client_and_not_trusted() -> None:
    assert make(peer=None)["client"] is None
    scope = make(b"/", [(b"x-forwarded-for", b"203.0.113.7")], peer=None, trust=["127.0.0.1", "unix"])
    assert (scope["client"], scope["headers"]) == (None, [])


def test_an_ipv6_client_is_a_pair() -> None:
    assert make(peer=("2001:db8::1", 9, 0, 0))["client"] == ("2001:db8::1", 9)


def test_the_lifespans_state_is_copied_for_each_request() -> None:
    shared = object()
    made, service = scopes(state={"pool": shared})
    head = Head(1, "GET", b"/", [], "1.1", True, False)
    first, second = made.make(head), made.make(head)
    assert first["state"]["pool"] is second["state"]["pool"] is shared
    first["state"]["mine"] = 1
    first["path"] = "/changed"
    assert "mine" not in second["state"]
    assert second["path"] == "/"
    assert service.state == {"pool": shared}
    assert first["state"]["request_id"] != second["state"]["request_id"]


def test_request_ids_are_never_the_same() -> None:
    assert len({new_request_id() for _ in range(1000)}) == 1000


FORWARDED = [
    (b"host", b"a"),
    (b"x-forwarded-for", b"203.0.113.7"),
    (b"x-forwarded-proto", b"https"),
    (b"x-request-id", b"from-nginx"),
]


@pytest.mark.parametrize(
    ("server", "peer", "trust"),
    [("/run/app.sock", "", ["unix"]), (TCP, PEER, ["192.0.2.0/24"]), (TCP, PEER, ["*"]), ("/run/app.sock", "", ["*"])],
)
def test_a_trusted_proxy_speaks_for_its_client(server: object, peer: object, trust: list[str]) -> None:
    scope = make(b"/", FORWARDED, server=server, peer=peer, trust=trust)
    assert scope["client"] == ("203.0.113.7", 0)
    assert scope["scheme"] == "https"
    assert scope["state"]["request_id"] == "from-nginx"
    assert scope["headers"] == FORWARDED


@pytest.mark.parametrize(
    ("server", "peer", "trust"),
    [("/run/app.sock", "", ["127.0.0.1"]), (TCP, PEER, ["127.0.0.1", "unix"]), (TCP, PEER, [])],
)
def test_anybody_else_speaks_for_himself(server: object, peer: object, trust: list[str]) -> None:
    scope = make(b"/", FORWARDED, server=server, peer=peer, trust=trust)
    assert scope["client"] == (PEER if server is TCP else None)
    assert scope["scheme"] == "http"
    assert scope["state"]["request_id"] != "from-nginx"
    assert scope["headers"] == [(b"host", b"a")]


def test_without_proxy_headers_the_fields_are_the_applications_business() -> None:
    scope = make(b"/", FORWARDED, trust=None)
    assert (scope["client"], scope["scheme"], scope["headers"]) == (PEER, "http", FORWARDED)


def test_one_request_of_a_proxy_says_nothing_of_the_next() -> None:
    made, _ = scopes(trust=["*"])
    made.make(Head(1, "GET", b"/", FORWARDED, "1.1", True, False))
    scope = made.make(Head(2, "GET", b"/", [], "1.1", True, False))
    assert (scope["client"], scope["scheme"]) == (PEER, "http")
