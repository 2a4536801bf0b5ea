"""What is answered before the application, on real listeners: the redirect to HTTPS, and HSTS."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from tests.certificates import Issuer
from tests.integration.servers import PATIENCE, Server, Starter

HSTS = "strict-transport-security"


class Site(NamedTuple):
    """One server with a listener of each kind."""

    server: Server
    plain: httpx.URL
    encrypted: httpx.URL
    client: httpx.Client


@pytest.fixture
def site(serve: Starter, tmp_path: Path) -> Iterator[Site]:
    issuer = Issuer()
    server = serve(
        *("behaviour:app", "-b", "127.0.0.1:0", "-b", "127.0.0.1:0?tls=off", "--https-redirect"),
        *("--hsts", "365d; includeSubDomains", *issuer.issue(tmp_path / "site.pem", "127.0.0.1").arguments),
        bind=False,
        tracebacks=True,
    )
    urls = {url.partition(":")[0]: httpx.URL(url) for url in server.listeners}
    with httpx.Client(verify=issuer.client(), timeout=PATIENCE, trust_env=False) as client:
        yield Site(server, urls["http"], urls["https"], client)


def test_plain_http_ends_at_the_same_resource_under_https(site: Site) -> None:
    target = "/whoami?a=%2F&b=c%20d"
    redirect = site.client.post(site.plain.join(target), content=b"order")
    assert redirect.status_code == 308
    assert redirect.headers["location"] == str(site.encrypted.join(target))
    assert site.client.get(site.plain.join(target), follow_redirects=True).status_code == 200
    # What the server answers is in the access log as what the application answers.
    assert site.server.record(http_target=target, http_method="POST")["http_status"] == 308


def test_hsts_is_in_every_response_over_tls_and_in_no_other(site: Site) -> None:
    policy = "max-age=31536000; includeSubDomains"
    assert site.client.get(site.encrypted).headers.get_list(HSTS) == [policy]
    assert site.client.get(site.encrypted.join("/fail")).status_code == 500
    assert site.client.get(site.encrypted.join("/fail")).headers.get_list(HSTS) == [policy]
    assert site.client.get(site.encrypted, headers={"a": "b" * 9000}).headers.get_list(HSTS) == [policy]
    assert HSTS not in site.client.get(site.plain).headers


def test_the_operators_own_field_takes_the_place_of_hsts(serve: Starter, tmp_path: Path) -> None:
    issuer = Issuer()
    server = serve(
        *("behaviour:app", "--hsts", "300", "--header", "Strict-Transport-Security: max-age=1"),
        *issuer.issue(tmp_path / "site.pem", "127.0.0.1").arguments,
    )
    answer = httpx.get(server.url, verify=issuer.client(), timeout=PATIENCE, trust_env=False)
    assert answer.headers.get_list(HSTS) == ["max-age=1"]


def test_behind_a_proxy_that_ends_tls_the_scheme_is_what_the_proxy_says(serve: Starter) -> None:
    server = serve("behaviour:app", "--https-redirect")
    with server.browser() as browser:
        told = {"host": "shop.example", "x-forwarded-proto": "https"}
        assert browser.get("/", headers=told).text == "hello"
        redirect = browser.get("/a?b", headers=told | {"x-forwarded-proto": "http"})
    assert (redirect.status_code, redirect.headers["location"]) == (308, "https://shop.example/a?b")
