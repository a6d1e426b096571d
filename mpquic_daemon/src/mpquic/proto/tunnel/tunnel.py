"""The way through an instance: TUN -> class queue -> scheduler -> path, and frames -> checks -> TUN.

Both halves work on batches. Nothing here waits: what cannot be sent now stays in its class queue.
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING, NamedTuple, Protocol

from mpquic.proto.packet import ip
from mpquic.proto.packet.ack_filter import thin
from mpquic.proto.packet.coalescer import Coalescer, Write
from mpquic.proto.packet.frame import (
    LOW_LATENCY,
    MAX_CLASS,
    Frame,
    FrameError,
    FrameFlag,
    SequenceCounter,
    decode_frames,
)
from mpquic.proto.packet.run import SegmentRun
from mpquic.proto.packet.segment import layout
from mpquic.proto.packet.superframe import MIN_GSO_SIZE, Packet, SuperframeError, carried_whole, cut, parse_vnet
from mpquic.proto.tunnel.class_queue import ClassQueue
from mpquic.proto.tunnel.dedup import Arrival, SequenceWindow
from mpquic.proto.tunnel.fragments import Reassembler, split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from mpquic.proto.path.path import Carried, Path

_FRAGMENT = int(FrameFlag.FRAGMENT)
_SUPERFRAME = int(FrameFlag.SUPERFRAME)
_CHECKSUM = int(FrameFlag.CHECKSUM)
_NEW, _DUPLICATE = Arrival.NEW, Arrival.DUPLICATE

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
RECEIVE_WINDOW = 1 << 16
"""Sequence numbers that a receiver remembers: pipes and paths may be as far apart as this, at their highest rate."""

# What waited longer than this (seconds) while no path carried is not sent any more.
MAX_AGE_WITHOUT_PATH = 1.0


class PathChooser(Protocol):
    """What the sender needs of a scheduler."""

    def select(self, traffic_class: int) -> Path | None:
        """Return the path for a class, None when nothing carries."""
        ...


_COUNTERS = (
    "rx_bytes",
    "rx_duplicates",
    "rx_frames",
    "rx_late",
    "rx_packets",
    "rx_writes",
    "tx_bytes",
    "tx_frames",
    "tx_packets",
    "tx_superframes",
    "tx_thinned",
)


class Counters:
    """What passed and what was refused. Packets are IP packets on the wire: each segment of a superframe is one."""

    __slots__ = (*_COUNTERS, "refused")

    def __init__(self) -> None:
        self.tx_packets = self.tx_bytes = self.tx_frames = self.tx_superframes = self.tx_thinned = 0
        self.rx_packets = self.rx_bytes = self.rx_frames = self.rx_writes = 0
        self.rx_duplicates = self.rx_late = 0
        self.refused: dict[str, int] = {}

    def refuse(self, reason: str, count: int = 1) -> None:
        """Count something that was not carried."""
        self.refused[reason] = self.refused.get(reason, 0) + count

    def snapshot(self) -> dict[str, int | dict[str, int]]:
        """Return all counters by name."""
        values: dict[str, int | dict[str, int]] = {name: getattr(self, name) for name in _COUNTERS}
        values["refused"] = dict(self.refused)
        return values


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
    """Frames that a path did not take, the time of that, and the frame capacity for which they were built."""

    path: Path
    since: float
    capacity: int
    frames: list[Carried]


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
        kept = thin(packets)
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
            path = self._scheduler.select(traffic_class)
            if path is None:
                self._age(traffic_class, queue, now)
                return total
            budget = path.budget(now)
            if budget <= 0:
                return total
            if limit is not None:
                budget = min(budget, limit - total)
            _tune(queue, path)
            frames = self._frames(traffic_class, queue, path, budget, now)
            if not frames:
                return total
            taken = path.send(frames, now)
            total += self._count_sent(frames, taken)
            if taken < len(frames):
                self._pending[traffic_class] = _Pending(path, now, path.frame_capacity, frames[taken:])
                return total
        return total

    def _frames(self, traffic_class: int, queue: ClassQueue, path: Path, budget: int, now: float) -> list[Carried]:
        """Return frames worth `budget` bytes, or a little more: first those that were handed back."""
        pending = self._pending.pop(traffic_class, None)
        if pending is not None:
            fits = pending.path is path and pending.capacity <= path.frame_capacity
            return pending.frames if fits else self._refit(pending.frames, path)
        frames: list[Carried] = []
        whole, runs = path.reliable, path.takes_runs
        capacity = path.frame_capacity
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

    def _fragment(self, frame: Frame, capacity: int, frames: list[Carried]) -> None:
        try:
            frames.extend(split(frame, capacity))
        except FrameError as error:
            self.counters.refuse(error.reason)

    def _refit(self, frames: list[Carried], path: Path) -> list[Carried]:
        """Make frames fit a path that were built for another one, or for a larger capacity."""
        capacity = path.frame_capacity
        fitting: list[Carried] = []
        for frame in frames:
            if isinstance(frame, SegmentRun):
                if path.takes_runs and frame.largest_frame <= capacity:
                    fitting.append(frame)
                    continue
                singles = frame.frames()
            else:
                singles = [frame]
            for single in singles:
                if path.reliable:
                    fitting.append(single)
                else:
                    self._fragment(single, capacity, fitting)
        return fitting

    def _count_sent(self, frames: Sequence[Carried], taken: int) -> int:
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
                    counters.tx_packets += _segments(frame) - 1
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


class TunnelReceiver:
    """Turns frames of the peer into TUN writes.

    `permits(source)` is asked for the source address (4 or 16 bytes) of inner packets; what it denies is dropped and
    counted. Without it any valid packet passes: right for a client, whose peer is the way to the whole Internet.
    """

    def __init__(
        self,
        *,
        permits: Callable[[bytes], bool] | None = None,
        counters: Counters | None = None,
        window: int = 4096,
        reassembly_timeout: float = 1.0,
        reassembly_bytes: int = 1 << 20,
    ) -> None:
        self.counters = counters if counters is not None else Counters()
        self._permits = permits
        self._window_size = window
        self._window = SequenceWindow(window)
        self._reassembly = (reassembly_timeout, reassembly_bytes)
        self.reassembler = Reassembler(*self._reassembly)
        self.coalescer = Coalescer(self.counters.refused)

    def restart(self) -> None:
        """Begin a new session: forget sequence numbers and fragments."""
        self._window = SequenceWindow(self._window_size)
        self.reassembler = Reassembler(*self._reassembly)

    def receive_datagrams(self, datagrams: Iterable[bytes], now: float) -> list[Write]:
        """Take datagrams, each with frames back to back. A malformed one is counted and dropped whole."""
        frames: list[Frame] = []
        for datagram in datagrams:
            try:
                frames += decode_frames(datagram)
            except FrameError as error:
                self.counters.refuse(f"frame_{error.reason}")
        return self.receive(frames, now)

    def receive(self, frames: Iterable[Carried], now: float) -> list[Write]:
        """Take decoded frames (low 32 bits of sequence numbers); return TUN writes, each a list of buffers."""
        writes = self.coalescer.rebuild(self._accept(frames, now))
        self.counters.rx_writes += len(writes)
        return writes

    def _accept(self, frames: Iterable[Carried], now: float) -> list[Carried]:
        """Return what is new, well formed and allowed."""
        counters, window, permits = self.counters, self._window, self._permits
        accepted: list[Carried] = []
        allowed_source: bytes | None = None
        received = packets = size = 0
        for frame in frames:
            if isinstance(frame, SegmentRun):
                if not window.add_low_run(frame.sequence, frame.count):
                    accepted += self._accept(frame.frames(), now)
                    continue
                received += frame.count
                if permits is not None:
                    source = ip.source(frame.head)
                    if source != allowed_source:
                        if not permits(source):
                            counters.refuse("source", frame.count)
                            continue
                        allowed_source = source
                accepted.append(frame)
                packets += frame.count
                size += frame.payload_size + frame.count * frame.layout.header
                continue
            received += 1
            if frame.flags & _FRAGMENT:
                sequence = window.expand(frame.sequence)
                # Entered into the window only when complete: fragments share their packet's number.
                arrival = window.check(sequence)
                if arrival is _NEW:
                    frame.sequence = sequence
                    whole = self.reassembler.add(frame, now)
                    if whole is None:
                        continue
                    frame = whole
                    window.add(sequence)
            else:
                arrival = window.add_low(frame.sequence)
            if arrival is not _NEW:
                if arrival is _DUPLICATE:
                    counters.rx_duplicates += 1
                else:
                    counters.rx_late += 1
                continue
            packet = frame.payload
            try:
                version = ip.check(packet)
            except ip.MalformedPacketError as error:
                counters.refuse(error.reason)
                continue
            if permits is not None:
                source = bytes(packet[12:16] if version == 4 else packet[8:24])
                if source != allowed_source:
                    if not permits(source):
                        counters.refuse("source")
                        continue
                    allowed_source = source
            accepted.append(frame)
            packets += 1
            size += len(packet)
            if frame.flags & _SUPERFRAME:
                packets += _segments(frame) - 1
        counters.rx_frames += received
        counters.rx_packets += packets
        counters.rx_bytes += size
        return accepted


def _served_first(entry: tuple[int, ClassQueue]) -> tuple[bool, int]:
    """Order of classes: those of low latency first, then by number."""
    return not entry[0] & LOW_LATENCY, entry[0] & MAX_CLASS


def _tune(queue: ClassQueue, path: Path) -> None:
    """Set a queue to a path: how much it holds, how much leaves at a time, and CoDel.

    While a path repairs losses, it holds back what its connections are told: their acknowledgements, and what follows
    these, come in bursts as long as it takes until the last of a window has arrived. The queue must hold as much, or
    the path runs dry after each. A connection that starts fills such a queue with several times what the path holds
    before CoDel's interval is over, and is then cut down as often: it is told sooner when another round trip waits.
    """
    rtt, rate = path.rtt or 0.0, path.rate
    queue.max_bytes = max(QUEUE_BYTES, int(rate * QUEUE_TIME))
    queue.unit = min(int(rate * UNIT_TIME), LARGEST) or LARGEST
    repair = min(path.loss / LOSSY, 1.0) * max(rtt, min(rtt * _repair_rounds(path.loss, rate * rtt), LONG_REPAIR))
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


def _segments(frame: Frame) -> int:
    """Return how many packets a superframe stands for, near enough for counters (a header may hold options)."""
    return -(-max(1, len(frame.payload) - 40) // frame.gso_size)
