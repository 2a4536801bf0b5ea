"""An application that blocks the event loop is named by its line: file, number and function."""

import re
from typing import Final

import pytest

from tests.integration.servers import APPS, Starter

BLOCKING: Final = APPS / "blocking.py"


def line_of(part: str) -> int:
    return next(number for number, line in enumerate(BLOCKING.read_text().splitlines(), 1) if part in line)


@pytest.mark.parametrize("arguments", ["--loop=asyncio", "--loop=uvloop --workers=1"])
def test_the_line_that_blocks_is_in_the_warning(arguments: str, serve: Starter) -> None:
    server = serve("blocking:app", *arguments.split())
    assert server.get("/sleep?seconds=3.2") == (200, b"done")
    record = server.record(event="watchdog", level="warning")
    place = f"{BLOCKING}:{line_of('is to be named')} in sleep"
    assert record["blocker"] == place
    message = str(record["message"])
    assert re.fullmatch(rf"The event loop did not turn for \d+\.\d s, blocked in {re.escape(place)}", message)
    assert isinstance(record["blocked_us"], int)
    assert record["blocked_us"] > 1_000_000
    # Who called it, too.
    assert "in app" in str(record["stacks"])
