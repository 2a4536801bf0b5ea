"""appserver.asgi.welcome, as an ASGI application and as a page."""

import asyncio
import json
from html.parser import HTMLParser
from typing import Any

import pytest

from appserver import __version__
from appserver.asgi.welcome import app


def get(accept: str | None = None, method: str = "GET", path: str = "/") -> tuple[dict[str, str], bytes]:
    headers = [] if accept is None else [(b"accept", accept.encode())]
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        raise AssertionError("the page needs nothing from the client")

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app({"type": "http", "method": method, "path": path, "headers": headers}, receive, send))
    start, body = sent
    assert start["status"] == 200
    return {name.decode(): value.decode() for name, value in start["headers"]}, body["body"]


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (None, "text/plain; charset=utf-8"),
        ("*/*", "text/plain; charset=utf-8"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html; charset=utf-8"),
        ("application/json", "application/json"),
        ("Application/JSON, text/html;q=0.5", "application/json"),
        ("text/html; level=1; q=0.2, text/plain;q=0.1", "text/html; charset=utf-8"),
        ("text/*", "text/plain; charset=utf-8"),
        ("image/png", "text/plain; charset=utf-8"),
        ("text/html;q=nonsense, application/json;q=0.1", "application/json"),
        (";;;,,,q=", "text/plain; charset=utf-8"),
    ],
)
def test_the_client_gets_what_it_accepts(accept: str | None, content_type: str) -> None:
    headers, body = get(accept)
    assert headers["content-type"] == content_type
    assert headers["content-length"] == str(len(body))
    assert headers["vary"] == "accept"


@pytest.mark.parametrize("accept", ["text/plain", "text/html", "application/json"])
def test_every_form_says_what_runs_and_what_to_do(accept: str) -> None:
    text = get(accept)[1].decode()
    assert "appserver is running" in text
    assert __version__ in text
    assert "/etc/appserver/appserver.toml" in text
    assert "appserver main:app" in text


def test_json_is_json() -> None:
    assert json.loads(get("application/json")[1])["message"] == "appserver is running"


def test_plain_text_fits_a_terminal() -> None:
    assert max(map(len, get()[1].decode().splitlines())) <= 80


def test_every_path_answers_and_head_has_no_content() -> None:
    assert get(path="/any/where") == get()
    headers, body = get("text/html", "HEAD")
    assert body == b""
    assert headers == get("text/html")[0]


class Page(HTMLParser):
    """Checks that elements nest, and collects them."""

    VOID = frozenset({"meta", "link"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_accessible_and_loads_nothing() -> None:
    headers, body = get("text/html")
    page = Page(body.decode())
    tags = [tag for tag, _ in page.seen]
    assert ("html", {"lang": "en"}) in page.seen
    assert tags.count("h1") == tags.count("main") == tags.count("title") == 1
    assert not {"script", "img", "iframe"} & set(tags)
    assert [attrs["href"] for _, attrs in page.seen if "href" in attrs] == ["data:,"]
    assert not [attrs for _, attrs in page.seen if "src" in attrs]
    assert headers["content-security-policy"].startswith("default-src 'none'")


def test_it_takes_part_in_lifespan() -> None:
    incoming = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return incoming.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app({"type": "lifespan"}, receive, send))
    assert sent == [{"type": "lifespan.startup.complete"}, {"type": "lifespan.shutdown.complete"}]


def test_it_refuses_other_protocols() -> None:
    async def never(*_: Any) -> Any:
        raise AssertionError

    with pytest.raises(NotImplementedError, match="websocket"):
        asyncio.run(app({"type": "websocket"}, never, never))
