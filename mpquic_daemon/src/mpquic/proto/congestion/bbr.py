"""A controller by delivery rate and round-trip time, after BBR (draft-cardwell-iccrg-bbr-congestion-control).

It sends what the link has delivered, probes above it once a cycle and drains after. Loss by itself changes nothing, so
random loss does not collapse it; a queue that grows does. Different from BBR version 1:

* On a link that loses a share p, sending what was delivered would sink by p each round once p exceeds the probing gain.
  So it sends delivered / (1 - p), with p taken only from shards sent while it held back: those were not lost to a queue
  that it filled itself, which a policer or a shallow buffer would otherwise teach it to overrun.
* Round trips that stay long make it hold back at once; when that doesn't help, the path has become longer (a satellite
  handover), and the minimum is measured anew.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from mpquic.proto.congestion.controller import AckSample

STARTUP_GAIN = 2.77
CYCLE = (1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
MARGIN = 0.99
"""The highest of several samples is a little above the truth, and the excess would stand in the queue."""
BANDWIDTH_ROUNDS = 10
QUEUED_ROUNDS = 2
MIN_RTT_LIFETIME = 10.0
PROBE_RTT_TIME = 0.1
INITIAL_SHARDS = 32
MIN_SHARDS = 4
MAX_LOSS = 0.5
_INITIAL_RTT = 0.1
_REPORT_INTERVAL = 0.005
_GROWN = 1.25
_LOSS_MEMORY = 600


class BbrState(Enum):
    """States of section 4.3 of the draft."""

    STARTUP = "startup"
    DRAIN = "drain"
    PROBE_BW = "probe_bw"
    PROBE_RTT = "probe_rtt"


class Bbr:
    """Implements `controller.Controller`. `datagram` is the size of a full shard on the wire in bytes."""

    name: ClassVar[str] = "bbr"

    def __init__(self, datagram: int, now: float) -> None:
        self._datagram = datagram
        self.state = BbrState.STARTUP
        self._gain = STARTUP_GAIN
        self._rates: deque[tuple[int, float]] = deque()
        self._round = 0
        self._round_end = 0
        self._round_rtt: float | None = None
        self._full_rate = 0.0
        self._full_rounds = 0
        self._full = False
        self.min_rtt: float | None = None
        self._min_rtt_at = now
        self._cycle = 2
        self._cycle_at = now
        self._low_total = 0.0
        self._low_lost = 0.0
        self._long_rounds = 0
        self._probe_rtt_until: float | None = None
        self._probe_rtt_minimum: float | None = None
        self.congestion_window = self._find_window()
        """Bytes in flight: twice the bandwidth-delay product, and what waits for the next report."""

    @property
    def state_name(self) -> str:
        """`startup`, `drain`, `probe_bw` or `probe_rtt`."""
        return self.state.value

    @property
    def bandwidth(self) -> float:
        """Highest delivery rate of the last rounds."""
        return self._rates[0][1] if self._rates else 0.0

    @property
    def link_loss(self) -> float:
        """Share that the link loses by itself, 0.0 to `MAX_LOSS`."""
        if self._low_total < 20:
            return 0.0
        return min(MAX_LOSS, max(0.0, self._low_lost / self._low_total))

    @property
    def probing_down(self) -> bool:
        """True in the draining phases."""
        return self._gain < 1.0

    @property
    def pacing_rate(self) -> float:
        """Bytes per second; never less than a shard a round trip."""
        rtt = self.min_rtt or _INITIAL_RTT
        floor = self._datagram / max(rtt, 0.02)
        if not self._rates:
            return max(floor, STARTUP_GAIN * INITIAL_SHARDS * self._datagram / max(rtt, 0.001))
        if not self._full:
            # Start-up never falls below what the initial window gives.
            floor = INITIAL_SHARDS * self._datagram / max(rtt, 0.001)
        rate = self._gain * MARGIN * self.bandwidth
        # Holding back measures what the link loses by itself, so the measurement must not rest on its own result: after
        # a drop of capacity a loss of our own making would justify the rate that makes it.
        return max(floor, rate if self.probing_down else rate / (1 - self.link_loss))

    def _find_window(self) -> int:
        smallest = (INITIAL_SHARDS if not self._full else MIN_SHARDS) * self._datagram
        if self.min_rtt is None or not self._rates:
            return INITIAL_SHARDS * self._datagram
        rate = self.bandwidth / (1 - self.link_loss)
        waiting = rate * 2 * _REPORT_INTERVAL
        if self.state is BbrState.PROBE_RTT:
            return max(smallest, int(rate * self.min_rtt * 0.5 + waiting))
        gain = STARTUP_GAIN if not self._full else 2.0
        return max(smallest, int(gain * rate * self.min_rtt + waiting) + 3 * self._datagram)

    def on_sent(self, size: int, now: float) -> None:
        """Nothing follows from it."""

    def on_idle(self, now: float) -> None:  # noqa: ARG002
        """Send at the known rate until something is acknowledged: there is nothing to drain, and no time to probe."""
        if self.state is BbrState.PROBE_BW:
            self._gain = 1.0

    def on_ack(self, sample: AckSample, now: float) -> None:
        """Take one batch into the model, then move between states."""
        new_round = self._count_round(sample)
        self._update_rate(sample)
        self._update_loss(sample)
        if new_round and not self._full and not sample.app_limited:
            self._check_full()
        self._update_rtt(sample, now)
        if self.state is BbrState.STARTUP and self._full:
            self.state, self._gain = BbrState.DRAIN, 1 / STARTUP_GAIN
        if self.state is BbrState.DRAIN and sample.in_flight <= self._target(1.0):
            self._enter_probe_bw(now)
        if self.state is BbrState.PROBE_BW:
            self._advance_cycle(sample, now, new_round=new_round)
        self._probe_rtt(sample, now)
        if new_round:
            self._round_rtt = None
        self.congestion_window = self._find_window()

    def on_persistent_congestion(self, now: float) -> None:
        """Begin anew with the model's rate as the ceiling that start-up will find again."""
        self.state, self._gain = BbrState.STARTUP, STARTUP_GAIN
        self._full, self._full_rate, self._full_rounds = False, 0.0, 0
        self._rates.clear()
        self._low_total = self._low_lost = 0.0
        self._min_rtt_at = now
        self._probe_rtt_until = None
        self.congestion_window = self._find_window()

    def _target(self, gain: float) -> float:
        rtt = self.min_rtt or _INITIAL_RTT
        rate = self.bandwidth / (1 - self.link_loss)
        return gain * rate * (rtt + _REPORT_INTERVAL) + 2 * self._datagram

    def _count_round(self, sample: AckSample) -> bool:
        if sample.rate and sample.prior_delivered >= self._round_end:
            self._round += 1
            self._round_end = sample.delivered
            return True
        return False

    def _update_rate(self, sample: AckSample) -> None:
        rates = self._rates
        if not sample.rate:
            return
        while rates and rates[0][0] < self._round - BANDWIDTH_ROUNDS:
            # The last known rate stays while nothing but application-limited samples come.
            if len(rates) == 1 and sample.app_limited:
                break
            rates.popleft()
        if sample.app_limited and sample.rate < self.bandwidth:
            return
        while rates and rates[-1][1] <= sample.rate:
            rates.pop()
        rates.append((self._round, sample.rate))

    def _update_loss(self, sample: AckSample) -> None:
        count = sample.low_delivered + max(0, sample.low_lost)
        if not count and not sample.low_lost:
            return
        if self._long_rounds or (sample.rtt is not None and self._is_long(sample.rtt)):
            return  # a queue stands, so it may be the queue that loses
        keep = max(0.0, 1 - count / _LOSS_MEMORY)
        self._low_total = self._low_total * keep + count
        self._low_lost = max(0.0, self._low_lost * keep + sample.low_lost)

    def _is_long(self, rtt: float) -> bool:
        return self.min_rtt is not None and rtt > 1.5 * self.min_rtt + 0.005

    def _check_full(self) -> None:
        if self.bandwidth >= self._full_rate * _GROWN:
            self._full_rate, self._full_rounds = self.bandwidth, 0
            return
        # A queue that stands says at once what a plateau says after three rounds (as HyStart, RFC 9406, does).
        queued = self._round_rtt is not None and self._round_rtt > 1.25 * (self.min_rtt or 0.0) + 0.005
        self._full_rounds += 3 if queued else 1
        self._full = self._full_rounds >= 3

    def _update_rtt(self, sample: AckSample, now: float) -> None:
        rtt = sample.rtt
        if rtt is None:
            return
        self._round_rtt = rtt if self._round_rtt is None else min(rtt, self._round_rtt)
        if self.min_rtt is None or rtt <= self.min_rtt:
            self.min_rtt, self._min_rtt_at = rtt, now
        elif rtt <= self.min_rtt * 1.05 + 0.0005:
            self._min_rtt_at = now

    def _enter_probe_bw(self, now: float) -> None:
        self.state = BbrState.PROBE_BW
        self._cycle, self._cycle_at = 2, now
        self._gain = CYCLE[2]

    def _advance_cycle(self, sample: AckSample, now: float, *, new_round: bool) -> None:
        rtt = self.min_rtt or _INITIAL_RTT
        length = max(rtt, 2 * _REPORT_INTERVAL)
        if new_round and self._round_rtt is not None:
            self._long_rounds = self._long_rounds + 1 if self._is_long(self._round_rtt) else 0
        if self._long_rounds >= QUEUED_ROUNDS:
            self._forget_rates()
        base = CYCLE[self._cycle]
        elapsed = now - self._cycle_at > length
        if base > 1:
            # Probe until the flight shows it, or the queue does.
            elapsed = elapsed and (sample.in_flight >= self._target(base) or now - self._cycle_at > 2 * length)
        elif base < 1:
            elapsed = elapsed and (sample.in_flight <= self._target(1.0) or now - self._cycle_at > 3 * length)
        if elapsed:
            self._cycle = (self._cycle + 1) % len(CYCLE)
            self._cycle_at = now
            base = CYCLE[self._cycle]
        self._gain = 0.75 if self._long_rounds >= 2 else base

    def _forget_rates(self) -> None:
        """A queue stands although we hold back: what was delivered some rounds ago is not to be had any more."""
        rates = self._rates
        while len(rates) > 1 and rates[0][0] < self._round - QUEUED_ROUNDS:
            rates.popleft()

    def _probe_rtt(self, sample: AckSample, now: float) -> None:
        if self._probe_rtt_until is None:
            stale = now - self._min_rtt_at > MIN_RTT_LIFETIME
            # Holding back for so long would have emptied any queue of ours.
            longer = self._long_rounds >= 8
            if self.state is BbrState.PROBE_BW and (stale or longer):
                self.state, self._gain = BbrState.PROBE_RTT, 0.9
                self._probe_rtt_until = now + PROBE_RTT_TIME + (self._round_rtt or self.min_rtt or _INITIAL_RTT)
                self._probe_rtt_minimum = None
            return
        if sample.rtt is not None:
            lowest = self._probe_rtt_minimum
            self._probe_rtt_minimum = sample.rtt if lowest is None else min(lowest, sample.rtt)
        if now >= self._probe_rtt_until and self._probe_rtt_minimum is not None:
            self.min_rtt, self._min_rtt_at = self._probe_rtt_minimum, now
            self._probe_rtt_until = None
            self._long_rounds = 0
            self._enter_probe_bw(now)
