"""One budget for all sessions of a peer: the oldest of the fullest store goes, and what waited is passed on."""

from __future__ import annotations

import os
import random

from hypothesis import given, settings
from hypothesis import strategies as st
from mpquic.proto.packet.frame import Frame
from mpquic.proto.stripe.config import StripeConfig
from mpquic.proto.stripe.memory import MAX_IN_FLIGHT, MAX_LOST, MAX_STORED, STEP, MemoryBudget
from mpquic.proto.stripe.session import StripeSession

from .duplex import SECRET, SESSION
from .hostile import tcp_packet

NOW = 100.0


def made(memory: MemoryBudget, count: int) -> list[StripeSession]:
    return [
        StripeSession(StripeConfig(), SESSION + each, SECRET, NOW, client=False, entropy=os.urandom, memory=memory)
        for each in range(count)
    ]


def hold_up(session: StripeSession, first: int, count: int, size: int = 1000) -> list[int]:
    """Have segments wait behind a gap each; return the sequence numbers of what passed."""
    assert session.hold is not None
    frames = [Frame(tcp_packet(1, 10_000 * each, size), 1, first + 2 * each) for each in range(count)]
    return [frame.sequence for frame in session.hold.add(frames, NOW, 1.0)]


def fill_groups(session: StripeSession, first: int, count: int, size: int = 1000) -> None:
    for group in range(first, first + count):
        for index in range(4):
            session.receiver.decoder.add_data(128 * group, index, bytes(size), NOW)


def test_sixteen_sessions_of_one_peer_keep_no_more_than_the_budget() -> None:
    memory = MemoryBudget()
    sessions = made(memory, 16)
    for round_ in range(40):
        for session in sessions:
            hold_up(session, 1 + 400 * round_, 200)
            fill_groups(session, 100 * round_, 100)
        assert memory.stored <= MAX_STORED + 32 * STEP
    assert memory.stored > MAX_STORED // 2


def test_a_flood_in_one_session_takes_nothing_from_another_that_keeps_little() -> None:
    memory = MemoryBudget(limit=4 << 20)
    quiet, loud = made(memory, 2)
    hold_up(quiet, 0, 1)
    assert hold_up(quiet, 3, 20) == []
    kept = quiet.hold.bytes
    for round_ in range(50):
        hold_up(loud, 1 + 400 * round_, 200)
        fill_groups(loud, 100 * round_, 100)
    assert quiet.hold.bytes == kept


def test_what_is_shed_for_another_session_goes_on_and_is_not_lost() -> None:
    memory = MemoryBudget(limit=2 << 20)
    one, other = made(memory, 2)
    assert one.hold is not None
    passed = hold_up(one, 0, 1)
    passed += hold_up(one, 3, 1000)
    for group in range(2000):
        fill_groups(other, group, 1)
    told: list[None] = []
    one.hold.on_shed = lambda: told.append(None)
    one.hold.shed()
    assert told
    assert one.next_time(NOW) == NOW
    passed += [frame.sequence for frame in one.poll(NOW)]
    assert len(passed) > 100
    passed += [frame.sequence for frame in one.poll(NOW + 2.0)]
    assert sorted(passed) == [0, *range(3, 2003, 2)]
    assert one.hold.bytes == 0


def test_what_is_on_its_way_is_shared_among_the_sessions_that_there_are() -> None:
    memory = MemoryBudget()
    sessions = made(memory, 4)
    assert {session.sender.max_in_flight for session in sessions} == {MAX_IN_FLIGHT // 4}
    assert {session.sender.recovery.arq.max_shards for session in sessions} == {MAX_LOST // 4}
    for session in sessions[1:]:
        memory.leave(session)
        memory.leave(session)
    assert sessions[0].sender.max_in_flight == MAX_IN_FLIGHT
    assert len(memory) == 1


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5))
def test_the_budget_holds_whatever_is_stored_where_and_comes_to_nothing_in_the_end(seed: int, count: int) -> None:
    rng = random.Random(seed)
    limit = 1 << 20
    memory = MemoryBudget(limit=limit)
    sessions = made(memory, count)
    for _ in range(60):
        session = rng.choice(sessions)
        if rng.random() < 0.5:
            hold_up(session, rng.randrange(5000), rng.randrange(60), rng.choice((1, 1000)))
        else:
            fill_groups(session, rng.randrange(500), rng.randrange(40), rng.choice((1, 1000)))
        assert memory.stored <= max(limit, STEP) + 2 * count * STEP
    for session in sessions:
        session.poll(NOW + 10.0)
    assert memory.stored == 0
