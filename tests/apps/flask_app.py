"""Flask, which is WSGI."""

from collections.abc import Iterator

from flask import Flask, Response, request, send_file

app = Flask(__name__)


@app.get("/items/<name>")
def item(name: str) -> dict[str, object]:
    return {"name": name, "query": request.args.to_dict(), "client": request.remote_addr, "url": request.url}


@app.post("/upload")
def upload() -> str:
    found = request.files["file"]
    return f"{found.filename} {len(found.read())}"


@app.get("/stream")
def stream() -> Response:
    def pieces() -> Iterator[str]:
        for number in range(3):
            yield f"{number}\n"

    return Response(pieces(), mimetype="text/plain")


@app.get("/file")
def file() -> Response:
    return send_file(__file__, mimetype="text/plain", conditional=True)


@app.get("/fail")
def fail() -> str:
    raise RuntimeError("no database")
