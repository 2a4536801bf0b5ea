"""From settings to what serves a listener: its acceptor, and what its connections share."""

import sys
from asyncio import AbstractEventLoop
from collections.abc import Iterable
from email.utils import formatdate
from functools import partial
from importlib import import_module
from time import monotonic

from appserver.asgi.edge import HTTPS_PORT
from appserver.asgi.service import Service, WebSockets
from appserver.net.acceptor import Acceptor
from appserver.net.endpoint import Endpoint, Timeouts
from appserver.net.listeners import Listener
from appserver.net.operator import OperatorConnection
from appserver.net.serial import SerialConnection
from appserver.settings import Settings
from appserver.telemetry.log import Log
from appserver.wire.engine import Headers, Limits
from appserver.wire.origins import Origins
from appserver.wire.select import MakeEngine, MakeHttp2, pick, pick_http2, warm


def find_https_port(listeners: Iterable[Listener]) -> int:
    """The port of the first listener that speaks TLS over TCP; that of a proxy in front where there is none."""
    for listener in listeners:
        name = listener.sock.getsockname()
        if listener.tls and isinstance(name, tuple):
            port: int = name[1]
            return port
    return HTTPS_PORT


def import_late(settings: Settings, *, http2: bool) -> str:
    """Import what a start leaves out, because nobody needs it for the first answers.

    Returns:
        What to warn of; empty if there is nothing.
    """
    warm()
    if settings.ws != "none":
        import_module("appserver.asgi.websocket")
    if not http2:
        return ""
    import_module("appserver.net.multiplexed")
    make = pick_http2(settings.http2_engine)
    make.load()
    return make.flaw


def make_websockets(settings: Settings) -> WebSockets | None:
    """How WebSockets are served; None where they are not."""
    if settings.ws == "none":
        return None
    return WebSockets(
        max_size=settings.ws_max_size,
        max_queue=settings.ws_max_queue,
        open_timeout=settings.ws_open_timeout,
        close_timeout=settings.ws_close_timeout,
        ping_interval=settings.ws_ping_interval,
        ping_timeout=settings.ws_ping_timeout,
        window_bits=settings.ws_deflate_window_bits if settings.ws_per_message_deflate else 0,
        deflate_memory=settings.ws_deflate_memory,
        origins=Origins.of(settings.ws_origin),
    )


def make_connections(
    settings: Settings, service: Service, listener: Listener, loop: AbstractEventLoop, log: Log
) -> tuple[Acceptor, Endpoint]:
    """What accepts the connections of a listener, and what they share."""
    endpoint = make_endpoint(settings, service, listener, loop, pick(settings.http), pick_http2(settings.http2_engine))
    connection = OperatorConnection if listener.control else SerialConnection
    return Acceptor(listener, loop, partial(connection, endpoint), log, settings.backlog), endpoint


def default_fields(settings: Settings, *, tls: bool) -> Headers:
    """The fields that every response gets, with the present date (RFC 9110 section 6.6.1).

    Args:
        settings: Which ones, and the operator's own.
        tls: The response goes over TLS.
    """
    own = [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in settings.header]
    names = {name for name, _ in own}
    fields: Headers = []
    if settings.date_header and b"date" not in names:
        fields.append((b"date", formatdate(usegmt=True).encode("ascii")))
    if settings.server_header and b"server" not in names:
        fields.append((b"server", b"appserver"))
    if tls and settings.hsts is not None and b"strict-transport-security" not in names:
        fields.append((b"strict-transport-security", b"max-age=" + settings.hsts.encode("ascii")))
    return fields + own


def make_endpoint(
    settings: Settings,
    service: Service,
    listener: Listener,
    loop: AbstractEventLoop,
    make_engine: MakeEngine,
    make_http2: MakeHttp2,
) -> Endpoint:
    """What the connections of a listener share."""
    limits = Limits(
        request_line=settings.limit_request_line,
        field=settings.limit_request_field_size,
        fields=settings.limit_request_fields,
        head=settings.limit_request_head,
        body=settings.limit_request_body,
        streams=settings.http2_max_concurrent_streams,
    )
    timeouts = Timeouts(
        header=settings.timeout_header,
        body=settings.timeout_body,
        write=settings.timeout_write,
        keep_alive=settings.timeout_keep_alive,
        linger=settings.linger,
        min_rate=settings.min_rate,
    )
    websocket = service.websockets is not None
    return Endpoint(
        name=listener.name,
        service=service,
        loop=loop,
        # Over TLS the handshake says what is spoken (RFC 9113 section 3.2).
        make_engine=partial(
            make_engine,
            limits,
            http2=listener.http2 and not listener.tls,
            upgrade=settings.http2_upgrade and listener.http2 and not listener.tls,
            websocket=websocket,
        ),
        make_http2=partial(make_http2, limits, monotonic, websocket=websocket) if listener.http2 else None,
        timeouts=timeouts,
        eager=sys.version_info >= (3, 12),
    )
