"""The control socket's application: what an operator or a probe may ask of a running server, and order.

What there is, is a table of routes, which `process.operations` makes. Here is what holds for all of them:

- GET only asks. POST orders, and is for root and for the server's own user: the socket's mode may let in others, and
  who they are is known of a UNIX socket alone (unix(7), SO_PEERCRED).
- A browser may be at the other end (`ssh -L`), and any page of the web can make it send requests to where that is. So
  an order is JSON by its Content-Type, which a form cannot send, nor a script of a foreign origin, whose preflight
  fails (https://fetch.spec.whatwg.org, CORS protocol). And Host has to be a name of this host: a foreign name may
  lead here all the same (DNS rebinding), and then the page's origin is no foreign one.
"""

import json
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

from appserver import __version__
from appserver.asgi.types import Application, Receive, Scope, Send
from appserver.system.fds import is_nameless
from appserver.telemetry.log import Log

PEER: Final = "peer"
"""In a scope's `state`: `Credentials`, or None where the socket is no UNIX socket."""

BODY_SIZE: Final = 4096
"""Bytes that an order may take."""

JSON: Final = "application/json"


class Credentials(NamedTuple):
    """As whom a peer ran when it connected (unix(7), SO_PEERCRED)."""

    pid: int
    uid: int
    gid: int

    @property
    def entitled(self) -> bool:
        """Whether orders are taken from it."""
        return self.uid == 0 or (self.uid == os.geteuid() and not is_nameless(self.uid))


@dataclass(frozen=True, slots=True)
class Request:
    """What a route is asked.

    Attributes:
        words: The members of an order's JSON object, or of a question's query.
        accept: The Accept field.
    """

    words: Mapping[str, Any]
    accept: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a route answers: an object, which becomes JSON, or bytes of another kind."""

    content: Mapping[str, Any] | bytes
    status: int = 200
    kind: str = JSON
    fields: Mapping[str, str] = field(default_factory=dict)


class RejectedError(Exception):
    """A route cannot do what it was asked for; its text is for the operator."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Route:
    """One thing that can be asked or ordered.

    Attributes:
        method: GET, which includes HEAD, or POST.
        path: Of the request.
        answer: Does it; raises `RejectedError`.
        text: What it is, in a line.
        probe: Answered whatever Host says: probes come by any name, and are told nothing that is worth stealing.
    """

    method: str
    path: str
    answer: Callable[[Request], Awaitable[Answer]]
    text: str
    probe: bool = False


def make_control(routes: Iterable[Route], log: Log) -> Application:
    """Make the control socket's application; the log tells who has ordered what."""
    table: dict[str, dict[str, Route]] = {}
    for route in routes:
        table.setdefault(route.path, {})[route.method] = route

    async def control(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        try:
            answer = await _answer(table, scope, receive, log)
        except RejectedError as error:
            answer = Answer({"error": str(error)}, error.status)
        content = answer.content
        body = content if isinstance(content, bytes) else (json.dumps(content) + "\n").encode()
        headers = [(b"content-type", answer.kind.encode()), (b"cache-control", b"no-store")]
        headers.append((b"content-length", b"%d" % len(body)))  # to a HEAD too
        # Nothing here is for another page to look at, whatever its type.
        headers += [(b"x-content-type-options", b"nosniff"), (b"cross-origin-resource-policy", b"same-origin")]
        headers += [(name.encode(), value.encode()) for name, value in answer.fields.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return control


async def _answer(table: Mapping[str, Mapping[str, Route]], scope: Scope, receive: Receive, log: Log) -> Answer:
    method = "GET" if scope["method"] == "HEAD" else scope["method"]
    path = scope["path"]
    fields = {name: value.decode("latin-1") for name, value in scope["headers"]}
    routes = table.get(path, {})
    if not (is_local(fields.get(b"host", "")) or any(route.probe for route in routes.values())):
        raise RejectedError(421, f"Host is {fields[b'host']!r}, and has to be localhost or an address")
    if path == "/":
        routes = {"GET": Route("GET", "/", _index(table), "this list; a page for browsers")}
    if not routes:
        return Answer({"error": f"no such path: {path}", "paths": sorted({"/", *table})}, 404)
    route = routes.get(method)
    if route is None:
        allow = ", ".join("GET, HEAD" if name == "GET" else name for name in routes)
        return Answer({"error": f"only {allow}"}, 405, fields={"allow": allow})
    if method == "POST":
        peer: Credentials | None = scope["state"].get(PEER)
        told = log if peer is None else log.bind(peer_uid=peer.uid, peer_pid=peer.pid)
        try:
            _admit(peer)
            words = await _read_order(fields.get(b"content-type", ""), receive)
        except RejectedError as error:
            told.warning(f"Refused POST {path} at the control socket: {error}")
            raise
        told.info(f"POST {path} at the control socket")
    else:
        words = dict(parse_qsl(scope["query_string"].decode("latin-1")))
    accept = b",".join(value for name, value in scope["headers"] if name == b"accept")
    return await route.answer(Request(words, accept.decode("latin-1")))


def _index(table: Mapping[str, Mapping[str, Route]]) -> Callable[[Request], Awaitable[Answer]]:
    async def index(request: Request) -> Answer:
        if "text/html" in request.accept:
            from appserver.asgi.dashboard import make_policy, read_page  # noqa: PLC0415 - for browsers alone

            policy = {"content-security-policy": make_policy(), "referrer-policy": "no-referrer"}
            return Answer(read_page(), kind="text/html; charset=utf-8", fields=policy)
        routes = [route for methods in table.values() for route in methods.values()]
        paths = [{"method": route.method, "path": route.path, "text": route.text} for route in routes]
        return Answer({"server": "appserver", "version": __version__, "paths": paths})

    return index


def is_local(host: str) -> bool:
    """Whether a Host cannot be the name of a foreign domain that leads here.

    An address is none, and a name without a dot is nobody's domain; `curl --unix-socket` wants some name.
    """
    if host.startswith("["):
        return True
    name = host.lower().partition(":")[0].rstrip(".")
    top = name.rpartition(".")[2]
    # https://url.spec.whatwg.org/#ends-in-a-number-checker: what ends in a number is an IPv4 address, or an error.
    return "." not in name or top == "localhost" or top.isdecimal()


def _admit(peer: Credentials | None) -> None:
    if peer is None:
        raise RejectedError(403, "orders are taken from a UNIX socket alone: of others it is not known who asks")
    if not peer.entitled:
        own = os.geteuid()
        who = f"uid {peer.uid}"
        if is_nameless(peer.uid):
            who = f"a user that the server's user namespace does not know (PID {peer.pid}; PrivateUsers=)"
        raise RejectedError(403, f"orders are taken from root and the server's user ({own}), not from {who}")


async def _read_order(kind: str, receive: Receive) -> Mapping[str, Any]:
    if kind.partition(";")[0].strip().lower() != JSON:
        raise RejectedError(415, f"orders are JSON: send Content-Type: {JSON} (curl --json '{{}}')")
    body = b""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RejectedError(400, "the order is not whole")
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > BODY_SIZE:
            raise RejectedError(413, f"an order has {BODY_SIZE} bytes at most")
    try:
        words = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise RejectedError(400, f"the order is no JSON: {error}") from None
    if not isinstance(words, dict):
        raise RejectedError(400, "an order is a JSON object")
    return words
