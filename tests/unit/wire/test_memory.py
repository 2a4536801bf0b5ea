import pytest

from appserver.wire.engine import Limits
from appserver.wire.memory import KEPT_FIELDS, HeadMemory
from appserver.wire.semantics import Request

REST = b" HTTP/1.1\r\nHost: a.example\r\nAccept: */*\r\n\r\n"
HEADERS = [(b"host", b"a.example"), (b"accept", b"*/*")]


def remembering(line: bytes = b"GET /", rest: bytes = REST, limits: Limits | None = None) -> HeadMemory:
    memory = HeadMemory(limits or Limits())
    memory.keep(line + rest, Request("GET", b"/", HEADERS, "1.1", 7, True, True, True))
    return memory


@pytest.mark.parametrize("line", [b"GET /", b"GET /other?q=1", b"DELETE /%20/a;b=c"])
def test_a_head_that_ends_as_the_last_one_means_the_same(line: bytes) -> None:
    method, target = line.split(b" ")
    told = remembering().recall(line + REST)
    assert told == Request(method.decode(), target, HEADERS, "1.1", 7, True, True, True)
    assert told.headers is HEADERS  # whose fields have been looked at


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + REST.replace(b"*/*", b"*"),
        b"GET /" + REST.replace(b"1.1", b"1.0"),
        b"GET /\r\nX: y" + REST,
        b"GET / /" + REST,
        b"GET  /" + REST,
        b"GET /\t" + REST,
        b"GET /a#b" + REST,
        b"GET /\xe4" + REST,
        b"GET *" + REST,
        b"GET http://b.example/" + REST,
        b"GET" + REST,
        b"BREW /" + REST,
        b"get /" + REST,
        b" /" + REST,
        REST,
        REST[1:],
    ],
)
def test_no_other_head_is_taken_for_it(head: bytes) -> None:
    assert remembering().recall(head) is None


def test_nothing_is_known_at_first() -> None:
    assert HeadMemory(Limits()).recall(b"GET /" + REST) is None


@pytest.mark.parametrize("line", [b"OPTIONS *", b"GET http://a.example/", b"CONNECT a.example:443"])
def test_only_the_usual_form_of_a_target_leaves_the_fields_as_they_are(line: bytes) -> None:
    memory = remembering(line)
    assert memory.recall(b"GET /" + REST) is None
    memory = remembering()
    memory.keep(line + REST, Request("GET", b"/", HEADERS, "1.1", 0, False, False, False))
    assert memory.recall(b"GET /" + REST) is None  # the one before is forgotten


@pytest.mark.parametrize("limits", [Limits(request_line=60), Limits(field=60), Limits(head=60)])
def test_a_head_that_may_break_a_limit_is_read(limits: Limits) -> None:
    memory = remembering(limits=limits)
    room = 60 - len(REST) - len(b"GET /")
    assert memory.recall(b"GET /" + b"p" * room + REST) is not None
    assert memory.recall(b"GET /" + b"p" * (room + 1) + REST) is None


@pytest.mark.parametrize("count", [KEPT_FIELDS, KEPT_FIELDS + 1])
def test_a_head_of_very_many_fields_is_not_kept(count: int) -> None:
    memory = HeadMemory(Limits())
    head = b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % number for number in range(count)) + b"\r\n"
    memory.keep(head, Request("GET", b"/", [(b"x", b"y")] * count, "1.1", 0, False, False, False))
    assert (memory.recall(head) is not None) is (count == KEPT_FIELDS)
    assert len(memory.headers) in (0, KEPT_FIELDS)


def test_what_is_kept_is_bounded() -> None:
    start, end = b" HTTP/1.1\r\nHost: a\r\nCookie: ", b"\r\n\r\n"
    for size, kept in [(2048, True), (2049, False)]:
        rest = start + b"c" * (size - len(start) - len(end)) + end
        assert (remembering(rest=rest).recall(b"GET /" + rest) is not None) is kept
