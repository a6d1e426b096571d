"""Gaps as ranges say what a plain set of missing numbers says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from mpquic.proto.tunnel.gaps import Gaps

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("open"), st.integers(1, 4), st.integers(1, 6)),
        st.tuples(st.just("fill"), st.integers(0, 60), st.integers(0, 8)),
        st.tuples(st.just("expire"), st.integers(0, 10), st.just(0)),
        st.tuples(st.just("give_up"), st.integers(0, 3), st.just(0)),
    ),
    max_size=40,
)


def runs(missing: dict[int, float]) -> list[list[int]]:
    """Missing numbers in order, those of one deadline that follow each other together."""
    found: list[list[int]] = []
    for number, deadline in sorted(missing.items()):
        if found and found[-1][-1] == number - 1 and missing[found[-1][-1]] == deadline:
            found[-1].append(number)
        else:
            found.append([number])
    return found


@given(STEPS)
def test_ranges_say_what_a_set_of_numbers_says(steps: list[tuple[str, int, int]]) -> None:
    gaps, missing, top, clock = Gaps(), dict[int, float](), 0, 0.0
    for name, one, other in steps:
        if name == "open":
            # One number at least has come between two gaps; each gap has a deadline of its own.
            first, last = top + 2, top + 1 + other
            clock += one
            assert gaps.open(first, last, clock) == 0
            missing |= dict.fromkeys(range(first, last + 1), clock)
            top = last
        elif name == "fill":
            gone = [number for number in missing if one <= number <= one + other]
            assert gaps.fill(one, one + other) is bool(gone)
            for number in gone:
                del missing[number]
        elif name == "expire":
            gone = [number for number, deadline in missing.items() if deadline <= one]
            assert gaps.expire(one) == len(gone)
            for number in gone:
                del missing[number]
        else:
            gone = [number for run in runs(missing)[:one] for number in run]
            assert gaps.give_up(one) == len(gone)
            for number in gone:
                del missing[number]
        assert len(gaps) == len(runs(missing))
        assert gaps.next_time == (min(missing.values()) if missing else None)
        for low in range(-1, top + 2, 3):
            for high in (low, low + 1, low + 2, low + 7, top + 1):
                assert gaps.between(low, high) is any(low < number < high for number in missing)


def test_the_oldest_yields_when_there_are_too_many() -> None:
    gaps = Gaps(16)
    given_up = sum(gaps.open(10 * place, 10 * place + 4, 1.0 * place) for place in range(1000))
    assert len(gaps) <= 16
    assert given_up == 5 * (1000 - len(gaps))
    assert not gaps.between(-1, 9000)
    assert gaps.between(9989, 9991)
