"""A striped session is requested anew on evidence, and with growing pauses where that doesn't help."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st
from mpquic.proto.stripe.renewal import FIRST_PAUSE, GRACE, LAST_PAUSE, StripeRenewal


def requests(renewal: StripeRenewal, start: float, seconds: float, *, usable: bool = True) -> list[float]:
    """Times of the requests while the control connection works and no pipe has a reply; each is granted."""
    asked, now = [], start
    while now < start + seconds:
        if renewal.poll(now, control=True, carries=False, usable=usable, rtt=0.03):
            asked.append(now)
            renewal.granted(now)
        now += 0.05
    return asked


def test_without_a_session_one_is_requested_at_once() -> None:
    assert requests(StripeRenewal(), 10.0, 1.0, usable=False) == [10.0]


def test_a_session_that_may_yet_be_heard_has_a_moment() -> None:
    [asked] = requests(StripeRenewal(), 10.0, 1.0)
    assert GRACE <= asked - 10.0 <= GRACE + 0.06


def test_on_a_long_path_the_moment_is_three_round_trips() -> None:
    renewal = StripeRenewal()
    assert not renewal.poll(10.0, control=True, carries=False, usable=True, rtt=0.6)
    assert renewal.due == 10.0 + 3 * 0.6


def test_pauses_grow_to_the_longest_while_requests_change_nothing() -> None:
    asked = requests(StripeRenewal(), 0.0, 400.0, usable=False)
    pauses = [round(later - earlier) for earlier, later in itertools.pairwise(asked)]
    assert pauses[:7] == [2, 4, 8, 16, 32, 60, 60]
    assert set(pauses[7:]) <= {60}


def test_a_path_that_is_silent_altogether_gets_no_requests_and_a_new_beginning() -> None:
    renewal = StripeRenewal()
    requests(renewal, 0.0, 100.0)
    assert not renewal.poll(101.0, control=False, carries=False, usable=False, rtt=0.03)
    assert renewal.due is None
    assert requests(renewal, 200.0, 1.0, usable=False) == [200.0]
    assert renewal.due == 200.0 + FIRST_PAUSE


def test_in_doubt_nothing_is_requested_and_nothing_forgotten() -> None:
    renewal = StripeRenewal()
    renewal.granted(0.0)
    due = renewal.due
    assert not renewal.poll(100.0, control=None, carries=False, usable=False, rtt=None)
    assert renewal.due == due
    assert renewal.poll(100.0, control=True, carries=False, usable=False, rtt=None)


def test_a_pipe_that_carries_ends_the_pauses() -> None:
    renewal = StripeRenewal()
    requests(renewal, 0.0, 300.0)
    assert renewal.unanswered
    assert not renewal.poll(301.0, control=True, carries=True, usable=True, rtt=0.03)
    assert (renewal.due, renewal.unanswered) == (None, False)


@given(st.lists(st.tuples(st.sampled_from([True, False, None]), st.booleans(), st.booleans(), st.floats(0.01, 30.0))))
def test_whatever_happens_a_request_is_never_further_away_than_the_longest_pause(
    events: list[tuple[bool | None, bool, bool, float]],
) -> None:
    renewal, now = StripeRenewal(), 0.0
    for control, carries, usable, seconds in events:
        now += seconds
        if renewal.poll(now, control=control, carries=carries, usable=usable, rtt=0.05):
            assert control
            assert not carries
            renewal.granted(now)
        if renewal.due is not None:
            assert renewal.due <= now + LAST_PAUSE
        if control and not carries:
            assert renewal.due is not None
