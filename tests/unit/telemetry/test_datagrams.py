"""Datagrams to a socket that stands where the journal's would; the journal itself is met in tests/system."""

import socket
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from appserver.telemetry import datagrams as datagrams_module
from appserver.telemetry.datagrams import Datagrams
from appserver.telemetry.journal import render_datagram


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "socket"


def bind(path: Path) -> socket.socket:
    journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    journal.bind(str(path))
    journal.setblocking(False)
    return journal


@pytest.fixture
def journal(path: Path) -> Iterator[socket.socket]:
    with bind(path) as found:
        yield found


@pytest.fixture
def sink(path: Path) -> Iterator[Datagrams]:
    found = Datagrams(path)
    yield found
    found.close()


def receive(journal: socket.socket) -> list[bytes]:
    found = []
    try:
        while True:
            found.append(journal.recv(1 << 20))
    except BlockingIOError:
        return found


def test_a_record_is_a_datagram(journal: socket.socket, sink: Datagrams) -> None:
    records = [render_datagram("info", {"event": f"{number}\n", "http_status": 200}) for number in range(3)]
    assert sink.offer(records) == 3
    assert receive(journal) == [
        b"MESSAGE=%d\\x0a\nPRIORITY=6\nSYSLOG_IDENTIFIER=appserver\nHTTP_STATUS=200\n" % number for number in range(3)
    ]


def test_what_a_slow_journal_does_not_take_is_left(journal: socket.socket, sink: Datagrams) -> None:
    records = [b"MESSAGE=%d\n" % number for number in range(5000)]
    begun = monotonic()
    taken = sink.offer(records)
    assert 0 < taken < 5000
    assert sink.offer(records[taken:]) == 0
    assert not sink.wait(0.01)
    assert monotonic() - begun < 15  # it waits for nobody, or for ever
    assert receive(journal) == records[:taken]
    assert sink.wait(1)
    assert sink.offer(records[taken : taken + 2]) == 2


def test_a_journal_that_is_replaced_is_found_again(path: Path, sink: Datagrams) -> None:
    with bind(path) as first:
        assert sink.offer([b"MESSAGE=1\n"]) == 1
        assert receive(first) == [b"MESSAGE=1\n"]
    path.unlink()
    with bind(path) as second:
        assert sink.offer([b"MESSAGE=2\n", b"MESSAGE=3\n"]) == 2
        assert receive(second) == [b"MESSAGE=2\n", b"MESSAGE=3\n"]


def test_a_journal_that_is_gone_refuses(path: Path, sink: Datagrams) -> None:
    with pytest.raises(FileNotFoundError):
        sink.offer([b"MESSAGE=1\n"])
    bind(path).close()
    with pytest.raises(ConnectionRefusedError):
        sink.offer([b"MESSAGE=1\n"])


def test_a_record_too_long_for_a_datagram_goes_through_libsystemd(
    journal: socket.socket, sink: Datagrams, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[bytes, ...]] = []
    monkeypatch.setattr(datagrams_module, "sendv", lambda *fields: sent.append(fields))
    long = b"REFERER=" + b"x" * (16 << 20)
    assert sink.offer([b"MESSAGE=1\n", b"MESSAGE=2\n" + long + b"\n", b"MESSAGE=3\n"]) == 3
    assert sent == [(b"MESSAGE=2", long)]
    assert receive(journal) == [b"MESSAGE=1\n", b"MESSAGE=3\n"]
