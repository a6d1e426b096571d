"""A provisioned site: which tunnels carry, which are quiet, and by which way each LAN's traffic leaves."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from mpqlab.testing import INTERNET, INTERNET6, VPS_ADDRESS, VPS_ADDRESS6

if TYPE_CHECKING:
    from mpqlab.testing import Lab
    from testinfra.host import Host

CARRYING = ("mpq4", "mpq5", "mpq6")
QUIET = ("mpq1", "mpq2", "mpq3")


@pytest.mark.parametrize("tunnel", CARRYING)
def test_tunnel_of_a_working_wan_is_up(lab: Lab, tunnel: str) -> None:
    lab.wait_state(tunnel, "up", within=10)


@pytest.mark.parametrize("tunnel", QUIET)
def test_tunnel_of_an_absent_wan_is_inactive_and_quiet(lab: Lab, client: Host, tunnel: str) -> None:
    assert lab.state(tunnel) == "inactive"
    assert not client.service(f"mpquic@{tunnel}").is_running
    assert client.check_output(f"systemctl show -P NRestarts mpquic@{tunnel}") == "0"
    assert client.check_output(f"journalctl -q --no-pager -p warning -u mpquic@{tunnel}") == ""


def test_striped_tunnel_carries_by_all_its_pipes(lab: Lab) -> None:
    lab.wait_striping("mpq6", within=10)
    sockets = lab.run("client", f"ss -Huna dst {VPS_ADDRESS}:46006").splitlines()
    assert len(sockets) == 4
    assert all("%enp7s8:" in line for line in sockets)
    size = 2_000_000
    before = lab.daemon_counters("mpq6", "vps")
    lab.run("host6", f"curl -sS --fail -o /dev/null http://{INTERNET}/bytes/{size}")
    after = lab.daemon_counters("mpq6", "vps")
    assert after["stripe"]["udp"]["tx_bytes"] - before["stripe"]["udp"]["tx_bytes"] > size
    assert after["udp"]["tx_bytes"] - before["udp"]["tx_bytes"] < size / 100
    assert after["tables"]["stripe_sessions"] == 1
    assert lab.stripe("mpq5") == lab.stripe("mpq5", "vps") == {}


def test_firewall_of_the_vps_is_open_for_pipes(lab: Lab) -> None:
    rules = json.loads(lab.run("vps", "nft --json list chain inet mpquic input"))["nftables"]
    opened = [
        match["right"]["set"]
        for rule in rules
        for expression in rule.get("rule", {}).get("expr", [])
        if (match := expression.get("match")) and match["left"] == {"payload": {"protocol": "udp", "field": "dport"}}
        if isinstance(match["right"], dict)
    ]
    assert [46006 in ports and 45006 in ports for ports in opened] == [True]


@pytest.mark.parametrize("node", ["client", "vps"])
def test_no_unit_has_failed(lab: Lab, node: str) -> None:
    assert lab.run(node, "systemctl list-units --failed --plain --no-legend") == ""


@pytest.mark.parametrize("lan", [4, 5, 6])
def test_traffic_of_a_lan_leaves_from_the_vps_by_its_own_wan(lab: Lab, lan: int) -> None:
    size = 2_000_000
    before = {wan: lab.counters(wan) for wan in ("wan4", "wan5", "wan6")}
    assert lab.run(f"host{lan}", f"curl -sS --fail http://{INTERNET}/ip").strip() == VPS_ADDRESS
    lab.run(f"host{lan}", f"curl -sS --fail -o /dev/null http://{INTERNET}/bytes/{size}")
    for wan, earlier in before.items():
        received = lab.counters(wan)["down"]["out_bytes"] - earlier["down"]["out_bytes"]
        if wan == f"wan{lan}":
            assert received > size
        else:
            assert received < size / 10


@pytest.mark.parametrize("lan", [1, 2, 3])
def test_traffic_of_a_lan_without_tunnel_goes_nowhere(lab: Lab, lan: int) -> None:
    assert lab.run(f"host{lan}", f"ping -n -c 3 -i 0.2 -W 1 {INTERNET} || true").count("bytes from") == 0


@pytest.mark.parametrize("lan", [4, 5, 6])
def test_ipv6_of_a_lan_reaches_the_internet_from_the_vps(lab: Lab, lan: int) -> None:
    assert lab.run(f"host{lan}", f"curl -sS --fail -6 'http://[{INTERNET6}]/ip'").strip() == VPS_ADDRESS6


@pytest.mark.parametrize(
    ("node", "unit"), [("client", "mpquic@mpq5"), ("vps", "mpquic@mpq5"), ("client", "mpquic-linkd")]
)
def test_unit_runs_without_any_capability_and_little_exposure(lab: Lab, node: str, unit: str) -> None:
    pid = lab.run(node, f"systemctl show -P MainPID {unit}").strip()
    status = dict(
        line.split(":\t", 1) for line in lab.run(node, f"cat /proc/{pid}/status").splitlines() if ":\t" in line
    )
    assert {int(status[key], 16) for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert lab.run(node, f"ps -o user:32= -p {pid}").strip() == unit.partition("@")[0]
    # A failing exit status is the finding: the threshold is exposure times ten.
    lab.run(node, f"systemd-analyze security --threshold=15 {unit}.service")


def test_networkd_understands_every_key(lab: Lab) -> None:
    for node in ("client", "vps"):
        journal = lab.run(node, "journalctl -q --no-pager -b -u systemd-networkd")
        assert not [line for line in journal.splitlines() if "nknown key" in line or "ignoring" in line.lower()]


def test_ifupdown_no_longer_configures_the_client(client: Host) -> None:
    assert not client.service("networking").is_enabled
    assert "10.10.11.100" in client.check_output("ip -4 -o address show dev enp6s18")
    link = json.loads(client.check_output("networkctl status --json=short enp6s18"))
    assert link["AdministrativeState"] == "configured"
    # It becomes ifupdown's file again when the suite leaves, so it is as readable as that was.
    assert client.check_output("stat -c %a /etc/network/interfaces.before-mpquic") == "644"
