"""The fixtures of the contract: every engine that can be used here."""

import pytest

from appserver.wire import select
from appserver.wire.select import MakeEngine, MakeHttp2


@pytest.fixture(scope="session", params=sorted(select.engines()))
def engine(request: pytest.FixtureRequest) -> MakeEngine:
    """How to make one engine for one connection; Hypothesis makes many in one test."""
    return select.pick(request.param)


@pytest.fixture(scope="session", params=sorted(select.http2_engines()))
def http2_engine(request: pytest.FixtureRequest) -> MakeHttp2:
    """The same for HTTP/2."""
    return select.pick_http2(request.param)
