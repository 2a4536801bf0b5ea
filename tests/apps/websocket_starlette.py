"""A Starlette application with WebSockets: an endpoint, a plain function, and refusals."""

import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Final, TypedDict

from starlette.applications import Starlette
from starlette.endpoints import WebSocketEndpoint
from starlette.exceptions import HTTPException, WebSocketException
from starlette.responses import JSONResponse
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

LOG: Final = logging.getLogger("shop")


class State(TypedDict):
    pool: str


@contextlib.asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[State]:
    yield {"pool": "filled"}


class Count(WebSocketEndpoint):
    """Answers JSON with JSON."""

    encoding = "json"

    async def on_connect(self, websocket: WebSocket) -> None:
        await websocket.accept(subprotocol="json", headers=[(b"set-cookie", b"basket=7")])

    async def on_receive(self, websocket: WebSocket, data: dict[str, int]) -> None:
        await websocket.send_json({"sum": sum(data.values()), "pool": websocket.state.pool})

    async def on_disconnect(self, websocket: WebSocket, close_code: int) -> None:
        LOG.warning("gone", extra={"path": websocket.url.path, "close_code": close_code})


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            await websocket.send_bytes(await websocket.receive_bytes())
    except WebSocketDisconnect as end:
        LOG.warning("gone", extra={"path": "/echo", "close_code": end.code, "close_reason": end.reason})


async def deny(websocket: WebSocket) -> None:
    await websocket.send_denial_response(JSONResponse({"why": "no ticket"}, status_code=401))


async def missing(_websocket: WebSocket) -> None:
    """Before the handshake is answered this is an answer, too."""
    raise HTTPException(404, "no such room")


async def policy(websocket: WebSocket) -> None:
    await websocket.accept()
    raise WebSocketException(1008, "no shouting")


app = Starlette(
    lifespan=lifespan,
    routes=[
        WebSocketRoute("/count", Count),
        WebSocketRoute("/echo", echo),
        WebSocketRoute("/deny", deny),
        WebSocketRoute("/missing", missing),
        WebSocketRoute("/policy", policy),
    ],
)
