import itertools
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpqlab.emulator.counters import Counters
from mpqlab.emulator.direction import MAX_FLOWS, Direction
from mpqlab.emulator.model import DirectionConfig

from .packets import PLAIN, tcp_superframe, transport_sum, udp
from .patience import PATIENT
from .simulation import Simulation

PACKET = PLAIN + udp(1250)  # 10 kbit


def numbered(number: int, size: int = 100) -> bytes:
    return PLAIN + udp(size, ports=(number, 9))


def number_of(data: bytes) -> int:
    return int.from_bytes(data[30:32], "big")


# -- delay ---------------------------------------------------------------------------------------------------------


def test_a_perfect_wire_gives_back_the_same_bytes_at_once() -> None:
    link = Simulation()
    link.send(PACKET)
    assert [(time, frame.data) for time, frame in link.arrived] == [(100.0, PACKET)]


def test_delay_is_exact() -> None:
    link = Simulation(delay_ms=54)
    for i in range(10):
        link.send(PACKET, at=100 + i * 0.01)
    assert [time for time, _ in link.finish()] == pytest.approx([100 + i * 0.01 + 0.054 for i in range(10)])


def test_jitter_spreads_the_delay_in_order_and_around_its_mean() -> None:
    link = Simulation(delay_ms=30, jitter_ms=8)
    sent = [100 + i * 0.0001 for i in range(100_000)]
    for time in sent:
        link.send(PACKET, at=time)
    delays = [time - start for (time, _), start in zip(link.finish(), sent, strict=True)]
    assert 0.022 <= min(delays) < 0.024
    assert 0.036 < max(delays) <= 0.038
    assert statistics.fmean(delays) == pytest.approx(0.030, abs=0.0005)
    # Order is kept: the delay never falls as fast as time passes.
    assert max(abs(b - a) for a, b in itertools.pairwise(delays)) < 0.0001


def test_a_shorter_delay_does_not_let_packets_overtake() -> None:
    link = Simulation(delay_ms=50)
    link.send(numbered(1))
    link.set(delay_ms=5)
    link.send(numbered(2), at=100.001)
    link.send(numbered(3), at=100.060)
    arrived = link.finish()
    assert [number_of(frame.data) for _, frame in arrived] == [1, 2, 3]
    assert [time for time, _ in arrived] == pytest.approx([100.050, 100.050, 100.065])


# -- rate and queue ------------------------------------------------------------------------------------------------


def test_capacity_spaces_packets() -> None:
    link = Simulation(rate_mbit=10, delay_ms=5)
    for _ in range(5):
        link.send(PACKET)
    assert [time for time, _ in link.finish()] == pytest.approx([100.005 + 0.001 * i for i in range(1, 6)])


def test_the_queue_takes_what_can_wait_and_drops_the_tail() -> None:
    link = Simulation(rate_mbit=10, queue_ms=20)
    for i in range(100):
        link.send(numbered(i, 1250))
    arrived = link.finish()
    # The last packet that is taken waits for exactly the limit.
    assert [number_of(frame.data) for _, frame in arrived] == list(range(21))
    assert arrived[-1][0] == pytest.approx(100.021)
    assert link.direction.counters.dropped["queue"] == 79


def test_an_empty_queue_always_takes_a_packet() -> None:
    link = Simulation(rate_mbit=0.1, queue_ms=0)
    link.send(PACKET)
    assert [time for time, _ in link.finish()] == pytest.approx([100.1])


@pytest.mark.parametrize("data", [PACKET, tcp_superframe(bytes(60_000), 1400)])
@pytest.mark.parametrize("rate", [2, 20, 400])
def test_an_overloaded_link_carries_its_rate(rate: float, data: bytes) -> None:
    link = Simulation(rate_mbit=rate, queue_ms=300)
    count = int(rate * 1e6 * 2 / 8 / len(data)) * 2
    for i in range(count):
        link.send(data, at=100 + 2 * i / count)
    link.run_until(102)
    assert link.direction.counters.out_bytes * 8 / 2e6 == pytest.approx(rate, rel=0.03)


