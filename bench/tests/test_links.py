"""What is computed around emulated links: losses, shares, ceilings, rates from counters, addresses of many clients."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpqbench import clean, flowcap, lossy, sessions, star
from mpqbench.errors import BenchError
from mpqbench.lossy import BURSTS, Loss, share_of_limit
from mpqlab.emulator.model import DirectionConfig, parse_pairs
from mpqlab.topology import EMULATED_WANS, Wan


@pytest.mark.parametrize(
    ("keys", "mean"),
    [
        ({}, 0),
        ({"loss_percent": 30.0}, 0.3),
        ({"burst_enter_percent": 1.0, "burst_leave_percent": 20.0}, 1 / 21),
        ({"burst_enter_percent": 1.0, "burst_leave_percent": 1.0, "loss_percent": 50.0}, 0.75),
    ],
)
def test_mean_loss_of_independent_losses_and_bursts(keys: dict[str, float], mean: float) -> None:
    assert Loss("x", keys).mean == pytest.approx(mean)


@pytest.mark.parametrize("loss", lossy.ALL)
def test_every_point_is_a_configuration_of_the_emulator(loss: Loss) -> None:
    config = DirectionConfig().changed({**lossy.LINK, **lossy.RESET, **loss.keys})
    assert config.burst_bad_loss_percent == 100
    assert config.burst_good_loss_percent == 0


def test_points_are_those_that_are_drawn() -> None:
    assert [loss.mean for loss in lossy.ALL[:-1]] == pytest.approx([0, 0.01, 0.02, 0.05, 0.1, 0.3])
    assert all(point in lossy.ALL for points in (lossy.FEW, *lossy.POINTS.values()) for point in points)
    assert 0.04 < BURSTS.mean < 0.05


def test_share_is_one_when_nothing_but_the_lost_is_missing() -> None:
    assert share_of_limit(33.6, 0.3, 48) == pytest.approx(1)
    assert share_of_limit(24, 0, 48) == pytest.approx(0.5)


@pytest.mark.parametrize(("pipes", "rate"), [(1, 80), (3, 240), (4, 300), (12, 300)])
def test_a_capped_link_lets_through_what_its_flows_may_take(pipes: int, rate: float) -> None:
    assert flowcap.ceiling(pipes) == rate


@given(st.floats(1, 1000), st.floats(0.5, 20))
def test_rate_is_counted_in_the_steady_part_only(rate: float, length: float) -> None:
    def count(when: float) -> int:
        return int(rate * 125_000 * max(0, min(when, 3 + length) - 3))

    counts = [(when, count(when)) for when in (tick * 0.1 for tick in range(int(length * 10) + 60))]
    assert flowcap.steady_rate(counts, 3, length) == pytest.approx(rate, rel=0.02)


def test_a_transfer_that_was_too_short_has_no_rate() -> None:
    with pytest.raises(BenchError, match="over before its rate"):
        flowcap.steady_rate([(0, 0), (1, 10), (9, 20)], 2, 5)


def test_idle_clients_have_addresses_of_their_own_in_the_inner_network() -> None:
    addresses = {ipaddress.ip_address(sessions.idle_address(index)) for index in range(sessions.IDLE)}
    assert len(addresses) == sessions.IDLE
    network = ipaddress.ip_network(f"10.201.0.0/{star.INNER_NET}")
    assert all(address in network and address not in ipaddress.ip_network("10.201.0.0/24") for address in addresses)


@pytest.mark.parametrize("wan", EMULATED_WANS, ids=lambda wan: wan.name)
def test_a_clean_link_has_the_rates_and_delays_of_the_labs_wan(wan: Wan) -> None:
    values = parse_pairs([f"{key}={value:g}" for key, value in clean.link(wan).items()])
    up, down = (DirectionConfig().changed(values[direction]) for direction in ("up", "down"))
    assert (up.rate_mbit, down.rate_mbit) == (wan.up, wan.down)
    assert up.delay_ms + down.delay_ms == wan.rtt_ms
    assert not up.treats_single_packets
    assert not down.treats_single_packets


def test_tunnel_and_plain_alternate_from_run_to_run() -> None:
    assert [clean.order(repetition)[0] for repetition in (1, 2, 3)] == ["tunnel", "plain", "tunnel"]
