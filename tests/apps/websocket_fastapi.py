"""A FastAPI application with rooms: what one says, all of the room hear."""

import logging
from collections import defaultdict
from typing import Annotated, Final

from fastapi import Depends, FastAPI, Header, Query, WebSocket, WebSocketDisconnect, WebSocketException

LOG: Final = logging.getLogger("shop")
ROOMS: Final[defaultdict[str, set[WebSocket]]] = defaultdict(set)

app = FastAPI()


async def check(ticket: Annotated[str | None, Header()] = None) -> str:
    if ticket is None:
        raise WebSocketException(1008, "no ticket")
    return ticket


async def tell_all(room: str, text: str) -> None:
    for other in list(ROOMS[room]):
        await other.send_text(text)


@app.websocket("/rooms/{room}")
async def join(
    websocket: WebSocket, room: str, name: Annotated[str, Query(max_length=5)], ticket: Annotated[str, Depends(check)]
) -> None:
    await websocket.accept()
    ROOMS[room].add(websocket)
    await tell_all(room, f"{name} came with {ticket}")
    try:
        while True:
            await tell_all(room, f"{name}: {await websocket.receive_text()}")
    except WebSocketDisconnect:
        ROOMS[room].discard(websocket)
        await tell_all(room, f"{name} left")


@app.websocket("/fail")
async def fail(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.receive_text()
    raise RuntimeError("no database")
