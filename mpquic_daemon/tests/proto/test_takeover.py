"""A second boot id for a place that is taken, in virtual time."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpquic.proto.control.groups import MAX_PATHS_PER_GROUP
from mpquic.proto.control.takeover import (
    INTERVAL,
    MAX_REFUSED,
    MAX_WAIT,
    MIN_WAIT,
    PROBES,
    RESTART_TIME,
    Key,
    Outcome,
    Presence,
    Takeovers,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

KEY: Key = ("urn:mpquic:site:site1", "mpq5")
DOWN_AFTER = 3.0


class Machine:
    """The client that is connected. While it lives it replies after `rtt` seconds, on each path that isn't cut."""

    def __init__(self, rtt: float = 0.034, paths: int = 1, *, alive: bool = True) -> None:
        self.rtt = rtt
        self.alive = alive
        self.cut: set[int] = set()
        self.heard_at = 0.0
        self._counts = dict.fromkeys(range(paths), 0.0)
        self._replies: list[tuple[float, int]] = []

    def probed(self, now: float) -> None:
        if self.alive:
            self._replies += [(now + self.rtt, path) for path in self._counts if path not in self.cut]

    def presence(self, now: float) -> Presence:
        due = [reply for reply in self._replies if reply[0] <= now]
        self._replies = [reply for reply in self._replies if reply[0] > now]
        for at, path in due:
            self._counts[path] += 1
            self.heard_at = max(self.heard_at, at)
        heard: Mapping[object, tuple[float, ...]] = {path: (count,) for path, count in self._counts.items()}
        return Presence(heard, self.rtt, self.rtt, down=now - self.heard_at >= DOWN_AFTER)  # type: ignore[arg-type]

    def send(self, path: int = 0, now: float = 0.0) -> None:
        """Something of its own arrives at the server."""
        self._counts[path] += 1
        self.heard_at = now


def remembered(takeovers: Takeovers[str]) -> dict[str, int]:
    """Sizes of what is remembered."""
    return {
        "pending": len(takeovers._pending),
        "waiting": len(takeovers._waiting),
        "outcomes": len(takeovers._outcomes),
        "refused": sum(map(len, takeovers._refused.values())),
        "clients": len(takeovers._probed_at.keys() | takeovers._refused.keys() | takeovers._left_at.keys()),
    }


class Server:
    """The clock and the machines of each client."""

    def __init__(self, machine: Machine | None = None) -> None:
        self.takeovers: Takeovers[str] = Takeovers()
        self.machines: dict[Key, Machine] = {} if machine is None else {KEY: machine}
        self.now = 1000.0
        self.probes: list[float] = []
        self.outcomes: dict[str, tuple[Outcome, float]] = {}
        self._claims: dict[str, tuple[Key, bytes]] = {}
        self.holders: dict[Key, bytes] = {}
        self.successor: Callable[[bytes], Machine] = lambda _boot_id: Machine()
        """The machine that is connected once a boot id was admitted."""
        if machine is not None:
            machine.heard_at = self.now

    def claim(self, connection: str, boot_id: bytes, key: Key = KEY) -> Outcome:
        self._claims[connection] = (key, boot_id)
        outcome = self.takeovers.claim(key, boot_id, connection, self.now)
        if outcome is not Outcome.WAIT:
            self.outcomes[connection] = (outcome, self.now)
        return outcome

    def poll(self) -> None:
        def look(key: Key) -> Presence | None:
            machine = self.machines.get(key)
            return machine.presence(self.now) if machine is not None else None

        probes, decided = self.takeovers.poll(look, self.now)
        for key in probes:
            self.probes.append(self.now)
            self.machines[key].probed(self.now)
        for connection in decided:
            key, boot_id = self._claims[connection]
            if self.claim(connection, boot_id, key) is Outcome.ADMIT:
                self.takeovers.registered(key, boot_id)
                if self.holders.get(key) != boot_id:
                    self.holders[key] = boot_id
                    self.machines[key] = self.successor(boot_id)
                    self.machines[key].heard_at = self.now
                    self.takeovers.changed_hands(key)

    def run(self, seconds: float, step: float = 0.005) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + step)
            self.poll()

    def decide(self, connection: str, boot_id: bytes) -> tuple[Outcome, float]:
        """Let somebody register; return the outcome and the seconds until then."""
        began = self.now
        self.claim(connection, boot_id)
        while connection not in self.outcomes:
            self.run(0.005)
            assert self.now - began < 10.0
        outcome, at = self.outcomes[connection]
        return outcome, at - began


