"""What is remembered of peers: states, flaps, and what is on disk."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpquic.daemon import peer_file
from mpquic.daemon.peer_log import LONGEST, SECOND_MACHINE_SHOWN, PeerLog, Record, told_hold
from mpquic.daemon.period import lasting
from mpquic.hold import Hold
from mpquic.proto.control import messages as control
from mpquic.proto.control.messages import Held

from .test_outages import ends

if TYPE_CHECKING:
    from collections.abc import Callable

    from .virtual import Ends

    Make = Callable[..., Ends]

__all__ = ["ends"]

KEYS = [("urn:mpquic:site:a", "mpq5"), ("urn:mpquic:site:a", "mpq6"), ("urn:mpquic:site:b", "mpq5")]
A = KEYS[0]
WALL = 1_800_000_000.0


def log(*records: Record, now: float = 100.0, wall: float = WALL) -> PeerLog:
    return PeerLog(KEYS, records, now=now, wall=wall)


def hold(**changes: Any) -> Hold:
    return Hold(**{"by": "alice", "reason": "", "since": WALL, **changes})


def test_a_peer_goes_from_never_to_up_to_silent_to_up() -> None:
    known = log()
    states = [known[A].state]
    known.registered(A, 110.0)
    states.append(known[A].state)
    known.lost(A, 123.0, heard=120.0)
    states.append(known[A].state)
    assert (known[A].since, known[A].heard, known[A].flaps) == (123.0, 120.0, 1)
    known.carries(A, 130.0)
    states.append(known[A].state)
    assert states == ["never", "up", "silent", "up"]
    known.lost(A, 140.0, heard=140.0, reason="it said goodbye")
    assert (known[A].state, known[A].error, known[A].flaps, known.flaps) == ("down", "it said goodbye", 2, 2)


def test_silence_that_goes_on_is_one_flap_and_does_not_begin_anew() -> None:
    known = log()
    known.registered(A, 110.0)
    assert known.lost(A, 123.0, heard=120.0)
    assert not known.lost(A, 200.0, heard=120.0)
    assert (known[A].since, known[A].flaps) == (123.0, 1)


def test_another_connection_of_a_peer_that_is_up_changes_nothing() -> None:
    known = log()
    assert known.registered(A, 110.0)
    assert not known.registered(A, 150.0)
    assert known[A].since == 110.0


def test_a_hold_counts_while_the_peer_is_not_up_and_until_its_end() -> None:
    known = log()
    known.registered(A, 110.0)
    known.held(A, hold(until=WALL + 60), 110.5)
    assert known[A].shown_state(WALL) == "up"
    known.lost(A, 111.0, heard=111.0, reason="it said goodbye")
    assert [known[A].shown_state(WALL + seconds) for seconds in (0, 59, 60)] == ["held", "held", "down"]
    assert (known.next_end(WALL), known.next_end(WALL + 60)) == (WALL + 60, None)
    known.registered(A, 120.0)
    assert (known[A].shown_state(WALL), known[A].hold) == ("up", None)


def test_nobody_but_those_of_the_configuration_is_remembered() -> None:
    unknown = ("urn:mpquic:site:x", "mpq5")
    known = log(Record(identity=unknown[0], tunnel=unknown[1], state="up", since=0.0))
    known.registered(unknown, 1.0)
    known.held(unknown, hold(), 1.0)
    known.refused(unknown, "no")
    assert known.records(100.0, WALL) == []
    known.registered(A, 110.0)
    known.keep(KEYS[1:], 120.0)
    assert known.records(120.0, WALL) == []


def test_a_restart_makes_silent_of_up_and_keeps_the_rest() -> None:
    before = log(now=1000.0)
    before.registered(KEYS[0], 1010.0)
    before[KEYS[0]].heard = 1090.0
    before.registered(KEYS[1], 1020.0)
    before.lost(KEYS[1], 1030.0, heard=1030.0, reason="it said goodbye")
    before.held(KEYS[1], hold(), 1030.0)
    # The machine was booted meanwhile: its clock since the boot began anew, 500 s later.
    after = PeerLog(KEYS, before.records(1100.0, WALL), now=7.0, wall=WALL + 500)
    assert [after[key].shown_state(WALL) for key in KEYS] == ["silent", "held", "never"]
    assert (after[KEYS[0]].heard, after[KEYS[0]].since) == (pytest.approx(-503.0), pytest.approx(-503.0))
    assert after[KEYS[1]].since == pytest.approx(-563.0)
    assert [after[key].flaps for key in KEYS] == [0, 0, 0]


def test_a_record_of_the_future_is_of_now() -> None:
    known = log(Record(identity=A[0], tunnel=A[1], state="down", since=WALL + 1e6, heard=1e300), now=50.0)
    assert (known[A].since, known[A].heard) == (50.0, 50.0)


def test_a_record_of_long_ago_can_still_be_shown() -> None:
    known = log(Record(identity=A[0], tunnel=A[1], state="down", since=-1e300), now=50.0)
    assert lasting(50.0 - known[A].since)["duration_seconds"] == pytest.approx(LONGEST)


TEXTS = st.text(max_size=40)
TIMES = st.floats(0, 253402300799)
HOLDS = st.builds(
    Hold,
    by=st.text(min_size=1, max_size=64),
    reason=st.text(max_size=200),
    since=TIMES,
    until=st.none() | TIMES,
    origin=st.sampled_from(["operator", "mask", "variables"]),
)
RECORDS = st.builds(
    Record,
    identity=TEXTS,
    tunnel=TEXTS,
    state=st.sampled_from(["up", "silent", "down"]),
    since=TIMES,
    heard=st.none() | TIMES,
    hold=st.none() | HOLDS,
    error=st.none() | TEXTS,
)


@given(st.lists(RECORDS, max_size=5))
def test_what_is_kept_comes_back(records: list[Record]) -> None:
    assert peer_file.decode(peer_file.encode(records)) == records


@given(st.binary(max_size=200), st.lists(RECORDS, min_size=1, max_size=2), st.integers(0, 2000))
def test_a_damaged_file_tells_nothing_and_raises_nothing(noise: bytes, records: list[Record], at: int) -> None:
    good = peer_file.encode(records)
    at %= len(good)
    for data in (noise, good[:at], good[:at] + noise + good[at:]):
        for record in peer_file.decode(data):
            PeerLog([(record.identity, record.tunnel)], [record], now=1.0, wall=WALL).records(2.0, WALL)


@given(HOLDS, TIMES)
def test_a_hold_arrives_as_it_was_sent_but_for_what_is_not_printable(sent: Hold, wall: float) -> None:
    message = Held(by=sent.by, reason=sent.reason, since=sent.since, until=sent.until, origin=sent.origin)
    ((_, received),) = control.ControlDecoder().feed(control.encode(message, 7))
    assert isinstance(received, Held)
    found = told_hold(received, wall)
    assert (found.until, found.origin, found.since) == (sent.until, sent.origin, min(sent.since, wall))
    assert found.by.isprintable()
    assert found.reason.isprintable()
    assert peer_file.decode(peer_file.encode([Record(identity="i", tunnel="t", state="down", since=0, hold=found)]))
    if sent.reason.isprintable():
        assert found.reason == sent.reason


def test_an_origin_of_a_later_version_is_an_operator() -> None:
    assert told_hold(Held(by="x", reason="", since=0.0, origin="schedule"), 1.0).origin == "operator"


# A second machine


def test_a_second_machine_is_shown_for_a_while_and_counted_meanwhile() -> None:
    peers = log()
    assert peers.second_machine_refused(A, "192.0.2.9:1", 200.0)
    assert not peers.second_machine_refused(A, "192.0.2.9:\x1b[2J", 204.0)
    shown = peers[A].second_machine_shown(204.0 + SECOND_MACHINE_SHOWN - 1.0)
    assert shown is not None
    assert (shown.attempts, shown.peer) == (2, "192.0.2.9:\\x1b[2J")
    assert peers[A].second_machine_shown(204.0 + SECOND_MACHINE_SHOWN) is None
    assert peers.second_machine_refused(A, "192.0.2.9:1", 204.0 + SECOND_MACHINE_SHOWN)
    assert not peers.second_machine_refused(("urn:mpquic:site:unknown", "mpq5"), "192.0.2.9:1", 200.0)


def test_which_machine_has_an_identity_outlives_the_process() -> None:
    peers = log()
    peers.registered(A, 100.0)
    peers[A].handover.registered(b"o" * 16, takes_over=False)
    peers[A].handover.registered(b"n" * 16, takes_over=True)
    kept = peer_file.decode(peer_file.encode(peers.records(100.0, WALL)))
    handover = log(*kept)[A].handover
    assert (handover.boot_id, handover.former, handover.until) == (b"n" * 16, (b"o" * 16,), None)


@pytest.mark.parametrize("boot_id", ['"xyz"', '"00"', '"' + "0" * 33 + '"', "7"])
def test_a_file_with_a_boot_id_that_is_none_is_damaged(boot_id: str) -> None:
    record = f'{{"identity": "a", "tunnel": "b", "state": "up", "since": 1.0, "boot_id": {boot_id}}}'
    assert peer_file.decode(f'{{"version": 1, "peers": [{record}]}}'.encode()) == []


# At both ends of a tunnel


def flaps(both: Ends) -> tuple[object, object, object, object]:
    client, server = both.client.status(), both.server.status()
    peers: Any = server["peers"]
    assert both.client.counters()["flaps"] == client["flaps"]
    assert both.server.counters()["flaps"] == server["flaps"]
    return client["flaps"], client["reconnects"], server["flaps"], peers[0]["flaps"]


def test_a_silence_that_ends_on_the_same_connection_is_a_flap_and_no_reconnect(ends: Make) -> None:
    both = ends(striped=False, transport="quic")
    port = both.client._paths[0].current.socket.local_address[1]
    both.network.cut()
    both.wait(lambda: both.state == "down", 6.0, "down")
    # Those that are to take its place get no reply.
    both.network.lost = lambda source, destination: port not in (source[1], destination[1])
    both.wait(lambda: both.state == "up", 5.0, "up")
    both.run(5.0)
    assert flaps(both) == (1, 0, 1, 1)


def test_a_handover_is_no_flap(ends: Make) -> None:
    both = ends(striped=False, transport="quic")
    both.processes["cl"].call(lambda: both.client.reconnect(silent=False))
    both.wait(lambda: both.client.status()["reconnects"] == 1, 5.0, "reconnected")
    both.run(5.0)
    assert flaps(both) == (0, 1, 0, 0)


def test_the_counters_are_those_of_the_document(ends: Make) -> None:
    both = ends()
    for role, counters in (("client", both.client.counters()), ("server", both.server.counters())):
        page = (Path(__file__).parents[3] / "docs/mpquicctl.md").read_text()
        (rows,) = re.findall(rf"^\| `mpquicctl counters` of a {role} .*?(?=^$)", page, re.MULTILINE | re.DOTALL)
        documented = [name for row in rows.splitlines()[2:] for name in re.findall(r"`([a-z_]+)`", row.split("|")[1])]
        assert sorted(documented) == sorted(counters)
    (path,) = both.client.counters()["paths"]  # type: ignore[misc]
    assert path["rtt_seconds"] == pytest.approx(2 * both.network.delay, rel=0.5)
