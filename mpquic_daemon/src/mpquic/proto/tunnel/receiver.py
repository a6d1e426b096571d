"""From the paths to the TUN: de-duplication, reassembly, checks, order, and as few writes as possible."""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Protocol

from mpquic.proto.packet import ip
from mpquic.proto.packet.coalescer import Coalescer, Write
from mpquic.proto.packet.frame import FrameError, FrameFlag, decode_frames
from mpquic.proto.packet.run import SegmentRun, packets_in
from mpquic.proto.path.memory import MemoryBudget
from mpquic.proto.tunnel.counters import Counters, packets_of
from mpquic.proto.tunnel.dedup import Arrival, SequenceWindow
from mpquic.proto.tunnel.fragments import Reassembler
from mpquic.proto.tunnel.reorder import ReorderBuffer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from mpquic.proto.path.path import FrameOrRun

_FRAGMENT = int(FrameFlag.FRAGMENT)
_SUPERFRAME = int(FrameFlag.SUPERFRAME)
_NEW, _DUPLICATE = Arrival.NEW, Arrival.DUPLICATE

RECEIVE_WINDOW = 1 << 16
"""Sequence numbers that a receiver remembers: pipes and paths may be as far apart as this, at their highest rate."""


MAX_CLASSES = 8
"""Classes of which a peer may send; each has a window and a reorder buffer."""
RECENT = 1.0
"""Seconds for which a plane that has brought something may bring what is missing."""
MAX_PATIENCE = 1.5
"""Seconds for which a gap is waited for at most, however long the ways are: what comes later goes on out of order."""


class Source(Protocol):
    """What the receiver asks of the data plane by which frames have come: evidence of what may be missing in it."""

    @property
    def rtt(self) -> float | None:
        """Smoothed round-trip time in seconds, None before the first sample."""
        ...

    def repair_time(self, traffic_class: int, now: float) -> float:
        """Seconds in which it may yet bring what it has lost of a class; 0.0 when nothing that is lost comes again."""
        ...


class _Class:
    """The sequence space of one class."""

    __slots__ = ("order", "window")

    def __init__(self, window: int, memory: MemoryBudget) -> None:
        self.window = SequenceWindow(window)
        self.order = ReorderBuffer(extend=memory.extend)


