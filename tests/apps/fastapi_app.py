"""A FastAPI application with the things that people use it for."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final

from fastapi import BackgroundTasks, Cookie, FastAPI, File, Form, HTTPException, Request, Response, UploadFile
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

LOG: Final = logging.getLogger("shop")


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, str]]:
    LOG.warning("opened")
    yield {"pool": "filled"}
    LOG.warning("closed")


app = FastAPI(lifespan=lifespan)


class Item(BaseModel):
    name: str
    price: float


@app.get("/items/{number}")
async def show(number: int, request: Request, q: str = "") -> dict[str, Any]:
    return {"number": number, "q": q, "root_path": request.scope["root_path"], "pool": request.state.pool}


@app.get("/names/{name}")
def show_name(name: str) -> dict[str, str]:
    """Runs in a thread, as functions that are not async do."""
    LOG.warning("in a thread")
    return {"name": name}


@app.post("/items", status_code=201)
async def take(item: Item) -> Item:
    return item


@app.post("/form")
async def form(name: Annotated[str, Form()], note: Annotated[str, Form()]) -> dict[str, str]:
    return {"name": name, "note": note}


@app.post("/upload")
async def upload(files: Annotated[list[UploadFile], File()]) -> list[dict[str, Any]]:
    return [{"name": file.filename, "size": len(await file.read()), "type": file.content_type} for file in files]


@app.get("/stream")
async def stream() -> StreamingResponse:
    async def produce() -> AsyncIterator[bytes]:
        for number in range(5):
            yield b"data: %d\n\n" % number
            await asyncio.sleep(0.01)

    return StreamingResponse(produce(), media_type="text/event-stream")


@app.get("/background")
async def background(tasks: BackgroundTasks) -> str:
    def work() -> None:
        LOG.warning("worked")

    tasks.add_task(work)
    return "at once"


@app.get("/cookies")
async def cookies(response: Response, basket: Annotated[str | None, Cookie()] = None) -> str | None:
    response.set_cookie("basket", "7")
    return basket


@app.get("/missing")
async def missing() -> None:
    raise HTTPException(404, "no such item")


@app.get("/fail")
async def fail() -> None:
    raise RuntimeError("no database")
