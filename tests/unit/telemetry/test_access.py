"""Access records: their fields, their batches, and what becomes of them when nobody reads."""

import asyncio
import fcntl
import io
import json
import os
from collections.abc import Iterator, Sequence
from time import monotonic
from typing import Any, Final, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appserver.telemetry import access as access_module
from appserver.telemetry import stream as stream_module
from appserver.telemetry.access import BACKLOG_BYTES, BATCH, TEMPLATES, AccessLog, _make_record
from appserver.telemetry.journal import render_datagram, render_fields
from appserver.telemetry.lines import CONSOLE_PLAIN, JSON_PLAIN, Console, render_json, stamp_local, stamp_utc
from appserver.telemetry.log import Channel, Log, build, change_level
from appserver.telemetry.record import Form
from appserver.telemetry.text import PLAIN

FORMS = {
    "json": Form(render_json, stamp_utc, 6, JSON_PLAIN),
    "console": Form(Console(colour=False).render, stamp_local, 3, CONSOLE_PLAIN),
    "colour": Form(Console(colour=True).render, stamp_local, 3, CONSOLE_PLAIN),
    "journal": Form(render_datagram, lambda _: "", 0, PLAIN),
}


class Request(NamedTuple):
    method: str = "GET"
    target: bytes = b"/shop?q=1"
    headers: Sequence[tuple[bytes, bytes]] = (
        (b"host", b"example.org"),
        (b"user-agent", b"curl/8\xff"),
        (b"accept", b"*/*"),
        (b"host", b"second"),
    )
    version: str = "1.1"


class Taken(list[bytes]):
    """An outlet that takes everything."""

    unfinished = False

    def offer(self, records: Sequence[bytes]) -> int:
        self += records
        return len(records)

    def wait(self, seconds: float) -> bool:
        return seconds > 0


def tell(access: AccessLog, request: Any = Request(), **changes: Any) -> None:  # noqa: B008 - it is immutable
    exchange: dict[str, Any] = {
        "status": 200,
        "duration": 0.00123,
        "client": "192.0.2.7",
        "request_id": "r1",
        "received": 3,
        "sent": 500,
        "listener": "http",
        "outcome": "complete",
    }
    access.record(request, *{**exchange, **changes}.values())


def make(form: Form, taken: Taken) -> AccessLog:
    return AccessLog(Log(Channel(render_fields, taken.append, 0, form, taken), [], {}))


def record(request: Any = Request(), **changes: Any) -> dict[str, str]:  # noqa: B008
    taken = Taken()
    tell(make(FORMS["journal"], taken), request, **changes)
    return dict(field.decode().split("=", 1) for field in taken[0].splitlines())


# --- fields -----------------------------------------------------------------------------------------------------------


def test_the_fields_of_a_record() -> None:
    assert record() == {
        "MESSAGE": "GET /shop?q=1 200 1.2 ms",
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "appserver",
        "HTTP_METHOD": "GET",
        "HTTP_TARGET": "/shop?q=1",
        "HTTP_STATUS": "200",
        "HTTP_VERSION": "1.1",
        "DURATION_US": "1230",
        "CLIENT_ADDR": "192.0.2.7",
        "REQUEST_ID": "r1",
        "BYTES_RECEIVED": "3",
        "BYTES_SENT": "500",
        "LISTENER": "http",
        "OUTCOME": "complete",
        "HTTP_HOST": "example.org",
        "USER_AGENT": "curl/8\\xff",
    }


@pytest.mark.parametrize(
    ("status", "outcome", "priority"),
    [(404, "complete", "6"), (499, "client_gone", "6"), (500, "complete", "4"), (503, "cut", "4"), (200, "cut", "4")],
)
def test_faults_of_ours_are_warnings(status: int, outcome: str, priority: str) -> None:
    assert record(status=status, outcome=outcome)["PRIORITY"] == priority


def test_an_unusual_outcome_is_in_the_message() -> None:
    assert record(outcome="cut")["MESSAGE"] == "GET /shop?q=1 200 1.2 ms (cut)"


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0.0"), (0.00004, "0.0"), (0.00005, "0.1"), (0.09995, "100.0"), (1.5, "1500.0")]
)
def test_milliseconds_are_rounded(seconds: float, said: str) -> None:
    assert record(duration=seconds)["MESSAGE"] == f"GET /shop?q=1 200 {said} ms"


