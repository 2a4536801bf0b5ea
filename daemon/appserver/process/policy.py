"""What becomes of a worker: the supervisor as a table, without processes and without a clock.

    STARTING ──ready──▶ SERVING ──silent──▶ HUNG ──late──▶ KILLED
       │                   │                                  │
       │                   └── retired, or stops by itself ──▶ LEAVING
       └── exits, or is late ──▶ its generation has failed, or it is tried again

    LEAVING ──late──▶ STUCK, where it is asked where it stands, and then killed; STARTING ──late──▶ DOOMED likewise

The crew feeds events and does what the actions say (`process.crew`). A worker that is gone takes no more events.
"""

from typing import Final, NamedTuple

# States of a worker.
STARTING: Final = "starting"
SERVING: Final = "serving"
HUNG: Final = "hung"
LEAVING: Final = "leaving"
STUCK: Final = "stuck"
KILLED: Final = "killed"
DOOMED: Final = "doomed"
GONE: Final = "gone"

# Events.
READY: Final = "ready"
"""It has said READY=1: its application's startup is over, and it accepts."""
STOPS: Final = "stops"
"""It has said STOPPING=1, and was not told to."""
EXITED: Final = "exited"
LATE: Final = "late"
"""The deadline of its state has passed; in SERVING it has not said WATCHDOG=1 for so long."""
RETIRED: Final = "retired"
"""It is not wanted any more: a reload, fewer workers, the end."""

# Actions.
ADMIT: Final = "admit"
"""It counts as serving; its generation may be complete now."""
FAIL: Final = "fail"
"""It has never served: end its generation, or, where others of it serve, try again later."""
REPLACE: Final = "replace"
"""Start another one in its place."""
EXPLAIN: Final = "explain"
"""Have it write down where it stands: its stacks go into the log."""
STOP: Final = "stop"
"""Tell it to leave, once everything is answered."""
KILL: Final = "kill"
NOTHING: Final = "nothing"

TABLE: Final = {
    (STARTING, READY): (ADMIT, SERVING),
    (STARTING, EXITED): (FAIL, GONE),
    (STARTING, LATE): (EXPLAIN, DOOMED),
    (STARTING, RETIRED): (STOP, LEAVING),
    (STARTING, STOPS): (NOTHING, STARTING),
    (SERVING, STOPS): (REPLACE, LEAVING),
    (SERVING, EXITED): (REPLACE, GONE),
    (SERVING, LATE): (EXPLAIN, HUNG),
    (SERVING, RETIRED): (STOP, LEAVING),
    (HUNG, READY): (NOTHING, HUNG),
    (HUNG, STOPS): (NOTHING, HUNG),
    (HUNG, EXITED): (REPLACE, GONE),
    (HUNG, LATE): (KILL, KILLED),
    (HUNG, RETIRED): (NOTHING, STUCK),
    (KILLED, EXITED): (REPLACE, GONE),
    (KILLED, LATE): (KILL, KILLED),
    (KILLED, RETIRED): (NOTHING, STUCK),
    (DOOMED, EXITED): (FAIL, GONE),
    (DOOMED, LATE): (KILL, DOOMED),
    (DOOMED, RETIRED): (NOTHING, LEAVING),
    (LEAVING, EXITED): (NOTHING, GONE),
    (LEAVING, LATE): (EXPLAIN, STUCK),
    (LEAVING, READY): (NOTHING, LEAVING),
    (LEAVING, STOPS): (NOTHING, LEAVING),
    (LEAVING, RETIRED): (NOTHING, LEAVING),
    (STUCK, EXITED): (NOTHING, GONE),
    (STUCK, LATE): (KILL, STUCK),
    (STUCK, READY): (NOTHING, STUCK),
    (STUCK, STOPS): (NOTHING, STUCK),
    (STUCK, RETIRED): (NOTHING, STUCK),
    (SERVING, READY): (NOTHING, SERVING),
    (KILLED, READY): (NOTHING, KILLED),
    (KILLED, STOPS): (NOTHING, KILLED),
    (DOOMED, READY): (NOTHING, DOOMED),
    (DOOMED, STOPS): (NOTHING, DOOMED),
}
"""(state, event) to (action, next state); every pair but those of GONE."""


CAUSES: Final = {
    (SERVING, EXITED): "lost",
    (SERVING, STOPS): "stopped",
    (HUNG, EXITED): "hung",
    (KILLED, EXITED): "hung",
    (STARTING, EXITED): "failed",
    (DOOMED, EXITED): "failed",
}
"""Why another worker takes the place of one, where that was not planned; for the metrics."""


class Patience(NamedTuple):
    """How long a worker may stay in a state, in seconds."""

    start: float
    beat: float
    leave: float
    explain: float = 1.0
    """From being asked for its stacks to its end."""
    die: float = 5.0
    """From SIGKILL to a second one: what waits for a disk that hangs."""

    def of(self, state: str) -> float:
        """The deadline of a state, from when it began; in SERVING from the last beat."""
        known = {STARTING: self.start, SERVING: self.beat, LEAVING: self.leave, KILLED: self.die}
        return known.get(state, self.explain)


SETTLED_SECONDS: Final = 10.0
"""A worker that has lived so long did not fail because of how it began."""

REST_SECONDS: Final = 5.0
"""A worker serves at least so long before it has done enough."""

SOON_SECONDS: Final = 0.02
"""Nobody is replaced sooner. systemd tells all processes of a service to end at once, and on a busy machine the master
may hear of a worker's end a turn before it hears of its own."""

FIRST_DELAY: Final = 0.5
LAST_DELAY: Final = 30.0


def delay(failures: int) -> float:
    """Seconds to wait before the next attempt.

    Args:
        failures: Workers in a row that did not live for `SETTLED_SECONDS`.
    """
    # Bounded before it is a power: after a night of failures that is no number that a float can hold.
    return min(FIRST_DELAY * 2 ** min(failures - 1, 16), LAST_DELAY) if failures else 0.0
