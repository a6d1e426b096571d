"""Our controllers and the pacer: what they measure, and when they let packets go."""

from __future__ import annotations

import pytest
from aioquic.quic.connection import QuicConnection
from hypothesis import given, settings
from hypothesis import strategies as st
from mpquic.net import congestion
from mpquic.net.congestion import MeasuredCubic, MeasuredReno, PathMeter
from mpquic.net.pacing import BURST_SECONDS, GAIN, BurstPacer
from mpquic.net.quic import LinkOptions, quic_configuration


@pytest.mark.parametrize(("algorithm", "kind"), [("cubic", MeasuredCubic), ("reno", MeasuredReno)])
def test_a_connection_gets_the_controller_that_is_named(algorithm, kind):
    with congestion.capture() as made:
        QuicConnection(configuration=quic_configuration(LinkOptions(algorithm), is_client=True))
    assert [type(controller) for controller in made] == [kind]


def test_an_unknown_algorithm_is_an_error():
    with pytest.raises(KeyError):
        congestion.registered_name("vegas")


def test_the_first_rtt_sample_counts_whole_and_later_ones_an_eighth():
    meter = PathMeter()
    meter.on_rtt(0.1)
    assert (meter.rtt_smoothed, meter.rtt_variation) == (0.1, 0.05)
    meter.on_rtt(0.18)
    assert meter.rtt_smoothed == pytest.approx(0.11)
    assert meter.rtt_min == 0.1
    assert meter.rtt_latest == 0.18


def test_the_loss_estimate_follows_the_network():
    meter = PathMeter()
    for _ in range(20):
        meter.packets_acked += 90
        meter.packets_lost += 10
        meter.on_rtt(0.05)
    assert meter.loss == pytest.approx(0.1, abs=0.001)
    for _ in range(20):
        meter.packets_acked += 100
        meter.on_rtt(0.05)
    assert meter.loss < 0.001


def sent_in(pacer: BurstPacer, seconds: float, wake: float) -> int:
    """Datagrams that leave when the loop wakes up every `wake` seconds at the soonest."""
    now, count = 0.0, 0
    while now < seconds:
        at = pacer.next_send_time(now)
        if at is None:
            pacer.update_after_send(now)
            count += 1
        else:
            now = max(at, now + wake)
    return count


@settings(max_examples=30, deadline=None)
@given(
    rate=st.integers(100_000, 60_000_000),
    rtt=st.floats(0.005, 0.6),
    wake=st.sampled_from([0.0, 0.0005, 0.001]),
)
def test_the_pacer_keeps_the_rate_with_timers_of_a_millisecond(rate, rtt, wake):
    pacer = BurstPacer(max_datagram_size=1452)
    pacer.update_rate(int(rate * rtt / GAIN), rtt)
    sent = sent_in(pacer, 0.2, wake) * 1452
    burst = max(rate * BURST_SECONDS, 16 * 1452)
    assert sent <= rate * 0.2 + burst + 2 * 1452
    assert sent >= 0.8 * rate * 0.2 - burst


def test_without_an_rtt_nothing_is_paced():
    assert BurstPacer(max_datagram_size=1200).next_send_time(1.0) is None
