"""appserver.kinds: how each kind of value is read."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appserver import kinds
from appserver.kinds import Kind, UnfitError

SIZE = kinds.size(0, 2**63 - 1, "a size")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("16", 16),
        ("16K", 16384),
        ("16k", 16384),
        ("64KiB", 65536),
        ("64 KiB", 65536),
        ("1M", 2**20),
        ("10G", 10 * 2**30),
    ],
)
def test_sizes_have_suffixes_of_1024(text: str, value: int) -> None:
    assert SIZE.parse(text) == value


@pytest.mark.parametrize("text", ["", "K", "-1", "1.5K", "1KB", "1_0", "1 0", "0x10", "٣", "9" * 30, "8E"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UnfitError):
        SIZE.parse(text)


@given(st.integers(0, 2**63 - 1))
def test_a_size_is_read_as_it_is_shown(value: int) -> None:
    assert SIZE.parse(SIZE.show(value)) == value


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5", 5.0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("500ms", 0.5),
        ("5s", 5.0),
        ("10min", 600.0),
        ("10 min", 600.0),
        ("2h", 7200.0),
        ("1d", 86400.0),
    ],
)
def test_durations_have_units(text: str, seconds: float) -> None:
    assert kinds.DURATION.parse(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1", "5 weeks", "nan", "inf", "1e3", "9" * 400, "5:30"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UnfitError):
        kinds.DURATION.parse(text)


def test_zero_is_a_duration_but_no_deadline() -> None:
    assert kinds.DURATION.parse("0") == 0
    with pytest.raises(UnfitError):
        kinds.DEADLINE.parse("0ms")


@pytest.mark.parametrize(
    ("text", "mode"), [("660", 0o660), ("0660", 0o660), ("0o600", 0o600), ("000", 0), ("777", 0o777)]
)
def test_modes_are_octal(text: str, mode: int) -> None:
    assert kinds.MODE.parse(text) == mode


@pytest.mark.parametrize("text", ["", "66", "668", "1777", "u+rw", "0x1b0"])
def test_what_is_no_mode_is_refused(text: str) -> None:
    with pytest.raises(UnfitError):
        kinds.MODE.parse(text)


@pytest.mark.parametrize("text", ["", "-1", "+1", "1_0", " 1", "65536", "8000.0", "٣", "0x50"])
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(UnfitError):
        kinds.PORT.parse(text)


@pytest.mark.parametrize("text", ["1", "true", "YES", "On"])
def test_words_for_true(text: str) -> None:
    assert kinds.SWITCH.parse(text) is True


@pytest.mark.parametrize("text", ["0", "false", "NO", "Off"])
def test_words_for_false(text: str) -> None:
    assert kinds.SWITCH.parse(text) is False


def test_an_unknown_word_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnfitError) as caught:
        kinds.choice("critical", "warning").parse("warn1ng")
    assert caught.value.nearest == "warning"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("X-Frame-Options: DENY", ("X-Frame-Options", "DENY")),
        ("Name:Value", ("Name", "Value")),
        ("Empty:", ("Empty", "")),
        ("Colons: a:b", ("Colons", "a:b")),
        ("Latin: caf\xe9", ("Latin", "caf\xe9")),
    ],
)
def test_a_header_is_name_and_value(text: str, value: tuple[str, str]) -> None:
    assert kinds.HEADERS.parse(text) == (value,)


@pytest.mark.parametrize(
    "text", ["no colon", ": value", "a b: c", "a : c", "é: c", "A: b\rC: d", "A: \x1b[0m", "A: \u20ac", "A: b\x00"]
)
def test_what_is_no_header_is_refused(text: str) -> None:
    with pytest.raises(UnfitError):
        kinds.HEADERS.parse(text)


@pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding", "CONNECTION"])
def test_a_field_that_frames_the_message_cannot_be_set_for_all(name: str) -> None:
    with pytest.raises(UnfitError, match="belongs to each response"):
        kinds.HEADERS.parse(f"{name}: 1")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", ()),
        ("*", ("*",)),
        ("unix, 10.0.0.0/8,::1", ("unix", "10.0.0.0/8", "::1")),
        ("2001:DB8::/32", ("2001:db8::/32",)),
    ],
)
def test_peers_are_addresses_networks_and_two_words(text: str, value: tuple[str, ...]) -> None:
    assert kinds.PEERS.parse(text) == value


def test_an_address_where_a_network_is_meant_gets_the_network_named() -> None:
    with pytest.raises(UnfitError) as caught:
        kinds.PEERS.parse("10.1.2.3/8")
    assert caught.value.nearest == "10.0.0.0/8"


@pytest.mark.parametrize("text", ["localhost", "10.0.0", "10.0.0.0/33", "unix:/run/x"])
def test_what_is_no_peer_is_refused(text: str) -> None:
    with pytest.raises(UnfitError):
        kinds.PEERS.parse(text)


@pytest.mark.parametrize(("text", "path"), [("", ""), ("/", ""), ("/api", "/api"), ("/api/", "/api"), ("/a/b", "/a/b")])
def test_root_paths_have_no_slash_at_the_end(text: str, path: str) -> None:
    assert kinds.ROOT_PATH.parse(text) == path


def test_a_root_path_without_its_slash_gets_it_named() -> None:
    with pytest.raises(UnfitError) as caught:
        kinds.ROOT_PATH.parse("api")
    assert caught.value.nearest == "/api"


@pytest.mark.parametrize(
    ("kind", "raw", "value"),
    [
        (kinds.PORT, 8000, 8000),
        (kinds.SWITCH, True, True),
        (kinds.DURATION, 5, 5.0),
        (kinds.DURATION, 0.25, 0.25),
        (kinds.DURATION, 0.00001, 0.00001),
        (kinds.DURATION, "500ms", 0.5),
        (SIZE, 8192, 8192),
        (SIZE, "8K", 8192),
        (kinds.MODE, "0660", 0o660),
        (kinds.PEERS, ["unix", "::1"], ("unix", "::1")),
        (kinds.PEERS, "unix,::1", ("unix", "::1")),
        (kinds.HEADERS, ["A: b", "C: d"], (("A", "b"), ("C", "d"))),
        (kinds.PEERS, [], ()),
    ],
)
def test_toml_values_are_taken_by_type(kind: Kind[Any], raw: object, value: object) -> None:
    assert kind.read(raw) == value


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        (kinds.PORT, True),
        (kinds.PORT, "8000"),
        (kinds.PORT, 80.0),
        (kinds.PORT, [80]),
        (kinds.SWITCH, "true"),
        (kinds.SWITCH, 1),
        (kinds.DURATION, float("nan")),
        (kinds.DURATION, False),
        (kinds.PATH, 5),
        (kinds.PATH, {}),
        (kinds.MODE, 660),
        (kinds.MODE, 0o660),
        (kinds.PEERS, ["unix", 1]),
        (kinds.HEADERS, {"A": "b"}),
    ],
)
def test_toml_values_of_another_type_are_refused(kind: Kind[Any], raw: object) -> None:
    with pytest.raises(UnfitError):
        kind.read(raw)


def test_the_nearest_name_is_near() -> None:
    assert kinds.nearest("prot", ["port", "host"]) == "port"
    assert kinds.nearest("zzz", ["port", "host"]) is None


# --- statsd -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "prefix"), [("shop", "shop"), ("shop.eu.", "shop.eu"), ("", ""), ("a-b_c.1", "a-b_c.1")]
)
def test_a_prefix_is_without_the_dot_behind_it(text: str, prefix: str) -> None:
    assert kinds.STATSD_PREFIX.parse(text) == prefix


@pytest.mark.parametrize("text", ["a b", "a:b", "a|c", "a\nb", "gr\u00fcn", "a#b"])
def test_what_would_end_a_name_is_in_no_prefix(text: str) -> None:
    with pytest.raises(UnfitError):
        kinds.STATSD_PREFIX.parse(text)


@pytest.mark.parametrize("text", ["", "env:prod", "env:prod,shop,region:eu-1", "url:http://a/b"])
def test_tags_have_commas_between(text: str) -> None:
    assert kinds.DOGSTATSD_TAGS.parse(text) == text


@pytest.mark.parametrize("text", [",", "a,", "a,,b", "a b", "a|b", "#a", "a\nb"])
def test_what_would_end_a_tag_is_in_none(text: str) -> None:
    with pytest.raises(UnfitError):
        kinds.DOGSTATSD_TAGS.parse(text)
