"""What variables may say of links beyond the reference site: addresses, DHCP, VLANs, modems, what is forwarded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from mpquic_plan import build, netdevs

if TYPE_CHECKING:
    from collections.abc import Callable

Hosts = dict[str, dict[str, Any]]


def _by_name(items: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {item["name"]: item for item in items}


def _static_routes(hosts: Hosts) -> list[tuple[str, str | None, bool]]:
    wan = _by_name(build(hosts)["site1-client"]["wans"])["wan4"]
    return [
        (route["destination"], route["gateway"], route["on_link"])
        for route in wan["routes"]
        if route["type"] == "unicast"
    ]


def test_a_single_address_has_its_gateway_on_the_link(changed: Callable[..., Hosts]) -> None:
    static = {
        "address": "198.51.100.2/32",
        "gateway": "192.0.2.1",
        "address6": "2001:db8:5::2/128",
        "gateway6": "2001:db8:6::1",
    }
    assert _static_routes(changed([("site1-client", "site.wans[3].static", static)])) == [
        ("0.0.0.0/0", "192.0.2.1", True),
        ("::/0", "2001:db8:6::1", True),
    ]


def test_a_gateway_outside_of_the_subnet_has_to_be_meant(changed: Callable[..., Hosts]) -> None:
    static = {
        "address": "198.51.100.2/30",
        "gateway": "192.0.2.1",
        "address6": "2001:db8:5::2/64",
        "gateway6": "fe80::1",
        "gateway_on_link": True,
    }
    assert _static_routes(changed([("site1-client", "site.wans[3].static", static)])) == [
        ("198.51.100.0/30", None, False),
        ("2001:db8:5::/64", None, False),
        ("0.0.0.0/0", "192.0.2.1", True),
        ("::/0", "fe80::1", False),
    ]


@pytest.mark.parametrize(
    ("client_id", "expected"),
    [
        ("mac", ("mac", None, None, None)),
        ("duid", ("duid", None, None, None)),
        ("01:02:00:5E:00:53:04", ("mac", None, None, None)),
        ("FF:00:00:00:2A:00:03:00:01:02:00:5e:00:53:05", ("duid", 42, "link-layer", "00:01:02:00:5e:00:53:05")),
    ],
)
def test_a_client_identifier_is_taken_apart(
    changed: Callable[..., Hosts], client_id: str, expected: tuple[str | int | None, ...]
) -> None:
    changes = [
        ("site1-client", "site.wans[3].mac", "02:00:5E:00:53:04"),
        ("site1-client", "site.wans[3].dhcp", {"client_id": client_id}),
    ]
    wan = _by_name(build(changed(changes))["site1-client"]["wans"])["wan4"]
    client = wan["dhcp_client"]
    assert (client["identifier"], client["iaid"], client["duid_type"], client["duid_data"]) == expected
    assert wan["mac"] == "02:00:5e:00:53:04"


def test_management_may_be_on_vlans_of_any_card_but_a_wan(changed: Callable[..., Hosts]) -> None:
    items = [
        {"name": "mgmt1", "address": "10.10.11.100/24", "gateway": "10.10.11.1"},
        {"name": "mgmt2", "address": "10.30.0.1/24", "gateway": "10.30.0.2", "vlan": {"id": 30, "parent": "enp9s1"}},
        {"name": "mgmt3", "address": "10.31.0.1/24", "vlan": {"id": 31, "parent": "enp6s18"}},
        {"name": "mgmt4", "address": "10.32.0.1/24", "vlan": {"id": 32, "parent": "enp6s20"}, "device": "noc"},
    ]
    client = build(changed([("site1-client", "site.management", items)]))["site1-client"]
    management = _by_name(client["management"])
    assert (management["mgmt2"]["device"], netdevs.parent(management["mgmt2"])) == ("enp9s1.30", "enp9s1")
    assert management["mgmt2"]["rules"][0]["table"] == 152
    assert [(trunk["device"], trunk["vlan_devices"]) for trunk in client["trunks"]] == [("enp9s1", ["enp9s1.30"])]
    assert management["mgmt1"]["vlan_devices"] == ["enp6s18.31"]
    assert _by_name(client["lans"])["lan1"]["vlan_devices"] == ["noc"]
    assert client["firewall"]["management_devices"] == ["enp6s18", "enp6s18.31", "enp9s1.30", "noc"]


@pytest.mark.parametrize(
    ("lan", "expected"),
    [
        ({"address": "172.16.5.1/24"}, (2, 253)),
        ({"address": "172.16.5.254/24"}, (1, 253)),
        ({"address": "172.16.5.1/24", "router": "172.16.5.100"}, (101, 154)),
        ({"address": "172.16.5.1/24", "behind": ["192.168.105.0/24"]}, (3, 252)),
        ({"address": "172.16.5.1/29"}, (2, 5)),
    ],
)
def test_a_lan_gives_out_what_is_left_of_its_subnet(
    changed: Callable[..., Hosts], lan: dict[str, Any], expected: tuple[int, int]
) -> None:
    hosts = changed([("site1-client", "site.lans[4]", {"name": "lan5", "dhcp_server": {"dns": ["192.0.2.53"]}, **lan})])
    client = build(hosts)["site1-client"]
    server = _by_name(client["lans"])["lan5"]["dhcp_server"]
    assert (server["pool_offset"], server["pool_size"]) == expected
    assert client["firewall"]["dhcp_server_devices"] == ["enp7s1"]


def test_a_stated_bound_narrows_the_range(changed: Callable[..., Hosts]) -> None:
    server = {"dns": ["192.0.2.53"], "first": "172.16.5.100"}
    lan = {"name": "lan5", "address": "172.16.5.1/24", "dhcp_server": server}
    client = build(changed([("site1-client", "site.lans[4]", lan)]))["site1-client"]
    got = _by_name(client["lans"])["lan5"]["dhcp_server"]
    assert (got["pool_offset"], got["pool_size"], got["lease_s"]) == (100, 155, 3600)


def _modem_routes(wan: dict[str, Any]) -> dict[int, tuple[str | None, int]]:
    return {
        route["table"]: (route["gateway"], route["metric"])
        for route in wan["routes"]
        if route["destination"] == "192.168.100.1/32"
    }


def test_a_lan_reaches_the_modem_of_its_own_tunnel_first(changed: Callable[..., Hosts]) -> None:
    changes = [("site1-client", f"site.wans[{n}].modem_prefixes", ["192.168.100.1/32"]) for n in (4, 5)]
    changes.append(("site1-client", "site.wans[5].modem_route", "gateway"))
    client = build(changed(changes))["site1-client"]
    wan5, wan6 = (_modem_routes(_by_name(client["wans"])[name]) for name in ("wan5", "wan6"))
    assert wan5 == {254: (None, 205), 105: (None, 100), 205: (None, 100)} | dict.fromkeys(
        (201, 202, 203, 204, 206), (None, 205)
    )
    assert (wan6[254], wan6[205], wan6[206]) == (("_dhcp4", 206), ("_dhcp4", 206), ("_dhcp4", 100))


def test_nothing_but_the_modem_is_reached_past_the_tunnels(changed: Callable[..., Hosts]) -> None:
    client = build(changed([("site1-client", "site.wans[4].modem_prefixes", ["192.168.100.1/32"])]))["site1-client"]
    viewers = ["enp6s18", "enp6s19", "enp6s20", "enp6s21", "enp6s22", "enp6s23", "enp7s1", "enp7s2"]
    assert client["firewall"]["modems"] == [
        {"device": "enp7s7", "prefixes": ["192.168.100.1/32"], "viewers": viewers},
    ]
    assert client["firewall"]["forward"] == build(changed([]))["site1-client"]["firewall"]["forward"]
    assert "enp7s7" not in client["firewall"]["masquerade_devices"]
    for lan in client["lans"]:
        # While the WAN is away the tunnel isn't asked, whose default route is shorter.
        last = [route["type"] for route in lan["routes"] if route["destination"] == "192.168.100.1/32"]
        assert last == ["unreachable"]


def test_what_is_forwarded_besides_the_tunnels_is_told_by_pairs(changed: Callable[..., Hosts]) -> None:
    openings = [
        {"from": "docker0", "to": "public", "sources": ["172.17.0.0/16", "fd00:17::/64"]},
        {"from": "public", "to": "docker0", "protocol": "tcp", "ports": [443, 80]},
    ]
    site = [{"from": "lan5", "to": "wan6"}]
    changes = [("vps1", "vps.forward_openings", openings), ("site1-client", "site.firewall.forward_openings", site)]
    plan = build(changed([("site1-client", "site.firewall", {}), *changes]))
    got = [
        (rule["from"], rule["to"], rule["family"], rule["sources"], rule["ports"])
        for rule in plan["vps1"]["firewall"]["forward_openings"]
    ]
    assert got == [
        ("docker0", "public", "ip", ["172.17.0.0/16"], []),
        ("docker0", "public", "ip6", ["fd00:17::/64"], []),
        ("public", "docker0", None, [], [80, 443]),
    ]
    [own] = plan["site1-client"]["firewall"]["forward_openings"]
    assert (own["from"], own["to"]) == ("enp7s1", "enp7s8")


def test_time_servers_are_passed_on(changed: Callable[..., Hosts]) -> None:
    changes = [("site1-client", "site.ntp", ["192.0.2.123", "ntp.example.net"]), ("vps1", "vps.ntp", ["2001:db8::123"])]
    plan = build(changed(changes))
    assert plan["site1-client"]["ntp"] == ["192.0.2.123", "ntp.example.net"]
    assert plan["vps1"]["ntp"] == ["2001:db8::123"]
