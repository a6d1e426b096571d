"""Both machines reboot: the site is back by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from mpqlab.testing import INTERNET, VPS_ADDRESS

if TYPE_CHECKING:
    from mpqlab.testing import Lab


@pytest.mark.parametrize("node", ["vps", "client"])
def test_everything_is_back_after_a_reboot(lab: Lab, node: str) -> None:
    before = lab.run(node, "cat /proc/sys/kernel/random/boot_id; stat -c %Y /proc/1")
    lab.mpqlab("reboot", node)
    assert lab.run(node, "cat /proc/sys/kernel/random/boot_id; stat -c %Y /proc/1") != before
    for tunnel in ("mpq4", "mpq5", "mpq6"):
        lab.wait_state(tunnel, "up", within=30)
        host = tunnel.replace("mpq", "host")
        assert lab.run(host, f"curl -sS --fail http://{INTERNET}/ip").strip() == VPS_ADDRESS
    lab.wait_striping("mpq6", within=10)
    for tunnel in ("mpq1", "mpq2", "mpq3"):
        assert lab.state(tunnel) == "inactive"
    assert lab.run(node, "systemctl list-units --failed --plain --no-legend") == ""
