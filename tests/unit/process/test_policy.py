"""The table of what becomes of a worker: walked in all its states with all its events."""

from itertools import pairwise

import pytest

from appserver.process import policy
from appserver.process.policy import (
    ADMIT,
    DOOMED,
    EXITED,
    EXPLAIN,
    FAIL,
    GONE,
    HUNG,
    KILL,
    KILLED,
    LATE,
    LEAVING,
    NOTHING,
    READY,
    REPLACE,
    RETIRED,
    SERVING,
    STARTING,
    STOP,
    STOPS,
    STUCK,
    TABLE,
    Patience,
    delay,
)

STATES = (STARTING, SERVING, HUNG, LEAVING, KILLED, DOOMED, STUCK)
EVENTS = (READY, STOPS, EXITED, LATE, RETIRED)
ACTIONS = (ADMIT, FAIL, REPLACE, EXPLAIN, STOP, KILL, NOTHING)


def walk(*events: str) -> list[tuple[str, str]]:
    """The actions and states that a new worker goes through."""
    state, steps = STARTING, []
    for event in events:
        action, state = TABLE[state, event]
        steps.append((action, state))
    return steps


def test_every_state_but_gone_has_every_event() -> None:
    assert set(TABLE) == {(state, event) for state in STATES for event in EVENTS}


def test_nothing_but_known_states_and_actions_follows() -> None:
    assert {state for _, state in TABLE.values()} == {*STATES, GONE}
    assert {action for action, _ in TABLE.values()} == set(ACTIONS)


def test_gone_alone_is_final_and_only_the_end_of_the_process_leads_there() -> None:
    assert {event for (_, event), (_, following) in TABLE.items() if following == GONE} == {EXITED}
    assert all(TABLE[state, EXITED][1] == GONE for state in STATES)


@pytest.mark.parametrize("state", STATES)
def test_a_worker_that_does_nothing_more_is_killed_in_the_end(state: str) -> None:
    actions = []
    for _ in range(3):
        action, state = TABLE[state, LATE]
        actions.append(action)
    assert actions[-1] == KILL


@pytest.mark.parametrize("state", STATES)
def test_a_worker_that_is_retired_is_not_replaced(state: str) -> None:
    _, state = TABLE[state, RETIRED]
    for event in (READY, STOPS, LATE, RETIRED, EXITED):
        action, state = TABLE[state, event]
        assert action in (NOTHING, EXPLAIN, KILL)
    assert state == GONE


@pytest.mark.parametrize("state", STATES)
def test_a_worker_that_served_is_replaced_once_whatever_happens(state: str) -> None:
    for first in EVENTS:
        if first == RETIRED:
            continue
        steps, now = [], state
        for event in (first, LATE, EXITED):
            if now != GONE:
                action, now = TABLE[now, event]
                steps.append(action)
        replaced = steps.count(REPLACE) + steps.count(FAIL)
        # Whoever leaves has been replaced, or is not wanted.
        assert replaced == (0 if state in (LEAVING, STUCK) else 1), (first, steps)


def test_a_good_life() -> None:
    assert walk(READY, RETIRED, STOPS, EXITED) == [
        (ADMIT, SERVING),
        (STOP, LEAVING),
        (NOTHING, LEAVING),
        (NOTHING, GONE),
    ]


def test_a_worker_that_hangs_is_asked_where_it_stands_and_then_killed() -> None:
    assert walk(READY, LATE, LATE, EXITED) == [(ADMIT, SERVING), (EXPLAIN, HUNG), (KILL, KILLED), (REPLACE, GONE)]


def test_a_worker_that_hangs_while_it_leaves_is_asked_where_it_stands_as_well() -> None:
    assert walk(READY, RETIRED, LATE, LATE, EXITED)[2:] == [(EXPLAIN, STUCK), (KILL, STUCK), (NOTHING, GONE)]


def test_a_worker_that_is_late_to_start_is_asked_where_it_stands_and_fails_its_generation() -> None:
    assert walk(LATE, LATE, EXITED) == [(EXPLAIN, DOOMED), (KILL, DOOMED), (FAIL, GONE)]


def test_a_worker_that_ends_by_itself_is_replaced_before_it_has_gone() -> None:
    assert walk(READY, STOPS, EXITED) == [(ADMIT, SERVING), (REPLACE, LEAVING), (NOTHING, GONE)]


def test_each_state_has_a_deadline() -> None:
    patience = Patience(start=60, beat=30, leave=40, explain=1, die=5)
    assert [patience.of(state) for state in STATES] == [60, 30, 1, 40, 5, 1, 1]


def test_the_delay_doubles_from_half_a_second_to_half_a_minute() -> None:
    delays = [delay(failures) for failures in range(12)]
    assert delays[:4] == [0, 0.5, 1, 2]
    assert all(one <= other for one, other in pairwise(delays))
    assert delays[-1] == policy.LAST_DELAY == 30
    # Days of failures are no number too large.
    assert delay(100_000) == policy.LAST_DELAY
