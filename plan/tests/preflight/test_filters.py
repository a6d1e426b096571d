"""Packet filters of others, as their programs write them: loaded into a network namespace and listed by nft."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mpquic_plan
import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpquic_plan.preflight import Host

    Make = Callable[..., Host]
    Told = Callable[..., list[str]]

needs_nft = pytest.mark.skipif(shutil.which("nft") is None, reason="nft isn't installed")
MARK = 65261
XT_ENTRY = {"match": {"op": "==", "left": {"meta": {"key": "mark"}}, "right": MARK}}
PORTS = "45001,45002,45003,45004,45005,45006,46001,46002,46003,46004,46005,46006"


def written(program: str, **parts: str) -> str:
    """The ruleset of a program, with what was opened in it."""
    return Path(__file__).with_name("rulesets").joinpath(f"{program}.nft").read_text() % parts


def listed(*texts: str) -> list[Any]:
    """What `nft -j list ruleset` says of a ruleset, which is loaded in a network namespace of its own."""
    text = "\n".join(texts).replace("XT", f"meta mark {MARK}")
    script = "nft -f - && nft -j list ruleset"
    done = subprocess.run(["unshare", "-n", "sh", "-c", script], input=text, capture_output=True, text=True, check=True)
    entries: list[Any] = json.loads(done.stdout)["nftables"]
    for entry in entries:
        if rule := entry.get("rule"):
            rule["expr"] = [{"xt": None} if each == XT_ENTRY else each for each in rule["expr"]]
    return entries


def opening_for_tunnels(incoming: str, outgoing: str) -> str:
    return " ".join(f'{incoming} "mpq{n}" accept; {outgoing} "mpq{n}" accept;' for n in range(1, 7))


BOTH = opening_for_tunnels("iifname", "oifname")


@needs_nft
@pytest.mark.root
class TestDocker:
    def test_it_is_named_with_what_opens_its_forwarding(self, vps: Make, problems: Told) -> None:
        (only,) = problems(vps(("filters", listed(written("docker", opened="")))))
        assert only.startswith("foreign-filters: Docker (table ip filter, chain FORWARD, policy drop) drops forwarding")
        assert "forwarding from mpq1 to eth0" in only
        assert "`iptables -I DOCKER-USER -i DEVICE -j ACCEPT`" in only
        assert "for each of mpq1, mpq2, mpq3, mpq4, mpq5, mpq6" in only

    def test_it_lets_ours_pass_once_both_directions_are_open(self, vps: Make, problems: Told) -> None:
        assert problems(vps(("filters", listed(written("docker", opened=BOTH))))) == []

    def test_one_direction_is_not_enough(self, vps: Make, problems: Told) -> None:
        one = " ".join(f'iifname "mpq{n}" accept;' for n in range(1, 7))
        (only,) = problems(vps(("filters", listed(written("docker", opened=one)))))
        assert "drops replies from eth0 to mpq1" in only
        assert "forwarding from" not in only

    def test_it_is_named_on_a_client_with_its_lans(self, client: Make, problems: Told) -> None:
        (only,) = problems(client(("filters", listed(written("docker", opened="")))))
        assert "forwarding from enp6s20 to mpq1" in only


@needs_nft
@pytest.mark.root
class TestUfw:
    CLOSED = {"input": "", "forward": ""}

    def test_it_is_named_with_its_own_commands(self, vps: Make, problems: Told) -> None:
        inward, forward = problems(vps(("filters", listed(written("ufw", **self.CLOSED)))))
        assert "ufw (table ip filter, chain INPUT, policy drop) drops UDP port 45001" in inward
        assert f"`ufw allow {PORTS}/udp`" in inward
        assert "ssh" not in inward
        assert "`ufw route allow in on DEVICE` and `ufw route allow out on DEVICE`" in forward

    @pytest.mark.parametrize(
        "ports",
        [f"udp dport {{ {PORTS} }} counter accept", "ip protocol udp XT counter accept"],
        ids=["a port each", "multiport"],
    )
    def test_what_its_own_commands_write_is_enough(self, vps: Make, problems: Told, ports: str) -> None:
        opened = {"input": ports, "forward": BOTH}
        assert problems(vps(("filters", listed(written("ufw", **opened))))) == []

    def test_ssh_by_another_port_is_named_as_well(self, vps: Make, problems: Told) -> None:
        host = vps(("filters", listed(written("ufw", **self.CLOSED))), ("connection/port", 2222))
        assert "drops ssh (TCP port 2222), UDP port 45001" in problems(host)[0]


@needs_nft
@pytest.mark.root
class TestFirewalld:
    def test_it_is_named_with_its_own_commands(self, vps: Make, problems: Told) -> None:
        inward, forward = problems(vps(("filters", listed(written("firewalld", input="", zones="")))))
        assert "firewalld (table inet firewalld, chain filter_INPUT, policy accept) drops UDP port 45001" in inward
        assert "`firewall-cmd --permanent --add-port=45001/udp" in inward
        assert "`firewall-cmd --reload`" in inward
        assert "--zone=trusted --add-interface=DEVICE`, then `firewall-cmd --reload`" in forward

    def test_what_its_own_commands_write_is_enough(self, vps: Make, problems: Told) -> None:
        zones = " ".join(f'iifname "mpq{n}" goto filter_FWD_trusted;' for n in range(1, 7))
        ports = " ; ".join(f"udp dport {port} accept" for port in PORTS.split(","))
        assert problems(vps(("filters", listed(written("firewalld", input=ports, zones=zones))))) == []


@needs_nft
@pytest.mark.root
def test_libvirt_lets_ours_pass_and_its_own_network_needs_an_opening(
    vps: Make, link: Callable[..., dict[str, Any]], problems: Told
) -> None:
    host = vps(("filters", listed(written("libvirt"))), ("links/virbr0", link("bridge", "192.168.122.1/24")))
    (only,) = problems(host)
    assert only.startswith("foreign-filters: virbr0 (192.168.122.0/24) is a bridge of containers or machines")


@needs_nft
@pytest.mark.root
def test_a_ruleset_by_hand_that_opens_what_is_needed_stops_nobody(vps: Make, problems: Told) -> None:
    assert problems(vps(("filters", listed(written("by_hand"))))) == []


@needs_nft
@pytest.mark.root
def test_a_ruleset_by_hand_that_does_not_is_named_by_its_table(vps: Make, problems: Told) -> None:
    host = vps(("filters", listed(written("by_hand").replace("45001-45006", "45001-45004"))))
    (only,) = problems(host)
    assert (
        "table inet filter (table inet filter, chain input, policy drop) drops UDP port 45005, UDP port 45006;" in only
    )
    assert "accept UDP ports 45005,45006" in only


@needs_nft
@pytest.mark.root
def test_several_programs_are_named_each_by_itself(vps: Make, problems: Told) -> None:
    firewalld = written("firewalld", input="", zones="")
    found = problems(vps(("filters", listed(written("docker", opened=""), firewalld))))
    assert [each.split(" (")[0] for each in found] == [
        "foreign-filters: Docker",
        "foreign-filters: firewalld",
        "foreign-filters: firewalld",
    ]


@needs_nft
@pytest.mark.root
def test_our_own_table_is_no_foreign_one(vps: Make, problems: Told) -> None:
    ours = "table inet mpquic {\n chain forward {\n type filter hook forward priority 0; policy drop;\n }\n }\n"
    assert problems(vps(("filters", listed(ours)))) == []


@needs_nft
@pytest.mark.root
def test_the_stock_ruleset_of_debian_stops_nobody(vps: Make, problems: Told, notices: Told) -> None:
    stock = """
    table inet filter {
      chain input { type filter hook input priority filter; }
      chain forward { type filter hook forward priority filter; }
      chain output { type filter hook output priority filter; }
    }
    """
    host = vps(("filters", listed(stock)))
    assert problems(host) == notices(host) == []


def test_foreign_filters_can_be_accepted(vps: Make, problems: Told) -> None:
    chain = {"family": "inet", "table": "t", "name": "in", "hook": "input", "policy": "drop"}
    host = vps(("filters", [{"chain": chain}]))
    assert problems(host)
    assert problems(host, ["foreign-filters"]) == []


class TestBridges:
    def test_containers_need_an_opening_which_is_spelt_out_as_the_plan_takes_it(
        self, vps: Make, link: Callable[..., dict[str, Any]], problems: Told, reference: dict[str, dict[str, Any]]
    ) -> None:
        (only,) = problems(vps(("links/docker0", link("bridge", "172.17.0.1/16"))))
        assert "docker0 (172.17.0.0/16) is a bridge of containers" in only
        assert "add to vps.forward_openings: {from: docker0, to: public, sources: [172.17.0.0/16]}" in only
        told = only.replace("[PORT IN THE CONTAINER]", "[80]")
        reference["vps1"]["vps"]["forward_openings"] = [yaml.safe_load(pair) for pair in re.findall(r"{.*?}", told)]
        openings = mpquic_plan.build(reference)["vps1"]["firewall"]["forward_openings"]
        assert [(opening["from"], opening["to"]) for opening in openings] == [
            ("docker0", "public"),
            ("public", "docker0"),
        ]

    @pytest.mark.parametrize("pair", [{"from": "docker0", "to": "eth0"}, {"from": "eth0", "to": "docker0"}])
    def test_an_opening_that_names_the_bridge_is_enough(
        self, vps: Make, link: Callable[..., dict[str, Any]], problems: Told, pair: dict[str, str]
    ) -> None:
        host = vps(("links/docker0", link("bridge", "172.17.0.1/16")), plan=[("firewall/forward_openings", [pair])])
        assert problems(host) == []

    def test_a_bridge_that_only_switches_is_none_of_them(
        self, vps: Make, link: Callable[..., dict[str, Any]], problems: Told
    ) -> None:
        assert problems(vps(("links/br0", link("bridge", "fe80::1/64")))) == []

    def test_a_bridge_of_the_hosts_own_card_is_none_of_them(
        self, vps: Make, link: Callable[..., dict[str, Any]], problems: Told
    ) -> None:
        host = vps(("links/br0", link("bridge", "192.0.2.9/24")), ("links/eth1", link("", master="br0")))
        assert problems(host) == []

    def test_a_bridge_of_virtual_cards_is_one_of_them(
        self, vps: Make, link: Callable[..., dict[str, Any]], problems: Told
    ) -> None:
        host = vps(("links/lxdbr0", link("bridge", "10.99.0.1/24")), ("links/veth1", link("veth", master="lxdbr0")))
        assert len(problems(host)) == 1

    def test_a_lan_of_the_site_may_be_a_bridge(
        self, client: Make, link: Callable[..., dict[str, Any]], problems: Told
    ) -> None:
        host = client(("links/br-lan", link("bridge", "172.16.1.1/30")), plan=[("lans/0/device", "br-lan")])
        assert problems(host) == []

    def test_ipv6_alone_is_named_by_its_prefix(
        self, vps: Make, link: Callable[..., dict[str, Any]], problems: Told
    ) -> None:
        (only,) = problems(vps(("links/br6", link("bridge", "2001:db8:6::1/64", "fe80::1/64"))))
        assert "br6 (2001:db8:6::/64)" in only


class TestReading:
    def test_filters_that_can_not_be_read_without_nft_are_a_problem(self, vps: Make, problems: Told) -> None:
        docker = {"active": "active", "enabled": "enabled"}
        (only,) = problems(vps(("nft", False), ("units", {"docker.service": docker})))
        assert (
            "Docker filters packets here, and its rules can't be read without nft: `apt-get install nftables`" in only
        )

    def test_ufw_that_is_installed_but_not_enabled_filters_nothing(self, vps: Make, problems: Told) -> None:
        unit = {"units": {"ufw.service": {"active": "active", "enabled": "enabled"}}}
        assert problems(vps(("nft", False), *unit.items())) == []
        assert len(problems(vps(("nft", False), ("ufw_enabled", True), *unit.items()))) == 1

    def test_tables_of_iptables_legacy_are_only_told(self, vps: Make, problems: Told, notices: Told) -> None:
        host = vps(("legacy_filters", ["filter", "nat"]))
        assert problems(host) == []
        assert "iptables-legacy has the tables filter, nat" in notices(host)[0]
