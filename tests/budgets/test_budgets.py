"""Counts that do not depend on the machine's mood, against budgets.toml: a regression fails without a stopwatch."""

import shutil
from collections.abc import Callable
from functools import cache

import pytest

from tests.budgets import ledger
from tests.budgets.measure import Measure

ENTRIES = [(kind, name) for kind, (names, _) in ledger.PROBES.items() for name in names()]
CALLS = [name for kind, name in ENTRIES if kind == "calls"]

pytestmark = pytest.mark.skipif(
    not ledger.read("calls"), reason=f"no budgets for Python {ledger.PYTHON}: {ledger.COMMAND}"
)

Take = Callable[..., dict[str, Measure]]


@pytest.fixture(scope="module")
def take() -> Take:
    """Every probe runs once, when the first of its measures is asked for."""

    @cache
    def attempt(kind: str, seed: int) -> dict[str, Measure] | RuntimeError:
        try:
            return {measure.name: measure for measure in ledger.take(kind, seed)}
        except RuntimeError as error:
            return error

    def take(kind: str, seed: int = 0) -> dict[str, Measure]:
        if kind == "syscalls" and shutil.which("strace") is None:
            pytest.skip("strace is not installed")
        taken = attempt(kind, seed)
        if isinstance(taken, RuntimeError):
            pytest.fail(str(taken), pytrace=False)
        return taken

    return take


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_it_is_within_its_budget(take: Take, kind: str, name: str) -> None:
    budget = ledger.read(kind).get(name)
    taken = take(kind)[name]
    assert budget is not None, f"{kind}, {name}: {taken.amount:g}, and no budget: {ledger.COMMAND}"
    wrong = ledger.judge(kind, taken, budget)
    if wrong:
        pytest.fail(wrong, pytrace=False)


@pytest.mark.parametrize("kind", ledger.PROBES)
def test_every_budget_is_of_something_that_is_measured(kind: str) -> None:
    names, _ = ledger.PROBES[kind]
    assert sorted(ledger.read(kind)) == sorted(names())


@pytest.mark.parametrize("name", CALLS)
def test_calls_are_the_same_each_time_and_in_each_process(take: Take, name: str) -> None:
    first, second = take("calls")[name], take("calls", seed=1)[name]
    assert (first.amount, first.parts) == (second.amount, second.parts)
    # What is made anew each second, such as a log line's time, is in one of them if its second begins there.
    for measure in (first, second):
        assert measure.readings.count(measure.amount) >= len(measure.readings) - 1, measure.readings