class TunnelReceiver:
    """Turns frames of the peer into TUN writes.

    `permits(source)` is asked for the source address (4 or 16 bytes) of inner packets; what it denies is dropped and
    counted. Without it any valid packet passes: right for a client, whose peer is the way to the whole Internet.

    Usage: `receive` what the planes bring, `expire` when `next_time` says, or `on_shed` has been called.
    """

    def __init__(
        self,
        *,
        permits: Callable[[bytes], bool] | None = None,
        counters: Counters | None = None,
        window: int = 4096,
        reassembly_timeout: float = 1.0,
        reassembly_bytes: int = 1 << 20,
        memory: MemoryBudget | None = None,
    ) -> None:
        self.counters = counters if counters is not None else Counters()
        self.memory = memory if memory is not None else MemoryBudget()
        """The budget of the peer, which its planes share."""
        self.on_shed: Callable[[], None] = _nothing
        """Called when `expire` has something to do at once: room was made for something else of the same peer."""
        self._permits = permits
        self._window_size = window
        self.reassembler = Reassembler(reassembly_timeout, reassembly_bytes)
        self.coalescer = Coalescer(self.counters.refused)
        self._classes: dict[int, _Class] = {}
        self._held = self._given_up = 0
        """Of classes that have gone."""
        self._sources: dict[Source, float] = {}
        """When each plane that has brought something of late did so last."""

    def restart(self) -> None:
        """Begin a new session: forget sequence numbers, fragments and what waits."""
        self.close()
        self.reassembler.clear()

    def close(self) -> None:
        """Forget what waits: the tunnel is over."""
        self._held, self._given_up = self.held, self.given_up
        for each in self._classes.values():
            self.memory.remove(each.order)
        self._classes.clear()
        self._sources.clear()

    def highest(self, traffic_class: int) -> int:
        """Return the highest sequence number of a class that has come, -1 before the first."""
        space = self._classes.get(traffic_class)
        return -1 if space is None else space.window.highest

    @property
    def held(self) -> int:
        """Frames that have waited for others of their connection."""
        return self._held + sum(each.order.held for each in self._classes.values())

    @property
    def given_up(self) -> int:
        """Sequence numbers that were waited for in vain."""
        return self._given_up + sum(each.order.given_up for each in self._classes.values())

    @property
    def next_time(self) -> float | None:
        """When `expire` is due; None while nothing waits."""
        due: float | None = None
        for each in self._classes.values():
            time = each.order.next_time()
            if time is not None and (due is None or time < due):
                due = time
        return due

    def expire(self, now: float) -> list[Write]:
        """Return the writes of what has waited in vain, or for long enough."""
        return self._written([frame for each in self._classes.values() for frame in each.order.expire(now)])

    def receive_datagrams(self, datagrams: Iterable[bytes], now: float, source: Source | None = None) -> list[Write]:
        """Take datagrams, each with frames back to back. A malformed one is counted and dropped whole."""
        frames: list[FrameOrRun] = []
        for datagram in datagrams:
            try:
                frames += decode_frames(datagram)
            except FrameError as error:
                self.counters.refuse(f"frame_{error.reason}")
        return self.receive(frames, now, source)

    def receive(self, frames: Sequence[FrameOrRun], now: float, source: Source | None = None) -> list[Write]:
        """Take decoded frames (low 32 bits of sequence numbers) that a plane has brought; return TUN writes.

        Each write is a list of buffers. Without a source nothing waits for what is missing.
        """
        if not frames:
            return []
        if source is not None:
            self._heard(source, now)
        traffic_class = frames[0].traffic_class
        space = self._space(traffic_class)
        if space is not None:
            first = space.window.highest + 1
            after = _following(frames, first, traffic_class)
            if after and space.order.is_idle:
                space.window.add_run(first, after - first)
                before = self.counters.rx_bytes
                passing = self._checked(frames)
                if passing and source is not None:
                    space.order.passed(passing, first, after - 1, self.counters.rx_bytes - before)
                else:
                    space.order.highest = after - 1
                return self._written(passing)
        return self._written(self._sorted(frames, now, source))

    def _heard(self, source: Source, now: float) -> None:
        sources = self._sources
        sources[source] = now
        if len(sources) > 1:
            for each in [each for each, heard in sources.items() if heard < now - RECENT]:
                del sources[each]  # It may be over, and nobody else knows it.

    def _space(self, traffic_class: int) -> _Class | None:
        """Return the space of a class; None, of which there is nothing to be had, for one too many."""
        space = self._classes.get(traffic_class)
        if space is None and len(self._classes) < MAX_CLASSES:
            space = self._classes[traffic_class] = _Class(self._window_size, self.memory)
            space.order.on_shed = self._on_shed
            self.memory.add(space.order)
        return space

    def _on_shed(self) -> None:
        self.on_shed()

    def _written(self, frames: list[FrameOrRun]) -> list[Write]:
        if not frames:
            return []
        writes = self.coalescer.rebuild(frames)
        self.counters.rx_writes += len(writes)
        return writes

    def _sorted(self, frames: Sequence[FrameOrRun], now: float, source: Source | None) -> list[FrameOrRun]:
        """Take frames of any classes, whatever is missing, late or repeated; return what may go on."""
        passing: list[FrameOrRun] = []
        for traffic_class, group in groupby(frames, _class_of):
            space = self._space(traffic_class)
            if space is None:
                self.counters.refuse("class", sum(map(packets_in, group)))
                continue
            wait = 0.0 if source is None else self._patience(traffic_class, source, now)
            fresh, refused = self._fresh(space.window, group, now)
            for number, count in refused:
                space.order.arrived(number, count, now, wait)
            passing += space.order.add(fresh, now, wait)
        return passing

    def _patience(self, traffic_class: int, source: Source, now: float) -> float:
        """Return how many seconds a gap is waited for: any plane that has brought something of late may fill it."""
        wait = source.repair_time(traffic_class, now)
        for other in self._sources:
            if other is not source:
                wait = max(wait, (other.rtt or 0.0) + other.repair_time(traffic_class, now))
        return min(wait, MAX_PATIENCE)

    def _fresh(
        self, window: SequenceWindow, frames: Iterable[FrameOrRun], now: float
    ) -> tuple[list[FrameOrRun], list[tuple[int, int]]]:
        """Return what hasn't come before and is well formed and allowed; and numbers of the rest, with their count."""
        counters = self.counters
        fresh: list[FrameOrRun] = []
        refused: list[tuple[int, int]] = []
        for frame in frames:
            if isinstance(frame, SegmentRun):
                if not window.add_low_run(frame.sequence, frame.count):
                    singles = self._fresh(window, frame.frames(), now)
                    fresh += singles[0]
                    refused += singles[1]
                    continue
                whole: FrameOrRun | None = frame
                arrival = _NEW
            elif frame.flags & _FRAGMENT:
                sequence = window.expand(frame.sequence)
                # Entered into the window only when complete: fragments share their packet's number.
                arrival = window.check(sequence)
                whole = None
                if arrival is _NEW:
                    frame.sequence = sequence
                    whole = self.reassembler.add(frame, now)
                    if whole is None:
                        counters.rx_frames += 1
                        continue
                    window.add(sequence)
            else:
                whole = frame
                arrival = window.add_low(frame.sequence)
            if arrival is not _NEW or whole is None:
                counters.rx_frames += 1
                if arrival is _DUPLICATE:
                    counters.rx_duplicates += 1
                else:
                    counters.rx_late += 1
                continue
            checked = self._checked((whole,))
            if checked:
                fresh += checked
            else:
                refused.append((window.expand(whole.sequence & 0xFFFFFFFF), packets_in(whole)))
        return fresh, refused

    def _checked(self, frames: Sequence[FrameOrRun]) -> list[FrameOrRun]:
        """Return what is well formed and allowed, and count it."""
        counters, permits = self.counters, self._permits
        checked: list[FrameOrRun] = []
        allowed_source: bytes | None = None
        received = packets = size = 0
        for frame in frames:
            if isinstance(frame, SegmentRun):
                received += frame.count
                if permits is not None:
                    source = ip.source(frame.head)
                    if source != allowed_source:
                        if not permits(source):
                            counters.refuse("source", frame.count)
                            continue
                        allowed_source = source
                checked.append(frame)
                packets += frame.count
                size += frame.payload_size + frame.count * frame.layout.header
                continue
            received += 1
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
            checked.append(frame)
            packets += 1
            size += len(packet)
            if frame.flags & _SUPERFRAME:
                packets += packets_of(frame) - 1
        counters.rx_frames += received
        counters.rx_packets += packets
        counters.rx_bytes += size
        return checked


def _nothing() -> None:
    """Do nothing."""


_class_of = attrgetter("traffic_class")


def _following(frames: Sequence[FrameOrRun], due: int, traffic_class: int) -> int:
    """Return the number after the last frame when they are whole, of one class, and follow each other from `due` on.

    0 when they aren't.
    """
    for frame in frames:
        if frame.sequence != due & 0xFFFFFFFF or frame.traffic_class != traffic_class:
            return 0
        if isinstance(frame, SegmentRun):
            due += frame.count
        elif frame.flags & _FRAGMENT:
            return 0
        else:
            due += 1
    return due
