import json
import os
import re
from base64 import b64encode
from hashlib import sha256
from typing import Any

import pytest

from appserver.asgi.control import (
    BODY_SIZE,
    PEER,
    Answer,
    Credentials,
    RejectedError,
    Request,
    Route,
    is_local,
    make_control,
)
from appserver.asgi.types import Message, Scope
from tests.unit.asgi.stage import play
from tests.unit.records import Records

OWN = Credentials(7, os.geteuid(), 0)
ROOT = Credentials(1, 0, 0)
STRANGER = Credentials(8, os.geteuid() + 4711, 0)
ORDER = {b"content-type": b"application/json"}


async def status(request: Request) -> Answer:
    return Answer({"asked": dict(request.words)})


async def order(request: Request) -> Answer:
    if "impossible" in request.words:
        raise RejectedError(409, "that cannot be")
    return Answer({"done": dict(request.words)})


ROUTES = (
    Route("GET", "/livez", status, "alive", probe=True),
    Route("GET", "/level", status, "asks"),
    Route("POST", "/level", order, "orders"),
    Route("POST", "/order", order, "orders"),
)


class Said:
    """What the control socket answers, and what it tells its log."""

    def __init__(self, sent: list[Message], records: Records) -> None:
        head, tail = sent
        self.status: int = head["status"]
        self.fields = {name.decode(): value.decode() for name, value in head["headers"]}
        self.body: bytes = tail["body"]
        self.records = records.all()

    @property
    def content(self) -> Any:
        return json.loads(self.body)


def ask(
    method: str,
    path: str,
    fields: dict[bytes, bytes] | None = None,
    body: tuple[bytes, ...] | None = (b"",),
    peer: Credentials | None = OWN,
) -> Said:
    """Ask; a body of None is a client that goes away."""
    sent: list[Message] = []
    pieces = list(body or ())

    async def receive() -> Message:
        if body is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def send(message: Message) -> None:
        sent.append(message)

    records = Records()
    scope: Scope = {
        "type": "http",
        "method": method,
        "path": path.partition("?")[0],
        "query_string": path.partition("?")[2].encode(),
        "headers": list(({b"host": b"localhost"} | (fields or {})).items()),
        "state": {PEER: peer},
    }
    control = make_control(ROUTES, records.log)

    async def scene() -> None:
        await control(scope, receive, send)

    play(scene())
    return Said(sent, records)


# --- questions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_question_is_answered_whoever_asks(method: str) -> None:
    for peer in (OWN, ROOT, STRANGER, None):
        said = ask(method, "/level?a=1&b=%20", peer=peer)
        assert (said.status, said.content) == (200, {"asked": {"a": "1", "b": " "}})
        assert said.records == []


def test_an_answer_is_json_that_nobody_keeps_and_no_other_page_reads() -> None:
    assert ask("GET", "/level").fields == {
        "content-type": "application/json",
        "cache-control": "no-store",
        "content-length": str(len(b'{"asked": {}}\n')),
        "x-content-type-options": "nosniff",
        "cross-origin-resource-policy": "same-origin",
    }


def test_programs_get_a_list_of_all_there_is() -> None:
    said = ask("GET", "/", {b"accept": b"*/*"})
    assert said.content["paths"] == [
        {"method": "GET", "path": "/livez", "text": "alive"},
        {"method": "GET", "path": "/level", "text": "asks"},
        {"method": "POST", "path": "/level", "text": "orders"},
        {"method": "POST", "path": "/order", "text": "orders"},
    ]


def test_a_browser_gets_a_page_that_can_run_its_own_script_and_nothing_else() -> None:
    said = ask("GET", "/", {b"accept": b"text/html,application/xhtml+xml,*/*;q=0.8"})
    assert said.fields["content-type"] == "text/html; charset=utf-8"
    rules = dict(rule.split(" ", 1) for rule in said.fields["content-security-policy"].split("; "))
    assert rules["default-src"] == rules["frame-ancestors"] == rules["form-action"] == "'none'"
    for kind in ("script", "style"):
        [text] = re.findall(rf"<{kind}>(.*?)</{kind}>".encode(), said.body, re.DOTALL)
        assert rules[f"{kind}-src"] == f"'sha256-{b64encode(sha256(text).digest()).decode()}'"
    # It works where there is no network, and a policy that allows no inline styles would break these.
    assert not re.search(rb"(?:src|href)=\"(?!data:|status\")|url\(|@import| style=| on\w+=", said.body)


