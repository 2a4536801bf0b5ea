"""One serving process, from its settings to its exit code."""

import asyncio
import faulthandler
import os
import signal
import sys
import threading
from asyncio import AbstractEventLoop
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from fcntl import F_GETFL, F_SETFL, F_SETOWN, fcntl
from functools import partial
from socket import socket
from time import sleep
from typing import TYPE_CHECKING, Any, Final

from appserver.asgi.control import make_control
from appserver.asgi.edge import wrap
from appserver.asgi.forwarded import Trust
from appserver.asgi.lifespan import Lifespan
from appserver.asgi.loader import load
from appserver.asgi.service import Service
from appserver.asgi.types import Application
from appserver.errors import (
    ApplicationError,
    AppserverError,
    CertificateError,
    CredentialError,
    Exit,
    ListenError,
    OperatorError,
    UsageError,
)
from appserver.net.listeners import Listener, open_listeners
from appserver.process.doubts import find_doubts
from appserver.process.endpoints import find_https_port, make_connections, make_websockets
from appserver.process.handover import Handover
from appserver.process.idle import can_leave
from appserver.process.life import CANCEL_SECONDS, STOPS, Life
from appserver.process.metering import make_statsd
from appserver.process.operations import Alone
from appserver.process.relief import Relief
from appserver.settings import Loaded, Settings
from appserver.system.fds import occupy_standard, raise_limit, read_limit, take_inherited
from appserver.system.image import release_signals
from appserver.system.notify import Notifier
from appserver.system.pressure import take_variables
from appserver.telemetry.access import AccessLog
from appserver.telemetry.log import Log, build, capture_stdlib
from appserver.wire.engine import Limits
from appserver.wire.select import pick, pick_http2

if TYPE_CHECKING:
    from appserver.net.renewal import Certificates

LEAVE_SECONDS: Final = 5.0
"""What threads and exit handlers of the application get once everything is answered."""

EXPLAIN_SIGNAL: Final = signal.SIGRTMIN + 3
"""Has a worker write the stacks of its threads to the file that its master reads; no signal that applications use."""

IGNORED: Final[dict[int, str]] = {
    signal.SIGHUP: "SIGHUP ignored: a single process has no reload; restart it (a socket unit loses no request)",
    signal.SIGUSR2: "SIGUSR2 ignored: a single process is not upgraded in place; restart it, or use --workers",
}
"""What is for a master alone, and what a single process says to it."""

_FAILURES: Final[dict[type[AppserverError], str]] = {
    ListenError: "listen_failed",
    CertificateError: "certificate_failed",
    CredentialError: "certificate_failed",
}


class StoppedEarly(BaseException):
    """SIGTERM or SIGINT while the application is imported; not an Exception, so that no import swallows it."""


def serve(loaded: Loaded) -> Exit:
    """Serve until told to stop.

    What goes wrong on the way there is in the log, in STATUS= and in the exit code.

    Args:
        loaded: The settings and where they came from.

    Returns:
        The process's exit code.
    """
    occupy_standard()
    notifier = Notifier()
    settings = loaded.settings.anchored()
    log = build(settings.log_level, settings.log_format)
    listeners: list[Listener] = []
    try:
        # The first act, before anything opens a descriptor or starts a process that would inherit one, and before the
        # first record: under inetd stderr is the client's connection until it has been adopted.
        inherited = take_inherited()
        stop_early()
        ignore_orders(log)
        raise_limit()
        listeners = open_listeners(settings, inherited.sockets, log)
        if inherited.ignored:
            log.warning(inherited.ignored, code="socket_ignored")
        code = _serve(settings, listeners, notifier, log, loaded.warnings)
    except StoppedEarly:
        code = end_early(log)
    except (OperatorError, ApplicationError) as error:
        code = report_failure(error, notifier, log)
    finally:
        for listener in listeners:
            listener.close()
    leave(code)
    return code


