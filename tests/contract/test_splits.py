"""How the bytes were cut on their way changes nothing, and no bytes at all make an engine raise or loop."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appserver.wire.engine import Engine, Limits
from tests.contract.driver import Driver, cut
from tests.contract.mutations import LONG, LOW, NARROW, TELLING, mutated, sent, short_cases
from tests.corpus.cases import CASES, LIMITS, Case
from tests.corpus.responses import parse


@st.composite
def cut_anywhere(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> tuple[bytes, list[bytes]]:
    """Some bytes whole and in pieces; half of the cuts stand beside a line end, where parsers look ahead."""
    data = draw(whole)
    anywhere = st.integers(min_value=0, max_value=len(data))
    beside = [index + side for index, byte in enumerate(data) if byte in b"\r\n" for side in (0, 1)]
    place = anywhere | st.sampled_from(beside) if beside else anywhere
    return data, cut(data, draw(st.lists(place, min_size=1, max_size=12)))


def story(engine: Engine, pieces: list[bytes], *, eof: bool) -> list[object]:
    return Driver(engine).run(pieces, eof=eof).story


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_byte_by_byte(engine: Callable[[Limits], Engine], case: Case) -> None:
    data = sent(case)
    # Of the long ones every byte near both ends, and steps that meet the limits' edges in between.
    edges = (
        range(len(data))
        if len(data) <= LONG
        else [*range(600), *range(600, len(data), 509), *range(len(data) - 60, len(data))]
    )
    assert story(engine(LIMITS), cut(data, edges), eof=case.eof) == story(engine(LIMITS), [data], eof=case.eof)


@pytest.mark.parametrize(
    "name", ["limit-line-at", "limit-field-at", "limit-head-at", "limit-fields-at", "chunk-line-at-limit"]
)
@pytest.mark.parametrize("back", range(6))
def test_a_cut_at_the_limit_does_not_pass_it(engine: Callable[[Limits], Engine], name: str, back: int) -> None:
    # The CR of a line that is exactly as long as it may be is not yet the line end when it arrives alone.
    (case,) = [case for case in CASES if case.name == name]
    (data,) = case.steps
    line_ends = [index for index in range(len(data)) if data[index] == 0x0A]
    pieces = cut(data, [end + 1 - back for end in line_ends])
    assert story(engine(LIMITS), pieces, eof=False) == story(engine(LIMITS), [data], eof=False)


@settings(max_examples=300)
@given(data=cut_anywhere(short_cases.map(sent)), eof=st.booleans())
def test_any_cut_of_a_case(engine: Callable[[Limits], Engine], data: tuple[bytes, list[bytes]], eof: bool) -> None:
    whole, pieces = data
    assert story(engine(LIMITS), pieces, eof=eof) == story(engine(LIMITS), [whole], eof=eof)


@settings(max_examples=500)
@given(data=cut_anywhere(mutated()), limits=st.sampled_from([LIMITS, NARROW, LOW]))
def test_any_cut_of_a_mutated_case(
    engine: Callable[[Limits], Engine], data: tuple[bytes, list[bytes]], limits: Limits
) -> None:
    whole, pieces = data
    in_pieces, at_once = Driver(engine(limits)).run(pieces, eof=True), Driver(engine(limits)).run([whole], eof=True)
    # Of several faults in one message the first to arrive is named, so here the status may differ; nothing else may.
    assert in_pieces.requests_told == at_once.requests_told
    assert (in_pieces.refused is None, in_pieces.closed) == (at_once.refused is None, at_once.closed)


@settings(max_examples=300)
@given(data=st.lists(st.binary(max_size=40) | st.sampled_from(TELLING), max_size=20) | mutated().map(lambda one: [one]))
def test_garbage_neither_raises_nor_loops(engine: Callable[[Limits], Engine], data: list[bytes]) -> None:
    driver = Driver(engine(LIMITS)).run(data, eof=True)
    # Whatever came in, what goes out is HTTP, and the end of the input ends the connection.
    methods = [seen.method for seen in driver.requests if seen.whole]
    responses, rest = parse(driver.output, methods, ended=True)
    assert rest == b""
    assert len([one for one in responses if one.status >= 200]) == len(methods) + (driver.refused is not None)
    assert driver.engine.closing
    assert driver.engine.receive(b"more") == []
