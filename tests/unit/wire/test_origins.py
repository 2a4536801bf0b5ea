"""Whose pages may open a WebSocket."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appserver.wire.origins import Origins


def admit(origin: str, *patterns: str) -> bool:
    origins = Origins.of(patterns)
    assert origins is not None
    return origins.admit(origin)


@pytest.mark.parametrize("patterns", [(), ("*",), ("https://example.org", "*")])
def test_without_a_list_all_are_let_in(patterns: tuple[str, ...]) -> None:
    assert Origins.of(patterns) is None


@pytest.mark.parametrize("origin", ["https://example.org", "http://localhost:8080", "https://[2001:db8::1]", "null"])
def test_what_is_listed_is_let_in(origin: str) -> None:
    assert admit(origin, "https://other.example", origin)


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "https://example.org:8443",
        "https://example.org:443",
        "http://example.org",
        "https://example.org.",
        "https://example.org/",
        "https://example.org.evil",
        "https://evil-example.org",
        "https://evil.example.org",
        "https://evil@example.org",
        "https://example.org@evil",
        "https://example.org\0",
        " https://example.org",
        "https://example.org https://evil",
        "https://evil https://example.org",
        "example.org",
        "ws://example.org",
    ],
)
def test_what_is_not_listed_is_not(origin: str) -> None:
    assert not admit(origin, "https://example.org")


@pytest.mark.parametrize(
    "origin", ["https://a.example.org", "https://a.b.example.org", "https://xn--a-0ga.example.org"]
)
def test_a_wildcard_stands_for_any_name_before_it(origin: str) -> None:
    assert admit(origin, "https://*.example.org")


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "https://example.org",
        "https://.example.org",
        "https://evil-example.org",
        "https://example.org.evil",
        "https://a.example.org.evil",
        "https://x.example.org@evil",
        "https://evil@x.example.org",
        "https://evil/.example.org",
        "https://evil?.example.org",
        "https://evil#.example.org",
        "https://evil\\.example.org",
        "https://evil:443.example.org",
        "https://evil:80@.example.org",
        "https://evil .example.org",
        "https://evil https://a.example.org",
        "http://a.example.org",
        "wss://a.example.org",
        "https://a.example.org:8443",
        "https://a.example.org/",
        "https://a.example.org.",
        "a.example.org",
        "",
    ],
)
def test_a_wildcard_stands_for_nothing_else(origin: str) -> None:
    assert not admit(origin, "https://*.example.org")


def test_a_wildcard_may_have_a_port() -> None:
    assert admit("https://a.example.org:8443", "https://*.example.org:8443")
    assert not admit("https://a.example.org", "https://*.example.org:8443")
    assert not admit("https://a.example.org:8444", "https://*.example.org:8443")


def test_every_one_of_many_is_asked() -> None:
    patterns = ("https://*.a.example", "https://b.example", "http://*.c.example:80", "null")
    assert [admit(origin, *patterns) for origin in ("https://x.a.example", "http://x.c.example:80", "null")] == [
        True
    ] * 3
    assert not admit("https://x.b.example", *patterns)


@given(st.text(max_size=30))
def test_what_a_wildcard_lets_in_is_a_name_below_it(middle: str) -> None:
    let_in = admit(f"https://{middle}.example.org", "https://*.example.org")
    assert not let_in or set(middle) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_.")
