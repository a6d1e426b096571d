"""A client that reconnects for ever leaves nothing behind on the server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpqlab.testing import Lab

RECONNECTS = 1000


def footprint(lab: Lab) -> dict[str, Any]:
    """What the server of mpq5 holds: connections, file descriptors, resident memory in KiB."""
    pid = lab.run("vps", "systemctl show -P MainPID mpquic@mpq5").strip()
    row = lab.status("vps")["mpq5"]
    return {
        "pid": pid,
        "connections": row["connections"],
        "descriptors": int(lab.run("vps", f"ls /proc/{pid}/fd | wc -l")),
        "memory": int(lab.run("vps", f"grep VmRSS /proc/{pid}/status").split()[1]),
    }


def test_1000_reconnects_leave_the_server_as_it_was(lab: Lab) -> None:
    lab.wait_state("mpq5", "up", within=10)
    # The allocator's own pools fill in the first hundred.
    lab.run("client", "mpquicctl reconnect mpq5 --times 100", timeout=120)
    lab.wait_state("mpq5", "up", within=10)
    before = footprint(lab)
    done = json.loads(lab.run("client", f"mpquicctl reconnect mpq5 --times {RECONNECTS} --json", timeout=580))
    assert done["reconnects"] == RECONNECTS
    lab.wait_state("mpq5", "up", within=10)
    after = footprint(lab)
    assert after["pid"] == before["pid"]
    assert after["connections"] == before["connections"] == 1
    assert after["descriptors"] == before["descriptors"]
    assert after["memory"] <= before["memory"] * 1.05 + 1024
