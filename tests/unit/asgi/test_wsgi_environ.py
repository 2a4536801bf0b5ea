"""asgi.wsgi_environ: what a WSGI application is told of a request."""

from io import BytesIO
from typing import Any

import pytest

from appserver.asgi.wsgi_environ import make_environ


def make(*headers: tuple[bytes, bytes], **scope: Any) -> dict[str, Any]:
    whole = {
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "raw_path": b"/",
        "query_string": b"",
        "root_path": "",
        "headers": list(headers),
        "client": ("192.0.2.1", 50000),
        "server": ("192.0.2.2", 8000),
        "state": {"request_id": "7"},
        **scope,
    }
    return make_environ(whole, BytesIO(), None, {"wsgi.version": (1, 0)})


def test_what_is_always_there() -> None:
    environ = make((b"host", b"example.org"), query_string=b"a=1&b=%20")
    assert environ.pop("wsgi.input").read() == b""
    assert environ == {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/",
        "QUERY_STRING": "a=1&b=%20",
        "REQUEST_URI": "/?a=1&b=%20",
        "RAW_URI": "/?a=1&b=%20",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "192.0.2.2",
        "SERVER_PORT": "8000",
        "REMOTE_ADDR": "192.0.2.1",
        "REMOTE_PORT": "50000",
        "HTTP_HOST": "example.org",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.errors": None,
        "appserver.request_id": "7",
    }


@pytest.mark.parametrize(("version", "protocol"), [("1.0", "HTTP/1.0"), ("1.1", "HTTP/1.1"), ("2", "HTTP/2.0")])
def test_the_version_is_written_as_cgi_has_it(version: str, protocol: str) -> None:
    assert make(http_version=version)["SERVER_PROTOCOL"] == protocol


@pytest.mark.parametrize(
    ("raw_path", "root_path", "script_name", "path_info"),
    [
        (b"/a%20b/%C3%A4", "", "", "/a b/Ã¤"),
        (b"/%ff%2F", "", "", "/ÿ/"),
        (b"/shop/a", "/shop", "/shop", "/a"),
        (b"/l%C3%A4den/a", "/läden", "/lÃ¤den", "/a"),
        (b"/shop", "/shop", "/shop", ""),
        (b"*", "", "", ""),
        (b"*", "/shop", "/shop", ""),
    ],
)
def test_paths_are_decoded_to_bytes_in_disguise(
    raw_path: bytes, root_path: str, script_name: str, path_info: str
) -> None:
    environ = make(raw_path=raw_path, root_path=root_path)
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == (script_name, path_info)
    assert environ["REQUEST_URI"] == raw_path.decode("latin-1")


def test_fields_are_named_as_cgi_names_them_and_repeated_ones_joined() -> None:
    environ = make(
        (b"content-type", b"text/plain"),
        (b"content-length", b"3"),
        (b"accept", b"a"),
        (b"cookie", b"a=1"),
        (b"accept", b"b"),
        (b"cookie", b"b=2"),
        (b"x-name", b"J\xf6rg"),
    )
    assert (environ["CONTENT_TYPE"], environ["CONTENT_LENGTH"]) == ("text/plain", "3")
    assert (environ["HTTP_ACCEPT"], environ["HTTP_COOKIE"]) == ("a,b", "a=1; b=2")
    assert environ["HTTP_X_NAME"] == "Jörg"
    assert "HTTP_CONTENT_TYPE" not in environ
    assert "HTTP_CONTENT_LENGTH" not in environ


@pytest.mark.parametrize("name", [b"x_forwarded_for", b"content_length", b"proxy", b"x-a_b"])
def test_names_that_could_be_taken_for_others_are_left_out(name: bytes) -> None:
    for _ in range(2):  # the second time it is remembered
        assert make((name, b"1")).keys() == make().keys()


def test_an_address_of_ipv6_stands_in_brackets() -> None:
    assert make(server=("2001:db8::1", 80, 0, 0))["SERVER_NAME"] == "[2001:db8::1]"


def test_names_are_remembered_up_to_a_limit_and_right_beyond() -> None:
    for number in range(2000):
        assert make((b"x-field-%d" % number, b"1"))[f"HTTP_X_FIELD_{number}"] == "1"


@pytest.mark.parametrize(
    ("host", "scheme", "name", "port"),
    [
        (b"example.org", "http", "example.org", "80"),
        (b"example.org", "https", "example.org", "443"),
        (b"example.org:8443", "https", "example.org", "8443"),
        (b"[2001:db8::1]:80", "http", "[2001:db8::1]", "80"),
        (b"[2001:db8::1]", "http", "[2001:db8::1]", "80"),
        (b"example.org:", "http", "example.org", "80"),
        (None, "http", "localhost", "80"),
    ],
)
def test_behind_a_unix_socket_the_server_has_the_name_that_was_asked_for(
    host: bytes | None, scheme: str, name: str, port: str
) -> None:
    headers = [(b"host", host)] if host is not None else []
    environ = make(*headers, scheme=scheme, server=("/run/shop.sock", None), client=None)
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == (name, port)
    assert environ["REMOTE_ADDR"] == ""
    assert "REMOTE_PORT" not in environ
