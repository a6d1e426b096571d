"""What holds for every fleet that the plan accepts."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from mpquic_plan import addressing, build, validate
from mpquic_plan.formats import checker
from mpquic_plan.parse import read_fleet
from mpquic_plan.schema import check

Hosts = dict[str, dict[str, Any]]
TRANSPORTS = st.sampled_from(["datagram", "reliable"])


@st.composite
def paths(draw: st.DrawFn, wan: int, mode: str) -> dict[str, Any]:
    """A path of a tunnel over several WANs; each key but the WAN's may be left out."""
    transports = ["quic", "stripe"] if mode == "datagram" else ["quic"]
    others = st.fixed_dictionaries(
        {},
        optional={
            "priority": st.integers(0, 2),
            "weight": st.integers(1, 1000),
            "pipes": st.integers(1, 16),
            "transport": st.sampled_from(transports),
        },
    )
    return {"wan": f"wan{wan}", **draw(others)}


@st.composite
def sites(draw: st.DrawFn, number: int, modes: dict[int, str]) -> dict[str, Any]:
    """A site with some of the six WANs, their LANs and VLANs of its own; `modes` is the transport of each listener."""
    wans = draw(st.lists(st.integers(1, 6), min_size=1, max_size=6, unique=True))
    vlan_ids = draw(st.lists(st.integers(7, 255), max_size=4, unique=True))
    lans: list[dict[str, Any]] = [{"name": f"lan{n}", "tunnel": f"mpq{n}"} for n in draw(st.permutations(wans))]
    for vlan_id in vlan_ids:
        lan = draw(st.sampled_from(lans))
        tunnel = draw(st.sampled_from([f"mpq{n}" for n in wans] + ["mp1", "none"]))
        lan.setdefault("vlans", []).append({"id": vlan_id, "tunnel": tunnel})
    if draw(st.booleans()):
        draw(st.sampled_from(lans))["fallback"] = f"wan{wans[0]}"
    several = draw(st.lists(st.sampled_from(wans), min_size=1, unique=True))
    mode, transport = draw(st.sampled_from([("datagram", "quic"), ("datagram", "stripe"), ("reliable", "quic")]))
    return {
        "name": f"site{number}",
        "site_id": number,
        "management": [{"name": "mgmt1", "address": "10.10.11.100/24", "gateway": "10.10.11.1"}],
        "wans": [{"name": f"wan{n}", "mtu": draw(st.integers(1280, 1500))} for n in wans],
        "lans": lans,
        "tunnels": [
            {
                "name": f"mpq{n}",
                "wan": draw(st.sampled_from([f"wan{w}" for w in wans])),
                "transport_mode": modes[n],
                "transport": draw(st.sampled_from(["quic", "stripe"])) if modes[n] == "datagram" else "quic",
            }
            for n in draw(st.permutations(wans))
        ]
        + [
            {
                "name": "mp1",
                "transport_mode": mode,
                "transport": transport,
                "multipath_enabled": True,
                "multipath_paths": [draw(paths(n, mode)) for n in several],
            }
        ],
        "stripe_enabled": draw(st.booleans()),
    }


@st.composite
def fleets(draw: st.DrawFn) -> Hosts:
    """A VPS with room for 64 sites on each listener, and up to four sites."""
    numbers = draw(st.lists(st.integers(1, 64), min_size=1, max_size=4, unique=True))
    modes = {n: draw(TRANSPORTS) for n in range(1, 7)}
    listeners = [{"name": f"mpq{n}", "subnet": f"10.200.{n}.0/24"} for n in draw(st.permutations(range(1, 7)))]
    listeners.append({"name": "mp1"})
    hosts: Hosts = {"vps1": {"vps": {"address": "203.0.113.10", "listeners": listeners}}}
    for number in numbers:
        hosts[f"site{number}-client"] = {"site": draw(sites(number, modes))}
    return hosts


def _shuffled(draw: st.DataObject, value: Any) -> Any:
    """The same variables with every list of items in another order."""
    if isinstance(value, dict):
        return {key: _shuffled(draw, value[key]) for key in draw.draw(st.permutations(sorted(value)))}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [_shuffled(draw, item) for item in draw.draw(st.permutations(value))]
    return value


@settings(max_examples=40, deadline=None)
@given(fleets(), st.data())
def test_the_plan_does_not_depend_on_the_order_of_lists(hosts: Hosts, data: st.DataObject) -> None:
    assert build(_shuffled(data, hosts)) == build(hosts)


@settings(max_examples=40, deadline=None)
@given(fleets())
def test_the_plan_is_plain_data_and_leaves_its_input_alone(hosts: Hosts) -> None:
    before = copy.deepcopy(hosts)
    plan = build(hosts)
    assert json.loads(json.dumps(plan)) == plan
    assert hosts == before
    assert build(hosts) == plan