@pytest.mark.parametrize("rtt", [0.0, 0.001, 0.034, 0.15, 0.6, 0.99, 2.0])
def test_the_place_of_a_machine_that_is_gone_is_free_after_three_round_trips(rtt: float) -> None:
    server = Server(Machine(rtt))
    server.machines[KEY].alive = False
    outcome, seconds = server.decide("c2", b"new")
    assert outcome is Outcome.ADMIT
    wanted = min(max(3 * rtt, MIN_WAIT), MAX_WAIT)
    assert wanted <= seconds <= wanted + 0.02


@pytest.mark.parametrize("rtt", [0.0, 0.001, 0.034, 0.15, 0.6, 0.99])
def test_a_machine_that_replies_keeps_its_place(rtt: float) -> None:
    server = Server(Machine(rtt))
    outcome, seconds = server.decide("c2", b"copy")
    assert outcome is Outcome.REFUSE
    assert seconds < rtt + 2 * max(3 * rtt, MIN_WAIT) / PROBES + 0.02
    assert len(server.takeovers) == 0


def test_what_was_on_its_way_is_no_reply() -> None:
    machine = Machine(0.6, alive=False)
    server = Server(machine)
    server.claim("c2", b"new")
    server.run(0.01)
    machine.send()
    server.run(3.0)
    assert server.outcomes["c2"][0] is Outcome.ADMIT


def test_anything_that_arrives_later_is_a_reply() -> None:
    machine = Machine(0.034, alive=False)
    server = Server(machine)
    server.claim("c2", b"copy")
    server.run(0.2)
    machine.send()
    server.run(0.5)
    assert server.outcomes["c2"][0] is Outcome.REFUSE


def test_a_machine_is_there_as_long_as_one_of_its_paths_is() -> None:
    machine = Machine(paths=3)
    machine.cut = {0, 1}
    assert Server(machine).decide("c2", b"copy")[0] is Outcome.REFUSE
    machine.cut = {0, 1, 2}
    assert Server(machine).decide("c2", b"copy")[0] is Outcome.ADMIT


def test_a_probe_that_is_lost_is_no_silence() -> None:
    machine = Machine(alive=False)
    server = Server(machine)
    server.claim("c2", b"copy")
    server.run(0.16)
    machine.alive = True
    server.run(0.5)
    assert server.outcomes["c2"][0] is Outcome.REFUSE


def test_a_pause_of_the_server_is_nobodys_silence() -> None:
    machine = Machine()
    server = Server(machine)
    server.claim("c2", b"copy")
    server.poll()
    machine._replies.clear()
    server.now += 30.0  # what came meanwhile has not been read
    server.poll()
    assert "c2" not in server.outcomes
    machine.send()
    server.run(0.5)
    assert server.outcomes["c2"][0] is Outcome.REFUSE


def test_a_second_machine_that_was_outlived_once_needs_more_than_a_short_silence() -> None:
    """Else a copy that tries every few seconds would get the place in the first gap of a link."""
    machine = Machine()
    server = Server(machine)
    assert server.decide("c2", b"copy")[0] is Outcome.REFUSE
    machine.alive = False
    server.run(1.0)
    assert server.decide("c3", b"copy")[0] is Outcome.REFUSE
    server.run(DOWN_AFTER)
    assert server.decide("c4", b"copy")[0] is Outcome.ADMIT


def test_a_restarted_client_does_not_wait_because_of_a_second_machine() -> None:
    machine = Machine()
    server = Server(machine)
    server.decide("c2", b"copy")
    machine.alive = False
    server.claim("c3", b"copy")
    outcome, seconds = server.decide("c4", b"restarted")
    assert outcome is Outcome.ADMIT
    assert seconds <= INTERVAL + MIN_WAIT + 0.02
    assert server.outcomes["c3"][0] is Outcome.REFUSE


def test_a_client_that_is_killed_while_it_waits_has_its_place_after_another_silence() -> None:
    """A third boot id comes while the second one waits for the first; that one never replies to its own probes."""
    machine = Machine(alive=False)
    server = Server(machine)
    server.successor = lambda _boot_id: machine
    began = server.now
    server.claim("c2", b"killed")
    server.run(0.2)
    assert server.claim("c3", b"third") is Outcome.WAIT
    server.run(0.8)
    assert [server.outcomes[each][0] for each in ("c2", "c3")] == [Outcome.ADMIT, Outcome.ADMIT]
    assert server.outcomes["c3"][1] - began < 2 * MIN_WAIT + 0.1


