"""What a tunnel and a path have counted and measured: one structure for each, of clients and servers alike.

Gathered when somebody asks, never on the fast path. Names are those of the JSON output: base units with a suffix
(`_seconds`, `_bytes`, `_ratio`), counters without one for packets and events, `tx` for what this end has sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING

from mpquic.proto.path.path import PathState

if TYPE_CHECKING:
    from mpquic.daemon.session import Session
    from mpquic.daemon.stripe_plane import StripePlane
    from mpquic.proto.path.traffic import Traffic
    from mpquic.proto.tunnel.class_queue import ClassQueue
    from mpquic.proto.tunnel.receiver import TunnelReceiver
    from mpquic.proto.tunnel.sender import TunnelSender
    from mpquic.quic.link import QuicLink
    from mpquic.quic.path import QuicPath


@dataclass(slots=True)
class QueueStatistics:
    """What waits in the queue of a traffic class, and what it has dropped or marked since it was made."""

    traffic_class: int
    waiting_bytes: int = 0
    overflow_drops: int = 0
    codel_drops: int = 0
    codel_marks: int = 0
    expired: int = 0

    def add(self, other: QueueStatistics) -> None:
        """Add what the queue of another tunnel has dropped, and holds."""
        for name in ("waiting_bytes", "overflow_drops", "codel_drops", "codel_marks", "expired"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(slots=True)
class TunnelStatistics:
    """Inner packets of a tunnel since it was made: each segment of a superframe is one."""

    tx_packets: int = 0
    tx_bytes: int = 0
    tx_frames: int = 0
    tx_resent_packets: int = 0
    """Packets that were sent again by another path since theirs had gone silent. They count as packets again."""
    tx_superframes: int = 0
    tx_acks_filtered: int = 0
    """Acknowledgements of TCP that were left out, since a later one says the same."""
    rx_packets: int = 0
    rx_bytes: int = 0
    rx_frames: int = 0
    rx_writes: int = 0
    rx_coalesced: int = 0
    """Segments that were joined with others for the TUN."""
    rx_duplicates: int = 0
    rx_late: int = 0
    rx_held_frames: int = 0
    """Frames that waited for others of their TCP connection."""
    rx_missing_packets: int = 0
    """Sequence numbers that were waited for in vain."""
    reassembly: dict[str, int] = field(default_factory=dict)
    """What became of packets that came in fragments."""
    refused: dict[str, int] = field(default_factory=dict)
    """What was not carried, by reason."""
    queues: list[QueueStatistics] = field(default_factory=list)

    def add(self, other: TunnelStatistics) -> None:
        """Add what another tunnel has counted."""
        for each in fields(self):
            mine, value = getattr(self, each.name), getattr(other, each.name)
            if isinstance(mine, int):
                setattr(self, each.name, mine + value)
            elif isinstance(mine, dict):
                for key, count in value.items():
                    mine[key] = mine.get(key, 0) + count
        known = {queue.traffic_class: queue for queue in self.queues}
        for queue in other.queues:
            if queue.traffic_class not in known:
                known[queue.traffic_class] = QueueStatistics(queue.traffic_class)
                self.queues.append(known[queue.traffic_class])
            known[queue.traffic_class].add(queue)

    def drained(self) -> TunnelStatistics:
        """Return the same of a tunnel that has gone: nothing waits in it any more."""
        for queue in self.queues:
            queue.waiting_bytes = 0
        return self


@dataclass(slots=True, kw_only=True)
class QuicStatistics:
    """The present QUIC connection of a path."""

    tx_packets: int
    tx_bytes: int
    tx_frames: int
    """Frames of the tunnel."""
    tx_datagrams: int
    """DATAGRAM frames with frames of the tunnel."""
    acked_packets: int
    acked_bytes: int
    lost_packets: int
    oversized_frames: int
    congestion_events: int
    black_holes: int
    """How often the path's MTU has shrunk."""
    max_datagram_bytes: int
    """UDP payload of a packet at most: what was found to pass."""
    frame_capacity_bytes: int
    congestion_window_bytes: int
    rate_bytes_per_second: int


