"""A Starlette application: what such applications do that servers get wrong."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Final, TypedDict

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Mount, Route

LOG: Final = logging.getLogger("shop")


class State(TypedDict):
    pool: str


@contextlib.asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[State]:
    LOG.warning("opened")
    yield {"pool": "filled"}
    LOG.warning("closed")


async def show(request: Request) -> Response:
    return JSONResponse(
        {
            "name": request.path_params["name"],
            "query": request.query_params.multi_items(),
            "path": request.url.path,
            "url": str(request.url),
            "pool": request.state.pool,
        }
    )


async def take(request: Request) -> Response:
    return JSONResponse(await request.json(), status_code=201)


async def form(request: Request) -> Response:
    async with request.form() as data:
        told = {}
        for key, value in data.multi_items():
            told[key] = value if isinstance(value, str) else [value.filename, len(await value.read())]
        return JSONResponse(told)


async def stream(_request: Request) -> Response:
    async def produce() -> AsyncIterator[bytes]:
        for number in range(5):
            yield b"part %d\n" % number
            await asyncio.sleep(0.01)

    return StreamingResponse(produce(), media_type="text/plain")


async def endless(_request: Request) -> Response:
    """Streams until the client has gone."""

    async def produce() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"more\n"
                await asyncio.sleep(0.01)
        finally:
            LOG.warning("client gone")

    return StreamingResponse(produce())


async def read(request: Request) -> Response:
    """Reads a body until the client has gone."""
    try:
        async for _ in request.stream():
            LOG.warning("some came")
    except ClientDisconnect:
        LOG.warning("client gone")
    return Response()


async def background(_request: Request) -> Response:
    async def work() -> None:
        await asyncio.sleep(0.5)
        LOG.warning("worked")

    return PlainTextResponse("at once", background=BackgroundTask(work))


async def cookies(request: Request) -> Response:
    response = JSONResponse(dict(request.cookies))
    response.set_cookie("one", "1", httponly=True)
    response.set_cookie("two", "2", path="/shop")
    return response


async def fail(_request: Request) -> Response:
    raise RuntimeError("no database")


async def missing(_request: Request) -> Response:
    raise HTTPException(404, "no such basket")


async def nothing(_request: Request) -> Response:
    return Response(status_code=204)


async def away(request: Request) -> Response:
    return RedirectResponse(request.url_for("show", name="here"))


async def source(_request: Request) -> Response:
    return FileResponse(__file__)


app = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/show/{name:path}", show, name="show"),
        Route("/take", take, methods=["POST", "PUT"]),
        Route("/form", form, methods=["POST"]),
        Route("/stream", stream),
        Route("/endless", endless),
        Route("/read", read, methods=["POST"]),
        Route("/background", background),
        Route("/cookies", cookies),
        Route("/fail", fail),
        Route("/missing", missing),
        Route("/nothing", nothing),
        Route("/away", away),
        Route("/source", source),
        Mount("/mounted", routes=[Route("/show/{name}", show)]),
    ],
)
