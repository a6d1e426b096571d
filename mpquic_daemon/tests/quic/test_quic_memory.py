"""What a registered client makes the server keep by QUIC is bounded over all its connections; honest loss is not."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
from aioquic.quic.rangeset import RangeSet
from aioquic.tls import Epoch
from hostile.packets import packet, stream
from hypothesis import given
from hypothesis import strategies as st
from mpquic.quic.aioquic_bounds import GAP_BYTES, MAX_GAPS, MAX_STREAMS
from mpquic.quic.configuration import WINDOW
from mpquic.quic.connection_view import LinkState
from mpquic.quic.memory import FLOOR, MAX_RECEIVED, MAX_SENT, QuicBudget, QuicBudgets

from .conftest import CLIENT_ADDRESS, LinkModel, Pair

Make = Callable[..., Pair]
PATHS = 16
MIB = 1 << 20


@pytest.fixture
def pairs(make_pair: Make) -> list[Pair]:
    """Connections of one client, as many as it may have for a tunnel."""
    budget = QuicBudget()
    made = [make_pair() for _ in range(PATHS)]
    for pair in made:
        pair.peer.share_budget(budget)
    return made


def give(pair: Pair, *frames: bytes) -> None:
    """Let the server receive packets with one frame each."""
    datagrams = [packet(pair.link._connection, Epoch.ONE_RTT, frame) for frame in frames]
    pair.listener.receive(datagrams, CLIENT_ADDRESS, pair.now)


def budget_of(pair: Pair) -> QuicBudget:
    return pair.peer._connection.budget


def test_gaps_of_all_connections_of_a_client_have_one_budget(pairs: list[Pair]) -> None:
    for pair in pairs:
        for stream_id in range(0, 4 * MAX_STREAMS, 4):
            give(pair, stream(stream_id, WINDOW // MAX_STREAMS - 1000, bytes(900)))
    budget = budget_of(pairs[0])
    assert budget.received_bytes > MAX_RECEIVED - WINDOW
    assert budget.received_bytes <= MAX_RECEIVED + PATHS * MAX_STREAMS * FLOOR
    kept = sum(len(s.receiver._buffer) for pair in pairs for s in pair.peer._connection._streams.values())
    assert kept <= MAX_RECEIVED + PATHS * MAX_STREAMS * FLOOR
    assert all(pair.peer.state is LinkState.ESTABLISHED for pair in pairs)
    assert sum(pair.peer.dropped for pair in pairs) > 0


def test_many_small_gaps_count_with_the_memory_that_they_take(pairs: list[Pair]) -> None:
    for pair in pairs[:1]:
        for stream_id in (0, 4):
            give(pair, *(stream(stream_id, 2 * number + 1, b"x") for number in range(MAX_GAPS + 100)))
    budget = budget_of(pairs[0])
    receivers = [s.receiver for pair in pairs for s in pair.peer._connection._streams.values()]
    assert max(len(receiver._ranges) for receiver in receivers) == MAX_GAPS
    assert budget.received_bytes >= sum(GAP_BYTES * len(receiver._ranges) for receiver in receivers)
    assert all(pair.peer.state is LinkState.ESTABLISHED for pair in pairs)


def test_a_dropped_packet_is_not_acknowledged_and_a_gap_is_filled_in_any_case(pairs: list[Pair]) -> None:
    for pair in pairs:
        give(pair, stream(0, 0, b"\1"), stream(0, 15 * MIB, b"x"))
    full = pairs[-1]
    connection = full.peer._connection
    assert full.peer.dropped == 1
    assert full.link._connection._packet_number - 1 not in connection._spaces[Epoch.ONE_RTT].ack_queue
    full.peer.pop_events()
    give(full, stream(0, 1001, bytes(1000)), stream(0, 1, bytes(1000)))
    assert [len(event.data) for event in full.peer.pop_events()] == [2000]
    assert full.peer.dropped == 1


def test_a_flood_over_one_connection_takes_nothing_from_another_that_keeps_little(pairs: list[Pair]) -> None:
    for pair in pairs[1:]:
        give(pair, stream(0, 15 * MIB, b"x"))
    for number in range(25):
        give(pairs[0], stream(0, 2000 * (number + 1), bytes(1000)))
    assert pairs[0].peer.dropped == 0


def test_a_connection_that_is_over_keeps_nothing(pairs: list[Pair]) -> None:
    give(pairs[0], stream(0, 15 * MIB, b"x"))
    budget = budget_of(pairs[0])
    assert budget.received_bytes > 15 * MIB
    pairs[0].peer.close(0, "over")
    pairs[0].run(lambda: pairs[0].peer.state is LinkState.CLOSED)
    assert (budget.received_bytes, len(budget)) == (0, PATHS - 1)
    assert pairs[0].peer._connection.received_bytes == 0


def acknowledge(pair: Pair, *, all_but_offset: int) -> None:
    """Acknowledge what the server has sent, except the packets that hold one offset of a stream."""
    connection = pair.peer._connection
    space = connection._spaces[Epoch.ONE_RTT]
    numbers = RangeSet()
    for number, sent in space.sent_packets.items():
        if not any(args[:1] == (all_but_offset,) for _, args in sent.delivery_handlers):
            numbers.add(number)
    if len(numbers):
        connection._loss.on_ack_received(ack_rangeset=numbers, ack_delay=0.0, now=pair.now, space=space)


@pytest.mark.parametrize("count", [1, 4])
def test_a_peer_that_never_acknowledges_the_first_byte_ends_what_is_written(pairs: list[Pair], count: int) -> None:
    budget = budget_of(pairs[0])
    for pair in pairs[:count]:
        give(pair, stream(0, 0, b"\1"))
        pair.peer._connection._remote_max_data = 1 << 50
        for _ in range(1200 // count):
            pair.now += 0.01
            pair.peer._control.controller.congestion_window = 4 * MIB
            room = pair.peer.stream_budget(0)
            if room > 0:
                pair.peer.send_stream(0, bytes(room))
            pair.listener.flush(pair.now)
            acknowledge(pair, all_but_offset=0)
            pair.listener.handle_timer(pair.now)
        assert pair.peer.state is LinkState.ESTABLISHED
    assert not budget.may_send()
    assert pairs[0].peer.stream_budget(0) == 0
    assert not pairs[0].peer.send_stream(0, bytes(100))
    assert budget.sent_bytes <= MAX_SENT + count * (FLOOR + MIB)


def test_the_budget_of_a_client_goes_with_its_last_connection() -> None:
    class Empty:
        received_bytes = sent_bytes = 0

    budgets = QuicBudgets()
    first = budgets.of("a client")
    assert budgets.of("a client") is first
    assert budgets.of("another") is not first
    first.join(Empty())
    assert first.may_receive(1)
    del first
    gc.collect()
    assert len(budgets) == 0


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20_000_000), st.integers(0, 20_000_000)), max_size=30))
def test_a_budget_counts_those_that_have_joined(steps: list[tuple[int, int, int]]) -> None:
    class Connection:
        received_bytes = sent_bytes = 0

    budget = QuicBudget()
    connections = [Connection() for _ in range(4)]
    joined = set()
    for index, received, sent in steps:
        connection = connections[index]
        connection.received_bytes, connection.sent_bytes = received, sent
        (budget.leave if index in joined else budget.join)(connection)
        joined ^= {index}
        assert budget.received_bytes == sum(connections[each].received_bytes for each in joined)
        assert budget.may_send() is (sum(connections[each].sent_bytes for each in joined) < MAX_SENT)
        assert budget.may_receive(1) is (budget.received_bytes < MAX_RECEIVED)
    assert len(budget) == len(joined)


@pytest.mark.simulation
def test_half_of_a_large_window_may_be_lost_and_no_bound_is_met(make_pair: Make) -> None:
    """A sender whose window does not shrink for losses, over a path that loses every second packet at random."""
    pair = make_pair(up=LinkModel(delay=0.125, loss=0.5), down=LinkModel(delay=0.125))
    control = pair.link._control
    control.on_packets_lost = lambda packets, **_: control.on_packets_expired(packets=packets)  # type: ignore[method-assign]
    control.controller.congestion_window = WINDOW
    stream_id = pair.link.open_stream()
    pair.link.send_stream(stream_id, b"\1")
    total = 24 * MIB
    pair.link._connection.send_stream_data(stream_id, bytes(total))
    most = 0

    def gaps() -> bool:
        nonlocal most
        control.controller.congestion_window = WINDOW
        found = pair.peer._connection._streams.get(stream_id)
        most = max(most, len(found.receiver._ranges)) if found is not None else most
        return len(pair.server.streams.get(stream_id, b"")) > total

    assert pair.run(gaps, seconds=20.0), (most, len(pair.server.streams.get(stream_id, b"")), pair.server.ended)
    print(f"at most {most} gaps")
    assert most > MAX_GAPS // 4
    assert pair.peer.dropped == 0
    assert pair.peer.state is LinkState.ESTABLISHED
