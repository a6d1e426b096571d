"""What has been sent and is neither acknowledged nor lost: acknowledgement, loss by RACK, samples for the controller.

Loss detection follows RFC 8985 (RACK): a shard is lost when one that was sent sufficiently later has arrived. How much
is sufficient follows the reordering that is seen: in numbers from 3 up, and in time a share of the RTT. Shards that
left together are one record; nothing is kept for each of them but its size and one octet of state.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from mpquic.proto.congestion.controller import AckSample
from mpquic.proto.congestion.sampler import DeliveryRateSampler
from mpquic.proto.stripe.replay import SHARD_WINDOW

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mpquic.proto.congestion.sampler import SendStamp
    from mpquic.proto.stripe.arq import Repair, SentGroup
    from mpquic.proto.stripe.pipe_meter import SendingMeter
    from mpquic.proto.stripe.reports import Report

FLYING, ARRIVED, LOST = 0, 1, 2
MAX_SPAN = SHARD_WINDOW
"""Numbers back to which anything is remembered. What lies `SPAN_STEP` further back is forgotten, many at once."""
SPAN_STEP = 4096
MIN_REORDERING = 3
MAX_REORDERING = 2048
REORDERING_PERSIST = 16
"""Round trips without reordering after which the threshold is halved (RFC 8985 section 6.2 step 4)."""


Run = tuple["SendingMeter", int, int]
"""The shards of a batch from one place on, up to another, which left by the pipe of that meter."""


class SentBatch:
    """Shards with consecutive numbers that left at one instant. What is needed to send them again goes with them."""

    __slots__ = (
        "bodies",
        "bytes",
        "count",
        "data_shards",
        "first",
        "flying",
        "group",
        "index",
        "repairs",
        "runs",
        "sent_at",
        "sizes",
        "stamp",
        "state",
        "traffic_class",
    )

    def __init__(self, first: int, sizes: list[int], sent_at: float) -> None:
        self.first = first
        self.count = len(sizes)
        self.sizes = sizes
        self.bytes = sum(sizes)
        self.sent_at = sent_at
        self.state = bytearray(self.count)
        self.flying = self.count
        self.bodies: Sequence[bytes] | None = None
        """Bodies of DATA shards; None for what is not sent again by itself."""
        self.repairs: Sequence[Repair] | None = None
        """For REPAIR shards: what each of them repairs."""
        self.runs: Sequence[Run] = ()
        """By which pipes they left."""
        self.group: SentGroup | None = None
        self.index = 0
        self.data_shards = 0
        self.traffic_class = 0
        self.stamp: SendStamp | None = None

    def acknowledge(self, low: int, end: int, now: float) -> None:
        """Tell the pipes that all shards from place `low` on, up to `end`, are acknowledged for the first time."""
        for meter, first, last in self.runs:
            count = (min(end, last)) - (max(low, first))
            if count > 0:
                meter.acked += count
                meter.acked_at = now

    def tally(self) -> list[tuple[int, int]]:
        """Return how many shards of each run are acknowledged, and lost."""
        count = self.state.count
        return [(count(ARRIVED, first, last), count(LOST, first, last)) for _, first, last in self.runs]

    def account(self, before: list[tuple[int, int]], now: float | None) -> None:
        """Tell the pipes what has changed since the `tally` was `before`; `now` unless it is by losses alone."""
        for (meter, _, _), (acked, lost), (acked_now, lost_now) in zip(self.runs, before, self.tally(), strict=True):
            if acked_now != acked:
                meter.acked += acked_now - acked
                meter.acked_at = now
            meter.lost += lost_now - lost


class InFlight:
    """The sender's record of one direction. `on_lost` and `on_arrived_late` get (batch, place in it)."""

    def __init__(
        self,
        on_lost: Callable[[SentBatch, int], None],
        on_arrived: Callable[[SentBatch, int], None],
        on_arrived_late: Callable[[SentBatch, int], None],
    ) -> None:
        self._on_lost = on_lost
        self._on_arrived = on_arrived
        self._on_late = on_arrived_late
        self._batches: list[SentBatch] = []
        self._firsts: list[int] = []
        self.bytes = 0
        self.sampler = DeliveryRateSampler()
        self.highest_arrived = -1
        self.reordering = MIN_REORDERING
        self.spurious = 0
        self.lost_shards = 0
        self.arrived_shards = 0
        self._last_reordering = 0.0
        self.loss_time: float | None = None
        """When `detect` will find a shard lost by time."""

    def __len__(self) -> int:
        """Return how many batches are remembered."""
        return len(self._batches)

    @property
    def newest_repeatable(self) -> tuple[SentBatch, int] | None:
        """The last shard on its way that can be sent again: what a tail loss probe repeats (RFC 8985 section 7)."""
        for batch in reversed(self._batches):
            if batch.flying and (batch.bodies is not None or batch.repairs is not None):
                return batch, batch.state.rindex(FLYING)
        return None

    def bodies(self, since: float) -> dict[int, bytes]:
        """Return the DATA shards that left since then and are on their way, by number."""
        return {
            batch.first + place: body
            for batch in self._batches
            if batch.bodies is not None and batch.sent_at >= since
            for place, body in enumerate(batch.bodies)
            if batch.state[place] == FLYING
        }

    def carried(self, size: int, after: int) -> bool:
        """True when a shard of at least `size` bytes that left after shard `after` is known to have arrived.

        What is acknowledged or lost is soon forgotten, so ask when a loss has just been found.
        """
        for batch in reversed(self._batches):
            if batch.first + batch.count <= after:
                return False
            if any(state == ARRIVED and one >= size for state, one in zip(batch.state, batch.sizes, strict=True)):
                return True
        return False

    def mark_app_limited(self) -> None:
        """The sender had less to send than it might: samples until now's flight has landed say nothing of the link."""
        self.sampler.mark_app_limited(self.bytes)

    def add(self, batch: SentBatch, *, probing_down: bool = False) -> None:
        """Shards left; `probing_down` as the controller said then."""
        batch.stamp = self.sampler.on_sent(batch.sent_at, self.bytes, probing_down=probing_down)
        self.bytes += batch.bytes
        self._batches.append(batch)
        self._firsts.append(batch.first)
        if batch.first - self._firsts[0] >= MAX_SPAN + SPAN_STEP:
            self._forget_before(batch.first - MAX_SPAN)

    def _forget_before(self, number: int) -> None:
        """Give up what no receiver remembers any more, so that no report can tell of it."""
        place = bisect_right(self._firsts, number)
        for batch in self._batches[:place]:
            if batch.flying:
                self._mark_lost(batch, batch.first + batch.count - 1, None)
        del self._batches[:place]
        del self._firsts[:place]

    def on_report(self, report: Report, now: float, rtt: float | None) -> AckSample:
        """Settle what a report names; return the sample for the controller. Loss is found by `detect` after it."""
        sample = AckSample()
        sample.prior_in_flight = self.bytes
        newest: SentBatch | None = None
        batches = self._batches
        for first, last in report.received:
            place = bisect_right(self._firsts, last) - 1
            while place >= 0:
                batch = batches[place]
                if batch.first + batch.count <= first:
                    break
                place -= 1
                low = max(first - batch.first, 0)
                high = min(last - batch.first, batch.count - 1)
                if self._acknowledge(batch, low, high, sample, now, rtt) and (
                    newest is None or batch.first > newest.first
                ):
                    newest = batch
        if report.received and newest is not None:
            highest = report.received[0][1]
            if newest.first <= highest < newest.first + newest.count and highest > self.highest_arrived:
                sample.rtt = max(1e-6, now - newest.sent_at - report.delay)
            self.highest_arrived = max(self.highest_arrived, min(highest, newest.first + newest.count - 1))
            sample.sent_at = newest.sent_at
            assert newest.stamp is not None
            self.sampler.sample(newest.stamp, sample, now)
        sample.in_flight = self.bytes
        return sample

    def _acknowledge(
        self, batch: SentBatch, low: int, high: int, sample: AckSample, now: float, rtt: float | None
    ) -> bool:
        """Mark places low..high of a batch as arrived; True when one of them was on its way."""
        count = high - low + 1
        if batch.flying == batch.count == count:
            batch.state = bytearray(b"\1" * count)
            batch.flying = 0
            batch.acknowledge(0, count, now)
            self._delivered(batch, batch.bytes, count, sample)
            if batch.repairs is not None:
                for place in range(count):
                    self._on_arrived(batch, place)
            batch.bodies = None
            return True
        state = batch.state
        if not batch.flying and LOST not in state:
            return False
        end = high + 1
        if batch.repairs is None and state.count(FLYING, low, end) == count:
            state[low:end] = b"\1" * count
            batch.flying -= count
            batch.acknowledge(low, end, now)
            self._delivered(batch, sum(batch.sizes[low:end]), count, sample)
            if not batch.flying:
                batch.bodies = None
            return True
        fresh = False
        before_all = batch.tally()
        for place in range(low, high + 1):
            before = state[place]
            if before == ARRIVED:
                continue
            state[place] = ARRIVED
            if before == FLYING:
                fresh = True
                batch.flying -= 1
                self._delivered(batch, batch.sizes[place], 1, sample)
                if batch.repairs is not None:
                    self._on_arrived(batch, place)
            else:
                self._spurious(batch, place, sample, now, rtt)
        batch.account(before_all, now)
        if not batch.flying:
            batch.bodies = None
        return fresh

    def _delivered(self, batch: SentBatch, size: int, count: int, sample: AckSample) -> None:
        self.bytes -= size
        self.sampler.delivered += size
        self.arrived_shards += count
        sample.bytes_acked += size
        sample.acked_packets += count
        if batch.stamp is not None and batch.stamp.probing_down:
            sample.low_delivered += count

    def _spurious(self, batch: SentBatch, place: int, sample: AckSample, now: float, rtt: float | None) -> None:
        distance = self.highest_arrived - (batch.first + place)
        late = now - batch.sent_at
        self.spurious += 1
        self.lost_shards -= 1
        self.arrived_shards += 1
        self.sampler.delivered += batch.sizes[place]
        sample.bytes_acked += batch.sizes[place]
        sample.acked_packets += 1
        sample.lost_packets -= 1
        if batch.stamp is not None and batch.stamp.probing_down:
            sample.low_delivered += 1
            sample.low_lost -= 1
        self._on_late(batch, place)
        # What comes back after two round trips is a duplicate of the network's, or an old report: no reordering.
        if rtt is None or late < 2 * rtt + 0.05:
            self._last_reordering = now
            self.reordering = max(self.reordering, min(distance + 1, 2 * self.reordering, MAX_REORDERING))

    def detect(self, sample: AckSample | None, now: float, rtt: float) -> int:
        """Find lost shards; `rtt` is the smoothed or latest one, whichever is larger. Returns how many."""
        if now - self._last_reordering > REORDERING_PERSIST * rtt and self.reordering > MIN_REORDERING:
            self._last_reordering = now
            self.reordering = max(MIN_REORDERING, self.reordering // 2)
        by_number = self.highest_arrived - self.reordering
        patience = rtt * 1.25 + 0.006
        self.loss_time = None
        found = 0
        for batch in self._batches:
            if batch.first > self.highest_arrived:
                break
            if not batch.flying:
                continue
            overdue = batch.sent_at + patience <= now
            if not overdue and batch.first > by_number:
                self.loss_time = batch.sent_at + patience
                break
            found += self._mark_lost(batch, self.highest_arrived - 1 if overdue else by_number, sample)
            if batch.flying and not overdue and self.loss_time is None:
                self.loss_time = batch.sent_at + patience
        self._trim(now, rtt)
        return found

    def declare_all_lost(self, *, above: int = 0) -> int:
        """Whatever is on its way has perished, of batches in which every shard is larger than `above` bytes."""
        found = 0
        for batch in self._batches:
            if batch.flying and min(batch.sizes) > above:
                found += self._mark_lost(batch, batch.first + batch.count - 1, None)
        self.loss_time = None
        return found

    def _mark_lost(self, batch: SentBatch, up_to: int, sample: AckSample | None) -> int:
        state, found, size = batch.state, 0, 0
        before = batch.tally()
        place = state.find(FLYING)
        end = min(batch.count, up_to - batch.first + 1)
        while 0 <= place < end:
            state[place] = LOST
            found += 1
            batch.flying -= 1
            size += batch.sizes[place]
            self.bytes -= batch.sizes[place]
            self._on_lost(batch, place)
            place = state.find(FLYING, place + 1)
        self.lost_shards += found
        if found:
            batch.account(before, None)
        if sample is not None and found:
            sample.lost_packets += found
            sample.bytes_lost += size
            sample.lost_sent_at = max(sample.lost_sent_at, batch.sent_at)
            if batch.stamp is not None and batch.stamp.probing_down:
                sample.low_lost += found
        if not batch.flying:
            batch.bodies = None
        return found

    def _trim(self, now: float, rtt: float) -> None:
        batches = self._batches
        horizon = now - 4 * rtt - 0.1
        done = 0
        for batch in batches:
            if batch.flying or (batch.sent_at > horizon and LOST in batch.state):
                break
            done += 1
        if done:
            del batches[:done]
            del self._firsts[:done]
