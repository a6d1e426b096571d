"""From the TUN to the paths: packets wait in class queues, and leave as frames by what the scheduler chooses.

Works on batches, and nothing here waits: what can't be sent now stays in its class queue.
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING, NamedTuple, Protocol

from mpquic.proto.packet import ip
from mpquic.proto.packet.ack_filter import filter_acks
from mpquic.proto.packet.frame import LOW_LATENCY, MAX_CLASS, Frame, FrameError, FrameFlag, SequenceCounter
from mpquic.proto.packet.run import SegmentRun
from mpquic.proto.packet.segment import layout
from mpquic.proto.packet.superframe import MIN_GSO_SIZE, Packet, SuperframeError, carried_whole, cut, parse_vnet
from mpquic.proto.tunnel.class_queue import ClassQueue
from mpquic.proto.tunnel.counters import Counters, packets_of
from mpquic.proto.tunnel.fragments import split

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mpquic.proto.path.data_plane import DataPlane
    from mpquic.proto.path.path import FrameOrRun

_FRAGMENT = int(FrameFlag.FRAGMENT)
_SUPERFRAME = int(FrameFlag.SUPERFRAME)
_CHECKSUM = int(FrameFlag.CHECKSUM)

Buffer = bytes | bytearray | memoryview

QUEUE_BYTES = 1 << 20
QUEUE_TIME = 0.03
"""Seconds of a path's rate that a class queue holds at least: room for the bursts of a quick path. CoDel keeps the
delay short, not this bound."""
QUEUE_TARGET = 0.005
"""CoDel's target in seconds (RFC 8289 section 4.4) on a path that loses nothing."""
QUEUE_INTERVAL = 0.1
UNIT_TIME = 0.005
"""Seconds of a path's rate that leave the queue together at most: the others wait for as long."""
LARGEST = 1 << 16
"""Bytes of the largest superframe."""
LOSSY = 0.02
"""Loss at which nearly always something waits for its repair: one in a large group of FEC."""
LONG_REPAIR = 0.25
"""Seconds of repairing in several rounds that the queue makes up for at most: other connections wait in it too."""
PACKET = 1400
"""Bytes of a full packet, near enough."""

# What waited longer than this (seconds) while no path carried is not sent any more.
MAX_AGE_WITHOUT_PATH = 1.0


class PathChooser(Protocol):
    """What the sender needs of a scheduler."""

    def select(self, traffic_class: int) -> DataPlane | None:
        """Return what carries a class now, None when nothing does."""
        ...


def read_packets(buffers: Iterable[Buffer], counters: Counters) -> list[Packet]:
    """Validate reads of the TUN; what cannot be carried is counted.

    Multicast, broadcast and link-local destinations are left out: the far side of a routed tunnel has nobody for them.
    """
    packets: list[Packet] = []
    for buffer in buffers:
        try:
            packet = parse_vnet(buffer)
        except SuperframeError as error:
            counters.refuse(error.reason)
            continue
        if ip.is_multicast_or_link_local(ip.destination(packet.payload)):
            counters.refuse("multicast_or_link_local_destination")
            continue
        packets.append(packet)
    return packets


class _Pending(NamedTuple):
    """Frames that a data plane did not take, the time of that, and the frame capacity for which they were built."""

    plane: DataPlane
    since: float
    capacity: int
    frames: list[FrameOrRun]


