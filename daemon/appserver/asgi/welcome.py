"""The application that answers when none is configured, and says what to do next.

Whoever installs the package and opens the address sees that the daemon runs. Every path answers, with HTML for a
browser, JSON for a program that asks for it, and plain text for the rest (curl).
"""

import json
from typing import Final

from appserver import __version__
from appserver.asgi.types import Receive, Scope, Send

_TITLE: Final = "appserver is running"
_LEAD: Final = "It has no application to serve yet, so this page answers every request."
_STEPS: Final = (
    ("On the command line", "name your application, as module:attribute", "appserver main:app"),
    (
        "As a system service",
        "name it in /etc/appserver/appserver.toml",
        'app_dir = "/srv/shop"\napp = "main:app"',
    ),
    ("Then", "restart the service", "systemctl restart appserver"),
)
_MORE: Final = (
    ("appserver --help", "all settings"),
    ("appserverctl check", "tries the configuration without serving"),
    ("journalctl -u appserver", "the log of the service"),
)

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #566173; --paper: #f6f7f9; --card: #ffffff; --line: #dde1e8;
  --mark: #0a7a4b; --code: #eef1f5 }
@media (prefers-color-scheme: dark) { :root { --ink: #e8ebf0; --soft: #a3adbd; --paper: #12161c; --card: #1a2029;
  --line: #2c3542; --mark: #4cc38a; --code: #232b36 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink); font: 1.0625rem/1.6 system-ui, sans-serif }
main { max-width: 42rem; margin: 0 auto; padding: clamp(2rem, 8vh, 6rem) 1.25rem }
h1 { margin: 0 0 .5rem; font-size: clamp(1.75rem, 5vw, 2.5rem); line-height: 1.2; letter-spacing: -.02em }
h1::before { content: ""; display: inline-block; width: .5em; height: .5em; margin-right: .4em; border-radius: 50%;
  background: var(--mark); vertical-align: .12em }
h2 { margin: 0 0 .25rem; font-size: 1.0625rem }
p { margin: 0; color: var(--soft) }
ol { list-style: none; margin: 2.5rem 0; padding: 0; display: grid; gap: 1rem }
ol > li { padding: 1.25rem; border: 1px solid var(--line); border-radius: .75rem; background: var(--card) }
pre { margin: .75rem 0 0; padding: .75rem 1rem; border-radius: .5rem; background: var(--code); overflow-x: auto }
code { font: .9375rem/1.5 ui-monospace, monospace }
dl { margin: 0; display: grid; grid-template-columns: auto 1fr; gap: .25rem 1rem }
dd { margin: 0; color: var(--soft) }
footer { margin-top: 2.5rem; font-size: .9375rem }
@media (max-width: 30rem) { dl { grid-template-columns: 1fr } dd { margin-bottom: .5rem } }
"""


def _html() -> str:
    steps = "\n".join(
        f'<li><h2>{title}</h2><p>{text}</p><pre tabindex="0"><code>{code}</code></pre></li>'
        for title, text, code in _STEPS
    )
    more = "\n".join(f"<dt><code>{command}</code></dt><dd>{text}</dd>" for command, text in _MORE)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>{_TITLE}</title>
<link rel="icon" href="data:,">
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>{_TITLE}</h1>
<p>{_LEAD}</p>
<ol>
{steps}
</ol>
<h2>To learn more</h2>
<dl>
{more}
</dl>
<footer><p>appserver {__version__}</p></footer>
</main>
</body>
</html>
"""


def _text() -> str:
    steps = "\n\n".join(
        f"{title}: {text}\n\n" + "\n".join(f"    {line}" for line in code.splitlines()) for title, text, code in _STEPS
    )
    more = "\n".join(f"    {command:<26}{text}" for command, text in _MORE)
    return f"{_TITLE} ({__version__})\n\n{_LEAD}\n\n{steps}\n\nTo learn more:\n\n{more}\n"


def _json() -> str:
    steps = [{"title": title, "text": text, "code": code} for title, text, code in _STEPS]
    return json.dumps({"message": _TITLE, "version": __version__, "detail": _LEAD, "next": steps}) + "\n"


_BODIES: Final = {
    "text/plain": (b"text/plain; charset=utf-8", _text().encode()),
    "text/html": (b"text/html; charset=utf-8", _html().encode()),
    "application/json": (b"application/json", _json().encode()),
}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer every HTTP request with the welcome page; take part in the lifespan protocol."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
        return
    if scope["type"] != "http":
        raise NotImplementedError(f"the welcome application does not serve {scope['type']}")
    accept = b",".join(value for name, value in scope["headers"] if name == b"accept").decode("latin-1")
    content_type, body = _BODIES[_preferred(accept)]
    headers = [
        (b"content-type", content_type),
        (b"content-length", str(len(body)).encode()),
        # The page is gone as soon as there is an application: nobody may keep it.
        (b"cache-control", b"no-store"),
        (b"vary", b"accept"),
        (b"x-content-type-options", b"nosniff"),
    ]
    if content_type.startswith(b"text/html"):
        headers.append((b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; img-src data:"))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    # RFC 9110 section 9.3.2: HEAD has GET's fields and no content.
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _preferred(accept: str) -> str:
    """Choose the representation by RFC 9110 section 12.5.1; plain text where the client does not mind."""
    ranges: dict[str, float] = {}
    for item in accept.lower().split(","):
        name, *parameters = (part.strip() for part in item.split(";"))
        weights = [part.removeprefix("q=") for part in parameters if part.startswith("q=")]
        try:
            ranges[name] = float(weights[0]) if weights else 1.0
        except ValueError:
            ranges[name] = 0.0

    def weigh(media_type: str) -> float:
        for name in (media_type, f"{media_type.partition('/')[0]}/*", "*/*"):
            if name in ranges:
                return ranges[name]
        return 0.0

    # max() keeps the first of equals.
    return max(_BODIES, key=weigh)
