"""JSON lines and the console."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appserver.telemetry.lines import Console, render_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner),
    max_leaves=8,
)


def parse(**record: Any) -> dict[str, Any]:
    line = render_json("info", {"event": "Said", **record})
    assert line.endswith(b"\n")
    data = json.loads(line)
    assert isinstance(data, dict)
    return data


def show(*, colour: bool = False, level: str = "info", **record: Any) -> str:
    """The line without its time."""
    return Console(colour=colour).render(level, {"event": "Said", **record}).decode().partition(" ")[2]


def test_json_has_time_level_message_and_fields() -> None:
    data = parse(code="ready", http_status=200, ratio=0.5, missing=None, site=("a", 1, "f"), said=("x",))
    stamp = data.pop("timestamp")
    assert data == {"level": "info", "message": "Said", "event": "ready", "http_status": 200, "ratio": 0.5}
    assert stamp.endswith("Z")
    assert datetime.now(UTC) - datetime.fromisoformat(stamp) < timedelta(minutes=1)


def test_a_json_field_cannot_take_the_place_of_a_word() -> None:
    data = parse(level="x", message="y", timestamp="z")
    assert (data["level"], data["message"]) == ("info", "Said")
    assert (data["extra_level"], data["extra_message"], data["extra_timestamp"]) == ("x", "y", "z")


@given(st.dictionaries(st.text(min_size=1).filter(lambda key: key != "captured"), VALUES))
def test_json_is_one_valid_line_without_control_characters(fields: dict[str, Any]) -> None:
    line = render_json("info", {**fields, "event": "Said"})
    assert not re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", line[:-1].decode())
    json.loads(line, parse_constant=pytest.fail)


def test_json_keeps_what_it_can_say_beside_what_it_cannot() -> None:
    loop: list[Any] = []
    loop.append(loop)
    data = parse(nan=float("nan"), loop=loop, number=3, text="a\nb", key={(1, 2): 3})
    assert (data["nan"], data["number"], data["text"], data["key"]) == ("nan", 3, "a\nb", "{(1, 2): 3}")


def test_the_console_says_level_message_and_fields() -> None:
    assert show(level="warning", listener="http", errno=24) == "warning  Said listener=http errno=24\n"


@pytest.mark.parametrize(
    ("value", "shown"),
    [("a b", '"a b"'), ("", '""'), ("x=1", '"x=1"'), ('say "x"', r'"say \"x\""'), ("a\nb", r"a\x0ab"), (True, "true")],
)
def test_console_values(value: object, shown: str) -> None:
    assert show(key=value) == f"info     Said key={shown}\n"


def test_the_console_omits_what_the_message_says() -> None:
    assert show(said={"http_status"}, http_status=200, client_addr="::1") == "info     Said client_addr=::1\n"


@given(message=st.text(st.characters()), traceback=st.text(st.characters(), min_size=1))
def test_only_a_record_begins_in_the_first_column(message: str, traceback: str) -> None:
    text = Console(colour=False).render("error", {"event": message, "traceback": traceback}).decode()
    first, *rest = text.removesuffix("\n").split("\n")
    assert re.match(r"\d\d:\d\d:\d\d\.\d{3} error    ", first)
    assert rest
    assert all(line.startswith("    ") for line in rest)
    assert "\x1b" not in text


def test_colour_is_there_only_when_asked_for() -> None:
    assert "\x1b[1;31mcritical" in show(colour=True, level="critical", key="x")
    assert "\x1b" not in show(colour=False, level="critical", key="x")


def test_a_record_that_is_rendered_later_has_the_time_when_it_was_made() -> None:
    assert parse(captured=1_700_000_000_000_001)["timestamp"] == "2023-11-14T22:13:20.000001Z"
    line = Console(colour=False).render("info", {"event": "Said", "captured": 1_700_000_000_999_999})
    assert re.fullmatch(rb"\d\d:\d\d:20\.999 info     Said\n", line)
