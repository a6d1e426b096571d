from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpquic.proto.control.messages import ProbeAck
from mpquic.proto.path.backoff import Backoff
from mpquic.proto.path.liveness import QUIET_LIMIT, Liveness, RttEstimator
from mpquic.proto.path.path import PathState
from mpquic.proto.stripe.pipes import REST_INTERVAL

TICK = 0.01


class Link:
    """A path between a prober and a peer that answers, in virtual time."""

    def __init__(self, delay: float = 0.02, **options: float) -> None:
        self.now = 100.0
        self.delay = delay
        self.forth = self.back = True
        self.live = Liveness(self.now, **options)
        self.flying: list[tuple[float, ProbeAck]] = []
        self.states: list[tuple[float, PathState]] = []
        self.data = False

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            for at, ack in [entry for entry in self.flying if entry[0] <= self.now]:
                self.flying.remove((at, ack))
                if self.back:
                    self.live.on_probe_ack(ack, self.now)
            if self.data and self.back:
                self.live.on_receive(self.now)
            for probe in self.live.poll(self.now):
                if self.forth:
                    self.flying.append((self.now + self.delay, ProbeAck(sequence=probe.sequence)))
            if not self.states or self.states[-1][1] is not self.live.state:
                self.states.append((self.now, self.live.state))
            self.now += TICK

    def since(self, start: float, state: PathState) -> float:
        return next(at for at, seen in self.states if seen is state and at >= start) - start


def test_a_path_is_up_once_its_peer_answers() -> None:
    link = Link()
    assert link.live.state is PathState.DOWN
    link.run(0.2)
    assert link.states[-1][1] is PathState.UP
    assert link.live.rtt.smoothed == pytest.approx(0.02, abs=TICK)


@pytest.mark.parametrize("direction", ["both", "up", "down"])
@pytest.mark.parametrize("data", [False, True])
def test_a_silent_cut_is_suspect_then_down_within_five_seconds_and_up_at_the_first_answer(
    direction: str, data: bool
) -> None:
    link = Link()
    link.data = data
    link.run(5.0)
    cut = link.now
    link.forth, link.back = direction == "down", direction == "up"
    link.run(10.0)
    assert [state for _, state in link.states[-3:]] == [PathState.UP, PathState.SUSPECT, PathState.DOWN]
    assert link.since(cut, PathState.SUSPECT) < 3.0
    assert 2.4 < link.since(cut, PathState.DOWN) < 5.0
    healed = link.now
    link.forth = link.back = True
    link.run(2.0)
    assert link.since(healed, PathState.UP) < 0.6


def test_a_pause_of_the_process_is_not_held_against_the_peer() -> None:
    link = Link()
    link.run(5.0)
    link.now += 30.0
    link.run(5.0)
    assert link.states[-1][1] is PathState.UP
    assert link.live.loss == 0.0


def test_a_first_poll_long_after_the_beginning_credits_nothing_to_the_future() -> None:
    live = Liveness(0.0)
    live.on_round_trip(60.0)  # the registration took a minute; nobody had reason to poll
    live.poll(60.0)
    assert live.silence(60.0) == 0.0
    for tick in range(1, 64):
        live.poll(60.0 + tick * 0.05)
    assert live.state is PathState.DOWN


@pytest.mark.parametrize("arrival", ["answer", "data"])
def test_what_waited_for_a_stalled_process_credits_nothing_to_the_future(arrival: str) -> None:
    live = Liveness(0.0)
    [probe] = live.poll(0.0)
    live.on_probe_ack(ProbeAck(sequence=probe.sequence), 0.02)
    [probe] = live.poll(0.5)
    if arrival == "answer":
        live.on_probe_ack(ProbeAck(sequence=probe.sequence), 40.0)
    else:
        live.on_receive(40.0)
    live.poll(40.0)
    assert live.silence(40.0) <= 0.5
    assert live.rtt.latest == pytest.approx(0.02), "the stall isn't part of the round-trip time"
    for tick in range(1, 84):
        live.poll(40.0 + tick * 0.05)
    assert live.state is PathState.DOWN


def test_times_can_be_changed_and_are_checked() -> None:
    live = Liveness(0.0)
    live.retime(1.0, 8.0)
    assert (live.probe_interval, live.suspect_after, live.down_after) == (1.0, 2.5, 8.0)
    with pytest.raises(ValueError, match="does not hold"):
        live.retime(0.0, 8.0)


