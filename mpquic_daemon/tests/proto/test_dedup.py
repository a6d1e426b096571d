from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpquic.proto.tunnel.dedup import Arrival, SequenceWindow


@given(
    st.lists(st.one_of(st.integers(0, 200), st.integers(2**40, 2**40 + 300)), max_size=300),
    st.sampled_from([2, 16, 64]),
)
def test_the_window_agrees_with_a_set(arrivals: list[int], size: int) -> None:
    window, seen = SequenceWindow(size), set[int]()
    for sequence in arrivals:
        highest = max(seen, default=-1)
        if sequence <= highest - size:
            expected = Arrival.LATE
        else:
            expected = Arrival.DUPLICATE if sequence in seen else Arrival.NEW
        assert window.check(sequence) is expected
        nearest = window.expand(sequence & 0xFFFFFFFF) == sequence
        got = window.add_low(sequence & 0xFFFFFFFF) if nearest else window.add(sequence)
        assert got is expected
        if expected is Arrival.NEW:
            seen.add(sequence)
        assert window.highest == max(seen)


@given(
    st.lists(st.tuples(st.integers(0, 300) | st.integers(2**40, 2**40 + 300), st.integers(1, 40)), max_size=60),
    st.sampled_from([2, 16, 64]),
)
def test_a_run_is_entered_when_all_of_it_is_new(arrivals: list[tuple[int, int]], size: int) -> None:
    window, seen = SequenceWindow(size), set[int]()
    for first, count in arrivals:
        run = range(first, first + count)
        highest = max(seen, default=-1)
        new = first > highest - size and not seen & {*run}
        assert window.vacant(first, count) is new
        nearest = window.expand(first & 0xFFFFFFFF) == first
        assert (window.add_low_run(first & 0xFFFFFFFF, count) if nearest else window.add_run(first, count)) is new
        if new:
            seen |= {*run}
        assert window.highest == max(seen)
        for number in range(max(0, window.highest - size + 1), window.highest + 1):
            assert (window.check(number) is Arrival.DUPLICATE) is (number in seen)


@given(st.integers(0, 2**40), st.lists(st.integers(-60, 60), max_size=50))
def test_low_bits_are_enough_across_the_wrap(start: int, steps: list[int]) -> None:
    window = SequenceWindow(64)
    start += 100
    window.add(start)
    for step in steps:
        true = max(0, window.highest + step)
        assert window.expand(true & 0xFFFFFFFF) == true
        window.add(true)


@pytest.mark.parametrize("size", [0, 1, 3, 1000])
def test_the_size_must_be_a_power_of_two(size: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        SequenceWindow(size)