def serve_for_master(handover: Handover, application: Any = None, log: Log | None = None) -> Exit:
    """Serve as one of several workers.

    Args:
        handover: What the master hands over.
        application: What a preloader has imported; None to import it here.
        log: Where events went while that was done.

    Returns:
        The process's exit code.
    """
    settings = handover.settings
    notifier = Notifier(handover.line, settings.timeout_worker)
    log = log or build(settings.log_level, settings.log_format)
    try:
        stop_early()
        if application is None:
            ignore_orders(None)  # else the preloader has, and the application may have a use for SIGUSR2 by now
        ignore_resize()
        release_signals()
        end_with_master(handover.line, wanted=True)
        faulthandler.register(EXPLAIN_SIGNAL, file=handover.stacks, all_threads=True)
        code = _serve(settings, list(handover.listeners), notifier, log, (), handover.line, application)
    except StoppedEarly:
        code = end_early(log)
    except (OperatorError, ApplicationError) as error:
        code = error.exit_code
        if handover.take_voice():
            report_failure(error, notifier, log)
    leave(code)
    return code


def _serve(
    settings: Settings,
    listeners: list[Listener],
    notifier: Notifier,
    log: Log,
    warnings: Iterable[str],
    line: socket | None = None,
    application: Any = None,
) -> Exit:
    certificates = load_certificates(settings, listeners, log)
    if line is None:  # else it is the master's to tell, once
        for warning in (
            *warnings,
            *find_doubts(settings, encrypted=certificates is not None, activated=can_leave(listeners)),
        ):
            log.warning(warning)
    relief = Relief(log, take_variables(os.environ))
    if application is None:
        application = import_application(settings, notifier, log)
    return _run(settings, application, listeners, certificates, notifier, log, relief, line)


def import_application(settings: Settings, notifier: Notifier, log: Log) -> Application:
    """Import the application; what it logs, warns of and crashes of on the way is in the log.

    Raises:
        LoadError: It cannot be imported.
    """
    tell_crashes()
    capture_stdlib(log)
    notifier.status(f"Starting: importing {settings.app}")
    log.debug("Starting", code="started", application=settings.app)
    return load(settings.app, settings.app_dir, settings.factory)


def tell_crashes() -> None:
    """Have a crash write its stacks.

    systemd's watchdog ends what hangs with SIGABRT: they are in the journal then.
    """
    if sys.stderr is not None:
        faulthandler.enable()


def end_early(log: Log) -> Exit:
    """Tell of a stop before anything was served."""
    log.info("Stopped before the application had started", code="stopped", requests_cut=0)
    return Exit.OK


def report_failure(error: OperatorError | ApplicationError, notifier: Notifier, log: Log) -> Exit:
    """Tell why nothing is served, in the log and to the service manager; the exit code that belongs to it."""
    blamed = isinstance(error, ApplicationError)
    event = "application_failed" if blamed else _FAILURES.get(type(error))
    log.critical(str(error), code=event, exc_info=error.__cause__ if blamed else None)
    notifier.failed(int(error.exit_code), str(error))
    return error.exit_code


def stop_early() -> None:
    """Make SIGTERM and SIGINT end the process cleanly while there is no event loop to take them.

    Without a handler a process with PID 1, in a container, ignores SIGTERM altogether.
    """

    def stop(*_: object) -> None:
        raise StoppedEarly

    for number in STOPS:
        signal.signal(number, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)  # a preloader forks with them blocked


def ignore_orders(log: Log | None) -> None:
    """Keep SIGHUP and SIGUSR2 from ending the process; told to all of a service, they are for its master alone.

    Before the application is imported, which may have a use for SIGUSR2 and then has it.

    Args:
        log: Of a single process, which tells that it has ignored them; None in one that has a master.
    """

    def ignore(number: int, _: object) -> None:
        if log is not None:
            log.warning(IGNORED[number])

    # A handler, because what is ignored would be so in programs that the application starts, too (execve(2)).
    for number in IGNORED:
        signal.signal(number, ignore)


