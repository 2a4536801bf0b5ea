import asyncio
from typing import Any

import pytest

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
        if self.fails:
            raise ValueError(self.name)


def play(moves: list[tuple[str, bool, bool]]) -> tuple[list[str], list[BaseException]]:
    """Begin requests, each with: whether its application ends at once, whether it fails."""
    told: list[str] = []
    faults: list[BaseException] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: faults.append(context["exception"]))
        turn = Turn(loop)
        for name, ends, fails in moves:
            turn.begin(Member(name, turn, told, fails=fails), ends)  # type: ignore[arg-type]
        told.append("read")
        for _ in range(len(moves) + 3):
            await asyncio.sleep(0)
        late = Member("late", turn, told)
        turn.end(late)  # type: ignore[arg-type]
        await asyncio.sleep(0)

    asyncio.run(main())
    return told, faults


def test_all_is_read_before_anything_runs_and_all_has_run_before_anything_is_written() -> None:
    told, faults = play([("a", True, False), ("b", False, False), ("c", True, False)])
    assert told == ["read", "run a", "run b", "run c", "conclude a", "conclude c", "conclude late"]
    assert not faults


@pytest.mark.parametrize("at", range(3))
def test_a_fault_in_one_keeps_no_other_waiting(at: int) -> None:
    told, faults = play([(name, True, index == at) for index, name in enumerate("abc")])
    assert [one for one in told if one.startswith("run")] == ["run a", "run b", "run c"]
    assert [one for one in told if one.startswith("conclude")] == [
        *(f"conclude {name}" for index, name in enumerate("abc") if index != at),
        "conclude late",
    ]
    assert [str(fault) for fault in faults] == ["abc"[at]]
