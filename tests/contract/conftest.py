"""The one fixture of the contract: every engine that can be used here."""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import pytest

from appserver.wire import select
from appserver.wire.engine import Engine, Limits

MakeEngine: TypeAlias = Callable[[Limits], Engine]


@pytest.fixture(scope="session", params=sorted(select.engines()))
def engine(request: pytest.FixtureRequest) -> MakeEngine:
    """How to make one engine for one connection; Hypothesis makes many in one test."""
    return partial(select.engine, name=request.param)
