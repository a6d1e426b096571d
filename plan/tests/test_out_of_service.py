"""`enabled: false`: a tunnel, a WAN or a LAN is out of service on purpose, and its neighbours notice nothing."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
from mpquic_plan import build, validate

if TYPE_CHECKING:
    from collections.abc import Callable

Hosts = dict[str, dict[str, Any]]
Change = tuple[str, str, Any]
SITE = "site1-client"
VLANS = [{"id": 20, "tunnel": "mpq5"}, {"id": 21, "tunnel": "mpq4"}]
PAGE = "192.168.100.1/32"
ENDS = [("unreachable", "0.0.0.0/0"), ("unreachable", "::/0")]


def _named(items: list[dict[str, Any]], name: str) -> dict[str, Any]:
    (item,) = [item for item in items if item["name"] == name]
    return item


def _without(items: list[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    return [item for item in items if item["name"] not in names]


def _in_table(piece: dict[str, Any], table: int) -> list[tuple[str, str]]:
    links = [*piece["wans"], *piece["lans"], *piece["tuns"]]
    return [
        (route["type"], route["destination"]) for link in links for route in link["routes"] if route["table"] == table
    ]


@pytest.fixture
def plans(reference: Hosts, put: Callable[..., None]) -> Callable[..., tuple[dict[str, Any], dict[str, Any]]]:
    """The plan of the reference site with two changes, before and after the second one."""

    def make(before: list[Change], after: list[Change]) -> tuple[dict[str, Any], dict[str, Any]]:
        put(reference, before)
        former = build(copy.deepcopy(reference))
        put(reference, after)
        return former, build(reference)

    return make


@pytest.mark.parametrize("path", ["site.tunnels[4].enabled", "site.wans[4].enabled"])
def test_a_tunnel_is_out_of_service_by_its_own_key_and_by_that_of_its_wan(
    plans: Callable[..., tuple[dict[str, Any], dict[str, Any]]], path: str
) -> None:
    before, after = plans([], [(SITE, path, False)])
    client, server = after[SITE], after["vps1"]
    instance = _named(client["instances"], "mpq5")
    assert (instance["enabled"], instance["config"]["enabled"]) == (False, False)
    # Everything else of it stays, at both ends: it is the same tunnel when it comes back.
    former = _named(before[SITE]["instances"], "mpq5")["config"]
    assert {key: value for key, value in instance["config"].items() if key != "enabled"} == former
    (peer,) = _named(server["instances"], "mpq5")["config"]["peers"]
    (was,) = _named(before["vps1"]["instances"], "mpq5")["config"]["peers"]
    assert peer == {**was, "enabled": False}
    assert client["tuns"] == before[SITE]["tuns"]
    assert _without(client["instances"], "mpq5") == _without(before[SITE]["instances"], "mpq5")
    assert {**server, "instances": []} == {**before["vps1"], "instances": []}
    assert _without(server["instances"], "mpq5") == _without(before["vps1"]["instances"], "mpq5")


def test_a_tunnel_out_of_service_leaves_routes_and_filter_as_one_that_is_down(
    plans: Callable[..., tuple[dict[str, Any], dict[str, Any]]],
) -> None:
    """Its LAN has a stated fallback as ever, or gets `unreachable` as soon as the TUN has no carrier."""
    fallback = [(SITE, "site.lans[4].fallback", "wan6")]
    before, after = plans(fallback, [(SITE, "site.tunnels[4].enabled", False)])
    for key in ("wans", "lans", "tuns", "firewall", "routing_tables"):
        assert after[SITE][key] == before[SITE][key]


def test_the_interface_of_a_wan_out_of_service_is_down_and_asks_for_nothing(
    plans: Callable[..., tuple[dict[str, Any], dict[str, Any]]],
) -> None:
    wan = {"ipv6": True, "modem_prefixes": [PAGE], "name": "wan5"}
    before, after = plans([(SITE, "site.wans[4]", wan)], [(SITE, "site.wans[4].enabled", False)])
    former, out = (_named(plan[SITE]["wans"], "wan5") for plan in (before, after))
    assert (former["enabled"], former["dhcp"], former["ipv6"]) == (True, True, True)
    assert (out["enabled"], out["dhcp"], out["ipv6"], out["addresses"]) == (False, False, False, [])
    assert {route["type"] for route in out["routes"]} == {"blackhole"}
    # Nobody sees its modem's page any more, and no tunnel is asked for it.
    assert [modem["device"] for modem in before[SITE]["firewall"]["modems"]] == ["enp7s7"]
    assert after[SITE]["firewall"]["modems"] == []
    assert ("unreachable", PAGE) in _in_table(after[SITE], 204)
    assert _without(after[SITE]["wans"], "wan5") == _without(before[SITE]["wans"], "wan5")
    assert after[SITE]["lans"] == before[SITE]["lans"]


def test_a_wan_with_fixed_addresses_loses_them_while_it_is_out_of_service(changed: Callable[..., Hosts]) -> None:
    static = {"address": "198.51.100.2/30", "gateway": "198.51.100.1"}
    site = build(changed([(SITE, "site.wans[4].static", static), (SITE, "site.wans[4].enabled", False)]))[SITE]
    wan = _named(site["wans"], "wan5")
    assert wan["addresses"] == []
    assert {route["type"] for route in wan["routes"]} == {"blackhole"}


def test_a_fallback_out_of_service_leads_nowhere(plans: Callable[..., tuple[dict[str, Any], dict[str, Any]]]) -> None:
    before, after = plans([(SITE, "site.lans[3].fallback", "wan5")], [(SITE, "site.wans[4].enabled", False)])
    lan, former = (_named(plan[SITE]["lans"], "lan4") for plan in (after, before))
    assert [rule["table"] for rule in former["rules"]] == [204, 105]
    assert [rule["table"] for rule in lan["rules"]] == [204]
    assert [(route["type"], route["destination"]) for route in lan["routes"]] == ENDS
    firewall = after[SITE]["firewall"]
    assert {"from": "enp6s23", "to": "enp7s7"} in before[SITE]["firewall"]["forward"]
    assert {"from": "enp6s23", "to": "enp7s7"} not in firewall["forward"]
    assert {"from": "enp6s23", "to": "mpq4"} in firewall["forward"]
    assert "enp7s7" not in firewall["masquerade_devices"]


@pytest.mark.parametrize("mode", ["nat", "routed"])
def test_a_lan_out_of_service_keeps_its_address_and_leads_nowhere(
    plans: Callable[..., tuple[dict[str, Any], dict[str, Any]]], mode: str
) -> None:
    lan: dict[str, Any] = {
        "name": "lan5",
        "fallback": "wan6",
        "behind": ["192.168.105.0/24"],
        "vlans": VLANS,
        "dhcp_server": {"dns": ["192.0.2.53"]},
        "address": "172.16.5.1/24",
    }
    before, after = plans(
        [(SITE, "site.lan_mode", mode), (SITE, "site.lans[4]", lan), (SITE, "site.wans[3].modem_prefixes", [PAGE])],
        [(SITE, "site.lans[4].enabled", False)],
    )
    client, was = after[SITE], before[SITE]
    for name, device in (("lan5", "enp7s1"), ("lan5.20", "enp7s1.20"), ("lan5.21", "enp7s1.21")):
        out, former = _named(client["lans"], name), _named(was["lans"], name)
        assert (out["addresses"], out["dhcp_server"]) == (former["addresses"], former["dhcp_server"])
        assert _in_table(client, out["table"]) == ENDS
        assert [rule["table"] for rule in out["rules"]] == [out["table"]]
        firewall = client["firewall"]
        assert device not in {end for pair in firewall["forward"] for end in pair.values()}
        assert device not in {viewer for modem in firewall["modems"] for viewer in modem["viewers"]}
        # It is pinged, and asked for addresses, as before.
        assert device in firewall["lan_devices"]
    assert client["firewall"]["dhcp_server_devices"] == was["firewall"]["dhcp_server_devices"] == ["enp7s1"]
    # Who is behind its router still gets replies from the client itself.
    behind = [route for route in _named(client["lans"], "lan5")["routes"] if route["destination"] == "192.168.105.0/24"]
    assert behind == [route for route in _named(was["lans"], "lan5")["routes"] if route["table"] is None]
    # Its tunnels go on for others: no end of them restarts or reloads.
    assert client["instances"] == was["instances"]
    assert after["vps1"] == before["vps1"]
    names = ("lan5", "lan5.20", "lan5.21")
    assert _without(client["lans"], *names) == _without(was["lans"], *names)
    assert client["wans"][:3] == was["wans"][:3]


def test_a_vlan_is_out_of_service_alone(changed: Callable[..., Hosts]) -> None:
    hosts = changed([(SITE, "site.lans[4].vlans", VLANS), (SITE, "site.lans[4].vlans[0].enabled", False)])
    client = build(hosts)[SITE]
    assert [(lan["name"], lan["enabled"]) for lan in client["lans"] if lan["name"].startswith("lan5")] == [
        ("lan5", True),
        ("lan5.20", False),
        ("lan5.21", True),
    ]
    assert _in_table(client, 500_020) == ENDS
    assert ("unicast", "0.0.0.0/0") in _in_table(client, 500_021)


def test_what_else_is_forwarded_spares_a_lan_out_of_service(changed: Callable[..., Hosts]) -> None:
    openings = [{"from": "docker0", "to": "lan"}, {"from": "docker0", "to": "lan5"}, {"from": "lan5", "to": "docker0"}]
    hosts = changed([(SITE, "site.firewall.forward_openings", openings), (SITE, "site.lans[4].enabled", False)])
    ends = {(entry["from"], entry["to"]) for entry in build(hosts)[SITE]["firewall"]["forward_openings"]}
    assert ends == {("docker0", f"enp6s{n}") for n in range(20, 24)} | {("docker0", "enp7s2")}


def test_an_egress_out_of_service_is_an_error_with_the_remedy(changed: Callable[..., Hosts]) -> None:
    hosts = changed([(SITE, "site.egress", "wan5"), (SITE, "site.wans[4].enabled", False)])
    (problem,) = validate(hosts)
    assert problem.path == "site.egress"
    assert problem.message.startswith("wan5 is out of service (enabled: false in site.wans[4])")
    assert "name another interface for as long" in problem.message


def test_the_only_way_in_is_not_taken_out_of_service(changed: Callable[..., Hosts]) -> None:
    hosts = changed([(SITE, "site.firewall.ssh_from", ["mpq5"]), (SITE, "site.wans[4].enabled", False)])
    (problem,) = validate(hosts)
    assert problem.path == "site.firewall.ssh_from"
    assert "only by mpq5, which is out of service" in problem.message
    hosts = changed([(SITE, "site.firewall.ssh_from", ["mpq5", "lan4"])])
    assert validate(hosts) == []
