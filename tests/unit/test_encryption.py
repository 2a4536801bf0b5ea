"""appserver.encryption: how each kind of value is read."""

import pytest

from appserver import encryption
from appserver.kinds import UnfitError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("31536000", "31536000"),
        ("365d", "31536000"),
        ("0", "0"),
        ("1.5", "1"),
        ("63072000; includeSubDomains", "63072000; includeSubDomains"),
        ("730d;INCLUDESUBDOMAINS ; preload;includeSubDomains", "63072000; includeSubDomains; preload"),
    ],
)
def test_hsts_is_a_time_and_what_rfc_6797_lets_stand_behind_it(text: str, value: str) -> None:
    assert encryption.HSTS.parse(text) == value
    assert encryption.HSTS.parse(value) == value


@pytest.mark.parametrize(
    "text", ["", "-1", "max-age=300", "300, preload", "300;", "300; path=/", "300\r\nX: y", "; preload"]
)
def test_what_is_no_hsts_policy_is_refused(text: str) -> None:
    with pytest.raises(UnfitError):
        encryption.HSTS.parse(text)


def test_the_directive_that_was_meant_is_named() -> None:
    with pytest.raises(UnfitError) as caught:
        encryption.HSTS.parse("300; includeSubDomain")
    assert caught.value.nearest == "includeSubDomains"


def test_hsts_may_be_a_number_in_toml() -> None:
    assert encryption.HSTS.read(300) == "300"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((word, word) for word in ("none", "optional", "required")),
        *zip(("0", "1", "2"), ("none", "optional", "required"), strict=True),
        *zip(("CERT_NONE", "CERT_OPTIONAL", "CERT_REQUIRED"), ("none", "optional", "required"), strict=True),
    ],
)
def test_what_is_asked_of_clients_has_the_words_of_three_servers(text: str, value: str) -> None:
    assert encryption.CLIENT_CERT.parse(text) == value


def test_what_is_asked_of_clients_may_be_a_number_in_a_file() -> None:
    assert encryption.CLIENT_CERT.read(2) == "required"
    with pytest.raises(UnfitError) as caught:
        encryption.CLIENT_CERT.parse("require")
    assert caught.value.nearest == "required"
    with pytest.raises(UnfitError):
        encryption.CLIENT_CERT.read(3)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1.2", "1.2"),
        ("1.3", "1.3"),
        ("TLSv1.3", "1.3"),
        ("17", "1.2"),
        ("2", "1.2"),
        ("TLS", "1.2"),
        ("TLS_SERVER", "1.2"),
        ("TLSv1_2", "1.2"),
        ("TLSv1_3", "1.3"),
    ],
)
def test_versions_of_tls(text: str, value: str) -> None:
    assert encryption.TLS_VERSION.parse(text) == value


@pytest.mark.parametrize("text", ["1.1", "3", "5", "SSLv3", "TLSv1", "TLSv1_1", ""])
def test_old_versions_of_tls_are_refused_with_what_there_is(text: str) -> None:
    with pytest.raises(UnfitError, match=r"expected 1.2 or 1.3, .* \(17 of uvicorn and 2 of gunicorn mean 1.2\)"):
        encryption.TLS_VERSION.parse(text)


@pytest.mark.parametrize("text", ["credential:web", "/run/secret", "./secret", "../secret"])
def test_a_password_may_be_a_place_which_is_shown(text: str) -> None:
    password = encryption.PASSWORD.parse(text)
    assert (password.place, str(password), encryption.PASSWORD.write(password)) == (text, text, text)


def test_a_password_itself_is_shown_nowhere() -> None:
    password = encryption.PASSWORD.parse("hunter2")
    assert (password.place, password.text) == (None, "hunter2")
    for shown in (str(password), repr(password), f"{password}", encryption.PASSWORD.show(password)):
        assert "hunter2" not in shown
    assert encryption.PASSWORD.write(password) == "(hidden)"


def test_paths_are_a_list() -> None:
    assert encryption.CREDENTIALS.parse("/a.pem, credential:b") == ("/a.pem", "credential:b")
    assert encryption.CREDENTIALS.read(["/a.pem", "/b.pem"]) == ("/a.pem", "/b.pem")


def test_a_path_with_a_comma_can_stand_in_an_array() -> None:
    assert encryption.CREDENTIALS.read(["/shop,v2/a.pem", "credential:b"]) == ("/shop,v2/a.pem", "credential:b")
    for nothing in ("", "a\0b"):
        with pytest.raises(UnfitError):
            encryption.CREDENTIALS.read([nothing])


def test_a_password_may_be_a_number() -> None:
    assert encryption.PASSWORD.read(31337).text == "31337"


@pytest.mark.parametrize(
    ("text", "path"), [("a.pem", "/srv/a.pem"), ("../a", "/srv/../a"), ("/a", "/a"), ("credential:a", "credential:a")]
)
def test_paths_are_made_absolute_and_nothing_else_about_them_is_changed(
    text: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/srv")
    assert encryption.anchor(text) == path