@settings(max_examples=40, deadline=None)
@given(fleets())
def test_inner_addresses_are_unique_and_inside_their_subnets(hosts: Hosts) -> None:
    plan = build(hosts)
    addresses = [address for piece in plan.values() for tun in piece["tuns"] for address in tun["addresses"]]
    assert len(set(addresses)) == len(addresses)
    fleet, _ = read_fleet(hosts)
    listeners = {listener.name: listener for listener in fleet.vpses["vps1"].listeners}
    for site in fleet.sites.values():
        for tunnel in site.tunnels:
            listener = listeners[tunnel.listener]
            address = addressing.client_address(listener, site.site_id, tunnel.slot)
            assert address.ipv4 in listener.subnet
            assert address.ipv6 in listener.subnet6
            assert address.ipv4 < addressing.server_address(listener).ipv4


@settings(max_examples=40, deadline=None)
@given(fleets())
def test_no_two_share_a_port_a_table_or_a_priority(hosts: Hosts) -> None:
    plan = build(hosts)
    servers = [instance["config"] for instance in plan["vps1"]["instances"]]
    ports = [server[key] for server in servers for key in ("bind_port", "stripe_port")]
    assert len(set(ports)) == len(ports)
    assert plan["vps1"]["firewall"]["udp_ports"] == sorted(ports)
    for host, piece in plan.items():
        if host == "vps1":
            continue
        links = piece["management"] + piece["wans"] + piece["lans"]
        rules = [rule for link in [*links, *piece["tuns"]] for rule in link["rules"]]
        priorities = [rule["priority"] for rule in rules]
        # Rules of one priority never select the same packet: none comes before another.
        selectors = [(rule["priority"], rule["incoming_interface"], rule["mark"], rule["from"]) for rule in rules]
        assert len(set(selectors)) == len(selectors)
        tables = [link["table"] for link in piece["wans"] + piece["lans"]]
        assert len(set(tables)) == len(tables)
        assert {route["table"] for link in links for route in link["routes"]} - {None} <= {
            entry["id"] for entry in piece["routing_tables"]
        }
        ranges = piece["ranges"]
        assert all(any(low <= table <= high for low, high in ranges["tables"]) for table in tables)
        assert all(any(low <= value <= high for low, high in ranges["rule_priorities"]) for value in priorities)


def _mtu(site: dict[str, Any], name: str) -> int:
    return next(int(wan["mtu"]) for wan in site["wans"] if wan["name"] == name)


@settings(max_examples=40, deadline=None)
@given(fleets())
def test_both_ends_of_a_tunnel_agree(hosts: Hosts) -> None:
    plan = build(hosts)
    servers = {instance["config"]["bind_port"]: instance["config"] for instance in plan["vps1"]["instances"]}
    for host, piece in plan.items():
        for instance in piece["instances"] if host != "vps1" else []:
            config = instance["config"]
            ways = config.get("multipath_paths", [config])
            (port,) = {way["remote_port"] for way in ways}
            server = servers[port]
            peers = [
                peer for peer in server["peers"] if peer["identity"] == f"urn:mpquic:site:{hosts[host]['site']['name']}"
            ]
            assert [peer["allowed"] for peer in peers if peer["tunnel"] == config["tunnel"]] == [
                config["inner_addresses"]
            ]
            assert server["max_datagram_size"] >= config["max_datagram_size"] >= 1200
            assert config["tun_mtu"] >= 1280
            assert config.get("stripe_port") in (None, server["stripe_port"])
            transports = {way.get("transport", config["transport"]) for way in ways}
            assert ("stripe_port" in config) == ("stripe" in transports)
            # A path is known by one name and device at the client, and its WAN fits every datagram of the tunnel.
            assert len({way["bind_ip"] for way in ways}) == len(ways)
            mtu_of = {f"iface:{wan['device']}": _mtu(hosts[host]["site"], wan["name"]) for wan in piece["wans"]}
            assert all(config["max_datagram_size"] + 28 <= mtu_of[way["bind_ip"]] for way in ways)


@settings(max_examples=30, deadline=None)
@given(fleets(), st.data())
def test_a_site_moves_nothing_of_its_neighbours(hosts: Hosts, data: st.DataObject) -> None:
    """Taking a site away leaves every other client's slice as it is."""
    clients = sorted(host for host in hosts if host != "vps1")
    gone = data.draw(st.sampled_from(clients))
    rest = build({host: value for host, value in hosts.items() if host != gone})
    whole = build(hosts)
    assert all(rest[host] == whole[host] for host in clients if host != gone)


