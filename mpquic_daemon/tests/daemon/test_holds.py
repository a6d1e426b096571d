"""A tunnel that is out of service on purpose: the other end learns of it, remembers it, and forgets it in time."""

from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from mpquic.daemon import peer_file
from mpquic.daemon.client import Client
from mpquic.daemon.peer_log import PeerLog
from mpquic.hold import Hold
from mpquic.proto.control import messages as control
from mpquic.proto.control.messages import Held, Probe

from .conftest import IDENTITY, Site, running, site
from .virtual import CLIENT, Ends

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Make = Callable[..., Ends]

__all__ = ["running", "site"]

PLANES: dict[str, dict[str, object]] = {
    "datagram": {"transport": "quic"},
    "reliable": {"transport": "quic", "transport_mode": "reliable"},
    "stripe": {"transport": "stripe"},
}
ROLES = ("cl", "sv")
WORDS = "held by alice: the dish is moved"


def hold(**changes: Any) -> Hold:
    return Hold(**{"by": "alice", "reason": "the dish is moved", "since": time.time() - 60, **changes})


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    monkeypatch.setenv(peer_file.DIRECTORY_VARIABLE, str(folder))
    return folder


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Make]:
    made: list[Ends] = []

    def make(**settings: object) -> Ends:
        both = Ends(Site(tmp_path), **{"transport": "quic", "probes": False, **settings})
        made.append(both)
        both.wait(lambda: both.state == "up", 5.0, "up")
        both.run(3.0)
        return both

    yield make
    for both in made:
        both.close()


def role(both: Ends, name: str) -> Any:
    return both.client if name == "cl" else both.server


def stop(both: Ends, name: str, held: Hold | None) -> float:
    """Stop one end as SIGTERM does, let the other find out, and have the end never stop again; seconds that it took."""
    process, ending = both.processes[name], role(both, name)
    task = process.loop.create_task(ending.stop(held))
    process.wake()
    took = both.wait(task.done, 3.0, "stopped")
    task.result()
    both.stopped.add(name)
    both.run(0.5)
    return took


def seen(both: Ends, name: str) -> dict[str, Any]:
    """What the other end than `name` shows of it."""
    status: dict[str, Any] = both.client.status() if name == "sv" else both.server.status()["peers"][0]
    return status


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("name", ROLES)
def test_the_other_end_shows_the_hold_in_place_of_down(ends: Make, plane: str, name: str) -> None:
    both = ends(**PLANES[plane])
    held = hold(until=time.time() + 7200)
    assert stop(both, name, held) < 0.2
    shown = seen(both, name)
    assert (shown["state"], shown["hold_at"]) == ("held", "peer")
    assert shown["error"].startswith("held by alice until 20")
    assert shown["error"].endswith("Z: the dish is moved")
    assert {key: shown["hold"][key] for key in ("by", "reason", "origin")} == {
        "by": "alice",
        "reason": "the dish is moved",
        "origin": "operator",
    }
    both.run(120.0)
    assert seen(both, name)["state"] == "held"


@pytest.mark.parametrize("name", ROLES)
def test_a_stop_without_a_hold_is_no_hold(ends: Make, name: str) -> None:
    both = ends()
    stop(both, name, None)
    assert (seen(both, name)["state"], seen(both, name)["hold"]) == ("down", None)


@pytest.mark.parametrize("name", ROLES)
def test_a_hold_that_is_lost_in_an_outage_is_not_known(ends: Make, name: str) -> None:
    both = ends()
    both.network.cut()
    assert 1.9 < stop(both, name, hold()) < 2.5
    both.network.heal()
    both.run(10.0)
    shown = seen(both, name)
    assert shown["state"] == ("down" if name == "sv" else "silent")
    assert shown["hold"] is None


def test_a_silent_peer_is_not_waited_for(ends: Make) -> None:
    both = ends()
    both.network.cut()
    both.run(10.0)
    assert stop(both, "cl", hold()) < 0.1


@pytest.mark.parametrize("name", ROLES)
def test_the_message_is_sent_again_when_packets_are_lost(ends: Make, name: str) -> None:
    both = ends()
    lost = {"left": 3}

    def first_ones(source: tuple[str, int], _destination: tuple[str, int]) -> bool:
        ours = (source[0] == CLIENT) == (name == "cl")
        lost["left"] -= ours
        return ours and lost["left"] >= 0

    both.network.lost = first_ones
    stop(both, name, hold())
    assert lost["left"] < 0
    assert seen(both, name)["state"] == "held"


@pytest.mark.parametrize("name", ROLES)
def test_the_hold_is_still_known_after_a_restart_of_whoever_was_told(ends: Make, name: str) -> None:
    both = ends()
    stop(both, name, hold())
    if name == "cl":
        both.restart_server()
    else:
        restart_client(both)
    both.run(1.0)
    assert (seen(both, name)["state"], seen(both, name)["error"]) == ("held", WORDS)


