"""How much redundancy: parity from the measured loss, and one budget for parity and retransmission together.

FEC that is always on costs goodput on a clean link, and FEC beside ARQ without a common bound can fill a link with
retransmissions of what it lost. So parity is sent where it will probably be used, and both draw on one budget.
"""

from __future__ import annotations

from enum import Enum
from functools import lru_cache
from typing import ClassVar

from mpquic.proto.packet.frame import LOW_LATENCY

IN_VAIN = 0.1
"""Probability that the retransmissions of a group don't suffice and another round trip passes."""
_STEP = 8
MAX_DATA = 64
"""Data shards of a group at most: half of what a group may have."""


class FecMode(Enum):
    """Instance key `stripe_fec`."""

    ADAPTIVE = "adaptive"
    ALWAYS = "always"
    OFF = "off"


class LossMeter:
    """Share of shards that did not arrive, repaired or not; old evidence weighs half after `half_life` shards."""

    def __init__(self, half_life: int = 1000) -> None:
        self._decay = 0.5 ** (1 / half_life)
        self._total = 0.0
        self._lost = 0.0

    def add(self, delivered: int, lost: int) -> None:
        """Take what a report and loss detection have found since the last call; negative `lost` takes back."""
        count = delivered + max(lost, 0)
        decay = self._decay**count
        self._total = self._total * decay + count
        self._lost = max(0.0, self._lost * decay + lost)

    @property
    def loss(self) -> float:
        """0.0 to 1.0; 0.0 until there is evidence enough to tell a share from a single accident."""
        if self._total < 32 or self._lost < 0.5:
            return 0.0
        return min(1.0, self._lost / self._total)


@lru_cache(maxsize=4096)
def _at_least(losses: int, shards: int, permille: int) -> float:
    """Probability that of `shards` at least `losses` are lost, independently."""
    share = permille / 1000
    term = (1 - share) ** shards
    below = 0.0
    for lost in range(losses):
        below += term
        term *= (shards - lost) / (lost + 1) * share / (1 - share)
    return 1 - below


@lru_cache(maxsize=4096)
def _redundancy(data_shards: int, parity: int, permille: int) -> float:
    """Expected shards beyond the data of one group: its parity, and the retransmissions until all is there."""
    shards, share = data_shards + parity, permille / 1000
    # What exceeds `parity` losses in the mean: the mean, less what a group can lose without exceeding it.
    beyond = shards * share - parity
    term = (1 - share) ** shards
    for lost in range(parity):
        beyond += (parity - lost) * term
        term *= (shards - lost) / (lost + 1) * share / (1 - share)
    return parity + max(0.0, beyond) / (1 - share)


@lru_cache(maxsize=4096)
def retransmissions_for(missing: int, permille: int) -> int:
    """Return how many retransmissions to send at once so that `missing` of them arrive, but for once in ten times."""
    count = missing
    while count < 4 * missing and _at_least(count - missing + 1, count, permille) > IN_VAIN:
        count += 1
    return count


HARDLY = 0.0005
"""Loss that rounds to no permille."""


class OverheadBudget:
    """Bytes that may still be spent on redundancy: each first transmission earns `share` of its size.

    The store is bounded, so that a long clean time does not pay for a flood later.
    """

    def __init__(self, share: float = 0.5, *, depth: int = 1 << 19, start: int = 1 << 16) -> None:
        if not 0.0 <= share <= 1.0:
            raise ValueError("the share of overhead is between 0 and 1")
        self.share = share
        self._depth = depth
        self.credit = float(min(start, depth)) if share else 0.0

    def earn(self, size: int) -> None:
        """`size` bytes went out for the first time."""
        self.credit = min(self._depth, self.credit + size * self.share)

    def spend(self, size: int, *, reserve: int = 0) -> bool:
        """Take `size` bytes for a retransmission or for parity; False, and none taken, when less than `reserve` would
        be left."""
        if size > self.credit - reserve:
            return False
        self.credit -= size
        return True


