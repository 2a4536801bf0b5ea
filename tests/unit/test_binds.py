"""appserver.binds: the grammar of addresses."""

import pytest

from appserver.binds import (
    BINDS,
    CONTROL,
    HOST,
    INSECURE_BINDS,
    SOCKET_PATH,
    STATSD,
    Bind,
    FdBind,
    TcpBind,
    UnixBind,
    parse_bind,
    parse_insecure_bind,
    parse_statsd,
)
from appserver.kinds import UnfitError


@pytest.mark.parametrize(
    ("text", "bind"),
    [
        ("127.0.0.1:8000", TcpBind("127.0.0.1", 8000)),
        ("localhost:0", TcpBind("localhost", 0)),
        ("app.example.org:80", TcpBind("app.example.org", 80)),
        ("[::1]:8000", TcpBind("::1", 8000)),
        ("[::]:80", TcpBind("::", 80)),
        (":8000", TcpBind("", 8000)),
        ("unix:/run/app.sock", UnixBind("/run/app.sock")),
        ("unix:app.sock", UnixBind("app.sock")),
        ("unix:@app", UnixBind("@app")),
        ("fd://3", FdBind(3, None)),
        ("fd://http", FdBind(None, "http")),
        ("fd://shop.socket", FdBind(None, "shop.socket")),
        ("127.0.0.1:8000?tls=off", TcpBind("127.0.0.1", 8000, tls=False)),
        ("[::1]:8000?tls=on&http2=off", TcpBind("::1", 8000, tls=True, http2=False)),
        ("unix:/run/app.sock?tls=off&http2=off", UnixBind("/run/app.sock", tls=False, http2=False)),
        ("fd://web?http2=on", FdBind(None, "web", http2=True)),
    ],
)
def test_every_form_is_read_and_written_alike(text: str, bind: Bind) -> None:
    assert parse_bind(text) == bind
    assert str(bind) == text


def test_a_url_of_three_slashes_is_a_path() -> None:
    assert parse_bind("unix:///run/app.sock") == UnixBind("/run/app.sock")


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "8000",
        "localhost",
        "localhost:",
        "localhost:http",
        "localhost:65536",
        "localhost:-1",
        "::1:8000",
        "[::1]",
        "[localhost]:80",
        "[::1:80",
        "a b:80",
        "-a:80",
        "http://localhost:80",
        "unix:",
        "unix:@",
        "unix:a\0b",
        "fd://",
        "fd://-1",
        "fd://a:b",
        "fd://caf\xe9",
        "fd://99999999999",
        "unxi:/run/app.sock",
        "localhost:80?",
        "localhost:80?tls",
        "localhost:80?tls=yes",
        "localhost:80?tls=off&",
        "localhost:80?http3=on",
        "unix:/run/a?b",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UnfitError):
        parse_bind(text)


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("/run/app.sock", "unix:/run/app.sock"),
        ("localhost", "localhost:8000"),
        ("::1:8000", "[::1]:8000"),
        ("8000", None),
    ],
)
def test_what_was_meant_is_named(text: str, nearest: str | None) -> None:
    with pytest.raises(UnfitError) as caught:
        parse_bind(text)
    # "::1:8000" is an IPv6 address as a whole, too; with brackets it is what people mean.
    assert caught.value.nearest == nearest


@pytest.mark.parametrize("lead", ["/", "@"])
def test_a_path_may_be_as_long_as_the_kernel_takes(lead: str) -> None:
    # sun_path: 108 bytes; the path's NUL is behind it, an abstract name's in place of the "@".
    longest = lead + "x" * (107 if lead == "@" else 106)
    assert parse_bind(f"unix:{longest}") == UnixBind(longest)
    with pytest.raises(UnfitError, match="107 bytes"):
        parse_bind(f"unix:{longest}x")


def test_a_list_has_commas() -> None:
    assert BINDS.parse("127.0.0.1:80, [::1]:80,unix:/x") == ("127.0.0.1:80", "[::1]:80", "unix:/x")
    assert BINDS.parse("") == ()
    with pytest.raises(UnfitError):
        BINDS.parse("127.0.0.1:80,nonsense")


def test_a_control_socket_is_a_unix_socket() -> None:
    assert CONTROL.parse("unix:/run/c.sock") == "unix:/run/c.sock"
    with pytest.raises(UnfitError) as caught:
        CONTROL.parse("/run/c.sock")
    assert caught.value.nearest == "unix:/run/c.sock"
    with pytest.raises(UnfitError):
        CONTROL.parse("127.0.0.1:80")


@pytest.mark.parametrize("text", ["localhost", "0.0.0.0", "::", "my_container", "a.b-c"])
def test_hosts(text: str) -> None:
    assert HOST.parse(text) == text


def test_the_brackets_of_an_ipv6_host_come_off() -> None:
    assert HOST.parse("[::1]") == "::1"


@pytest.mark.parametrize(
    ("text", "expected", "nearest"),
    [
        (":80?tsl=off", "expected tls or http2 behind the question mark", "tls"),
        (":80?http3=off", "expected tls or http2 behind the question mark", "http2"),
        (":80?tls=maybe", "expected tls=on or tls=off behind the question mark", None),
    ],
)
def test_an_unknown_option_is_answered_with_those_there_are(text: str, expected: str, nearest: str | None) -> None:
    with pytest.raises(UnfitError) as caught:
        parse_bind(text)
    assert (caught.value.expected, caught.value.nearest) == (expected, nearest)


def test_an_insecure_bind_is_one_without_tls() -> None:
    assert parse_insecure_bind(":80?http2=off") == TcpBind("", 80, tls=False, http2=False)
    assert INSECURE_BINDS.parse(":80,unix:/x") == (":80", "unix:/x")
    with pytest.raises(UnfitError, match="without tls=on"):
        INSECURE_BINDS.parse(":80?tls=on")


def test_a_path_has_no_question_mark() -> None:
    for kind, text in ((SOCKET_PATH, "/run/a?tls=off"), (CONTROL, "unix:/run/c?tls=off")):
        with pytest.raises(UnfitError):
            kind.parse(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("localhost", TcpBind("localhost", 8125)),
        ("statsd.example.org:9125", TcpBind("statsd.example.org", 9125)),
        ("[::1]:8125", TcpBind("::1", 8125)),
        ("unix:/run/statsd.sock", UnixBind("/run/statsd.sock")),
        ("unix:///run/statsd.sock", UnixBind("/run/statsd.sock")),
        ("unix:@statsd", UnixBind("@statsd")),
    ],
)
def test_a_server_of_statsd_is_a_host_or_a_unix_socket(text: str, address: Bind) -> None:
    assert parse_statsd(text) == address
    assert parse_statsd(STATSD.parse(text)) == address


@pytest.mark.parametrize(
    "text", ["", ":8125", "localhost:0", "localhost:x", "fd://3", "a b", "unix:", "localhost:1?tls=on"]
)
def test_what_is_no_server_of_statsd_is_an_error(text: str) -> None:
    with pytest.raises(UnfitError):
        STATSD.parse(text)


def test_the_path_of_a_server_of_statsd_without_unix_is_understood() -> None:
    with pytest.raises(UnfitError) as caught:
        STATSD.parse("/run/statsd.sock")
    assert caught.value.nearest == "unix:/run/statsd.sock"
