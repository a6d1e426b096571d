"""What the first run over ssh has made is there after a reboot, whatever netplan and a hardened host's files say."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from mpqlab.testing import INTERNET, VPS_ADDRESS

if TYPE_CHECKING:
    from mpqlab.testing import Lab

    from .conftest import Site

TUNNELS = {4: "mpq4", 5: "mpq5", 6: "mpq6"}
# linux/capability.h
CAP_SYS_TIME = 25
# The client's devices that are there: management, LANs, and all WANs but WAN1.
DEVICES = tuple(f"ens{number}" for number in (*range(3, 11), *range(12, 17)))


@pytest.mark.parametrize("node", ["client", "vps"])
def test_the_run_came_in_by_ssh_as_a_user_whose_sudo_has_umask_077(lab: Lab, node: str) -> None:
    assert lab.mpqlab("ssh", node, "--", "id -un; umask; sudo sh -c umask").split() == ["operator", "0077", "0077"]
    journal = lab.run(node, "journalctl -q --no-pager -u ssh -g 'Accepted publickey for operator'")
    assert "Accepted publickey" in journal


@pytest.fixture(scope="module")
def rebooted(lab: Lab) -> None:
    """Both machines have booted since the first run."""
    for node in ("vps", "client"):
        lab.mpqlab("reboot", node)


@pytest.mark.usefixtures("rebooted")
class TestAfterARebootOfBoth:
    """The first run is not repeated before these."""

    @pytest.mark.parametrize("tunnel", TUNNELS.values())
    def test_each_tunnel_is_up(self, lab: Lab, tunnel: str) -> None:
        lab.wait_state(tunnel, "up", within=30)

    @pytest.mark.parametrize("lan", TUNNELS)
    def test_each_lan_forwards_by_its_own_wan(self, lab: Lab, lan: int) -> None:
        size = 2_000_000
        before = lab.counters(f"wan{lan}")["down"]["out_bytes"]
        assert lab.run(f"host{lan}", f"curl -sS --fail -m 20 http://{INTERNET}/ip").strip() == VPS_ADDRESS
        lab.run(f"host{lan}", f"curl -sS --fail -m 30 -o /dev/null http://{INTERNET}/bytes/{size}")
        assert lab.counters(f"wan{lan}")["down"]["out_bytes"] - before > size

    @pytest.mark.parametrize("node", ["client", "vps"])
    def test_the_operator_comes_in(self, lab: Lab, node: str) -> None:
        assert lab.mpqlab("ssh", node, "--", "id -un").strip() == "operator"

    @pytest.mark.parametrize("node", ["client", "vps"])
    def test_no_unit_has_failed(self, lab: Lab, node: str) -> None:
        assert lab.run(node, "systemctl list-units --failed --plain --no-legend") == ""

    @pytest.mark.parametrize("device", DEVICES)
    def test_each_device_is_configured_by_a_file_of_ours(self, lab: Lab, device: str) -> None:
        link = json.loads(lab.run("client", f"networkctl status --json=short {device}"))
        assert link["NetworkFile"].startswith("/etc/systemd/network/")
        assert "mpquic" in link["NetworkFile"]

    @pytest.mark.parametrize("node", ["client", "vps"])
    def test_the_kernel_forwards_in_spite_of_other_files(self, lab: Lab, node: str) -> None:
        assert lab.run(node, "cat /proc/sys/net/ipv4/ip_forward").strip() == "1"
        # The stricter of the two counts for a device: 1 would drop what comes in by a WAN of another table.
        assert lab.run(node, "cat /proc/sys/net/ipv4/conf/all/rp_filter").strip() != "1"

    @pytest.mark.parametrize("node", ["client", "vps"])
    def test_the_time_servers_are_asked_at_every_boot(self, lab: Lab, node: str) -> None:
        # The service itself doesn't run here: the machines share a clock that none of them may set.
        assert "NTP=192.0.2.123" in lab.run(node, "systemd-analyze cat-config systemd/timesyncd.conf")
        assert lab.run(node, "systemctl is-enabled systemd-timesyncd").strip() == "enabled"
        bounding = int(lab.run(node, "grep CapBnd /proc/1/status").split()[1], 16)
        assert not bounding & 1 << CAP_SYS_TIME

    def test_a_second_run_changes_nothing(self, run_site: Site) -> None:
        done = run_site()
        assert done.status == 0, done.output[-9000:]
        assert done.changed == []
        assert {host: counts["changed"] for host, counts in done.recap.items()} == {"site1-client": 0, "vps1": 0}
