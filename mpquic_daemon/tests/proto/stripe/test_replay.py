from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from mpquic.proto.stripe.replay import ReplayWindow
from mpquic.proto.tunnel.dedup import Arrival

numbers = st.lists(st.one_of(st.integers(0, 200), st.integers(2**33, 2**33 + 300)), max_size=200)


@given(numbers, st.sampled_from([2, 16, 64, 256]))
def test_each_number_is_let_in_once_and_none_from_before_the_window(arrivals: list[int], size: int) -> None:
    window, seen = ReplayWindow(size), set[int]()
    for number in arrivals:
        new = number > max(seen, default=-1) - size and number not in seen
        assert (window.check(number) is Arrival.NEW) is new
        assert (window.add(number) is Arrival.NEW) is new
        if new:
            seen.add(number)


@given(numbers, st.sampled_from([2, 16, 64, 256]), st.integers(0, 400), st.integers(0, 400))
def test_runs_are_what_arrived(arrivals: list[int], size: int, back: int, span: int) -> None:
    window, seen = ReplayWindow(size), set[int]()
    for number in arrivals:
        if window.add(number) is Arrival.NEW:
            seen.add(number)
    low = max(0, window.highest - back)
    high = low + span
    expected = {number for number in seen if low <= number <= high and number > window.highest - size}
    runs = window.runs(low, high, 1000)
    assert {number for first, last in runs for number in range(first, last + 1)} == expected
    assert sum(last - first + 1 for first, last in runs) == len(expected)
    assert all(above[0] > below[1] + 1 for above, below in pairwise(runs))
    assert window.runs(low, high, 2) == runs[:2]
