"""Every case of the corpus, straight against every engine."""

import re
from collections.abc import Callable

import pytest

from appserver.wire.engine import Engine, Limits
from tests.contract.driver import Driver
from tests.corpus.cases import CASES, LIMITS, Case
from tests.corpus.responses import parse


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


def test_case(engine: Callable[[Limits], Engine], case: Case) -> None:
    driver = Driver(engine(LIMITS)).run(case.steps, eof=case.eof)

    assert [(seen.method, seen.target) for seen in driver.requests] == [
        (expected.method, expected.target) for expected in case.requests
    ]
    for seen, expected in zip(driver.requests, case.requests, strict=True):
        assert seen.whole == expected.whole
        assert not expected.whole or seen.body == expected.body
        assert expected.version in (None, seen.version)
        assert expected.headers is None or tuple(seen.headers) == expected.headers
        assert expected.expects in (None, seen.expects)

    assert (driver.refused is not None) == bool(case.refused)
    if driver.refused is not None:
        assert driver.refused.status in case.refused
        assert re.search(case.reason or "", driver.refused.reason)
    assert case.closes in (None, driver.engine.closing)
    assert driver.closed == (case.eof and not case.refused)


def test_the_answers_read_as_http(engine: Callable[[Limits], Engine], case: Case) -> None:
    driver = Driver(engine(LIMITS)).run(case.steps, eof=case.eof)

    responses, rest = parse(
        driver.output, [seen.method for seen in driver.requests if seen.whole], ended=driver.engine.closing
    )
    asked = 100 in set().union(*case.statuses)
    statuses = [response.status for response in responses if asked or response.status >= 200]
    assert len(statuses) == len(case.statuses)
    assert all(status in right for status, right in zip(statuses, case.statuses, strict=True))
    assert rest == b""


@pytest.mark.parametrize(
    ("limits", "status"),
    [
        (Limits(request_line=15), 414),
        (Limits(field=16), 431),
        (Limits(fields=1), 431),
        (Limits(head=60), 431),
        (Limits(body=4), 413),
    ],
    ids=["request_line", "field", "fields", "head", "body"],
)
def test_each_limit_binds_alone(engine: Callable[[Limits], Engine], limits: Limits, status: int) -> None:
    head = b"POST /in HTTP/1.1\r\nHost: a.example.org\r\nContent-Length: 5\r\n\r\nhello"
    assert Driver(engine(Limits())).run([head]).requests[0].whole
    refused = Driver(engine(limits)).run([head]).refused
    assert refused is not None
    assert refused.status == status


def test_the_corpus_is_whole() -> None:
    # A case that no longer parses would fail at import; a folder that is not found would leave nothing to test.
    assert len(CASES) >= 300
    assert len({(case.steps, case.eof) for case in CASES}) == len(CASES), "two cases send the same bytes"
