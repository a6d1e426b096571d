"""From the TUN to the paths: packets wait in class queues, and leave as frames by what the scheduler chooses.

Works on batches, and nothing here waits: what can't be sent now stays in its class queue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from mpquic.proto.packet import ip
from mpquic.proto.packet.ack_filter import filter_acks
from mpquic.proto.packet.frame import LOW_LATENCY, MAX_CLASS, Frame, FrameError, FrameFlag, SequenceCounter
from mpquic.proto.packet.run import SegmentRun, packets_in
from mpquic.proto.packet.segment import layout
from mpquic.proto.packet.superframe import MIN_GSO_SIZE, Packet, SuperframeError, carried_whole, cut, parse_vnet
from mpquic.proto.path.path import FrameOrRun, PathState
from mpquic.proto.tunnel.class_queue import MAX_PACKET, ClassQueue
from mpquic.proto.tunnel.counters import Counters, packets_of
from mpquic.proto.tunnel.fragments import rejoin, split
from mpquic.proto.tunnel.tuning import tune

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mpquic.proto.path.data_plane import DataPlane
    from mpquic.proto.tunnel.scheduler import Choice

_FRAGMENT = int(FrameFlag.FRAGMENT)
_SUPERFRAME = int(FrameFlag.SUPERFRAME)
_CHECKSUM = int(FrameFlag.CHECKSUM)

Buffer = bytes | bytearray | memoryview

# What waited longer than this (seconds) while no path carried is not sent any more.
MAX_AGE_WITHOUT_PATH = 1.0


RESEND_AGE = 2.0
"""Seconds: what was sent earlier on a path that has gone silent isn't sent again elsewhere."""


class Scheduler(Protocol):
    """What the sender asks: a policy."""

    def choose(self, traffic_class: int) -> Choice | None:
        """Return how a class is sent now, None when nothing carries."""
        ...


class _Shape(NamedTuple):
    """What frames are built for: what all planes take that are to carry them."""

    planes: tuple[object, ...]
    reliable: bool
    takes_runs: bool
    capacity: int

    def fits(self, other: _Shape) -> bool:
        """Tell whether frames of this shape can go where those of another can."""
        return self.planes == other.planes and self.capacity <= other.capacity


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
    """Frames that no data plane took, the time of that, and for what they were built; None for any."""

    shape: _Shape | None
    since: float
    frames: list[FrameOrRun]


