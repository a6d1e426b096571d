"""Handing an identity over on purpose."""

from __future__ import annotations

from mpquic.proto.control.handover import MAX_FORMER, Claim, Handover


def test_the_next_machine_takes_over_once_and_the_old_one_is_refused_from_then_on() -> None:
    handover = Handover()
    handover.registered(b"old", takes_over=False)
    handover.open(600.0)
    assert handover.judge(b"old", 10.0) is Claim.NOTHING
    assert handover.judge(b"new", 10.0) is Claim.TAKES_OVER
    assert handover.registered(b"new", takes_over=True)
    assert handover.judge(b"third", 10.0) is Claim.NOTHING
    assert handover.judge(b"old", 1e9) is Claim.FORMER
    assert handover.judge(b"new", 1e9) is Claim.NOTHING


def test_nobody_takes_over_when_the_time_is_over() -> None:
    handover = Handover(b"old")
    handover.open(600.0)
    assert handover.judge(b"new", 599.9) is Claim.TAKES_OVER
    assert handover.judge(b"new", 600.0) is Claim.NOTHING


def test_an_identity_can_be_handed_back() -> None:
    handover = Handover(b"new", (b"old",))
    handover.open(600.0)
    assert handover.judge(b"old", 0.0) is Claim.TAKES_OVER
    handover.registered(b"old", takes_over=True)
    assert (handover.boot_id, handover.former) == (b"old", (b"new",))


def test_a_new_connection_of_the_same_boot_changes_nothing() -> None:
    handover = Handover(b"old")
    assert not handover.registered(b"old", takes_over=False)
    assert handover.registered(b"restarted", takes_over=False)


def test_what_is_remembered_is_bounded() -> None:
    handover = Handover(b"0")
    for number in range(1, 100):
        handover.registered(str(number).encode(), takes_over=True)
    assert len(handover.former) == MAX_FORMER
    assert handover.judge(b"98", 0.0) is Claim.FORMER
