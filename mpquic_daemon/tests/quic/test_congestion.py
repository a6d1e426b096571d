"""Congestion control of a QUIC connection: what it measures, and when it lets packets go."""

from __future__ import annotations

import pytest
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicPacketType
from aioquic.quic.packet_builder import QuicSentPacket
from aioquic.tls import Epoch
from hypothesis import given, settings
from hypothesis import strategies as st
from mpquic.proto.congestion.bbr import Bbr
from mpquic.proto.congestion.cubic import Cubic
from mpquic.proto.congestion.hystart import SlowStart
from mpquic.proto.congestion.newreno import NewReno
from mpquic.proto.congestion.pacer import Pacer
from mpquic.quic import congestion
from mpquic.quic.configuration import LinkOptions, quic_configuration
from mpquic.quic.congestion import LinkControl
from mpquic.quic.pacing import QUANTUM


@pytest.mark.parametrize(("algorithm", "kind"), [("auto", Cubic), ("cubic", Cubic), ("reno", NewReno), ("bbr", Bbr)])
def test_a_connection_gets_the_controller_that_is_named(algorithm, kind):
    with congestion.capture() as made:
        QuicConnection(configuration=quic_configuration(LinkOptions(algorithm), is_client=True))
    assert [type(control.controller) for control in made] == [kind]


def test_an_unknown_algorithm_is_an_error():
    with pytest.raises(ValueError, match="vegas"):
        congestion.registered_name("vegas")


def sent_in(pacer: Pacer, seconds: float, wake: float) -> int:
    """Bytes that leave when the loop wakes up every `wake` seconds at the soonest."""
    now, sent = 0.0, 0
    while now < seconds:
        at = pacer.next_allowance(now)
        if at <= now:
            pacer.spend(1452)
            sent += 1452
        else:
            now = max(at, now + wake)
    return sent


@settings(max_examples=30, deadline=None)
@given(
    rate=st.integers(100_000, 60_000_000),
    wake=st.sampled_from([0.0, 0.0005, 0.001]),
)
def test_the_pacer_keeps_the_rate_with_timers_of_a_millisecond(rate, wake):
    pacer = Pacer(rate, 0.0, quantum=QUANTUM)
    sent = sent_in(pacer, 0.2, wake)
    assert sent <= rate * 0.2 + pacer.burst + 2 * 1452
    assert sent >= 0.8 * rate * 0.2 - pacer.burst


def test_without_an_rtt_nothing_is_paced():
    pair_of_packets = LinkControl("cubic", max_datagram_size=1200)
    assert pair_of_packets.pacer.allowance(1.0) >= pair_of_packets.congestion_window


def rounds(slow_start: SlowStart, minima: list[float], jitter: float = 0.0, *, filled: bool = True) -> None:
    now = 1.0
    for minimum in minima:
        sent = now
        now += minimum
        slow_start.on_acked(sent, now, filled=filled)
        for sample in range(10):
            slow_start.on_rtt(minimum + jitter * (sample % 4) / 3)


def test_jitter_does_not_end_slow_start():
    slow_start = SlowStart()
    rounds(slow_start, [0.025, 0.027, 0.024, 0.026] * 10, jitter=0.012)
    assert not slow_start.over
    assert not slow_start.conservative


def test_a_growing_queue_ends_slow_start_after_five_careful_rounds():
    slow_start = SlowStart()
    rounds(slow_start, [0.025, 0.025, 0.032])
    assert slow_start.conservative
    assert not slow_start.over
    rounds_more = [0.034, 0.036, 0.038, 0.040, 0.042]
    now = 10.0
    for minimum in rounds_more:
        slow_start.on_acked(now, now + minimum, filled=True)
        now += 1.0
        for _ in range(8):
            slow_start.on_rtt(minimum)
    assert slow_start.over


def test_the_queue_of_the_other_direction_does_not_end_slow_start():
    slow_start = SlowStart()
    rounds(slow_start, [0.11 + 0.02 * number for number in range(30)], filled=False)
    assert not slow_start.over
    rounds(slow_start, [0.11, 0.11, 0.11])
    assert not slow_start.conservative


