import gc
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appserver.asgi.forwarded import Trust
from appserver.asgi.scope import Scopes, make_target
from appserver.asgi.service import Service
from appserver.asgi.types import Receive, Scope, Send
from appserver.errors import MisuseError
from appserver.wire.engine import Head, Headers
from tests.unit.records import Records

TCP = ("192.0.2.80", 8000)
PEER = ("192.0.2.1", 54321)
OFFERED = [
    "http.response.pathsend",
    "http.response.zerocopysend",
    "http.response.trailers",
    "http.response.early_hint",
]
GET = Head(1, "GET", b"/", [], "1.1", True, False)
HOSTED = GET._replace(headers=[(b"host", b"a")], kept=True)


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
        "extensions": {name: {} for name in OFFERED},
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


def test_what_an_application_does_to_its_headers_no_other_request_sees() -> None:
    made, _ = scopes(trust=["unix"])
    for _ in range(3):
        headers = made.make(HOSTED)["headers"]
        assert headers == [(b"host", b"a")]
        headers.append((b"x-forwarded-for", b"203.0.113.7"))


@pytest.mark.parametrize("kept", [True, False])
def test_no_headers_are_held_that_the_engine_does_not_keep(kept: bool) -> None:
    made, _ = scopes(trust=["unix"])
    headers = [(b"x", b"y" * 60_000)]
    made.make(HOSTED._replace(headers=headers, kept=kept))
    assert any(one is made for one in gc.get_referrers(headers)) is kept


def test_forwarded_fields_are_found_in_every_request() -> None:
    made, _ = scopes(trust=["192.0.2.1"])
    forwarded = HOSTED._replace(headers=[*HOSTED.headers, (b"x-forwarded-for", b"203.0.113.7")])
    for head in (HOSTED, HOSTED, forwarded, forwarded, HOSTED, forwarded):
        assert made.make(head)["client"] == (("203.0.113.7", 0) if head is forwarded else PEER[:2])


def test_the_lifespans_state_is_copied_for_each_request() -> None:
    shared = object()
    made, service = scopes(state={"pool": shared})
    first, second = made.make(GET), made.make(GET)
    assert first["state"]["pool"] is second["state"]["pool"] is shared
    first["state"]["mine"] = 1
    first["path"] = "/changed"
    assert "mine" not in second["state"]
    assert second["path"] == "/"
    assert service.state == {"pool": shared}
    assert first["state"]["request_id"] != second["state"]["request_id"]


def test_push_is_offered_where_the_client_takes_it() -> None:
    made, _ = scopes()
    assert list(made.make(GET, True)["extensions"]) == [*OFFERED, "http.response.push"]
    assert list(made.make(GET, False)["extensions"]) == OFFERED


def test_the_version_of_asgi_is_the_requests_own() -> None:
    made, _ = scopes()
    first = made.make(GET)["asgi"]
    told = first.copy()
    first["mine"] = 1
    assert made.make(GET)["asgi"] == made.make_websocket(GET, [])["asgi"] == told


def test_extensions_are_the_requests_own() -> None:
    made, _ = scopes()
    first = made.make(GET)["extensions"]
    first["http.response.pathsend"]["mine"] = 1
    first["mine"] = {}
    assert made.make(GET)["extensions"] == {name: {} for name in OFFERED}


def test_tls_is_told_with_every_request() -> None:
    tls = {"tls_version": 0x0304, "cipher_suite": 0x1301, "client_cert_chain": ()}
    made = Scopes(Service(application=application, log=Records().log), "https", TCP, PEER, tls)
    first = made.make(GET)
    assert first["scheme"] == "https"
    assert first["extensions"] == {**{name: {} for name in OFFERED}, "tls": tls}
    first["extensions"]["tls"]["tls_version"] = None
    assert made.make(GET)["extensions"]["tls"] == tls


def test_the_version_is_the_engines() -> None:
    assert scopes()[0].make(GET._replace(version="2"))["http_version"] == "2"


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/style.css", b"/style.css"),
        ("/style.css?v=3&a=%20", b"/style.css?v=3&a=%20"),
        ("/a b/ä", b"/a%20b/%C3%A4"),
        ("/100%", b"/100%25"),
        ("/a%20b", b"/a%2520b"),
        ("/#fragment", b"/%23fragment"),
        ("//host/x", b"//host/x"),
        ("/\r\nx\0", b"/%0D%0Ax%00"),
        ("/?a b\r\n#", b"/?a%20b%0D%0A%23"),
        ("/app", b"/app"),
        ("/approach", b"/approach"),
        ("/app/x", b"/app/x"),
    ],
)
def test_a_path_becomes_a_target(path: str, target: bytes) -> None:
    assert make_target(path, "") == target
    assert make_target("/mount" + path, "/mount") == target


