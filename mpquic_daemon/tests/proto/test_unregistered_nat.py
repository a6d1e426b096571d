"""Many clients behind one address: they come in all at once, and hostile ones among them lock nobody out."""

from __future__ import annotations

import heapq
import random
from itertools import count

import pytest
from mpquic.proto.control.unregistered import Unregistered, UnregisteredLimits

NAT = "192.0.2.1"
FIRST_FLIGHTS = (0.0, 0.2, 0.6, 1.4)
"""Seconds of an attempt at which a client sends its first flight."""
ATTEMPT = 1.8
ROUND_TRIP = 0.06
ROUND_TRIPS = 4


def seconds_to_come_in(seed: int, *, rate: float, cost: float, life: float, ports: int, known: bool) -> float:
    """Let an honest client try beside hostile ones behind its NAT, which come `rate` times a second and cost `cost`.

    A hostile connection stays for `life` seconds if it may. All of them together have `ports` of the NAT.
    """
    dice = random.Random(seed)
    places = Unregistered[int](UnregisteredLimits())
    if known:
        assert places.enter(0, NAT, 70_000, -10.0, is_proven=True).refusal is None
        places.admitted(0, -10.0)
    events: list[tuple[float, int, str, int]] = []
    order = count()

    def at(time: float, what: str, number: int = 0) -> None:
        heapq.heappush(events, (time, next(order), what, number))

    numbers = count(1)
    began = 20.0
    inside: int | None = None
    port = 0
    at(0.0, "attack")
    at(began, "attempt")
    while True:
        now, _, what, number = heapq.heappop(events)
        if now > began + 30.0:
            return 30.0
        assert inside not in places.pop_expired(now)
        if what == "attack":
            at(now + dice.expovariate(rate), "attack")
            hostile = next(numbers)
            decision = places.enter(hostile, NAT, dice.randrange(ports), now, is_proven=True)
            if decision.refusal is None:
                places.count(hostile, 3, cost, cost, now)
                at(now + life, "leave", hostile)
            if decision.evicted == inside:
                inside = None
        elif what == "leave":
            places.leave(number)
        elif what == "attempt":
            port = 60_000 + next(numbers)
            at(now + ATTEMPT, "attempt")
            for offset in FIRST_FLIGHTS:
                at(now + offset * dice.uniform(0.9, 1.1), "try", port)
        elif what == "try" and inside is None and number == port:
            client = next(numbers)
            if places.enter(client, NAT, port, now, is_proven=True).refusal is None:
                inside = client
                places.count(client, 3, cost, cost, now)
                at(now + ROUND_TRIPS * ROUND_TRIP, "registered", client)
        elif what == "registered" and inside == number:
            return now - began


@pytest.mark.parametrize(
    ("rate", "cost", "ports", "life", "known"),
    [
        (50, 0.005, 60_000, 20.0, False),
        (200, 0.005, 1000, 0.05, False),
        (200, 0.005, 1000, 20.0, True),
        (400, 0.01, 1000, 0.05, True),
        (400, 0.01, 1000, 20.0, False),
    ],
)
def test_a_client_behind_the_nat_of_an_attacker_comes_in_within_5_seconds(rate, cost, life, ports, known):
    times = [seconds_to_come_in(seed, rate=rate, cost=cost, life=life, ports=ports, known=known) for seed in range(20)]
    late = [round(time, 1) for time in times if time > 5.0]
    assert len(late) <= 1, late


class Stampede:
    """Clients behind one NAT that all come at once to a server that works on one thing after the other."""

    COSTS = (0.005, 0.004, 0.006)
    """Seconds of the first packet, of the end of the handshake, of the registration."""
    RETRY_COST = 0.0003
    SILENCE = (1.8, 3.0)
    """Seconds after which a client gives up that has heard nothing, and one that has heard something."""

    def __init__(self, clients: int, slowness: float, seed: int) -> None:
        self.places = Unregistered[int](UnregisteredLimits())
        self.slowness = slowness
        self.dice = random.Random(seed)
        self.refusals: list[str] = []
        self.registered: dict[int, float] = {}
        self._events: list[tuple[float, int, int, int, int]] = []
        self._order = count()
        self._keys = count()
        self._free_at = 0.0
        self._attempts = [0] * clients
        self._heard = [-1.0] * clients
        self._key: list[int | None] = [None] * clients
        for client in range(clients):
            self._attempt(client, self.dice.uniform(0.0, 0.3))

    def run(self, seconds: float) -> None:
        while self._events and self._events[0][0] < seconds:
            now, _, client, attempt, step = heapq.heappop(self._events)
            for key in self.places.pop_expired(now):
                self._key = [None if each == key else each for each in self._key]
            if client in self.registered or attempt != self._attempts[client]:
                continue
            if step == -1:
                self._look(client, now)
            elif self._free_at > now:
                self._at(self._free_at, client, step)
            else:
                self._serve(client, step, now)

    def _at(self, time: float, client: int, step: int) -> None:
        heapq.heappush(self._events, (time, next(self._order), client, self._attempts[client], step))

    def _attempt(self, client: int, now: float) -> None:
        self._attempts[client] += 1
        self._heard[client] = -1.0
        for offset in FIRST_FLIGHTS:
            self._at(now + offset, client, 0)
        self._at(now + self.SILENCE[0], client, -1)

    def _look(self, client: int, now: float) -> None:
        """Give up after silence, and begin anew."""
        due = self._heard[client] + self.SILENCE[1]
        if due > now:
            self._at(due, client, -1)
            return
        key = self._key[client]
        if key is not None:
            self.places.leave(key)
            self._key[client] = None
        self._attempt(client, now)

    def _serve(self, client: int, step: int, now: float) -> None:
        """Work on a packet: 0 is a first one, 1 one with a token, 2 the end of the handshake, 3 the registration."""
        key, cost = self._key[client], self.COSTS[max(0, step - 1)] * self.slowness
        if step < 2:
            if key is not None or (step == 0 and self._heard[client] >= 0.0):
                return
            if step == 0 and self.places.must_prove_address(now):
                self._done(client, 1, now, self.RETRY_COST * self.slowness)
                return
            key = next(self._keys)
            port = client + 1000 * self._attempts[client]
            decision = self.places.enter(key, NAT, port, now, is_proven=step == 1)
            if decision.refusal is not None:
                self.refusals.append(decision.refusal)
                return
            assert decision.evicted is None
            self._key[client] = key
            step = 1
        elif key is None:
            return
        assert key is not None
        assert self.places.count(key, 3, cost, cost, now) is None
        if step == 2:
            self.places.established(key, now, is_proven=True)
        if step == 3:
            self.places.admitted(key, now)
            self.registered[client] = now
        self._done(client, step + 1, now, cost)

    def _done(self, client: int, step: int, now: float, cost: float) -> None:
        self._free_at = now + cost
        self._heard[client] = self._free_at + ROUND_TRIP / 2
        self._at(self._free_at + ROUND_TRIP, client, step)


@pytest.mark.parametrize("slowness", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("clients", [40, 200])
def test_sites_behind_one_nat_all_come_back_at_once_after_a_restart_of_the_server(clients, slowness):
    """Of 40 sites with up to 5 tunnels nobody is refused, and all are in as soon as the work is done."""
    for seed in range(2):
        stampede = Stampede(clients, slowness, seed)
        stampede.run(60.0)
        assert stampede.refusals == []
        assert len(stampede.registered) == clients
        assert max(stampede.registered.values()) < 1.5 * clients * sum(Stampede.COSTS) * slowness + 2.0
