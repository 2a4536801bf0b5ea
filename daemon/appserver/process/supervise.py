"""From settings to a master that runs: at the start, and as the next image of one (`process.upgrade`)."""

import asyncio
import os
from collections.abc import Callable, Iterator

from appserver.errors import Exit, ListenError, OperatorError
from appserver.net.listeners import Listener, open_listeners
from appserver.process.doubts import find_doubts
from appserver.process.estate import Estate, EstateError, adopt_listeners, take
from appserver.process.failures import report_failure
from appserver.process.handover import read_settings
from appserver.process.idle import are_inherited, can_leave
from appserver.process.master import Master
from appserver.process.signals import keep_exit_code, tell_crashes
from appserver.settings import Loaded, Settings
from appserver.system.fds import occupy_standard, raise_limit, take_inherited
from appserver.system.image import hold_orders
from appserver.system.notify import Notifier
from appserver.telemetry.log import Log, build


def supervise(loaded: Loaded, resolve: Callable[[], Loaded]) -> Exit:
    """Run workers until told to stop.

    Args:
        loaded: The settings and where they came from.
        resolve: Reads them anew; raises `UsageError`.

    Returns:
        The process's exit code.
    """
    occupy_standard()
    hold_orders()
    tell_crashes()
    keep_exit_code()
    settings = loaded.settings.anchored()
    log, notifier = build(settings.log_level, settings.log_format), Notifier()
    listeners: list[Listener] = []
    try:
        inherited = take_inherited()
        raise_limit()
        listeners = open_listeners(settings, inherited.sockets, log)
        if any(listener.connected for listener in listeners):
            raise ListenError("a connection was handed over (Accept=yes, inetd), and --workers has none to share")
        if inherited.ignored:
            log.warning(inherited.ignored, code="socket_ignored")
        for warning in (*loaded.warnings, *_find_doubts(settings, listeners)):
            log.warning(warning)
        with asyncio.Runner() as runner:
            return runner.run(_live(loaded, resolve, listeners, notifier, log))
    except OperatorError as error:
        return report_failure(error, notifier, log)
    finally:
        for listener in listeners:
            listener.close()


def resume(resolve: Callable[[], Loaded]) -> Exit:
    """Go on where another image of this process has stopped (`process.upgrade`).

    Args:
        resolve: As for `supervise`.

    Returns:
        The process's exit code.
    """
    tell_crashes()
    keep_exit_code()
    notifier = Notifier()
    try:
        estate = take(os.environ)
    except EstateError as error:
        # The lines to the workers end with this process: they answer what they have, and the service begins anew.
        build("info", "auto").critical(f"The upgrade has failed: {error}", code="upgrade_failed")
        notifier.failed(int(error.exit_code), str(error))
        return error.exit_code
    raise_limit()
    listeners = adopt_listeners(estate)
    settings = read_settings(estate.fixed)
    try:
        with asyncio.Runner() as runner:
            log = build(settings.log_level, settings.log_format)
            return runner.run(_live(Loaded(settings, {}, (), {}), resolve, listeners, notifier, log, estate))
    finally:
        for listener in listeners:
            listener.close()


async def _live(
    loaded: Loaded,
    resolve: Callable[[], Loaded],
    listeners: list[Listener],
    notifier: Notifier,
    log: Log,
    estate: Estate | None = None,
) -> Exit:
    return await Master(loaded, resolve, listeners, notifier, log, asyncio.get_running_loop(), estate).run()


def _find_doubts(settings: Settings, listeners: list[Listener]) -> Iterator[str]:
    encrypted = any(listener.tls for listener in listeners)
    return find_doubts(
        settings, encrypted=encrypted, activated=can_leave(listeners), inherited=are_inherited(listeners)
    )
