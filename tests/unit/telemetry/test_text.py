"""No control character leaves escape() raw, and show() never raises."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appserver.telemetry.text import UNSAFE, escape, escape_lines, show, show_count

DANGEROUS = {"Cc", "Cs", "Zl", "Zp"}


@given(st.text(st.characters()))
def test_escape_leaves_nothing_that_a_terminal_obeys(text: str) -> None:
    escaped = escape(text)
    assert not [character for character in escaped if unicodedata.category(character) in DANGEROUS]
    assert not UNSAFE.search(escaped)
    escaped.encode()  # surrogates included: what is escaped can be written


def test_what_is_unsafe_is_never_printable() -> None:
    assert not [number for number in range(0x110000) if UNSAFE.match(chr(number)) and chr(number).isprintable()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain and ünïcode ✓ 😀", "plain and ünïcode ✓ 😀"),
        ("a\r\nb\tc", r"a\x0d\x0ab\x09c"),
        ("\x1b[31m\x7f\x9b", r"\x1b[31m\x7f\x9b"),
        ("\u2028\u2029\u202e\u2066", r"\u2028\u2029\u202e\u2066"),
        ("\udc80", r"\udc80"),
        (r"\d+\.\w", r"\d+\.\w"),
    ],
)
def test_escape(text: str, expected: str) -> None:
    assert escape(text) == expected


def test_escape_lines_keeps_line_feeds_alone() -> None:
    assert escape_lines("a\nb\r\x1bc\n") == "a\nb\\x0d\\x1bc\n"


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a\nb", r"a\x0ab"),
        (True, "true"),
        (False, "false"),
        (7, "7"),
        (1.5, "1.5"),
        (b"a\xff\n", r"a\xff\x0a"),
        (("x", 1), "('x', 1)"),
        (Unprintable(), "<Unprintable that cannot be shown: RuntimeError>"),
        pytest.param(10**5000, "<int that cannot be shown: ValueError>", id="digits"),
    ],
)
def test_show(value: object, expected: str) -> None:
    assert show(value) == expected


def test_one_is_not_several() -> None:
    assert [show_count(number, "worker") for number in (0, 1, 2)] == ["0 workers", "1 worker", "2 workers"]
