"""What the log tells of a worker that has ended and was not told to, or not in this way."""

from appserver.process.blocker import find_blocker, find_place, read_stack
from appserver.process.policy import DOOMED, HUNG, KILLED, SERVING, STARTING, STUCK
from appserver.process.spawn import Worker
from appserver.telemetry.log import Log


def report_loss(worker: Worker, state: str, stacks: str, timeout: float, log: Log) -> None:
    """Tell of it; nothing is told of one that has left as it should.

    Args:
        worker: It has been reaped.
        state: In which it ended.
        stacks: What it has written of them, if it was asked to.
        timeout: Seconds after which its event loop was taken to stand still.
        log: Where that goes.
    """
    if state == SERVING:
        log.error(
            f"Worker {worker.pid} {worker.ending}; another takes its place", code="worker_lost", worker_pid=worker.pid
        )
    elif state in (HUNG, KILLED) or (state == STUCK and worker.exit_code is not None and worker.exit_code < 0):
        blocker = find_blocker(stacks)
        where = f": it stands at {blocker}" if blocker else ""
        why = f"its event loop did not turn for {timeout:g} s" if HUNG in worker.been else "it did not leave"
        log.error(
            f"Worker {worker.pid} was {'killed' if state == STUCK else 'replaced'}, {why}{where}",
            code="worker_hung",
            worker_pid=worker.pid,
            stacks=stacks,
        )
    elif state in (STARTING, DOOMED):
        place = find_place(read_stack(stacks))
        where = f", and stood at {place}" if place else ""
        log.error(
            f"Worker {worker.pid} {worker.ending}: it was not ready{where}",
            code="worker_failed",
            worker_pid=worker.pid,
            stacks=stacks or None,
        )
