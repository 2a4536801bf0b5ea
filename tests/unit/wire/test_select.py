from importlib.metadata import version

import pytest

from appserver.wire.engine import Body, Head, Limits
from appserver.wire.select import engine, engines


def test_h11_is_always_there_with_its_version() -> None:
    assert engines()["h11"] == version("h11")


@pytest.mark.parametrize("name", sorted(engines()))
def test_an_engine_bears_its_name_and_keeps_its_limits(name: str) -> None:
    made = engine(Limits(body=3), name)
    assert (made.name, made.version, made.idle, made.closing) == (name, "1.1", True, False)
    events = made.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
    assert [type(event) for event in events] == [Head, Body]


def test_each_connection_gets_an_engine_of_its_own() -> None:
    first, second = engine(Limits()), engine(Limits())
    first.receive(b"GET /")
    assert (first.idle, second.idle) == (False, True)


def test_an_engine_that_is_not_there_is_an_error() -> None:
    with pytest.raises(KeyError):
        engine(Limits(), "no-such-engine")
