"""Every case runs over every engine: in this process, and in a server over plain TCP and over TLS."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from appserver.wire import select
from tests.conformance.http2.client import Client, Pipe
from tests.conformance.http2.live import Live, serving
from tests.conformance.http2.memory import Memory, make_memory

ENGINES = sorted(select.http2_engines())
MEMORY = [f"memory-{engine}" for engine in ENGINES]
# A thousand cases each: without FULL (`make test-all`) each engine is tried on one kind of listener.
LIVE = [f"{kind}-{engine}" for kind in ("plain", "tls") for engine in ENGINES]
if not os.environ.get("FULL"):
    LIVE = [way for way in LIVE if way in ("plain-ngh2", "tls-h2")]


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Live]]:
    """The server with an engine, started when it is first asked for."""
    started: dict[str, Live] = {}
    with ExitStack() as stack:

        def serve(engine: str) -> Live:
            if engine not in started:
                started[engine] = stack.enter_context(serving(tmp_path_factory.mktemp(engine), engine))
            return started[engine]

        yield serve


@pytest.fixture(params=[*MEMORY, *LIVE])
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[[], Client]]:
    """Makes connections on which nothing has been said yet."""
    kind, engine = request.param.split("-")
    pipes: list[Pipe] = []

    def connect() -> Client:
        if kind == "memory":
            pipes.append(make_memory(engine))
        else:
            pipes.append(request.getfixturevalue("servers")(engine).connect(tls=kind == "tls"))
        return Client(pipes[-1])

    yield connect
    for pipe in pipes:
        pipe.close()


@pytest.fixture
def client(connect: Callable[[], Client]) -> Client:
    """A connection on which both sides have sent and acknowledged their SETTINGS."""
    client = connect()
    client.start()
    return client


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """The name of an engine, for what only shows in this process."""
    name: str = request.param
    return name


@pytest.fixture
def memory(engine: str) -> Memory:
    return make_memory(engine)


@pytest.fixture
def local(memory: Memory) -> Client:
    """As `client`, in this process alone."""
    client = Client(memory)
    client.start()
    return client