@dataclass(slots=True, kw_only=True)
class StripeStatistics:
    """The present striped session of a path. A shard is the payload of one of its datagrams."""

    session: str
    """Number of the session, hexadecimal."""
    carries: bool
    controller_state: str
    pacing_bytes_per_second: int
    bandwidth_bytes_per_second: int
    congestion_window_bytes: int
    in_flight_bytes: int
    loss_ratio: float
    tx_data_shards: int
    tx_parity_shards: int
    tx_copies: int
    """Shards that were sent again."""
    tx_probes: int
    """Shards that were sent again since nothing was heard of them."""
    lost_shards: int
    spurious_losses: int
    """Shards that were taken for lost and came after all."""
    reordering_shards: int
    """By how many numbers a shard may be late before it counts as lost."""
    datagram_bytes: int
    path_mtu_state: str
    path_mtu_probes: int
    black_holes: int
    oversized_frames: int
    rx_shards: int
    rx_repaired_shards: int
    rx_copies_in_vain: int
    tx_reports: int
    rx_reports: int
    tx_epoch: int
    rx_epoch: int
    pipes_moved: int
    """How often the outer address of a pipe has changed."""
    addresses_unproven: int
    addresses_given_up: int
    stored_bytes: int
    refused: dict[str, int]
    """Datagrams that were not taken, by reason."""


@dataclass(slots=True, kw_only=True)
class PipeStatistics:
    """One pipe of the present striped session: sums over pipes are the session's."""

    pipe: int
    rtt_seconds: float | None
    """Smoothed round-trip time of its keepalives."""
    tx_datagrams: int
    tx_bytes: int
    tx_shards: int
    tx_acked_shards: int
    tx_lost_shards: int
    """Those that were taken for lost, without those that came after all."""
    tx_loss_ratio: float
    tx_acked_age_seconds: float | None
    """Since a shard was last acknowledged."""
    rx_datagrams: int
    """What is authentic and new, as all that follows."""
    rx_bytes: int
    rx_shards: int
    rx_lost_shards: int
    """Shards that had not come when the peer last told how many it had sent by this pipe."""
    rx_loss_ratio: float
    rx_heard_age_seconds: float | None


@dataclass(slots=True, kw_only=True)
class PathStatistics:
    """One WAN of one tunnel. Bytes and datagrams are UDP payloads of all its data planes and connections together."""

    rtt_seconds: float | None
    """Smoothed round-trip time, by the probes and all data planes."""
    rtt_latest_seconds: float | None
    rtt_variation_seconds: float | None
    rtt_min_seconds: float | None
    """The lowest of the last 10 to 20 seconds in which there were any."""
    loss_ratio: float | None
    tx_bytes: int
    tx_datagrams: int
    rx_bytes: int
    rx_datagrams: int
    quic: QuicStatistics | None = None
    stripe: StripeStatistics | None = None
    pipes: list[PipeStatistics] = field(default_factory=list)
    """One for each pipe of the striped session."""


def snapshot(counters: object) -> dict[str, object]:
    """Return the fields of a dataclass, or the items of a mapping, as JSON data; private ones are left out."""
    if isinstance(counters, Mapping):
        return {str(key): _plain(value) for key, value in counters.items()}
    if is_dataclass(counters):
        return {each.name: _plain(getattr(counters, each.name)) for each in fields(counters) if each.name[0] != "_"}
    raise TypeError(f"{type(counters).__name__} has no counters")


def tunnel_statistics(sender: TunnelSender, receiver: TunnelReceiver) -> TunnelStatistics:
    """Return what the two halves of a tunnel, which share their counters, have counted."""
    found = sender.counters.snapshot()
    return TunnelStatistics(
        **found,  # type: ignore[arg-type]  # the same names, as a test compares
        rx_held_frames=receiver.held,
        rx_missing_packets=receiver.given_up,
        rx_coalesced=receiver.coalescer.coalesced,
        reassembly=receiver.reassembler.snapshot(),
        queues=[_queue(number, queue) for number, queue in sender.queues.items()],
    )


def path_statistics(session: Session | None, traffic: Traffic) -> PathStatistics:
    """Return the statistics of a path; without a session nothing is known but what has been counted."""
    rtt = session.estimators.rtt if session is not None else None
    return PathStatistics(
        rtt_seconds=_seconds(rtt.smoothed) if rtt is not None else None,
        rtt_latest_seconds=_seconds(rtt.latest) if rtt is not None else None,
        rtt_variation_seconds=_seconds(rtt.variation) if rtt is not None else None,
        rtt_min_seconds=_seconds(rtt.minimum) if rtt is not None else None,
        loss_ratio=round(session.estimators.loss, 4) if session is not None else None,
        tx_bytes=traffic.tx_bytes,
        tx_datagrams=traffic.tx_datagrams,
        rx_bytes=traffic.rx_bytes,
        rx_datagrams=traffic.rx_datagrams,
        quic=_quic(session.link, session.path) if session is not None else None,
        stripe=_stripe(session.plane) if session is not None and session.plane is not None else None,
        pipes=_pipes(session.plane) if session is not None and session.plane is not None else [],
    )


