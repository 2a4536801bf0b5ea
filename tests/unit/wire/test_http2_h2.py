"""What the engine on `h2` does beyond what all engines do."""

import pytest

from appserver.wire.select import pick_http2
from tests.contract.http2_talk import talk


@pytest.mark.parametrize("path", ["head", "interim", "trailers"])
def test_a_long_field_is_written_as_it_is_and_a_short_one_is_coded(path: str) -> None:
    # Coding takes a time that grows with the square of the length: seconds for what an application may send.
    made = talk(pick_http2("h2"))
    stream = made.ask().stream
    fields = [(b"x-long", b"long" * 5_000), (b"x-short", b"short" * 20)]
    if path == "interim":
        made.engine.inform(stream, 103, fields)
    made.engine.respond(stream, 200, fields if path == "head" else [], b"", False)
    made.engine.trailers(stream, fields if path == "trailers" else [(b"x-end", b"1")])
    made.turn()
    answer = made.peer.answers[stream]
    got = {"head": answer.fields, "interim": [*answer.interim, (0, [])][0][1], "trailers": answer.trailers}
    assert got[path] == fields
    written = b"".join(got.payload for got in made.peer.frames if got.stream == stream)
    assert b"long" * 5_000 in written
    assert b"short" not in written
