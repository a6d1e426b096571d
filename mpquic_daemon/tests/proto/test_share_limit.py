"""Shares of processor time that is short, among senders that ask for no more than they were given last."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpquic.proto.processor.share_limit import INTERVAL, MAX_DELAY, ShareLimit

ROUND = 0.01
"""Seconds of a sender's round trip, when its work isn't put off."""
CAPACITY = 0.3
"""Processor time per second."""


def jain(values: list[float]) -> float:
    return sum(values) ** 2 / (len(values) * sum(value**2 for value in values))


class Sender:
    """Has a window of bytes in flight, which follows the rate that it was given, as congestion control does."""

    def __init__(self, window: float, cost: float, most: float = float("inf")) -> None:
        self.window, self.cost, self.most = window, cost, most
        self.next = 0.0
        self.carried = 0.0

    def price(self, small: float) -> float:
        """Return what a round takes: a part for each byte, and one for each round."""
        return self.window * self.cost + small


def carried(senders: list[Sender], seconds: float, *, limited: bool, small: float = 0.0) -> list[float]:
    """Return the bytes of each sender in the second half of a time in which all together take all that there is."""
    limit: ShareLimit[int] = ShareLimit(0.0)
    now = used = 0.0
    while now < seconds:
        now += ROUND / 4
        for number, sender in enumerate(senders):
            if now < sender.next - 1e-9:
                continue
            delay = limit.delay(number, now) if limited else 0.0
            if delay:
                sender.next = now + delay
                sender.window *= ROUND / (ROUND + delay)
                continue
            took = sender.price(small)
            limit.charge(number, took, round(sender.window), now)
            used += took
            sender.next = now + ROUND
            if now > seconds / 2:
                sender.carried += sender.window
        if limit.is_due(now):
            elapsed = now - limit.began
            load = used / elapsed / CAPACITY
            limit.close_interval(now, min(1.0, load))
            used = 0.0
            # What is left over is taken by all alike, and too much is given up by all alike: nobody gains on another.
            for sender in senders:
                sender.window = min(sender.window / load, sender.most)
    return [sender.carried for sender in senders]


def senders(*windows: float, cost: float = 1e-9) -> list[Sender]:
    return [Sender(window, cost) for window in windows]


WINDOWS = (2e6, 1e6, 5e5, 4e5, 3e5, 3e5, 2e5, 2e5, 1e5, 1e5)


def test_windowed_senders_keep_unequal_shares_without_a_limit_and_get_equal_ones_with_it() -> None:
    assert jain(carried(senders(*WINDOWS), 20.0, limited=False)) < 0.65
    assert jain(carried(senders(*WINDOWS), 20.0, limited=True)) > 0.97


def test_bytes_that_cost_less_in_large_pieces_are_shared_equally_too() -> None:
    # Half of the time goes into what each round takes by itself: who is fast has the cheaper bytes.
    small = CAPACITY * ROUND / len(WINDOWS) / 2
    assert jain(carried(senders(*WINDOWS), 20.0, limited=True, small=small)) > 0.97


def test_who_asks_for_less_than_his_share_gets_all_of_it_and_the_others_share_the_rest() -> None:
    light = Sender(1e4, 1e-9, most=1e4)
    got = carried([*senders(2e6, 1e6, 5e5), light], 20.0, limited=True)
    assert got[3] == pytest.approx(1e4 * 10.0 / ROUND, rel=0.02)
    assert jain(got[:3]) > 0.97
    assert sum(got) * 1e-9 > 0.85 * CAPACITY * 10.0, "time is left over"


def test_nobody_is_put_off_while_there_is_enough() -> None:
    limit: ShareLimit[str] = ShareLimit(0.0)
    now = 0.0
    for _ in range(100):
        now += INTERVAL
        limit.charge("a", 0.5 * INTERVAL, 1000, now)
        limit.charge("b", 0.1 * INTERVAL, 1000, now)
        assert limit.delay("a", now) == limit.delay("b", now) == 0.0
        limit.close_interval(now, 0.6)


def test_who_is_alone_is_never_put_off() -> None:
    limit: ShareLimit[str] = ShareLimit(0.0)
    now = 0.0
    for _ in range(100):
        now += INTERVAL
        limit.charge("a", INTERVAL, 1000, now)
        assert limit.delay("a", now) == 0.0
        limit.close_interval(now, 1.0)


def test_small_packets_have_their_share_of_the_time_not_more() -> None:
    limit: ShareLimit[str] = ShareLimit(0.0)
    now = taken = 0.0
    for step in range(20_000):
        now += 0.001
        limit.charge("large", 0.0002, 10_000, now)
        if not limit.delay("small", now):
            limit.charge("small", 0.001, 100, now)
            taken += 0.001 * (step >= 10_000)
        if limit.is_due(now):
            limit.close_interval(now, 1.0)
    assert taken / 10.0 == pytest.approx(0.2, rel=0.15)


def test_nothing_is_kept_of_who_has_gone_quiet() -> None:
    limit: ShareLimit[int] = ShareLimit(0.0)
    for number in range(1000):
        limit.charge(number, 0.001, 1, 0.0)
    limit.close_interval(INTERVAL, 1.0)
    limit.close_interval(2 * INTERVAL, 1.0)
    assert not limit._accounts


events = st.lists(
    st.tuples(
        st.sampled_from("abc"), st.floats(0, 1), st.integers(0, 10**9), st.floats(0, 0.3), st.floats(0, 1.5)
    ),
    max_size=60,
)  # fmt: skip


@given(events)
def test_delays_are_bounded_whatever_is_charged(happened: list[tuple[str, float, int, float, float]]) -> None:
    limit: ShareLimit[str] = ShareLimit(0.0)
    now = 0.0
    for key, cost, octets, passed, in_use in happened:
        now += passed
        limit.charge(key, cost, octets, now)
        assert 0 <= limit.delay(key, now) <= MAX_DELAY
        if limit.is_due(now):
            limit.close_interval(now, in_use)
            assert limit.limit > 0
