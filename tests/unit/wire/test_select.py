import sys
from importlib.metadata import version
from pathlib import Path
from time import monotonic

import pytest

from appserver.errors import UsageError
from appserver.settings import TABLE
from appserver.wire import select
from appserver.wire.engine import Body, Head, Limits
from appserver.wire.select import engines, http2_engines, pick, pick_http2


def test_h11_is_always_there_with_its_version() -> None:
    assert engines()["h11"] == version("h11")


@pytest.mark.parametrize("name", sorted(engines()))
def test_an_engine_bears_its_name_and_keeps_its_limits(name: str) -> None:
    made = pick(name)(Limits(body=3))
    assert (made.name, made.version, made.idle, made.closing) == (name, "1.1", True, False)
    events = made.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
    assert [type(event) for event in events] == [Head, Body]


def test_each_connection_gets_an_engine_of_its_own() -> None:
    make = pick("h11")
    first, second = make(Limits()), make(Limits())
    first.receive(b"GET /")
    assert (first.idle, second.idle) == (False, True)


def test_auto_is_the_fastest_that_is_there() -> None:
    assert pick()(Limits()).name == pick("auto")(Limits()).name == next(iter(engines()))


def test_without_the_native_library_auto_is_the_next_and_the_native_one_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "gunicorn_h1c", None)
    monkeypatch.delitem(sys.modules, "appserver.wire.http1_h1c", raising=False)
    assert pick()(Limits()).name == "plain"
    for name in ("h1c", "httptools"):
        with pytest.raises(UsageError, match=rf"--http: '{name}': .*install gunicorn_h1c"):
            pick(name)


def test_uvicorns_word_for_its_native_engine_means_ours() -> None:
    if "h1c" in engines():
        assert pick("httptools") is pick("h1c")
    else:
        with pytest.raises(UsageError, match="gunicorn_h1c"):
            pick("httptools")


def test_the_setting_offers_what_can_be_picked() -> None:
    [row] = [row for row in TABLE if row.name == "http"]
    assert {*row.kind.metavar.split("|")} == {select.AUTO, *select._HTTP1, *select._SYNONYMS}


# HTTP/2


def test_h2_is_always_there_with_its_version() -> None:
    assert http2_engines()["h2"] == version("h2")


@pytest.mark.parametrize("name", sorted(http2_engines()))
def test_an_http2_engine_bears_its_name_and_keeps_its_limits(name: str) -> None:
    made = pick_http2(name)(Limits(streams=3), monotonic)
    assert (made.name, made.version, made.multiplexed, made.idle, made.closing) == (name, "2", True, True, False)
    written = b"".join(made.take())
    assert b"\0\3\0\0\0\3" in written  # SETTINGS_MAX_CONCURRENT_STREAMS


def test_auto_is_the_fastest_http2_engine_that_is_there() -> None:
    assert pick_http2().name == pick_http2("auto").name == next(iter(http2_engines()))


def test_an_http2_engine_is_imported_for_the_first_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    make = pick_http2()
    module = f"appserver.wire.http2_{make.name}"
    monkeypatch.delitem(sys.modules, module, raising=False)
    assert pick_http2().name == make.name
    assert module not in sys.modules
    first, second = make(Limits(), monotonic), make(Limits(), monotonic)
    assert module in sys.modules
    first.drain()
    assert (len(first.take()), second.state) == (1, "open")


def test_without_the_native_http2_library_auto_is_h2_and_the_native_one_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ngh2", None)
    monkeypatch.delitem(sys.modules, "appserver.wire.http2_ngh2", raising=False)
    assert pick_http2()(Limits(), monotonic).name == "h2"
    with pytest.raises(UsageError, match=r"--http2-engine: 'ngh2': .*install ngh2"):
        pick_http2("ngh2")


def test_a_native_http2_library_that_cannot_be_loaded_gives_way_and_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "ngh2.py").write_text("raise ImportError('libnghttp2.so.14: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "ngh2", raising=False)
    monkeypatch.delitem(sys.modules, "appserver.wire.http2_ngh2", raising=False)
    make = pick_http2()
    assert (make.name, make.flaw) == ("ngh2", "")
    assert make(Limits(), monotonic).name == make.name == "h2"
    assert "the engine ngh2 cannot be loaded, h2 takes its place: libnghttp2.so.14" in make.flaw
    with pytest.raises(UsageError, match=r"--http2-engine: 'ngh2': libnghttp2.so.14"):
        pick_http2("ngh2")


def test_the_setting_offers_what_http2_engines_can_be_picked() -> None:
    [row] = [row for row in TABLE if row.name == "http2_engine"]
    assert {*row.kind.metavar.split("|")} == {select.AUTO, *select._HTTP2}
