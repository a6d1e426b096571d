from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpquic.proto.path.backoff import Backoff
from mpquic.proto.path.estimators import LossEstimator, RttEstimator
from mpquic.proto.path.liveness import QUIET_LIMIT, Liveness
from mpquic.proto.path.path import PathState
from mpquic.proto.path.probe import PathProbe
from mpquic.proto.stripe.pipes import IDLE_INTERVAL

if TYPE_CHECKING:
    from collections.abc import Callable

TICK = 0.01


def reply(probe: PathProbe) -> PathProbe:
    return PathProbe(probe.sequence, is_reply=True)


class Link:
    """A path between an end that probes and one that doesn't, in virtual time. Probes alone are sent."""

    def __init__(self, delay: float = 0.02, **options: float) -> None:
        self.now = 100.0
        self.delay = delay
        self.forth = self.back = True
        self.live = Liveness(self.now, **options)
        self.peer = Liveness(self.now, probes=False, **options)
        self.peer.on_round_trip(self.now)
        self.flying: list[tuple[float, Liveness, PathProbe]] = []
        self.states: list[tuple[float, PathState]] = []
        self.peer_states: list[tuple[float, PathState]] = []
        self.data = False
        self.passes: Callable[[], bool] = lambda: True
        """Whether a datagram isn't lost."""
        self.sent = 0

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            arrived = [entry for entry in self.flying if entry[0] <= self.now]
            self.flying = [entry for entry in self.flying if entry[0] > self.now]
            for _, to, probe in arrived:
                reply = to.on_probe(probe, self.now)
                if reply is not None:
                    self.send(to, reply)
            if self.data and self.back:
                self.live.on_receive(self.now)
            for end_of_path, states in ((self.live, self.states), (self.peer, self.peer_states)):
                for probe in end_of_path.poll(self.now):
                    self.send(end_of_path, probe)
                if not states or states[-1][1] is not end_of_path.state:
                    states.append((self.now, end_of_path.state))
            self.now += TICK

    def send(self, end: Liveness, probe: PathProbe) -> None:
        self.sent += 1
        to = self.peer if end is self.live else self.live
        if (self.forth if end is self.live else self.back) and self.passes():
            self.flying.append((self.now + self.delay, to, PathProbe(*probe)))

    def since(self, start: float, state: PathState) -> float:
        return next(at for at, seen in self.states if seen is state and at >= start) - start


def test_a_path_is_up_once_its_peer_answers() -> None:
    link = Link()
    assert link.live.state is PathState.DOWN
    link.run(0.2)
    assert link.states[-1][1] is PathState.UP
    assert link.live.rtt.smoothed == pytest.approx(2 * link.delay, abs=2 * TICK)


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
    assert link.peer_states[-1][1] is PathState.DOWN, "both ends see it"
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
    for tick in range(1, 84):
        live.poll(60.0 + tick * 0.05)
    assert live.state is PathState.DOWN


@pytest.mark.parametrize("arrival", ["answer", "data"])
def test_what_waited_for_a_stalled_process_credits_nothing_to_the_future(arrival: str) -> None:
    live = Liveness(0.0)
    [probe] = live.poll(0.0)
    live.on_probe(reply(probe), 0.02)
    [probe] = live.poll(0.5)
    if arrival == "answer":
        live.on_probe(reply(probe), 40.0)
    else:
        live.on_receive(40.0)
    live.poll(40.0)
    assert live.silence(40.0) <= 0.5
    assert live.rtt.latest == pytest.approx(0.02), "the stall isn't part of the round-trip time"
    for tick in range(1, 84):
        live.poll(40.0 + tick * 0.05)
    assert live.state is PathState.DOWN


def test_a_reply_that_is_read_after_a_stall_tells_no_round_trip_time() -> None:
    """As it is when something else than its socket wakes the process first."""
    live = Liveness(0.0)
    [probe] = live.poll(0.0)
    live.on_probe(reply(probe), 0.02)
    [probe] = live.poll(0.5)
    [later] = live.poll(40.0)
    live.on_probe(reply(probe), 40.001)
    assert live.rtt.latest == pytest.approx(0.02)
    live.on_probe(reply(later), 40.05)
    assert live.rtt.latest == pytest.approx(0.05, abs=0.002), "that of the next counts"


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
                live.on_probe(reply(probe), now + 0.03)
    assert 0.0 <= live.loss <= 1.0
    assert abs(live.loss - lost / asked) < 0.25
    assert live.answered


