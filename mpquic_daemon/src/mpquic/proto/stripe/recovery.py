"""From reports to what they mean: round trips, losses, samples for the controller, timeouts (RFC 8985, RFC 9002)."""

from __future__ import annotations

from collections import OrderedDict
from math import log
from typing import TYPE_CHECKING

from mpquic.proto.congestion.controller import AckSample
from mpquic.proto.path.estimators import PathEstimators, RttEstimator
from mpquic.proto.stripe.adaptive import LossMeter
from mpquic.proto.stripe.arq import Repair, Retransmitter
from mpquic.proto.stripe.inflight import InFlight, SentBatch

if TYPE_CHECKING:
    from mpquic.proto.congestion.controller import Controller
    from mpquic.proto.path.pmtu import PathMtu
    from mpquic.proto.stripe.reports import Report

MAX_TIMEOUTS = 3
MAX_LOST_PROBES = 4
_MAX_RECOVERED = 8192
_INITIAL_RTT = 0.1


class Recovery:
    """The sender's knowledge of what became of its shards. What has to be sent again waits in `arq`."""

    def __init__(self, controller: Controller, pmtu: PathMtu, now: float) -> None:
        self._controller = controller
        self._pmtu = pmtu
        self.loss = LossMeter()
        self.rtt = RttEstimator()
        self.estimators = PathEstimators()
        """Those of the path, which are fed by all of its planes."""
        self.inflight = InFlight(self._on_lost, self._on_arrived, self._on_arrived_late)
        self.arq = Retransmitter()
        # Shards that FEC or a retransmission delivered, perhaps before their loss was noticed.
        self._recovered: OrderedDict[int, None] = OrderedDict()
        self._progress_at = now
        self._timeouts = 0
        self._now = now

    @property
    def timeouts(self) -> int:
        """Probe timeouts in a row."""
        return self._timeouts

    @property
    def smoothed_rtt(self) -> float:
        """Seconds; a guess before the first sample."""
        return self.rtt.smoothed if self.rtt.smoothed is not None else _INITIAL_RTT

    @property
    def timeout_at(self) -> float:
        """When a report is overdue: probe timeout of RFC 9002 section 6.2, doubled each time."""
        timeout = self.smoothed_rtt + max(4 * self.rtt.variation, 0.01) + 0.01
        return self._progress_at + timeout * self._patience(self._timeouts)

    def _patience(self, timeouts: int) -> int:
        """Timeouts without an answer as the probes say them: several in a row prove little where much is lost."""
        usual = self._usual_timeouts
        return timeouts + 1 if timeouts <= usual else usual + (1 << (timeouts - usual))

    @property
    def _usual_timeouts(self) -> int:
        """How many probes in a row may well be lost by a path that is as lossy as ours, once in a hundred times."""
        loss = min(self.loss.loss, 0.5)
        return min(MAX_LOST_PROBES, int(log(0.01) / log(loss))) if loss > 0.01 else 0

    def on_sent(self, batch: SentBatch) -> None:
        """Shards left."""
        controller, now = self._controller, batch.sent_at
        if not self.inflight.bytes:
            self._progress_at = now
            controller.on_idle(now)
        self.inflight.add(batch, probing_down=controller.probing_down)
        controller.on_sent(batch.bytes, now)

    def on_report(self, report: Report, now: float) -> None:
        """Take a receiver report. What it calls repaired lies in what is on its way or was lost of late (`clip`)."""
        self._now = now
        for first, last in report.repaired:
            for number in range(first, last + 1):
                self._recover(number)
        sample = self.inflight.on_report(report, now, self.rtt.smoothed)
        if sample.bytes_acked:
            self._progress_at = now
            self._timeouts = 0
        if sample.rtt is not None:
            self.rtt.add(sample.rtt, now)
            self.estimators.rtt.add(sample.rtt, now)
        self._detect(sample, now)

    def detect(self, now: float) -> None:
        """Find what is lost by time, when `inflight.loss_time` has come."""
        self._now = now
        if self.inflight.loss_time is not None and now >= self.inflight.loss_time:
            sample = AckSample()
            sample.prior_in_flight = self.inflight.bytes
            self._detect(sample, now)

    def on_timeout(self, now: float) -> Repair | None:
        """Call at `timeout_at`: return a shard to probe the tail with (RFC 8985 section 7).

        After some probes, or when only parity is on its way, everything counts as lost and None is returned.
        """
        self._now = now
        self._timeouts += 1
        target = self.inflight.newest_repeatable
        if target is not None:
            self._pmtu.on_stall(target[0].sizes[target[1]])
        if self._timeouts >= MAX_TIMEOUTS + self._usual_timeouts or target is None:
            lost = self.inflight.declare_all_lost()
            self.loss.add(0, lost)
            self.estimators.on_sent(0, lost, now)
            if target is not None:
                self._controller.on_persistent_congestion(now)
            self._timeouts = 0
            self._progress_at = now
            return None
        batch, place = target
        if batch.repairs is not None:
            return batch.repairs[place]
        assert batch.bodies is not None
        index = batch.index + place if batch.data_shards else 0
        return Repair(batch.first + place, batch.bodies[place], index, batch.data_shards, None, now, now)

    def on_shrunk(self, size: int, now: float) -> None:
        """The path carries no more than `size` bytes: larger shards on their way are lost, and not by congestion."""
        self._now = now
        self.inflight.declare_all_lost(above=size)
        self._timeouts = 0
        self._progress_at = now

    def _detect(self, sample: AckSample, now: float) -> None:
        if self.inflight.detect(sample, now, max(self.smoothed_rtt, self.rtt.latest or 0.0)):
            self._pmtu.weigh(self.inflight.carried)
        self.loss.add(sample.acked_packets, sample.lost_packets)
        self.estimators.on_sent(sample.acked_packets, sample.lost_packets, now)
        self.arq.loss = self.loss.loss
        sample.in_flight = self.inflight.bytes
        sample.smoothed_rtt = self.rtt.smoothed
        self._controller.on_ack(sample, now)

    def _on_lost(self, batch: SentBatch, place: int) -> None:
        now, rtt, group = self._now, self.smoothed_rtt, batch.group
        self._pmtu.on_lost(batch.first + place, batch.sizes[place], now)
        if group is not None:
            group.lost += 1
        if batch.repairs is not None:
            self.arq.on_retransmission_lost(batch.repairs[place], now, rtt)
        elif batch.bodies is None:
            if group is not None:
                self.arq.on_group_loss(group)
        elif batch.first + place not in self._recovered:
            index = batch.index + place if batch.data_shards else 0
            lost = Repair(
                batch.first + place,
                batch.bodies[place],
                index,
                batch.data_shards,
                group,
                batch.sent_at,
                batch.sent_at + self.arq.lifetime(batch.traffic_class, rtt),
            )
            self.arq.on_lost(lost, now, rtt)

    def _on_arrived(self, batch: SentBatch, place: int) -> None:
        if batch.repairs is not None:
            self._recover(batch.repairs[place].number)

    def _on_arrived_late(self, batch: SentBatch, place: int) -> None:
        if batch.repairs is not None:
            self._recover(batch.repairs[place].number)
        else:
            self.arq.on_delivered(batch.first + place)

    def _recover(self, number: int) -> None:
        self.arq.on_delivered(number)
        self._recovered[number] = None
        if len(self._recovered) > _MAX_RECOVERED:
            self._recovered.popitem(last=False)
