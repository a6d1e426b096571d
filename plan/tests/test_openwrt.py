"""What is made for a site's OpenWrt router leads from one section to the other, and to the client's own end."""

from __future__ import annotations

from ipaddress import IPv4Interface, ip_address, ip_interface
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from mpquic_plan import build, build_all
from mpquic_plan.openwrt import uci

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ROOT = Path(__file__).parents[2]
ROUTERS = {"site1-router": "site1-client", "north-router": "north-client", "east-router": "east-client"}
Packages = dict[str, list[uci.Section]]


@pytest.fixture
def fleet(inventory: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    groups = yaml.safe_load((ROOT / "molecule/render/inventory/unusual.yml").read_text())["all"]["children"]
    unusual = {host: variables for group in groups.values() for host, variables in group["hosts"].items()}
    return {**unusual, **inventory("prod")}


def packages(hosts: dict[str, Any], router: str = "site1-router") -> Packages:
    """What is made for a router, written and read by the strict parser."""
    made = build_all(hosts).routers[router]["packages"]
    source = "".join(uci.text(package, map(uci.section, sections)) for package, sections in made.items())
    return uci.parse(source)


def of_type(sections: Iterable[uci.Section], kind: str) -> dict[str, uci.Section]:
    return {str(each.name): each for each in sections if each.type == kind}


def items(value: uci.Value | None) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value or ()


@pytest.mark.parametrize("router", ROUTERS)
def test_the_committed_files_are_what_the_plan_says(fleet: dict[str, Any], router: str) -> None:
    folder = ROOT / "molecule/render/golden" / router
    assert {path.name: uci.parse(path.read_text())[path.name] for path in folder.iterdir()} == packages(fleet, router)


@pytest.mark.parametrize("router", ROUTERS)
def test_names_are_ours_and_short_enough(fleet: dict[str, Any], router: str) -> None:
    made = packages(fleet, router)
    assert all(each.ours for sections in made.values() for each in sections)
    # mwan3.sh leaves a longer policy or rule out; a chain of iptables has 28 characters, and mwan3_iface_in_ is 15.
    for kind, most in (("policy", 15), ("rule", 15), ("interface", 13)):
        names = of_type(made["mwan3"], kind)
        assert names
        assert [name for name in names if len(name) > most] == []
    assert all(len(str(each["name"])) <= 15 for each in of_type(made["network"], "device").values())


@pytest.mark.parametrize("router", ROUTERS)
def test_each_section_that_another_names_is_there(fleet: dict[str, Any], router: str) -> None:
    made = packages(fleet, router)
    interfaces, devices = of_type(made["network"], "interface"), of_type(made["network"], "device")
    tracked, members = of_type(made["mwan3"], "interface"), of_type(made["mwan3"], "member")
    policies, zones = of_type(made["mwan3"], "policy"), of_type(made["firewall"], "zone")
    assert interfaces.keys() == tracked.keys()
    assert {each["interface"] for each in members.values()} <= tracked.keys()
    assert {name for each in policies.values() for name in items(each.get("use_member"))} == members.keys()
    assert {each["use_policy"] for each in of_type(made["mwan3"], "rule").values()} <= policies.keys()
    networks = [name for each in zones.values() for name in items(each["network"])]
    assert sorted(networks) == sorted(interfaces)
    own = {"lan", "guest-2.4", "*"}
    for kind in ("forwarding", "rule"):
        for each in of_type(made["firewall"], kind).values():
            assert {str(each[key]) for key in ("src", "dest") if each.get(key)} <= zones.keys() | own
    made_devices = {str(each["name"]) for each in devices.values()}
    assert made_devices == {str(each["device"]) for each in interfaces.values() if "." in str(each["device"])}


@pytest.mark.parametrize(("router", "client"), ROUTERS.items())
def test_both_ends_of_a_vlan_agree(fleet: dict[str, Any], router: str, client: str) -> None:
    made = packages(fleet, router)
    ends = {lan["name"]: lan for lan in build(fleet)[client]["lans"]}
    devices = {str(each["name"]): each for each in of_type(made["network"], "device").values()}
    seen = 0
    for name, each in of_type(made["network"], "interface").items():
        number, _, vlan = name.partition("_l")[2].partition("v")
        far = ends[f"lan{number}" + (f".{vlan}" if vlan else "")]
        version = 6 if name.startswith("mpq6_") else 4
        address = ip_interface(str(each["ip6addr"]) if version == 6 else f"{each['ipaddr']}/{each['netmask']}")
        gateway = ip_address(str(each["ip6gw" if version == 6 else "gateway"]))
        (theirs,) = (ip_interface(text) for text in far["addresses"] if ip_interface(text).version == version)
        assert address.network == theirs.network
        assert gateway == theirs.ip != address.ip
        assert str(each["metric"]) == str(far["table"])
        device = devices.get(str(each["device"]))
        assert (None if device is None else str(device["vid"])) == (vlan or None)
        seen += 1
    assert seen >= 4


@pytest.mark.parametrize("router", ROUTERS)
def test_every_zone_is_clamped_and_masqueraded(fleet: dict[str, Any], router: str) -> None:
    for zone in of_type(packages(fleet, router)["firewall"], "zone").values():
        assert (zone["mtu_fix"], zone["masq"], zone["forward"]) == ("1", "1", "REJECT")


def test_a_class_goes_by_its_own_vlans_first_and_then_by_what_takes_everything(whole: dict[str, Any]) -> None:
    policies = of_type(packages(whole)["mwan3"], "policy")
    plain = ["mpq_l1", "mpq_l1v17", *(f"mpq_l{number}" for number in range(2, 7))]
    for slot, unit in ((1, 1), (2, 2), (3, 3)):
        vlans = [f"mpq_l{lan}v{lan}{unit}" for lan in (1, 2, 3)]
        expected = tuple(f"{name}_c{slot}" for name in (*vlans, *plain))
        assert policies[f"mpq_c{slot}"]["use_member"] == expected
    members = of_type(packages(whole)["mwan3"], "member")
    assert [members[name]["metric"] for name in policies["mpq_c1"]["use_member"]] == [str(n) for n in range(1, 11)]


def test_a_balanced_class_has_one_metric(whole: dict[str, Any]) -> None:
    whole["site1-client"]["site"]["openwrt"]["policies"] = [
        {"class": "bulk", "lans": ["lan2.22", "lan1.12"], "balance": True}
    ]
    made = packages(whole)["mwan3"]
    assert of_type(made, "policy")["mpq_c2"]["use_member"] == ("mpq_l2v22_c2", "mpq_l1v12_c2")
    assert {each["metric"] for name, each in of_type(made, "member").items() if name.endswith("_c2")} == {"1"}


def test_rules_are_those_of_the_classes_in_their_order(whole: dict[str, Any]) -> None:
    rules = of_type(packages(whole)["mwan3"], "rule")
    assert [(name, rule.get("proto"), rule.get("dest_port"), rule["use_policy"]) for name, rule in rules.items()] == [
        ("mpq_c1_r1", "udp", "5060,10000:20000", "mpq_c1"),
        ("mpq_c2_r1", "tcp", "5001:6000", "mpq_c2"),
        ("mpq_c3_r1", "tcp", "80,443,8443", "mpq_c3"),
        ("mpq_rest", "all", None, "mpq_c2"),
    ]
    # Without IPv6 towards the client the router's IPv6 is none of our business.
    assert {rule["family"] for rule in rules.values()} == {"ipv4"}
    left_out = build_all(whole).routers["site1-router"]["left_out"]
    assert left_out == [{"path": "site.classes[0].match[1]", "reason": "mwan3 doesn't look at the DSCP"}]


def test_many_ports_become_several_rules_and_prefixes_one_each(whole: dict[str, Any]) -> None:
    site = whole["site1-client"]["site"]
    site["classes"] = [
        {
            "name": "critical",
            "slot": 1,
            "prefix": "cr",
            "match": [
                {"protocol": "tcp", "ports": [*range(1, 15), "100-200", 300]},
                {"protocol": "sctp", "ports": [5060]},
                {
                    "sources": ["192.168.1.0/24", "2001:db8:1::/48"],
                    "destinations": ["198.51.100.0/24", "203.0.113.0/24"],
                },
            ],
        },
        {"name": "bulk", "slot": 2, "prefix": "br", "catch_all": True},
        {"name": "default", "slot": 3, "prefix": "df"},
    ]
    rules = [rule for name, rule in of_type(packages(whole)["mwan3"], "rule").items() if name.startswith("mpq_c1")]
    assert [rule.get("dest_port") for rule in rules[:2]] == [",".join(map(str, range(1, 15))), "100:200,300"]
    assert [(rule.get("src_ip"), rule.get("dest_ip")) for rule in rules[2:]] == [
        ("192.168.1.0/24", "198.51.100.0/24"),
        ("192.168.1.0/24", "203.0.113.0/24"),
    ]
    (left,) = build_all(whole).routers["site1-router"]["left_out"]
    assert left == {
        "path": "site.classes[0].match[1]",
        "reason": "mwan3 looks at ports of TCP and UDP alone, not of protocol 132",
    }


def test_the_tunnel_that_carries_is_what_is_tracked(whole: dict[str, Any]) -> None:
    tracked = of_type(packages(whole)["mwan3"], "interface")
    assert tracked["mpq_l4"]["track_ip"] == ("10.200.4.2",)
    assert tracked["mpq_l2v23"]["track_ip"] == ("10.200.11.254",)
    whole["site1-client"]["site"]["openwrt"]["track"] = ["192.0.2.53", "192.0.2.54"]
    tracked = of_type(packages(whole)["mwan3"], "interface")
    assert {each["track_ip"] for each in tracked.values()} == {("192.0.2.53", "192.0.2.54")}


def test_a_vlan_has_the_mtu_of_the_smallest_tunnel_that_may_carry_it(whole: dict[str, Any]) -> None:
    site = whole["site1-client"]["site"]
    site["wans"][3]["mtu"] = 1420
    site["lans"][1]["vlans"][0]["fallback"] = "cr1"
    tuns = {tun["name"]: tun["mtu"] for tun in build(whole)["site1-client"]["tuns"]}
    devices = of_type(packages(whole)["network"], "device")
    assert tuns["cr1"] < tuns["cr2"]
    assert devices["mpq_dev_l1v11"]["mtu"] == devices["mpq_dev_l2v21"]["mtu"] == str(tuns["cr1"])
    assert devices["mpq_dev_l2v22"]["mtu"] == str(tuns["br2"])


def test_a_lan_that_leads_nowhere_or_has_no_router_is_not_there(whole: dict[str, Any]) -> None:
    lans = whole["site1-client"]["site"]["lans"]
    lans[0]["enabled"] = False
    lans[1]["tunnel"] = "none"
    lans[3].update(dhcp_server={"dns": ["192.0.2.53"]}, address="172.16.4.1/24")
    interfaces = of_type(packages(whole)["network"], "interface")
    assert [name for name in interfaces if name.partition("v")[0] in ("mpq_l1", "mpq_l4")] == []
    assert {"mpq_l2v21", "mpq_l5"} <= interfaces.keys()
    assert "mpq_l2" not in interfaces


def test_ways_out_without_a_tunnel_carry_a_class_only_where_a_policy_says_so(whole: dict[str, Any]) -> None:
    site = whole["site1-client"]["site"]
    site["lans"][3]["vlans"] = [{"id": 95, "tunnel": "none", "fallback": "wan5"}]
    members = of_type(packages(whole)["mwan3"], "member")
    assert [name for name in members if "v95" in name] == []
    site["openwrt"]["policies"] = [{"class": "critical", "lans": ["lan1.11", "lan4.95"]}]
    made = packages(whole)["mwan3"]
    assert of_type(made, "policy")["mpq_c1"]["use_member"] == ("mpq_l1v11_c1", "mpq_l4v95_c1")
    # The public address of the VPS, as no tunnel is on the way.
    assert of_type(made, "interface")["mpq_l4v95"]["track_ip"] == ("203.0.113.10",)


def test_packets_of_a_class_that_has_a_dscp_get_it(whole: dict[str, Any]) -> None:
    rules = of_type(packages(whole)["firewall"], "rule")
    marking = {name: (rule["dest"], rule["set_dscp"]) for name, rule in rules.items() if rule["target"] == "DSCP"}
    assert marking == {"mpq_dscp_c1": ("mpq_c1", "EF")}


def test_what_is_behind_the_router_keeps_its_addresses(fleet: dict[str, Any]) -> None:
    zones = of_type(packages(fleet, "north-router")["firewall"], "zone")
    assert zones["mpq_l1"]["masq_src"] == ("!192.0.2.64/27", "!192.168.120.0/24", "!2001:db8:9::/48")
    assert [name for name, zone in zones.items() if zone.get("masq_src")] == ["mpq_l1"]
    forwardings = of_type(packages(fleet, "north-router")["firewall"], "forwarding").values()
    # Whoever is on the other side may reach it.
    assert [(each["src"], each["dest"]) for each in forwardings if each["dest"] == "lan"] == [("mpq_l1", "lan")]


def test_a_site_without_a_router_has_none(whole: dict[str, Any]) -> None:
    before = build(whole)
    del whole["site1-client"]["site"]["openwrt"]
    assert build_all(whole).routers == {}
    assert build(whole) == before


def test_a_class_that_is_added_changes_no_section_of_the_others(whole: dict[str, Any]) -> None:
    before = packages(whole)
    site = whole["site1-client"]["site"]
    entry = next(lan for lan in site["lans"] if lan["name"] == "lan6")
    entry["vlans"] = [{"id": 66, "tunnel": "mpq6", "address": "172.16.66.1/30"}]
    after = packages(whole)
    for package in ("network", "mwan3"):
        kept = {each.name: each for each in after[package] if each.type != "policy"}
        assert [each for each in before[package] if each.type != "policy" and kept[each.name] != each] == []
    added = {each.name for each in after["network"]} - {each.name for each in before["network"]}
    assert added == {"mpq_dev_l6v66", "mpq_l6v66"}
    assert IPv4Interface(f"{of_type(after['network'], 'interface')['mpq_l6v66']['ipaddr']}/30") == IPv4Interface(
        "172.16.66.2/30"
    )
