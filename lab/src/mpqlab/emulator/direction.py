"""One direction of a link as a pure state machine: frames and the time come in, frames that are due go out.

The way of a packet:  black hole, MTU -> cap of its flow -> queue and capacity -> loss, corruption, duplication
-> delay, jitter, reordering -> out. Loss lies behind the capacity: a packet that is lost on the way has used it.

Times are seconds of one monotonic clock and never go back. All chance follows from the configured seed.
"""

import heapq
import math
import random
from collections import deque

from mpqlab.emulator import icmp, leo
from mpqlab.emulator.counters import Counters
from mpqlab.emulator.frame import (
    VNET_HDR_SIZE,
    Frame,
    FrameError,
    complete_checksum,
    cut,
    flow_key,
    from_packet,
    parse,
    transport_offset,
)
from mpqlab.emulator.jitter import Wander
from mpqlab.emulator.model import DirectionConfig

MAX_FLOWS = 4096
"""Flows that are remembered for the cap; the idle ones are forgotten when there are more."""
BURST_S = 0.001
"""A superframe is cut so that no part of it holds the capacity for longer than this."""
_WHOLE = 1 << 16
_BYTES_PER_MBIT = 1e6 / 8


class Direction:
    """One direction. `name` seeds its chance together with the configuration's seed.

    `wall_offset` is what to add to a time to get seconds since the epoch, for the slots of a LEO link follow the wall
    clock.
    """

    def __init__(self, name: str, config: DirectionConfig, wall_offset: float = 0.0) -> None:
        self.name = name
        self.counters = Counters()
        self._wall_offset = wall_offset
        self._replies: list[bytes] = []
        self._order = 0  # breaks ties in the heaps
        # The cap of each flow: when each flow's last packet has passed it, and the packets on their way through.
        self._flows: dict[bytes, float] = {}
        self._shaped: list[tuple[float, int, Frame]] = []
        # The capacity: a FIFO queue whose head is being sent since _head_start, with _head_left bytes to go.
        self._queue: deque[Frame] = deque()
        self._queued_bytes = 0.0
        self._head_start = 0.0
        self._head_left = 0.0
        self._rate = math.inf  # bytes a second; 0 in an outage
        self._slot: leo.Slot | None = None
        self._rate_change = math.inf  # when the slot changes _rate by itself
        # The line: frames in order with the time they are due, and those that are held back to be overtaken.
        self._line: deque[tuple[float, Frame]] = deque()
        self._held: list[tuple[float, int, Frame]] = []
        self._last_due = 0.0
        self.config = config
        self._apply(config, 0.0)
        self._seed()

    # -- configuration ----------------------------------------------------------------------------------------------

    def configure(self, config: DirectionConfig, now: float, *, reseed: bool = False) -> None:
        """Let `config` hold from `now` on. What was sent before has been sent at the old rate.

        `reseed` starts the random sequences again, as a fresh start with this seed would.
        """
        self._advance(now)
        self.config = config
        self._apply(config, now)
        self._advance(now)
        if reseed:
            self._seed()

    def _apply(self, config: DirectionConfig, now: float) -> None:
        self._delay = config.delay_ms / 1000
        self._flow_rate = config.flow_rate_mbit * _BYTES_PER_MBIT
        self._single = config.treats_single_packets
        self._slot = None
        self._rate_change = math.inf
        self._set_rate(config.rate_mbit * _BYTES_PER_MBIT or math.inf, now)
        if config.leo:
            self._follow_slot(now)
        limits = [mbit * _BYTES_PER_MBIT for mbit in (self._slot_mbit(), config.flow_rate_mbit) if mbit]
        self._burst_bytes = min(limits) * BURST_S if limits else math.inf

    def _seed(self) -> None:
        seed = f"{self.config.seed}/{self.name}"
        # A sequence for each kind of chance, so that switching one on doesn't change what the others do.
        self._loss_chance = random.Random(f"{seed}/loss").random
        self._burst_chance = random.Random(f"{seed}/burst").random
        self._reorder_chance = random.Random(f"{seed}/reorder").random
        self._duplicate_chance = random.Random(f"{seed}/duplicate").random
        self._corrupt_random = random.Random(f"{seed}/corrupt")
        self._wander = Wander(random.Random(f"{seed}/jitter"))
        self._burst_is_bad = False

    # -- in and out -------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, now: float) -> None:
        """Take what one read of the sending side's TUN gave: a virtio header and a packet or superframe."""
        counters = self.counters
        try:
            frame = parse(data)
        except FrameError:
            counters.in_packets += 1
            counters.in_bytes += max(0, len(data) - VNET_HDR_SIZE)
            counters.drop("malformed", 1, max(0, len(data) - VNET_HDR_SIZE))
            return
        segments = frame.segments
        counters.in_packets += segments
        counters.in_bytes += frame.size
        if segments > 1:
            counters.superframes += 1
        config = self.config
        if config.blackhole:
            counters.drop("blackhole", segments, frame.size)
            return
        self._advance(now)
        if config.mtu and frame.packet_size > config.mtu:
            for packet in cut(frame, 1):
                self._limit_size(packet, now)
        elif segments > 1:
            for part in cut(frame, self._part_segments(frame)):
                self._shape(part, now)
        else:
            self._shape(frame, now)

    def receive_icmp(self, packet: bytes, now: float) -> None:
        """Take an ICMP message that the other direction's MTU called for."""
        self.counters.icmp += 1
        self.receive(from_packet(packet).data, now)

    def take_replies(self) -> list[bytes]:
        """Return the ICMP messages, as IP packets, that must travel in the other direction, and forget them."""
        replies = self._replies
        if replies:
            self._replies = []
        return replies

    def release(self, now: float) -> list[Frame]:
        """Return the frames that are due, in the order of their going out. They count as out: see `refused`."""
        self._advance(now)
        line, held = self._line, self._held
        due: list[Frame] = []
        while True:
            if line and line[0][0] <= now and not (held and held[0][0] < line[0][0]):
                due.append(line.popleft()[1])
            elif held and held[0][0] <= now:
                due.append(heapq.heappop(held)[2])
            else:
                break
        counters = self.counters
        if due and self.config.blackhole:
            for frame in due:
                counters.drop("blackhole", frame.segments, frame.size)
            return []
        for frame in due:
            counters.out_packets += frame.segments
            counters.out_bytes += frame.size
        return due

    def refused(self, frame: Frame) -> None:
        """Count a released frame as lost, since the device didn't take it."""
        self.counters.out_packets -= frame.segments
        self.counters.out_bytes -= frame.size
        self.counters.drop("device", frame.segments, frame.size)

    def next_event(self) -> float | None:
        """Return when `release` should be called next, or None while nothing is on its way."""
        times = []
        if self._shaped:
            times.append(self._shaped[0][0])
        if self._held:
            times.append(self._held[0][0])
        if self._line:
            # Whatever leaves the queue before this is due after it, so there is no need to look at the queue earlier.
            times.append(self._line[0][0])
        elif self._queue:
            times.append(min(self._head_finish(), self._rate_change))
        return min(times) if times else None

    def pending(self) -> int:
        """Return the number of packets on their way."""
        ways = (self._queue, (item[2] for item in self._shaped), (item[1] for item in self._line))
        return sum(frame.segments for way in ways for frame in way) + sum(item[2].segments for item in self._held)

    # -- size -------------------------------------------------------------------------------------------------------

    def _part_segments(self, frame: Frame) -> int:
        """Return how many packets of a superframe may stay together."""
        if self._single:
            return 1
        if self._burst_bytes == math.inf:
            return _WHOLE
        return max(1, int(self._burst_bytes // frame.packet_size))

    def _limit_size(self, frame: Frame, now: float) -> None:
        mtu = self.config.mtu
        if frame.packet_size <= mtu:
            self._shape(frame, now)
            return
        if self.config.mtu_icmp:
            packet = complete_checksum(frame).data[VNET_HDR_SIZE:]
            if icmp.may_fragment(packet) and mtu >= transport_offset(packet) + 8:
                fragments = icmp.fragment(packet, mtu)
                self.counters.fragments += len(fragments) - 1
                for fragment in fragments:
                    self._shape(from_packet(fragment), now)
                return
            reply = icmp.too_big(packet, mtu)
            if reply is not None:
                self._replies.append(reply)
        self.counters.drop("mtu", 1, frame.size)

    # -- cap of a flow ----------------------------------------------------------------------------------------------

    def _shape(self, frame: Frame, now: float) -> None:
        rate = self._flow_rate
        if not rate:
            self._enqueue(frame, now)
            return
        flows = self._flows
        key = flow_key(frame)
        free = max(now, flows.get(key, now))
        if free - now > self.config.flow_queue_ms / 1000:
            self.counters.drop("flow_queue", frame.segments, frame.size)
            return
        if len(flows) >= MAX_FLOWS and key not in flows:
            self._forget_flows(now)
        passed = free + frame.size / rate
        flows[key] = passed
        self._order += 1
        heapq.heappush(self._shaped, (passed, self._order, frame))

    def _forget_flows(self, now: float) -> None:
        self._flows = {key: free for key, free in self._flows.items() if free > now}
        while len(self._flows) >= MAX_FLOWS:
            del self._flows[next(iter(self._flows))]

    # -- queue and capacity -----------------------------------------------------------------------------------------

    def _enqueue(self, frame: Frame, now: float) -> None:
        if self._rate == math.inf and not self._queue:
            self._transmit(frame, now)
            return
        if not self._queue:
            if now >= self._rate_change:
                self._follow_slot(now)
            self._head_start = now
            self._head_left = self._queued_bytes = frame.size
        else:
            waiting = self._queued_bytes
            if self._rate:
                waiting -= (now - self._head_start) * self._rate
            if waiting > self._queue_limit():
                self.counters.drop("queue", frame.segments, frame.size)
                return
            self._queued_bytes += frame.size
        self._queue.append(frame)

    def _queue_limit(self) -> float:
        """Return the bytes that may wait: what the capacity, as it is outside of outages, sends in queue_ms."""
        return self.config.queue_ms / 1000 * self._slot_mbit() * _BYTES_PER_MBIT

    def _slot_mbit(self) -> float:
        config = self.config
        if self._slot is None:
            return config.rate_mbit
        return config.leo_min_mbit + self._slot.capacity * (config.leo_max_mbit - config.leo_min_mbit)

    def _follow_slot(self, now: float) -> None:
        """Let the capacity be what the LEO slot gives at `now`."""
        wall = now + self._wall_offset
        self._slot = slot = leo.slot_at(wall, self.config.seed)
        # At least a microsecond ahead, or rounding in the offset could find the same boundary again and again.
        self._rate_change = max(slot.next_change(wall) - self._wall_offset, now + 1e-6)
        outage = slot.capacity_at(wall) is None
        self._set_rate(0.0 if outage else self._slot_mbit() * _BYTES_PER_MBIT, now)

    def _set_rate(self, rate: float, now: float) -> None:
        if self._queue and self._rate and now > self._head_start:
            sent = min(self._head_left, (now - self._head_start) * self._rate)
            self._head_left -= sent
            self._queued_bytes -= sent
        self._head_start = max(now, self._head_start)
        self._rate = rate

    def _head_finish(self) -> float:
        return self._head_start + self._head_left / self._rate if self._rate else math.inf

    def _advance(self, now: float) -> None:
        """Do, in the order of time, what the cap of the flows and the capacity have finished until `now`."""
        shaped, queue = self._shaped, self._queue
        while shaped or queue:
            passed = shaped[0][0] if shaped else math.inf
            finish = self._head_finish() if queue else math.inf
            change = self._rate_change if queue else math.inf
            time = min(passed, finish, change)
            if time > now:
                return
            if time == change:
                self._follow_slot(time)
            elif time == finish:
                frame = queue.popleft()
                self._queued_bytes -= self._head_left
                self._head_start = finish
                if queue:
                    self._head_left = queue[0].size
                self._transmit(frame, finish)
            else:
                self._enqueue(heapq.heappop(shaped)[2], passed)

    # -- the wire ---------------------------------------------------------------------------------------------------

    def _transmit(self, frame: Frame, time: float) -> None:
        if not self._single:
            self._send_late(frame, time)
            return
        for packet in cut(frame, 1):
            self._expose(packet, time)

    def _expose(self, frame: Frame, time: float) -> None:
        """Send a single packet over a wire that may lose, damage and double it."""
        config = self.config
        if config.loss_percent and self._loss_chance() * 100 < config.loss_percent:
            self.counters.drop("loss", 1, frame.size)
            return
        if (config.burst_enter_percent or config.burst_good_loss_percent) and self._is_lost_in_burst():
            self.counters.drop("burst", 1, frame.size)
            return
        if config.corrupt_percent and self._corrupt_random.random() * 100 < config.corrupt_percent:
            frame = self._corrupt(frame)
        if config.duplicate_percent and self._duplicate_chance() * 100 < config.duplicate_percent:
            self.counters.duplicated += 1
            self._send_late(frame, time)
        if config.reorder_percent and self._reorder_chance() * 100 < config.reorder_percent:
            self.counters.reordered += 1
            self._order += 1
            due = max(time + self._delay_at(time), self._last_due) + config.reorder_ms / 1000
            heapq.heappush(self._held, (due, self._order, frame))
            return
        self._send_late(frame, time)

    def _is_lost_in_burst(self) -> bool:
        """Gilbert-Elliott: two states that change with each packet, each with its own loss."""
        config, chance = self.config, self._burst_chance
        if self._burst_is_bad:
            self._burst_is_bad = chance() * 100 >= config.burst_leave_percent
        else:
            self._burst_is_bad = chance() * 100 < config.burst_enter_percent
        loss = config.burst_bad_loss_percent if self._burst_is_bad else config.burst_good_loss_percent
        return chance() * 100 < loss

    def _corrupt(self, frame: Frame) -> Frame:
        """Flip one bit behind the IP header, with the checksum completed first so that the receiver can notice."""
        packet = bytearray(complete_checksum(frame).data[VNET_HDR_SIZE:])
        start = min(transport_offset(packet), len(packet) - 1)
        bit = self._corrupt_random.randrange((len(packet) - start) * 8)
        packet[start + bit // 8] ^= 1 << (bit % 8)
        self.counters.corrupted += 1
        return from_packet(bytes(packet))

    def _send_late(self, frame: Frame, time: float) -> None:
        due = time + self._delay_at(time)
        # What was sent later never arrives earlier, also when the delay has just become shorter.
        if due < self._last_due:
            due = self._last_due
        else:
            self._last_due = due
        self._line.append((due, frame))

    def _delay_at(self, time: float) -> float:
        delay = self._delay
        config = self.config
        if config.jitter_ms:
            delay += self._wander.at(time, config.jitter_ms / 1000)
        if config.leo:
            wall = time + self._wall_offset
            slot = self._slot
            if slot is None or not slot.start <= wall < slot.end:
                slot = leo.slot_at(wall, config.seed)
            delay += slot.extra_delay(wall)
        return delay
