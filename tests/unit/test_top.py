"""appserver.top: what is drawn, without a terminal; tests/integration/test_control.py has one."""

from typing import Any

import pytest

from appserver.top import BARS, BARS_ASCII, FIGURES, SORTS, SPAN, History, draw_bars, render, write_number, write_time

RATE = next(figure for figure in FIGURES if figure.rate)
LEVEL = next(figure for figure in FIGURES if figure.name == "connections")


def worker(pid: int, answered: int = 0, **more: Any) -> dict[str, Any]:
    facts = {"pid": pid, "state": "serving", "generation": 1, "uptime": 61.5, "memory": 41 << 20, "answered": answered}
    return {**facts, "requests": 0, "connections": 0, "failed": 0, **more}


def report(answered: int = 0, *workers: dict[str, Any], **more: Any) -> dict[str, Any]:
    told = {"state": "serving", "ready": True, "application": "shop:app", "uptime": 3700, "connections": 5}
    told |= {"requests": 1, "answered": answered, "failed": 0}
    if workers:
        told |= {"workers": list(workers), "workers_wanted": len(workers), "generation": 2}
    return told | more


def history(*counts: int | None) -> History:
    """Reports a second apart, with so many answers."""
    made = History()
    for at, count in enumerate(counts):
        made.add(at, None if count is None else report(count), None if count is not None else "gone")
    return made


def screen(
    made: History, width: int = 80, height: int = 24, sort: str = "rate", *, backwards: bool = False
) -> list[str]:
    return [text for text, _ in render(made, width, height, sort, backwards=backwards, bars=BARS)]


# --- rates ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "rates"),
    [
        ((5,), [None]),
        ((0, 10, 20), [None, 10, 10]),
        ((0, 0, 0, 0, 40, 40, 40, 40, 40), [None, 0, 0, 0, 10, 10, 10, 10, 0]),  # told at once, spread over four
        ((0, 10, None, 30, 40), [None, 10, None, None, 10]),  # no answer: nothing is known of that time
        ((100, 110, 3, 13), [None, 10, None, 10]),  # started anew
    ],
)
def test_a_rate_is_what_a_count_grows_by_in_a_second(counts: tuple[int | None, ...], rates: list[float | None]) -> None:
    assert history(*counts).values(RATE) == rates


def test_a_level_is_what_the_report_says() -> None:
    assert history(0, None, 1).values(LEVEL) == [5, None, 5]


def test_each_worker_has_a_rate_once_two_reports_have_told_of_it() -> None:
    made = History()
    made.add(0, report(0, worker(1, 100), worker(2, 7)))
    made.add(2, report(0, worker(1, 120), worker(3, 9)))
    assert made.rates() == {1: 10, 3: None}


# --- bars -------------------------------------------------------------------------------------------------------------


def test_bars_grow_with_their_values_and_the_newest_is_on_the_right() -> None:
    assert draw_bars([0, 1, 50, 100], 4, SPAN, BARS).endswith("  ▁▅█")
    assert draw_bars([0, 1, 50, 100], 4, SPAN, BARS_ASCII).endswith("  .+@")


def test_bars_of_nothing_are_blank() -> None:
    assert draw_bars([None, 0.0, 0.0], 3, 10, BARS) == " " * 10
    assert draw_bars([], 0, 10, BARS) == " " * 10


