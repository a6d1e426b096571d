"""A client that reconnects for ever leaves nothing behind, on the server or with itself."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from mpqlab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from concurrent.futures import Future

    from mpqlab.testing import Lab

    Footprints = dict[str, dict[str, Any]]
    """What a tunnel's processes hold, by node."""

TABLES = {
    "groups": 1,
    "registered": 1,
    "tunnels": 1,
    "connections": 1,
    "quic_connections": 1,
    "unregistered": 0,
    "waiting_registrations": 0,
}
SESSIONS = {"mpq5": 0, "mpq6": 1}
"""The tunnels that reconnect, with the striped sessions that each one's server holds."""


def reconnect(lab: Lab, tunnel: str, times: int, *options: str) -> None:
    """Have a tunnel's client connect anew, each time when the connection before carries."""
    command = f"mpquicctl reconnect {tunnel} --times {times} --json {' '.join(options)}"
    assert json.loads(lab.run("client", command, timeout=300))["reconnects"] == times


def footprint(lab: Lab, tunnel: str, node: str) -> dict[str, Any]:
    """What a tunnel's process on a node holds."""
    pid = lab.run(node, f"systemctl show -P MainPID mpquic@{tunnel}").strip()
    return {
        "pid": pid,
        "descriptors": int(lab.run(node, f"ls /proc/{pid}/fd | wc -l")),
        "memory_kib": int(lab.run(node, f"grep VmRSS /proc/{pid}/status").split()[1]),
    }


def wait_until_alone(lab: Lab, tunnel: str) -> None:
    """Wait until a tunnel carries, alone in the tables of its server."""
    lab.wait_state(tunnel, "up", within=10)
    if SESSIONS[tunnel]:
        lab.wait_striping(tunnel, within=10)
    expected = TABLES | {"stripe_sessions": SESSIONS[tunnel]}
    wait_for(lambda: lab.daemon_counters(tunnel, "vps")["tables"] == expected, 10, f"{tunnel} alone in its tables")


def reconnect_1000_times(lab: Lab, tunnel: str) -> tuple[Footprints, Footprints]:
    """What a tunnel's processes hold, by node, before its client reconnects 1,000 times and after it."""
    wait_until_alone(lab, tunnel)
    # The allocator's own pools fill in the first hundreds: both ends stay as they are from about the 500th on.
    reconnect(lab, tunnel, 100, "--silent")
    reconnect(lab, tunnel, 500)
    wait_until_alone(lab, tunnel)
    before = {node: footprint(lab, tunnel, node) for node in ("vps", "client")}
    reconnect(lab, tunnel, 500)
    reconnect(lab, tunnel, 500, "--silent")
    wait_until_alone(lab, tunnel)
    return before, {node: footprint(lab, tunnel, node) for node in before}


@pytest.fixture(scope="module")
def reconnections(lab: Lab) -> Iterator[Mapping[str, Future[tuple[Footprints, Footprints]]]]:
    """What becomes of all tunnels' reconnections. They have processes of their own and mostly wait for round trips."""
    with ThreadPoolExecutor(len(SESSIONS)) as pool:
        yield {tunnel: pool.submit(reconnect_1000_times, lab, tunnel) for tunnel in SESSIONS}


@pytest.mark.parametrize("tunnel", SESSIONS, ids=["quic", "striped"])
def test_1000_reconnects_leave_both_ends_as_they_were(
    reconnections: Mapping[str, Future[tuple[Footprints, Footprints]]], tunnel: str
) -> None:
    before, after = reconnections[tunnel].result()
    for node, earlier in before.items():
        assert after[node]["pid"] == earlier["pid"], node
        assert after[node]["descriptors"] == earlier["descriptors"], node
        assert after[node]["memory_kib"] <= earlier["memory_kib"] * 1.05, node