def restart_client(both: Ends) -> None:
    if "cl" not in both.stopped:
        stop(both, "cl", None)
    both.stopped.discard("cl")
    old = both.client

    def make() -> None:
        both.client = Client(old._config, old._journal, lambda: None, both.fatal.append, old._kernel)
        both.client.start()

    both.processes["cl"].call(make)


@pytest.mark.parametrize("name", ROLES)
def test_the_hold_ends_when_the_peer_connects_again(ends: Make, name: str, state: Path) -> None:
    both = ends()
    stop(both, name, hold())
    if name == "cl":
        restart_client(both)
    else:
        both.restart_server()
    both.wait(lambda: both.state == "up", 20.0, "up")
    both.run(15.0)
    for each in ROLES:
        assert (seen(both, each)["state"], seen(both, each)["hold"]) == ("up", None)
    assert "alice" not in "".join(path.read_text() for path in state.iterdir())


@pytest.mark.parametrize("name", ROLES)
def test_the_hold_ends_at_its_time(ends: Make, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    both = ends()
    stop(both, name, hold(until=time.time() + 30))
    told: list[str] = []

    def tell() -> None:
        told.append(seen(both, name)["state"])

    if name == "cl":
        both.server._announcer._tell = tell
    else:
        both.client._on_change = tell
    assert seen(both, name)["state"] == "held"
    began, real = both.now, time.time()
    monkeypatch.setattr("time.time", lambda: real + both.now - began)
    both.run(40.0)
    assert (seen(both, name)["state"], seen(both, name)["hold"]) == ("down", None)
    assert told[-1] == "down", "whoever watches hears of it"


def test_a_server_tells_all_its_clients_and_a_client_goes_on_trying(ends: Make) -> None:
    both = ends()
    stop(both, "sv", hold())
    before = both.client.counters()["attempts"]
    both.run(30.0)
    assert both.client.counters()["attempts"] > before + 3
    assert both.state == "held"


def test_a_peer_of_an_older_version_is_left_as_soon_as_it_has_replied(
    ends: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = ends()
    monkeypatch.delitem(control._DECODERS, "held")
    assert stop(both, "cl", hold()) < 0.2
    assert seen(both, "cl")["state"] == "down"


@pytest.mark.parametrize("name", ROLES)
def test_an_end_that_goes_on_after_its_word_is_not_held_when_it_falls_silent_later(ends: Make, name: str) -> None:
    both = ends()
    ending = role(both, name)
    sessions = both.server._registry.sessions if name == "sv" else both.client._registered_sessions()
    both.processes[name].call(lambda: [session.tell(told()) for session in sessions])
    both.processes[name].call(ending._iterate)
    both.run(70.0)
    assert seen(both, name)["state"] == "up"
    both.network.cut()
    both.run(10.0)
    assert seen(both, name)["state"] == ("down" if name == "sv" else "silent")


def test_a_server_that_refuses_is_no_longer_held(ends: Make) -> None:
    both = ends()
    stop(both, "sv", hold())
    assert both.state == "held"
    both.restart_server(peers=())
    both.wait(lambda: both.state == "down", 20.0, "down")
    assert "has no tunnel mpq9 here" in both.client.status()["error"]


# Who may say what


def send(both: Ends, *messages: object) -> None:
    """Have the client say something to the server."""
    session = both.client._paths[0].current.session
    both.processes["cl"].call(lambda: [session.send(message) for message in messages])
    both.processes["cl"].call(both.client._iterate)
    both.run(0.2)


def told(**changes: object) -> Held:
    return Held(**{"by": "mallory", "reason": "", "since": 0.0, **changes})


OTHER = "urn:mpquic:site:site2"
PEERS = [
    {"identity": IDENTITY, "tunnel": "mpq9", "allowed": ["10.200.9.1/32", "fd09::1/128"]},
    {"identity": IDENTITY, "tunnel": "mpq8", "allowed": ["10.200.8.1/32"]},
    {"identity": OTHER, "tunnel": "mpq9", "allowed": ["10.200.9.5/32"]},
]


def test_a_client_can_put_out_of_service_nobody_but_itself(ends: Make) -> None:
    both = ends(server={"peers": PEERS})
    send(both, told())
    stop(both, "cl", None)
    rows = both.server.status()["peers"]
    assert [(row["tunnel"], row["state"]) for row in rows] == [("mpq9", "held"), ("mpq8", "never"), ("mpq9", "never")]


def test_what_a_peer_says_is_cleaned_and_bounded(ends: Make) -> None:
    both = ends()
    send(both, told(by="\x1b[2J" * 16, reason="\n\x9b31m" + "\x07" * 190, since=9e10, until=253402300799.0))
    stop(both, "cl", None)
    (row,) = both.server.status()["peers"]
    assert row["state"] == "held"
    assert row["error"].isprintable()
    assert (len(row["hold"]["by"]), len(row["hold"]["reason"])) == (64, 200)
    # Without an argument gmtime reads a coarse clock, which is behind time.time() by up to a tick.
    assert row["hold"]["since"] <= time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time()))


