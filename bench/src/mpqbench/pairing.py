"""Values of two sides that were measured in pairs: ratios, their spread, and which of them are worse."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Literal, NamedTuple

from mpqbench.table import heading, number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Side = Literal["present", "other"]

TOLERANCE = 0.03
"""A median ratio within this of 1 is never called worse."""
CONFIDENCE = 0.95
HIGHER = frozenset(
    {
        "goodput", "packet rate", "share", "wire rate", "wire share", "goodput share", "ratio", "Jain index",
        "lowest goodput", "goodput of all",
    }
)  # fmt: skip
LOWER = frozenset(
    {"p50", "p99", "CPU time", "CPU", "peak memory", "memory at the end", "page", "page ratio", "ping p95 above idle"}
)
NEUTRAL = frozenset(
    {
        "growth since 5 GB", "server CPU", "CPU share of the others", "refused", "plain TCP", "pings lost",
        "page, plain TCP", "ping p95 above idle, plain",
    }
)  # fmt: skip
"""Metrics by which of their values is better; the neutral ones describe a measurement, or lie around 0, where a ratio
says nothing."""


class Key(NamedTuple):
    """What was measured."""

    bench: str
    case: str
    system: str
    metric: str
    unit: str


Values = dict[Key, float]
"""What one side measured in one run."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The pairwise ratios present / other of one value; `missing` says which side has none, when there is no pair."""

    key: Key
    ratios: tuple[float, ...]
    missing: str = ""

    @property
    def middle(self) -> float:
        """The median of the ratios."""
        return median(self.ratios)

    @property
    def spread(self) -> tuple[float, float]:
        """The interval of the median."""
        return interval(self.ratios)

    @property
    def worse(self) -> bool:
        """Whether the median is beyond the tolerance in the bad direction, and the whole interval with it."""
        if not self.ratios:
            return False
        low, high = self.spread
        if self.key.metric in HIGHER:
            return self.middle < 1 - TOLERANCE and high < 1
        if self.key.metric in LOWER:
            return self.middle > 1 + TOLERANCE and low > 1
        return False


def order(pair: int) -> tuple[Side, Side]:
    """Return who is measured first in a pair, from 0: ABBA, so that a steady drift hits both alike."""
    return ("present", "other") if pair % 2 == 0 else ("other", "present")


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return an interval that holds the true median with a probability of `CONFIDENCE`, whatever the distribution.

    Its ends are order statistics: the k-th lowest and k-th highest value, where k is the largest for which the binomial
    distribution (n, 1/2) has at most (1 - `CONFIDENCE`) / 2 below k. Below six values that is never reached: then it is
    the lowest and the highest. Quartiles would tell how single pairs scatter, and not shrink with their number; a
    t interval would need a normal distribution, which a machine that others share doesn't give.
    """
    ordered = sorted(values)
    count, below, rank = len(ordered), 0.0, 0
    while rank < (count - 1) // 2:
        below += math.comb(count, rank) / 2**count
        if below > (1 - CONFIDENCE) / 2:
            break
        rank += 1
    rank = max(rank, 1)
    return ordered[rank - 1], ordered[-rank]


def ratio(present: float, other: float) -> float:
    """Return present / other; 1 for two zeros."""
    if other == 0:
        return 1.0 if present == 0 else math.copysign(math.inf, present)
    return present / other


def compare(pairs: Sequence[Mapping[Side, Values]]) -> list[Comparison]:
    """Compare all that any side has measured in any pair, in the order of first appearance."""
    keys = dict.fromkeys(key for pair in pairs for side in ("present", "other") for key in pair.get(side, {}))
    found = []
    for key in keys:
        both = [(pair["present"][key], pair["other"][key]) for pair in pairs if all(key in pair[s] for s in order(0))]
        sides = {side for pair in pairs for side in order(0) if key in pair[side]}
        missing = "" if both else ("other" if "present" in sides else "present")
        found.append(Comparison(key, tuple(ratio(*each) for each in both), missing))
    return found


def rows(comparisons: Sequence[Comparison], believed: frozenset[Key], name: str) -> list[list[str]]:
    """Return a table: a heading row, and one for each comparison; `name` is the other side's."""
    lines = [["bench", "system", "case", "metric", "present / " + name, "interval", "pairs", "verdict"]]
    for each in comparisons:
        key = each.key
        cells = [key.bench, key.system, key.case, heading(key.metric, key.unit)]
        if not each.ratios:
            where = name if each.missing == "other" else "the present commit"
            lines.append([*cells, "-", "-", "0", f"not measured at {where}"])
            continue
        low, high = each.spread
        verdict = "WORSE" if key in believed else "not judged" if key.metric in NEUTRAL else "not worse"
        ends = f"{number(low)} - {number(high)}"
        lines.append([*cells, number(each.middle), ends, str(len(each.ratios)), verdict])
    return lines
