"""Is the peer of a path there? Probes, round-trip time and loss of probes."""

from __future__ import annotations

from collections import deque

from mpquic.proto.control.messages import Probe, ProbeAck
from mpquic.proto.path.path import PathState

QUIET_TIME = 2.0
QUIET_LIMIT = 20.0
"""Seconds without a probe after other evidence, and at most: the connection that carries probes must not fall idle."""
QUIET_SHARE = 2 / 3
"""Of `down_after`, where that is short: a probe goes out, and its reply comes, before the path is called down."""
_LOSS_HISTORY = 64
_MAX_OUTSTANDING = 256


class RttEstimator:
    """Smoothed round-trip time (RFC 6298 section 2), in seconds."""

    def __init__(self) -> None:
        self.smoothed: float | None = None
        self.variation = 0.0
        self.latest: float | None = None
        self.minimum: float | None = None

    def add(self, sample: float) -> None:
        """Take one measurement in seconds."""
        self.latest = sample
        self.minimum = sample if self.minimum is None else min(self.minimum, sample)
        if self.smoothed is None:
            self.smoothed, self.variation = sample, sample / 2
            return
        self.variation += (abs(self.smoothed - sample) - self.variation) / 4
        self.smoothed += (sample - self.smoothed) / 8

    @property
    def timeout(self) -> float:
        """Time after which an answer is overdue: RTO without the one-second floor, 1 s before the first sample."""
        if self.smoothed is None:
            return 1.0
        return self.smoothed + max(4 * self.variation, 0.05)


class Liveness:
    """State of one path by silence.

    Answers to probes are the proof that both directions work. Anything else that arrives proves only that the peer's
    packets reach us, so it counts for no longer than `suspect_after` past the last answer: a link that is cut in one
    direction is noticed although the other still delivers.

    Times are seconds. `down_after` is counted from the last evidence. A pause of this process itself (it was polled
    more than a probe interval after `next_timer`) is not held against the peer.
    """

    def __init__(
        self,
        now: float,
        *,
        probe_interval: float = 0.5,
        suspect_after: float | None = None,
        down_after: float = 3.0,
    ) -> None:
        self.retime(probe_interval, down_after, suspect_after)
        self.rtt = RttEstimator()
        self.state = PathState.DOWN
        self.answered = False
        self._last_answer = now
        self._last_receive = now
        self._poll_due = now
        """When `poll` was to be called at the latest."""
        self._next_probe = self._last_probe = now
        self._last_other = float("-inf")
        self._next_sequence = 0
        self._outstanding: dict[int, float] = {}
        self._history: deque[bool] = deque(maxlen=_LOSS_HISTORY)

    def retime(self, probe_interval: float, down_after: float, suspect_after: float | None = None) -> None:
        """Use other times from now on; ValueError when they contradict each other."""
        if suspect_after is None:
            suspect_after = min(2.5 * probe_interval, down_after / 2)
        if not 0 < probe_interval <= suspect_after < down_after:
            raise ValueError("0 < probe_interval <= suspect_after < down_after does not hold")
        self.probe_interval, self.suspect_after, self.down_after = probe_interval, suspect_after, down_after

    @property
    def loss(self) -> float:
        """Share of recent probes that were not answered in time, 0.0 to 1.0."""
        return self._history.count(False) / len(self._history) if self._history else 0.0

    @property
    def heard_at(self) -> float:
        """When anything came from the peer last."""
        return self._last_receive

    def poll(self, now: float) -> list[Probe]:
        """Advance time: return the probe that is due, and bring `state` up to date."""
        pause = self._pause(now)
        if pause:
            # What has arrived since the last poll, before this one looked, needs no credit: nothing lies in the future.
            self._last_answer = min(now, self._last_answer + pause)
            self._last_receive = min(now, self._last_receive + pause)
            for sequence, sent in self._outstanding.items():
                self._outstanding[sequence] = min(now, sent + pause)
        self._poll_due = now + self.probe_interval
        self._expire(now)
        self._update(now)
        if now < self._next_probe:
            return []
        self._next_probe = now + self.probe_interval
        self._last_probe = now
        sequence = self._next_sequence
        self._next_sequence += 1
        self._outstanding[sequence] = now
        return [Probe(sequence=sequence)]

    def next_timer(self, now: float) -> float:
        """When `poll` is due at the latest."""
        timer = self._next_probe
        if self.answered and self.state is not PathState.DOWN:
            # Where other evidence comes steadily, it has mostly come by then: one look less for each idle session.
            steady = self._last_answer - self._last_other < self.suspect_after
            limit = self.suspect_after if self.state is PathState.UP and not steady else self.down_after
            timer = min(timer, self._evidence() + limit)
        self._poll_due = max(timer, now)
        return self._poll_due

    def on_receive(self, now: float) -> None:
        """Anything authentic arrived from the peer."""
        self._last_receive = now

    def on_probe_ack(self, ack: ProbeAck, now: float) -> None:
        """An answer arrived. One that nobody asked for, or that came twice, is ignored."""
        sent = self._outstanding.pop(ack.sequence, None)
        if sent is None:
            return
        if not self._pause(now):  # else the answer waited for this process, nobody knows how long
            self.rtt.add(max(0.0, now - sent))
        self._history.append(True)
        self.on_round_trip(now)

    def on_other_evidence(self, at: float, now: float) -> None:
        """Both directions were known to work at a time, by other means than probes: these become rare."""
        if at > self._last_answer:
            self.on_round_trip(at)
            self._last_other = at
            rest = min(at + min(QUIET_TIME, QUIET_SHARE * self.down_after), self._last_probe + QUIET_LIMIT)
            self._next_probe = max(self._next_probe, rest)
            self._update(now)

    def on_round_trip(self, now: float) -> None:
        """The peer answered something that we sent, so both directions work."""
        self._last_answer = max(self._last_answer, now)
        self._last_receive = max(self._last_receive, now)
        self.answered = True
        self._update(now)

    def silence(self, now: float) -> float:
        """Seconds since the last evidence that the path works."""
        return now - self._evidence()

    def _pause(self, now: float) -> float:
        """Seconds by which this process is late with `poll`, 0.0 while it is on time."""
        pause = now - self._poll_due
        return pause if pause > self.probe_interval else 0.0

    def _evidence(self) -> float:
        return max(self._last_answer, min(self._last_receive, self._last_answer + self.suspect_after))

    def _update(self, now: float) -> None:
        if not self.answered:
            self.state = PathState.DOWN
            return
        silence = self.silence(now)
        if silence >= self.down_after:
            self.state = PathState.DOWN
        elif silence >= self.suspect_after:
            # From DOWN the way back is an answer, which makes the silence short.
            self.state = PathState.SUSPECT if self.state is not PathState.DOWN else PathState.DOWN
        else:
            self.state = PathState.UP

    def _expire(self, now: float) -> None:
        # A late answer still counts as evidence (it stays outstanding for down_after), but is lost for the estimate.
        horizon = max(self.down_after, 4 * self.rtt.timeout)
        while self._outstanding:
            sequence, sent = next(iter(self._outstanding.items()))
            if now - sent < horizon and len(self._outstanding) <= _MAX_OUTSTANDING:
                return
            del self._outstanding[sequence]
            self._history.append(False)
