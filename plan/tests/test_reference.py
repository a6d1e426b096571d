"""The numbers of the reference site, which people know by heart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from mpquic_plan import build
from mpquic_plan.sizes import sizes

if TYPE_CHECKING:
    from collections.abc import Callable

NUMBERS = range(1, 7)
Hosts = dict[str, dict[str, Any]]


def _by_name(items: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {item["name"]: item for item in items}


@pytest.fixture
def client(reference: Hosts) -> dict[str, Any]:
    return build(reference)["site1-client"]


@pytest.fixture
def server(reference: Hosts) -> dict[str, Any]:
    return build(reference)["vps1"]


def test_wans_have_their_devices_and_tables(client: dict[str, Any]) -> None:
    assert [(wan["name"], wan["device"], wan["table"], wan["rules"][0]["priority"]) for wan in client["wans"]] == [
        (f"wan{n}", f"enp7s{n + 2}", 100 + n, 1000 + n) for n in NUMBERS
    ]


def test_a_wan_table_ends_in_a_blackhole(client: dict[str, Any]) -> None:
    for wan in client["wans"]:
        assert [(route["type"], route["destination"], route["table"]) for route in wan["routes"]] == [
            ("blackhole", "0.0.0.0/0", wan["table"]),
            ("blackhole", "::/0", wan["table"]),
        ]


def test_lans_have_their_devices_addresses_and_tables(client: dict[str, Any]) -> None:
    devices = ["enp6s20", "enp6s21", "enp6s22", "enp6s23", "enp7s1", "enp7s2"]
    seen = [(lan["device"], lan["addresses"], lan["table"], lan["rules"][0]["priority"]) for lan in client["lans"]]
    assert seen == [(devices[n - 1], [f"172.16.{n}.1/30"], 200 + n, 2000 + n) for n in NUMBERS]


def test_a_lan_goes_through_its_tunnel_or_nowhere(client: dict[str, Any]) -> None:
    tuns = _by_name(client["tuns"])
    for lan in client["lans"]:
        through = [
            route for route in tuns[lan["name"].replace("lan", "mpq")]["routes"] if route["table"] == lan["table"]
        ]
        assert [route["destination"] for route in through] == ["0.0.0.0/0", "::/0"]
        last = [route for route in lan["routes"] if route["table"] == lan["table"]]
        assert [(route["type"], route["destination"]) for route in last] == [
            ("unreachable", "0.0.0.0/0"),
            ("unreachable", "::/0"),
        ]
        assert all(route["metric"] > through[0]["metric"] for route in last)


def test_tunnel_ends_have_the_addresses_of_the_reference(client: dict[str, Any], server: dict[str, Any]) -> None:
    ours, theirs = _by_name(client["tuns"]), _by_name(server["tuns"])
    for n in NUMBERS:
        assert ours[f"mpq{n}"]["addresses"] == [f"10.200.{n}.1/32", f"fd6d:7071:ac8:{n}01::1/128"]
        assert theirs[f"mpq{n}"]["addresses"] == [f"10.200.{n}.2/32", f"fd6d:7071:ac8:{n}02::1/128"]
        assert [route["destination"] for route in theirs[f"mpq{n}"]["routes"]] == [
            f"10.200.{n}.0/30",
            f"fd6d:7071:ac8:{n}00::/62",
        ]


def test_instances_of_both_ends_meet(client: dict[str, Any], server: dict[str, Any]) -> None:
    ours, theirs = _by_name(client["instances"]), _by_name(server["instances"])
    for n in NUMBERS:
        one, other = ours[f"mpq{n}"]["config"], theirs[f"mpq{n}"]["config"]
        assert (one["remote_addr"], one["remote_port"]) == ("203.0.113.10", 45000 + n)
        assert (other["bind_ip"], other["bind_port"]) == ("::", 45000 + n)
        assert one["bind_ip"] == f"iface:enp7s{n + 2}"
        assert [(peer["identity"], peer["tunnel"], peer["allowed"]) for peer in other["peers"]] == [
            ("urn:mpquic:site:site1", one["tunnel"], one["inner_addresses"])
        ]
        for key in ("congestion_algorithm", "max_datagram_size"):
            assert one[key] == other[key]


def test_certificates_can_not_pose_as_the_other_side(client: dict[str, Any], server: dict[str, Any]) -> None:
    assert client["pki"]["usage"] == "clientAuth"
    assert client["pki"]["subject_alt_names"] == ["URI:urn:mpquic:site:site1"]
    assert server["pki"]["usage"] == "serverAuth"
    assert server["pki"]["subject_alt_names"] == ["DNS:vps1.example.net", "IP:203.0.113.10", "IP:2001:db8:113::10"]
    assert client["instances"][0]["config"]["tls"]["server_name"] == "vps1.example.net"


def test_the_firewalls_open_what_is_needed(client: dict[str, Any], server: dict[str, Any]) -> None:
    devices = ["enp6s20", "enp6s21", "enp6s22", "enp6s23", "enp7s1", "enp7s2"]
    assert client["firewall"]["forward"] == [{"from": devices[n - 1], "to": f"mpq{n}"} for n in NUMBERS]
    assert client["firewall"]["masquerade_devices"] == [f"mpq{n}" for n in NUMBERS]
    assert client["firewall"]["ssh"] == {"ports": "auto", "devices": ["enp6s18", "enp6s19"]}
    assert server["firewall"]["udp_ports"] == [*(45000 + n for n in NUMBERS), *(46000 + n for n in NUMBERS)]
    assert server["firewall"]["masquerade4"] == [f"10.200.{n}.0/30" for n in NUMBERS]
    assert server["firewall"]["site_to_site"] is False


def test_forwarding_waits_for_the_packet_filter(client: dict[str, Any], server: dict[str, Any]) -> None:
    for plan in (client, server):
        assert plan["forwarding"] == {"net.ipv4.ip_forward": 1, "net.ipv6.conf.all.forwarding": 1}
        assert not set(plan["forwarding"]) & {*plan["sysctl"], *plan["sysctl_minimums"]}


def test_connection_tracking_has_room_for_hundreds_of_users(client: dict[str, Any], server: dict[str, Any]) -> None:
    for plan in (client, server):
        assert plan["sysctl_minimums"]["net.netfilter.nf_conntrack_max"] == 262144


def test_both_ends_always_have_a_list_of_revoked_certificates(client: dict[str, Any], server: dict[str, Any]) -> None:
    for plan in (client, server):
        assert plan["pki"]["revoked"] == []
        named = {instance["config"]["tls"]["revoked_file"] for instance in plan["instances"]}
        assert named == {plan["pki"]["revoked_file"]}


@pytest.mark.parametrize("serial", ["0a1bff", "0A1BFF", "0A:1B:FF", "0a:1b:ff"])
def test_the_list_of_a_vps_is_that_of_its_sites_however_it_is_written(
    changed: Callable[..., Hosts], serial: str
) -> None:
    plan = build(changed([("vps1", "vps.revoked_certificates", [serial])]))
    assert plan["vps1"]["pki"]["revoked"] == plan["site1-client"]["pki"]["revoked"] == ["a1bff"]


def test_the_client_asks_the_dns_servers_of_its_egress_first(changed: Callable[..., Hosts]) -> None:
    changes = [
        ("site1-client", "site.management[0].dns", ["10.10.11.1", "10.10.11.3"]),
        ("site1-client", "site.management[1].dns", ["10.10.10.1", "10.10.11.1"]),
        ("site1-client", "site.management[1].gateway", "10.10.10.1"),
        ("site1-client", "site.egress", "mgmt2"),
    ]
    client = build(changed(changes))["site1-client"]
    assert client["resolvers"] == ["10.10.10.1", "10.10.11.1", "10.10.11.3"]


def test_own_traffic_leaves_by_management(client: dict[str, Any]) -> None:
    assert [item["name"] for item in client["management"] if item["egress"]] == ["mgmt1"]
    first, second = client["management"]
    assert [(route["destination"], route["gateway"], route["table"]) for route in first["routes"]] == [
        ("10.10.11.0/24", None, 151),
        ("0.0.0.0/0", "10.10.11.1", 151),
        ("0.0.0.0/0", "10.10.11.1", None),
    ]
    assert (second["addresses"], second["routes"], second["rules"]) == (["10.10.10.100/24"], [], [])


def test_own_traffic_can_leave_by_a_wan(changed: Callable[..., Hosts]) -> None:
    client = build(changed([("site1-client", "site.egress", "wan4")]))["site1-client"]
    rules = _by_name(client["wans"])["wan4"]["rules"]
    assert [(rule["priority"], rule["table"], rule["suppress_prefix_length"]) for rule in rules] == [
        (1004, 104, None),
        (1900, 254, 0),
        (1904, 104, None),
    ]
    assert rules[2]["incoming_interface"] == "lo"
    # The management interface keeps a way for its replies, but no default route.
    assert [route["table"] for route in client["management"][0]["routes"]] == [151, 151]


def test_a_vlan_is_a_lan_of_its_own(changed: Callable[..., Hosts]) -> None:
    vlans = [
        {"id": 13, "tunnel": "mpq2"},
        {"id": 300, "address": "172.18.0.1/30", "tunnel": "none", "fallback": "wan4"},
    ]
    client = build(changed([("site1-client", "site.lans[0].vlans", vlans)]))["site1-client"]
    lans = _by_name(client["lans"])
    assert lans["lan1"]["vlan_devices"] == ["enp6s20.13", "enp6s20.300"]
    one, other = lans["lan1.13"], lans["lan1.300"]
    assert one["device"] == "enp6s20.13"
    assert one["netdev"] == {"kind": "vlan", "properties": {"id": 13, "link": "enp6s20", "egress_qos": None}}
    assert (one["addresses"], one["table"], one["rules"][0]["priority"]) == (["172.16.13.1/30"], 100013, 2100)
    assert (other["table"], other["rules"][0]["priority"]) == (100300, 2100)


def test_a_fallback_is_a_second_rule_and_a_masquerade(changed: Callable[..., Hosts]) -> None:
    client = build(changed([("site1-client", "site.lans[4].fallback", "wan4")]))["site1-client"]
    lan = _by_name(client["lans"])["lan5"]
    assert [(rule["priority"], rule["table"]) for rule in lan["rules"]] == [(2005, 205), (2500, 104)]
    assert lan["routes"] == []
    assert {"from": "enp7s1", "to": "enp7s6"} in client["firewall"]["forward"]
    assert "enp7s6" in client["firewall"]["masquerade_devices"]


def test_a_routed_site_is_masqueraded_by_nobody_but_the_vps(changed: Callable[..., Hosts]) -> None:
    plan = build(
        changed(
            [
                ("site1-client", "site.lan_mode", "routed"),
                ("site1-client", "site.lans[4].behind", ["192.168.105.0/24", "198.51.100.0/28"]),
            ]
        )
    )
    client, server = plan["site1-client"], plan["vps1"]
    assert client["firewall"]["masquerade_devices"] == []
    assert {"from": "mpq5", "to": "enp7s1"} in client["firewall"]["forward"]
    prefixes = ["172.16.5.0/30", "192.168.105.0/24", "198.51.100.0/28"]
    config = _by_name(server["instances"])["mpq5"]["config"]
    assert config["peers"][0]["allowed"] == ["10.200.5.1/32", "fd6d:7071:ac8:501::1/128", *prefixes]
    assert [route["destination"] for route in _by_name(server["tuns"])["mpq5"]["routes"]][2:] == prefixes
    assert "192.168.105.0/24" in server["firewall"]["masquerade4"]
    assert "198.51.100.0/28" not in server["firewall"]["masquerade4"]
    assert server["firewall"]["routed"] == ["198.51.100.0/28"]
    behind = [route for route in _by_name(client["lans"])["lan5"]["routes"] if route["gateway"]]
    assert {(route["destination"], route["gateway"]) for route in behind} == {
        ("192.168.105.0/24", "172.16.5.2"),
        ("198.51.100.0/28", "172.16.5.2"),
    }


def test_several_sites_share_a_listener(changed: Callable[..., Hosts]) -> None:
    plan = build(
        changed(
            [
                ("vps1", "vps.listeners[3].subnet", "10.200.4.0/24"),
                (
                    "site64-client",
                    "site",
                    {
                        "name": "site64",
                        "site_id": 64,
                        "management": [{"name": "mgmt1", "address": "dhcp"}],
                        "wans": [{"name": "wan4"}],
                    },
                ),
            ]
        )
    )
    assert [tun["addresses"][0] for tun in plan["site64-client"]["tuns"]] == ["10.200.4.253/32"]
    assert _by_name(plan["vps1"]["tuns"])["mpq4"]["addresses"][0] == "10.200.4.254/32"
    peers = _by_name(plan["vps1"]["instances"])["mpq4"]["config"]["peers"]
    assert [peer["identity"] for peer in peers] == ["urn:mpquic:site:site1", "urn:mpquic:site:site64"]


def test_several_tunnels_of_a_site_share_a_listener(changed: Callable[..., Hosts]) -> None:
    listener = {"name": "mt4", "port": 45010, "subnet": "10.200.10.0/24", "tunnels_per_site": 3}
    tunnels = [
        {"name": name, "wan": "wan4", "listener": "mt4", "slot": k} for k, name in ((1, "cr1"), (2, "br1"), (3, "df1"))
    ]
    changes = [("vps1", "vps.listeners[6]", listener)]
    changes += [("site1-client", f"site.tunnels[{5 + tunnel['slot']}]", tunnel) for tunnel in tunnels]
    plan = build(changed(changes))
    tuns = _by_name(plan["site1-client"]["tuns"])
    assert [tuns[name]["addresses"][0] for name in ("cr1", "br1", "df1")] == [
        "10.200.10.1/32",
        "10.200.10.5/32",
        "10.200.10.9/32",
    ]
    assert _by_name(plan["vps1"]["tuns"])["mt4"]["addresses"][0] == "10.200.10.254/32"


def test_a_short_site_gets_the_lans_and_tunnels_of_its_wans() -> None:
    site = {
        "name": "farm",
        "site_id": 1,
        "management": [{"name": "mgmt1", "address": "dhcp"}],
        "wans": [{"name": "wan5"}, {"name": "wan2"}],
    }
    plan = build({"farm-client": {"site": site}, "vps1": {"vps": {"address": "203.0.113.10"}}})
    client = plan["farm-client"]
    assert [lan["name"] for lan in client["lans"]] == ["lan2", "lan5"]
    assert [instance["name"] for instance in client["instances"]] == ["mpq2", "mpq5"]
    assert client["instances"][0]["config"]["tls"]["server_name"] == "vps1"
    assert plan["vps1"]["instances"][0]["config"]["bind_ip"] == "0.0.0.0"


@pytest.mark.parametrize(
    ("mtu", "outer", "transport", "mode", "expected"),
    [
        (1500, "ipv4", "quic", "datagram", (1472, 1400, 1360, 1340)),
        (1500, "ipv6", "quic", "datagram", (1452, 1400, 1360, 1340)),
        (1420, "ipv4", "quic", "datagram", (1392, 1348, 1308, 1288)),
        # The TUN never falls below 1280, but TCP is kept to what one datagram holds.
        (1280, "ipv4", "quic", "datagram", (1252, 1280, 1168, 1148)),
        (1280, "ipv6", "quic", "datagram", (1232, 1280, 1148, 1128)),
        (1280, "ipv4", "quic", "reliable", (1252, 1280, 1240, 1220)),
        (9000, "ipv4", "quic", "datagram", (8972, 1400, 1360, 1340)),
        # A striped tunnel has 50 bytes around a packet, 6 more than QUIC.
        (1500, "ipv4", "stripe", "datagram", (1472, 1400, 1360, 1340)),
        (1420, "ipv4", "stripe", "datagram", (1392, 1342, 1302, 1282)),
        (1280, "ipv6", "stripe", "datagram", (1232, 1280, 1142, 1122)),
    ],
)
def test_sizes_follow_the_mtu_of_the_wan(
    mtu: int, outer: str, transport: str, mode: str, expected: tuple[int, ...]
) -> None:
    got = sizes(mtu, outer, transport, mode)
    assert (got.max_datagram_size, got.tun_mtu, got.mss4, got.mss6) == expected


def test_a_tunnel_over_ipv6_goes_to_the_address_of_that_family(changed: Callable[..., Hosts]) -> None:
    client = build(changed([("site1-client", "site.tunnels[4].outer", "ipv6")]))["site1-client"]
    config = _by_name(client["instances"])["mpq5"]["config"]
    assert (config["remote_addr"], config["max_datagram_size"]) == ("2001:db8:113::10", 1452)


@pytest.mark.parametrize(
    ("address", "gateway", "why"),
    [
        ("198.51.100.2/30", "198.51.100.1", "the address of another WAN"),
        ("198.51.100.3/29", "198.51.100.1", "the subnet of another WAN"),
        ("10.10.11.7/24", "10.10.11.1", "the subnet of management"),
        ("10.10.11.100/24", "10.10.11.1", "the address of management"),
        ("172.16.5.1/30", "172.16.5.2", "the address of a LAN"),
        ("10.200.5.1/30", "10.200.5.2", "the inner address of a tunnel"),
    ],
)
def test_a_wan_may_have_any_subnet(changed: Callable[..., Hosts], address: str, gateway: str, why: str) -> None:
    """What two providers give out isn't ours to choose: each WAN has its device and its table."""
    hosts = changed(
        [
            ("site1-client", "site.wans[3].static", {"address": "198.51.100.2/30", "gateway": "198.51.100.1"}),
            ("site1-client", "site.wans[5].static", {"address": address, "gateway": gateway}),
        ]
    )
    wan = _by_name(build(hosts)["site1-client"]["wans"])["wan6"]
    assert wan["addresses"] == [address], why
    assert {route["table"] for route in wan["routes"]} == {106}


def test_fixed_addresses_of_a_wan_stand_in_its_table(changed: Callable[..., Hosts]) -> None:
    static = {"address": "198.51.100.2/30", "gateway": "198.51.100.1"}
    client = build(changed([("site1-client", "site.wans[3].static", static)]))["site1-client"]
    wan = _by_name(client["wans"])["wan4"]
    assert (wan["dhcp"], wan["addresses"]) == (False, ["198.51.100.2/30"])
    assert [(route["destination"], route["gateway"], route["table"]) for route in wan["routes"][:2]] == [
        ("198.51.100.0/30", None, 104),
        ("0.0.0.0/0", "198.51.100.1", 104),
    ]


def test_files_of_links_sort_before_those_of_others(client: dict[str, Any], server: dict[str, Any]) -> None:
    names = [link["file"] for kind in ("management", "wans", "lans", "tuns") for link in client[kind]]
    assert names[0] == "05-mpquic-10-enp6s18"
    assert {name.split("-")[2] for name in names} == {"10", "20", "30", "50"}
    assert max([*names, *(tun["file"] for tun in server["tuns"])]) < "10-netplan-all-en"