def test_whoever_waits_behind_a_client_that_replies_once_it_has_the_place_is_refused() -> None:
    machine = Machine(alive=False)
    server = Server(machine)
    server.claim("c2", b"restarted")
    server.run(0.1)
    server.claim("c3", b"copy")
    server.run(1.0)
    assert [server.outcomes[each][0] for each in ("c2", "c3")] == [Outcome.ADMIT, Outcome.REFUSE]


def test_whoever_waits_behind_another_is_refused_with_it() -> None:
    server = Server(Machine(0.15))
    server.claim("c2", b"copy")
    server.claim("c3", b"another")
    server.run(0.3)
    assert [server.outcomes[each][0] for each in ("c2", "c3")] == [Outcome.REFUSE, Outcome.REFUSE]
    assert (len(server.takeovers), len(server.probes)) == (0, 2)


def test_whoever_waits_behind_another_goes_on_when_that_one_gives_up() -> None:
    machine = Machine(alive=False)
    server = Server(machine)
    began = server.now
    server.claim("c2", b"killed")
    server.run(0.1)
    server.claim("c3", b"third")
    server.takeovers.abandon("c2")
    server.run(1.0)
    assert server.outcomes["c3"][0] is Outcome.ADMIT
    assert server.outcomes["c3"][1] - began < INTERVAL + MIN_WAIT + 0.1


def test_those_that_wait_behind_another_are_bounded() -> None:
    server = Server(Machine())
    server.claim("c", b"first")
    outcomes = [server.claim(f"c{number}", number.to_bytes(16, "big")) for number in range(100)]
    assert outcomes.count(Outcome.WAIT) == MAX_PATHS_PER_GROUP


def test_when_the_place_changes_hands_meanwhile_those_who_wait_claim_anew() -> None:
    """Another connection of the same boot has the place, for instance by a handover: that is nobody's reply."""
    machine = Machine(alive=False)
    server = Server(machine)
    server.claim("c2", b"new")
    server.run(0.1)
    server.claim("c3", b"another")
    server.machines[KEY] = Machine()
    server.takeovers.changed_hands(KEY)
    probes, decided = server.takeovers.poll(lambda key: server.machines[key].presence(server.now), server.now)
    assert (probes, decided) == ([], ["c2", "c3"])
    server.takeovers.abandon("c2")
    server.claim("c3", b"another")
    server.run(1.0)
    assert server.outcomes["c3"][0] is Outcome.REFUSE
    assert remembered(server.takeovers)["refused"] == 1


def test_whoever_registers_as_often_as_he_likes_has_one_series_of_probes_sent_for_each_interval() -> None:
    server = Server(Machine())
    began = server.now
    for number in itertools.count():
        if server.now - began >= 20.0:
            break
        server.claim(f"c{number}", number.to_bytes(16, "big"))
        server.run(0.01)
    assert len(server.probes) <= 20.0 / INTERVAL + 1
    assert all(outcome is Outcome.REFUSE for outcome, _ in server.outcomes.values())
    sizes = remembered(server.takeovers)
    assert sizes["refused"] <= MAX_REFUSED
    assert sizes["pending"] <= 1
    assert sizes["outcomes"] == 0


def test_attempts_of_one_boot_share_the_probes_and_the_outcome() -> None:
    machine = Machine(alive=False)
    server = Server(machine)
    assert server.claim("c2", b"new") is Outcome.WAIT
    server.run(0.1)
    assert server.claim("c3", b"new") is Outcome.WAIT
    server.run(0.25)
    assert [server.outcomes[each][0] for each in ("c2", "c3")] == [Outcome.ADMIT, Outcome.ADMIT]
    assert 1 < len(server.probes) <= PROBES


def test_the_attempts_that_wait_are_bounded() -> None:
    server = Server(Machine())
    outcomes = [server.claim(f"c{number}", b"new") for number in range(100)]
    assert outcomes.count(Outcome.WAIT) == MAX_PATHS_PER_GROUP


def test_an_attempt_that_ends_leaves_nothing() -> None:
    server = Server(Machine())
    server.claim("c2", b"new")
    server.takeovers.abandon("c2")
    server.run(1.0)
    assert (server.outcomes, server.probes, len(server.takeovers)) == ({}, [], 0)
    assert server.takeovers.due == float("inf")