class TunnelSender:
    """Carries packets of the TUN to the peer of one tunnel.

    Classes are served in order of their number. A packet's sequence number is given when it leaves its queue.
    """

    def __init__(
        self,
        scheduler: PathChooser,
        *,
        traffic_class: int = 0,
        queues: Mapping[int, ClassQueue] | None = None,
        counters: Counters | None = None,
    ) -> None:
        self.queues = dict(sorted((queues or {traffic_class: ClassQueue()}).items(), key=_served_first))
        self.counters = counters if counters is not None else Counters()
        self._scheduler = scheduler
        self._traffic_class = traffic_class
        self._sequence = SequenceCounter()
        self._pending: dict[int, _Pending] = {}
        """By class."""
        self.touched: dict[DataPlane, None] = {}
        """What was given frames since it was emptied: their sockets are to be written to."""
        self.sending: DataPlane | None = None
        """What was asked to send last: a fault in `flush` is of that one."""

    @property
    def backlog(self) -> int:
        """Bytes that wait in class queues or were handed back by a path."""
        waiting = sum(queue.bytes for queue in self.queues.values())
        return waiting + sum(frame.size for pending in self._pending.values() for frame in pending.frames)

    @property
    def waiting(self) -> bool:
        """Whether anything waits: cheaper than `backlog`."""
        return bool(self._pending) or any(self.queues.values())

    def restart(self) -> None:
        """Begin a new session: sequence numbers start anew, what waits under old ones is dropped."""
        self._sequence = SequenceCounter()
        self._pending.clear()

    def enqueue(self, buffers: Iterable[Buffer], now: float) -> None:
        """Take reads of the TUN, each with its virtio header; the buffers must not be reused."""
        self.enqueue_packets(read_packets(buffers, self.counters), now)

    def enqueue_packets(self, packets: list[Packet], now: float) -> None:
        """Take packets that were read together and validated already."""
        queue = self.queues[self._traffic_class]
        kept = filter_acks(packets)
        self.counters.tx_thinned += len(packets) - len(kept)
        for packet in kept:
            queue.push(packet, now)

    def flush(self, now: float, limit: int | None = None) -> int:
        """Hand over what the paths take now; return the bytes of frames that they took.

        With `limit` it ends when so many bytes have been taken of a class; a superframe more may be.
        """
        return sum(self._flush_class(traffic_class, queue, now, limit) for traffic_class, queue in self.queues.items())

    def _flush_class(self, traffic_class: int, queue: ClassQueue, now: float, limit: int | None) -> int:
        total = 0
        while limit is None or total < limit:
            if not queue and traffic_class not in self._pending:
                return total
            plane = self._scheduler.select(traffic_class)
            if plane is None:
                self._age(traffic_class, queue, now)
                return total
            self.sending = plane
            budget = plane.budget(now)
            if budget <= 0:
                return total
            if limit is not None:
                budget = min(budget, limit - total)
            _tune(queue, plane)
            frames = self._frames(traffic_class, queue, plane, budget, now)
            if not frames:
                return total
            taken = plane.send(frames, now)
            self.touched[plane] = None
            total += self._count_sent(frames, taken)
            if taken < len(frames):
                self._pending[traffic_class] = _Pending(plane, now, plane.frame_capacity, frames[taken:])
                return total
        return total

    def _frames(
        self, traffic_class: int, queue: ClassQueue, plane: DataPlane, budget: int, now: float
    ) -> list[FrameOrRun]:
        """Return frames worth `budget` bytes, or a little more: first those that were handed back."""
        pending = self._pending.pop(traffic_class, None)
        if pending is not None:
            fits = pending.plane is plane and pending.capacity <= plane.frame_capacity
            return pending.frames if fits else self._refit(pending.frames, plane)
        frames: list[FrameOrRun] = []
        whole, runs = plane.reliable, plane.takes_runs
        capacity = plane.frame_capacity
        while budget > 0:
            packet = queue.pop(now)
            if packet is None:
                break
            if runs and packet.gso_size and (run := self._run(packet, traffic_class, capacity)) is not None:
                frames.append(run)
            elif packet.gso_size and not (whole and carried_whole(packet)):
                flags = _CHECKSUM if packet.direct else 0
                sequence = self._sequence.take(packet.segments)
                for segment in cut(packet):
                    frame = Frame(segment, traffic_class, sequence, flags)
                    sequence += 1
                    if whole or len(segment) + 8 <= capacity:
                        frames.append(frame)
                    else:
                        self._fragment(frame, capacity, frames)
            else:
                flags = _SUPERFRAME | _CHECKSUM if packet.gso_size else _CHECKSUM if packet.needs_csum else 0
                frame = Frame(packet.payload, traffic_class, self._sequence.take(), flags, packet.gso_size)
                if whole or len(packet.payload) + 8 <= capacity:
                    frames.append(frame)
                else:
                    self._fragment(frame, capacity, frames)
            budget -= len(packet.payload)
        return frames

    def _run(self, packet: Packet, traffic_class: int, capacity: int) -> SegmentRun | None:
        """Return a superframe as a run, None when its headers are unusual or its segments exceed a datagram."""
        size, step = packet.header_size, packet.gso_size
        if size + step + 12 > capacity or step < MIN_GSO_SIZE or not packet.direct:
            return None
        payload = packet.payload
        head = bytes(payload[:size])
        try:
            plan = layout(head)
        except ip.MalformedPacketError:
            return None
        count = packet.segments
        parts: list[bytes | memoryview] = [payload[size:]]
        return SegmentRun(head, plan, parts, 0, step, 0, self._sequence.take(count), count, traffic_class)

    def _fragment(self, frame: Frame, capacity: int, frames: list[FrameOrRun]) -> None:
        try:
            frames.extend(split(frame, capacity))
        except FrameError as error:
            self.counters.refuse(error.reason)

    def _refit(self, frames: list[FrameOrRun], plane: DataPlane) -> list[FrameOrRun]:
        """Make frames fit a path that were built for another one, or for a larger capacity."""
        capacity = plane.frame_capacity
        fitting: list[FrameOrRun] = []
        for frame in frames:
            if isinstance(frame, SegmentRun):
                if plane.takes_runs and frame.largest_frame <= capacity:
                    fitting.append(frame)
                    continue
                singles = frame.frames()
            else:
                singles = [frame]
            for single in singles:
                if plane.reliable:
                    fitting.append(single)
                else:
                    self._fragment(single, capacity, fitting)
        return fitting

    def _count_sent(self, frames: Sequence[FrameOrRun], taken: int) -> int:
        counters = self.counters
        size = payload = 0
        for frame in frames if taken == len(frames) else frames[:taken]:
            if isinstance(frame, SegmentRun):
                size += frame.size
                payload += frame.payload_size + frame.count * frame.layout.header
                counters.tx_superframes += 1
                counters.tx_packets += frame.count - 1
                counters.tx_frames += frame.count - 1
                continue
            length = len(frame.payload)
            payload += length
            size += length + 8
            flags = frame.flags
            if flags & 3:
                size += frame.header_size - 8
                if flags & _SUPERFRAME:
                    counters.tx_superframes += 1
                    counters.tx_packets += packets_of(frame) - 1
                if flags & _FRAGMENT and frame.fragment_index:
                    counters.tx_packets -= 1
        counters.tx_packets += taken
        counters.tx_frames += taken
        counters.tx_bytes += payload
        return size

    def _age(self, traffic_class: int, queue: ClassQueue, now: float) -> None:
        queue.expire(now - MAX_AGE_WITHOUT_PATH)
        pending = self._pending.get(traffic_class)
        if pending is not None and now - pending.since > MAX_AGE_WITHOUT_PATH:
            given_up = sum(frame.count if isinstance(frame, SegmentRun) else 1 for frame in pending.frames)
            self.counters.refuse("no_path", given_up)
            del self._pending[traffic_class]


