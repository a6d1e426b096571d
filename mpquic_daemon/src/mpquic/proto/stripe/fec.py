"""Forward error correction: systematic Reed-Solomon over groups of shards (Rizzo 1997, RFC 5510), by zfec.

A group is K data shards and M parity shards; any K of them give the data back. Shards of unequal length are padded with
zeros for coding only. In zfec a parity block depends on K and its index, not on M, so one codec serves every M and a
receiver needs only K.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Protocol

import zfec

from mpquic.proto.packet.frame import FrameError
from mpquic.proto.path.memory import STEP
from mpquic.proto.stripe.shard import trim
from mpquic.proto.stripe.wire import MAX_GROUP

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


GROUP_COST = 640
SHARD_COST = 160
"""Bytes that a group and a shard take beyond their content, so that many small ones don't exceed the bound."""
MAX_FOLLOWED = 4096
"""Bytes of a shard that is kept without being counted, of which a group has `MAX_GROUP` at most."""
DECODE_RATE = 1e9
"""Multiplications of octets a second that repairs may take, a third of a processor: twice what a path of 500 Mbit/s
needs that loses a tenth. Beyond it retransmissions do the work."""
DECODE_BURST = 1 << 28


class _Encoder(Protocol):
    def encode(self, blocks: Sequence[bytes], wanted: Sequence[int]) -> list[bytes]: ...


class _Decoder(Protocol):
    def decode(self, blocks: Sequence[bytes], numbers: Sequence[int]) -> list[bytes]: ...


@lru_cache(maxsize=MAX_GROUP)
def _encoder(data_shards: int) -> _Encoder:
    made: _Encoder = zfec.Encoder(data_shards, MAX_GROUP)
    return made


@lru_cache(maxsize=MAX_GROUP)
def _decoder(data_shards: int) -> _Decoder:
    made: _Decoder = zfec.Decoder(data_shards, MAX_GROUP)
    return made


def parity(bodies: Sequence[bytes], count: int) -> list[bytes]:
    """Return `count` parity bodies of a group, each as long as its longest data body."""
    shards = len(bodies)
    size = max(map(len, bodies))
    blocks = tuple([body if len(body) == size else body.ljust(size, b"\0") for body in bodies])
    return _encoder(shards).encode(blocks, tuple(range(shards, shards + count)))


class _Group:
    """Shards of one group that have arrived. `data_shards` is 0 until a parity shard has told it."""

    __slots__ = ("born", "cost", "data", "data_shards", "done", "parity", "repaired")

    def __init__(self, born: float) -> None:
        self.born = born
        self.data: dict[int, bytes] = {}
        self.parity: dict[int, bytes] = {}
        self.data_shards = 0
        self.done = False
        self.repaired = 0
        """Bit by bit the data shards that were given back."""
        self.cost = 0


