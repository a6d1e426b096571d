"""The tunnel over two WANs when one of them fails, or a daemon dies: how long a host on its VLAN notices it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from mpqlab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpqlab.testing import Lab, Probe

SOURCE = "192.168.17.2"
LEFT_WITHIN = 2.0
BACK_WITHIN = 5.0
TIMES = 3


@pytest.fixture
def traffic(lab: Lab, probe: Callable[..., Probe]) -> Probe:
    """A ping by mp1, whose paths are both up and which goes by WAN5."""
    lab.wait_state("mp1", "up", within=15)
    wait_for(lambda: set(states(lab).values()) == {"up"}, 15, "both paths of mp1 up")
    running: Probe = probe(1, source=SOURCE)
    wait_for(lambda: carrying(lab) == "wan5", 5, "mp1 by WAN5")
    return running


def states(lab: Lab, node: str = "client") -> dict[str, str]:
    """The states of mp1's paths."""
    rows = json.loads(lab.run(node, "mpquicctl paths --json"))
    return {row["path"]: row["state"] for row in rows if row["instance"] == "mp1"}


def carrying(lab: Lab) -> str | None:
    """The WAN by which mp1 sends data now, None while that can't be told."""

    def sent() -> dict[str, int]:
        rows = json.loads(lab.run("client", "mpquicctl paths --json"))
        return {row["path"]: (row["stripe"] or {}).get("tx_data_shards", 0) for row in rows if row["instance"] == "mp1"}

    before = sent()
    time.sleep(0.3)
    moved = {path: count - before.get(path, 0) for path, count in sent().items()}
    busy = [path for path, count in moved.items() if count >= 3]
    return busy[0] if len(busy) == 1 else None


@pytest.mark.parametrize("fault", [("cut",), ("cut", "up"), ("cut", "down"), ("unplug",)])
def test_traffic_leaves_a_wan_that_fails_and_comes_back(lab: Lab, traffic: Probe, fault: tuple[str, ...]) -> None:
    flaps = lab.status()["mp1"]["flaps"]
    failed = time.time()
    verb, *how = fault
    lab.link(verb, "wan5", *how)
    traffic.wait_replies(100, within=20, after=failed + 1)
    assert traffic.longest_gap(failed) <= LEFT_WITHIN
    wait_for(lambda: states(lab).get("wan5") != "up", 5, "WAN5's path down")
    healed = time.time()
    lab.heal()
    wait_for(lambda: states(lab).get("wan5") == "up", BACK_WITHIN + (5 if verb == "unplug" else 0), "WAN5's path up")
    wait_for(lambda: carrying(lab) == "wan5", BACK_WITHIN, "mp1 by WAN5 again")
    traffic.wait_replies(40, within=10, after=time.time())
    assert traffic.longest_gap(healed) < 1.0
    assert traffic.repeated() == 0
    assert lab.status()["mp1"]["flaps"] == flaps


@pytest.mark.parametrize(("node", "within"), [("client", 3), ("vps", 5)])
def test_a_killed_daemon_carries_again(lab: Lab, traffic: Probe, node: str, within: float) -> None:
    pid = lab.run(node, "systemctl show -P MainPID mpquic@mp1").strip()
    killed = time.time()
    lab.run(node, f"kill -9 {pid}")
    traffic.wait_replies(20, within=10, after=killed + 0.3)
    assert traffic.longest_gap(killed) <= within
    wait_for(lambda: set(states(lab).values()) == {"up"}, 10, "both paths of mp1 up")


@pytest.mark.parametrize("fault", ["kill -s KILL", "restart", "reload"])
def test_what_happens_to_one_of_two_tunnels_on_a_wan_is_not_the_others(
    lab: Lab, probe: Callable[..., Probe], fault: str
) -> None:
    lab.wait_state("mpq5", "up", within=15)
    other = probe(5, interval=0.01)
    began = time.time()
    for _ in range(TIMES):
        # So often in a row that systemd would start it no more (StartLimitBurst).
        lab.run("client", f"systemctl reset-failed mpquic@mp1; systemctl {fault} mpquic@mp1")
        lab.wait_state("mp1", "up", within=20)
    other.wait_replies(100, within=10, after=time.time())
    assert other.lost(began) == 0
    assert other.repeated() == 0