def _served_first(entry: tuple[int, ClassQueue]) -> tuple[bool, int]:
    """Order of classes: those of low latency first, then by number."""
    return not entry[0] & LOW_LATENCY, entry[0] & MAX_CLASS


def _tune(queue: ClassQueue, plane: DataPlane) -> None:
    """Set a queue to a path: how much it holds, how much leaves at a time, and CoDel.

    While a path repairs losses, it holds back what its connections are told: their acknowledgements, and what follows
    these, come in bursts as long as it takes until the last of a window has arrived. The queue must hold as much, or
    the path runs dry after each. A connection that starts fills such a queue with several times what the path holds
    before CoDel's interval is over, and is then cut down as often: it is told sooner when another round trip waits.
    """
    rtt, rate = plane.rtt or 0.0, plane.rate
    queue.max_bytes = max(QUEUE_BYTES, int(rate * QUEUE_TIME))
    queue.unit = min(int(rate * UNIT_TIME), LARGEST) or LARGEST
    repair = min(plane.loss / LOSSY, 1.0) * max(rtt, min(rtt * _repair_rounds(plane.loss, rate * rtt), LONG_REPAIR))
    queue.target = QUEUE_TARGET + repair
    queue.interval = max(QUEUE_INTERVAL, 2 * (rtt + queue.target))
    queue.excess = max(queue.target + rtt, QUEUE_INTERVAL / 2)


def _repair_rounds(loss: float, window: float) -> float:
    """Return how many times some packet of a window of so many bytes has to be sent until one of it arrives, about.

    Of n packets n * loss^k are still missing after k transmissions.
    """
    if not 0 < loss < 1 or window <= PACKET:
        return 1.0
    return log(window / PACKET) / -log(loss)