@given(st.integers(0, 2**32), st.floats(0.0, 0.3))
def test_random_loss_of_probes_does_not_bring_a_path_down_and_is_measured(seed: int, share: float) -> None:
    rng, live = random.Random(seed), Liveness(0.0, down_after=6.0)
    asked = lost = 0
    for tick in range(400):
        now = tick * 0.5
        for probe in live.poll(now):
            asked += 1
            if rng.random() < share:
                lost += 1
            else:
                live.on_probe_ack(ProbeAck(sequence=probe.sequence), now + 0.03)
    assert 0.0 <= live.loss <= 1.0
    assert abs(live.loss - lost / asked) < 0.25
    assert live.answered


@given(st.integers(0, 2**32))
def test_probes_rest_while_idle_pipes_are_answered_in_time_or_a_little_late(seed: int) -> None:
    rng = random.Random(seed)
    liveness = Liveness(0.0, probe_interval=0.5, down_after=3.0)
    [first] = liveness.poll(0.0)
    liveness.on_probe_ack(ProbeAck(sequence=first.sequence), 0.04)
    now, probes = 0.0, 0
    answers = [0.5 + REST_INTERVAL * turn + rng.uniform(0.02, 0.25) for turn in range(60)]
    for answer in answers:
        while (due := liveness.next_timer(now)) < answer:
            now = due
            for probe in liveness.poll(now):
                probes += now > 3
                liveness.on_probe_ack(ProbeAck(sequence=probe.sequence), now)
        now = answer
        liveness.on_other_evidence(answer, now)
        assert liveness.state is PathState.UP
    # After each that may not be left out, others go every `probe_interval` until the next answer on a pipe.
    assert probes <= 5 * now / QUIET_LIMIT


def test_answers_that_nobody_asked_for_prove_nothing() -> None:
    live = Liveness(0.0)
    [probe] = live.poll(0.0)
    live.on_probe_ack(ProbeAck(sequence=77), 0.1)
    assert live.state is PathState.DOWN
    live.on_probe_ack(ProbeAck(sequence=probe.sequence), 0.1)
    live.on_probe_ack(ProbeAck(sequence=probe.sequence), 2.9)
    assert live.silence(3.0) == pytest.approx(2.9)


def test_the_timer_names_the_next_probe_or_the_next_change_of_state() -> None:
    live = Liveness(0.0, probe_interval=1.0, suspect_after=1.2, down_after=3.0)
    [probe] = live.poll(0.0)
    assert live.next_timer(0.0) == 1.0
    live.on_probe_ack(ProbeAck(sequence=probe.sequence), 0.1)
    live.poll(1.0)
    assert live.next_timer(1.0) == pytest.approx(1.3)


def test_outstanding_probes_are_bounded() -> None:
    live = Liveness(0.0, probe_interval=0.001, down_after=1e9, suspect_after=1.0)
    for tick in range(2000):
        live.poll(tick * 0.001)
    assert len(live._outstanding) < 300


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="does not hold"):
        Liveness(0.0, probe_interval=2.0, suspect_after=1.0)


def test_rtt_is_smoothed_as_in_rfc_6298() -> None:
    rtt = RttEstimator()
    assert rtt.timeout == 1.0
    rtt.add(0.1)
    assert (rtt.smoothed, rtt.variation) == (0.1, 0.05)
    rtt.add(0.2)
    assert rtt.variation == pytest.approx(0.75 * 0.05 + 0.25 * 0.1)
    assert rtt.smoothed == pytest.approx(0.875 * 0.1 + 0.125 * 0.2)
    assert (rtt.minimum, rtt.latest) == (0.1, 0.2)


@given(st.integers(0, 2**32))
def test_the_first_retry_is_immediate_and_later_ones_grow_to_the_cap_with_jitter(seed: int) -> None:
    backoff = Backoff(random.Random(seed), initial=0.25, maximum=8.0)
    delays = [backoff.next_delay(0.0) for _ in range(2000)]
    assert delays[0] == 0.0
    for number, delay in enumerate(delays[1:]):
        ceiling = min(8.0, 0.25 * 2 ** min(number, 40))
        assert ceiling / 2 <= delay <= ceiling
    assert len(set(delays[10:30])) == 20


def test_only_a_connection_that_held_resets_the_series() -> None:
    backoff = Backoff(random.Random(1), stable_after=5.0)
    backoff.next_delay(0.0)
    backoff.connected(10.0)
    assert backoff.next_delay(11.0) > 0.0
    backoff.connected(20.0)
    assert backoff.next_delay(26.0) == 0.0
    assert backoff.next_delay(26.0) > 0.0
    backoff.reset()
    assert backoff.next_delay(27.0) == 0.0
