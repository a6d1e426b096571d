"""The parts of a sender one by one: controller, pacer, retransmission, path."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpquic.proto.congestion.bbr import INITIAL_SHARDS, Bbr, BbrState
from mpquic.proto.congestion.controller import AckSample
from mpquic.proto.congestion.pacer import Pacer
from mpquic.proto.packet.frame import Frame, class_octet
from mpquic.proto.path.budget import BudgetMember, PathBudget
from mpquic.proto.path.path import PathState
from mpquic.proto.stripe.arq import Repair, Retransmitter, SentGroup
from mpquic.proto.stripe.config import StripeConfig

from ..recording import path_of
from .duplex import Duplex, LinkProfile

RTT = 0.05


def lost(number: int, sent_at: float = 0.0, group: SentGroup | None = None, lifetime: float = 1.0) -> Repair:
    return Repair(number, b"x" * 100, 0, 0, group, sent_at, sent_at + lifetime)


def numbers(repairs: list[Repair]) -> list[int]:
    return [repair.number for repair in repairs]


def test_a_lost_shard_is_sent_again_once_a_round_trip_until_its_time_is_up() -> None:
    arq = Retransmitter()
    arq.on_lost(lost(7), 0.06, RTT)
    [copy] = arq.take(1000, 1000, 0.06)
    assert arq.take(1000, 1000, 0.07) == []
    arq.on_retransmission_lost(copy, 0.08, RTT)
    assert arq.take(1000, 1000, 0.109) == []
    assert numbers(arq.take(1000, 1000, 0.111)) == [7]
    arq.on_retransmission_lost(copy, 1.2, RTT)
    assert arq.take(1000, 1000, 1.2) == []
    assert (arq.retransmitted, arq.expired, len(arq)) == (2, 1, 0)


def test_what_was_sent_again_in_vain_twice_comes_more_than_once() -> None:
    arq, now = Retransmitter(), 0.06
    arq.on_lost(lost(7), now, RTT)
    sent = []
    for _ in range(4):
        retransmissions = arq.take(10_000, 1000, now)
        sent.append(numbers(retransmissions))
        for copy in retransmissions:
            arq.on_retransmission_lost(copy, now + RTT, RTT)
        now += RTT
    assert sent == [[7], [7], [7, 7], [7, 7, 7]]


def test_where_much_is_lost_a_broken_group_gets_copies_for_bad_luck() -> None:
    arq, group = Retransmitter(), SentGroup(2)
    arq.loss = 0.3
    for number in range(3):
        group.lost += 1
        arq.on_lost(lost(number, group=group), 0.06, RTT)
    assert numbers(arq.take(10_000, 1000, 0.06)) == [2, 1]
    assert group.repairs == 2


def test_a_shard_of_low_latency_has_three_round_trips() -> None:
    arq = Retransmitter()
    low = class_octet(3, low_latency=True)
    assert arq.lifetime(low, RTT) == pytest.approx(0.15)
    assert arq.lifetime(1, RTT) == arq.lifetime(2, RTT) == 1.0
    arq.on_lost(lost(1, lifetime=arq.lifetime(low, RTT)), 0.16, RTT)
    assert (len(arq), arq.expired) == (0, 1)


def test_of_a_group_only_what_parity_cannot_repair_is_sent() -> None:
    arq, group = Retransmitter(), SentGroup(2)
    for number in range(3):
        group.lost += 1
        arq.on_lost(lost(number, group=group), 0.06, RTT)
    assert numbers(arq.take(10_000, 1000, 0.06)) == [2]
    group.lost += 1
    arq.on_group_loss(group)
    assert len(arq.take(10_000, 1000, 0.06)) == 1
    for number in range(3):
        arq.on_delivered(number)
    assert len(arq) == 0
    assert arq.take(10_000, 1000, 5.0) == []


def test_what_the_decoder_should_have_repaired_is_sent_when_it_did_not() -> None:
    arq, group = Retransmitter(), SentGroup(1)
    group.lost += 1
    arq.on_lost(lost(1, group=group), 0.06, RTT)
    assert arq.take(10_000, 1000, 0.1) == []
    assert numbers(arq.take(10_000, 1000, 0.111)) == [1]


def test_what_the_decoder_repairs_as_soon_as_copies_arrive_that_are_on_their_way_is_not_sent() -> None:
    arq, group = Retransmitter(), SentGroup(2)
    for number in range(3):
        group.lost += 1
        arq.on_lost(lost(number, group=group), 0.06, RTT)
    [copy] = arq.take(10_000, 1000, 0.065)
    assert arq.take(10_000, 1000, 0.065 + 1.2 * RTT) == []
    arq.on_retransmission_lost(copy, 0.065 + 1.2 * RTT, RTT)
    assert numbers(arq.take(10_000, 1000, 0.065 + 1.2 * RTT)) == [2]
    # Nothing was heard of either the copy or the group for longer than that takes.
    assert sorted(numbers(arq.take(10_000, 1000, 0.3))) == [0, 1]


def test_without_room_nothing_is_sent_for_bad_luck() -> None:
    arq, group = Retransmitter(), SentGroup(2)
    arq.loss, arq.proactive = 0.3, False
    for number in range(3):
        group.lost += 1
        arq.on_lost(lost(number, group=group), 0.06, RTT)
    assert numbers(arq.take(10_000, 1000, 0.06)) == [2]


def test_what_arrived_after_all_reserves_nothing_of_the_budget() -> None:
    arq = Retransmitter()
    for number in range(50):
        arq.on_lost(lost(number), 0.06, RTT)
    assert arq.ready == 50
    for number in range(49):
        arq.on_delivered(number)
    assert arq.ready == 1
    arq.on_delivered(49)
    assert (arq.ready, arq.next_time()) == (0, None)
    arq.on_lost(lost(50), 0.06, RTT)
    arq.on_lost(lost(51, group=SentGroup(1)), 0.06, RTT)
    arq.expire(2.0)
    assert (arq.ready, arq.next_time()) == (0, None)


def test_memory_and_size_are_bounded() -> None:
    arq = Retransmitter(max_shards=10)
    for number in range(20):
        arq.on_lost(lost(number), 0.0, RTT)
    assert (len(arq), arq.overflowed) == (10, 10)
    assert numbers(arq.take(150, 1000, 0.0)) == [0, 1]
    assert arq.take(10_000, 99, 0.0) == []
    arq.expire(2.0)
    assert arq.next_time() is None


@given(st.floats(1e3, 1e9), st.lists(st.tuples(st.floats(0, 0.1), st.integers(0, 70_000)), max_size=60))
def test_pacing_never_exceeds_its_rate_and_a_burst(rate: float, steps: list[tuple[float, int]]) -> None:
    pacer = Pacer(rate, 0.0)
    now, sent = 0.0, 0
    for pause, size in steps:
        now += pause
        if pacer.available(now) > 0:
            pacer.spend(size)
            sent += size
        assert sent <= pacer.burst + rate * now + 70_000
    ready = pacer.next_time(now)
    assert ready >= now
    assert pacer.available(ready + 1e-6) >= 0


def test_the_controller_starts_and_restarts_with_its_initial_window() -> None:
    bbr = Bbr(1452, 0.0)
    assert bbr.congestion_window >= INITIAL_SHARDS * 1452
    assert bbr.pacing_rate > 0
    sample = AckSample()
    sample.rate, sample.rtt, sample.delivered, sample.bytes_acked = 10.0, 0.05, 1452, 1452
    bbr.on_ack(sample, 0.05)
    assert bbr.state is BbrState.STARTUP
    assert bbr.congestion_window >= INITIAL_SHARDS * 1452
    bbr.on_persistent_congestion(1.0)
    assert bbr.congestion_window >= INITIAL_SHARDS * 1452


@given(
    st.lists(
        st.tuples(
            st.floats(0, 0.1), st.floats(0, 1e9), st.none() | st.floats(1e-6, 2), st.integers(0, 200), st.booleans()
        ),
        max_size=60,
    )
)
def test_whatever_it_is_told_the_controller_keeps_sending(
    samples: list[tuple[float, float, float | None, int, bool]],
) -> None:
    bbr = Bbr(1452, 0.0)
    now, delivered = 0.0, 0
    for step, (pause, rate, rtt, shards, limited) in enumerate(samples):
        now += pause
        sample = AckSample()
        sample.prior_delivered = delivered
        delivered += 1452 * shards
        sample.delivered, sample.bytes_acked, sample.acked_packets = delivered, 1452 * shards, shards
        sample.rate, sample.rtt, sample.app_limited = rate, rtt, limited
        sample.low_delivered, sample.low_lost = shards, shards // 2
        bbr.on_ack(sample, now)
        if step % 20 == 19:
            bbr.on_persistent_congestion(now)
        assert bbr.congestion_window >= 4 * 1452
        assert 0 < bbr.pacing_rate < 1e11
        assert 0 <= bbr.link_loss <= 0.5


def test_a_session_is_a_path_of_the_tunnel() -> None:
    duplex = Duplex()
    path = duplex.client.session
    assert path_of(path).state is PathState.DOWN
    frames = [Frame(b"\x45" + bytes(99), 1, number) for number in range(5)]
    assert path.budget(duplex.now) == path.send(frames, duplex.now) == 0
    duplex.run_until_ready()
    assert path.budget(duplex.now) > 0
    assert path.send(frames, duplex.now) == 5
    assert path.rtt == pytest.approx(0.03, abs=0.01)
    assert path.frame_capacity == 1452 - 36
    share = PathBudget(BudgetMember("mpq6", "wan6"))
    share.limit(80_000)
    path.limit_by(share)
    taken = path.send([Frame(b"\x45" + bytes(1399), 1, number) for number in range(64)], duplex.now)
    assert 0 < taken <= 47


def test_a_path_that_carries_less_is_given_less() -> None:
    duplex = Duplex(up=LinkProfile(loss=0.1))
    duplex.run_until_ready()
    duplex.client.frame_size = 1150
    duplex.client.offer(500)
    duplex.run(0.1)
    duplex.client.session.resize(1200)
    assert duplex.client.session.frame_capacity == 1164
    before = duplex.up.sent
    duplex.run(1.0)
    assert duplex.up.sent > before
    assert all(len(datagram) <= 1200 for _, datagram in list(duplex.up.captured)[-100:])
    with pytest.raises(ValueError, match="1200"):
        duplex.client.session.resize(1000)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"pipes": 0}, "pipes"),
        ({"pipes": 17}, "pipes"),
        ({"datagram_size": 1199}, "datagram_size"),
        ({"initial_datagram_size": 1199}, "initial_datagram_size"),
        ({"initial_datagram_size": 1453}, "initial_datagram_size: at most"),
        ({"data_shards": 0}, "data_shards"),
        ({"data_shards": 65, "parity_shards": 1}, "data_shards"),
        ({"data_shards": 64, "parity_shards": 65}, "parity_shards"),
        ({"max_overhead": 1.5}, "max_overhead"),
    ],
)
def test_settings_out_of_range_are_named(values: dict[str, int], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        StripeConfig(**values)  # type: ignore[arg-type]


def test_frames_that_no_shard_takes_are_counted() -> None:
    duplex = Duplex()
    duplex.run_until_ready()
    session = duplex.client.session
    assert session.send([Frame(b"\x45" + bytes(2000), 1, 0)], duplex.now) == 1
    assert session.sender.oversized == 1
    assert session.take_outgoing() == []
