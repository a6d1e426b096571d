"""A second machine with the certificate and key of a first one, in virtual time."""

from __future__ import annotations

import itertools
import logging
import random
from typing import TYPE_CHECKING, Any

import pytest
from mpquic.config import load
from mpquic.daemon.json_lines import RequestError
from mpquic.daemon.peer_file import decode

from .conftest import IDENTITY, Site
from .test_certificates import fields, serial_of
from .test_containment import broken
from .test_refusals import site_tls as server_tls
from .virtual import CLIENT, QUIC_PORT, Ends, Nat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mpquic.daemon.client import Client

    Start = Callable[..., Ends]

SECOND = "10.77.1.9"
KEY = (IDENTITY, "mpq9")
both_planes = pytest.mark.parametrize("transport", ["quic", "stripe"])


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    found = Site(tmp_path)
    monkeypatch.setenv("MPQUIC_STATE_DIR", str(found.state_folder))
    return found


@pytest.fixture
def start(site: Site) -> Iterator[Start]:
    made: list[Ends] = []

    def make(**settings: Any) -> Ends:
        both = Ends(site, **settings)
        made.append(both)
        both.wait(lambda: both.session if settings.get("transport") == "stripe" else both.state == "up", 5.0, "up")
        both.run(3.0)
        return both

    yield make
    for both in made:
        both.close()


def second(both: Ends, site: Site, name: str = "c2", host: str = SECOND, **changes: object) -> Client:
    """Start a copy of the client on another machine."""
    both.probes = False
    return both.start_other(name, host, site.client_config(name, bind_ip=host, **{"transport": "quic", **changes}))


def state(client: Client) -> object:
    return client.status()["state"]


def peer_row(both: Ends) -> dict[str, Any]:
    rows: Any = both.server.status()["peers"]
    return dict(rows[0])


def held_by(both: Ends) -> str:
    """The host that has the place."""
    return str(both.server.paths()[0]["peer"]).split(":")[0]