class GroupDecoder:
    """Collects authenticated shards and gives back those that did not arrive; bounded in groups, bytes and age.

    A group is known by the number of its first shard. The oldest yields when a bound is reached.
    """

    def __init__(
        self,
        *,
        max_groups: int = 1024,
        max_bytes: int = 8 << 20,
        max_age: float = 2.0,
        extend: Callable[[], None] | None = None,
    ) -> None:
        self._extend = extend
        self.allowed = STEP
        """Bytes that it may hold before `extend` is called (memory.py)."""
        self._max_groups = max_groups
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._groups: dict[int, _Group] = {}
        self._current: list[bytes] = []
        self._current_base = -1
        self._now = 0.0
        self.bytes = 0
        self.repaired = 0
        self.inconsistent = 0
        self.evicted = 0
        self.refused = 0
        """Groups that were left to retransmissions, since decoding them would have taken too much time."""
        self._work = float(DECODE_BURST)
        self._work_at = 0.0

    def __len__(self) -> int:
        return len(self._groups)

    def follow(self, base: int, index: int, data_shards: int, body: bytes) -> bool:
        """Take the next data shard of a group of which nothing is missing so far; False for any other shard.

        Such a group costs next to nothing: it is kept apart until it is complete, or until something of it is missing.
        """
        current = self._current
        if len(body) > MAX_FOLLOWED:
            return False
        if index == 0:
            if current:
                self._spill()
                current = self._current
            self._current_base = base
        elif base != self._current_base or index != len(current):
            return False
        current.append(body)
        if len(current) == data_shards:
            self._current = []
        return True

    def complete(self, base: int) -> None:
        """All data shards of the group have come: forget what is kept apart for it."""
        if base == self._current_base:
            self._current = []

    def _spill(self) -> None:
        """Something is missing: the shards kept apart become a group like others."""
        current, self._current = self._current, []
        for index, body in enumerate(current):
            self.add_data(self._current_base, index, body, self._now)

    def add_data(self, base: int, index: int, body: bytes, now: float) -> tuple[bool, list[tuple[int, bytes]]]:
        """Take a data shard; say whether it is new, and return what it lets be repaired as (index, body)."""
        self._now = now
        if self._current:
            self._spill()
        group = self._group(base, now)
        if group.done:
            return not group.repaired >> index & 1, []
        if index in group.data:
            return False, []
        group.data[index] = body
        self._charge(group, len(body))
        return True, self._complete(group)

    def add_parity(self, base: int, index: int, data_shards: int, body: bytes, now: float) -> list[tuple[int, bytes]]:
        """Take a parity shard and return what it lets be repaired as (index, body)."""
        self._now = now
        if self._current:
            self._spill()
        group = self._group(base, now)
        if group.done or index in group.parity:
            return []
        if group.data_shards not in (0, data_shards):
            self.inconsistent += 1
            return []
        group.data_shards = data_shards
        group.parity[index] = body
        self._charge(group, len(body))
        return self._complete(group)

    def expire(self, now: float) -> None:
        """Forget groups that are too old to be completed."""
        horizon = now - self._max_age
        while self._groups:
            base, group = next(iter(self._groups.items()))
            if group.born > horizon:
                return
            self._forget(base, group)

    def _group(self, base: int, now: float) -> _Group:
        group = self._groups.get(base)
        if group is None:
            self.expire(now)
            group = self._groups[base] = _Group(now)
            group.cost = GROUP_COST
            self.bytes += GROUP_COST
            if len(self._groups) > self._max_groups:
                oldest = next(iter(self._groups))
                self._forget(oldest, self._groups[oldest])
        return group

    def _charge(self, group: _Group, size: int) -> None:
        size += SHARD_COST
        group.cost += size
        self.bytes += size
        if self.bytes > self.allowed and self._extend is not None:
            self._extend()
        while self.bytes > self._max_bytes and len(self._groups) > 1:
            oldest = next(iter(self._groups))
            self._forget(oldest, self._groups[oldest])

    def shed(self) -> None:
        """Forget the oldest eighth of the groups."""
        for base in list(islice(self._groups, 1 + len(self._groups) // 8)):
            self._forget(base, self._groups[base])

    def _forget(self, base: int, group: _Group) -> None:
        del self._groups[base]
        self.bytes -= group.cost
        group.cost = 0  # The shard that comes may be of this very group.
        if not group.done:
            self.evicted += 1

    def _complete(self, group: _Group) -> list[tuple[int, bytes]]:
        wanted = group.data_shards
        if not wanted or len(group.data) + len(group.parity) < wanted:
            return []
        missing = [index for index in range(wanted) if index not in group.data]
        repaired = self._decode(group, wanted, missing) if missing else []
        group.done = True
        group.repaired = sum(1 << index for index in missing)
        group.data, group.parity = {}, {}
        if group.cost:
            self.bytes -= group.cost - GROUP_COST
            group.cost = GROUP_COST
        self.repaired += len(repaired)
        return repaired

    def _affords(self, work: int) -> bool:
        """Tell whether a group may be decoded now, which takes so many multiplications of octets."""
        now = self._now
        self._work = min(DECODE_BURST, self._work + (now - self._work_at) * DECODE_RATE)
        self._work_at = now
        if work > self._work:
            return False
        self._work -= work
        return True

    def _decode(self, group: _Group, wanted: int, missing: list[int]) -> list[tuple[int, bytes]]:
        sizes = {len(body) for body in group.parity.values()}
        size = sizes.pop()
        if sizes or any(index >= wanted or len(body) > size for index, body in group.data.items()):
            self.inconsistent += 1
            return []
        if not self._affords(wanted * len(missing) * (size + wanted)):
            self.refused += 1
            return []
        blocks: list[bytes] = []
        numbers: list[int] = []
        available = iter(sorted(group.parity.items()))
        for index in range(wanted):
            body = group.data.get(index)
            if body is None:
                index, body = next(available)
            blocks.append(body if len(body) == size else body.ljust(size, b"\0"))
            numbers.append(index)
        decoded = _decoder(wanted).decode(tuple(blocks), tuple(numbers))
        repaired: list[tuple[int, bytes]] = []
        for index in missing:
            try:
                repaired.append((index, trim(decoded[index])))
            except FrameError:
                self.inconsistent += 1
        return repaired
