"""Class tunnels, and the way of each LAN's packets by tables and rules while tunnels are up and down."""

from __future__ import annotations

import ipaddress
import itertools
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from mpquic_plan import build, validate
from mpquic_plan.classes import MARK_MASK, MARK_SHIFT, shadowed
from mpquic_plan.parse import read_fleet

if TYPE_CHECKING:
    from collections.abc import Callable

Hosts = dict[str, dict[str, Any]]
SLOTS = {"critical": 1, "bulk": 2, "default": 3}


def _instances(slice_: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {instance["name"]: instance["config"] for instance in slice_["instances"]}


def _way(client: dict[str, Any], device: str, mark: int, down: set[str], family: str = "0.0.0.0/0") -> str:
    """The device by which a packet for the Internet leaves that came in by `device`, or what its sender is told.

    Routes over a TUN without carrier don't count (ignore_routes_with_linkdown).
    """
    links = [*client["management"], *client["wans"], *client["lans"], *client["tuns"]]
    rules = sorted((rule for link in links for rule in link["rules"]), key=lambda rule: rule["priority"])
    routes = [(link.get("device", link["name"]), route) for link in links for route in link["routes"]]
    for wan in client["wans"]:
        routes += [(wan["device"], {"destination": family, "table": wan["table"], "metric": 10, "type": "unicast"})]
    for rule in rules:
        if rule["incoming_interface"] != device or rule["outgoing_interface"] or rule["from"]:
            continue
        if rule["mark"] is not None and mark & rule["mask"] != rule["mark"]:
            continue
        found = [
            (route["metric"] or 0, name if route["type"] == "unicast" else route["type"])
            for name, route in routes
            if route["table"] == rule["table"] and route["destination"] == family and name not in down
        ]
        if found:
            return min(found)[1]
    return "main"


def _without_names(value: Any) -> Any:
    """A plan without the names of classes that people are shown."""
    if isinstance(value, dict):
        return {key: _without_names(each) for key, each in value.items() if key != "class_name"}
    return [_without_names(each) for each in value] if isinstance(value, list) else value


def test_each_wan_that_carries_classes_has_a_tunnel_for_each(whole: Hosts) -> None:
    plan = build(whole)
    client, vps = _instances(plan["site1-client"]), _instances(plan["vps1"])
    assert {name for name in client if not name.startswith("mp")} == {
        f"{prefix}{number}" for prefix in ("cr", "br", "df") for number in (1, 2, 3)
    }
    for number, (wan, device, port) in enumerate(
        (("wan4", "enp7s6", 45010), ("wan5", "enp7s7", 45011), ("wan6", "enp7s8", 45012)), 1
    ):
        for prefix, place in (("cr", 1), ("br", 5), ("df", 9)):
            config = client[f"{prefix}{number}"]
            assert (config["wan"], config["bind_ip"], config["remote_port"]) == (wan, f"iface:{device}", port)
            assert config["inner_addresses"][0] == f"10.200.{9 + number}.{place}/32"
        listener = vps[f"mt{number + 3}"]
        assert listener["bind_port"] == port
        assert [peer["tunnel"] for peer in listener["peers"]] == [f"cr{number}", f"br{number}", f"df{number}"]
        assert [peer["dscp"] for peer in listener["peers"]] == [46, 0, 0]
    assert (client["cr1"]["traffic_class"], client["cr1"]["dscp"], client["cr1"]["low_latency"]) == (1, 46, True)


def test_an_entry_replaces_single_keys_of_a_class_tunnel(whole: Hosts) -> None:
    whole["site1-client"]["site"]["tunnels"].append({"name": "br2", "pipes": 7, "outer": "ipv6", "transport": "stripe"})
    config = _instances(build(whole)["site1-client"])["br2"]
    assert (config["pipes"], config["remote_addr"], config["remote_port"]) == (7, "2001:db8:113::10", 45011)
    assert config["traffic_class"] == SLOTS["bulk"]


def test_a_class_that_is_added_in_the_middle_renumbers_nothing(whole: Hosts) -> None:
    whole["vps1"]["vps"]["listeners"][6]["tunnels_per_site"] = 3
    before = build(whole)["site1-client"]
    classes = [
        {"name": "critical", "slot": 1, "prefix": "cr", "dscp": "EF", "low_latency": True, "transport": "stripe"},
        {"name": "default", "slot": 3, "prefix": "df", "catch_all": True, "transport": "stripe"},
    ]
    site = whole["site1-client"]["site"]
    site["classes"] = classes
    for lan in site["lans"]:
        lan["vlans"] = [vlan for vlan in lan.get("vlans", []) if vlan.get("class") != "bulk"]
    without = build(whole)["site1-client"]
    site["classes"].insert(1, {"name": "bulk", "slot": 2, "prefix": "br"})
    after = build(whole)["site1-client"]
    for kind in ("tuns", "lans"):
        stayed = {link["name"]: link for link in without[kind]}
        assert {link["name"]: link for link in after[kind] if link["name"] in stayed} == stayed
    addresses = {tun["name"]: tun["addresses"] for tun in before["tuns"]}
    assert {tun["name"]: tun["addresses"] for tun in after["tuns"]} == addresses


def test_no_code_knows_a_class_by_its_name(whole: Hosts) -> None:
    before = build(whole)
    site = whole["site1-client"]["site"]
    site["classes"] = [
        {"name": "one", "slot": 1, "prefix": "cr", "dscp": "EF", "low_latency": True, "transport": "stripe"},
        {"name": "two", "slot": 2, "prefix": "br", "transport": "stripe", "catch_all": True},
        {"name": "three", "slot": 3, "prefix": "df", "transport": "stripe"},
    ]
    for lan in site["lans"]:
        for vlan in lan.get("vlans", []):
            if "class" in vlan:
                vlan["class"] = {"critical": "one", "bulk": "two", "default": "three"}[vlan["class"]]
    assert _without_names(build(whole)) == _without_names(before)


@pytest.mark.parametrize("family", ["0.0.0.0/0", "::/0"])
def test_a_vlan_of_a_class_goes_by_its_tunnel_alone(whole: Hosts, family: str) -> None:
    client = build(whole)["site1-client"]
    for lan, device in enumerate(("enp6s20", "enp6s21", "enp6s22"), 1):
        for place, prefix in enumerate(("cr", "br", "df"), 1):
            vlan, tunnel = f"{device}.{lan}{place}", f"{prefix}{lan}"
            assert _way(client, vlan, 0, set(), family) == tunnel
            assert _way(client, vlan, 0, {tunnel}, family) == "unreachable"
            assert {"from": vlan, "to": tunnel} in client["firewall"]["forward"]


def test_a_lan_by_rules_goes_by_the_tunnel_of_the_mark(whole: Hosts) -> None:
    whole["site1-client"]["site"]["lans"][3] = {"name": "lan4", "wan": "wan5"}
    client = build(whole)["site1-client"]
    for name, prefix in (("critical", "cr"), ("bulk", "br"), ("default", "df")):
        mark = SLOTS[name] << MARK_SHIFT
        assert _way(client, "enp6s23", mark | 0x1234, set()) == f"{prefix}2"
        assert _way(client, "enp6s23", mark, {f"{prefix}2"}) == "unreachable"
    assert _way(client, "enp6s23", 0, set()) == "unreachable"
    plan = client["firewall"]["classification"]
    assert (plan["mask"], plan["devices"], plan["trusting"], plan["catch_all"]) == (
        MARK_MASK,
        ["enp6s23"],
        ["enp6s23"],
        2,
    )
    assert [(rule["slot"], rule["protocols"], rule["ports"]) for rule in plan["rules"] if not rule["dscps"]] == [
        (1, [17], ["5060", "10000-20000"]),
        (2, [6], ["5001-6000"]),
        (3, [6], ["80", "443", "8443"]),
    ]


@pytest.mark.parametrize(
    ("fallback", "way"), [("df1", "df1"), ("mpq5", "mpq5"), ("wan5", "enp7s7"), ("block", "unreachable")]
)
def test_a_fallback_of_a_vlan_carries_while_the_tunnel_is_down(whole: Hosts, fallback: str, way: str) -> None:
    whole["site1-client"]["site"]["lans"][0]["vlans"][0]["fallback"] = fallback
    client = build(whole)["site1-client"]
    assert _way(client, "enp6s20.11", 0, set()) == "cr1"
    assert _way(client, "enp6s20.11", 0, {"cr1"}) == way
    assert _way(client, "enp6s20.12", 0, {"br1", "cr1"}) == "unreachable"
    if way != "unreachable":
        assert {"from": "enp6s20.11", "to": way} in client["firewall"]["forward"]
        assert way in client["firewall"]["masquerade_devices"]
    if way in ("df1", "mpq5"):
        assert _way(client, "enp6s20.11", 0, {"cr1", way}) == "unreachable"


@pytest.mark.parametrize(
    ("fallback", "way"), [("df2", "df2"), ("mpq5", "mpq5"), ("wan4", "enp7s6"), ("block", "unreachable")]
)
def test_a_fallback_of_a_class_is_that_of_its_marked_packets(whole: Hosts, fallback: str, way: str) -> None:
    site = whole["site1-client"]["site"]
    site["lans"][3] = {"name": "lan4", "wan": "wan5"}
    site["classes"] = [
        {"name": "critical", "slot": 1, "prefix": "cr", "fallback": fallback},
        {"name": "bulk", "slot": 2, "prefix": "br", "catch_all": True},
        {"name": "default", "slot": 3, "prefix": "df"},
    ]
    client = build(whole)["site1-client"]
    assert _way(client, "enp6s23", 1 << MARK_SHIFT, {"cr2"}) == way
    assert _way(client, "enp6s23", 2 << MARK_SHIFT, {"cr2", "br2"}) == "unreachable"
    assert _way(client, "enp6s21.21", 0, {"cr2"}) == way
    site["lans"][3]["fallback"] = "block"
    assert _way(build(whole)["site1-client"], "enp6s23", 1 << MARK_SHIFT, {"cr2"}) == "unreachable"


def test_a_vlan_without_a_tunnel_leaves_by_its_wan(whole: Hosts) -> None:
    site = whole["site1-client"]["site"]
    site["lans"][0]["vlans"] += [
        {"id": 95, "tunnel": "none", "fallback": "wan5"},
        {"id": 96, "tunnel": "none", "fallback": "wan6"},
    ]
    client = build(whole)["site1-client"]
    assert _way(client, "enp6s20.95", 0, set()) == "enp7s7"
    assert _way(client, "enp6s20.96", 0, set()) == "enp7s8"


def test_a_class_that_a_wan_does_not_carry_goes_by_the_catch_all(whole: Hosts) -> None:
    site = whole["site1-client"]["site"]
    site["wans"][4]["classes"] = ["critical", "bulk"]
    site["lans"][1]["vlans"].pop()
    site["lans"][3] = {"name": "lan4", "wan": "wan5"}
    client = build(whole)["site1-client"]
    assert "df2" not in _instances(client)
    assert _way(client, "enp6s23", SLOTS["default"] << MARK_SHIFT, set()) == "br2"


def test_routed_prefixes_go_back_by_their_class_tunnel(whole: Hosts) -> None:
    whole["site1-client"]["site"]["lan_mode"] = "routed"
    plan = build(whole)
    peers = {peer["tunnel"]: peer for peer in _instances(plan["vps1"])["mt4"]["peers"]}
    assert "172.16.11.0/30" in peers["cr1"]["allowed"]
    tun = next(tun for tun in plan["vps1"]["tuns"] if tun["name"] == "mt4")
    assert {"172.16.11.0/30", "172.16.12.0/30", "172.16.13.0/30"} <= {route["destination"] for route in tun["routes"]}


def test_a_minimal_site_stays_ten_lines() -> None:
    site = """\
site:
  name: farm
  site_id: 1
  management:
    - {name: mgmt1, address: dhcp}
  wans:
    - {name: wan5}
"""
    hosts = {"farm": yaml.safe_load(site), "vps1": {"vps": {"address": "203.0.113.10"}}}
    assert validate(hosts) == []
    plan = build(hosts)
    assert len(site.splitlines()) <= 10
    assert [instance["name"] for instance in plan["farm"]["instances"]] == ["mpq5"]
    assert plan["farm"]["firewall"]["classification"] is None


_RULES = st.fixed_dictionaries(
    {},
    optional={
        "protocol": st.sampled_from(["tcp", "udp"]),
        "ports": st.lists(st.sampled_from([80, 443, "1-100", "50-500", "1-65535"]), min_size=1, max_size=2),
        "source_ports": st.lists(st.sampled_from([53, "1-65535"]), min_size=1, max_size=1),
        "sources": st.lists(st.sampled_from(["172.16.0.0/12", "172.16.4.0/30", "fd00::/8"]), min_size=1, max_size=2),
        "dscp": st.lists(st.sampled_from([0, 46]), min_size=1, max_size=2),
    },
).filter(bool)


def _matches(rule: dict[str, Any], packet: tuple[str, int, int, str, int]) -> bool:
    """The meaning of a rule, without any of the plan's code; a packet has protocol, ports, source, DSCP."""

    def within(port: int, ranges: list[int | str]) -> bool:
        ends = [[int(end) for end in str(entry).split("-")] for entry in ranges]
        return any(entry[0] <= port <= entry[-1] for entry in ends)

    protocol, source_port, port, source, dscp = packet
    address = ipaddress.ip_address(source)
    nets = [ipaddress.ip_network(net) for net in rule.get("sources", [])]
    ports = "ports" in rule or "source_ports" in rule
    return (
        rule.get("protocol", protocol) == protocol
        and (protocol in ("tcp", "udp") or not ports)
        and ("ports" not in rule or within(port, rule["ports"]))
        and ("source_ports" not in rule or within(source_port, rule["source_ports"]))
        and (not nets or any(net.version == address.version and address in net for net in nets))
        and ("dscp" not in rule or dscp in rule["dscp"])
    )


_PACKETS = [
    (protocol, source_port, port, source, dscp)
    for protocol, source_port, port in [
        ("icmp", 0, 0),
        *itertools.product(("tcp", "udp"), (53, 4000), (1, 49, 50, 80, 100, 101, 443, 500, 501)),
    ]
    for source in ("172.16.4.1", "172.20.0.1", "10.0.0.1", "fd00::1", "2001:db8::1")
    for dscp in (0, 46, 10)
]


@settings(max_examples=150, deadline=None)
@given(st.lists(_RULES, min_size=1, max_size=5))
def test_a_rule_is_told_of_if_earlier_ones_take_all_that_it_would_match(rules: list[dict[str, Any]]) -> None:
    site = {
        "name": "farm",
        "site_id": 1,
        "management": [{"name": "mgmt1", "address": "dhcp"}],
        "wans": [{"name": "wan5"}],
        "classes": [{"name": "all", "slot": 1, "prefix": "a", "catch_all": True, "match": rules}],
    }
    fleet, problems = read_fleet({"farm": {"site": site}})
    assert problems == []
    told = {rule.path for rule, _ in shadowed(fleet.sites["farm"].classes)}
    for place, rule in enumerate(rules):
        mine = [packet for packet in _PACKETS if _matches(rule, packet)]
        left = [packet for packet in mine if not any(_matches(earlier, packet) for earlier in rules[:place])]
        # The packets are samples from within each piece that these rules can cut out, so none left means nothing left.
        assert (f"site.classes[0].match[{place}]" in told) == (bool(mine) and not left)


def test_the_site_of_the_lab_has_the_tunnels_of_the_reference(inventory: Callable[[str], Hosts]) -> None:
    names = [set(_instances(build(inventory(kind))["site1-client"])) for kind in ("prod", "lab")]
    assert names[0] == names[1]


def test_replies_go_back_by_the_listener_by_which_their_connection_came(whole: Hosts) -> None:
    site = whole["site1-client"]["site"]
    site["lan_mode"] = "routed"
    site["lans"][0]["vlans"][0]["fallback"] = "mpq4"
    vps = build(whole)["vps1"]
    tuns = {tun["name"]: tun for tun in vps["tuns"]}
    prefix = "172.16.11.0/30"
    for listener, port in (("mt4", 45010), ("mpq4", 45004)):
        (rule,) = tuns[listener]["rules"]
        assert (rule["mark"], rule["mask"], rule["table"]) == (port << 16, 0xFFFF0000, 1_000_000 + port)
        assert [route["table"] for route in tuns[listener]["routes"] if route["destination"] == prefix][-1] == rule[
            "table"
        ]
        peers = {peer["tunnel"]: peer["allowed"] for peer in _instances(vps)[listener]["peers"]}
        assert prefix in peers["cr1" if listener == "mt4" else "mpq4"]
    # Without a connection the preferred tunnel is the way.
    routes = [(name, each) for name, tun in tuns.items() for each in tun["routes"] if each["destination"] == prefix]
    assert [name for name, each in routes if each["table"] is None] == ["mt4"]
    assert [each["device"] for each in vps["firewall"]["ways_back"]["listeners"]] == ["mpq4", "mt4"]


def test_a_vps_marks_nothing_where_each_prefix_comes_by_one_listener(whole: Hosts) -> None:
    whole["site1-client"]["site"]["lan_mode"] = "routed"
    vps = build(whole)["vps1"]
    assert vps["firewall"]["ways_back"] is None
    assert all(tun["rules"] == [] for tun in vps["tuns"])
