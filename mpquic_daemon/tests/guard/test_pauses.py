"""When what is missing is repaired: with virtual time."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st
from mpquic.guard.pauses import AT_ONCE, LAST_PAUSE, RESET_AFTER, Pauses, is_told


def test_what_may_be_missing_for_a_while_is_repaired_after_it() -> None:
    pauses: Pauses[str] = Pauses()
    missing = {"rule": 0.1}
    assert pauses.due(missing, 10.0) == []
    assert pauses.next_time(missing) == 10.1
    assert pauses.due(missing, 10.1) == ["rule"]


def test_what_comes_back_by_itself_is_not_repaired() -> None:
    pauses: Pauses[str] = Pauses()
    pauses.due({"rule": 0.1}, 10.0)
    pauses.due({}, 10.05)
    assert pauses.due({"rule": 0.1}, 10.12) == []


def test_another_fault_after_a_calm_is_repaired_at_once() -> None:
    pauses: Pauses[str] = Pauses()
    now = 0.0
    for _ in range(AT_ONCE + 4):
        pauses.due({"rule": 0.0}, now)
        pauses.repaired(["rule"], now)
    pauses.due({}, now)
    assert pauses.due({"rule": 0.0}, now + RESET_AFTER) == ["rule"]
    assert pauses.repaired(["rule"], now + RESET_AFTER) == [1]


def test_a_repair_that_does_not_help_is_repeated_ever_more_seldom() -> None:
    pauses: Pauses[str] = Pauses()
    times = []
    now = 5.0
    while now < 600:
        if pauses.due({"rule": 0.0}, now):
            pauses.repaired(["rule"], now)
            times.append(now)
        now = pauses.next_time({"rule": 0.0}) or now + 1
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert gaps[:4] == [0.0, 1.0, 2.0, 4.0]
    assert gaps == sorted(gaps)
    assert gaps[-1] == LAST_PAUSE


def test_what_is_taken_away_again_and_again_is_put_back_at_once_some_times() -> None:
    pauses: Pauses[str] = Pauses()
    for number in range(AT_ONCE):
        now = number * 3.0
        assert pauses.due({"rule": 0.0}, now) == ["rule"]
        pauses.repaired(["rule"], now)
        assert pauses.due({}, now + 0.1) == []
    now = AT_ONCE * 3.0
    assert pauses.due({"rule": 0.0}, now) == ["rule"]
    pauses.repaired(["rule"], now)
    pauses.due({}, now + 0.1)
    assert pauses.due({"rule": 0.0}, now + 0.2) == []


def test_the_journal_hears_of_a_fault_that_never_ends_a_few_times() -> None:
    assert sum(is_told(attempt) for attempt in range(1, 5000)) <= 20


@given(st.lists(st.tuples(st.booleans(), st.floats(0.0, 30.0)), max_size=60))
def test_repairs_of_one_thing_are_bounded_whatever_happens_to_it(steps: list[tuple[bool, float]]) -> None:
    """At most `AT_ONCE` without a pause, and those again only after it was there for long."""
    pauses: Pauses[str] = Pauses()
    now = 0.0
    repairs: list[float] = []
    for missing, pause in steps:
        if pauses.due({"rule": 0.0} if missing else {}, now):
            pauses.repaired(["rule"], now)
            repairs.append(now)
        now += pause
    for first, last in zip(repairs, repairs[AT_ONCE:], strict=False):
        assert last - first >= 1.0
