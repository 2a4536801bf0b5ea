"""Every test of this folder runs on both event loops."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeAlias

import pytest
import uvloop

from appserver.wire.select import http2_engines
from tests.unit.net.serving import play

Play: TypeAlias = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Play:
    """Runs a scene on one of the loops."""
    return partial(play, asyncio.new_event_loop if request.param == "asyncio" else uvloop.new_event_loop)


@pytest.fixture(params=sorted(http2_engines()))
def http2(request: pytest.FixtureRequest) -> str:
    """The name of an HTTP/2 engine."""
    name: str = request.param
    return name
