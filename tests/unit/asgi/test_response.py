"""Trailers, early hints and promises."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from appserver.asgi.cycle import COMPLETE
from appserver.asgi.transitions import TRAILING
from appserver.asgi.types import Message, Receive, Scope, Send
from appserver.errors import ClientDisconnectedError, MisuseError
from appserver.wire.engine import Headers
from tests.unit.asgi.stage import (
    ANNOUNCE,
    CONTENT,
    FILE_LAST,
    FILE_MORE,
    HINT,
    LAST,
    MORE,
    PATH,
    PUSH,
    START,
    TRAILERS,
    TRAILERS_MORE,
    Stage,
    body,
    breathe,
    perform,
    play,
    sends,
    start,
)

WILLING: Headers = [(b"te", b"trailers")]
SUM = (b"x-sum", b"1")
HOST = (b"host", b"a.example")


def announce(status: int = 200, *headers: object) -> Message:
    return {**start(status, *headers), "trailers": True}


def trailers(*headers: object, more: bool = False) -> Message:
    return {"type": "http.response.trailers", "headers": list(headers), "more_trailers": more}


def hint(*links: object) -> Message:
    return {"type": "http.response.early_hint", "links": list(links)}


def push(path: object, *headers: object) -> Message:
    return {"type": "http.response.push", "path": path, "headers": list(headers)}


# Trailers


@pytest.mark.parametrize(
    ("messages", "content"),
    [
        ([LAST], b"last"),
        ([body(b"")], b""),
        ([MORE, LAST], b"morelast"),
        ([PATH], CONTENT),
        ([FILE_LAST], CONTENT),
        ([FILE_MORE, LAST], CONTENT + b"last"),
        ([MORE, FILE_LAST], b"more" + CONTENT),
    ],
)
def test_trailers_end_any_body(messages: list[Message], content: bytes) -> None:
    stage = perform(sends(ANNOUNCE, *messages, TRAILERS), headers=WILLING)
    assert (stage.peer.status, stage.peer.content, stage.peer.cut) == (200, content, False)
    assert (stage.peer.trailing, stage.length) == ([SUM], [])
    [answer] = stage.records.answers()
    assert (answer["outcome"], answer["bytes_sent"]) == ("complete", len(content))
    assert stage.records.of("misuse") == []


def test_trailers_may_come_in_several_messages_and_leave_in_one() -> None:
    async def scene() -> None:
        stage = Stage(headers=WILLING)
        for message in (ANNOUNCE, LAST, trailers((b"X-A", b"1"), more=True), trailers(more=True)):
            await stage.cycle.send(message)
        assert (stage.cycle._state, stage.peer.trailing, stage.peer.ended) == (TRAILING, None, False)
        await stage.cycle.send(trailers((b"x-b", b"2"), (b"x-a", b"3")))
        assert stage.peer.trailing == [(b"x-a", b"1"), (b"x-b", b"2"), (b"x-a", b"3")]
        assert (stage.cycle._state, stage.peer.ended) == (COMPLETE, True)

    play(scene())


def test_trailers_get_none_of_the_servers_own_fields() -> None:
    stage = perform(sends(ANNOUNCE, LAST, TRAILERS), headers=WILLING, fields=[(b"server", b"ours")])
    assert stage.peer.headers == [(b"server", b"ours")]
    assert stage.peer.trailing == [SUM]


def test_a_message_without_trailers_ends_the_response_all_the_same() -> None:
    stage = perform(sends(ANNOUNCE, LAST, {"type": "http.response.trailers"}), headers=WILLING)
    assert (stage.peer.content, stage.peer.ended, stage.peer.cut, stage.peer.trailing) == (b"last", True, False, None)


@pytest.mark.parametrize("announced", [False, None, 0])
def test_trailers_that_are_not_announced_are_misuse(announced: object) -> None:
    stage = perform(sends({**START, "trailers": announced}, LAST, TRAILERS), headers=WILLING)
    assert (stage.peer.content, stage.peer.ended, stage.peer.trailing) == (b"last", True, None)
    assert len(stage.records.of("misuse")) == 1


@pytest.mark.parametrize(
    ("fields", "willing"),
    [
        ([], False),
        ([(b"te", b"trailers")], True),
        ([(b"te", b"gzip, Trailers ")], True),
        ([(b"te", b"gzip;q=0.5"), (b"te", b"trailers")], True),
        ([(b"te", b"gzip")], False),
        ([(b"te", b"")], False),
        ([(b"te", b"xtrailers")], False),
        ([(b"accept", b"trailers")], False),
    ],
)
def test_trailers_go_to_clients_that_take_them(fields: Headers, willing: bool) -> None:
    stage = perform(sends(ANNOUNCE, MORE, LAST, TRAILERS), headers=fields)
    assert stage.peer.trailing == ([SUM] if willing else None)
    assert (stage.peer.content, stage.peer.ended, stage.peer.cut) == (b"morelast", True, False)


@pytest.mark.parametrize(
    ("method", "status", "messages"),
    [("HEAD", 200, [LAST]), ("HEAD", 200, [PATH]), ("GET", 204, [body(b"")]), ("GET", 304, [body(b"")])],
)
def test_a_response_without_a_body_has_no_trailers_either(method: str, status: int, messages: list[Message]) -> None:
    stage = perform(sends(announce(status), *messages, TRAILERS), method=method, headers=WILLING)
    assert (stage.peer.status, stage.peer.content, stage.peer.trailing) == (status, b"", None)
    assert (stage.peer.ended, stage.peer.cut, stage.length) == (True, False, [])
    assert stage.records.of("misuse") == []


def test_a_promised_length_is_held_to_before_trailers_too() -> None:
    head = announce(200, (b"content-length", b"5"))
    for messages, word in (([LAST], "shorter"), ([MORE, LAST], "longer"), ([PATH], "longer")):
        stage = perform(sends(head, *messages, TRAILERS), headers=WILLING)
        assert f"{word} than its content-length" in stage.records.of("misuse")[0]["message"]
    stage = perform(sends(head, body(b"12345"), TRAILERS), headers=WILLING)
    assert (stage.peer.content, stage.length, stage.peer.trailing) == (b"12345", [b"5"], [SUM])


def test_an_empty_file_before_trailers_does_not_end_the_response(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    by_path = {"type": "http.response.pathsend", "path": str(path)}
    with path.open("rb") as file:
        by_file = {"type": "http.response.zerocopysend", "file": file}
        for messages in ([by_path], [by_file], [MORE, by_file]):
            stage = perform(sends(ANNOUNCE, *messages, TRAILERS), headers=WILLING)
            assert (stage.peer.trailing, stage.peer.cut, stage.length) == ([SUM], False, [])


@pytest.mark.parametrize(
    "name",
    [b"content-length", b"Transfer-Encoding", b"host", b"te", b"Trailer", b"content-type", b"set-cookie", b"date"],
)
@pytest.mark.parametrize("more", [False, True])
def test_what_is_needed_before_the_body_may_not_be_a_trailer(name: bytes, more: bool) -> None:
    stage = perform(sends(ANNOUNCE, LAST, trailers((name, b"1"), more=more)), headers=WILLING)
    assert (stage.peer.trailing, stage.peer.cut) == (None, True)
    [record] = stage.records.of("misuse")
    assert f"{name.decode().lower()} may not be a trailer" in record["message"]
    assert record["code_func"] == "application"


@pytest.mark.parametrize(
    ("field", "complaint"),
    [
        ((b"x", b"1\r\ny: 2"), "holds CR, LF or NUL"),
        ((b"x\r\ny", b"1"), "header name"),
        ((b":status", b"200"), "header name"),
        ((b"", b"1"), "header name"),
        ((b"x", "1"), "byte strings"),
        (b"x", "byte strings"),
    ],
)
def test_trailers_are_checked_as_headers_are(field: object, complaint: str) -> None:
    stage = perform(sends(ANNOUNCE, LAST, trailers(field)), headers=WILLING)
    assert (stage.peer.trailing, stage.peer.cut) == (None, True)
    assert complaint in stage.records.of("misuse")[0]["message"]


def test_after_trailers_that_cannot_be_sent_others_can() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send(ANNOUNCE)
        await send(LAST)
        with pytest.raises(MisuseError):
            await send(trailers((b"x", b"\n")))
        await send(TRAILERS)

    assert perform(application, headers=WILLING).peer.trailing == [SUM]


@pytest.mark.parametrize("messages", [[LAST], [MORE, LAST], [PATH], [LAST, TRAILERS_MORE]])
def test_trailers_that_never_come_are_told_and_cut_the_response(messages: list[Message]) -> None:
    stage = perform(sends(ANNOUNCE, *messages), headers=WILLING)
    assert (stage.peer.status, stage.peer.cut, stage.peer.trailing) == (200, True, None)
    [record] = stage.records.of("misuse")
    assert "expected http.response.trailers" in record["message"]
    [answer] = stage.records.answers()
    assert answer["outcome"] == "cut"


def test_an_exception_before_the_trailers_cuts_the_response() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send(ANNOUNCE)
        await send(LAST)
        raise ValueError("no sum")

    stage = perform(application, headers=WILLING)
    assert (stage.peer.cut, stage.peer.content) == (True, b"last")
    assert len(stage.records.of("application_error")) == 1


def test_a_client_that_goes_before_the_trailers_is_no_fault() -> None:
    async def scene() -> None:
        stage = Stage(headers=WILLING)
        await stage.cycle.send(ANNOUNCE)
        await stage.cycle.send(LAST)
        stage.cycle.disconnect()
        with pytest.raises(ClientDisconnectedError):
            await stage.cycle.send(TRAILERS)
        [answer] = stage.records.answers()
        assert (answer["outcome"], stage.peer.cut) == ("client_gone", False)

    play(scene())


def test_receive_goes_on_until_the_trailers_have_been_sent() -> None:
    async def scene() -> None:
        stage = Stage(headers=WILLING)
        await stage.cycle.receive()
        waiting = asyncio.create_task(stage.cycle.receive())
        for message in (ANNOUNCE, LAST):
            await stage.cycle.send(message)
        await breathe()
        assert not waiting.done()
        await stage.cycle.send(TRAILERS)
        assert await waiting == {"type": "http.disconnect"}

    play(scene())


# Early hints

STYLE = b"</style.css>; rel=preload; as=style"
FONT = b"</font.woff2>; rel=preload"


@pytest.mark.parametrize("before", [[], [START]])
def test_a_hint_leaves_before_the_head(before: list[Message]) -> None:
    async def scene() -> None:
        stage = Stage()
        for message in before:
            await stage.cycle.send(message)
        await stage.cycle.send(hint(STYLE, FONT))
        assert stage.peer.informed == [(103, [(b"link", STYLE), (b"link", FONT)])]
        await stage.cycle.send(hint(FONT))
        assert len(stage.peer.informed) == 2
        for message in (START, LAST)[len(before) :]:
            await stage.cycle.send(message)
        assert (stage.peer.status, stage.peer.headers, stage.peer.content) == (200, [], b"last")

    play(scene())


def test_a_hint_behind_the_head_is_too_late_and_no_fault() -> None:
    stage = perform(sends(START, MORE, HINT, LAST))
    assert (stage.peer.informed, stage.peer.content, stage.records.of("misuse")) == ([], b"morelast", [])


def test_a_hint_of_nothing_is_not_sent() -> None:
    stage = perform(sends(hint(), START, LAST))
    assert (stage.peer.informed, stage.peer.content, stage.records.of("misuse")) == ([], b"last", [])


def test_links_may_be_any_iterable_of_any_kind_of_bytes() -> None:
    links = iter([STYLE, bytearray(STYLE), memoryview(STYLE)])
    stage = perform(sends({"type": "http.response.early_hint", "links": links}, START, LAST))
    assert stage.peer.informed == [(103, [(b"link", STYLE)] * 3)]


@pytest.mark.parametrize("links", [None, 7, b"</a>", "</a>", ["</a>"], [b"</a>", None], [[b"link", b"</a>"]]])
@pytest.mark.parametrize("before", [[], [START], [START, MORE]])
def test_what_are_no_links_is_misuse(before: list[Message], links: object) -> None:
    stage = perform(sends(*before, {"type": "http.response.early_hint", "links": links}))
    assert "links must be an iterable of byte strings" in stage.records.of("misuse")[0]["message"]
    assert stage.peer.informed == []


@pytest.mark.parametrize("link", [b"</a>\r\nset-cookie: b", b"</a>\n", b"\0"])
def test_a_link_that_would_end_its_line_is_misuse(link: bytes) -> None:
    stage = perform(sends(hint(STYLE, link)))
    assert "the value of link holds CR, LF or NUL" in stage.records.of("misuse")[0]["message"]
    assert (stage.peer.informed, stage.peer.status) == ([], 500)


# Promises


@pytest.mark.parametrize("before", [[], [START], [START, MORE]])
def test_an_answer_can_be_promised_before_and_during_the_response(before: list[Message]) -> None:
    messages = [*before, push("/a b.css?v=1", (b"Accept", b"*/*")), *[START, MORE, LAST][len(before) :]]
    stage = perform(sends(*messages), push=True)
    assert stage.peer.pushed == [(b"/a%20b.css?v=1", [HOST, (b"accept", b"*/*")])]
    assert (stage.peer.content, stage.records.of("misuse")) == (b"morelast", [])


def test_a_promised_path_is_under_the_mount_point_as_all_paths_are() -> None:
    stage = perform(sends(push("/shop/style.css"), START, LAST), push=True, root_path="/shop")
    assert stage.peer.pushed == [(b"/style.css", [HOST])]


def test_what_is_the_servers_to_say_is_left_out_of_a_promise() -> None:
    names = [b"Host", b"content-length", b"Connection", b"te", b"transfer-encoding", b"upgrade"]
    message = push("/", *[(name, b"1") for name in names], (b"cookie", b"a"))
    stage = perform(sends(message, START, LAST), push=True, fields=[(b"server", b"ours")])
    assert stage.peer.pushed == [(b"/", [HOST, (b"cookie", b"a")])]


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (push("style.css"), "path must be a string that begins with '/'"),
        (push(b"/style.css"), "path must be"),
        ({"type": "http.response.push"}, "path must be"),
        (push("/", (b":path", b"/")), "header name"),
        (push("/", (b"a", b"\r\n")), "holds CR, LF or NUL"),
        (push("/", (b"a", 1)), "byte strings"),
    ],
)
def test_a_promise_that_cannot_be_made_is_misuse(message: Message, complaint: str) -> None:
    stage = perform(sends(message), push=True)
    assert complaint in stage.records.of("misuse")[0]["message"]
    assert (stage.peer.pushed, stage.peer.status) == ([], 500)


@pytest.mark.parametrize("extensions", [{}, None, {"http.response.pathsend": {}}])
def test_a_promise_that_was_not_offered_is_misuse(extensions: Any) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        scope["extensions"] = extensions
        await send(PUSH)

    for stage in (perform(sends(PUSH)), perform(application, push=True)):
        assert "http.response.push is not among the extensions" in stage.records.of("misuse")[0]["message"]
        assert (stage.peer.pushed, stage.peer.status) == ([], 500)


# What comes too late


@pytest.mark.parametrize("message", [HINT, PUSH])
@pytest.mark.parametrize("before", [[START, LAST], [ANNOUNCE, LAST]])
def test_nothing_goes_beside_a_body_that_has_ended(before: list[Message], message: Message) -> None:
    async def scene() -> None:
        stage = Stage(push=True)
        for earlier in before:
            await stage.cycle.send(earlier)
        with pytest.raises(MisuseError, match="expected"):
            await stage.cycle.send(message)
        assert (stage.peer.informed, stage.peer.pushed) == ([], [])

    play(scene())
