"""The figures as an SVG chart: for each workload the first column of its table, in bars.

The background is transparent and the text a grey that can be read on white and on black. No script, no foreign font.
"""

from collections.abc import Sequence
from html import escape
from typing import Final

from bench.report import COLUMNS, rank
from bench.rounds import Result

_WIDTH: Final = 760
_LABEL: Final = 150
_VALUE: Final = 70
_BAR: Final = 14
_ROW: Final = 20
_HEAD: Final = 26
_GAP: Final = 18

_STYLE: Final = """\
  <style>
    text { font: 12px system-ui, sans-serif; fill: #767676 }
    .title { font-weight: 600 }
    .own { fill: #2a9d5c }
    .peer { fill: #8a8f98 }
  </style>"""


def draw(results: Sequence[Result], own: str) -> str:
    """The chart.

    Args:
        results: The workloads. One without figures is left out.
        own: The label's start whose bars stand out.
    """
    parts: list[str] = []
    top = 0
    for result in results:
        if result.rounds:
            parts += _draw_panel(result, own, top)
            top += _HEAD + _ROW * len(result.rounds) + _GAP
    height = max(top - _GAP, 1)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}" '
        'role="img" aria-label="Benchmark: less is better">'
    )
    return "\n".join([head, _STYLE, *parts, "</svg>", ""])


def _draw_panel(result: Result, own: str, top: int) -> list[str]:
    column = COLUMNS[result.workload.kind][0]
    ranked = rank(result)
    # Where nothing was used all bars have the length 0, whatever they are divided by.
    longest = max(value for _, value in ranked) or 1
    title = f"{result.workload.title}: {column.heading}"
    parts = [f'  <text class="title" x="0" y="{top + 15}">{escape(title)}</text>']
    for number, (label, value) in enumerate(ranked):
        y = top + _HEAD + number * _ROW
        width = max(value, 0) / longest * (_WIDTH - _LABEL - _VALUE)
        kind = "own" if label.startswith(own) else "peer"
        parts.append(f'  <text x="{_LABEL - 8}" y="{y + 11}" text-anchor="end">{escape(label)}</text>')
        parts.append(f'  <rect class="{kind}" x="{_LABEL}" y="{y}" width="{width:.1f}" height="{_BAR}" rx="2"/>')
        parts.append(f'  <text x="{_LABEL + width + 6:.1f}" y="{y + 11}">{column.show(value)}</text>')
    return parts
