from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpquic.proto.packet.frame import class_octet
from mpquic.proto.stripe.adaptive import FecMode, LossMeter, OverheadBudget, ParityPolicy, retransmissions_for

DEFAULT, CRITICAL = class_octet(3), class_octet(1, low_latency=True)


def test_the_meter_follows_the_loss_and_forgets_it() -> None:
    meter = LossMeter()
    meter.add(20, 1)
    assert meter.loss == 0.0
    for _ in range(50):
        meter.add(90, 10)
    assert meter.loss == pytest.approx(0.1, abs=0.001)
    for _ in range(40):
        meter.add(500, 0)
    assert meter.loss == 0.0


@pytest.mark.parametrize("traffic_class", [DEFAULT, CRITICAL])
@pytest.mark.parametrize("shards", [1, 2, 5, 10, 64])
def test_no_loss_no_parity(traffic_class: int, shards: int) -> None:
    assert ParityPolicy(FecMode.ADAPTIVE).parity(shards, 0.0, traffic_class) == 0


@given(st.floats(0, 1), st.integers(1, 64), st.sampled_from([DEFAULT, CRITICAL]), st.floats(0, 1))
def test_parity_stays_below_the_cap(loss: float, shards: int, traffic_class: int, cap: float) -> None:
    parity = ParityPolicy(FecMode.ADAPTIVE, max_overhead=cap).parity(shards, loss, traffic_class)
    assert 0 <= parity <= max(cap * shards, 1 if traffic_class == CRITICAL else 0) + 1e-6


def test_more_loss_means_more_parity_as_far_as_it_pays() -> None:
    policy = ParityPolicy(FecMode.ADAPTIVE)
    assert [policy.parity(10, loss, DEFAULT) for loss in (0.01, 0.05, 0.1, 0.3)] == [0, 0, 1, 2]
    assert [policy.parity(10, loss, CRITICAL) for loss in (0.01, 0.05, 0.1, 0.3)] == [2, 4, 5, 5]


def test_groups_grow_with_the_path_and_then_break_less_often_at_the_same_cost() -> None:
    policy = ParityPolicy(FecMode.ADAPTIVE)
    assert policy.shape(0.05, DEFAULT, 3)[0] == 10
    assert [policy.shape(loss, DEFAULT, 500) for loss in (0.01, 0.02, 0.05, 0.1)] == [
        (64, 3),
        (64, 4),
        (64, 6),
        (64, 10),
    ]
    assert policy.shape(0.1, DEFAULT, 39)[0] == 32
    assert policy.shape(0.1, CRITICAL, 500)[0] == 10
    assert ParityPolicy(FecMode.ALWAYS).shape(0.1, DEFAULT, 500) == (10, 2)


def test_a_group_that_nothing_follows_gets_more() -> None:
    policy = ParityPolicy(FecMode.ADAPTIVE)
    assert policy.parity(1, 0.1, DEFAULT) == 0
    assert (policy.tail(1, 0.1, DEFAULT), policy.tail(10, 0.1, DEFAULT), policy.tail(10, 0.0, DEFAULT)) == (1, 4, 0)
    assert ParityPolicy(FecMode.OFF).tail(10, 0.1, DEFAULT) == 0


def test_more_copies_are_sent_where_more_are_lost() -> None:
    assert [retransmissions_for(1, permille) for permille in (0, 10, 100, 300, 500)] == [1, 1, 1, 2, 4]
    assert retransmissions_for(4, 300) == 8


def test_always_keeps_the_configured_share_in_short_groups() -> None:
    policy = ParityPolicy(FecMode.ALWAYS, 10, 2)
    assert [policy.parity(shards, 0.0, DEFAULT) for shards in (10, 5, 1)] == [2, 1, 1]
    assert ParityPolicy(FecMode.ALWAYS, 10, 8, 0.5).parity(10, 0.0, DEFAULT) == 5
    assert ParityPolicy(FecMode.OFF).parity(10, 0.5, CRITICAL) == 0


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 100_000)), max_size=200), st.floats(0, 1))
def test_redundancy_never_exceeds_its_share_and_the_start(steps: list[tuple[bool, int]], share: float) -> None:
    budget = OverheadBudget(share, start=1000)
    earned = spent = 0
    for earning, size in steps:
        if earning:
            budget.earn(size)
            earned += size
        elif budget.spend(size):
            spent += size
    assert spent <= earned * share + 1000 + 1e-6
    with pytest.raises(ValueError, match="share"):
        OverheadBudget(1.5)