@both_planes
def test_a_second_machine_is_refused_and_the_first_one_notices_nothing(
    start: Start, site: Site, transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    both = start(transport=transport)
    states, began = both.states(), both.now
    with caplog.at_level(logging.INFO, "mpquic"):
        copy = both.start_other("c2", SECOND, site.client_config("c2", bind_ip=SECOND, transport=transport))
        both.run(60.0)
        # An attempt may be under way.
        both.wait(lambda: peer_row(both)["second_machine"]["attempts"] == copy.counters()["attempts"], 2.0, "refused")
    assert state(copy) == "down"
    (first,) = [str(row["peer"]) for row in both.server.paths()]
    error = str(copy.status()["error"])
    assert f"another machine at {first} uses this identity (site1 mpq9)" in error
    assert "mpquicctl handover site1 mpq9" in error
    assert states == []
    for name in ("cl", "sv"):
        times = [moment for moment in both.arrivals(name) if moment > began]
        assert max(later - earlier for earlier, later in itertools.pairwise(times)) < 0.2
    attempts: Any = copy.counters()["attempts"]
    assert 10 <= attempts <= 60.0 / 3.0 + 1
    row = peer_row(both)
    assert row["state"] == "up"
    assert row["second_machine"]["peer"].startswith(SECOND)
    assert row["second_machine"]["attempts"] == attempts
    assert f"a second machine at {SECOND}" in row["error"]
    lines = [fields(record) for record in caplog.records if record.message == "client.refused"]
    assert len(lines) == 1
    assert lines[0]["peer"].startswith(SECOND)
    assert first in lines[0]["reason"]
    tables: Any = both.server.counters()["tables"]
    assert (tables["registered"], tables["waiting_registrations"]) == (1, 0)


@both_planes
@pytest.mark.parametrize("delay", [0.001, 0.017, 0.3])
def test_a_killed_client_has_its_place_back_after_the_silence_of_its_past(
    start: Start, site: Site, transport: str, delay: float
) -> None:
    both = start(transport=transport)
    both.network.delay = delay
    both.run(30.0)
    both.network.lost = lambda source, destination: CLIENT in (source[0], destination[0])
    restarted = second(both, site, transport=transport)
    both.wait(lambda: state(restarted) == "up", 2 * delay * 4 + max(6 * delay, 0.3) + 0.5, "up")
    assert restarted.counters()["attempts"] == 1
    assert held_by(both) == SECOND


@pytest.mark.parametrize("again", [0.1, 0.25, 0.4, 0.6])
@both_planes
def test_a_client_that_is_killed_twice_is_back_within_two_seconds(
    start: Start, site: Site, transport: str, again: float
) -> None:
    """Its second process is killed while it waits for the place of the first, or as soon as it has it."""
    both = start(transport=transport)
    both.network.lost = lambda source, destination: CLIENT in (source[0], destination[0])
    second(both, site, transport=transport)
    both.run(again)
    both.stop_other("c2", silently=True)
    began = both.now
    third = second(both, site, "c3", transport=transport)
    both.wait(lambda: state(third) == "up", 2.0, "up")
    assert third.counters()["attempts"] == 1
    assert both.now - began < 1.2
    both.run(10.0)
    assert (state(third), third.status()["reconnects"]) == ("up", 0)


def test_a_connection_that_is_being_closed_does_not_take_a_place(start: Start, site: Site) -> None:
    """Its time is up in the iteration in which the silence of the first machine is long enough."""
    both = start(transport="quic", probes=False)
    both.network.lost = lambda source, destination: CLIENT in (source[0], destination[0])
    second(both, site)
    both.wait(lambda: both.server._registry.admission.waiting, 2.0, "waiting")
    (waiting,) = (each for each in both.server._connections if each.admitted is None)
    poll, ended = both.server._registry.admission.poll, []

    def end_before_the_decision(now: float) -> Any:
        decided = poll(now)
        if waiting in decided:
            waiting.link.close(0, "not registered in time")
            ended.append(now)
        return decided

    both.server._registry.admission.poll = end_before_the_decision  # type: ignore[method-assign]
    both.wait(lambda: ended, 1.0, "decided")
    both.run(0.01)
    assert held_by(both) == CLIENT
    assert (waiting.admitted, both.server._registry.admission.waiting) == (None, 0)


def test_a_flood_of_unregistered_connections_takes_no_place_of_a_client_that_waits(start: Start, site: Site) -> None:
    both = start(transport="quic", probes=False)
    both.network.delay = 0.3  # so that the silence lasts for longer than a connection keeps its place in any case
    both.run(30.0)
    both.network.lost = lambda source, destination: CLIENT in (source[0], destination[0])
    restarted = second(both, site)
    both.wait(lambda: both.server._registry.admission.waiting, 5.0, "waiting")
    listener = both.server._listener
    numbers = itertools.count(1_000_000)
    while both.server._registry.admission.waiting:
        for _ in range(50):
            number = next(numbers)
            host = f"10.{number % 200}.{number // 200 % 200}.1"
            evicted = listener._unregistered.enter(number, host, 5000, both.now, is_proven=True).evicted
            assert evicted is None or evicted >= 1_000_000
        both.run(0.1)
    both.wait(lambda: state(restarted) == "up", 1.0, "up")
    assert restarted.counters()["attempts"] == 1


def test_all_tunnels_of_a_client_come_back_at_once(start: Start, site: Site) -> None:
    names = [f"mpq{number}" for number in range(10, 16)]
    inner = {name: f"10.200.{name[3:]}.1/32" for name in names}
    peers = [{"identity": IDENTITY, "tunnel": name, "allowed": [inner[name]]} for name in names]
    both = start(
        server={"peers": [*peers, {"identity": IDENTITY, "tunnel": "mpq9", "allowed": ["10.200.9.0/24", "fd09::/64"]}]}
    )
    for name in names:
        second(both, site, name, CLIENT, tunnel=name, inner_addresses=[inner[name]])
    both.wait(lambda: all(state(client) == "up" for client in both.others.values()), 3.0, "up")
    both.run(5.0)
    for name in names:
        both.stop_other(name, silently=True)
    for name in names:
        second(both, site, name, CLIENT, tunnel=name, inner_addresses=[inner[name]])
    both.wait(lambda: all(state(client) == "up" for client in both.others.values()), 1.0, "up")
    assert state(both.client) == "up"


def test_of_many_tunnels_behind_one_address_none_is_refused_when_the_server_comes_back(
    start: Start, site: Site
) -> None:
    inner = {f"mpq{number}": f"10.201.{number}.1/32" for number in range(10, 90)}
    peers = [{"identity": IDENTITY, "tunnel": name, "allowed": [address]} for name, address in inner.items()]
    peers.append({"identity": IDENTITY, "tunnel": "mpq9", "allowed": ["10.200.9.0/24", "fd09::/64"]})
    both = start(transport="quic", server={"peers": peers})
    for name, address in inner.items():
        second(both, site, name, CLIENT, tunnel=name, inner_addresses=[address])
    both.wait(lambda: all(state(client) == "up" for client in both.others.values()), 1.0, "up")
    counters = [both.server._listener.counters]
    both.restart_server()
    both.wait(lambda: both.server.counters()["registrations"] == 81, 5.0, "back")
    counters.append(both.server._listener.counters)
    assert [name for each in counters for name in each if name.startswith(("too many", "unregistered of"))] == []


def test_a_copy_of_which_another_tunnel_is_configured_is_in_nobodys_way(start: Start, site: Site) -> None:
    peers = [
        {"identity": IDENTITY, "tunnel": "mpq9", "allowed": ["10.200.9.1/32", "fd09::1/128"]},
        {"identity": IDENTITY, "tunnel": "mpq8", "allowed": ["10.200.8.1/32"]},
    ]
    both = start(server={"peers": peers})
    copy = second(both, site, tunnel="mpq8", inner_addresses=["10.200.8.1/32"])
    both.run(10.0)
    assert (state(copy), both.state) == ("up", "up")


def test_the_second_machine_is_back_soon_after_the_first_one_goes_away(start: Start, site: Site) -> None:
    both = start(transport="quic")
    copy = second(both, site)
    both.run(10.0)
    both.network.lost = lambda source, destination: CLIENT in (source[0], destination[0])
    both.wait(lambda: state(copy) == "up", 9.0, "up")
    assert copy.status()["error"] is None
    both.network.heal()
    both.run(30.0)
    # Whoever is there keeps the place: nobody takes turns.
    assert (both.state, state(copy), held_by(both)) == ("down", "up", SECOND)
    assert f"another machine at {SECOND}" in str(both.client.status()["error"])


@pytest.mark.parametrize("gap", [0.5, 1.0, 2.0])
def test_gaps_of_the_link_of_the_first_machine_give_the_second_one_nothing(
    start: Start, site: Site, gap: float
) -> None:
    both = start(transport="quic")
    copy = second(both, site)
    both.run(5.0)
    for pause in (2.3, 3.1, 1.7, 4.4) * 5:
        both.network.lost = lambda source, destination: CLIENT in (source[0], destination[0])
        both.run(gap)
        both.network.heal()
        both.run(pause)
    assert (held_by(both), state(copy)) == (CLIENT, "down")
    assert both.client.status()["reconnects"] == 0


@pytest.mark.parametrize("phase", [0.1, 1.0, 2.0, 3.0])
def test_a_goodbye_of_the_first_machine_lets_it_come_back_before_the_second_one(
    start: Start, site: Site, phase: float
) -> None:
    both = start(transport="quic", probes=False)
    first = second(both, site, "c3", "10.77.1.10")
    both.processes["cl"].call(lambda: both.client._paths[0].drop_current("leaves"))
    both.processes["cl"].call(lambda: both.client._paths[0].drop_candidate(None))
    both.network.lost = lambda source, destination: CLIENT in (source[0], destination[0])
    both.wait(lambda: state(first) == "up", 12.0, "up")
    copy = second(both, site, "c2")
    both.run(5.0 + phase)
    assert state(copy) == "down"
    both.stop_other("c3", silently=False)
    both.run(3.0)
    restarted = second(both, site, "c4", "10.77.1.10")
    both.run(2.0)
    assert (state(restarted), state(copy)) == ("up", "down")
    both.stop_other("c4", silently=False)
    both.wait(lambda: state(copy) == "up", 10.0, "up")


@both_planes
@pytest.mark.parametrize("loss", [0.05, 0.2])
def test_a_link_that_loses_packets_is_no_silence(start: Start, site: Site, transport: str, loss: float) -> None:
    both = start(transport=transport, probes=False)
    rng = random.Random(5)
    both.network.lost = lambda source, destination: CLIENT in (source[0], destination[0]) and rng.random() < loss
    for _ in range(10):
        copy = second(both, site)
        both.run(2.0)
        assert (state(copy), held_by(both)) == ("down", CLIENT)
        both.stop_other("c2", silently=True)


def test_nobody_takes_turns_after_a_restart_of_the_server(start: Start, site: Site) -> None:
    both = start(transport="quic")
    copy = second(both, site)
    both.run(5.0)
    both.restart_server()
    both.run(20.0)
    holder = held_by(both)
    registrations = both.server.counters()["registrations"]
    both.run(120.0)
    assert held_by(both) == holder
    assert both.server.counters()["registrations"] == registrations == 1
    assert {both.state, state(copy)} == {"up", "down"}


def test_a_nat_that_rebinds_does_not_make_room_for_a_second_machine(start: Start, site: Site) -> None:
    both = start(transport="stripe")
    copy = second(both, site)
    both.run(5.0)
    nat = Nat(both.network)
    for _ in range(5):
        nat.rebind()
        both.run(20.0)
    assert (held_by(both), state(copy)) == (CLIENT, "down")


def test_a_machine_that_slept_finds_the_one_that_has_its_place(start: Start, site: Site) -> None:
    both = start(transport="stripe")
    copy = second(both, site)
    both.run(5.0)
    both.suspend("cl", 60.0)
    assert state(copy) == "up"
    both.run(30.0)
    assert (both.state, state(copy)) == ("down", "up")
    both.stop_other("c2", silently=False)
    both.wait(lambda: both.state == "up", 10.0, "up")


def test_a_machine_that_was_set_back_to_a_snapshot_gets_its_place_back(start: Start) -> None:
    both = start(transport="quic", probes=False)
    for _ in range(5):
        both.processes["cl"].call(lambda: both.client.reconnect(silent=False))
        both.run(3.0)
    both.run(10.0)
    incarnation = both.client._incarnation
    assert incarnation.epoch == 6

    def revert() -> None:
        both.client._paths[0].drop_current(None)
        incarnation.epoch = 2
        both.client._paths[0].connector.retry.changed()
        both.client._iterate()

    both.processes["cl"].call(revert)
    both.wait(lambda: both.state == "up", 2.0, "up")
    assert (incarnation.epoch, both.client.counters()["attempts"]) == (3, 3)


def test_a_machine_that_has_its_place_is_not_confused_by_an_epoch_that_is_used_up(start: Start) -> None:
    both = start(transport="quic", probes=False)
    both.run(10.0)
    states, boot_id = both.states(), both.client._incarnation.boot_id
    both.client._incarnation.epoch = 0
    both.processes["cl"].call(lambda: both.client.reconnect(silent=False))
    both.wait(lambda: both.client.status()["reconnects"] == 1, 10.0, "reconnected")
    assert (states, both.client._incarnation.boot_id) == ([], boot_id)


def test_a_machine_is_not_in_its_own_way(start: Start) -> None:
    """It was set back, and the server still hears its old connection, on which it hears nothing."""
    both = start(transport="quic", probes=False, probe_interval_ms=100)
    both.run(10.0)
    deaf = both.client._paths[0].current.socket.local_address
    both.network.lost = lambda _source, destination: destination == deaf
    both.client._incarnation.epoch = 0
    both.wait(lambda: both.state == "down", 10.0, "down")
    both.wait(lambda: "another machine" in str(both.client.status()["error"]), 5.0, "refused")
    both.wait(lambda: both.state == "up", 10.0, "up")
    both.run(10.0)
    assert both.state == "up"


def test_a_machine_of_which_only_resting_pipes_are_left_replies_by_them(start: Start, site: Site) -> None:
    both = start(transport="stripe", probes=False)
    both.run(10.0)
    both.network.lost = lambda source, destination: (
        QUIC_PORT in (source[1], destination[1]) and CLIENT in (source[0], destination[0])
    )
    both.run(2.0)
    for number in range(5):
        copy = second(both, site)
        both.run(1.0 + 0.3 * number)
        assert state(copy) == "down"
        both.stop_other("c2", silently=True)
    assert held_by(both) == CLIENT


def test_a_fault_while_a_client_is_probed_ends_its_session_alone(
    start: Start, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """`Process.run` fails on anything that reaches the loop's exception handler."""
    both = start(transport="stripe", probes=False)
    (connection,) = both.server._connections
    assert connection.plane is not None
    connection.plane.session.ask = broken
    second(both, site)
    both.wait(lambda: "fault" in caplog.text, 5.0, "a fault")
    both.run(2.0)
    assert connection not in both.server._connections


def test_attempts_of_one_process_that_wait_together_leave_nothing(start: Start, site: Site) -> None:
    both = start(transport="quic", probes=False)
    both.network.lost = lambda source, destination: CLIENT in (source[0], destination[0])
    copy = second(both, site)
    both.wait(lambda: both.server._registry.admission.waiting == 1, 2.0, "waiting")
    both.processes["c2"].call(lambda: copy.reconnect(silent=True))
    both.wait(lambda: both.server._registry.admission.waiting == 2, 2.0, "two waiting")
    both.wait(lambda: state(copy) == "up", 2.0, "up")
    both.run(0.2)
    assert both.server._registry.admission.due == float("inf")
    assert both.server._registry.admission._takeovers._outcomes == {}


def test_copies_of_a_running_machine_do_not_take_turns(start: Start, site: Site) -> None:
    """They have one boot id, and each has newer epochs than the other at times."""
    both = start(transport="quic", probes=False)
    copy = second(both, site)
    both.processes["c2"].call(lambda: copy._paths[0].drop_candidate(None))
    original = both.client._incarnation
    copy._incarnation.boot_id, copy._incarnation.epoch = original.boot_id, original.epoch
    copy._incarnation.registered()
    both.run(30.0)
    registrations = both.server.counters()["registrations"]
    both.run(120.0)
    assert both.server.counters()["registrations"] == registrations
    assert {both.state, state(copy)} == {"up", "down"}
    assert copy._incarnation.boot_id != original.boot_id


def hand_over(both: Ends, seconds: float = 600.0, who: str = "site1") -> Any:
    return both.server.hand_over(who, None, seconds, "alice")


@both_planes
def test_an_operator_hands_an_identity_over_and_back(
    start: Start, site: Site, transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    both = start(transport=transport)
    copy = second(both, site)
    both.run(5.0)
    with caplog.at_level(logging.INFO, "mpquic"):
        rows = hand_over(both)
        assert [(row["identity"], row["tunnel"]) for row in rows] == [KEY]
        assert peer_row(both)["handover_until"] is not None
        both.wait(lambda: state(copy) == "up", 5.0, "up")
        both.run(1.0)
    opened = next(fields(record) for record in caplog.records if record.message == "handover.open")
    assert opened["by"] == "alice"
    assert any(record.message == "client.handed_over" for record in caplog.records)
    assert "an operator has handed" in str(both.client.status()["error"])
    assert SECOND in str(both.client.status()["error"])
    before = both.client.counters()["attempts"]
    both.run(120.0)
    assert both.state == "down"
    assert f"handed this identity (site1 mpq9) over to another machine at {SECOND}" in str(
        both.client.status()["error"]
    )
    assert both.client.counters()["attempts"] - before <= 6
    # It is refused when the other one is gone, too.
    both.network.lost = lambda source, destination: SECOND in (source[0], destination[0])
    both.run(60.0)
    assert both.state == "down"
    both.network.heal()
    both.wait(lambda: state(copy) == "up", 20.0, "up")
    hand_over(both, who=IDENTITY)
    both.wait(lambda: both.state == "up", 40.0, "up")
    both.run(120.0)
    assert (both.state, state(copy)) == ("up", "down")


def test_a_handover_to_a_machine_that_waits_refuses_none_of_its_connections(
    start: Start, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """It registers by another connection than the one that waits, before the first machine has been silent for long."""
    both = start(transport="quic", probes=False)
    both.network.lost = lambda source, destination: CLIENT in (source[0], destination[0])
    copy = second(both, site)
    both.wait(lambda: both.server._registry.admission.waiting == 1, 2.0, "waiting")
    (waiting,) = (each for each in both.server._connections if each.admitted is None)
    hand_over(both)
    with caplog.at_level(logging.INFO, "mpquic"):
        both.processes["c2"].call(lambda: copy.reconnect(silent=True))
        both.wait(lambda: held_by(both) == SECOND, 0.3, "handed over")
        both.run(10.0)
    assert (state(copy), held_by(both)) == ("up", SECOND)
    assert waiting.refusal is None or waiting.refusal.code == "stale"
    assert not any(
        fields(record)["reason"].startswith("in_use") for record in caplog.records if "refused" in record.msg
    )
    assert both.server._registry.admission._takeovers._refused == {}


def test_what_was_handed_over_stays_so_after_a_restart_of_the_server(start: Start, site: Site) -> None:
    both = start(transport="quic")
    copy = second(both, site)
    hand_over(both)
    both.wait(lambda: state(copy) == "up", 10.0, "up")
    both.restart_server()
    (record,) = decode((site.state_folder / "sv.json").read_bytes())
    assert len(record.former) == 1
    both.network.lost = lambda source, destination: SECOND in (source[0], destination[0])
    both.run(60.0)
    assert both.state == "down"
    both.network.heal()
    both.wait(lambda: state(copy) == "up", 30.0, "up")


def test_a_handover_ends_by_itself(start: Start, site: Site) -> None:
    both = start(transport="quic")
    hand_over(both, 60.0)
    both.run(61.0)
    copy = second(both, site)
    both.run(20.0)
    assert (both.state, state(copy)) == ("up", "down")
    assert peer_row(both)["handover_until"] is None


def test_a_handover_needs_a_client_that_is_known_and_was_there(start: Start) -> None:
    peers = [
        {"identity": IDENTITY, "tunnel": "mpq9", "allowed": ["10.200.9.1/32", "fd09::1/128"]},
        {"identity": "urn:mpquic:site:site2", "tunnel": "mpq8", "allowed": ["10.200.8.1/32"]},
    ]
    both = start(transport="quic", probes=False, server={"peers": peers})
    with pytest.raises(RequestError, match="no client site3 here"):
        hand_over(both, who="site3")
    with pytest.raises(RequestError, match="never been connected"):
        hand_over(both, who="site2")
    with pytest.raises(RequestError, match="no client site1 with tunnel mpq7"):
        both.server.hand_over("site1", "mpq7", 60.0, "alice")
    with pytest.raises(RequestError, match="ask the server"):
        both.client.hand_over("site1", None, 60.0, "alice")


def test_a_certificate_that_is_revoked_while_its_owner_waits_is_refused(start: Start, site: Site) -> None:
    both = start(transport="quic", probes=False)
    both.network.lost = lambda source, destination: CLIENT in (source[0], destination[0])
    copy = second(both, site)
    both.wait(lambda: both.server._registry.admission.waiting, 2.0, "waiting")
    revoked = site.directory / "revoked"
    revoked.write_text(f"{serial_of(site, 'client'):x}\n")
    config: Any = load(site.server_config(tls={**server_tls(site), "revoked_file": str(revoked)}))
    both.processes["sv"].call(lambda: both.server.apply(config))
    both.run(1.0)
    assert state(copy) == "down"
    assert str(copy.status()["error"]).startswith("authentication: ")
    assert (both.server._registry.admission.waiting, both.server.paths()) == (0, [])
