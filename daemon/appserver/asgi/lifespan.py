"""The lifespan protocol (https://asgi.readthedocs.io/en/latest/specs/lifespan.html).

    IDLE ──startup()──▶ STARTING ──complete──▶ RUNNING ──shutdown()──▶ STOPPING ──complete──▶ STOPPED
                            └── failed ──▶ STOPPED (LifespanError)

`auto` has to tell an application without lifespan from one whose startup is broken. The specification says that the
first raises on the scope; so an exception before the application called `receive()` means "unsupported", and one
after it has taken `lifespan.startup` is a failed startup. Others take both for the first and serve a half-started
application.
"""

from asyncio import AbstractEventLoop, CancelledError, Event, Task, current_task
from typing import Any, Final

from appserver.asgi.types import Application, Message
from appserver.errors import LifespanError, MisuseError
from appserver.telemetry.log import Log
from appserver.telemetry.text import show

IDLE: Final = "idle"
STARTING: Final = "starting"
RUNNING: Final = "running"
STOPPING: Final = "stopping"
STOPPED: Final = "stopped"

TRANSITIONS: Final = {
    (STARTING, "lifespan.startup.complete"): RUNNING,
    (STARTING, "lifespan.startup.failed"): STOPPED,
    (STOPPING, "lifespan.shutdown.complete"): STOPPED,
    (STOPPING, "lifespan.shutdown.failed"): STOPPED,
}


class Lifespan:
    """Starts an application and stops it.

    Args:
        application: ASGI 3.
        mode: `auto`, `on` (must be supported) or `off`.
        log: For what the application gets wrong.

    Attributes:
        state: The dict that requests get a copy of.
        supported: What was found out; None before `startup()`.
    """

    def __init__(self, application: Application, mode: str, log: Log) -> None:
        self._application, self._mode, self._log = application, mode, log
        self._phase = IDLE
        self._task: Task[None] | None = None
        self._changed = Event()
        self._stop = Event()
        self._told = self._stop_told = False
        self._failure: str | None = None
        self._error: BaseException | None = None
        self.state: dict[str, Any] = {}
        self.supported: bool | None = None

    async def startup(self, loop: AbstractEventLoop) -> None:
        """Run the application's startup to its end.

        Raises:
            LifespanError: It failed, or lifespan is `on` and not supported.
        """
        if self._mode == "off":
            self.supported = False
            return
        self._phase = STARTING
        self._task = loop.create_task(self._run())
        await self._changed.wait()
        if self._failure is not None:
            raise LifespanError(f"the application's startup failed: {self._failure}") from self._error
        if self._phase == RUNNING:
            self.supported = True
            return
        if self._told or not isinstance(self._error, Exception | None):  # sys.exit() is never meant as "unsupported"
            raised = "" if self._error is None else f": {type(self._error).__name__}: {show(self._error)}"
            raise LifespanError(f"the application's startup failed{raised}") from self._error
        if self._mode == "on":
            raise LifespanError("the application does not support lifespan, and --lifespan is on") from self._error
        self.supported = False

    async def shutdown(self) -> None:
        """Run the application's shutdown to its end; what goes wrong there is logged and changes nothing."""
        if self._task is None or self._phase != RUNNING:
            return
        self._phase = STOPPING
        if not self._task.done():  # else it has returned early, or broken, and sends nothing more
            self._changed.clear()
            self._stop.set()
            await self._changed.wait()
        if self._failure is not None:
            self._log.error(f"The application's shutdown failed: {self._failure}", code="application_failed")
        elif self._error is not None:
            self._log.error("The application's shutdown raised", code="application_failed", exc_info=self._error)

    def cancel(self) -> None:
        """Give up waiting for the application."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            await self._application(scope, self._receive, self._send)
        except BaseException as error:  # noqa: BLE001 - sys.exit() in a startup is a failed startup
            task = current_task()
            if isinstance(error, CancelledError) and task is not None and task.cancelling():
                self._error = error  # a stop that has no time for a shutdown
            elif self._phase == RUNNING:
                # Now, because what it kept running is no more, and the stop may be weeks away.
                self._log.error(
                    "The application's lifespan raised: requests are served on, and no shutdown will run",
                    code="application_failed",
                    exc_info=error,
                )
            else:
                self._error = error
        finally:
            if self._phase in (STARTING, STOPPING):
                self._phase = STOPPED
            self._changed.set()

    async def _receive(self) -> Message:
        if not self._told:
            self._told = True
            return {"type": "lifespan.startup"}
        await self._stop.wait()
        if self._stop_told:
            await Event().wait()  # there is nothing more to tell, and to return would let it spin
        self._stop_told = True
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        kind = message.get("type")
        following = TRANSITIONS.get((self._phase, str(kind)))
        if following is None:
            wanted = " or ".join(name for (phase, name) in TRANSITIONS if phase == self._phase) or "nothing"
            self._log.error(
                f"The application misused ASGI lifespan: expected {wanted}", code="misuse", got=repr(kind)[:200]
            )
            raise MisuseError(f"expected {wanted}, not {kind!r}")
        if str(kind).endswith(".failed"):
            self._failure = str(message.get("message") or "no message given")
        self._phase = following
        self._changed.set()
