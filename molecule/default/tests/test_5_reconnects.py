"""A client that reconnects for ever leaves nothing behind on the server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpqlab.testing import Lab


def reconnect(lab: Lab, times: int, *options: str) -> None:
    """Have mpq5's client connect anew, each time when the connection before carries."""
    command = f"mpquicctl reconnect mpq5 --times {times} --json {' '.join(options)}"
    assert json.loads(lab.run("client", command, timeout=300))["reconnects"] == times


def footprint(lab: Lab) -> dict[str, Any]:
    """What the server of mpq5 holds."""
    pid = lab.run("vps", "systemctl show -P MainPID mpquic@mpq5").strip()
    tables = json.loads(lab.run("vps", "mpquicctl counters mpq5"))["tables"]
    return {
        "pid": pid,
        "tables": tables,
        "descriptors": int(lab.run("vps", f"ls /proc/{pid}/fd | wc -l")),
        "memory_kib": int(lab.run("vps", f"grep VmRSS /proc/{pid}/status").split()[1]),
    }


def test_1000_reconnects_leave_the_server_as_it_was(lab: Lab) -> None:
    lab.wait_state("mpq5", "up", within=10)
    # The allocator's own pools fill in the first hundred.
    reconnect(lab, 100, "--silent")
    before = footprint(lab)
    reconnect(lab, 500)
    reconnect(lab, 500, "--silent")
    after = footprint(lab)
    assert after["pid"] == before["pid"]
    assert after["tables"] == before["tables"]
    assert after["tables"]["connections"] == 1
    assert after["descriptors"] == before["descriptors"]
    assert after["memory_kib"] <= before["memory_kib"] * 1.05 + 1024
