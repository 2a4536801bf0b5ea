"""RFC 9113 section 6.8: how a server leaves that is told to stop, without losing a request."""

from tests.conformance.http2 import frames
from tests.conformance.http2.client import Client
from tests.conformance.http2.frames import MAX_WINDOW, Code
from tests.conformance.http2.memory import Memory


def leave(local: Client, memory: Memory) -> None:
    """Have the server stop; its first GOAWAY names no last stream."""
    memory.leave()
    local.until(lambda: bool(local.ledger.goaways), "GOAWAY")
    assert local.ledger.goaways[0][:2] == (MAX_WINDOW, Code.NO_ERROR)
    assert not local.closed


def acknowledge(local: Client) -> None:
    """Answer the server's PING, which tells it that the client has seen its GOAWAY."""
    local.until(lambda: bool(local.ledger.pings), "PING")
    local.send(*(frames.ping(payload, ack=True) for payload in local.ledger.pings))
    local.until(lambda: len(local.ledger.goaways) > 1, "the second GOAWAY")


def test_requests_that_were_under_way_are_answered(local: Client, memory: Memory) -> None:
    """6.8: those that the client sent before it saw the first GOAWAY."""
    leave(local, memory)
    local.expect_answer(local.ask())
    acknowledge(local)
    assert local.ledger.goaways[1][:2] == (1, Code.NO_ERROR)
    local.expect_closed()


def test_what_has_begun_is_finished(local: Client, memory: Memory) -> None:
    """6.8: streams up to the last one; then the server closes."""
    stream = local.post(b"/", b"one ", end=False)
    leave(local, memory)
    acknowledge(local)
    local.send(frames.data(stream, b"two", end=True))
    assert local.expect_answer(stream).told["body"] == "one two"
    local.expect_closed()


def test_what_comes_too_late_is_not_begun(local: Client, memory: Memory) -> None:
    """6.8, 8.7: behind the second GOAWAY requests are ignored or refused, so that they may be sent elsewhere."""
    stream = local.post(b"/", b"one ", end=False)
    leave(local, memory)
    acknowledge(local)
    late = local.ask(b"/", (b"x-new", b"into the table"))
    local.sync()
    assert late not in memory.exchanges
    assert local.ledger.answer(late).reset in (None, Code.REFUSED_STREAM)
    local.send(frames.data(stream, b"two", end=True))
    local.expect_answer(stream)
    local.expect_closed()


def test_an_idle_connection_ends(local: Client, memory: Memory) -> None:
    """6.8: once the client has answered PING."""
    local.expect_answer(local.ask())
    leave(local, memory)
    acknowledge(local)
    local.expect_closed()


def test_before_the_first_byte(memory: Memory) -> None:
    """3.4, 6.8: SETTINGS stay the first frame."""
    client = Client(memory)
    memory.leave()
    client.start()
    client.expect_answer(client.ask())


def test_an_error_while_leaving(local: Client, memory: Memory) -> None:
    """6.8: the last GOAWAY is the one that counts, and its last stream does not grow; the ledger looks."""
    local.ask(b"/hold")
    leave(local, memory)
    acknowledge(local)
    local.send(frames.data(0, b"x"))
    local.expect_goaway(Code.PROTOCOL_ERROR)