def ignore_resize() -> None:
    """Keep SIGTTIN and SIGTTOU from stopping the process (signal(7)); told to all, they are for the master alone."""
    for number in (signal.SIGTTIN, signal.SIGTTOU):
        # No handler: what reads from or writes to a terminal in the background would be told for ever.
        signal.signal(number, signal.SIG_IGN)


def end_with_master(line: socket, *, wanted: bool) -> None:
    """Have the kernel end this process with its master, by SIGIO (fcntl(2), O_ASYNC).

    As long as no event loop reads the line: an import that hangs would outlive a master that was killed.
    """
    fcntl(line, F_SETOWN, os.getpid())
    flags = fcntl(line, F_GETFL)
    fcntl(line, F_SETFL, flags | os.O_ASYNC if wanted else flags & ~os.O_ASYNC)


def load_certificates(settings: Settings, listeners: Iterable[Listener], log: Log) -> "Certificates | None":
    """The certificates that the listeners need, read while the process may still read the keys; None without TLS.

    Raises:
        OperatorError: They cannot be served with, or the settings for them contradict each other.
    """
    if not settings.encrypted:
        # A reload has taken them away, and the listeners are those from before: never plain HTTP on a port for TLS.
        for listener in listeners:
            if listener.tls:
                raise CertificateError(f"{listener.name} speaks TLS, and there is no certificate: give --tls-cert")
    if not (settings.encrypted or settings.tls_key or settings.tls_ca or settings.tls_client_cert != "none"):
        return None
    # Not at the top: 4 ms of a start without TLS.
    from appserver.net.certificates import find_files  # noqa: PLC0415
    from appserver.net.renewal import Certificates  # noqa: PLC0415
    from appserver.net.tls import hush  # noqa: PLC0415

    find_files(settings)
    if settings.tls_ca is not None and settings.tls_client_cert == "none":
        log.warning("--tls-ca has no effect: clients are not asked for certificates (--tls-client-cert)")
    variants = {listener.http2 for listener in listeners if listener.tls}
    if variants:
        hush(log)
        return Certificates(settings, variants, log)
    if settings.encrypted:
        log.warning("The certificates are not used: no listener speaks TLS")
    return None


def _run(
    settings: Settings,
    application: Any,
    listeners: list[Listener],
    certificates: "Certificates | None",
    notifier: Notifier,
    log: Log,
    relief: Relief,
    line: socket | None,
) -> Exit:
    loop = _make_loop(settings.loop)
    asyncio.set_event_loop(loop)
    loop.set_exception_handler(partial(_report, log))
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    main = loop.create_task(_live(settings, application, listeners, certificates, notifier, log, relief, line))
    try:
        while True:
            try:
                return loop.run_until_complete(main)
            except (SystemExit, KeyboardInterrupt, RuntimeError) as error:
                if main.done():
                    raise
                # sys.exit() in a task of the application's own, or loop.stop(): it ends that task, and nothing else.
                log.error(  # noqa: TRY400 - structlog's, with the event's id
                    "The application tried to stop the event loop", code="application_error", exc_info=error
                )
    finally:
        _close(loop)
        asyncio.set_event_loop(None)


def _make_loop(name: str) -> AbstractEventLoop:
    """The event loop of that name; `auto` is uvloop where it can be imported."""
    if name != "asyncio":
        try:
            import uvloop  # noqa: PLC0415 - not for those who chose asyncio
        except ImportError as error:
            if name == "uvloop":
                raise UsageError("--loop", name, "it is not installed", "asyncio") from error
        else:
            return uvloop.new_event_loop()
    return asyncio.new_event_loop()


