"""The control socket's application: what an operator or a probe may ask a running server.

GET /livez    200 as long as the event loop turns
GET /readyz   200 while requests are served, 503 before that and while draining
GET /status   JSON, the fields of `process.worker.Worker.report()`
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from appserver.asgi.types import Application, Receive, Scope, Send


def make_control(report: Callable[[], Mapping[str, Any]]) -> Application:
    """An ASGI application that answers from `report`, whose `state` is `serving` when the server is ready."""

    async def control(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - bodies are of no interest
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        status, content = _answer(scope["method"], scope["path"], report())
        body = (json.dumps(content) + "\n").encode()
        headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
        if status == 405:
            headers.append((b"allow", b"GET, HEAD"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return control


def _answer(method: str, path: str, report: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]]:
    if path not in ("/livez", "/readyz", "/status"):
        return 404, {"error": f"no such path: {path}", "paths": ["/livez", "/readyz", "/status"]}
    if method not in ("GET", "HEAD"):
        return 405, {"error": "only GET and HEAD"}
    if path == "/status":
        return 200, report
    if path == "/livez":
        return 200, {"alive": True}
    ready = report["state"] == "serving"
    return (200 if ready else 503), {"ready": ready, "state": report["state"]}