class ParityPolicy:
    """Chooses M for a group.

    Adaptive, low latency: the smallest M that leaves a group broken at most once in a thousand. Other classes:
    as much parity as costs at most the share `WASTE` of goodput against retransmission alone, which sends no more than
    was lost but takes a round trip; it does the rest. So M is 0 at no loss, and at rare loss where time is no matter.
    """

    WASTE: ClassVar[float] = 0.045
    RESIDUAL: ClassVar[float] = 0.001
    TAIL_RESIDUAL: ClassVar[float] = 0.03
    # What parity and the retransmissions that are expected beside it may take of the cap together; the rest is for more
    # losses.
    PLANNED: ClassVar[float] = 0.9

    def __init__(self, mode: FecMode, data_shards: int = 10, parity_shards: int = 2, max_overhead: float = 0.5) -> None:
        self.mode = mode
        self._data_shards = data_shards
        self._parity_shards = parity_shards
        self._max_overhead = max_overhead
        self._usual: dict[tuple[int, int], int] = {}
        """M by data shards and loss in permille: at most `MAX_DATA` times 500."""

    def needs_none(self, loss: float) -> bool:
        """Whether M is 0 at such a loss, for all classes and whatever K is."""
        return self.mode is FecMode.OFF or (self.mode is FecMode.ADAPTIVE and loss < HARDLY)

    def shape(self, loss: float, traffic_class: int, most: int) -> tuple[int, int]:
        """Return K and M of a group that begins now, at a loss of 0.0 to 1.0.

        The same share of parity repairs more in a larger group, where luck evens out. So an adaptive group of the usual
        classes grows to `most` shards, which is what the path sends in a time that a repair may take.
        """
        shards = self._data_shards
        if self.mode is FecMode.ADAPTIVE and not traffic_class & LOW_LATENCY:
            shards = max(shards, min(most, MAX_DATA) & -_STEP)
        return shards, self.parity(shards, loss, traffic_class)

    def parity(self, data_shards: int, loss: float, traffic_class: int) -> int:
        """Return M for a group of `data_shards` at a loss of 0.0 to 1.0; the budget may still refuse some of it."""
        if self.mode is FecMode.OFF:
            return 0
        if self.mode is FecMode.ALWAYS:
            wanted = -(-self._parity_shards * data_shards // self._data_shards)
            return min(wanted, int(self._max_overhead * max(data_shards, 2) + 1e-9))
        permille = min(500, round(loss * 1000))
        if permille == 0:
            return 0
        if traffic_class & LOW_LATENCY:
            return self._until(data_shards, permille, self.RESIDUAL)
        known = self._usual.get((data_shards, permille))
        if known is not None:
            return known
        copies = _redundancy(data_shards, 0, permille)
        affordable = min(self._max_overhead * self.PLANNED * data_shards, copies + self.WASTE * (data_shards + copies))
        count = 0
        while _redundancy(data_shards, count + 1, permille) <= affordable:
            count += 1
        self._usual[data_shards, permille] = count
        return count

    def tail(self, data_shards: int, loss: float, traffic_class: int) -> int:
        """Return M for a group after which nothing came for a while, so that nothing else would wait for its parity.

        Where the application has no more to send, parity takes no goodput, and the next report that could tell of a
        loss may be a timeout away.
        """
        usual = self.parity(data_shards, loss, traffic_class)
        permille = min(500, round(loss * 1000))
        if self.mode is not FecMode.ADAPTIVE or permille == 0:
            return usual
        return max(usual, self._until(data_shards, permille, self.TAIL_RESIDUAL))

    def _until(self, data_shards: int, permille: int, residual: float) -> int:
        """Return the smallest M that leaves no more than `residual` of the groups broken."""
        # A single packet is protected by its retransmission; over time the budget keeps the share.
        most = max(1, int(self._max_overhead * data_shards + 1e-9))
        for count in range(most):
            if _at_least(count + 1, data_shards + count, permille) <= residual:
                return count
        return most
