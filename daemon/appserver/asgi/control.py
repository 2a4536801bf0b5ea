"""The control socket's application: what an operator or a probe may ask a running server.

GET /livez    200 as long as the event loop turns
GET /readyz   200 while requests are served, 503 before that and while draining
GET /metrics  what Prometheus scrapes (docs/metrics.md); 501 where prometheus_client is not installed
POST /reload  200 when new workers serve, 500 and why when those from before go on; with `--workers`
POST /upgrade 202 when the installed version takes over, 500 and why when nothing has changed; with `--workers`
GET /status   JSON, the fields of `process.life.Life.report()` or `process.master.Master.report()`
"""

import json
from asyncio import to_thread
from collections.abc import Awaitable, Callable, Mapping
from importlib import import_module
from typing import Any, Final

from appserver.asgi.types import Application, Receive, Scope, Send
from appserver.telemetry.metrics import Snapshot

_MISSING: Final = (
    "prometheus_client is not installed: apt install python3-prometheus-client, or pip install 'appserverd[metrics]'"
)
_PATHS: Final = ("/livez", "/readyz", "/status", "/metrics")

_CHANGES: Final = ("/reload", "/upgrade")


def make_control(
    report: Callable[[], Mapping[str, Any]],
    reload: Callable[[], Awaitable[str | None]] | None = None,
    upgrade: Callable[[], Awaitable[str | None]] | None = None,
    *,
    snapshot: Callable[[], Snapshot],
) -> Application:
    """Make the control socket's application.

    Args:
        report: What `/status` tells; its `state` is `serving` when the server is ready.
        reload: Reloads, and gives what went wrong; None where there is no reload.
        upgrade: Begins an upgrade, and gives what went wrong before it did; None where there is none.
        snapshot: What `/metrics` tells.
    """

    async def control(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - bodies are of no interest
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        if scope["path"] == "/reload" and scope["method"] == "POST" and reload is not None:
            failure = await reload()
            status: int = 200 if failure is None else 500
            content: Mapping[str, Any] = {"reloaded": failure is None, "error": failure}
        elif scope["path"] == "/upgrade" and scope["method"] == "POST" and upgrade is not None:
            failure = await upgrade()
            status, content = 202 if failure is None else 500, {"upgrading": failure is None, "error": failure}
        elif scope["path"] == "/metrics" and scope["method"] in ("GET", "HEAD"):
            await _send_metrics(snapshot, scope, send)
            return
        else:
            status, content = _answer(scope["method"], scope["path"], report())
        body = (json.dumps(content) + "\n").encode()
        headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
        if status == 405:
            headers.append((b"allow", b"POST" if scope["path"] in _CHANGES else b"GET, HEAD"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return control


async def _send_metrics(snapshot: Callable[[], Snapshot], scope: Scope, send: Send) -> None:
    try:
        # In a thread: it takes 60 ms the first time, and in a single process applications wait on this event loop.
        prometheus = await to_thread(import_module, "appserver.telemetry.prometheus")
    except ImportError:
        status, media_type = 501, "application/json"
        body = json.dumps({"error": _MISSING}).encode() + b"\n"
    else:
        accept = b",".join(value for name, value in scope["headers"] if name == b"accept")
        status = 200
        body, media_type = prometheus.render(snapshot(), accept.decode("latin-1"))
    headers = [(b"content-type", media_type.encode("ascii")), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _answer(method: str, path: str, report: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]]:
    if path in _CHANGES:
        return 405, {"error": "only POST, and only where there are --workers"}
    if path not in _PATHS:
        return 404, {"error": f"no such path: {path}", "paths": _PATHS}
    if method not in ("GET", "HEAD"):
        return 405, {"error": "only GET and HEAD"}
    if path == "/status":
        return 200, report
    if path == "/livez":
        return 200, {"alive": True}
    ready = report["state"] == "serving"
    return (200 if ready else 503), {"ready": ready, "state": report["state"]}