def rtt_of(session: Session) -> float | None:
    """Return the smoothed round-trip time of a path in seconds, None before the first sample."""
    return _seconds(session.estimators.rtt.smoothed)


def _seconds(value: float | None) -> float | None:
    return round(value, 6) if value is not None else None


def _queue(number: int, queue: ClassQueue) -> QueueStatistics:
    return QueueStatistics(
        traffic_class=number,
        waiting_bytes=queue.bytes,
        overflow_drops=queue.overflow_drops,
        codel_drops=queue.codel_drops,
        codel_marks=queue.codel_marks,
        expired=queue.expired,
    )


def _quic(link: QuicLink, path: QuicPath) -> QuicStatistics:
    meter = link.meter
    return QuicStatistics(
        tx_packets=meter.packets_sent,
        tx_bytes=meter.bytes_sent,
        tx_frames=path.frames_sent,
        tx_datagrams=path.datagrams_sent,
        acked_packets=meter.packets_acked,
        acked_bytes=meter.bytes_acked,
        lost_packets=meter.packets_lost,
        oversized_frames=path.oversized,
        congestion_events=meter.congestion_events,
        black_holes=link.black_holes,
        max_datagram_bytes=link.max_datagram_size,
        frame_capacity_bytes=path.frame_capacity,
        congestion_window_bytes=link.congestion_window,
        rate_bytes_per_second=round(link.rate),
    )


def _stripe(plane: StripePlane) -> StripeStatistics:
    session = plane.session
    sender, receiver = session.sender, session.receiver
    recovery, controller = sender.recovery, sender.controller
    tx_epoch, rx_epoch = session.epochs
    return StripeStatistics(
        session=f"{session.session:08x}",
        carries=plane.session.state is PathState.UP,
        controller_state=controller.state_name,
        pacing_bytes_per_second=round(controller.pacing_rate),
        bandwidth_bytes_per_second=round(controller.bandwidth),
        congestion_window_bytes=controller.congestion_window,
        in_flight_bytes=recovery.inflight.bytes,
        loss_ratio=round(recovery.loss.loss, 5),
        tx_data_shards=sender.data_shards,
        tx_parity_shards=sender.parity_shards,
        tx_copies=recovery.arq.retransmitted,
        tx_probes=sender.probes,
        lost_shards=recovery.inflight.lost_shards,
        spurious_losses=recovery.inflight.spurious,
        reordering_shards=recovery.inflight.reordering,
        datagram_bytes=sender.datagram_size,
        path_mtu_state=session.pmtu.state.value,
        path_mtu_probes=session.control.probes_sent,
        black_holes=session.pmtu.black_holes,
        oversized_frames=sender.oversized,
        rx_shards=receiver.shards,
        rx_repaired_shards=receiver.decoder.repaired,
        rx_copies_in_vain=receiver.copies_in_vain,
        tx_reports=session.control.reports_sent,
        rx_reports=session.control.reports_received,
        tx_epoch=tx_epoch,
        rx_epoch=rx_epoch,
        pipes_moved=session.pipes.moved,
        addresses_unproven=len(session.pipes.unproven),
        addresses_given_up=session.pipes.given_up,
        stored_bytes=receiver.decoder.bytes,
        refused=dict(receiver.refused),
    )


def _pipes(plane: StripePlane) -> list[PipeStatistics]:
    now = plane.now
    return [
        PipeStatistics(
            pipe=pipe.number,
            rtt_seconds=_seconds(pipe.rtt.smoothed),
            tx_datagrams=pipe.sending.datagrams,
            tx_bytes=pipe.sending.octets,
            tx_shards=pipe.sending.shards,
            tx_acked_shards=pipe.sending.acked,
            tx_lost_shards=pipe.sending.lost,
            tx_loss_ratio=round(pipe.sending.loss, 5),
            tx_acked_age_seconds=_age(pipe.sending.acked_at, now),
            rx_datagrams=pipe.receiving.datagrams,
            rx_bytes=pipe.receiving.octets,
            rx_shards=pipe.receiving.shards,
            rx_lost_shards=pipe.receiving.lost,
            rx_loss_ratio=round(pipe.receiving.loss, 5),
            rx_heard_age_seconds=_age(pipe.receiving.heard_at, now),
        )
        for pipe in plane.session.pipes.all
    ]


def _age(at: float | None, now: float) -> float | None:
    return round(max(0.0, now - at), 3) if at is not None else None


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping) or is_dataclass(value):
        return snapshot(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value)
