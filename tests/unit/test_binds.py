"""appserver.binds: the grammar of addresses."""

import pytest

from appserver.binds import BINDS, CONTROL, HOST, Bind, FdBind, TcpBind, UnixBind, parse_bind
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
