"""A sender, its controller, sampler and pacer over a simulated bottleneck in virtual time."""

from __future__ import annotations

import heapq
import random
from typing import TYPE_CHECKING

from mpquic.proto.congestion.controller import AckSample
from mpquic.proto.congestion.pacer import Pacer
from mpquic.proto.congestion.sampler import DeliveryRateSampler, SendStamp
from mpquic.proto.path.estimators import RttEstimator

if TYPE_CHECKING:
    from mpquic.proto.congestion.controller import Controller

DATAGRAM = 1200
STEP = 0.001
REORDERING = 3
ACK_INTERVAL = 0.004


class Link:
    """Sends as much as it may over `rate` bytes per second, with a queue of `queue` bytes and random loss.

    Acknowledgements come in batches. A packet is lost when three that were sent later have arrived.
    """

    def __init__(
        self, controller: Controller, *, rate: float, rtt: float, queue: int, loss: float = 0.0, seed: int = 1
    ) -> None:
        self.controller = controller
        self.rate, self.delay, self.queue, self.loss = rate, rtt, queue, loss
        self.now = 0.0
        self.limit = 1 << 40
        """Packets that the application still has."""
        self.sampler = DeliveryRateSampler()
        self.rtt = RttEstimator()
        self.pacer = Pacer(controller.pacing_rate, 0.0)
        self.in_flight = 0
        self.delivered = self.lost = 0
        self.windows: list[int] = []
        """The window after each batch."""
        self.cuts: list[float] = []
        """When a batch made the window smaller."""
        self._random = random.Random(seed)
        self._number = 0
        self._sent: dict[int, SendStamp] = {}
        self._free_at = 0.0
        self._arrivals: list[tuple[float, int]] = []

    def run(self, seconds: float) -> float:
        """Let time pass; return bytes delivered per second."""
        end, before = self.now + seconds, self.delivered
        next_ack = self.now
        while self.now < end:
            self._send()
            self.now += STEP
            if self.now >= next_ack:
                next_ack = self.now + ACK_INTERVAL
                self._acknowledge()
        return (self.delivered - before) / seconds

    def _send(self) -> None:
        controller, now = self.controller, self.now
        room = min(controller.congestion_window - self.in_flight, self.pacer.available(now))
        count = min(self.limit, -(-room // DATAGRAM) if room > 0 else 0)
        if not count:
            return
        if not self.in_flight:
            controller.on_idle(now)
        stamp = self.sampler.on_sent(now, self.in_flight, probing_down=controller.probing_down)
        for _ in range(count):
            self._sent[self._number] = stamp
            self._transmit(self._number)
            self._number += 1
        size = count * DATAGRAM
        self.limit -= count
        self.in_flight += size
        self.pacer.spend(size)
        controller.on_sent(size, now)
        if not self.limit and self.in_flight * 2 < controller.congestion_window:
            self.sampler.mark_app_limited(self.in_flight)

    def _transmit(self, number: int) -> None:
        start = max(self.now, self._free_at)
        if (start - self.now) * self.rate > self.queue or self._random.random() < self.loss:
            return
        self._free_at = start + DATAGRAM / self.rate
        heapq.heappush(self._arrivals, (self._free_at + self.delay, number))

    def _acknowledge(self) -> None:
        now, sample = self.now, AckSample()
        sample.prior_in_flight = self.in_flight
        highest = -1
        newest: SendStamp | None = None
        while self._arrivals and self._arrivals[0][0] <= now:
            highest = heapq.heappop(self._arrivals)[1]
            newest = self._sent.pop(highest)
            sample.bytes_acked += DATAGRAM
            sample.acked_packets += 1
            sample.low_delivered += newest.probing_down
        if newest is None:
            return
        self.delivered += sample.bytes_acked
        self.sampler.delivered += sample.bytes_acked
        sample.sent_at = newest.sent_at
        sample.rtt = now - newest.sent_at
        self.rtt.add(sample.rtt, now)
        self.sampler.sample(newest, sample, now)
        for number in [number for number in self._sent if number <= highest - REORDERING]:
            stamp = self._sent.pop(number)
            sample.bytes_lost += DATAGRAM
            sample.lost_packets += 1
            sample.lost_sent_at = max(sample.lost_sent_at, stamp.sent_at)
            sample.low_lost += stamp.probing_down
        self.lost += sample.lost_packets
        self.in_flight -= sample.bytes_acked + sample.bytes_lost
        assert self.in_flight >= 0
        sample.in_flight = self.in_flight
        sample.smoothed_rtt = self.rtt.smoothed
        before = self.controller.congestion_window
        self.controller.on_ack(sample, now)
        self.windows.append(self.controller.congestion_window)
        if self.windows[-1] < before:
            self.cuts.append(now)
        self.pacer.set_rate(self.controller.pacing_rate, now)
