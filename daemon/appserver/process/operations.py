"""What the control socket offers: one table, for a single process and for a master with workers.

Each row is a method, a path and what answers it; a line about each is in the table too, and docs/operations.md has it
for people.
"""

from abc import ABC, abstractmethod
from asyncio import to_thread
from collections.abc import Mapping
from contextvars import Context
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Protocol

from appserver.asgi.control import Answer, RejectedError, Request, Route
from appserver.kinds import nearest
from appserver.process import policy
from appserver.process.inquiry import CONNECTIONS, CONNECTIONS_SHOWN, LOG_LEVEL
from appserver.telemetry.log import LEVELS, Log, change_level, read_level
from appserver.telemetry.metrics import Snapshot

if TYPE_CHECKING:
    from appserver.process.crew import Crew
    from appserver.process.life import Life
    from appserver.process.master import Master
    from appserver.process.spawn import Worker

_NO_PROMETHEUS: Final = (
    "prometheus_client is not installed: apt install python3-prometheus-client, or pip install prometheus_client"
)
_ALONE: Final = "a single process has no workers: run it with --workers"


class Server(Protocol):
    """What is operated: a master, or the life of a single process.

    Attributes:
        state: One of docs/operations.md.
        drained: An operator has said that others should serve requests.
    """

    state: str
    drained: bool

    @property
    def ready(self) -> bool:
        """Requests are served, and should come here."""
        ...

    def report(self) -> dict[str, Any]:
        """What `/status` tells."""
        ...

    def snapshot(self) -> Snapshot:
        """What `/metrics` tells."""
        ...


class Operations(ABC):
    """The rows, and what is the same for both kinds of server.

    Args:
        server: What is operated.
        log: Where it is told.
    """

    def __init__(self, server: Server, log: Log) -> None:
        self._server, self._log = server, log

    @property
    def routes(self) -> tuple[Route, ...]:
        """All that can be asked and ordered."""
        return (
            Route("GET", "/livez", self.live, "200 as long as the event loop turns", probe=True),
            Route("GET", "/readyz", self.readiness, "200 while requests should come here, else 503", probe=True),
            Route("GET", "/status", self.status, "state and figures"),
            Route("GET", "/metrics", self.metrics, "the figures for Prometheus", probe=True),
            Route("GET", "/connections", self.connections, "open connections, the oldest first (?limit=N)"),
            Route("GET", "/log-level", self.log_level, "from which level on the log is written"),
            Route("POST", "/log-level", self.log_level, 'write from another on, until the next reload: {"level": L}'),
            Route("POST", "/drain", self.drain, "/readyz says 503, and requests are answered all the same"),
            Route("POST", "/resume", self.resume, "/readyz says 200 again"),
            Route("POST", "/reload", self.reload, "new workers, with new settings and code, take over"),
            Route("POST", "/upgrade", self.upgrade, "the installed version of appserver takes over, in place"),
            Route("POST", "/restart-worker", self.restart_worker, 'another worker takes the place of one: {"pid": N}'),
        )

    # Questions

    async def live(self, request: Request) -> Answer:  # noqa: ARG002 - as those below
        """Whether the event loop turns."""
        return Answer({"alive": True})

    async def readiness(self, request: Request) -> Answer:  # noqa: ARG002
        """Whether requests should come here."""
        server = self._server
        facts = {"ready": server.ready, "state": server.state, "drained": server.drained}
        return Answer(facts, 200 if server.ready else 503)

    async def status(self, request: Request) -> Answer:  # noqa: ARG002
        """State and figures."""
        return Answer(self._server.report())

    async def metrics(self, request: Request) -> Answer:
        """The figures for Prometheus."""
        try:
            # In a thread: it takes 60 ms the first time, and in a single process applications wait on this event loop.
            prometheus = await to_thread(import_module, "appserver.telemetry.prometheus")
        except ImportError:
            raise RejectedError(501, _NO_PROMETHEUS) from None
        content, kind = prometheus.render(self._server.snapshot(), request.accept)
        return Answer(content, kind=kind)

    async def connections(self, request: Request) -> Answer:
        """Open connections, the oldest first."""
        text = request.words.get("limit", str(CONNECTIONS_SHOWN))
        # int() raises for what has thousands of digits.
        number = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0
        if not 1 <= number <= CONNECTIONS_SHOWN:
            raise RejectedError(400, f"limit: {text!r}: expected a number from 1 to {CONNECTIONS_SHOWN}")
        return Answer(await self._list_connections(number))

    @abstractmethod
    async def _list_connections(self, limit: int) -> Mapping[str, Any]:
        """`connections`, `left_out` and `silent`: workers that have not answered."""

    # Orders

    async def log_level(self, request: Request) -> Answer:
        """From which level on the log is written; another one, if one is named."""
        level = request.words.get("level")
        if level is None:
            return Answer({"level": read_level(self._log)})
        level = level.lower() if isinstance(level, str) else level
        if not isinstance(level, str) or level not in LEVELS:
            hint = nearest(level, LEVELS) if isinstance(level, str) else None
            meant = f"; did you mean {hint}?" if hint else ""
            raise RejectedError(400, f"level: {level!r}: expected one of {', '.join(LEVELS)}{meant}")
        self._log.info(f"The log is written from {level} on")  # before, or it might not be told
        return Answer({"level": level, **await self._change_level(level)})

    @abstractmethod
    async def _change_level(self, level: str) -> Mapping[str, Any]:
        """`silent`, as above."""

    async def drain(self, request: Request) -> Answer:  # noqa: ARG002
        """Have probes send others' requests elsewhere."""
        if not self._server.drained:
            self._server.drained = True
            self._log.warning("Drained by the operator: /readyz says 503; requests are answered", code="drained")
        return Answer({"drained": True})

    async def resume(self, request: Request) -> Answer:  # noqa: ARG002
        """Undo that."""
        if self._server.drained:
            self._server.drained = False
            self._log.info("Resumed by the operator: /readyz says 200", code="resumed")
        return Answer({"drained": False})

    @abstractmethod
    async def reload(self, request: Request) -> Answer:
        """New workers take over."""

    @abstractmethod
    async def upgrade(self, request: Request) -> Answer:
        """The installed version takes over."""

    @abstractmethod
    async def restart_worker(self, request: Request) -> Answer:
        """Another worker takes the place of one."""


