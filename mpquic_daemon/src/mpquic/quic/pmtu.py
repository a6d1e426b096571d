"""Path MTU discovery of a QUIC connection: which packets pass in its direction (RFC 9000 section 14, RFC 8899).

The handshake is made of the smallest packets that QUIC allows, so a path that carries QUIC at all carries it. Then
PINGs, padded to a size on trial, search for what passes, as on a striped path (`mpquic.proto.path.pmtu`). Their loss
is no sign of congestion (RFC 9000 section 14.4). Lost packets and ICMP start another look; both prove nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aioquic.quic.packet_builder import QuicDeliveryState

from mpquic.proto.path.pmtu import PathMtu, Probe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aioquic.quic.packet_builder import QuicSentPacket

    from mpquic.quic.congestion import PathMeter

MIN_DATAGRAM_SIZE = 1200
"""UDP payload in bytes that each path must carry (RFC 9000 section 14)."""
IP_UDP_BYTES = {4: 28, 6: 48}
"""Bytes of the IP and UDP headers by the version of IP, without options."""
SMALL = 1000
"""Bytes: packets up to here may pass where QUIC's smallest path MTU doesn't, as most control messages do."""
LARGE_LOSSES = 3
"""Packets above `SMALL` lost in a row that raise suspicion."""
EVIDENCE_TIME = 10.0
"""Seconds: losses that are further apart say nothing together."""
RETRY_PAUSE = 0.05
"""Seconds until probes are tried again when the connection has something else to say first."""
BASE_PROBES = 10
"""Probes of the smallest size in a row without a reply, after which it is found not to pass,"""
BASE_ROUNDS = 5
"""if in so many of the pauses between them replies to probes of `TINY` bytes came."""
TINY = 64
BASE_DOUBTS = 2
"""Probes of the smallest size without a reply from which on those of `TINY` bytes go with them."""


class QuicPathMtu:
    """Sizes are UDP payloads in bytes, `ceiling` what the local link takes; times are seconds.

    Usage: from `start` on, at `due` call `poll` and send what it returns, then take over `size`.
    """

    def __init__(self, ceiling: int, meter: PathMeter) -> None:
        self._search: PathMtu | None = None
        self._ceiling = max(MIN_DATAGRAM_SIZE, ceiling)
        self._meter = meter
        self.due = float("inf")
        """When `poll` has something to do."""
        self.base_fails = False
        """Whether packets of `MIN_DATAGRAM_SIZE` don't pass while smaller ones do."""
        self._arrived: list[Probe] = []
        self._unanswered = 0
        self._rounds = 0
        self._tiny_passed = False
        self._losses = 0
        self._first_loss_at = 0.0
        self._loss_mark = (0, 0)

    @property
    def size(self) -> int:
        """Largest packet that is known to pass."""
        return MIN_DATAGRAM_SIZE if self._search is None else self._search.size

    @property
    def black_holes(self) -> int:
        """How often the path was found to have shrunk."""
        return 0 if self._search is None else self._search.black_holes

    def start(self) -> None:
        """Begin to search, at once."""
        if self._search is None:
            self._search = PathMtu(MIN_DATAGRAM_SIZE, self._ceiling, 0.0)
            self._look()

    def poll(self, now: float, rtt: float | None) -> list[Probe]:
        """Take what became of earlier probes; return those that are to be sent, each in a packet of its size."""
        search = self._search
        if search is None:
            return []
        for probe in self._arrived:
            if probe.size == TINY:
                self._tiny_passed = True
                continue
            search.on_acknowledged(probe, now)
            self._unanswered = self._rounds = 0
            self.base_fails = False
        self._arrived.clear()
        probes = search.poll(now, rtt or 1.0)
        if probes:
            self._rounds += self._tiny_passed
            self._tiny_passed = False
            self._unanswered += 1
            self.base_fails = self._unanswered > BASE_PROBES and self._rounds >= BASE_ROUNDS
            if self._unanswered > BASE_DOUBTS:
                probes = [Probe(-1, TINY), *probes]
        self._look()
        return probes

    def postpone(self, now: float) -> None:
        """Nothing can be sent now."""
        self.due = now + RETRY_PAUSE

    def on_delivery(self, state: QuicDeliveryState, probe: Probe) -> None:
        """Take what became of a probe; silence alone says that its size doesn't pass, for the loss may be another's."""
        if state is QuicDeliveryState.ACKED:
            self._arrived.append(probe)
            self.due = 0.0

    def on_lost(self, packets: Sequence[QuicSentPacket]) -> None:
        """Packets that carried something were lost, or a timeout says so."""
        large = sum(packet.sent_bytes > SMALL for packet in packets)
        if not large or self._search is None:
            return
        now = packets[-1].sent_time or 0.0
        acked, acked_bytes = (value - mark for value, mark in zip(self._mark(), self._loss_mark, strict=True))
        # By the average, since a look at each acknowledged packet would cost more than a look too many does here.
        if not self._losses or now - self._first_loss_at > EVIDENCE_TIME or acked_bytes > SMALL * acked:
            self._losses, self._first_loss_at = 0, now
            self._loss_mark = self._mark()
        self._losses += large
        if self._losses >= LARGE_LOSSES:
            self._losses = 0
            self.doubt()

    def doubt(self) -> None:
        """Have a look whether the size in use still passes."""
        if self._search is not None:
            self._search.doubt()
            self._look()

    def on_hint(self, size: int) -> None:
        """ICMP says that no more than `size` bytes pass."""
        if self._search is not None:
            self._search.on_hint(size)
            self._look()

    def on_too_large(self, size: int, now: float) -> None:
        """The device refuses packets of `size` bytes."""
        if self._search is not None:
            self._search.on_too_large(size, now)
            self._look()

    def _mark(self) -> tuple[int, int]:
        return self._meter.packets_acked, self._meter.bytes_acked

    def _look(self) -> None:
        due = self._search.due_at if self._search is not None else None
        self.due = float("inf") if due is None else due


def smallest_mtu(version: int) -> int:
    """Return the path MTU in bytes that QUIC needs over this version of IP."""
    return MIN_DATAGRAM_SIZE + IP_UDP_BYTES[version]
