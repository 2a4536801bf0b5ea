"""A FastAPI application behind nginx: what it is told about the client, and large bodies both ways."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

app = FastAPI()
BLOCK = bytes(range(256)) * 256


@app.get("/seen")
def seen(request: Request) -> dict[str, Any]:
    return {
        "client": request.client.host if request.client else None,
        "scheme": request.url.scheme,
        "host": request.headers["host"],
        "request_id": request.headers.get("x-request-id"),
        "framework": "FastAPI",
    }


@app.post("/count")
async def count(request: Request) -> dict[str, int]:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
    return {"bytes": size}


@app.get("/blocks/{number}")
async def blocks(number: int) -> StreamingResponse:
    def make() -> Iterator[bytes]:
        for _ in range(number):
            yield BLOCK

    return StreamingResponse(make(), media_type="application/octet-stream")