@pytest.mark.parametrize("path", ["/status/", "/LEVEL", "*", "/favicon.ico"])
def test_other_paths_are_not_found_and_the_known_ones_named(path: str) -> None:
    said = ask("GET", path)
    assert said.status == 404
    assert said.content["paths"] == ["/", "/level", "/livez", "/order"]


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "/level", "GET, HEAD, POST"),
        ("OPTIONS", "/order", "POST"),  # a browser's preflight: refused, and so are the orders of foreign pages
        ("GET", "/order", "POST"),
        ("POST", "/livez", "GET, HEAD"),
        ("POST", "/", "GET, HEAD"),
    ],
)
def test_other_methods_are_refused_and_the_known_ones_named(method: str, path: str, allow: str) -> None:
    said = ask(method, path, ORDER)
    assert (said.status, said.fields["allow"]) == (405, allow)


def test_it_has_no_lifespan() -> None:
    async def scene() -> None:
        with pytest.raises(NotImplementedError, match="lifespan"):
            await make_control((), Records().log)({"type": "lifespan"}, None, None)  # type: ignore[arg-type]

    play(scene())


# --- orders -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("peer", [OWN, ROOT])
def test_root_and_the_servers_own_user_can_order_and_the_log_tells_who_did(peer: Credentials) -> None:
    said = ask("POST", "/order", ORDER, (b'{"a"', b": 1}"), peer)
    assert (said.status, said.content) == (200, {"done": {"a": 1}})
    [record] = said.records
    assert record["message"] == "POST /order at the control socket"
    assert (record["peer_uid"], record["peer_pid"]) == (peer.uid, peer.pid)


def test_an_order_may_say_nothing() -> None:
    assert ask("POST", "/order", ORDER).content == {"done": {}}


@pytest.mark.parametrize("peer", [STRANGER, None])
def test_others_cannot_order_and_the_log_tells_who_tried(peer: Credentials | None) -> None:
    said = ask("POST", "/order", ORDER, peer=peer)
    assert said.status == 403
    [record] = said.records
    assert record["level"] == "warning"
    assert record["message"].startswith("Refused POST /order at the control socket: orders are taken from ")
    assert record.get("peer_uid") == (peer and peer.uid)
    assert said.content["error"] in record["message"]


@pytest.mark.parametrize(
    "kind", [b"", b"text/plain", b"application/x-www-form-urlencoded", b"multipart/form-data; boundary=a", b"text/json"]
)
def test_what_a_form_can_send_is_no_order(kind: bytes) -> None:
    said = ask("POST", "/order", {b"content-type": kind}, (b'{"a": 1}',))
    assert said.status == 415
    assert "Content-Type: application/json" in said.content["error"]


def test_the_type_of_an_order_may_have_parameters() -> None:
    assert ask("POST", "/order", {b"content-type": b"Application/JSON; charset=utf-8"}).status == 200


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ((b"{",), 400, "the order is no JSON: "),
        ((b"\xff",), 400, "the order is no JSON: "),
        ((b"[" * (BODY_SIZE - 1),), 400, "the order is no JSON: "),
        ((b"[]",), 400, "an order is a JSON object"),
        ((b" " * BODY_SIZE, b" "), 413, "an order has 4096 bytes at most"),
        (None, 400, "the order is not whole"),
        ((b'{"impossible": 1}',), 409, "that cannot be"),
    ],
)
def test_a_wrong_order_is_refused_with_what_is_wrong(body: tuple[bytes, ...] | None, status: int, error: str) -> None:
    said = ask("POST", "/order", ORDER, body)
    assert said.status == status
    assert said.content["error"].startswith(error)


# --- whom it thinks it is ---------------------------------------------------------------------------------------------

LOCAL = ["", "localhost", "LOCALHOST:8080", "a.localhost", "127.0.0.1:8080", "10.0.0.7", "[::1]", "[::1]:80", "x", "x."]
FOREIGN = ["evil.example", "evil.example:8080", "evil.example.", "127.0.0.1.evil.example", "localhost.evil.example"]


@pytest.mark.parametrize("host", LOCAL)
def test_addresses_and_names_without_a_domain_are_local(host: str) -> None:
    assert is_local(host)
    assert ask("GET", "/level", {b"host": host.encode()}).status == 200


@pytest.mark.parametrize("host", FOREIGN)
def test_a_foreign_name_that_leads_here_is_refused_but_for_probes(host: str) -> None:
    assert not is_local(host)
    for method, path in (("GET", "/level"), ("POST", "/order"), ("GET", "/"), ("GET", "/nothing")):
        said = ask(method, path, ORDER | {b"host": host.encode()})
        assert said.status == 421
        assert said.content["error"] == f"Host is {host!r}, and has to be localhost or an address"
    assert ask("GET", "/livez", {b"host": host.encode()}).status == 200
