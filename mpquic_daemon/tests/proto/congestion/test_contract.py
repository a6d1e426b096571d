"""What every congestion controller keeps, whatever it is told."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpquic.proto.congestion.algorithms import ALGORITHMS, controller_class
from mpquic.proto.congestion.controller import AckSample, Controller
from mpquic.proto.congestion.cubic import BETA, Cubic
from mpquic.proto.congestion.newreno import NewReno
from mpquic.proto.congestion.sampler import DeliveryRateSampler
from mpquic.proto.congestion.window import INITIAL_PACKETS, WindowController

from .link import DATAGRAM, Link

WINDOW_BASED = ["cubic", "reno"]


def make(algorithm: str, now: float = 0.0) -> Controller:
    return controller_class(algorithm, "cubic")(DATAGRAM, now)


def acked(packets: int, *, flight: int, sent_at: float, rtt: float = 0.05) -> AckSample:
    sample = AckSample()
    sample.bytes_acked, sample.acked_packets = packets * DATAGRAM, packets
    sample.prior_in_flight, sample.in_flight = flight, flight - packets * DATAGRAM
    sample.sent_at, sample.rtt, sample.smoothed_rtt = sent_at, rtt, rtt
    return sample


def lost(*, flight: int, sent_at: float) -> AckSample:
    sample = acked(0, flight=flight, sent_at=sent_at)
    sample.bytes_lost, sample.lost_packets, sample.lost_sent_at = DATAGRAM, 1, sent_at
    sample.in_flight -= DATAGRAM
    return sample


batches = st.lists(
    st.tuples(
        st.floats(0, 3),
        st.integers(0, 300),
        st.integers(0, 300),
        st.none() | st.floats(1e-6, 2),
        st.floats(0, 1e9),
        st.integers(0, 500),
        st.sampled_from(["ack", "ack", "ack", "ack", "idle", "persistent"]),
    ),
    max_size=60,
)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@given(batches)
def test_a_window_is_never_below_two_packets_and_a_rate_always_positive(algorithm, steps):
    controller = make(algorithm)
    now, total = 0.0, 0
    for pause, arrived, missing, rtt, rate, behind, event in steps:
        now += pause
        if event == "idle":
            controller.on_idle(now)
        elif event == "persistent":
            controller.on_persistent_congestion(now)
        else:
            flight = (arrived + missing + behind) * DATAGRAM
            sample = acked(arrived, flight=flight, sent_at=max(0.0, now - behind / 100))
            sample.in_flight = behind * DATAGRAM
            sample.bytes_lost, sample.lost_packets, sample.lost_sent_at = missing * DATAGRAM, missing, sample.sent_at
            sample.prior_delivered, sample.rate, sample.rtt = total, rate, rtt
            total += sample.bytes_acked
            sample.delivered = total
            controller.on_sent(DATAGRAM, now)
            controller.on_ack(sample, now)
        assert controller.congestion_window >= 2 * DATAGRAM
        assert 0 < controller.pacing_rate < 1e12
        assert controller.bandwidth >= 0
        assert controller.state_name


@pytest.mark.parametrize("algorithm", WINDOW_BASED)
@settings(deadline=None, max_examples=30)
@given(loss=st.floats(0, 0.3), queue=st.integers(3_000, 300_000), rtt=st.floats(0.01, 0.3), seed=st.integers(0, 99))
def test_losses_cut_a_window_at_most_once_for_each_round_trip(algorithm, loss, queue, rtt, seed):
    link = Link(make(algorithm), rate=1_250_000, rtt=rtt, queue=queue, loss=loss, seed=seed)
    link.run(40 * rtt)
    assert all(later - earlier >= rtt for earlier, later in zip(link.cuts, link.cuts[1:], strict=False))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@settings(deadline=None, max_examples=20)
@given(loss=st.floats(0, 0.3), rtt=st.floats(0.01, 0.3), seed=st.integers(0, 99))
def test_what_is_sent_stays_within_the_window_and_the_rate(algorithm, loss, rtt, seed):
    link = Link(make(algorithm), rate=1_250_000, rtt=rtt, queue=100_000, loss=loss, seed=seed)
    for _ in range(100):
        flight, window = link.in_flight, link.controller.congestion_window
        earned = link.pacer.available(link.now)
        link._send()
        sent = link.in_flight - flight
        assert sent <= max(0, window - flight) + DATAGRAM
        assert sent <= max(0, earned) + DATAGRAM
        link.run(0.005)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("rtt", [0.005, 0.04, 0.25])
def test_a_clean_link_is_filled(algorithm, rtt):
    """20 Mbit/s with a queue of a round trip, at least 50 ms: 85 % of the rate once slow start is over."""
    rate = 2_500_000
    link = Link(make(algorithm), rate=rate, rtt=rtt, queue=int(rate * max(rtt, 0.05)))
    link.run(40 * rtt + 1)
    assert link.run(5) > 0.85 * rate


def test_bbr_does_not_take_random_loss_for_congestion_and_cubic_beats_reno():
    carried = {}
    for algorithm in ALGORITHMS:
        link = Link(make(algorithm), rate=2_500_000, rtt=0.04, queue=125_000, loss=0.02)
        link.run(3)
        carried[algorithm] = link.run(10)
    assert carried["bbr"] > 0.9 * 0.98 * 2_500_000
    assert carried["cubic"] > 1.2 * carried["reno"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_link_that_lost_most_of_its_capacity_is_found_anew(algorithm):
    link = Link(make(algorithm), rate=2_500_000, rtt=0.04, queue=125_000)
    link.run(4)
    link.rate = 250_000
    link.run(6)
    carried = link.run(4)
    assert carried > 0.8 * 250_000
    assert link.controller.congestion_window < 125_000 + 2 * 0.04 * 250_000 + 20 * DATAGRAM


@pytest.mark.parametrize("algorithm", WINDOW_BASED)
def test_persistent_congestion_leaves_two_packets_and_slow_start_to_what_a_loss_would_leave(algorithm):
    controller = make(algorithm)
    controller.congestion_window = window = 100 * DATAGRAM
    controller.on_persistent_congestion(5.0)
    assert controller.congestion_window == 2 * DATAGRAM
    assert controller.slow_start_threshold == int(window * controller.reduction)
    assert controller.state_name == "slow_start"
    controller.on_ack(lost(flight=2 * DATAGRAM, sent_at=4.9), 5.1)
    assert controller.congestion_window == 2 * DATAGRAM
    controller.on_ack(acked(2, flight=2 * DATAGRAM, sent_at=5.1), 5.2)
    assert controller.congestion_window == 4 * DATAGRAM


@pytest.mark.parametrize("algorithm", WINDOW_BASED)
def test_a_pause_never_widens_a_window_and_a_long_one_begins_anew(algorithm):
    link = Link(make(algorithm), rate=2_500_000, rtt=0.04, queue=60_000)
    link.run(5)
    controller = link.controller
    link.limit = 0
    link.run(0.5)
    before = controller.congestion_window
    assert link.in_flight == 0
    controller.on_idle(link.now)
    assert controller.congestion_window == before
    link.now += 60
    controller.on_idle(link.now)
    assert controller.congestion_window == INITIAL_PACKETS * DATAGRAM
    assert controller.state_name == "slow_start"
    link.limit = 1 << 40
    link.run(1)
    assert link.run(3) > 0.85 * 2_500_000


def test_the_time_in_which_nothing_is_sent_is_no_time_of_cubic():
    busy, paused = Cubic(DATAGRAM, 0.0), Cubic(DATAGRAM, 0.0)
    for controller in (busy, paused):
        controller.congestion_window = 100 * DATAGRAM
        controller.on_sent(DATAGRAM, 1.0)
        controller.on_ack(lost(flight=100 * DATAGRAM, sent_at=0.9), 1.0)
    flight = busy.congestion_window
    paused.on_idle(2.5)
    busy.on_ack(acked(10, flight=flight, sent_at=1.1), 1.2)
    paused.on_ack(acked(10, flight=flight, sent_at=2.6), 2.7)
    assert paused.congestion_window == busy.congestion_window


def test_cubic_returns_to_where_it_lost_and_no_sooner_than_its_function_says():
    """RFC 9438 section 4.2: K = cbrt((W_max - cwnd) / C) seconds after the loss the window is W_max again."""
    controller = Cubic(DATAGRAM, 0.0)
    packets = 1000
    controller.congestion_window = packets * DATAGRAM
    controller.on_ack(lost(flight=packets * DATAGRAM, sent_at=0.95), 1.0)
    assert controller.congestion_window == int(packets * DATAGRAM * BETA)
    k = (packets * (1 - BETA) / 0.4) ** (1 / 3)
    now, at = 1.0, {}
    while now < 1.0 + k:
        now += 0.1
        window = controller.congestion_window
        controller.on_ack(acked(window // DATAGRAM, flight=window, sent_at=now - 0.1, rtt=0.1), now)
        at[round(now, 1)] = controller.congestion_window / DATAGRAM
    assert at[round(1.0 + k / 2, 1)] == pytest.approx(1000 - 300 / 8, abs=15)
    assert controller.congestion_window / DATAGRAM == pytest.approx(packets, rel=0.01)


def test_a_maximum_that_falls_makes_room_for_others():
    """RFC 9438 section 4.7, fast convergence."""
    controller = Cubic(DATAGRAM, 0.0)
    controller.congestion_window = 1000 * DATAGRAM
    controller.on_ack(lost(flight=1000 * DATAGRAM, sent_at=0.9), 1.0)
    first = controller._maximum
    controller.on_ack(lost(flight=700 * DATAGRAM, sent_at=1.1), 1.2)
    assert first == 1000 * DATAGRAM
    assert controller._maximum == pytest.approx(700 * DATAGRAM * 0.85, rel=0.01)


def test_newreno_grows_by_a_packet_each_round_trip():
    controller = NewReno(DATAGRAM, 0.0)
    controller.congestion_window = 100 * DATAGRAM
    controller.on_ack(lost(flight=100 * DATAGRAM, sent_at=0.9), 1.0)
    assert controller.congestion_window == 50 * DATAGRAM
    for step in range(10):
        window = controller.congestion_window
        controller.on_ack(acked(window // DATAGRAM, flight=window, sent_at=1.1 + step, rtt=0.1), 1.2 + step)
    assert controller.congestion_window == 60 * DATAGRAM


@pytest.mark.parametrize("kind", [Cubic, NewReno])
def test_nothing_grows_before_what_left_after_the_loss_arrives(kind: type[WindowController]):
    controller = kind(DATAGRAM, 0.0)
    controller.congestion_window = 100 * DATAGRAM
    controller.on_ack(lost(flight=100 * DATAGRAM, sent_at=0.9), 1.0)
    window = controller.congestion_window
    assert controller.state_name == "recovery"
    controller.on_ack(acked(20, flight=90 * DATAGRAM, sent_at=0.95), 1.01)
    assert controller.congestion_window == window
    controller.on_ack(acked(window // DATAGRAM, flight=window, sent_at=1.02), 1.1)
    assert controller.state_name == "congestion_avoidance"
    assert controller.congestion_window > window


def test_an_unknown_algorithm_is_named_with_those_that_exist():
    with pytest.raises(ValueError, match="congestion_algorithm: vegas is unknown; use auto, bbr, cubic, reno"):
        controller_class("vegas", "bbr")
    assert make("auto").name == "cubic"


@given(
    st.lists(
        st.tuples(st.floats(0.0001, 0.1), st.integers(1, 50), st.integers(1, 50), st.booleans()),
        min_size=1,
        max_size=60,
    )
)
def test_no_sample_is_above_what_was_sent_or_what_was_delivered(steps):
    """The rate never exceeds what was delivered in all since the stamp, over the time since it."""
    sampler = DeliveryRateSampler()
    now, flight = 1.0, 0
    waiting = []
    for pause, sent, reported, limited in steps:
        now += pause
        stamp = sampler.on_sent(now, flight, probing_down=False)
        waiting += [stamp] * sent
        flight += sent * DATAGRAM
        if limited:
            sampler.mark_app_limited(flight)
        now += pause
        done, waiting = waiting[:reported], waiting[reported:]
        sampler.delivered += len(done) * DATAGRAM
        flight -= len(done) * DATAGRAM
        sample = AckSample()
        sampler.sample(done[-1], sample, now)
        assert sample.delivered == sampler.delivered
        assert 0 < sample.rate <= (sample.delivered - sample.prior_delivered) / (now - done[-1].sent_at) + 1e-6
        assert sample.app_limited == done[-1].app_limited
