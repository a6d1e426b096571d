"""One budget for all tunnels of a peer: the oldest of the fullest store goes, and what waited is passed on."""

from __future__ import annotations

import os
import random
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st
from mpquic.proto.packet.frame import Frame
from mpquic.proto.path.memory import MAX_IN_FLIGHT, MAX_LOST, MAX_STORED, STEP, MemoryBudget
from mpquic.proto.stripe.config import StripeConfig
from mpquic.proto.stripe.session import StripeSession
from mpquic.proto.tunnel.reorder import ReorderBuffer

from .duplex import SECRET, SESSION
from .hostile import tcp_packet

NOW = 100.0


class Tunnel(NamedTuple):
    """What a tunnel of the peer keeps: segments that wait, and shards that wait for FEC."""

    session: StripeSession
    order: ReorderBuffer


def made(memory: MemoryBudget, count: int) -> list[Tunnel]:
    tunnels = []
    for each in range(count):
        session = StripeSession(
            StripeConfig(), SESSION + each, SECRET, NOW, client=False, entropy=os.urandom, memory=memory
        )
        tunnels.append(Tunnel(session, ReorderBuffer(extend=memory.extend)))
        memory.add(tunnels[-1].order)
    return tunnels


def hold_up(tunnel: Tunnel, first: int, count: int, size: int = 1000) -> list[int]:
    """Have segments wait behind a gap each; return the sequence numbers of what passed."""
    frames = [Frame(tcp_packet(1, 10_000 * each, size), 1, first + 2 * each) for each in range(count)]
    return [frame.sequence for frame in tunnel.order.add(frames, NOW, 1.0)]


def fill_groups(tunnel: Tunnel, first: int, count: int, size: int = 1000) -> None:
    for group in range(first, first + count):
        for index in range(4):
            tunnel.session.receiver.decoder.add_data(128 * group, index, bytes(size), NOW)


def test_sixteen_tunnels_of_one_peer_keep_no_more_than_the_budget() -> None:
    memory = MemoryBudget()
    tunnels = made(memory, 16)
    for round_ in range(40):
        for tunnel in tunnels:
            hold_up(tunnel, 1 + 400 * round_, 200)
            fill_groups(tunnel, 100 * round_, 100)
        assert memory.stored <= MAX_STORED + 32 * STEP
    assert memory.stored > MAX_STORED // 2


def test_a_flood_in_one_tunnel_takes_nothing_from_another_that_keeps_little() -> None:
    memory = MemoryBudget(limit=4 << 20)
    quiet, loud = made(memory, 2)
    hold_up(quiet, 0, 1)
    assert hold_up(quiet, 3, 20) == []
    kept = quiet.order.bytes
    for round_ in range(50):
        hold_up(loud, 1 + 400 * round_, 200)
        fill_groups(loud, 100 * round_, 100)
    assert quiet.order.bytes == kept


def test_what_is_shed_for_another_tunnel_goes_on_and_is_not_lost() -> None:
    memory = MemoryBudget(limit=2 << 20)
    one, other = made(memory, 2)
    passed = hold_up(one, 0, 1)
    passed += hold_up(one, 3, 1000)
    for group in range(2000):
        fill_groups(other, group, 1)
    told: list[None] = []
    one.order.on_shed = lambda: told.append(None)
    one.order.shed()
    assert told
    assert one.order.next_time() == 0.0
    passed += [frame.sequence for frame in one.order.expire(NOW)]
    assert len(passed) > 100
    passed += [frame.sequence for frame in one.order.expire(NOW + 2.0)]
    assert sorted(passed) == [0, *range(3, 2003, 2)]
    assert one.order.bytes == 0


def test_what_is_on_its_way_is_shared_among_the_sessions_that_there_are() -> None:
    memory = MemoryBudget()
    sessions = [tunnel.session for tunnel in made(memory, 4)]
    assert {session.sender.max_in_flight for session in sessions} == {MAX_IN_FLIGHT // 4}
    assert {session.sender.recovery.arq.max_shards for session in sessions} == {MAX_LOST // 4}
    for session in sessions[1:]:
        session.close()
        session.close()
    assert sessions[0].sender.max_in_flight == MAX_IN_FLIGHT


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5))
def test_the_budget_holds_whatever_is_stored_where_and_comes_to_nothing_in_the_end(seed: int, count: int) -> None:
    rng = random.Random(seed)
    limit = 1 << 20
    memory = MemoryBudget(limit=limit)
    tunnels = made(memory, count)
    for _ in range(60):
        tunnel = rng.choice(tunnels)
        if rng.random() < 0.5:
            hold_up(tunnel, rng.randrange(5000), rng.randrange(60), rng.choice((1, 1000)))
        else:
            fill_groups(tunnel, rng.randrange(500), rng.randrange(40), rng.choice((1, 1000)))
        assert memory.stored <= max(limit, STEP) + 2 * count * STEP
    for tunnel in tunnels:
        tunnel.session.poll(NOW + 10.0)
        tunnel.order.expire(NOW + 10.0)
    assert memory.stored == 0
