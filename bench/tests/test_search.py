"""The search for the highest rate, against links whose capacity is known."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpqbench.iperf import Flow, Transfer
from mpqbench.search import highest_rate


def flow(asked: float, capacity: float, sender: float) -> Flow:
    sent = int(min(asked, sender))
    return Flow(sent, max(0, sent - int(capacity)), 1.0)


@given(st.floats(9_000, 900_000))
def test_finds_the_capacity_of_a_link_within_a_few_percent(capacity: float) -> None:
    found = highest_rate(lambda rate: flow(rate, capacity, 1e9))
    assert 0.92 * capacity <= found <= capacity


def test_never_counts_a_flow_that_lost_too_much() -> None:
    assert highest_rate(lambda rate: Flow(int(rate), int(rate * 0.02) + 1, 1.0)) == 0.0


def test_ends_when_the_sender_is_slower_than_the_link() -> None:
    asked: list[float] = []

    def measure(rate: float) -> Flow:
        asked.append(rate)
        return flow(rate, 1e9, 20_000)

    assert highest_rate(measure) == 20_000
    assert asked == [8000, 16000, 32000]


def test_rates_are_for_a_second() -> None:
    assert Transfer(1_000_000, 4.0).rate == pytest.approx(2.0)
    measured = Flow(1000, 10, 2.0)
    assert (measured.sent_rate, measured.received_rate, measured.loss) == (500, 495, 0.01)


def test_flow_without_packets_is_lost() -> None:
    assert Flow(0, 0, 1.0).loss == 1.0


def test_stops_at_the_ceiling() -> None:
    assert highest_rate(lambda rate: flow(rate, 1e9, 1e9), start=8000, ceiling=100_000) == 100_000