def _close(loop: AbstractEventLoop) -> None:
    """End what the application has left in the loop; asyncio.run() would wait without end for what ignores that.

    The loop itself is left to the end of the process: uvloop's close() hangs on a transport with unwritten bytes.
    """
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=CANCEL_SECONDS))
    with suppress(TimeoutError):
        loop.run_until_complete(asyncio.wait_for(loop.shutdown_asyncgens(), CANCEL_SECONDS))


async def _live(
    settings: Settings,
    application: Any,
    listeners: list[Listener],
    certificates: "Certificates | None",
    notifier: Notifier,
    log: Log,
    relief: Relief,
    line: socket | None,
) -> Exit:
    loop = asyncio.get_running_loop()
    lifespan = Lifespan(application, settings.lifespan, log)
    access = AccessLog(log) if settings.access_log else None
    https_port = find_https_port(listeners) if settings.https_redirect else None
    service = Service(
        application=wrap(application, log, https_port=https_port, acme_dir=settings.acme_dir),
        log=log,
        access=access,
        trust=Trust(settings.forwarded_allow_ips) if settings.proxy_headers else None,
        root_path=settings.root_path,
        websockets=make_websockets(settings),
    )
    # The same but for its fields: Strict-Transport-Security belongs to responses over TLS alone (RFC 6797 section 7.2).
    encrypted = replace(service)
    # What operators ask of the control socket is not traffic: no access records, figures of its own.
    control = Service(application=make_control((), log), log=log)
    make_engine = pick(settings.http)
    make_http2 = pick_http2(settings.http2_engine)
    secured = sum(listener.tls for listener in listeners)
    acceptors = []
    for listener in listeners:
        served = control if listener.control else encrypted if listener.tls else service
        acceptor, endpoint = make_connections(settings, served, listener, loop, log)
        if listener.tls and certificates is not None:
            from appserver.net.handshake import Handshakes, find_bound  # noqa: PLC0415 - nor this one
            from appserver.net.tls import describe  # noqa: PLC0415

            endpoint.describe_tls = describe
            acceptor.handshakes = Handshakes(
                name=listener.name,
                loop=loop,
                pick_context=partial(certificates.context, http2=listener.http2),
                make_connection=acceptor.make_connection,
                timeout=settings.timeout_tls,
                closing_timeout=settings.timeout_write,
                log=log,
                bound=find_bound(read_limit(), secured),
            )
        acceptors.append((acceptor, endpoint))
    engines = make_engine(Limits()).name, make_http2.name if any(listener.http2 for listener in listeners) else None
    if line is not None:
        end_with_master(line, wanted=False)
    life = Life(settings, lifespan, acceptors, notifier, log, loop, engines, relief, certificates, line)
    control.application = make_control(Alone(life, log).routes, log)
    # A worker's figures are its master's to send.
    statsd = make_statsd(settings, life.snapshot, loop, log) if line is None else None
    if access is not None:
        access.start(loop)
    try:
        with life.watch:
            return await life.run()
    finally:
        if statsd is not None:
            statsd.close()
        if access is not None:
            access.close()  # for a life that ends by an exception; a stop has done it


def _report(log: Log, loop: AbstractEventLoop, context: dict[str, Any]) -> None:  # noqa: ARG001
    """What nobody awaited: an application's forgotten task, or a fault of ours."""
    log.error(f"Unhandled in the event loop: {context['message']}", exc_info=context.get("exception"))


def leave(code: Exit) -> None:
    """See to it that the process ends, even when a thread of the application does not.

    The interpreter waits for threads without end; the service manager would kill it, and record a failure. Who asks
    for the end once more while it does has it at once.
    """

    def leave_now(*_: object) -> None:
        os._exit(code)

    for number in STOPS:
        signal.signal(number, leave_now)
    if threading.active_count() > 1:

        def leave() -> None:
            sleep(LEAVE_SECONDS)
            os._exit(code)

        threading.Thread(target=leave, daemon=True, name="appserver-leave").start()