@given(st.integers(0, 2**32))
def test_probes_rest_while_idle_pipes_are_answered_in_time_or_a_little_late(seed: int) -> None:
    rng = random.Random(seed)
    liveness = Liveness(0.0, probe_interval=0.5, down_after=3.0)
    liveness.proved_every = IDLE_INTERVAL
    [first] = liveness.poll(0.0)
    liveness.on_probe(reply(first), 0.04)
    now, probes = 0.0, 0
    answers = [0.5 + IDLE_INTERVAL * turn + rng.uniform(0.02, 0.2) for turn in range(60)]
    for answer in answers:
        while (due := liveness.next_timer(now)) < answer:
            now = due
            for probe in liveness.poll(now):
                probes += now > 3
                liveness.on_probe(reply(probe), now)
        now = answer
        liveness.on_round_trip(answer)
        assert liveness.state is PathState.UP
    assert probes <= 1 + now / QUIET_LIMIT


def test_answers_that_nobody_asked_for_prove_nothing() -> None:
    live = Liveness(0.0)
    [probe] = live.poll(0.0)
    live.on_probe(reply(PathProbe(77)), 0.1)
    assert live.state is PathState.DOWN
    live.on_probe(reply(probe), 0.1)
    live.on_probe(reply(probe), 2.9)
    assert live.silence(3.0) == pytest.approx(0.1), "it was heard"
    assert live.state is PathState.SUSPECT


def test_the_timer_names_the_next_probe_or_the_next_change_of_state() -> None:
    live = Liveness(0.0, probe_interval=1.0, suspect_after=1.2, down_after=3.0)
    [probe] = live.poll(0.0)
    assert live.next_timer(0.0) == 1.0
    live.on_probe(reply(probe), 0.1)
    assert len(live.poll(1.0)) == 1
    assert live.next_timer(1.0) == pytest.approx(1.3), "0.2 s after proof was due it is suspect"
    live.poll(1.3)
    assert (live.state, live.next_timer(1.3)) == (PathState.SUSPECT, pytest.approx(1.6))


def test_outstanding_probes_are_bounded() -> None:
    live = Liveness(0.0, probe_interval=0.001, down_after=1e9, suspect_after=1.0)
    for tick in range(2000):
        live.poll(tick * 0.001)
    assert len(live._outstanding) < 300


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="does not hold"):
        Liveness(0.0, probe_interval=2.0, suspect_after=1.0)


def down_times(link: Link, seconds: float) -> tuple[int, int]:
    """Let time pass; return how often either end has called the path suspect and down."""
    link.run(5.0)
    before = len(link.states), len(link.peer_states)
    link.run(seconds)
    entered = [state for _, state in (*link.states[before[0] :], *link.peer_states[before[1] :])]
    return entered.count(PathState.SUSPECT), entered.count(PathState.DOWN)


@pytest.mark.parametrize("seed", range(20))
def test_a_path_that_loses_half_of_all_packets_is_never_down(seed: int) -> None:
    rng, link = random.Random(seed), Link()
    link.passes = lambda: rng.random() < 0.5
    link.run(1.0)
    assert down_times(link, 60.0)[1] == 0
    assert link.live.loss == pytest.approx(0.75, abs=0.25), "a probe and its reply"


def test_a_path_that_is_cut_for_2_5_s_every_15_s_is_suspect_and_never_down() -> None:
    link = Link()
    link.passes = lambda: link.now % 15.0 > 2.5
    suspect, down = down_times(link, 120.0)
    assert (suspect, down) == (16, 0), "eight times at either end"