def _switches(site: dict[str, Any]) -> list[dict[str, Any]]:
    """All that has the key `enabled`."""
    vlans = [vlan for lan in site["lans"] for vlan in lan.get("vlans", [])]
    return [*site["wans"], *site["lans"], *vlans, *site["tunnels"]]


@settings(max_examples=40, deadline=None)
@given(fleets(), st.data())
def test_what_was_out_of_service_comes_back_as_it_was(hosts: Hosts, data: st.DataObject) -> None:
    """`enabled: true` is the same as no key: whoever takes something out of service and back has the former files."""
    before = build(hosts)
    for variables in hosts.values():
        for item in _switches(variables["site"]) if "site" in variables else []:
            if data.draw(st.booleans()):
                item["enabled"] = True
    assert build(hosts) == before


@settings(max_examples=40, deadline=None)
@given(fleets(), st.data())
def test_what_is_out_of_service_changes_nothing_for_others(hosts: Hosts, data: st.DataObject) -> None:
    """Neither the other sites nor ports, addresses and ranges; and no LAN of it can use a WAN or a tunnel."""
    before = build(hosts)
    host = data.draw(st.sampled_from(sorted(host for host in hosts if host != "vps1")))
    items = _switches(hosts[host]["site"])
    for item in data.draw(st.lists(st.sampled_from(items), min_size=1, max_size=3, unique_by=id)):
        item["enabled"] = False
    after = build(hosts)
    assert all(after[other] == before[other] for other in hosts if other not in (host, "vps1"))
    server, was = after["vps1"], before["vps1"]
    assert {**server, "instances": []} == {**was, "instances": []}
    client, former = after[host], before[host]
    assert client["tuns"] == former["tuns"] or any(not lan["enabled"] for lan in client["lans"])
    held = {instance["name"] for instance in client["instances"] if not instance["enabled"]}
    told = {
        peer["tunnel"]
        for instance in server["instances"]
        for peer in instance["config"]["peers"]
        if peer["identity"] == f"urn:mpquic:site:{hosts[host]['site']['name']}" and not peer.get("enabled", True)
    }
    assert held == told == {each["name"] for each in client["instances"] if not each["config"].get("enabled", True)}
    down = {wan["device"] for wan in client["wans"] if not wan["enabled"]}
    closed = {lan["device"] for lan in client["lans"] if not lan["enabled"]}
    ends = {(pair["from"], pair["to"]) for pair in client["firewall"]["forward"]}
    assert not [pair for pair in ends if set(pair) & (down | closed)]
    for lan in client["lans"]:
        unicast = [
            link.get("device", link["name"])
            for link in [*client["wans"], *client["tuns"]]
            for route in link["routes"]
            if route["table"] == lan["table"] and route["type"] == "unicast"
        ]
        assert not set(unicast) & down
        assert lan["enabled"] or not unicast


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["wan1", "10.0.0.1/24", "none"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(fleets(), st.data())
def test_any_value_anywhere_is_planned_or_told_of_but_never_a_crash(hosts: Hosts, data: st.DataObject) -> None:
    holder: Any = hosts[data.draw(st.sampled_from(sorted(hosts)))]
    while True:
        keys = sorted(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(holder[key], dict | list) or not holder[key] or data.draw(st.booleans()):
            break
        holder = holder[key]
    holder[key] = data.draw(JSON_VALUES)
    problems = validate(hosts)
    assert all(problem.path and problem.message for problem in problems)
    if not problems:
        build(hosts)


@given(st.text(alphabet="0123456789abcdef.:/", max_size=20), st.sampled_from(sorted(checker().checkers)))
def test_formats_judge_any_text(text: str, name: str) -> None:
    assert checker().conforms(text, name) in (True, False)


@settings(max_examples=200, deadline=None)
@given(st.integers(8, 30), st.integers(1, 65535), st.integers(1, 8), st.data())
def test_the_subnet_that_is_asked_for_is_the_smallest_that_fits(
    prefix: int, site_id: int, per_site: int, data: st.DataObject
) -> None:
    slot = data.draw(st.integers(1, per_site))
    value = {"address": "203.0.113.10", "listeners": [{"name": "mpq1", "subnet": f"0.0.0.0/{prefix}"}]}
    assert check("vps1", "vps", value).problems == []
    fleet, _ = read_fleet({"vps1": {"vps": value}})
    base = fleet.vpses["vps1"].listeners[0]
    listener = replace(base, tunnels_per_site=per_site)
    offset = addressing.client_offset(listener, site_id, slot)
    needed = addressing.longest_prefix(offset)
    assert offset < 2 ** (32 - needed) - 2
    assert needed == 30 or offset >= 2 ** (32 - needed - 1) - 2