class TunnelSender:
    """Carries packets of the TUN to the peer of one tunnel.

    Classes are served in order of their number. A packet's sequence number, of which each class has its own, is given
    when it leaves its queue.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        *,
        traffic_class: int = 0,
        queues: Mapping[int, ClassQueue] | None = None,
        counters: Counters | None = None,
    ) -> None:
        self.queues = dict(sorted((queues or {traffic_class: ClassQueue()}).items(), key=_served_first))
        self.counters = counters if counters is not None else Counters()
        self._scheduler = scheduler
        self._traffic_class = traffic_class
        self._sequences = {each: SequenceCounter() for each in self.queues}
        self._pending: dict[int, _Pending] = {}
        """By class."""
        self._used: dict[int, dict[DataPlane, None]] = {each: {} for each in self.queues}
        """What has been given frames of a class, and they weren't sent again elsewhere since."""
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
        self._sequences = {each: SequenceCounter() for each in self.queues}
        self._pending.clear()
        self._used = {each: {} for each in self.queues}

    def enqueue(self, buffers: Iterable[Buffer], now: float) -> None:
        """Take reads of the TUN, each with its virtio header; the buffers must not be reused."""
        self.enqueue_packets(read_packets(buffers, self.counters), now)

    def enqueue_packets(self, packets: list[Packet], now: float) -> None:
        """Take packets that were read together and validated already."""
        queue = self.queues[self._traffic_class]
        kept = filter_acks(packets)
        self.counters.tx_acks_filtered += len(packets) - len(kept)
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
            if (total or not self._used[traffic_class]) and not queue and traffic_class not in self._pending:
                return total
            choice = self._scheduler.choose(traffic_class)
            if choice is None:
                self._age(traffic_class, queue, now)
                return total
            if not total:
                self._send_again(traffic_class, choice, now)
            if not queue and traffic_class not in self._pending:
                return total
            planes, budget = self._with_room(choice, now)
            if not planes:
                return total
            if limit is not None:
                budget = min(budget, limit - total)
            if queue.bytes > MAX_PACKET:  # CoDel leaves less alone (RFC 8289 section 5.5), and nothing is cut.
                tune(queue, planes[0])
            shape = _shape(planes)
            frames = self._frames(traffic_class, queue, shape, budget, now)
            if not frames:
                return total
            taken = self._give(traffic_class, planes, frames, now)
            total += self._count_sent(frames, taken)
            if taken < len(frames):
                self._pending[traffic_class] = _Pending(shape, now, frames[taken:])
                return total
        return total

    def _with_room(self, choice: Choice, now: float) -> tuple[list[DataPlane], int]:
        """Return the planes that are to carry the next frames, and how many bytes of these they take."""
        found: list[DataPlane] = []
        least = 0
        for plane in choice.planes:
            self.sending = plane
            budget = plane.budget(now)
            if budget > 0:
                least = min(least, budget) if found else budget
                found.append(plane)
                if len(found) >= choice.copies:
                    break
        return found, least

    def _give(self, traffic_class: int, planes: Sequence[DataPlane], frames: list[FrameOrRun], now: float) -> int:
        """Have each plane send the frames; return how many left by one at least."""
        most = 0
        for plane in planes:
            self.sending = plane
            most = max(most, plane.send(frames, now))
            self.touched[plane] = None
            self._used[traffic_class][plane] = None
        return most

    def _send_again(self, traffic_class: int, choice: Choice, now: float) -> None:
        """Put what is in flight on planes that have gone silent, or have ended, before what waits."""
        used = self._used[traffic_class]
        lost: list[FrameOrRun] = []
        for plane in [each for each in used if each.state is PathState.DOWN or each in choice.silent]:
            if plane in choice.planes:
                continue
            del used[plane]
            if not traffic_class & LOW_LATENCY:  # what is late is as good as lost
                lost += plane.unacknowledged(now - RESEND_AGE)
        lost = [each for each in lost if each.traffic_class == traffic_class]
        if lost:
            pending = self._pending.get(traffic_class)
            self.counters.tx_resent_packets += sum(map(packets_in, lost))
            self._pending[traffic_class] = _Pending(None, now, lost + (pending.frames if pending is not None else []))

    def _frames(
        self, traffic_class: int, queue: ClassQueue, shape: _Shape, budget: int, now: float
    ) -> list[FrameOrRun]:
        """Return frames worth `budget` bytes, or a little more: first those that were handed back."""
        pending = self._pending.pop(traffic_class, None)
        if pending is not None:
            fits = pending.shape is not None and pending.shape.fits(shape)
            return pending.frames if fits else self._refit(pending.frames, shape)
        frames: list[FrameOrRun] = []
        _, whole, runs, capacity = shape
        sequences = self._sequences[traffic_class]
        while budget > 0:
            packet = queue.pop(now)
            if packet is None:
                break
            if runs and packet.gso_size and (run := self._run(packet, traffic_class, capacity)) is not None:
                frames.append(run)
            elif packet.gso_size and not (whole and carried_whole(packet)):
                flags = _CHECKSUM if packet.direct else 0
                sequence = sequences.take(packet.segments)
                for segment in cut(packet):
                    frame = Frame(segment, traffic_class, sequence, flags)
                    sequence += 1
                    if whole or len(segment) + 8 <= capacity:
                        frames.append(frame)
                    else:
                        self._fragment(frame, capacity, frames)
            else:
                flags = _SUPERFRAME | _CHECKSUM if packet.gso_size else _CHECKSUM if packet.needs_csum else 0
                frame = Frame(packet.payload, traffic_class, sequences.take(), flags, packet.gso_size)
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
        return SegmentRun(
            head, plan, parts, 0, step, 0, self._sequences[traffic_class].take(count), count, traffic_class
        )

    def _fragment(self, frame: Frame, capacity: int, frames: list[FrameOrRun]) -> None:
        try:
            frames.extend(split(frame, capacity))
        except FrameError as error:
            self.counters.refuse(error.reason)

    def _refit(self, frames: list[FrameOrRun], shape: _Shape) -> list[FrameOrRun]:
        """Make frames fit that were built for another path, or for a larger capacity."""
        capacity = shape.capacity
        fitting: list[FrameOrRun] = []
        for frame in rejoin(frames):
            if isinstance(frame, SegmentRun):
                if shape.takes_runs and frame.largest_frame <= capacity:
                    fitting.append(frame)
                    continue
                singles = frame.frames()
            else:
                singles = [frame]
            for single in singles:
                if shape.reliable:
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
            self.counters.refuse("no_path", sum(map(packets_in, pending.frames)))
            del self._pending[traffic_class]


def _served_first(entry: tuple[int, ClassQueue]) -> tuple[bool, int]:
    """Order of classes: those of low latency first, then by number."""
    return not entry[0] & LOW_LATENCY, entry[0] & MAX_CLASS


def _shape(planes: Sequence[DataPlane]) -> _Shape:
    """Return what all of these planes take."""
    first = planes[0]
    if len(planes) == 1:
        return _Shape((first,), first.reliable, first.takes_runs, first.frame_capacity)
    return _Shape(
        tuple(planes),
        all(plane.reliable for plane in planes),
        all(plane.takes_runs for plane in planes),
        min((plane.frame_capacity for plane in planes if not plane.reliable), default=first.frame_capacity),
    )
