import pytest

from appserver.wire.http2_frames import (
    BUDGET,
    BUDGET_RATE,
    DATA,
    ENHANCE_YOUR_CALM,
    ERRORS,
    GOAWAY,
    PING,
    PRIORITY,
    RESET_COST,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Budget,
    Violation,
    goaway,
    name_error,
    rst_stream,
    window_update,
)
from tests.conformance.http2 import frames
from tests.conformance.http2.frames import Code


class Clock:
    """Goes when it is told to, and counts who asks."""

    def __init__(self) -> None:
        self.now, self.asked = 1000.0, 0

    def __call__(self) -> float:
        self.asked += 1
        return self.now


def is_spent(budget: Budget) -> bool:
    try:
        budget.spend(1, PING)
    except Violation:
        return True
    return False


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (DATA, "empty DATA"),
        (PING, "PING"),
        (PRIORITY, "PRIORITY"),
        (RST_STREAM, "RST_STREAM"),
        (SETTINGS, "SETTINGS"),
        (GOAWAY, "GOAWAY"),
        (WINDOW_UPDATE, "WINDOW_UPDATE"),
        (0xFA, "extension"),
    ],
)
def test_a_budget_can_be_spent_and_names_what_was_too_much(kind: int, name: str) -> None:
    budget = Budget(Clock())
    for _ in range(BUDGET):
        budget.spend(1, kind)
    with pytest.raises(Violation, match=f"a flood of {name} frames") as violation:
        budget.spend(1, kind)
    assert violation.value.code == ENHANCE_YOUR_CALM


def test_what_costs_more_is_spent_sooner() -> None:
    budget = Budget(Clock())
    for _ in range(BUDGET // RESET_COST):
        budget.spend(RESET_COST, RST_STREAM)
    assert is_spent(budget)


def test_a_budget_comes_back_with_time_and_the_clock_is_asked_only_then() -> None:
    clock = Clock()
    budget = Budget(clock)
    budget.spend(BUDGET, PING)
    assert clock.asked == 1
    clock.now += 2
    for _ in range(2 * BUDGET_RATE):
        budget.spend(1, PING)
    assert clock.asked == 2
    assert is_spent(budget)


def test_whoever_keeps_to_the_rate_may_for_ever() -> None:
    clock = Clock()
    budget = Budget(clock)
    for _ in range(20 * BUDGET):
        budget.spend(1, PING)
        clock.now += 1.02 / BUDGET_RATE
    assert clock.asked > 1


def test_whoever_is_above_the_rate_may_not() -> None:
    clock = Clock()
    budget = Budget(clock)
    with pytest.raises(Violation):
        for _ in range(3 * BUDGET):
            budget.spend(2, SETTINGS)
            clock.now += 1 / BUDGET_RATE


def test_a_long_rest_earns_no_more_than_the_budget() -> None:
    clock = Clock()
    budget = Budget(clock)
    budget.spend(BUDGET, PING)
    clock.now += 1_000_000
    for _ in range(BUDGET + 1):
        budget.spend(1, PING)
    assert is_spent(budget)


def test_what_is_written_earns_and_no_more_than_the_budget() -> None:
    budget = Budget(Clock())
    budget.spend(BUDGET, WINDOW_UPDATE)
    budget.earn(64 * 10)
    budget.spend(10, WINDOW_UPDATE)
    budget.earn(1 << 30)
    budget.spend(BUDGET, WINDOW_UPDATE)
    assert is_spent(budget)


def test_a_download_in_small_windows_is_no_flood() -> None:
    # A client that gives each KiB back, to the stream and to the connection.
    budget = Budget(Clock())
    for _ in range(10 * BUDGET):
        budget.earn(1_024)
        budget.spend(1, WINDOW_UPDATE)
        budget.spend(1, WINDOW_UPDATE)


def test_frames_of_ours_as_bytes() -> None:
    assert goaway(5, Code.ENHANCE_YOUR_CALM) == frames.goaway(Code.ENHANCE_YOUR_CALM, last=5)
    assert rst_stream(7, Code.STREAM_CLOSED) == frames.rst_stream(7, Code.STREAM_CLOSED)
    assert window_update(16_384) == frames.window_update(0, 16_384)


def test_errors_have_the_names_of_the_rfc() -> None:
    assert tuple(code.name for code in Code) == ERRORS
    names = [name_error(code) for code in (0, 0xD, 0xE, 0xFFFF_FFFF)]
    assert names == ["NO_ERROR", "HTTP_1_1_REQUIRED", "error 0xe", "error 0xffffffff"]