@pytest.mark.parametrize("path", [None, 7, b"/", "", "style.css", "?x", "http://a/", "/\ud800", "/?\ud800"])
def test_what_is_no_path_becomes_no_target(path: object) -> None:
    with pytest.raises(MisuseError, match="path must be"):
        make_target(path, "")


@given(st.text().map(lambda text: text.replace("?", "")), st.sampled_from(["", "/ä pp"]))
def test_a_promised_path_is_the_path_of_its_scope(path: str, root_path: str) -> None:
    target = make_target(f"{root_path}/{path}", root_path)
    scope = make(target, root_path=root_path)
    assert (scope["path"], scope["query_string"]) == (f"{root_path}/{path}", b"")


def test_request_ids_are_never_the_same() -> None:
    made, _ = scopes()
    assert len({made.make(GET)["state"]["request_id"] for _ in range(1000)}) == 1000


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


SOCKET = Head(1, "GET", b"/chat%20room?a=b", [(b"host", b"a")], "1.1", True, False, True)


def test_a_websockets_scope_has_every_key_of_the_specification() -> None:
    scope = scopes()[0].make_websocket(SOCKET, ["b", "a"])
    assert len(scope["state"].pop("request_id")) >= 16
    assert scope == {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": "/chat room",
        "raw_path": b"/chat%20room",
        "query_string": b"a=b",
        "root_path": "",
        "headers": [(b"host", b"a")],
        "client": PEER,
        "server": TCP,
        "subprotocols": ["b", "a"],
        "state": {},
        "extensions": {"websocket.http.response": {}},
    }


def test_over_http_2_a_websocket_has_no_method_either() -> None:
    scope = scopes()[0].make_websocket(SOCKET._replace(method="CONNECT", version="2"), [])
    assert (scope["http_version"], scope["subprotocols"]) == ("2", [])
    assert "method" not in scope


def test_over_tls_a_websocket_is_wss_and_tells_of_it() -> None:
    tls = {"tls_version": 0x0304, "cipher_suite": 0x1301, "client_cert_chain": ()}
    made = Scopes(Service(application=application, log=Records().log), "https", TCP, PEER, tls)
    first = made.make_websocket(SOCKET, [])
    assert first["scheme"] == "wss"
    assert first["extensions"] == {"websocket.http.response": {}, "tls": tls}
    first["extensions"]["tls"]["tls_version"] = None
    assert made.make_websocket(SOCKET, [])["extensions"]["tls"] == tls


@pytest.mark.parametrize(("proto", "scheme"), [(b"https", "wss"), (b"wss", "wss"), (b"http", "ws"), (b"ws", "ws")])
def test_a_trusted_proxy_says_how_a_websocket_came(proto: bytes, scheme: str) -> None:
    head = SOCKET._replace(
        headers=[(b"host", b"a"), (b"x-forwarded-for", b"203.0.113.7"), (b"x-forwarded-proto", proto)]
    )
    scope = scopes(trust=["*"])[0].make_websocket(head, [])
    assert (scope["scheme"], scope["client"]) == (scheme, ("203.0.113.7", 0))
    scope = scopes(trust=["127.0.0.1"])[0].make_websocket(head, [])
    assert (scope["scheme"], scope["client"], scope["headers"]) == ("ws", PEER, [(b"host", b"a")])


def test_a_websockets_path_begins_with_the_root_path() -> None:
    scope = scopes(root_path="/app")[0].make_websocket(SOCKET, [])
    assert (scope["root_path"], scope["path"], scope["raw_path"]) == ("/app", "/app/chat room", b"/app/chat%20room")


def test_the_lifespans_state_and_the_extensions_are_each_websockets_own() -> None:
    shared = object()
    made, _ = scopes(state={"pool": shared})
    first, second = made.make_websocket(SOCKET, []), made.make_websocket(SOCKET, [])
    assert first["state"]["pool"] is second["state"]["pool"] is shared
    first["state"]["mine"] = first["extensions"]["mine"] = first["extensions"]["websocket.http.response"]["x"] = 1
    assert "mine" not in second["state"]
    assert made.make_websocket(SOCKET, [])["extensions"] == {"websocket.http.response": {}}
    assert first["state"]["request_id"] != second["state"]["request_id"]