@pytest.mark.parametrize(
    "fields",
    [
        {"by": ""},
        {"by": "x" * 65},
        {"reason": "x" * 201},
        {"since": -1.0},
        {"since": float("nan")},
        {"until": float("inf")},
        {"until": 1e300},
    ],
)
def test_a_hold_out_of_bounds_ends_the_connection_and_holds_nothing(ends: Make, fields: dict[str, object]) -> None:
    both = ends()
    send(both, told(**fields))
    both.run(2.0)
    assert both.client.status()["reconnects"] == 1
    stop(both, "cl", None)
    assert (seen(both, "cl")["state"], seen(both, "cl")["hold"]) == ("down", None)


def test_a_peer_that_says_much_is_written_rarely_and_little(
    ends: Make, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = ends()
    writes: list[int] = []
    monkeypatch.setattr(peer_file, "encode", lambda records, encode=peer_file.encode: _counted(encode(records), writes))
    both.run(20.0)
    writes.clear()
    for number in range(300):
        send(both, *(told(reason=f"{number} {index} " + "x" * 150) for index in range(3)))
    assert len(writes) <= 300 * 0.2 / peer_file.WRITE_INTERVAL + 2
    assert max(writes) < 2000
    assert {path.name for path in state.iterdir()} <= {"cl.json", "sv.json"}


def _counted(data: bytes, sizes: list[int]) -> bytes:
    sizes.append(len(data))
    return data


def test_what_a_peer_says_while_it_is_up_costs_no_look_at_all_the_others(
    ends: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = ends()
    looks: list[float] = []
    next_end = PeerLog.next_end
    monkeypatch.setattr(PeerLog, "next_end", lambda log, wall: looks.append(wall) or next_end(log, wall))
    send(both, *(told(reason=str(index)) for index in range(100)))
    assert looks == []
    stop(both, "cl", hold(reason="the dish is moved"))
    assert looks != []
    assert seen(both, "cl")["state"] == "held"


def test_the_receipt_is_no_ordinary_probe(ends: Make) -> None:
    both = ends()
    before = both.client.status()["loss_ratio"]
    send(both, Probe(sequence=(1 << 63) - 1))
    assert (both.state, both.client.status()["loss_ratio"]) == ("up", before)


# What is kept


def test_a_site_that_was_there_yesterday_is_not_said_to_have_never_come(ends: Make, state: Path) -> None:
    both = ends(server={"peers": PEERS})
    both.network.cut()
    both.run(10.0)
    both.restart_server()
    both.network.cut()
    both.run(1.0)
    rows = both.server.status()["peers"]
    assert [row["state"] for row in rows] == ["silent", "never", "never"]
    assert rows[0]["last_heard"] is not None
    assert 9.0 < rows[0]["duration_seconds"] + 3.5 < 16.0
    assert json.loads((state / "sv.json").read_text())["version"] == 1


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff" * 100, b'{"version": 2, "peers": []}', b"[" * 100000])
def test_a_damaged_file_is_no_fault(ends: Make, state: Path, damage: bytes) -> None:
    for name in ROLES:
        (state / f"{name}.json").write_bytes(damage)
    both = ends()
    assert (both.state, both.server.status()["peers"][0]["state"]) == ("up", "up")


def test_without_the_folder_nothing_is_kept_and_that_is_said_once(
    ends: Make, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state.rmdir()
    both = ends()
    stop(both, "cl", hold())
    both.run(60.0)
    assert seen(both, "cl")["state"] == "held"
    assert [record.message for record in caplog.records].count("peers.not_kept") <= 2


# A real process, which looks why it is stopped


@pytest.mark.root
@pytest.mark.parametrize("by_file", [False, True], ids=["record", "enabled: false"])
def test_a_process_that_is_stopped_tells_why(running: Site, by_file: bool) -> None:
    if by_file:
        running.client_config(enabled=False)
        words = "held by the variables: enabled: false"
    else:
        (running.holds / "cl.json").write_text(json.dumps(hold().plain()))
        words = WORDS
    assert running.kill("cl", signal.SIGTERM) == 0
    (running.holds / "cl.json").unlink(missing_ok=True)
    peer = running.ask("sv")["peers"][0]
    assert (peer["state"], peer["error"]) == ("held", words)


@pytest.mark.root
def test_a_process_that_is_stopped_for_no_hold_says_goodbye_alone(running: Site) -> None:
    (running.holds / "cl.json").write_text(json.dumps(hold(until=time.time() - 1).plain()))
    assert running.kill("cl", signal.SIGTERM) == 0
    (running.holds / "cl.json").unlink()
    assert running.ask("sv")["peers"][0]["state"] == "down"
