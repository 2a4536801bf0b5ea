"""The budgets' own tools: a check that cannot fail would be worse than none."""

from pathlib import Path
from types import ModuleType

import pytest

from tests.budgets import ledger, measure
from tests.budgets.census import Census
from tests.budgets.measure import Measure

SOURCE = """
def outer(items):
    inner()
    inner()
    total = 0
    for item in numbers():
        total += len(items)
    return sorted(items, key=str.lower)

def inner():
    return isinstance(1, int)

def numbers():
    yield 1
    yield 2
"""


@pytest.fixture
def package(tmp_path: Path) -> ModuleType:
    """A package of one module, so that all that it does is known."""
    path = tmp_path / "counted.py"
    module = ModuleType("counted")
    exec(compile(SOURCE, path, "exec"), module.__dict__)
    return module


def test_every_entry_and_every_call_to_the_outside_is_counted(tmp_path: Path, package: ModuleType) -> None:
    for _ in range(2):  # places that were switched off in one census are counted in the next
        with Census(tmp_path) as census:
            package.outer(["a", "b"])
        # The generator is entered once and resumed twice; str.lower() is called by sorted(), and not by the package.
        assert census.entered == {"outer": 1, "inner": 2, "numbers": 3}
        assert census.called == {"isinstance()": 2, "len()": 2, "sorted()": 1}
        assert census.total == 11


def test_what_is_called_elsewhere_is_not_counted(tmp_path: Path, package: ModuleType) -> None:
    with Census(tmp_path / "elsewhere") as census:
        package.outer(["a"])
    assert census.total == 0


TAKEN = Measure("hello", 105, {"len()": 60, "HttpCycle.send": 45})


@pytest.mark.parametrize("budget", [105, 110])
def test_within_the_budget_nothing_is_said(budget: float) -> None:
    assert ledger.judge("calls", TAKEN, budget) is None


def test_above_the_budget_the_parts_are_told() -> None:
    told = ledger.judge("calls", TAKEN, 104)
    assert told is not None
    assert "hello: 105, and the budget is 104" in told
    assert "60 len()" in told
    assert "45 HttpCycle.send" in told


def test_far_below_the_budget_it_is_to_be_lowered() -> None:
    told = ledger.judge("calls", TAKEN, 111)
    assert told is not None
    assert "hello: 105. Lower the budget of 111" in told


def test_nothing_may_come_of_a_budget_of_nothing() -> None:
    assert ledger.judge("memory", Measure("kept", 0), 0) is None
    assert ledger.judge("memory", Measure("kept", 0.1), 0) is not None


def test_memory_has_two_percent_of_slack() -> None:
    assert ledger.judge("memory", Measure("held", 102), 100) is None
    assert ledger.judge("memory", Measure("held", 103), 100) is not None


def test_a_written_table_replaces_its_own_and_no_other() -> None:
    text = '# head\n\n[calls."3.11"]\n"a" = 1 # [x]\n\n[calls."3.13"]\n"a" = 2\n\n[memory."3.13"]\n"b" = 3\n'
    written = ledger.replace_table(text, '[calls."3.13"]', '[calls."3.13"]\n"a" = 4\n')
    assert written == text.replace('"a" = 2', '"a" = 4')
    assert ledger.replace_table(written, '[calls."3.13"]', '[calls."3.13"]\n"a" = 2\n') == text


def test_a_first_table_follows_the_head() -> None:
    assert ledger.replace_table("# head\n", '[calls."3.13"]', '[calls."3.13"]\n') == '# head\n\n[calls."3.13"]\n'


def test_measures_pass_from_one_process_to_another() -> None:
    taken = [Measure("hello", 105, {"len()": 60.5}, (105, 105)), Measure("kept", 0)]
    assert measure.load(measure.dump(taken)) == taken