def test_a_superframe_does_not_hold_a_slow_link_in_one_piece() -> None:
    link = Simulation(rate_mbit=100)
    link.send(tcp_superframe(bytes(60_000), 1400))
    arrived = link.finish()
    assert arrived[0][0] <= 100.001
    assert len(arrived) > 5
    assert max(b[0] - a[0] for a, b in itertools.pairwise(arrived)) <= 0.001


def test_a_superframe_crosses_an_unlimited_link_in_one_piece() -> None:
    link = Simulation(delay_ms=5)
    data = tcp_superframe(bytes(60_000), 1400)
    link.send(data)
    assert [frame.data for _, frame in link.finish()] == [data]
    assert link.direction.counters.out_packets == 43
    assert link.direction.counters.out_bytes == 60_000 + 43 * 52


def test_a_new_rate_holds_for_what_is_still_waiting() -> None:
    link = Simulation(rate_mbit=10)
    for _ in range(4):
        link.send(PACKET)
    link.run_until(100.0015)  # one has gone, half of the second, too
    link.set(rate_mbit=1)
    assert [time for time, _ in link.finish()] == pytest.approx([100.001, 100.0065, 100.0165, 100.0265])


def test_a_lifted_rate_sends_what_waits_at_once() -> None:
    link = Simulation(rate_mbit=0.01, queue_ms=10_000)
    for _ in range(3):
        link.send(PACKET)
    link.set(rate_mbit=0)
    assert [time for time, _ in link.finish()] == [100, 100, 100]


# -- cap of a flow -------------------------------------------------------------------------------------------------


def test_each_flow_has_its_own_cap() -> None:
    link = Simulation(flow_rate_mbit=10, flow_queue_ms=1000)
    for i in range(100):
        for flow in range(3):
            link.send(numbered(flow, 1250), at=100 + i * 0.0001)
    arrived = link.finish()
    for flow in range(3):
        times = [time for time, frame in arrived if number_of(frame.data) == flow]
        assert times == pytest.approx([100 + 0.001 * i for i in range(1, 101)])


def test_the_capacity_holds_for_all_flows_together() -> None:
    link = Simulation(flow_rate_mbit=10, rate_mbit=15, queue_ms=20, flow_queue_ms=20)
    for i in range(8000):
        link.send(numbered(i % 2, 1250), at=100 + i * 0.00025)
    link.run_until(102)
    assert link.direction.counters.out_bytes * 8 / 2e6 == pytest.approx(15, rel=0.03)
    assert link.direction.counters.dropped["flow_queue"] > 0
    assert link.direction.counters.dropped["queue"] > 0


def test_the_table_of_flows_is_bounded() -> None:
    link = Simulation(flow_rate_mbit=0.001)
    for i in range(MAX_FLOWS + 500):
        link.send(numbered(i))
    assert len(link.direction._flows) <= MAX_FLOWS


# -- loss and damage -----------------------------------------------------------------------------------------------


def test_loss_lies_in_the_99_percent_binomial_interval() -> None:
    link = Simulation(loss_percent=5, seed=3)
    for _ in range(20_000):
        link.send(PACKET)
    lost = link.direction.counters.dropped["loss"]
    assert abs(lost - 1000) <= 2.576 * (20_000 * 0.05 * 0.95) ** 0.5
    assert len(link.finish()) == 20_000 - lost


def test_loss_hits_the_packets_of_a_superframe_one_by_one() -> None:
    link = Simulation(loss_percent=10)
    for _ in range(200):
        link.send(tcp_superframe(bytes(50_000), 1000))
    counters = link.direction.counters
    assert counters.in_packets == 10_000
    assert abs(counters.dropped["loss"] - 1000) <= 2.576 * (10_000 * 0.1 * 0.9) ** 0.5
    assert all(frame.segments == 1 for _, frame in link.finish())


def test_loss_that_is_switched_on_cuts_what_already_waits() -> None:
    link = Simulation(rate_mbit=400)
    link.send(tcp_superframe(bytes(50_000), 1000))
    link.set(loss_percent=50)
    link.finish()
    assert 10 < link.direction.counters.dropped["loss"] < 40


