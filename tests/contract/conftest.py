"""The one fixture of the contract: every engine that can be used here."""

import pytest

from appserver.wire import select
from appserver.wire.select import MakeEngine


@pytest.fixture(scope="session", params=sorted(select.engines()))
def engine(request: pytest.FixtureRequest) -> MakeEngine:
    """How to make one engine for one connection; Hypothesis makes many in one test."""
    return select.pick(request.param)