@pytest.mark.parametrize("ends", [("forth", "back"), ("forth",), ("back",)])
def test_packets_that_wait_2_5_s_in_a_queue_are_proof_of_life(ends: tuple[str, ...]) -> None:
    link = Link()
    send = link.send

    def queued(end: Liveness, probe: PathProbe) -> None:
        slow = ("forth" if end is link.live else "back") in ends
        link.delay = 2.52 if slow and link.now % 20.0 > 10.0 else 0.02
        send(end, probe)

    link.send = queued  # type: ignore[method-assign]
    assert down_times(link, 60.0)[1] == 0


def test_the_end_that_does_not_ask_sends_nothing_but_replies_on_a_path_that_works() -> None:
    link = Link()
    link.run(5.0)
    before = link.sent
    link.run(20.0)
    assert link.sent - before == pytest.approx(80, abs=4)
    assert link.peer.state is PathState.UP
    assert link.peer.rtt.smoothed == pytest.approx(link.live.rtt.smoothed, abs=0.001)


def test_the_word_of_the_peer_does_not_count_where_a_later_round_trip_contradicts_it() -> None:
    live = Liveness(0.0)
    live.on_round_trip(10.0)
    live.poll(10.0)
    live.on_probe(PathProbe(1, heard_ago=20.0), 10.5)
    assert live.state is PathState.UP
    live.poll(10.9)
    live.on_probe(PathProbe(2, heard_ago=20.0), 11.3)
    assert live.state is PathState.DOWN
    live.on_round_trip(11.6)
    assert live.state is PathState.UP


@pytest.mark.parametrize(("before", "after"), [(0.017, 0.15), (0.15, 0.017), (0.017, 0.6)])
def test_the_round_trip_time_is_right_3_s_after_a_change(before: float, after: float) -> None:
    link = Link(before / 2)
    link.run(30.0)
    link.delay = after / 2
    link.run(3.0)
    for end in (link.live, link.peer):
        assert end.rtt.smoothed == pytest.approx(after, abs=max(0.2 * after, 0.005) + 2 * TICK)


def test_the_round_trip_time_is_right_and_nothing_counts_as_lost_3_s_after_an_outage() -> None:
    link = Link()
    link.run(30.0)
    link.forth = link.back = False
    link.run(12.0)
    link.forth = link.back = True
    link.run(3.0)
    for end in (link.live, link.peer):
        assert end.rtt.smoothed == pytest.approx(0.04, abs=0.005 + 2 * TICK)
        assert end.loss == 0.0


def test_rtt_is_smoothed_as_in_rfc_6298_where_samples_are_many() -> None:
    rtt = RttEstimator()
    assert rtt.timeout == 1.0
    rtt.add(0.1, 0.0)
    assert (rtt.smoothed, rtt.variation) == (0.1, 0.05)
    rtt.add(0.2, 0.02)
    assert rtt.variation == pytest.approx(0.75 * 0.05 + 0.25 * 0.1)
    assert rtt.smoothed == pytest.approx(0.875 * 0.1 + 0.125 * 0.2)
    assert (rtt.minimum, rtt.latest) == (0.1, 0.2)


def test_a_minimum_is_forgotten() -> None:
    rtt = RttEstimator()
    for second in range(60):
        rtt.add(0.017 if second < 10 else 0.15, float(second))
        assert rtt.minimum == (0.017 if second < 20 else 0.15)


def test_loss_is_that_of_the_last_seconds_or_of_enough_packets() -> None:
    loss = LossEstimator()
    assert loss.loss == 0.0
    for tick in range(100):
        loss.add(80, 20, tick * 0.1)
    assert loss.loss == pytest.approx(0.2)
    for tick in range(100, 130):
        loss.add(100, 0, tick * 0.1)
    assert loss.loss == 0.0
    loss.add(0, 10, 20.0)
    loss.add(0, -10, 20.5)
    assert loss.loss == 0.0
    rare = LossEstimator()
    for second in range(30):
        rare.add(second % 4 > 0, second % 4 == 0, float(second))
    assert rare.loss == pytest.approx(0.25, abs=0.05), "few packets are taken together"
    rare.restart(30.0)
    rare.add(0, 5, 30.5)
    assert rare.loss == 0.0, "what an outage has taken is found lost after it"


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
