"""A page in a real browser, looked into by the DevTools protocol (https://chromedevtools.github.io/devtools-protocol/)."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from itertools import count
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.integration.browser import STARTING, browsing
from tests.integration.servers import PATIENCE, ask
from tests.integration.workers import eventually


class Page:
    """The page that is open."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection, self._numbers = connection, count(1)
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, **words: Any) -> dict[str, Any]:
        """Call a method of the protocol."""
        number = next(self._numbers)
        self._connection.send(json.dumps({"id": number, "method": method, "params": words}))
        while True:
            message = json.loads(self._connection.recv(PATIENCE))
            if message.get("id") == number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result
            self.events.append(message)

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page."""
        told = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def until(self, expression: str) -> Any:
        """Wait until an expression is true; its value."""
        return eventually(lambda: self.evaluate(expression), expression, STARTING)

    def names(self, role: str) -> list[str]:
        """What is read aloud for the elements of a role."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        found = [node for node in nodes if not node["ignored"] and node["role"]["value"] == role]
        return [node["name"]["value"] for node in found]


@contextmanager
def looking(url: str, folder: Path) -> Iterator[Page]:
    """The browser with a page open."""
    with browsing(url, folder):
        told = folder / "profile" / "DevToolsActivePort"
        port, *_ = eventually(lambda: told.read_text().split() if told.exists() else None, "the browser", STARTING)

        def find() -> str | None:
            connection = HTTPConnection("127.0.0.1", int(port), timeout=PATIENCE)
            pages = [one for one in ask(connection, "/json") if one["type"] == "page" and one["url"].startswith(url)]
            connection.close()
            return pages[0]["webSocketDebuggerUrl"] if pages else None

        with connect(eventually(find, f"the page {url}", STARTING), max_size=None, proxy=None) as connection:
            page = Page(connection)
            page.call("Runtime.enable")
            page.call("Log.enable")
            yield page
