"""What is done when memory is short, and how often."""

import gc
import linecache
from itertools import pairwise
from pathlib import Path

from appserver.process.relief import DROP, NOTHING, REPLACE, Steps, drop_caches
from appserver.system.memory import read_resident

MIB = 1024**2


def test_caches_first_then_a_worker() -> None:
    steps = Steps()
    assert steps.next(100.0) == DROP
    assert steps.next(102.0) == REPLACE
    # None was, for none had grown.
    assert steps.next(104.0) == REPLACE
    steps.replaced(104.0)
    assert steps.next(106.0) == NOTHING


def test_what_was_done_gets_a_moment_to_show() -> None:
    steps = Steps()
    assert [steps.next(100.0), steps.next(100.1), steps.next(100.9)] == [DROP, NOTHING, NOTHING]


def test_short_for_a_moment_now_and_then_replaces_no_worker() -> None:
    steps = Steps()
    assert {steps.next(100.0 + 31 * number) for number in range(100)} == {DROP}


def test_an_hour_without_a_rest_is_no_storm() -> None:
    steps = Steps()
    drops, replaced = [], []
    for now in range(0, 3600, 2):
        step = steps.next(float(now))
        if step == DROP:
            drops.append(now)
        elif step == REPLACE:
            replaced.append(now)
            steps.replaced(float(now))
    assert min(after - before for before, after in pairwise(drops)) >= 30
    assert min(after - before for before, after in pairwise(replaced)) >= 60
    assert 50 <= len(replaced) <= 60


def test_garbage_and_freed_memory_go_back_to_the_system(tmp_path: Path) -> None:
    source = tmp_path / "shown.py"
    source.write_text("shown = 1\n")
    assert linecache.getline(str(source), 1)
    # Blocks that the C library keeps, because one behind them is in use, and a cycle that only a collection ends.
    gc.disable()
    try:
        blocks = [bytearray(60_000) for _ in range(1000)]
        kept = bytearray(60_000)
        blocks.append(blocks)  # type: ignore[arg-type]
        del blocks
        before = read_resident("self")
        text = drop_caches()
    finally:
        gc.enable()
    assert kept is not None
    assert before - read_resident("self") > 40 * MIB
    assert float(text.removesuffix(" MiB given back")) > 40
    assert str(source) not in linecache.cache