class Alone(Operations):
    """Those of a single process."""

    def __init__(self, life: "Life", log: Log) -> None:
        super().__init__(life, log)
        self._witness = life.witness

    async def _list_connections(self, limit: int) -> Mapping[str, Any]:
        return {**self._witness.answer(CONNECTIONS, {"limit": limit}), "silent": []}

    async def _change_level(self, level: str) -> Mapping[str, Any]:
        self._witness.answer(LOG_LEVEL, {"level": level})
        return {"silent": []}

    async def reload(self, request: Request) -> Answer:  # noqa: ARG002
        """There is nobody who could take over."""
        raise RejectedError(409, f"there is no reload: {_ALONE}, or restart it")

    async def upgrade(self, request: Request) -> Answer:  # noqa: ARG002
        """There is nobody who could hold the requests meanwhile."""
        raise RejectedError(409, f"there is no upgrade in place: {_ALONE}, or restart it")

    async def restart_worker(self, request: Request) -> Answer:  # noqa: ARG002
        """There is none."""
        raise RejectedError(409, _ALONE)


class Led(Operations):
    """Those of a master with workers."""

    def __init__(self, master: "Master", crew: "Crew", log: Log) -> None:
        super().__init__(master, log)
        self._master, self._crew = master, crew

    async def _list_connections(self, limit: int) -> Mapping[str, Any]:
        answers, silent = await self._crew.inquiries.ask(self._attentive, CONNECTIONS, limit=limit)
        found = [{"pid": pid, **one} for pid, answer in answers.items() for one in answer.get("connections", ())]
        found.sort(key=lambda one: one["age"], reverse=True)
        left_out = sum(answer.get("left_out", 0) for answer in answers.values()) + max(0, len(found) - limit)
        return {"connections": found[:limit], "left_out": left_out, "silent": silent}

    async def _change_level(self, level: str) -> Mapping[str, Any]:
        change_level(self._log, level)
        for generation in self._crew.generations:
            if generation is self._crew.current or generation.retired:  # not what a reload has begun
                generation.level = level  # for those that are not ready yet
                generation.settings = replace(generation.settings, log_level=level)  # for those that come later
        _, silent = await self._crew.inquiries.ask(self._attentive, LOG_LEVEL, level=level)
        return {"silent": silent}

    @property
    def _attentive(self) -> "list[Worker]":
        """Who can be asked: from when they have served on, whatever has become of them."""
        return [worker for worker in self._crew.workers if policy.SERVING in worker.been]

    async def reload(self, request: Request) -> Answer:  # noqa: ARG002
        """New workers take over, or those from before go on."""
        self._require_service()
        failure = await self._master.reload_for_control()
        if failure is None:
            self._require_service()  # which a stop has ended meanwhile
        return Answer({"reloaded": failure is None, "error": failure}, 200 if failure is None else 500)

    async def upgrade(self, request: Request) -> Answer:  # noqa: ARG002
        """The installed version is about to take over, or nothing has changed. It has to tell the rest itself."""
        self._require_service()
        failure = await self._master.upgrade_for_control()
        if failure is not None:
            self._require_service()  # which a stop has ended meanwhile
        return Answer({"upgrading": failure is None, "error": failure}, 202 if failure is None else 500)

    async def restart_worker(self, request: Request) -> Answer:
        """Another worker starts; when it serves, the named one leaves."""
        crew = self._crew
        worker = self._find(request.words.get("pid"))
        number, generation, before = worker.number, crew.current, {one.pid for one in crew.workers}
        assert generation is not None  # noqa: S101 - its own, says _find()
        misses = generation.misses[number]
        # Not in the context of this request, whose id all records of the successor would have.
        Context().run(crew.succeed, worker, "the operator asks for it", "operator")
        while True:
            # It may come later: a preloader forks it.
            successors = [one for one in generation.workers.values() if one.number == number and one.pid not in before]
            serving = next((one for one in successors if policy.SERVING in one.been), None)
            if serving is not None:
                return Answer({"pid": worker.pid, "successor": serving.pid})
            if worker.state != policy.SERVING:
                what = "the server stops" if crew.stopping else f"meanwhile worker {worker.pid} is {worker.state}"
                raise RejectedError(409, f"the successor is not needed any more: {what}")
            if generation.misses[number] != misses:
                raise RejectedError(500, f"worker {worker.pid} goes on: its successor did not start; it is tried again")
            crew.moved.clear()
            await crew.moved.wait()

    def _require_service(self) -> None:
        if not self._master.serving:
            raise RejectedError(409, f"the server is {self._master.state}")

    def _find(self, pid: object) -> "Worker":
        """The worker that is named, if it can be restarted."""
        if not isinstance(pid, int) or isinstance(pid, bool):
            raise RejectedError(400, f"pid: {pid!r}: expected the process id of a worker")
        workers = {worker.pid: worker for worker in self._crew.workers}
        worker = workers.get(pid)
        if worker is None:
            pids = ", ".join(map(str, workers))
            raise RejectedError(404, f"pid: {pid}: no worker has that process id; there are: {pids}")
        if worker.state != policy.SERVING or worker.succeeded:
            state = "about to be replaced" if worker.succeeded else worker.state
            raise RejectedError(409, f"worker {pid} is {state}")
        if self._crew.current is None or worker.generation != self._crew.current.number:
            raise RejectedError(409, f"worker {pid} is of a reload that has not succeeded yet")
        return worker


def describe_drained(drained: bool) -> str:
    """What STATUS= says of it, before all else."""
    return "Drained by the operator. " if drained else ""
