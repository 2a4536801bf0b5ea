from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appserver.asgi import scope, transitions
from appserver.asgi.cycle import COMPLETE
from appserver.asgi.transitions import AWAITED, HELD, STREAMING, TRAILING, TRANSITIONS, expected
from appserver.asgi.types import Application, Message, Receive, Scope, Send
from appserver.errors import MisuseError
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
    play,
)

INPUTS: dict[str, Message] = {
    transitions.START: START,
    transitions.MORE: MORE,
    transitions.LAST: LAST,
    transitions.FILE_MORE: FILE_MORE,
    transitions.FILE_LAST: FILE_LAST,
    transitions.PATH: PATH,
    transitions.TRAILERS_MORE: TRAILERS_MORE,
    transitions.TRAILERS: TRAILERS,
    transitions.HINT: HINT,
    scope.PUSH: PUSH,
}
ANNOUNCED: dict[str, Message] = {
    **INPUTS,
    transitions.START: ANNOUNCE,
    transitions.LAST_OF_BODY: LAST,
    transitions.FILE_LAST_OF_BODY: FILE_LAST,
    transitions.PATH_BEFORE: PATH,
}
for ending in (transitions.LAST, transitions.FILE_LAST, transitions.PATH):
    del ANNOUNCED[ending]
ENDS: list[Message] = [LAST, FILE_LAST, PATH]
FILES: list[Message] = [FILE_LAST, FILE_MORE, PATH]
STRANGE: list[Any] = [
    {"type": "http.response.debug", "info": {}},
    {"type": "websocket.send", "text": "hello"},
    {"type": None},
    {"type": b"http.response.start"},
    {"type": ["http.response.start"]},
    {"status": 200},
    {},
    None,
    7,
    "http.response.start",
    [],
]
WAYS: dict[str, list[Message]] = {
    AWAITED: [],
    HELD: [START],
    STREAMING: [START, MORE],
    COMPLETE: [START, LAST],
}
ANNOUNCED_WAYS: dict[str, list[Message]] = {
    HELD: [ANNOUNCE],
    STREAMING: [ANNOUNCE, MORE],
    TRAILING: [ANNOUNCE, MORE, LAST, TRAILERS_MORE],
    COMPLETE: [ANNOUNCE, LAST, TRAILERS],
}
CASES = [
    *((way, state, kind, INPUTS[kind]) for (state, way), kind in product(WAYS.items(), INPUTS)),
    *((way, state, kind, ANNOUNCED[kind]) for (state, way), kind in product(ANNOUNCED_WAYS.items(), ANNOUNCED)),
]


def test_every_row_of_the_table_is_tried_below() -> None:
    assert set(TRANSITIONS) <= {(state, kind) for _, state, kind, _ in CASES}
    assert {following for _, following in TRANSITIONS.values()} <= {*WAYS, *ANNOUNCED_WAYS}


@pytest.mark.parametrize(("way", "state", "kind", "message"), CASES)
def test_every_message_in_every_state_is_in_the_table_or_misuse(
    way: list[Message], state: str, kind: str, message: Message
) -> None:
    async def scene() -> None:
        stage = Stage(push=True)
        for earlier in way:
            await stage.cycle.send(earlier)
        assert stage.cycle._state == state
        if (state, kind) in TRANSITIONS:
            await stage.cycle.send(message)
            assert stage.cycle._state == TRANSITIONS[state, kind][1]
            return
        with pytest.raises(MisuseError) as caught:
            await stage.cycle.send(message)
        for wanted in expected(state) or ["nothing more"]:
            assert wanted in str(caught.value)
        assert caught.value.__suppress_context__  # how the server finds out is nothing that the application can use
        assert stage.cycle._state == state

    play(scene())


@pytest.mark.parametrize(("way", "message"), list(product([*WAYS.values(), *ANNOUNCED_WAYS.values()], STRANGE)))
def test_what_is_no_message_is_misuse_in_every_state(way: list[Message], message: Any) -> None:
    async def scene() -> None:
        stage = Stage()
        for earlier in way:
            await stage.cycle.send(earlier)
        state = stage.cycle._state
        with pytest.raises(MisuseError, match="expected|must be a dict"):
            await stage.cycle.send(message)
        assert stage.cycle._state == state

    play(scene())


@given(st.lists(st.sampled_from([ANNOUNCE, *INPUTS.values(), *STRANGE]), max_size=8))
def test_after_any_messages_the_client_has_one_answer_in_order(messages: list[Any]) -> None:
    accepted: list[Message] = []

    async def application(_: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            try:
                await send(message)
            except MisuseError:
                continue
            accepted.append(message)

    play(_judge(application, accepted))


async def _judge(application: Application, accepted: list[Message]) -> None:
    stage = Stage(application, push=True, headers=[(b"te", b"trailers")])
    await stage.cycle.run()
    peer = stage.peer
    assert peer.ended
    ends = [TRAILERS] if ANNOUNCE in accepted else ENDS
    if accepted and accepted[-1] in ends:
        assert (peer.status, peer.cut) == (200, False)
        assert peer.content == b"".join(
            CONTENT if message in FILES else message.get("body", b"") for message in accepted
        )
        count = accepted.count(TRAILERS_MORE) + accepted.count(TRAILERS)
        assert (peer.trailing or []) == [(b"x-sum", b"1")] * count
    elif any(message in (MORE, *ENDS, FILE_MORE) for message in accepted):
        assert (peer.status, peer.cut) == (200, True)
    else:
        assert (peer.status, peer.content) == (500, b"Internal Server Error\n")
    assert len(peer.pushed) == accepted.count(PUSH)
    assert len(peer.informed) <= accepted.count(HINT)
    [answer] = stage.records.answers()
    assert answer["http_status"] == peer.status
    assert stage.service.figures.requests == 0
    assert stage.service.figures.answered == 1
