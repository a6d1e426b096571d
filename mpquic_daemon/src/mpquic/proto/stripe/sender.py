"""The sending half of a session: frames to shards, groups, retransmissions; what leaves is in `take_outgoing`."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from mpquic.proto.congestion.pacer import Pacer
from mpquic.proto.packet.assembler import FrameAssembler
from mpquic.proto.packet.run import SegmentRun
from mpquic.proto.path.memory import MAX_IN_FLIGHT
from mpquic.proto.path.pmtu import PathMtu
from mpquic.proto.stripe.adaptive import OverheadBudget, ParityPolicy
from mpquic.proto.stripe.arq import MAX_AT_ONCE, SentGroup
from mpquic.proto.stripe.fec import parity
from mpquic.proto.stripe.group import OpenGroup
from mpquic.proto.stripe.inflight import SentBatch
from mpquic.proto.stripe.recovery import Recovery
from mpquic.proto.stripe.replay import SHARD_WINDOW
from mpquic.proto.stripe.reports import ReportAllowance, clip
from mpquic.proto.stripe.shard import bundle, flow_label
from mpquic.proto.stripe.wire import OVERHEAD, REPAIR_PREFIX, PacketType

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mpquic.proto.congestion.controller import Controller
    from mpquic.proto.packet.frame import Frame
    from mpquic.proto.path.path import FrameOrRun
    from mpquic.proto.stripe.arq import Repair
    from mpquic.proto.stripe.config import StripeConfig
    from mpquic.proto.stripe.inflight import Run
    from mpquic.proto.stripe.keys import Sealer
    from mpquic.proto.stripe.pipe import Pipe
    from mpquic.proto.stripe.pipes import Pipes
    from mpquic.proto.stripe.reports import Report

BLOCKED_TIME = 0.0005
"""Seconds after which a budget that waiting retransmissions take up is looked at again."""
RUN = 32
"""Shards that leave on one pipe before the next is chosen, at least: long enough for GSO, short enough to spread."""
RUN_TIME = 0.001
"""Seconds of the sending rate that do so: on a quick path each change of pipe costs the receiver order."""
SPAN_SHARE = 0.4
"""Of a round trip: what the path sends meanwhile is a group, so that parity comes well before a retransmission
could."""
MAX_SPAN = 0.02
PARITY_RESERVE = 1 << 15
"""Bytes of the overhead budget that parity leaves: a retransmission is sent for what is known to be lost, parity on
suspicion."""
TAIL_RESERVE = 1 << 17
"""Bytes that the parity leaves that is no more than a precaution."""
REPORT_COST = 8
BATCHES_PER_UNIT = 8
"""Units of `ReportAllowance` that a report costs beside its octets, and batches in flight that cost one more."""
PROACTIVE_RESERVE = 1 << 16
"""Bytes of the budget that proactive retransmissions must not use."""


def _refuse_nothing(reason: str) -> None:
    raise AssertionError(f"a shard of our own: {reason}")


def _singles(frames: Iterable[FrameOrRun]) -> list[Frame]:
    """Return the frames before the next run."""
    singles: list[Frame] = []
    for frame in frames:
        if isinstance(frame, SegmentRun):
            break
        singles.append(frame)
    return singles


class StripeSender:
    """Sends the frames of one path. Never holds frames back: what it takes has left when `send` returns."""

    def __init__(self, config: StripeConfig, sealer: Sealer, pipes: Pipes, controller: Controller, now: float) -> None:
        self._config = config
        self._sealer = sealer
        self._pipes = pipes
        self.controller = controller
        self.pacer = Pacer(controller.pacing_rate, now)
        self.policy = ParityPolicy(config.fec, config.data_shards, config.parity_shards, config.max_overhead)
        self.overhead = OverheadBudget(config.max_overhead)
        self.pmtu = PathMtu(config.initial_datagram_size or config.datagram_size, config.datagram_size, now)
        self.recovery = Recovery(controller, self.pmtu, now)
        self.datagram_size = self.pmtu.size
        self._group: OpenGroup | None = None
        self._outgoing: list[tuple[Pipe, list[bytes]]] = []
        self._run_pipe = pipes.all[0]
        self._run_left = 0
        self._shapes: dict[int, tuple[int, int]] = {}
        """Of groups that begin now, by class, since a report or a timer could last change them."""
        self._allowance = ReportAllowance(now)
        self.max_in_flight = MAX_IN_FLIGHT
        """Bytes on their way at most, whatever the controller thinks."""
        self.data_shards = 0
        self.parity_shards = 0
        self.oversized = 0
        self.probes = 0

    @property
    def shard_capacity(self) -> int:
        """Bytes of frames that one shard takes; a retransmission needs room for its prefix."""
        return self.datagram_size - OVERHEAD - REPAIR_PREFIX.size

    def budget(self, now: float) -> int:
        """Bytes of encoded frames that may be sent now; retransmissions that wait go first."""
        if not self._pipes.carrying(now):
            return 0
        room = self._room(now)
        if room <= 0:
            return 0
        shards, parity_count = self._shape(1)
        if self.recovery.arq.ready:
            room -= min(self.recovery.arq.ready * self.datagram_size, int(self.overhead.credit))
        return max(0, room * shards // (shards + parity_count))

    def send(self, frames: Sequence[FrameOrRun], now: float) -> int:
        """Take frames in order while the budget lasts; returns how many."""
        self._send_repairs(now)
        room = self.budget(now)
        if room <= 0 or not frames:
            return 0
        taken, end = 0, len(frames)
        while taken < end and room > 0:
            frame = frames[taken]
            if isinstance(frame, SegmentRun):
                taken += 1
                room -= frame.size
                if frame.largest_frame > self.shard_capacity:
                    self.oversized += frame.count
                else:
                    self._send_bodies(flow_label(frame.head, frame.traffic_class), frame.encode(), now)
                continue
            singles = _singles(islice(frames, taken, None))
            stretches, used, oversized = bundle(singles, self.shard_capacity, room)
            taken += used
            self.oversized += oversized
            for label, bodies in stretches:
                room -= sum(map(len, bodies))
                self._send_bodies(label, bodies, now)
        if room >= self.datagram_size:
            self._mark_app_limited()
        return taken

    def take_outgoing(self) -> list[tuple[Pipe, list[bytes]]]:
        """Return what is to leave: runs of datagrams, each with its pipe, in order."""
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def unacknowledged(self, since: float) -> list[FrameOrRun]:
        """Return the frames that were sent since then and aren't known to have arrived, in order."""
        bodies = self.recovery.arq.bodies(since) | self.recovery.inflight.bodies(since)
        assembler = FrameAssembler(_refuse_nothing)
        for number in sorted(bodies):
            assembler.add(bodies[number])
        return [each.in_one_piece() if isinstance(each, SegmentRun) else each for each in assembler.take()]

    def on_rtt(self, rtt: float, now: float) -> None:
        """A round trip that a keepalive measured; by itself it serves until reports do."""
        self.recovery.estimators.rtt.add(rtt, now)
        self._shapes.clear()
        if self.recovery.rtt.smoothed is None:
            self.recovery.rtt.add(rtt, now)

    def affords_report(self, size: int, now: float) -> bool:
        """Tell whether a report of `size` bytes is worth its work: a peer has no reason to report more than it gets."""
        cost = REPORT_COST + size + len(self.recovery.inflight) // BATCHES_PER_UNIT
        return self._allowance.take(cost, self._sealer.next_shard, now)

    def on_report(self, report: Report, now: float) -> bool:
        """Take a receiver report; False when it speaks of what was never sent."""
        shards = self._sealer.next_shard
        if report.highest >= shards:
            return False
        if report.repaired:
            # Of what lies further back than any receiver remembers nothing is known here either.
            repaired = clip(report.repaired, shards - SHARD_WINDOW)
            numbers = sum(last - first + 1 for first, last in repaired)
            report = report._replace(repaired=repaired if self._allowance.take(numbers, shards, now) else [])
        if self.pacer.available(now) >= self.pacer.burst:
            self._mark_app_limited()
        self.recovery.arq.proactive = self.overhead.credit >= PROACTIVE_RESERVE
        self.recovery.on_report(report, now)
        self._shapes.clear()
        self._pipes.overdue = self.recovery.timeouts > 0
        self._pipes.sample(now)
        self.pacer.set_rate(self.controller.pacing_rate, now)
        self._send_repairs(now)
        return True

    def poll(self, now: float) -> None:
        """Do what time asks for: close the group, find losses, probe, send retransmissions, rekey."""
        recovery = self.recovery
        self._sealer.rekey_if_due(now)
        if self._group is not None and now >= self._group.deadline:
            self._close_group(now, tail=True)
        recovery.arq.proactive = self.overhead.credit >= PROACTIVE_RESERVE
        recovery.detect(now)
        self._shapes.clear()
        if recovery.inflight.bytes and now >= recovery.timeout_at:
            probe = recovery.on_timeout(now)
            # It may be the pipe: a probe on the same one, and what follows it there, would be lost like the tail.
            self._pipes.pass_over(self._run_pipe)
            self._pipes.overdue = True
            self._run_left = 0
            if probe is not None and self._pipes.carrying(now):
                self._close_group(now, tail=True)
                self.probes += 1
                self._transmit_repairs([probe] * min(recovery.timeouts, MAX_AT_ONCE), now)
        self.pacer.set_rate(self.controller.pacing_rate, now)
        self._send_repairs(now)
        recovery.arq.expire(now)
        self._pipes.sample(now)

    def next_time(self, now: float) -> float | None:
        """When `poll` is due; None while nothing is on its way."""
        times: list[float] = []
        if self._group is not None:
            times.append(self._group.deadline)
        if self.recovery.inflight.bytes:
            times.append(self.recovery.timeout_at)
            if self.recovery.inflight.loss_time is not None:
                times.append(self.recovery.inflight.loss_time)
        due = self.recovery.arq.next_time()
        if due is not None and self._group is None and self._can_repair(now):
            times.append(max(due, self.pacer.next_time(now)))
        return min(times) if times else None

    def send_time(self, now: float) -> float | None:
        """When `budget` is positive again as far as pacing knows; None when only a report can make it so."""
        if self._window() <= 0 or not self._pipes.carrying(now):
            return None
        at = self.pacer.next_time(now)
        # What the pacer allows may be reserved for retransmissions, and when these have gone isn't known.
        return at if at > now or self.budget(now) > 0 else now + BLOCKED_TIME

    def _mark_app_limited(self) -> None:
        """There would have been more if the application had it: what comes of this flight says nothing of the link."""
        if self.recovery.inflight.bytes < self.controller.congestion_window // 2:
            self.recovery.inflight.mark_app_limited()

    def _window(self) -> int:
        return min(self.controller.congestion_window, self.max_in_flight) - self.recovery.inflight.bytes

    def _room(self, now: float) -> int:
        return min(self._window(), self.pacer.available(now))

    def _can_repair(self, now: float) -> bool:
        return self._window() > 0 and self.overhead.credit >= self.datagram_size and bool(self._pipes.carrying(now))

    def _shape(self, traffic_class: int) -> tuple[int, int]:
        """Return data and parity shards of a group that begins now; without parity there is no group."""
        known = self._shapes.get(traffic_class)
        if known is not None:
            return known
        loss = self.recovery.loss.loss
        if self.policy.needs_none(loss):
            shape = self._shapes[traffic_class] = (1, 0)
            return shape
        span = min(MAX_SPAN, self.recovery.smoothed_rtt * SPAN_SHARE)
        most = int(self.controller.bandwidth * span / self.datagram_size)
        shape = self._shapes[traffic_class] = self.policy.shape(loss, traffic_class, most)
        return shape

    def _send_bodies(self, label: int, bodies: list[bytes], now: float) -> None:
        position = 0
        while position < len(bodies):
            if self._group is not None and self._group.label != label:
                self._close_group(now)
            if self._group is None:
                shards, parity_count = self._shape(label >> 8)
                if not parity_count:
                    self._transmit(PacketType.DATA, 0, 0, bodies[position:], now, label >> 8, None)
                    return
                self._group = OpenGroup(label, shards, parity_count, now + self._config.group_timeout + MAX_SPAN)
            group = self._group
            index = len(group.bodies)
            part = bodies[position : position + group.shards - index]
            group.bodies += part
            position += len(part)
            self._transmit(PacketType.DATA, index, group.shards, part, now, label >> 8, group.sent)
            if len(group.bodies) == group.shards:
                self._close_group(now)
            else:
                group.deadline = min(group.latest, now + self._config.group_timeout)

    def _close_group(self, now: float, *, tail: bool = False) -> None:
        group, self._group = self._group, None
        if group is None:
            return
        tail = tail and self.overhead.credit > TAIL_RESERVE
        wanted = self.policy.tail if tail else self.policy.parity
        # While no pipe carries parity has no way out, and what is repeated later repairs as much.
        carries = bool(self._pipes.carrying(now))
        count = wanted(len(group.bodies), self.recovery.loss.loss, group.label >> 8) if carries else 0
        size = max(map(len, group.bodies)) + OVERHEAD
        while count and not self.overhead.spend(count * size, reserve=PARITY_RESERVE):
            count -= 1
        group.sent.parity = count
        if count:
            bodies = parity(group.bodies, count)
            shards = len(group.bodies)
            self._transmit(PacketType.PARITY, shards, shards, bodies, now, group.label >> 8, group.sent)

    def _transmit(
        self,
        kind: PacketType,
        index: int,
        data_shards: int,
        bodies: list[bytes],
        now: float,
        traffic_class: int,
        group: SentGroup | None,
    ) -> None:
        sizes = list(map(OVERHEAD.__add__, map(len, bodies)))
        batch = SentBatch(self._sealer.next_shard, sizes, now)
        start = 0
        runs: list[Run] = []
        while start < batch.count:
            pipe, count = self._next_pipe(batch.count - start, now)
            run = bodies if count == batch.count else bodies[start : start + count]
            place = index + start if data_shards else 0
            self._emit(pipe, self._sealer.seal_shards(kind, pipe.number, place, data_shards, run))
            pipe.charged_bytes += sum(sizes[start : start + count])
            runs.append((pipe.sending, start, start + count))
            start += count
        batch.runs = runs
        if kind is PacketType.DATA:
            batch.bodies = bodies
            self.overhead.earn(batch.bytes)
            self.data_shards += len(bodies)
        else:
            self.parity_shards += len(bodies)
        batch.index, batch.data_shards, batch.group, batch.traffic_class = index, data_shards, group, traffic_class
        self._record(batch)

    def _next_pipe(self, wanted: int, now: float) -> tuple[Pipe, int]:
        """Return the pipe for the next shards and how many of `wanted` it takes before another's turn comes."""
        alive = self._pipes.carrying(now)
        if self._run_left <= 0 or self._run_pipe not in alive:
            self._run_pipe = self._pipes.choose(alive)
            self._run_left = int(self.controller.pacing_rate * RUN_TIME / self.datagram_size)
        count = min(wanted, max(self._run_left, RUN))
        self._run_left -= count
        return self._run_pipe, count

    def _record(self, batch: SentBatch) -> None:
        self.recovery.on_sent(batch)
        self.pacer.spend(batch.bytes)

    def _emit(self, pipe: Pipe, datagrams: list[bytes]) -> None:
        if self._outgoing and self._outgoing[-1][0] is pipe:
            self._outgoing[-1][1].extend(datagrams)
        else:
            self._outgoing.append((pipe, datagrams))

    def _send_repairs(self, now: float) -> None:
        if not len(self.recovery.arq) or not self._can_repair(now):
            return
        if self._group is not None:
            # The numbers of a group are consecutive: retransmissions wait until it is closed. For them a shorter one
            # will do.
            if not self.recovery.arq.ready or 4 * len(self._group.bodies) < 3 * self._group.shards:
                return
            self._close_group(now)
        room = self._room(now)
        if room <= 0:
            return
        repairs = self.recovery.arq.take(room, self.shard_capacity, now)
        for place, repair in enumerate(repairs):
            if not self.overhead.spend(len(repair.body) + REPAIR_PREFIX.size + OVERHEAD):
                self.recovery.arq.put_back(repairs[place:])
                repairs = repairs[:place]
                break
        if repairs:
            self._transmit_repairs(repairs, now)

    def _transmit_repairs(self, repairs: list[Repair], now: float) -> None:
        batch = SentBatch(
            self._sealer.next_shard, [len(repair.body) + REPAIR_PREFIX.size + OVERHEAD for repair in repairs], now
        )
        batch.repairs = repairs
        pipe = self._pipes.choose(self._pipes.carrying(now))
        pipe.charged_bytes += batch.bytes
        batch.runs = ((pipe.sending, 0, batch.count),)
        for repair in repairs:
            body = REPAIR_PREFIX.pack(repair.number & 0xFFFFFFFF) + repair.body
            self._emit(
                pipe,
                self._sealer.seal_shards(PacketType.REPAIR, pipe.number, repair.index, repair.data_shards, [body]),
            )
        self._record(batch)