def test_a_machine_that_leaves_frees_its_place_at_once() -> None:
    server = Server(Machine(0.6))
    server.claim("c2", b"new")
    server.run(0.1)
    del server.machines[KEY]
    server.takeovers.left(KEY, server.now)
    server.run(0.005)
    assert server.outcomes["c2"][0] is Outcome.ADMIT


def test_a_second_machine_waits_for_a_client_that_may_only_be_restarting() -> None:
    server = Server(Machine())
    server.decide("c2", b"copy")
    del server.machines[KEY]
    server.takeovers.left(KEY, server.now)
    assert server.takeovers.is_early(KEY, b"copy", server.now + RESTART_TIME - 0.1)
    assert not server.takeovers.is_early(KEY, b"restarted", server.now + 1.0)
    assert not server.takeovers.is_early(KEY, b"copy", server.now + RESTART_TIME)
    assert set(remembered(server.takeovers).values()) == {0}


def test_tunnels_of_a_restarted_client_wait_side_by_side() -> None:
    server = Server()
    for number in range(50):
        key = ("urn:mpquic:site:site1", f"mpq{number}")
        server.machines[key] = Machine()
        server.machines[key].alive = False
        server.claim(f"c{number}", b"new", key)
    server.run(0.32)
    assert {outcome for outcome, _ in server.outcomes.values()} == {Outcome.ADMIT}
    assert len(server.outcomes) == 50


STEPS = st.one_of(
    st.tuples(st.just("claim"), st.integers(0, 3)),
    st.tuples(st.just("die"), st.none()),
    st.tuples(st.just("live"), st.none()),
    st.tuples(st.just("leave"), st.none()),
    st.tuples(st.just("abandon"), st.integers(0, 30)),
    st.tuples(st.just("run"), st.sampled_from([0.01, 0.1, 0.3, 1.0, 4.0])),
    st.tuples(st.just("pause"), st.sampled_from([0.5, 5.0])),
)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(STEPS, max_size=40), rtt=st.sampled_from([0.001, 0.034, 0.3, 0.7]))
def test_no_machine_that_replies_loses_its_place_and_none_that_is_gone_keeps_it(
    steps: list[tuple[str, object]], rtt: float
) -> None:
    """Whoever is admitted takes over: from then on it is the machine that is connected, and it lives."""
    server = Server(Machine(rtt))
    server.holders[KEY] = b"first"
    lived_at = server.now
    longest = max(3 * rtt, MIN_WAIT)

    def admit(_boot_id: bytes) -> Machine:
        nonlocal lived_at
        machine = server.machines.get(KEY)
        # Nobody is replaced who has lived all the time in which he could have replied.
        assert machine is None or not machine.alive or server.now - lived_at < longest
        lived_at = server.now
        return Machine(rtt)

    server.successor = admit
    for number, (kind, value) in enumerate(steps):
        machine = server.machines.get(KEY)
        if kind == "claim":
            boot_id = b"boot%d" % value
            if machine is not None and boot_id != server.holders[KEY]:
                server.claim(f"c{number}", boot_id)
        elif kind == "die" and machine is not None and machine.alive:
            machine.alive = False
            machine._replies.clear()
        elif kind == "live" and machine is not None and not machine.alive:
            machine.alive, lived_at = True, server.now
        elif kind == "leave" and machine is not None:
            del server.machines[KEY]
            server.takeovers.left(KEY, server.now)
        elif kind == "abandon":
            server.takeovers.abandon(f"c{value}")
        elif kind == "pause":
            server.now += float(value)  # type: ignore[arg-type]
        elif kind == "run":
            for _ in range(int(float(value) / 0.01)):  # type: ignore[arg-type]
                server.run(0.01, step=0.01)
        sizes = remembered(server.takeovers)
        assert sizes["pending"] <= 1
        assert sizes["refused"] <= MAX_REFUSED
    # Whatever has happened before: a fresh boot has the place of a machine that is gone within the bound.
    server.run(5.0)
    server.machines[KEY] = Machine(rtt)
    server.machines[KEY].alive = False
    server.successor = lambda _boot_id: Machine(rtt)
    outcome, seconds = server.decide("last", b"fresh")
    assert outcome is Outcome.ADMIT
    assert seconds <= INTERVAL + longest + 0.05
