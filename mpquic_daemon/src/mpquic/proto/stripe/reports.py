"""Receiver reports: which shards arrived, which FEC repaired, and how long the newest waited for its report.

The ranges are those of a QUIC ACK frame (RFC 9000 section 19.3) in QUIC's variable-length integers (section 16). A
repaired shard is listed apart: it needs no retransmission, but stays lost for the controller (RFC 9265).

Body: highest number, delay in microseconds, shards received in all, number of received ranges, of repaired ranges; then
each list from the highest down. A range is the count of numbers missing above it, less one, and its own length, less
one; the first is counted as if a range began two above the highest number.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, ClassVar, NamedTuple

if TYPE_CHECKING:
    from mpquic.proto.stripe.replay import ReplayWindow

MIN_INTERVAL = 0.005
"""Seconds that a shard waits for its report, but see `EAGER_SHARDS` and `GAP_INTERVAL`."""
EAGER_SHARDS = 64
"""So many shards bring the report forward, to no less than `EAGER_INTERVAL` after the last."""
EAGER_INTERVAL = 0.002
GAP_INTERVAL = 0.001
"""Seconds between reports while a gap is new: what was lost can be sent again the sooner (RFC 9000 section 13.2.1)."""
GAP_SHARDS = 3
"""A gap is new until so many numbers behind it have come: then a sender takes it for loss (RFC 9002 section 6.1.1)."""
OVERLAP = 4
"""Each number is reported by so many reports, since reports are lost too."""
MAX_RANGES = 256
MAX_REPAIRED = 1024
"""The latest numbers that FEC gave back wait for the next report: while no pipe carries, there is none."""
_VARINT_LIMIT = 1 << 62


class ReportError(ValueError):
    """A body that is no report. `reason` is a short word for counters."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"malformed report: {reason}")
        self.reason = reason


Ranges = list[tuple[int, int]]


class Report(NamedTuple):
    """One report. Ranges are (first, last), the highest first, disjoint and not adjacent; `delay` is seconds."""

    highest: int
    delay: float
    total: int
    received: Ranges
    repaired: Ranges


def encode_varint(value: int) -> bytes:
    """Encode an integer below 2^62 in 1, 2, 4 or 8 octets."""
    if value < 0x40:
        return bytes((value,))
    if value < 0x4000:
        return (value | 0x4000).to_bytes(2, "big")
    if value < 0x40000000:
        return (value | 0x80000000).to_bytes(4, "big")
    return (value | 0xC000000000000000).to_bytes(8, "big")


def decode_varint(data: bytes, offset: int) -> tuple[int, int]:
    """Return a value and where it ends.

    Raises:
        ReportError: it is cut off.
    """
    if offset >= len(data):
        raise ReportError("truncated")
    end = offset + (1 << (data[offset] >> 6))
    if end > len(data):
        raise ReportError("truncated")
    size = end - offset
    return int.from_bytes(data[offset:end], "big") & ((1 << (8 * size - 2)) - 1), end


def encode_report(report: Report) -> bytes:
    """Return the body of a REPORT packet."""
    parts = [
        encode_varint(report.highest),
        encode_varint(min(int(report.delay * 1e6), _VARINT_LIMIT - 1)),
        encode_varint(report.total),
        encode_varint(len(report.received)),
        encode_varint(len(report.repaired)),
    ]
    for ranges in (report.received, report.repaired):
        # As if a range ended just above the highest number, so that the first is no special case.
        above = report.highest + 2
        for first, last in ranges:
            parts.append(encode_varint(above - last - 2))
            parts.append(encode_varint(last - first))
            above = first
    return b"".join(parts)


def decode_report(body: bytes) -> Report:
    """Decode the body of a REPORT packet.

    Raises:
        ReportError: it is truncated, too long, or names numbers below zero.
    """
    fields: list[int] = []
    offset = 0
    for _ in range(5):
        value, offset = decode_varint(body, offset)
        fields.append(value)
    highest, delay, total, received_count, repaired_count = fields
    if received_count > MAX_RANGES or repaired_count > MAX_RANGES:
        raise ReportError("ranges")
    received, offset = _decode_ranges(body, offset, highest, received_count)
    repaired, offset = _decode_ranges(body, offset, highest, repaired_count)
    if offset != len(body):
        raise ReportError("length")
    return Report(highest, delay / 1e6, total, received, repaired)


