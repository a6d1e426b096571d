"""Who has work waiting gets his share of what the server does, and loses nothing for what others send."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st
from mpquic.proto.processor.fair_queue import ITEM_BYTES, BoundedQueues, ServiceOrder

KEYS = 4
COSTS = st.integers(1, 50)
ARRIVALS = st.lists(st.tuples(st.integers(0, KEYS - 1), COSTS), max_size=3)


class Server:
    """Serves one piece of work after the other, and remembers what it gave to whom and who waited meanwhile."""

    def __init__(self) -> None:
        self.order: ServiceOrder[int] = ServiceOrder()
        self.work: list[deque[int]] = [deque() for _ in range(KEYS)]
        self.served: list[tuple[int, int, frozenset[int]]] = []
        """Who was served, at which cost, and who had work before that."""

    def arrive(self, key: int, cost: int) -> None:
        self.work[key].append(cost)
        self.order.wait(key)

    def serve(self) -> bool:
        busy = frozenset(key for key in range(KEYS) if self.work[key])
        key = self.order.take()
        if key is None:
            assert not busy, "it rests although there is work"
            return False
        cost = self.work[key].popleft()
        if self.work[key]:
            self.order.wait(key)
        self.order.charge(key, cost)
        self.served.append((key, cost, busy))
        return True


def unfairness(served: list[tuple[int, int, frozenset[int]]], key: int) -> int:
    """The most that another got more than `key` in any time in which `key` always had work."""
    worst = 0
    for start in range(len(served)):
        got = [0] * KEYS
        for who, cost, busy in served[start:]:
            if key not in busy:
                break
            got[who] += cost
            worst = max(worst, max(got) - got[key])
    return worst


@given(st.lists(ARRIVALS, max_size=40))
def test_nobody_who_waits_gets_less_than_another_by_more_than_two_services(
    pattern: list[list[tuple[int, int]]],
) -> None:
    server = Server()
    for arrivals in pattern:
        for key, cost in arrivals:
            server.arrive(key, cost)
        server.serve()
    while server.serve():
        pass
    costliest = [max((cost for who, cost, _ in server.served if who == key), default=0) for key in range(KEYS)]
    for key in range(KEYS):
        assert unfairness(server.served, key) <= max(costliest) + costliest[key]


@given(st.lists(ARRIVALS, max_size=40))
def test_all_work_is_done(pattern: list[list[tuple[int, int]]]) -> None:
    server = Server()
    for arrivals in pattern:
        for key, cost in arrivals:
            server.arrive(key, cost)
    while server.serve():
        pass
    assert len(server.served) == sum(map(len, pattern))


def test_equal_shares_of_time_whatever_a_piece_costs() -> None:
    server = Server()
    for key, cost in enumerate((1, 2, 10, 50)):
        for _ in range(5000 // cost):
            server.arrive(key, cost)
    got = [0] * KEYS
    while sum(got) < 4000:
        server.serve()
        key, cost, _ = server.served[-1]
        got[key] += cost
    assert all(950 <= share <= 1050 for share in got), got


def test_who_comes_after_a_rest_is_served_next_but_has_saved_nothing_up() -> None:
    server = Server()
    for _ in range(100):
        server.arrive(0, 10)
        server.arrive(1, 10)
    for _ in range(50):
        server.serve()
    for _ in range(100):
        server.arrive(2, 10)
    before = len(server.served)
    for _ in range(30):
        server.serve()
    order = [key for key, _, _ in server.served[before:]]
    assert 2 in order[:2]
    assert [order.count(key) for key in range(3)] == [10, 10, 10]


def test_what_was_charged_elsewhere_counts_too() -> None:
    order: ServiceOrder[str] = ServiceOrder()
    order.wait("a")
    order.wait("b")
    order.charge("a", 5.0)
    assert order.take() == "b"
    order.charge("b", 4.0)
    order.wait("b")
    assert order.take() == "b"
    order.charge("b", 4.0)
    order.wait("b")
    assert order.take() == "a"


def test_who_is_forgotten_is_not_served() -> None:
    order: ServiceOrder[str] = ServiceOrder()
    order.wait("a")
    order.wait("b")
    order.forget("a")
    assert ("a" in order, "b" in order, len(order)) == (False, True, 1)
    assert [order.take(), order.take()] == ["b", None]
    order.wait("a")
    assert order.take() == "a"


def test_a_crowd_that_has_gone_leaves_nothing_behind() -> None:
    order: ServiceOrder[int] = ServiceOrder()
    order.wait(-1)
    for key in range(10_000):
        order.wait(key)
        for _ in range(2):
            served = order.take()
            assert served is not None
            order.charge(served, 1.0)
        order.wait(-1)
    assert len(order._charged) <= 200


SIZES = st.integers(0, 400)
LIMIT = 16 * ITEM_BYTES


@given(st.lists(st.one_of(st.tuples(st.integers(0, 2), SIZES), st.tuples(st.integers(0, 2), st.none())), max_size=120))
def test_queues_keep_order_and_bound_and_take_from_the_longest(steps: list[tuple[int, int | None]]) -> None:
    queues: BoundedQueues[int, tuple[int, int]] = BoundedQueues(LIMIT)
    put: list[list[int]] = [[], [], []]
    modest = [True, True, True]
    waiting = [0, 0, 0]
    got: list[list[int]] = [[], [], []]
    for number, (key, size) in enumerate(steps):
        if size is None:
            got[key] += [item for _, item in queues.take(key, 500)]
            waiting[key] = queues._sizes.get(key, 0)
            continue
        put[key].append(number)
        waiting[key] += size + ITEM_BYTES
        # No more than its part of what is left after room was made.
        modest[key] &= waiting[key] <= LIMIT * 15 // 16 // 3
        queues.put(key, (key, number), size)
        assert queues.bytes == sum(queues._sizes.values()) <= LIMIT
        waiting = [queues._sizes.get(other, 0) for other in range(3)]
    for key in range(3):
        got[key] += [item for _, item in queues.take(key)]
        assert got[key] == sorted(got[key])
        assert set(got[key]) <= set(put[key])
        if modest[key]:
            assert got[key] == put[key]
    assert queues.dropped == sum(map(len, put)) - sum(map(len, got))
    assert (queues.bytes, len(queues)) == (0, 0)


def test_who_fills_the_queues_loses_his_own_oldest_and_nobody_else_anything() -> None:
    queues: BoundedQueues[str, int] = BoundedQueues(LIMIT)
    for number in range(1000):
        if number % 300 == 0:
            queues.put("modest", number, 10)
        queues.put("loud", number, 10)
        assert queues.bytes <= LIMIT
    assert queues.take("modest") == [0, 300, 600, 900]
    kept = queues.take("loud")
    assert kept == list(range(1000 - len(kept), 1000))
    assert queues.dropped == 1000 - len(kept) > 980


def test_a_piece_is_at_least_one_item_and_no_more_than_one_too_many() -> None:
    queues: BoundedQueues[str, int] = BoundedQueues(1 << 20)
    for number in range(6):
        queues.put("a", number, 1000 - ITEM_BYTES)
    assert queues.take("a", 1) == [0]
    assert queues.take("a", 2000) == [1, 2]
    assert queues.take("a", 2001) == [3, 4, 5]
    assert queues.take("a", 1000) == []
