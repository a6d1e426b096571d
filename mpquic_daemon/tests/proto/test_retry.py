"""A client tries again soon enough for a link that heals, and seldom enough for a server that refuses."""

import itertools
import random

import pytest
from mpquic.proto.path.ending import Ending, Failure
from mpquic.proto.path.retry import LONG_SILENCE, PATIENCE, SILENCE, RetryPolicy


def policy() -> RetryPolicy:
    return RetryPolicy(random.Random(7), reconnect_max=8.0)


def run(retry: RetryPolicy, failure: Failure, lasts: float, until: float) -> list[float]:
    """Let every attempt fail after `lasts` seconds; return when each began."""
    attempts: list[float] = []
    now = 0.0
    while now < until:
        now = max(now, retry.next_attempt)
        attempts.append(now)
        now += lasts
        retry.ended(Ending(failure, "x"), now)
    return attempts


def gaps(attempts: list[float]) -> list[float]:
    return [after - before for before, after in itertools.pairwise(attempts)]


def test_attempts_into_silence_follow_each_other_without_a_pause_for_an_hour() -> None:
    assert max(gaps(run(policy(), Failure.SILENT, SILENCE, PATIENCE))) <= 2.0


def test_after_an_hour_of_silence_the_pauses_grow_to_the_longest() -> None:
    late = [gap for gap in gaps(run(policy(), Failure.SILENT, SILENCE, 2 * PATIENCE)) if gap > SILENCE + 0.01]
    assert 3.0 < max(late) <= SILENCE + 8.0


def test_attempts_last_longer_after_repeated_silence_and_no_two_clients_are_in_step() -> None:
    retry = policy()
    first = [retry.patience for _ in range(20)]
    assert all(0.9 * SILENCE <= seconds <= SILENCE for seconds in first)
    assert len(set(first)) == 20
    run(retry, Failure.SILENT, SILENCE, 20.0)
    assert 0.9 * LONG_SILENCE <= retry.patience <= LONG_SILENCE
    retry.changed()
    assert retry.patience <= SILENCE


def test_a_refusal_is_retried_at_once_and_then_with_growing_pauses() -> None:
    pauses = gaps(run(policy(), Failure.REFUSED, 0.1, 120.0))
    assert pauses[0] < 0.11
    assert pauses[5] > pauses[1]
    assert 4.0 < max(pauses) <= 8.1


def test_a_server_that_went_away_is_asked_at_least_every_second() -> None:
    assert max(gaps(run(policy(), Failure.ENDED, 0.1, 60.0))) <= 1.2


def test_a_server_that_names_a_pause_is_obeyed_up_to_our_longest() -> None:
    retry = policy()
    retry.ended(Ending(Failure.REFUSED, "busy", retry_after=5.0), 100.0)
    assert retry.next_attempt >= 105.0
    retry.ended(Ending(Failure.REFUSED, "busy", retry_after=3600.0), 200.0)
    assert retry.next_attempt <= 208.0


def test_whoever_lost_its_place_to_another_client_waits_long() -> None:
    retry = policy()
    retry.registered(0.0)
    retry.ended(Ending(Failure.REPLACED, "x"), 100.0)
    assert 104.0 <= retry.next_attempt <= 108.0


@pytest.mark.parametrize("failure", [Failure.IN_USE, Failure.HANDED_OVER])
@pytest.mark.parametrize(
    ("asked", "least", "most"), [(None, 3.0, 3.4), (0.0, 3.0, 3.4), (30.0, 30.0, 33.0), (86400.0, 60.0, 66.0)]
)
def test_whoever_is_refused_for_another_machine_comes_again_when_the_server_wants_it(
    failure: Failure, asked: float | None, least: float, most: float
) -> None:
    retry = policy()
    for _ in range(100):
        retry.ended(Ending(failure, "x", asked), 100.0)
        assert 100.0 + least <= retry.next_attempt <= 100.0 + most


def test_an_attempt_beside_a_connection_that_carries_is_no_outage() -> None:
    retry = policy()
    retry.registered(0.0)
    for now in range(10, 20):
        retry.second_ended(Ending(Failure.SILENT, "x"), float(now))
    assert retry.next_attempt > 19.0, "not without a pause"
    assert retry.failures == 0
    # An outage that begins much later is met with all patience.
    retry.ended(Ending(Failure.SILENT, "x"), 20.0 + PATIENCE)
    assert retry.next_attempt == 20.0 + PATIENCE


def test_an_outage_is_met_at_once_whatever_attempts_beside_the_connection_have_come_to() -> None:
    retry = policy()
    retry.registered(0.0)
    for now in range(10, 30):
        retry.second_ended(Ending(Failure.REFUSED, "x", retry_after=8.0), float(now))
    assert retry.next_attempt > 30.0
    retry.lost(30.0)
    assert retry.next_attempt == 30.0


def test_another_wan_is_tried_at_once() -> None:
    retry = policy()
    attempts = run(retry, Failure.REFUSED, 0.1, 60.0)
    assert retry.next_attempt > attempts[-1]
    retry.changed()
    assert (retry.next_attempt, retry.failures) == (0.0, 0)
