"""The corpus, its bytes changed here and there, and limits that short inputs reach."""

from typing import Final

from hypothesis import strategies as st

from appserver.wire.engine import Limits
from tests.corpus.cases import CASES, Case

# Short inputs reach every limit when the limits are short as well.
NARROW: Final = Limits(request_line=40, field=40, fields=4, head=120, body=12)

# The same where the head as a whole is what binds.
LOW: Final = Limits(request_line=400, field=400, fields=4, head=60, body=12)

# What a mutation puts in: the bytes that framing and smuggling are made of.
TELLING: Final = [b"\r", b"\n", b"\r\n", b"\r\n\r\n", b" ", b"\t", b":", b";", b",", b"\x00", b"\xff", b"0", b"5", b"*"]

LONG: Final = 2_000


def sent(case: Case) -> bytes:
    return b"".join(case.steps)


short_cases: Final = st.sampled_from([case for case in CASES if len(sent(case)) <= LONG])


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """One or two cases behind each other, with a few bytes put in, taken out or replaced."""
    data = b"".join(sent(case) for case in draw(st.lists(short_cases, min_size=1, max_size=2)))
    for _ in range(draw(st.integers(min_value=1, max_value=4))):
        at = draw(st.integers(min_value=0, max_value=len(data)))
        taken = draw(st.integers(min_value=0, max_value=2))
        put = draw(st.sampled_from([b"", *TELLING]) | st.binary(max_size=3))
        data = data[:at] + put + data[at + taken :]
    return data
