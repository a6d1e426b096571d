"""From the paths to the TUN: de-duplication, reassembly, checks, and as few writes as possible."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpquic.proto.packet import ip
from mpquic.proto.packet.coalescer import Coalescer, Write
from mpquic.proto.packet.frame import Frame, FrameError, FrameFlag, decode_frames
from mpquic.proto.packet.run import SegmentRun
from mpquic.proto.tunnel.counters import Counters, packets_of
from mpquic.proto.tunnel.dedup import Arrival, SequenceWindow
from mpquic.proto.tunnel.fragments import Reassembler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mpquic.proto.path.path import FrameOrRun

_FRAGMENT = int(FrameFlag.FRAGMENT)
_SUPERFRAME = int(FrameFlag.SUPERFRAME)
_NEW, _DUPLICATE = Arrival.NEW, Arrival.DUPLICATE

RECEIVE_WINDOW = 1 << 16
"""Sequence numbers that a receiver remembers: pipes and paths may be as far apart as this, at their highest rate."""


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

    @property
    def highest(self) -> int:
        """The highest sequence number that has come, -1 before the first."""
        return self._window.highest

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

    def receive(self, frames: Iterable[FrameOrRun], now: float) -> list[Write]:
        """Take decoded frames (low 32 bits of sequence numbers); return TUN writes, each a list of buffers."""
        writes = self.coalescer.rebuild(self._accept(frames, now))
        self.counters.rx_writes += len(writes)
        return writes

    def _accept(self, frames: Iterable[FrameOrRun], now: float) -> list[FrameOrRun]:
        """Return what is new, well formed and allowed."""
        counters, window, permits = self.counters, self._window, self._permits
        accepted: list[FrameOrRun] = []
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
                packets += packets_of(frame) - 1
        counters.rx_frames += received
        counters.rx_packets += packets
        counters.rx_bytes += size
        return accepted
