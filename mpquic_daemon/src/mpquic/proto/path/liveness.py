"""Is the peer of a path there? By what arrives, by whichever data plane, and by probes where nothing else tells."""

from __future__ import annotations

from mpquic.proto.path.estimators import PathEstimators
from mpquic.proto.path.path import PathState
from mpquic.proto.path.probe import SEQUENCES, PathProbe

QUIET_LIMIT = 20.0
"""Seconds without a probe at most where others prove the path: the connection that carries probes must not be idle."""
URGENT_SHARE = 1 / 5
"""Of the probe interval: pauses between probes while a reply is overdue."""
LATENESS = 1 / 2
"""Of the probe interval: by so much a proof may be late before it is asked for."""
_MAX_OUTSTANDING = 256


class Liveness:
    """State of one path by what comes in.

    Each authenticated datagram, of any plane and kind, proves that the peer's packets reach us (`on_receive`). That
    ours reach the peer is proved by its replies, its reports, or its word when it heard us last (`on_round_trip`).

    * UP: both are known of late.
    * SUSPECT: for `suspect_after` it wasn't proved that both directions work; traffic leaves by another path if it can.
    * DOWN: nothing has come in for `down_after` since something was due; or the peer has said that it hears nothing of
      us, for as long. As long as packets come in and the peer doesn't say so, a path is never called down: they may
      wait in a queue, or be lost one in two.

    So a path that is cut in one direction goes down at both ends: the end that hears nothing sees the silence, and its
    probes, which still arrive, tell the other. (Much as in RFC 5880 section 6.8.6, where a session goes down on the
    neighbour's word.) Its word doesn't count where a later round trip contradicts it: it may have been under way long.

    The end that `probes` (the client) sends a probe each `probe_interval`; the other, and either end while
    `proved_every` is longer since another plane sends requests, only when proof is late. While it is, probes follow
    each other quickly: then neither half of them lost nor a pause of 2.5 s makes a peer seem gone. Times are seconds.
    A pause of this process itself (it was polled more than a probe interval after `next_timer`) is not held against
    the peer.
    """

    def __init__(
        self,
        now: float,
        *,
        probe_interval: float = 0.5,
        suspect_after: float | None = None,
        down_after: float = 3.0,
        probes: bool = True,
        estimators: PathEstimators | None = None,
    ) -> None:
        self.retime(probe_interval, down_after, suspect_after)
        self.estimators = estimators if estimators is not None else PathEstimators()
        self.rtt = self.estimators.rtt
        self.state = PathState.DOWN
        self.answered = False
        self.probes = probes
        self.proved_every: float | None = None
        """Seconds from one proof of another plane to the next, while there is such a plane."""
        self.told_after = 0.0
        """Seconds by which such a proof is old when it comes: who asks tells by the next request when a reply came."""
        self._last_round_trip = now
        self._last_receive = now
        self._unheard = False
        """Whether the peer has said that it hears nothing of us, and nothing has contradicted it since."""
        self._poll_due = now
        """When `poll` was to be called at the latest."""
        self._last_probe = float("-inf")
        self._probes_heard_at = now
        """When a probe or a reply came last: the connection that carries them is known to work as well."""
        self._next_sequence = 0
        self._outstanding: dict[int, float] = {}
        self._unmeasured: set[int] = set()
        """Probes that were under way while this process paused: their replies tell no round-trip time."""
        self._count_from = now
        """Probes that were sent earlier don't count as lost: an outage was to blame."""
        self._untold_rtt: float | None = None

    def retime(self, probe_interval: float, down_after: float, suspect_after: float | None = None) -> None:
        """Use other times from now on; ValueError when they contradict each other."""
        if suspect_after is None:
            suspect_after = min(2.5 * probe_interval, down_after / 2)
        if not 0 < probe_interval <= suspect_after < down_after:
            raise ValueError("0 < probe_interval <= suspect_after < down_after does not hold")
        self.probe_interval, self.suspect_after, self.down_after = probe_interval, suspect_after, down_after

    @property
    def loss(self) -> float:
        """Share of packets and probes that were lost of late, 0.0 to 1.0."""
        return self.estimators.loss

    @property
    def heard_at(self) -> float:
        """When anything came from the peer last."""
        return self._last_receive

    def poll(self, now: float) -> list[PathProbe]:
        """Advance time: return the probe that is due, and bring `state` up to date."""
        pause = self._pause(now)
        if pause:
            # What has arrived since the last poll, before this one looked, needs no credit: nothing lies in the future.
            self._last_round_trip = min(now, self._last_round_trip + pause)
            self._last_receive = min(now, self._last_receive + pause)
            for sequence, sent in self._outstanding.items():
                self._outstanding[sequence] = min(now, sent + pause)
            # Their replies have waited for this process, nobody knows how long.
            self._unmeasured = set(self._outstanding)
        self._poll_due = now + self.probe_interval
        self._expire(now)
        self._update(now)
        if now < self._probe_at():
            return []
        return [self.probe(now)]

    def probe(self, now: float) -> PathProbe:
        """Return a probe that is sent now, due or not."""
        self._last_probe = now
        sequence = self._next_sequence
        self._next_sequence = (sequence + 1) % SEQUENCES
        self._outstanding[sequence] = now
        self._unmeasured.discard(sequence)
        rtt, self._untold_rtt = self._untold_rtt, None
        return PathProbe(sequence, heard_ago=now - self._last_receive, rtt=rtt)

    def next_timer(self, now: float) -> float:
        """When `poll` is due at the latest."""
        timer = self._probe_at()
        if self.answered and self.state is not PathState.DOWN:
            timer = min(timer, self._last_receive + self._silence_limit)
            if self.state is PathState.UP:
                timer = min(timer, self._suspect_at())
        self._poll_due = max(timer, now)
        return self._poll_due

    def on_receive(self, now: float) -> None:
        """An authenticated datagram of the peer arrived, by any plane."""
        silence = now - self._last_receive
        late = self._interval + LATENESS * self.probe_interval
        if self.answered and silence >= late and not self._pause(now):
            self._note_silence(silence, now)
        self._last_receive = max(self._last_receive, now)
        self._update(now)

    def _note_silence(self, silence: float, now: float) -> None:
        """Nothing had come in for longer than it should: losses of a cut are told by the state, and aren't counted."""
        if silence >= self._silence_limit:
            self.estimators.outage_over(now)
        else:
            missing = sum(sent > self._last_receive for sent in self._outstanding.values())
            if not self.estimators.silence_over(self._last_receive, missing, now):
                return
        self._count_from = now

    def on_probe(self, probe: PathProbe, now: float) -> PathProbe | None:
        """A probe or a reply arrived: return the reply to a probe. One that nobody asked for is ignored."""
        self.on_receive(now)
        self._probes_heard_at = now
        if probe.is_reply:
            sent = self._outstanding.pop(probe.sequence, None)
            if sent is None:
                return None
            if probe.sequence not in self._unmeasured and not self._pause(now):
                self._untold_rtt = max(0.0, now - sent)
                self.rtt.add(self._untold_rtt, now)
            self.estimators.on_sent(1, 0, now)
        elif probe.rtt is not None and not self._pause(now):
            self.rtt.add(probe.rtt, now)
        if probe.heard_ago < self._silence_limit:
            self.on_round_trip(now - probe.heard_ago)
        elif now - self._last_round_trip >= self.suspect_after and not self._pause(now):
            self._unheard = True
            self._update(now)
        return None if probe.is_reply else PathProbe(probe.sequence, is_reply=True)

    def on_round_trip(self, at: float) -> None:
        """At a time the peer replied to something that we sent, or said that it hears us: both directions work."""
        self._last_round_trip = max(self._last_round_trip, at)
        self._last_receive = max(self._last_receive, at)
        self._unheard = False
        self.answered = True
        self._update(self._last_receive)

    def silence(self, now: float) -> float:
        """Seconds since anything came in."""
        return now - self._last_receive

    def unproved(self, now: float) -> float:
        """Seconds since both directions were last known to work."""
        return now - self._last_round_trip

    @property
    def _interval(self) -> float:
        """Seconds from one proof to the next, as they come by themselves."""
        return self.probe_interval if self.proved_every is None else max(self.probe_interval, self.proved_every)

    @property
    def _proof_interval(self) -> float:
        # Who doesn't ask learns by each probe of the other that the reply to the one before has arrived.
        if self.proved_every is not None:
            return self._interval + self.told_after
        return self._interval if self.probes else 2 * self._interval

    @property
    def _silence_limit(self) -> float:
        return self._interval + self.down_after

    def _suspect_at(self) -> float:
        return self._last_round_trip + self._proof_interval + self.suspect_after - self.probe_interval

    def _probe_at(self) -> float:
        """When the next probe is due."""
        usual = self._last_probe + self.probe_interval
        if not self.answered or self.state is PathState.DOWN:
            return usual
        late = self._last_round_trip + self._proof_interval + LATENESS * self.probe_interval
        urgent = max(late, self._last_probe + URGENT_SHARE * self.probe_interval)
        if self.probes and self.proved_every is None:
            return min(usual, urgent)
        return min(max(self._probes_heard_at + QUIET_LIMIT, usual), urgent)

    def _pause(self, now: float) -> float:
        """Seconds by which this process is late with `poll`, 0.0 while it is on time."""
        pause = now - self._poll_due
        return pause if pause > self.probe_interval else 0.0

    def _update(self, now: float) -> None:
        if not self.answered or self._unheard or now - self._last_receive >= self._silence_limit:
            self.state = PathState.DOWN
        elif now < self._suspect_at():
            self.state = PathState.UP
        elif self.state is PathState.UP:
            # From DOWN the way back is a round trip, which makes it UP.
            self.state = PathState.SUSPECT

    def _expire(self, now: float) -> None:
        # A late reply still counts as proof (it stays outstanding for down_after), but is lost for the estimate.
        horizon = max(self.down_after, 4 * self.rtt.timeout)
        while self._outstanding:
            sequence, sent = next(iter(self._outstanding.items()))
            if now - sent < horizon and len(self._outstanding) <= _MAX_OUTSTANDING:
                return
            del self._outstanding[sequence]
            if sent >= self._count_from:
                self.estimators.on_sent(0, 1, now)
