"""What a probe hands over: an amount, and what it consists of."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, slots=True)
class Measure:
    """One measured number.

    Attributes:
        name: In budgets.toml.
        amount: What is held against the budget.
        parts: What the amount consists of, the largest first; may be empty.
        readings: The amount at each repetition, of which `amount` is the median.
    """

    name: str
    amount: float
    parts: Mapping[str, float] = field(default_factory=dict)
    readings: tuple[float, ...] = ()

    def describe(self, count: int = 8) -> str:
        """The largest parts in one line."""
        shown = [f"{amount:g} {part}" for part, amount in list(self.parts.items())[:count]]
        return ", ".join(shown) + (", …" if len(self.parts) > count else "")


def sort_parts(parts: Mapping[str, float]) -> dict[str, float]:
    """The largest first, and the names in order where they are equal, so that two runs read the same."""
    return dict(sorted(parts.items(), key=lambda item: (-item[1], item[0])))


def dump(measures: Iterable[Measure]) -> str:
    """For another process; see `load`."""
    return json.dumps([asdict(measure) for measure in measures])


def load(text: str) -> list[Measure]:
    """What `dump` made."""
    return [Measure(**{**entry, "readings": tuple(entry["readings"])}) for entry in json.loads(text)]