def test_a_passing_rise_resumes_slow_start():
    slow_start = SlowStart()
    rounds(slow_start, [0.025, 0.025, 0.032, 0.026])
    assert not slow_start.conservative


def sent(control: LinkControl, number: int, now: float) -> QuicSentPacket:
    packet = QuicSentPacket(Epoch.ONE_RTT, True, True, True, number, QuicPacketType.ONE_RTT)
    packet.sent_bytes, packet.sent_time = 1200, now
    control.on_packet_sent(packet=packet)
    return packet


@pytest.mark.parametrize("algorithm", ["cubic", "reno"])
def test_little_traffic_for_long_changes_nothing_in_congestion_avoidance(algorithm):
    control = LinkControl(algorithm, max_datagram_size=1200)
    control.controller.congestion_window = control.controller.slow_start_threshold = window = 1_000_000
    for number in range(100):
        now = 0.1 * number + 1
        packet = sent(control, number, now)
        if number == 0:  # what was before is too long ago
            control.controller.congestion_window = control.controller.slow_start_threshold = window
        control.on_packet_acked(now=now + 0.05, packet=packet)
        control.finish(now + 0.05)
    threshold = control.controller.slow_start_threshold
    assert (control.congestion_window, threshold, control.bytes_in_flight) == (window, window, 0)
    assert control.meter.bytes_acked == 120_000


@pytest.mark.parametrize("algorithm", ["cubic", "reno"])
def test_a_ping_that_an_idle_path_lost_does_not_slow_down_the_next_transfer(make_pair, algorithm):
    """50 Mbit/s over 100 ms: 60 % in the first 3 s, start included."""
    from .conftest import LinkModel

    pair = make_pair(
        options=LinkOptions(algorithm), up=LinkModel(delay=0.05, rate=6_250_000), down=LinkModel(delay=0.05)
    )
    control = pair.link._control
    for number in range(10):
        packet = sent(control, number, pair.now + number)
        control.on_packets_lost(now=pair.now + number, packets=[packet])
        control.finish(pair.now + number)

    def ping():
        if pair.now > pings[-1] + 0.1:
            pings.append(pair.now)
            pair.link.send_datagrams([bytes(100)])
            pair.put_on_the_wire()

    def pump():
        while pair.link.datagram_budget() > 0:
            pair.link.send_datagrams([bytes(pair.link.datagram_capacity)])
            pair.put_on_the_wire()

    pings, pair.pump = [pair.now], ping
    pair.run(lambda: False, seconds=11)
    pair.server.datagrams.clear()
    pair.pump = pump
    pair.run(lambda: False, seconds=3)
    assert sum(map(len, pair.server.datagrams)) > 0.6 * 3 * 6_250_000


@pytest.mark.parametrize("algorithm", ["cubic", "reno"])
def test_a_loss_in_a_window_that_is_filled_lowers_it_and_ends_slow_start(algorithm):
    control = LinkControl(algorithm, max_datagram_size=1200)
    control.controller.congestion_window = window = 120_000
    packets = [sent(control, 0, 0.1)]
    control.controller.congestion_window = window
    packets += [sent(control, number, 0.1) for number in range(1, 80)]
    control.on_packets_lost(now=0.2, packets=packets[:1])
    control.finish(0.2)
    assert control.controller.slow_start_threshold == control.congestion_window < 0.72 * window
    assert (control.meter.packets_lost, control.meter.congestion_events) == (1, 1)


@pytest.mark.parametrize("algorithm", ["cubic", "reno", "bbr"])
def test_a_clean_link_with_a_queue_is_filled(make_pair, algorithm):
    """20 Mbit/s, 40 ms, 100 ms of queue: at least 85 % of the rate within 6 seconds, start included."""
    from .conftest import LinkModel

    pair = make_pair(
        options=LinkOptions(algorithm), up=LinkModel(delay=0.02, rate=2_500_000), down=LinkModel(delay=0.02)
    )

    def pump():
        while pair.link.datagram_budget() > 0:
            pair.link.send_datagrams([bytes(pair.link.datagram_capacity)])
            pair.put_on_the_wire()

    pair.pump = pump
    pair.run(lambda: False, seconds=6)
    assert sum(map(len, pair.server.datagrams)) > 0.85 * 6 * 2_500_000