def test_a_target_cannot_forge_a_line() -> None:
    fields = record(Request(target=b"/\xc2\x85\x1b[2J\xff", headers=[(b"referer", b"a\x7fb")]))
    assert fields["HTTP_TARGET"] == "/\\x85\\x1b[2J\\xff"
    assert fields["REFERER"] == "a\\x7fb"


def test_the_console_shows_the_message_and_the_client() -> None:
    stream = io.StringIO()
    tell(AccessLog(build("info", "console", stream)))
    assert stream.getvalue().partition(" ")[2] == "info     GET /shop?q=1 200 1.2 ms client_addr=192.0.2.7\n"


def test_json_numbers_are_numbers() -> None:
    stream = io.StringIO()
    tell(AccessLog(build("info", "json", stream)))
    data = json.loads(stream.getvalue())
    assert (data["http_status"], data["duration_us"], data["bytes_sent"]) == (200, 1230, 500)


def test_the_level_decides_which_are_written() -> None:
    stream = io.StringIO()
    access = AccessLog(build("warning", "json", stream))
    for headers in ((), Request().headers):
        tell(access, Request(headers=headers))
        assert not stream.getvalue()
    tell(access, status=500)
    assert json.loads(stream.getvalue())["http_status"] == 500


def test_a_level_that_is_changed_holds_for_requests_of_a_kind_that_was_there_before() -> None:
    stream = io.StringIO()
    log = build("info", "json", stream)
    access = AccessLog(log)
    for target, level in ((b"/1", "warning"), (b"/2", "error"), (b"/3", "info"), (b"/4", "trace"), (b"/5", "error")):
        tell(access, Request(target=target))
        tell(access, Request(target=target), status=500)
        change_level(log, level)
    written = [
        (record["http_target"], record["http_status"]) for record in map(json.loads, stream.getvalue().splitlines())
    ]
    assert written == [("/1", 200), ("/1", 500), ("/2", 500), ("/4", 200), ("/4", 500), ("/5", 200), ("/5", 500)]


# --- templates --------------------------------------------------------------------------------------------------------

NASTY = st.text(st.sampled_from('a %"\\=\n\r\t\0\x1b\x7f\x85\x9bé\u2028\u202e\ud800😀') | st.characters(), max_size=8)
BYTES = st.binary(max_size=8) | NASTY.map(lambda text: text.encode("utf-8", "surrogatepass"))
TAME = st.text(st.sampled_from("abc/%?=.-"), max_size=8)
REQUESTS = st.builds(
    Request,
    method=st.sampled_from(["GET", "POST"]) | TAME | NASTY,  # what is no method has no template
    target=TAME.map(str.encode) | BYTES,
    headers=st.lists(st.tuples(st.sampled_from([b"host", b"user-agent", b"referer", b"accept"]), BYTES), max_size=5),
    version=st.sampled_from(["1.0", "1.1", "2"]),
)
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "status": st.integers(100, 999),
        "duration": st.floats(0, 1e6),
        "client": st.sampled_from(["unix", "::1"]) | NASTY.filter(bool),  # there always is one
        "request_id": st.none() | TAME | NASTY,
        "received": st.integers(0, 1 << 70),
        "sent": st.integers(0),
        "listener": st.sampled_from(["http", "%d"]) | NASTY,
        "outcome": st.sampled_from(["complete", "cut", "failed", "client_gone"]),
    },
)


@pytest.mark.parametrize("form", FORMS)
@given(exchanges=st.lists(st.tuples(REQUESTS, CHANGES), min_size=1, max_size=4))
def test_a_template_gives_what_the_renderer_gives(form: str, exchanges: list[tuple[Request, dict[str, Any]]]) -> None:
    taken = Taken()
    access = make(FORMS[form], taken)
    access._batch = 2 * len(exchanges) + 1
    for request, changes in exchanges * 2:  # the second time by a template of the first
        tell(access, request, **changes)
    facts = list(access._waiting)
    access.flush()
    assert taken == [FORMS[form].render(*_make_record(fact)) for fact in facts]


