"""Two engines agree: the same bytes give the same events, the same bytes back, the same reason."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appserver.wire.engine import Engine, Limits
from appserver.wire.select import MakeEngine, pick
from tests.contract.driver import Driver
from tests.contract.mutations import LOW, NARROW, TELLING, mutated, sent
from tests.corpus.cases import CASES, LIMITS, Case

# Fields that servers and their parsers have opinions of, right and wrong.
FIELDS = [
    b"Host: a",
    b"Host: b:80",
    b"Host: a/b",
    b"Content-Length: 3",
    b"Content-Length: 03",
    b"Content-Length: 3, 3",
    b"Content-Length: +3",
    b"Content-Length: 18446744073709551619",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: xchunked",
    b"Content-Type: text/plain",
    b"Connection: close",
    b"Connection: keep-alive, Upgrade",
    b"Upgrade: h2c",
    b"Expect: 100-continue",
    b"Expect: more",
    b"Cookie: a=b; c=\xe4",
    b"X-Empty:",
    b"X-Tabs:\t a\tb \t",
    b"X_Under: 1",
    b"X : 1",
    b": 1",
    b" folded",
    b"no colon",
    b"X: \x01",
    b"X: \x7f",
]
LINES = [
    b"%b %b HTTP/%b" % (method, target, version)
    for method in (b"GET", b"POST", b"get", b"OPTIONS", b"CONNECT", b"M-SEARCH", b"G@T", b"A" * 40)
    for target in (b"/", b"/a%20b?c", b"*", b"http://b/x", b"b:80", b"/\xe4", b"/a#b", b"/a b", b"")
    for version in (b"1.1", b"1.0", b"1.2", b"2.0", b"0.9", b"1.1 ", b"11")
]


def told(engine: Engine, data: bytes) -> list[object]:
    driver = Driver(engine).run([data], eof=True)
    return [*driver.story, driver.output]  # in which this driver puts the reason for a refusal


def agree(engine: MakeEngine, limits: Limits, data: bytes) -> None:
    assert told(engine(limits), data) == told(pick("h11")(limits), data)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_on_the_corpus(engine: MakeEngine, case: Case) -> None:
    agree(engine, LIMITS, sent(case))


@settings(max_examples=500)
@given(data=mutated(), limits=st.sampled_from([LIMITS, NARROW, LOW]))
def test_on_changed_cases(engine: MakeEngine, data: bytes, limits: Limits) -> None:
    agree(engine, limits, data)


@settings(max_examples=500)
@given(
    line=st.sampled_from(LINES),
    fields=st.lists(st.sampled_from(FIELDS), max_size=5),
    ends=st.lists(st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r\r\n"]), min_size=7, max_size=7),
    body=st.sampled_from([b"", b"abc", b"3\r\nabc\r\n0\r\n\r\n", *TELLING]),
)
def test_on_heads_of_parts(
    engine: MakeEngine, line: bytes, fields: list[bytes], ends: list[bytes], body: bytes
) -> None:
    head = b"".join(part + end for part, end in zip([line, *fields, b""], ends, strict=False))
    agree(engine, LIMITS, head + body)


@pytest.mark.parametrize("count", [99, 100, 101, 255, 256, 257, 300])
def test_on_many_fields(engine: MakeEngine, count: int) -> None:
    # The native parser has places for 256.
    head = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X-%d: y\r\n" % number for number in range(count - 1)) + b"\r\n"
    agree(engine, LIMITS, head)
    agree(engine, Limits(fields=count), head)
    assert Driver(engine(Limits(fields=count))).run([head]).refused is None
