"""A client that reconnects for ever leaves nothing behind, on the server or with itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from mpqlab.testing import wait_until

if TYPE_CHECKING:
    from mpqlab.testing import Lab

TABLES = {
    "groups": 1,
    "registered": 1,
    "tunnels": 1,
    "connections": 1,
    "quic_connections": 1,
    "unregistered": 0,
}


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


@pytest.mark.parametrize(("tunnel", "sessions"), [("mpq5", 0), ("mpq6", 1)], ids=["quic", "striped"])
def test_1000_reconnects_leave_both_ends_as_they_were(lab: Lab, tunnel: str, sessions: int) -> None:
    def settle() -> None:
        lab.wait_state(tunnel, "up", within=10)
        if sessions:
            lab.wait_striping(tunnel, within=10)
        expected = TABLES | {"stripe_sessions": sessions}
        wait_until(
            lambda: lab.daemon_counters(tunnel, "vps")["tables"] == expected, 10, f"{tunnel} alone in its tables"
        )

    settle()
    # The allocator's own pools fill in the first hundreds: both ends stay as they are from about the 500th on.
    reconnect(lab, tunnel, 100, "--silent")
    reconnect(lab, tunnel, 500)
    settle()
    before = {node: footprint(lab, tunnel, node) for node in ("vps", "client")}
    reconnect(lab, tunnel, 500)
    reconnect(lab, tunnel, 500, "--silent")
    settle()
    for node, earlier in before.items():
        after = footprint(lab, tunnel, node)
        assert after["pid"] == earlier["pid"], node
        assert after["descriptors"] == earlier["descriptors"], node
        assert after["memory_kib"] <= earlier["memory_kib"] * 1.05, node