def test_values_that_do_not_fit_share_a_character_which_stays_theirs() -> None:
    full = draw_bars([float(number // 30) for number in range(SPAN)], SPAN, 10, BARS_ASCII)
    assert full == " :--=+**#@"
    for number in range(1, 30):  # as more reports come, the characters of those before keep their height
        values = [float(9)] * 30 + [0.0] * number
        assert draw_bars(values, 30 + number, 10, BARS_ASCII) == " " * 8 + "@ "


@pytest.mark.parametrize("width", [0, 1, 2])
def test_bars_fit_the_narrowest_place(width: int) -> None:
    assert len(draw_bars([1.0] * SPAN, SPAN, width, BARS)) <= max(width, 1)


# --- the screen -------------------------------------------------------------------------------------------------------


def test_a_screen_of_80_by_24_has_figures_workers_and_keys() -> None:
    made = History()
    for at in range(10):
        workers = (worker(101, 10 * at), worker(102, 20 * at, state="hung"))
        made.add(at, report(30 * at, *workers, latency_p50_us=850, latency_p99_us=12_345))
    lines = screen(made)
    assert len(lines) == 24
    assert max(map(len, lines)) <= 80
    assert lines[0] == "shop:app  serving  1/2 workers  generation 2  up 1:01:40"
    assert lines[2].startswith("requests/s        30  ")
    assert lines[3].startswith("median         850us  ")
    assert lines[4].startswith("99th perc.    12.3ms  ")
    assert not any(line.startswith("loop lag") for line in lines)  # what the server does not tell is left out
    assert lines[9].split() == ["PID", "STATE", "GEN", "UPTIME", "MEMORY", "REQ/S", "IN", "FLIGHT", "CONN", "FAILED"]
    assert lines[10].split() == ["102", "hung", "1", "0:01:01", "41M", "20", "0", "0", "0"]
    assert lines[11].split() == ["101", "serving", "1", "0:01:01", "41M", "10", "0", "0", "0"]
    assert lines[23].startswith("q quit   s sort by rate   r reverse")


@pytest.mark.parametrize(("width", "height"), [(80, 24), (20, 5), (1, 1), (200, 60), (80, 10), (40, 2)])
@pytest.mark.parametrize("count", [0, 1, 300])
def test_any_size_is_filled_and_not_overrun(width: int, height: int, count: int) -> None:
    made = history(1, 2)
    made.add(3, report(5, *(worker(pid) for pid in range(count))))
    lines = screen(made, width, height)
    assert len(lines) == height
    assert max(map(len, lines)) <= width


def test_workers_that_do_not_fit_are_counted() -> None:
    made = History()
    made.add(0, report(0, *(worker(pid) for pid in range(1000, 1050))))
    lines = screen(made)
    shown = [line for line in lines if line.startswith("   10")]
    assert f"and {50 - len(shown)} more" in lines
    assert len(lines) == 24


@pytest.mark.parametrize("sort", SORTS)
def test_workers_are_sorted_by_the_largest_first_and_process_ids_from_the_smallest(sort: str) -> None:
    made = History()
    larger = {"requests": 9, "connections": 9, "memory": 99 << 20, "uptime": 999.0}
    made.add(0, report(0, worker(1), worker(2)))
    made.add(1, report(0, worker(1, 0), worker(2, 50, **larger)))

    def order(*, backwards: bool) -> list[str]:
        lines = screen(made, sort=sort, backwards=backwards)
        return [line.split()[0] for line in lines if line[:7].strip().isdecimal()]

    expected = ["1", "2"] if sort == "pid" else ["2", "1"]
    assert order(backwards=False) == expected
    assert order(backwards=True) == expected[::-1]


def test_a_server_that_is_gone_is_told_and_what_was_known_stays() -> None:
    made = history(0, 10, None)
    lines = screen(made)
    assert lines[0].startswith("shop:app")
    assert lines[1] == "No answer, asking again: gone"
    assert lines[2].split()[:2] == ["requests/s", "-"]
    made.add(3, report(20))
    assert screen(made)[1] == ""


def test_a_drained_server_is_told() -> None:
    made = History()
    made.add(0, report(ready=False))
    assert screen(made)[1] == "Drained by the operator: /readyz answers 503"


def test_a_single_process_has_no_workers_to_sort() -> None:
    assert screen(history(0, 1))[-1].startswith("q quit   (")


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.25, "0.2"), (9.96, "10.0"), (31.4, "31"), (9999, "9999"), (12345, "12.3k")]
)
def test_numbers_take_a_few_characters(value: float, text: str) -> None:
    assert write_number(value) == text


@pytest.mark.parametrize(("value", "text"), [(0, "0us"), (850, "850us"), (12_345, "12.3ms"), (1_200_000, "1.20s")])
def test_times_take_a_few_characters(value: float, text: str) -> None:
    assert write_time(value) == text