def test_bursts_have_the_length_and_the_share_of_the_two_state_model() -> None:
    link = Simulation(burst_enter_percent=1, burst_leave_percent=20)
    count = 100_000
    for i in range(count):
        link.send(numbered(i & 0xFFFF), at=100 + i * 0.001)
    arrived = [round((time - 100) * 1000) for time, _ in link.finish()]
    gaps = [b - a - 1 for a, b in itertools.pairwise(arrived) if b - a > 1]
    assert statistics.fmean(gaps) == pytest.approx(1 / 0.20, rel=0.1)
    assert link.direction.counters.dropped["burst"] / count == pytest.approx(0.01 / (0.01 + 0.20), rel=0.1)


def test_each_state_has_its_own_loss() -> None:
    link = Simulation(
        burst_enter_percent=10, burst_leave_percent=10, burst_bad_loss_percent=60, burst_good_loss_percent=20
    )
    for _ in range(20_000):
        link.send(PACKET)
    assert link.direction.counters.dropped["burst"] / 20_000 == pytest.approx(0.4, rel=0.05)


def test_duplicates_are_equal_and_counted() -> None:
    link = Simulation(duplicate_percent=100, delay_ms=1)
    link.send(PACKET)
    assert [frame.data for _, frame in link.finish()] == [PACKET, PACKET]
    assert link.direction.counters.duplicated == 1


def test_a_corrupted_packet_differs_by_one_bit_and_its_checksum_tells() -> None:
    link = Simulation(corrupt_percent=100)
    data = tcp_superframe(bytes(range(200)), 200)
    for i in range(100):
        link.send(data if i % 2 else PACKET)
    for _, frame in link.finish():
        assert frame.data[:10] == bytes(10), "the kernel must not complete the checksum after the damage"
        assert transport_sum(frame.data[10:]) != 0xFFFF
    assert link.direction.counters.corrupted == 100


def test_a_held_back_packet_is_overtaken_for_the_stated_time() -> None:
    link = Simulation(delay_ms=10, reorder_ms=5, reorder_percent=100)
    link.send(numbered(1))
    link.set(reorder_percent=0)
    for i in range(2, 12):
        link.send(numbered(i), at=100 + (i - 1) * 0.001)
    arrived = link.finish()
    assert [number_of(frame.data) for _, frame in arrived][:4] == [2, 3, 4, 5]
    assert [time for time, frame in arrived if number_of(frame.data) == 1] == pytest.approx([100.015])


# -- size ----------------------------------------------------------------------------------------------------------


def test_too_large_is_lost_silently_without_icmp() -> None:
    link = Simulation(mtu=1000, mtu_icmp=False)
    link.send(PLAIN + udp(1001))
    link.send(PLAIN + udp(1001, df=False))
    link.send(PLAIN + udp(1000))
    assert len(link.finish()) == 1
    assert link.direction.take_replies() == []
    assert link.direction.counters.dropped["mtu"] == 2


def test_too_large_is_answered_for_every_packet_of_a_superframe() -> None:
    link = Simulation(mtu=1400)
    link.send(tcp_superframe(bytes(5000), 1388, v6=True))
    replies = link.direction.take_replies()
    assert len(replies) == 3  # the last of the four packets fits
    assert all(transport_sum(reply) == 0xFFFF for reply in replies)
    assert len(link.finish()) == 1
    assert link.direction.take_replies() == []


def test_a_superframe_of_fitting_packets_stays_whole() -> None:
    link = Simulation(mtu=1440)
    link.send(tcp_superframe(bytes(5000), 1388))
    assert [frame.segments for _, frame in link.finish()] == [4]


def test_ipv4_without_df_is_fragmented() -> None:
    link = Simulation(mtu=1000)
    link.send(PLAIN + udp(1250, df=False))
    assert [frame.size for _, frame in link.finish()] == [996, 274]
    assert link.direction.counters.fragments == 1


# -- black hole ----------------------------------------------------------------------------------------------------