@pytest.mark.parametrize("form", FORMS)
@given(times=st.lists(st.integers(1000, 4_000_000_000) | st.integers(1000, 1 << 62), min_size=2, max_size=8))
def test_a_batch_tells_each_record_s_own_time(form: str, times: list[int]) -> None:
    taken = Taken()
    access = make(FORMS[form], taken)
    access._batch = len(times) + 1
    for _ in times:
        tell(access, Request(headers=()))
    access._waiting = [(time, *facts[1:]) for time, facts in zip(times, access._waiting, strict=True)]
    facts = list(access._waiting)
    access.flush()
    assert taken == [FORMS[form].render(*_make_record(fact)) for fact in facts]


@pytest.mark.parametrize("form", FORMS)
def test_usual_records_are_rendered_by_their_template_alone(form: str) -> None:
    taken, rendered = Taken(), 0

    def render(level: str, words: Any) -> bytes:
        nonlocal rendered
        rendered += 1
        return FORMS[form].render(level, words)

    access = make(FORMS[form]._replace(render=render), taken)
    for number in range(100):
        headers = [(b"host", b"example.org"), (b"user-agent", b"curl/8.14.1")]
        tell(access, Request(target=b"/%d?50%%25" % number, headers=headers), client=f"192.0.2.{number}")
    assert rendered == 1
    assert len(set(taken)) == 100


def test_a_client_that_tries_methods_fills_no_memory() -> None:
    access = make(FORMS["json"], Taken())
    for number in range(TEMPLATES * 2 + 10):
        tell(access, Request(method=f"M{number}"))
    tell(access, Request(method="GET"))
    assert [key[0] for key in access._templates] == ["GET"]


# --- batches ----------------------------------------------------------------------------------------------------------


def test_a_batch_is_written_a_little_later_with_the_times_of_its_records(monkeypatch: pytest.MonkeyPatch) -> None:
    nanoseconds = iter((1_700_000_000_123_456_789, 1_700_000_001_000_000_000))
    monkeypatch.setattr(access_module, "time_ns", lambda: next(nanoseconds))

    async def scene() -> None:
        taken = Taken()
        access = make(FORMS["json"], taken)
        loop, written = asyncio.get_running_loop(), list[int]()
        access.start(loop)
        # The loop calls what is due in the order of its times, however late it comes to it.
        loop.call_later(0.04, lambda: written.append(len(taken)))
        tell(access)
        tell(access)
        assert not taken
        loop.call_later(0.5, lambda: written.append(len(taken)))
        while len(written) < 2:
            await asyncio.sleep(0.001)
        assert written == [0, 2]
        assert [json.loads(line)["timestamp"] for line in taken] == [
            "2023-11-14T22:13:20.123456Z",
            "2023-11-14T22:13:21.000000Z",
        ]

    asyncio.run(scene())


def test_a_full_batch_is_written_at_once_and_the_rest_at_the_end() -> None:
    async def scene() -> None:
        taken = Taken()
        access = make(FORMS["json"], taken)
        access.start(asyncio.get_running_loop())
        for _ in range(BATCH + 3):
            tell(access)
        assert len(taken) == BATCH
        access.close()
        assert len(taken) == BATCH + 3
        tell(access)
        assert len(taken) == BATCH + 4

    asyncio.run(scene())


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 16_384)
    try:
        yield reading, writing
    finally:
        os.close(reading)
        os.close(writing)


def drain(reading: int) -> bytes:
    data = b""
    try:
        while more := os.read(reading, 65536):
            data += more
    except BlockingIOError:
        pass
    return data


LONG_STALL: Final = 15.0
"""A wait for the reader, so long that none is told from a machine that is busy."""


def test_a_reader_that_pauses_misses_nothing_and_sees_whole_lines(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "STALL_SECONDS", LONG_STALL)
    reading, writing = pipe

    async def scene() -> bytes:
        with open(writing, "w", closefd=False) as stream:  # noqa: ASYNC230 - a descriptor
            log = build("info", "json", stream)
        access = AccessLog(log)
        access.start(asyncio.get_running_loop())
        data, begun = b"", monotonic()
        for number in range(1000):
            tell(access, Request(target=b"/%d" % number))
        assert monotonic() - begun < LONG_STALL, "it waited for the reader"
        while data.count(b"\n") < 1000:
            await asyncio.sleep(0.001)
            data += drain(reading)
        assert log.dropped == 0
        return data

    lines = asyncio.run(asyncio.wait_for(scene(), 60)).splitlines()
    assert [json.loads(line)["http_target"] for line in lines] == [f"/{number}" for number in range(1000)]