def _decode_ranges(body: bytes, offset: int, highest: int, count: int) -> tuple[Ranges, int]:
    ranges: Ranges = []
    above = highest + 2
    for _ in range(count):
        gap, offset = decode_varint(body, offset)
        length, offset = decode_varint(body, offset)
        last = above - gap - 2
        first = last - length
        if first < 0:
            raise ReportError("below_zero")
        ranges.append((first, last))
        above = first
    return ranges, offset


def runs_of(numbers: list[int], limit: int) -> Ranges:
    """Return ascending numbers as ranges, the highest first, at most `limit`."""
    ranges: Ranges = []
    for number in reversed(numbers):
        if ranges and ranges[-1][0] == number + 1:
            ranges[-1] = (number, ranges[-1][1])
        elif len(ranges) == limit:
            break
        else:
            ranges.append((number, number))
    return ranges


class ReportAllowance:
    """Bounds the work that a peer's reports cause: by time, and by the shards that left, which they tell of.

    One unit is about what one octet of a report costs, one number that it calls repaired, or a few batches in flight:
    half a microsecond.
    """

    PER_SHARD: ClassVar[int] = 128
    PER_SECOND: ClassVar[int] = 200_000
    MAX_WORK: ClassVar[int] = 1 << 17

    def __init__(self, now: float) -> None:
        self.left = float(self.MAX_WORK)
        self._since = now
        self._shards = 0

    def take(self, cost: int, shards: int, now: float) -> bool:
        """Spend `cost` when that much is left; `shards` is how many have left in all."""
        earned = (shards - self._shards) * self.PER_SHARD + (now - self._since) * self.PER_SECOND
        self.left = min(self.MAX_WORK, self.left + earned)
        self._shards, self._since = shards, now
        if cost > self.left:
            return False
        self.left -= cost
        return True


def clip(ranges: Ranges, low: int) -> Ranges:
    """Return what of the ranges is not below `low`."""
    return [(max(first, low), last) for first, last in ranges if last >= low]


class Reporter:
    """Decides when a receiver reports, and what."""

    def __init__(self, window: ReplayWindow, *, max_ranges: int = 200) -> None:
        self._window = window
        self._max_ranges = min(max_ranges, MAX_RANGES)
        self._total = 0
        self._unreported = 0
        self._unreported_since = 0.0
        self._lowest = 0
        self._highest = -1
        self._highest_at = 0.0
        self._gap_until = -1
        self._last_sent = float("-inf")
        self._floors: deque[int] = deque(maxlen=OVERLAP)
        self._repaired: deque[deque[int]] = deque(maxlen=OVERLAP)
        self._repaired_now: deque[int] = deque(maxlen=MAX_REPAIRED)

    def on_shards(self, count: int, lowest: int, *, highest_rose: bool, now: float) -> None:
        """`count` new shards arrived, `lowest` the lowest of their numbers."""
        if not self._unreported:
            self._unreported_since = now
            self._lowest = lowest
        elif lowest < self._lowest:
            self._lowest = lowest
        self._unreported += count
        self._total += count
        highest = self._window.highest
        if lowest <= self._highest or highest - self._highest > count:
            self._gap_until = highest + GAP_SHARDS - 1
        self._highest = highest
        if highest_rose:
            self._highest_at = now

    def on_repaired(self, number: int) -> None:
        """FEC gave back a shard."""
        self._repaired_now.append(number)

    def next_time(self) -> float | None:
        """When a report is due; None when there is nothing to say."""
        if not self._unreported:
            return None
        if self._highest <= self._gap_until:
            return max(self._unreported_since, self._last_sent + GAP_INTERVAL)
        if self._unreported >= EAGER_SHARDS:
            return max(self._unreported_since, self._last_sent + EAGER_INTERVAL)
        # Not at once even after a pause: what answers the packet that has come shall leave before its report.
        return self._unreported_since + MIN_INTERVAL

    def build(self, now: float) -> bytes:
        """Return the body of the report that is due."""
        self._floors.append(self._lowest)
        self._repaired.append(self._repaired_now)
        self._repaired_now = deque(maxlen=MAX_REPAIRED)
        highest = self._window.highest
        floor = min(self._floors)
        repaired = sorted({number for numbers in self._repaired for number in numbers if number <= highest})
        self._unreported = 0
        self._last_sent = now
        return encode_report(
            Report(
                highest,
                max(0.0, now - self._highest_at),
                self._total,
                self._window.runs(floor, highest, self._max_ranges),
                runs_of(repaired, self._max_ranges // 4),
            )
        )