def test_a_cut_swallows_what_is_on_its_way_and_what_comes() -> None:
    link = Simulation(delay_ms=10, rate_mbit=10)
    link.send(numbered(1))
    link.run_until(100.005)
    link.set(blackhole=True)
    link.send(numbered(2), at=100.006)
    link.run_until(100.05)
    link.set(blackhole=False)
    link.send(numbered(3))
    assert [number_of(frame.data) for _, frame in link.finish()] == [3]
    assert link.direction.counters.dropped["blackhole"] == 2


def test_malformed_packets_are_counted() -> None:
    link = Simulation()
    link.send(PLAIN + b"\x55" * 40)
    assert link.finish() == []
    assert link.direction.counters.dropped["malformed"] == 1


def test_a_packet_the_device_refused_did_not_go_out() -> None:
    link = Simulation()
    link.send(PACKET)
    ((_, frame),) = link.arrived
    link.direction.refused(frame)
    counters = link.direction.counters
    assert (counters.out_packets, counters.out_bytes, counters.dropped["device"]) == (0, 0, 1)


# -- for every configuration ---------------------------------------------------------------------------------------

percents = st.sampled_from([0, 0, 3, 40])
configs = st.fixed_dictionaries(
    {
        "rate_mbit": st.sampled_from([0, 1, 30, 600]),
        "queue_ms": st.sampled_from([0, 10, 200]),
        "delay_ms": st.sampled_from([10, 20, 60]),
        "jitter_ms": st.sampled_from([0, 10]),
        "loss_percent": percents,
        "burst_enter_percent": percents,
        "burst_leave_percent": st.just(30),
        "reorder_percent": percents,
        "duplicate_percent": percents,
        "corrupt_percent": percents,
        "mtu": st.sampled_from([0, 0, 900]),
        "flow_rate_mbit": st.sampled_from([0, 0, 5]),
        "leo": st.booleans(),
        "seed": st.integers(0, 5),
    }
)
traffic = st.lists(
    st.tuples(
        st.floats(0, 0.1),
        st.one_of(
            st.integers(30, 1500).map(lambda size: PLAIN + udp(size, ports=(size % 3, 1))),
            st.integers(1, 60_000).map(lambda size: tcp_superframe(bytes(size), 1200)),
        ),
    ),
    max_size=40,
)


@settings(PATIENT, max_examples=150)
@given(configs, configs, traffic)
def test_every_packet_is_accounted_for(
    first: dict[str, object], then: dict[str, object], sends: list[tuple[float, bytes]]
) -> None:
    link = Simulation(start=26.5, **first)
    for index, (pause, data) in enumerate(sends):
        if index == 20:
            link.set(**then)
        link.send(data, at=link.now + pause)
    link.finish()
    counters = link.direction.counters
    arrived = counters.out_packets
    assert arrived == sum(frame.segments for _, frame in link.arrived)
    assert counters.in_packets + counters.duplicated + counters.fragments == arrived + sum(counters.dropped.values())
    assert counters.out_bytes == sum(frame.size for _, frame in link.arrived)


@settings(PATIENT, max_examples=50)
@given(configs, traffic)
def test_the_same_seed_gives_the_same_fate(values: dict[str, object], sends: list[tuple[float, bytes]]) -> None:
    def fate() -> tuple[list[tuple[float, bytes]], Counters]:
        link = Simulation(start=26.5, **values)
        for pause, data in sends:
            link.send(data, at=link.now + pause)
        return [(time, frame.data) for time, frame in link.finish()], link.direction.counters

    assert fate() == fate()


def test_setting_the_seed_starts_the_sequence_again() -> None:
    link = Simulation(loss_percent=50, seed=4)

    def pattern() -> list[int]:
        link.arrived.clear()
        for i in range(64):
            link.send(numbered(i))
        return [number_of(frame.data) for _, frame in link.arrived]

    first, second = pattern(), pattern()
    link.set(seed=4)
    assert pattern() == first != second
    link.set(seed=5)
    assert pattern() != first


def test_the_two_directions_have_their_own_chance() -> None:
    def lost(name: str) -> list[bool]:
        direction = Direction(name, DirectionConfig(loss_percent=50.0))
        fate = []
        for _ in range(64):
            direction.receive(PACKET, 1.0)
            fate.append(not direction.release(1.0))
        return fate

    assert lost("up") != lost("down")
