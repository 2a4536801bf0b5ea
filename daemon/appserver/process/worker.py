"""One serving process, from its settings to its exit code."""

import asyncio
import faulthandler
import os
import signal
from asyncio import AbstractEventLoop, Task
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from socket import socket
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from appserver.asgi.control import make_control
from appserver.asgi.edge import wrap
from appserver.asgi.forwarded import Trust
from appserver.asgi.lifespan import Lifespan
from appserver.asgi.loader import WSGI, load
from appserver.asgi.service import Service
from appserver.asgi.types import Application
from appserver.errors import CertificateError, Exit, UsageError
from appserver.net.listeners import Listener, open_listeners
from appserver.process.doubts import find_doubts
from appserver.process.drain import CANCEL_SECONDS
from appserver.process.endpoints import find_https_port, make_connections, make_websockets
from appserver.process.failures import conclude
from appserver.process.handover import Handover
from appserver.process.idle import are_inherited, can_leave
from appserver.process.life import Life
from appserver.process.metering import make_statsd
from appserver.process.operations import Alone
from appserver.process.relief import Relief
from appserver.process.signals import (
    EXPLAIN_SIGNAL,
    STOPS,
    end_with_master,
    ignore_orders,
    ignore_resize,
    keep_exit_code,
    leave,
    stop_early,
    tell_crashes,
)
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

T = TypeVar("T")


class Imported(NamedTuple):
    """An application, and what ends what it is served by."""

    application: Application
    close: Callable[[], None] = lambda: None


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

    def start() -> Exit:
        # The first act, before anything opens a descriptor or starts a process that would inherit one, and before the
        # first record: under inetd stderr is the client's connection until it has been adopted.
        inherited = take_inherited()
        keep_exit_code()
        stop_early()
        ignore_orders(log)
        raise_limit()
        listeners.extend(open_listeners(settings, inherited.sockets, log))
        if inherited.ignored:
            log.warning(inherited.ignored, code="socket_ignored")
        return _serve(settings, listeners, notifier, log, loaded.warnings)

    try:
        code = conclude(start, notifier, log)
    finally:
        for listener in listeners:
            listener.close()
    leave(code, log)
    return code


def serve_for_master(handover: Handover, imported: Imported | None = None, log: Log | None = None) -> Exit:
    """Serve as one of several workers.

    Args:
        handover: What the master hands over.
        imported: What a preloader has imported; None to import it here.
        log: Where events went while that was done.

    Returns:
        The process's exit code.
    """
    settings = handover.settings
    notifier = Notifier(handover.line, settings.timeout_worker)
    told = log or build(settings.log_level, settings.log_format)

    def start() -> Exit:
        stop_early()
        if imported is None:  # else the preloader has, and the application may have a use for SIGUSR2 by now
            keep_exit_code()
            ignore_orders(None)
        ignore_resize()
        release_signals()
        end_with_master(handover.line, wanted=True)
        faulthandler.register(EXPLAIN_SIGNAL, file=handover.stacks, all_threads=True)
        return _serve(settings, list(handover.listeners), notifier, told, (), handover.line, imported)

    code = conclude(start, notifier, told, handover.take_voice)
    leave(code, told)
    return code


def _serve(
    settings: Settings,
    listeners: list[Listener],
    notifier: Notifier,
    log: Log,
    warnings: Iterable[str],
    line: socket | None = None,
    imported: Imported | None = None,
) -> Exit:
    certificates = load_certificates(settings, listeners, log)
    if line is None:  # else it is the master's to tell, once
        for warning in (
            *warnings,
            *find_doubts(
                settings,
                encrypted=certificates is not None,
                activated=can_leave(listeners),
                inherited=are_inherited(listeners),
            ),
        ):
            log.warning(warning)
    relief = Relief(log, take_variables(os.environ))
    if imported is None:
        imported = import_application(settings, notifier, log)
    return _run(settings, imported, listeners, certificates, notifier, log, relief, line)


def import_application(settings: Settings, notifier: Notifier, log: Log) -> Imported:
    """Import the application; what it logs, warns of and crashes of on the way is in the log.

    Raises:
        LoadError: It cannot be imported.
    """
    tell_crashes()
    capture_stdlib(log)
    notifier.status(f"Starting: importing {settings.app}")
    log.debug("Starting", code="started", application=settings.app)
    application, interface = load(settings.app, settings.app_dir, settings.factory, settings.interface)
    if interface != WSGI:
        return Imported(application)
    from appserver.asgi.wsgi import Wsgi  # noqa: PLC0415 - for those alone

    adapter = Wsgi(application, settings.threads, log, multiprocess=settings.workers is not None)
    return Imported(adapter, adapter.close)


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
    imported: Imported,
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
    main = loop.create_task(_live(settings, imported, listeners, certificates, notifier, log, relief, line))
    try:
        return _complete(main, loop, log)
    finally:
        _close(loop, log)
        asyncio.set_event_loop(None)


def _complete(task: Task[T], loop: AbstractEventLoop, log: Log) -> T:
    """Turn the loop until the task is over, whatever others in it do; its result."""
    while True:
        try:
            return loop.run_until_complete(task)
        except (SystemExit, KeyboardInterrupt, RuntimeError) as error:
            if task.done():
                raise
            # sys.exit() in a task of the application's own, or loop.stop(): it ends that task, and nothing else.
            log.error(  # noqa: TRY400 - structlog's, with the event's id
                "The application tried to stop the event loop", code="application_error", exc_info=error
            )


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


def _close(loop: AbstractEventLoop, log: Log) -> None:
    """End what the application has left in the loop; asyncio.run() would wait without end for what ignores that.

    The loop itself is left to the end of the process: uvloop's close() hangs on a transport with unwritten bytes.
    """
    _complete(loop.create_task(_end(asyncio.all_tasks(loop), loop)), loop, log)


async def _end(tasks: set[Task[Any]], loop: AbstractEventLoop) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=CANCEL_SECONDS)
    with suppress(TimeoutError):
        await asyncio.wait_for(loop.shutdown_asyncgens(), CANCEL_SECONDS)


async def _live(
    settings: Settings,
    imported: Imported,
    listeners: list[Listener],
    certificates: "Certificates | None",
    notifier: Notifier,
    log: Log,
    relief: Relief,
    line: socket | None,
) -> Exit:
    loop = asyncio.get_running_loop()
    application = imported.application
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
        imported.close()
        if access is not None:
            access.close()  # for a life that ends by an exception; a stop has done it


def _report(log: Log, loop: AbstractEventLoop, context: dict[str, Any]) -> None:  # noqa: ARG001
    """What nobody awaited: an application's forgotten task, or a fault of ours."""
    log.error(f"Unhandled in the event loop: {context['message']}", exc_info=context.get("exception"))
