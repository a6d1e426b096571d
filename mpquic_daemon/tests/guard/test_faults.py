"""What somebody takes away or changes comes back, with one line in the journal, and what is foreign stays."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
from mpquic.guard.barrier import Barrier
from waiting import wait_for

from .provisioned import Host, new_namespace, run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.root,
    pytest.mark.waits,
    pytest.mark.skipif(
        os.geteuid() != 0 or not all(shutil.which(name) for name in ("ip", "nft", "sysctl")),
        reason="needs root, iproute2, nftables and procps",
    ),
]

FAULTS = {
    "the ruleset is flushed": "nft flush ruleset",
    "our table is deleted": "nft delete table inet mpquic",
    "a rule is added to a chain": "nft add rule inet mpquic forward accept",
    "a policy is changed": "nft chain inet mpquic forward '{ policy accept; }'",
    "a chain is emptied": "nft flush chain inet mpquic postrouting",
    "a chain is deleted": "nft flush chain inet mpquic postrouting; nft delete chain inet mpquic postrouting",
    "our table is made dormant": "nft add table inet mpquic '{ flags dormant; }'",
    "all rules of IPv4 are flushed": "ip rule flush; ip rule add pref 32766 lookup main protocol kernel; "
    "ip rule add pref 32767 lookup default protocol kernel",
    "all rules of IPv6 are flushed": "ip -6 rule flush; ip -6 rule add pref 32766 lookup main protocol kernel",
    "one rule is deleted": "ip rule del pref 2005",
    "a table of IPv4 is flushed": "ip route flush table 205",
    "a table of IPv6 is flushed": "ip -6 route flush table 205",
    "one route is deleted": "ip route del default dev mpq5 table 205",
    "a route to a peer is deleted": "ip route del 10.200.5.2/32",
    "an address of a LAN is removed": "ip addr del 172.16.5.1/30 dev lan5",
    "an address of a TUN is removed": "ip addr del fd00:200:5::1/128 dev mpq5",
    "a TUN has another MTU": "ip link set mpq5 mtu 1300",
    "IPv4 forwarding is off": "sysctl -qw net.ipv4.ip_forward=0",
    "IPv6 forwarding is off": "sysctl -qw net.ipv6.conf.all.forwarding=0",
    "rp_filter is on": "sysctl -qw net.ipv4.conf.all.rp_filter=1",
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_is_mended_within_a_second_or_so_and_told_once(host: Host, fault: str) -> None:
    before = host.state()
    run(fault)
    wait_for(lambda: host.lines() and host.state() == before, 10.0)
    assert len(host.lines()) == 1
    assert "guard.repaired" in host.lines()[0]


@pytest.mark.parametrize("fault", ["ip link set mpq5 down", "ip link del mpq5"])
def test_a_tun_that_is_down_or_gone_comes_back_with_all_that_is_on_it(host: Host, fault: str) -> None:
    before = host.state()
    run(fault)
    wait_for(lambda: host.state() == before, 20.0)
    assert len(host.lines()) <= 5


@pytest.mark.usefixtures("host")
def test_a_tun_that_comes_back_can_be_attached_as_before() -> None:
    run("ip link del mpq5")
    wait_for(lambda: "mtu 1400" in run("ip -d link show mpq5", check=False))
    text = run("ip -d link show mpq5")
    assert "user nobody" in text
    assert "vnet_hdr on" in text
    assert "persist on" in text


FOREIGN = {
    "rule": ("ip rule add pref 2006 iif lan5 lookup 77", "ip -N rule", "2006:"),
    "route in a table of ours": (
        "ip route add 198.51.100.0/24 dev lan5 table 205", "ip route show table 205", "198.51.100.0/24"
    ),
    "route": ("ip route add 198.51.100.0/24 dev lan5", "ip route show", "198.51.100.0/24"),
    "table": ("nft add table inet foreign; nft add chain inet foreign c", "nft list tables", "inet foreign"),
    "link": ("ip tuntap add tun9 mode tun; ip link set tun9 mtu 1200", "ip link show tun9", "mtu 1200"),
    "address": ("ip addr add 192.0.2.9/24 dev lan5", "ip addr show dev lan5", "192.0.2.9/24"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_foreign_stays_beside_ours(host: Host, kind: str) -> None:
    make, show, text = FOREIGN[kind]
    run(make)
    run("nft delete table inet mpquic; ip rule del pref 2005; ip route del default dev mpq5 table 205")
    run("ip addr del fd00:200:5::1/128 dev mpq5")
    wait_for(lambda: all(word in host.journal() for word in ("table inet", "what=rules", "what=routes")))
    wait_for(lambda: "fd00:200:5::1/128" in run("ip addr show dev mpq5"))
    assert text in run(show)


def test_a_physical_device_that_is_set_down_is_left_alone(host: Host) -> None:
    run("ip link set lan5 down")
    run("ip rule del pref 2005")
    wait_for(lambda: "what=rules" in host.journal())
    assert "state DOWN" in run("ip link show lan5")


def test_what_is_not_wanted_any_more_is_not_put_back(host: Host) -> None:
    host.want(rules=[], routes=[], addresses=[], tuns=[])
    run("ip link del mpq5; ip rule del pref 2005; ip route flush table 205; ip addr del 172.16.5.1/30 dev lan5")
    run("nft delete table inet mpquic")  # a repair comes after a look at everything
    wait_for(lambda: "table inet" in host.journal())
    run("sysctl -qw net.ipv4.conf.all.rp_filter=2")
    wait_for(lambda: "what=parameters" in host.journal())
    assert "mpq5" not in run("ip link")
    assert "2005" not in run("ip rule")
    assert len(host.lines()) == 2


def test_rules_of_another_revision_are_no_drift(host: Host) -> None:
    host.write_rules("bb")
    run(f"nft -f {host.rules}")
    wait_for(lambda: "revision bb" in (host.directory / "note").read_text())
    run("nft add rule inet mpquic input accept")
    wait_for(lambda: "was=edited" in host.journal())
    assert len(host.lines()) == 1
    assert "revision=bb" in host.journal()


def test_a_restart_knows_the_table_and_loads_nothing(host: Host) -> None:
    handle = run("nft -a list table inet mpquic | head -1")
    host.stop()
    host.start()
    run("ip rule del pref 2005")
    wait_for(lambda: "what=rules" in host.journal())
    assert run("nft -a list table inet mpquic | head -1") == handle


def test_an_edit_while_it_was_stopped_is_mended_at_its_start(host: Host) -> None:
    host.stop()
    before = host.state()
    run("nft add rule inet mpquic forward accept; sysctl -qw net.ipv4.ip_forward=0")
    host.start()
    wait_for(lambda: "was=edited" in host.journal() and "what=parameters" in host.journal())
    host.stop()
    assert host.state() == before


def test_without_rules_nothing_is_forwarded_until_they_load(host: Host) -> None:
    good = host.rules.read_text()
    host.rules.write_text("table inet mpquic { nonsense }")
    run("nft delete table inet mpquic")
    wait_for(lambda: run("sysctl -n net.ipv4.ip_forward net.ipv6.conf.all.forwarding") == "0\n0\n")
    assert "guard.filter_refused" in host.journal()
    host.rules.write_text(good)
    wait_for(lambda: run("sysctl -n net.ipv4.ip_forward net.ipv6.conf.all.forwarding") == "1\n1\n")
    assert "chain forward" in run("nft list table inet mpquic")


def test_a_missing_file_with_an_intact_table_stops_nothing(host: Host) -> None:
    host.rules.unlink()
    run("ip rule del pref 2005")
    wait_for(lambda: "what=rules" in host.journal())
    assert run("sysctl -n net.ipv4.ip_forward") == "1\n"
    assert len(host.lines()) == 1


def test_what_would_leave_untranslated_never_does_not_even_without_our_table(host: Host) -> None:
    assert "ip saddr 172.16.5.0/30 jump" in run("nft list table inet mpquic_guard")
    run("nft flush ruleset")
    assert "ip saddr 172.16.5.0/30 jump" in run("nft list table inet mpquic_guard")
    host.stop()
    assert "mpquic_guard" not in run("nft list tables")


def test_a_table_against_untranslated_packets_that_the_kernel_refused_is_made_later(tmp_path: Path) -> None:
    with new_namespace():
        other = Barrier()
        other.keep([("wan5", "198.51.100.0/24")])
        host = Host(tmp_path)
        host.provision()
        host.want()
        host.start()
        try:
            wait_for(lambda: "guard.barrier_refused" in host.journal())
            other.close()
            host.look_again()
            wait_for(lambda: "172.16.5.0/30" in run("nft list table inet mpquic_guard", check=False))
        finally:
            host.stop()


def test_a_repair_that_does_not_help_is_told_a_few_times(tmp_path: Path) -> None:
    with new_namespace():
        host = Host(tmp_path)
        host.provision()
        # A gateway that no route leads to: the kernel refuses it each time.
        bad = {"family": 4, "destination": "198.51.100.0/24", "table": 205, "gateway": "203.0.113.1", "device": "lan5"}
        host.want(routes=[bad])
        host.start()
        try:
            wait_for(lambda: len(host.lines()) >= 4, 30.0)
            run("for i in $(seq 50); do ip route add 192.0.2.1 dev lan5; ip route del 192.0.2.1; done")
            assert len(host.lines()) <= 20
            assert "guard.repair_failed" in host.lines()[0]
        finally:
            host.stop()


@pytest.mark.parametrize("content", ['{"rules": 7}', None])
def test_a_file_that_is_wrong_or_gone_is_told_and_what_was_wanted_stays(host: Host, content: str | None) -> None:
    host.wanted.unlink()
    if content is not None:
        host.wanted.write_text(content)
    wait_for(lambda: "guard.wanted_unreadable" in host.journal())
    before = host.state()
    run("ip rule del pref 2005")
    wait_for(lambda: "what=rules" in host.journal())
    assert host.state() == before
