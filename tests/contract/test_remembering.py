"""What a connection keeps of a head changes nothing: each request is read as on a connection of its own."""

from hypothesis import given, settings
from hypothesis import strategies as st

from appserver.wire.engine import Body, Engine, Event, Head, Limits, Refused
from appserver.wire.select import MakeEngine
from tests.contract.exchange import begin, request, targets
from tests.contract.test_agreement import FIELDS, LINES

TIGHT = Limits(request_line=60, field=200, fields=4, head=200, body=12)
ONE_MORE = b"GET /" + b"p" * 46  # of 60 bytes, with the version behind it

_GOOD = st.sampled_from([b"GET / HTTP/1.1", b"GET /a?b HTTP/1.1", b"HEAD / HTTP/1.1", b"POST /c HTTP/1.1"])
_LINES = st.one_of(
    _GOOD, _GOOD, st.sampled_from(LINES), st.just(ONE_MORE + b" HTTP/1.1"), st.just(ONE_MORE + b"p HTTP/1.1")
)
_FIELDS = st.lists(st.sampled_from(FIELDS), max_size=3)


def bare(events: list[Event]) -> list[Event]:
    """Without what tells one connection from another."""
    told = [event._replace(kept=False) if isinstance(event, Head) else event for event in events]
    return [event._replace(stream=0) if isinstance(event, Head | Body | Refused) else event for event in told]


def answer(engine: Engine, events: list[Event]) -> bool:
    """End the request, and tell whether the connection takes another."""
    if not isinstance(events[0], Head) or not (events[0].end or isinstance(events[-1], Body)):
        return False
    engine.respond(events[0].stream, 200, [(b"content-length", b"0")], b"", end=True)
    engine.take()
    return not engine.closing and engine.idle


@settings(max_examples=500)
@given(
    pool=st.lists(_FIELDS, min_size=1, max_size=2),
    requests=st.lists(st.tuples(_LINES, st.integers(0, 1), st.booleans()), min_size=2, max_size=8),
    limits=st.sampled_from([Limits(), TIGHT]),
)
def test_each_request_is_read_as_if_it_were_the_first(
    engine: MakeEngine, pool: list[list[bytes]], requests: list[tuple[bytes, int, bool]], limits: Limits
) -> None:
    one = engine(limits)
    for line, which, hosted in requests:
        fields = [b"Host: a"] * hosted + pool[which % len(pool)]
        sent = b"\r\n".join([line, *fields, b"", b""])
        if b"Content-Length: 3" in fields:
            sent += b"abc"
        events = one.receive(sent)
        assert bare(events) == bare(engine(limits).receive(sent))
        if not events or not answer(one, events):
            break


def test_a_target_that_names_its_host_stays_alone(engine: MakeEngine) -> None:
    # RFC 9112 section 3.2.2: it takes the place of Host, of its own request and of no other.
    one = engine(Limits())
    for target, host in [("http://b.example/", b"b.example"), ("/", b"a.example"), ("http://c.example/", b"c.example")]:
        for _ in range(3):
            head = begin(one, request(target=target))
            assert (head.target, head.headers) == (b"/", [(b"host", host)])
            assert answer(one, [head])


def test_what_is_pipelined_behind_a_head_that_is_known(engine: MakeEngine) -> None:
    one = engine(Limits())
    for number in range(3):
        assert targets(one.receive(request(target=f"/{number}"))) == [b"/%d" % number]
        one.respond(number + 1, 200, [], b"", end=True)
    upload = request("POST", target="/4", fields=b"Content-Length: 1\r\n", body=b"x")
    events = one.receive(request(target="/3") + upload)
    assert targets(events) == [b"/3"]
    one.respond(4, 200, [], b"", end=True)
    events = one.receive(b"")
    assert [type(event) for event in events] == [Head, Body]
    assert targets(events) == [b"/4"]


def test_where_heads_always_differ_few_are_kept(engine: MakeEngine) -> None:
    one = engine(Limits())

    def is_kept(number: int) -> bool:
        head = begin(one, request(fields=b"X: %d\r\n" % number))
        assert head.headers[-1] == (b"x", b"%d" % number)
        assert answer(one, [head])
        return head.kept

    assert [number for number in range(64) if is_kept(number)] == [1, 2, 3, 4, 5, 16, 32, 48]
    assert [is_kept(100) for _ in range(19)] == [True] + [False] * 15 + [True] * 3