def test_an_event_is_written_between_whole_lines(pipe: tuple[int, int]) -> None:
    reading, writing = pipe

    async def scene() -> bytes:
        with open(writing, "w", closefd=False) as stream:  # noqa: ASYNC230
            log = build("info", "json", stream)
        access = AccessLog(log)
        access.start(asyncio.get_running_loop())
        for _ in range(BATCH):
            tell(access, Request(target=b"/" + b"x" * 4500))  # longer than PIPE_BUF: one fills the pipe, and not whole
        data = drain(reading)
        assert not data.endswith(b"\n")
        log.info("between")
        while data.count(b"\n") < BATCH + 1:
            data += drain(reading)
            await asyncio.sleep(0.001)
        return data

    messages = [json.loads(line)["message"] for line in asyncio.run(asyncio.wait_for(scene(), 60)).splitlines()]
    assert 0 < messages.index("between") < BATCH
    assert len(messages) == BATCH + 1


def test_what_is_too_much_to_keep_is_dropped_counted_and_told(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_module, "TOLD_SECONDS", 0.1)
    monkeypatch.setattr(stream_module, "STALL_SECONDS", LONG_STALL)
    reading, writing = pipe

    async def scene() -> tuple[int, bytes]:
        with open(writing, "w", closefd=False) as stream:  # noqa: ASYNC230
            log = build("info", "json", stream)
        access = AccessLog(log)
        access.start(asyncio.get_running_loop())
        big = Request(target=b"/" + b"x" * 8000)
        count, begun = 4 * BACKLOG_BYTES // 16_000, monotonic()
        for _ in range(count):
            tell(access, big)
        assert monotonic() - begun < LONG_STALL, "it waited for the reader"
        kept = sum(map(len, access._rendered))
        assert BACKLOG_BYTES <= kept < BACKLOG_BYTES + BATCH * 17_000
        data = b""
        while b" access records were dropped" not in data:
            await asyncio.sleep(0.001)
            data += drain(reading)
            access.flush()  # as the life's tick does
        tell(access)
        access.close()
        data += drain(reading)
        assert data.count(b'"http_target"') == count + 1 - log.dropped
        return log.dropped, data

    dropped, data = asyncio.run(asyncio.wait_for(scene(), 60))
    told = [record for record in map(json.loads, data.splitlines()) if record.get("event") == "log_dropped"]
    assert dropped > 0
    assert [record["level"] for record in told] == ["warning", "warning"]
    assert told[1]["dropped"] == dropped
    assert told[1]["message"] == f"{dropped} access records were dropped"


def test_the_end_waits_for_a_reader_but_not_for_ever(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_module, "STALL_SECONDS", 0.2)
    with open(pipe[1], "w", closefd=False) as stream:
        log = build("info", "json", stream)
    access = AccessLog(log)
    access._batch = BATCH
    for _ in range(BATCH):
        tell(access)
    begun = monotonic()
    access.close()
    assert 0.2 <= monotonic() - begun < 20
    complete = drain(pipe[0]).count(b"\n")
    assert log.dropped == BATCH - complete


def test_a_log_that_cannot_be_written_raises_nothing() -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        log = build("info", "json", full)
        access = AccessLog(log)
        tell(access)
        access.close()
    assert log.dropped == 1


def test_losses_are_told_when_writing_works_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_module, "TOLD_SECONDS", 0.0)

    class Broken(Taken):
        working = False

        def offer(self, records: Sequence[bytes]) -> int:
            if not self.working:
                raise BrokenPipeError
            return super().offer(records)

    taken = Broken()
    access = make(FORMS["json"], taken)
    tell(access)
    tell(access)
    access.flush()
    taken.working = True
    tell(access)
    access.flush()
    assert [json.loads(line).get("dropped") for line in taken] == [None, 2]
