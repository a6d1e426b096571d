"""Daemons that die and paths that go silent: how long LAN hosts notice it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from mpqlab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpqlab.testing import Download, Lab, Probe


STRIPED_WITHIN = 2
"""Seconds in which a tunnel is striped again once its path answers."""


def kill(lab: Lab, node: str, unit: str) -> float:
    """Unix time at which the unit's process was killed by SIGKILL."""
    pid = lab.run(node, f"systemctl show -P MainPID {unit}").strip()
    assert int(pid) > 0
    moment = time.time()
    lab.run(node, f"kill -9 {pid}")
    return moment


@pytest.mark.parametrize("lan", [5, 6])
def test_killed_client_daemon_carries_again_within_3_s(lab: Lab, probe: Callable[[int], Probe], lan: int) -> None:
    traffic = probe(lan)
    killed = kill(lab, "client", f"mpquic@mpq{lan}")
    traffic.wait_replies(20, within=10, after=killed + 0.3)
    assert traffic.longest_gap(killed) <= 3


def test_killed_server_daemon_has_all_clients_back_within_5_s(lab: Lab, probe: Callable[[int], Probe]) -> None:
    traffic = {lan: probe(lan) for lan in (4, 5, 6)}
    for lan, running in traffic.items():
        killed = kill(lab, "vps", f"mpquic@mpq{lan}")
        running.wait_replies(20, within=15, after=killed + 0.3)
        assert running.longest_gap(killed) <= 5


def stale(lab: Lab, tunnel: str) -> dict[str, Any]:
    """What both ends of a striped tunnel have refused, or taken for something old."""
    client, vps = lab.daemon_counters(tunnel, "client"), lab.daemon_counters(tunnel, "vps")
    return {
        "client's pipes": lab.stripe(tunnel)["refused"],
        "client's tunnel": [client["tunnel"][name] for name in ("rx_late", "rx_duplicates")],
        "VPS's port": vps["stripe"]["refused"],
        "VPS's pipes": lab.stripe(tunnel, "vps")["refused"],
        "VPS's tunnel": [vps["tunnel"][name] for name in ("rx_late", "rx_duplicates")],
    }


@pytest.mark.parametrize(("node", "within"), [("client", 3), ("vps", 5)])
def test_killed_daemon_of_a_striped_tunnel_begins_a_session_without_a_past(
    lab: Lab, probe: Callable[[int], Probe], node: str, within: float
) -> None:
    traffic = probe(6)
    session = lab.wait_striping("mpq6", within=10)
    killed = kill(lab, node, "mpquic@mpq6")
    lab.wait_striping("mpq6", killed + within - time.time(), other_than=session)
    traffic.wait_replies(20, within=10, after=time.time())
    assert traffic.longest_gap(killed) <= within
    assert lab.daemon_counters("mpq6", "vps")["tables"]["stripe_sessions"] == 1

    before, shards = stale(lab, "mpq6"), lab.stripe("mpq6")["rx_shards"]
    traffic.wait_replies(40, within=10, after=time.time())
    assert lab.stripe("mpq6")["rx_shards"] >= shards + 40
    assert stale(lab, "mpq6") == before


def test_silent_cut_of_60_s_is_seen_and_survived(lab: Lab, download: Callable[..., Download]) -> None:
    size = 20_000_000
    running = {wan: download(int(wan[-1]), size, "1M") for wan in ("wan5", "wan6")}
    for wan, transfer in running.items():
        lab.wait_state(wan.replace("wan", "mpq"), "up", within=10)
        transfer.wait_bytes(2_000_000, within=20)

    for wan in running:
        lab.link("cut", wan)
        lab.wait_state(wan.replace("wan", "mpq"), "down", within=5)
    cut = time.monotonic()
    while (left := cut + 60 - time.monotonic()) > 0:
        time.sleep(min(left, 1))
        states = {name: row["state"] for name, row in lab.status().items()}
        assert states["mpq4"] == "up"
        assert "up" not in (states["mpq5"], states["mpq6"])

    healed: dict[str, float] = {}
    for wan in running:
        healed[wan] = time.time()
        lab.link("heal", wan)
        lab.wait_state(wan.replace("wan", "mpq"), "up", within=3)
    lab.wait_striping("mpq6", within=5)
    assert lab.striped_at("mpq6", after=healed["wan6"]) - healed["wan6"] <= STRIPED_WITHIN
    for transfer in running.values():
        transfer.finish(within=120)
        assert transfer.received == size


def test_an_idle_tunnel_whose_session_both_ends_have_forgotten_is_striped_again_within_2_s(lab: Lab) -> None:
    session = lab.wait_striping("mpq6", within=10)
    cut = time.monotonic()
    lab.link("cut", "wan6")
    # Both ends forget a session after 30 s of silence, the server up to 5 s later, when it looks for such sessions.
    wait_for(lambda: lab.daemon_counters("mpq6", "vps")["tables"]["stripe_sessions"] == 0, 45, "forgotten")
    assert time.monotonic() - cut > 25
    healed = time.time()
    lab.link("heal", "wan6")
    assert lab.wait_striping("mpq6", within=5) != session
    assert lab.striped_at("mpq6", after=healed) - healed <= STRIPED_WITHIN
