import asyncio
from contextvars import copy_context
from typing import Any

import pytest

from appserver.net import turn as turn_module
from appserver.net.turn import Turn


class Member:
    """Stands where a connection does, and writes down what is asked of it."""

    def __init__(self, name: str, turn: Turn, told: list[str], *, fails: bool = False) -> None:
        self.name, self.turn, self.told, self.fails = name, turn, told, fails

    def run(self, cycle: Any) -> None:
        self.told.append(f"run {self.name}")
        if self.fails:
            raise ValueError(self.name)
        if cycle:
            self.turn.end(self)  # type: ignore[arg-type]

    def conclude(self) -> None:
        self.told.append(f"conclude {self.name}")

    def crash(self, error: Exception) -> None:
        self.told.append(f"crash {error}")


def play(moves: list[tuple[str, bool, bool]]) -> list[str]:
    """Begin requests, each with: whether its application ends at once, whether it fails."""
    told: list[str] = []

    async def main() -> None:
        turn = Turn(asyncio.get_running_loop(), copy_context())
        for name, ends, fails in moves:
            turn.begin(Member(name, turn, told, fails=fails), ends)  # type: ignore[arg-type]
        told.append("read")
        await asyncio.sleep(0)
        turn.end(Member("late", turn, told))  # type: ignore[arg-type]
        await asyncio.sleep(0)

    asyncio.run(main())
    return told


def test_all_is_read_before_anything_runs_and_all_has_run_before_anything_is_written() -> None:
    told = play([("a", True, False), ("b", False, False), ("c", True, False)])
    assert told == ["read", "run a", "run b", "run c", "conclude a", "conclude c", "conclude late"]


@pytest.mark.parametrize("at", range(3))
def test_a_fault_in_one_ends_that_one_and_keeps_no_other_waiting(at: int) -> None:
    told = play([(name, True, index == at) for index, name in enumerate("abc")])
    good = [name for index, name in enumerate("abc") if index != at]
    assert [one for one in told if one.startswith("run")] == ["run a", "run b", "run c"]
    assert [one for one in told if one.startswith("crash")] == [f"crash {'abc'[at]}"]
    assert [one for one in told if one.startswith("conclude")] == [
        *(f"conclude {name}" for name in good),
        "conclude late",
    ]


def test_answers_do_not_wait_for_applications_that_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn_module, "RUN_SECONDS", 0.0)
    told = play([("a", True, False), ("b", True, False)])
    assert told == ["read", "run a", "conclude a", "run b", "conclude b", "conclude late"]
