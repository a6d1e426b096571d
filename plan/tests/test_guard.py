"""What mpquic-guard keeps in place, read from the slices of the reference site."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
from mpquic_plan import build, guard
from mpquic_plan.wans import DHCP_GATEWAY


@pytest.fixture
def client(reference: dict[str, Any]) -> dict[str, Any]:
    return build(reference)["site1-client"]


@pytest.fixture
def vps(reference: dict[str, Any]) -> dict[str, Any]:
    return build(reference)["vps1"]


def test_each_lan_has_its_rules_routes_and_floors_in_both_families(client: dict[str, Any]) -> None:
    kept = guard.kept(client, "")
    for lan in client["lans"]:
        rules = {(rule["family"], rule["table"]) for rule in kept["rules"] if rule["incoming"] == lan["device"]}
        assert rules == {(4, lan["table"]), (6, lan["table"])}
        routes = {(route["family"], route["type"]) for route in kept["routes"] if route["table"] == lan["table"]}
        assert routes == {(4, "unicast"), (6, "unicast"), (4, "unreachable"), (6, "unreachable")}


def test_only_where_networkd_waits_for_carrier_is_it_asked_for(client: dict[str, Any]) -> None:
    kept = guard.kept(client, "")
    waiting = {link["device"] for link in [*client["wans"], *client["management"]]}
    for thing in [*kept["rules"], *kept["routes"], *kept["addresses"]]:
        assert thing["carrier"] == (thing["device"] in waiting)


def test_no_gateway_of_a_lease_is_kept(client: dict[str, Any]) -> None:
    client["wans"][0]["routes"].append({**client["wans"][0]["routes"][0], "gateway": DHCP_GATEWAY})
    assert not any(route["gateway"] == DHCP_GATEWAY for route in guard.kept(client, "")["routes"])


def test_parameters_of_devices_are_those_of_ours(client: dict[str, Any], vps: dict[str, Any]) -> None:
    for plan, device in ((client, "mpq5"), (client, client["wans"][0]["device"]), (vps, "mpq5"), (vps, "ens18")):
        kept = guard.kept(plan, "ens18")
        assert kept["parameters"][f"net/ipv4/conf/{device}/rp_filter"] == 0
        assert not any("*" in name for name in kept["parameters"])
    assert guard.kept(client, "")["forwarding"]["net/ipv4/ip_forward"] == 1


def test_what_a_vps_masquerades_leaves_by_its_public_device_alone(vps: dict[str, Any]) -> None:
    vps["public"]["device"] = "auto"
    pairs = guard.kept(vps, "ens3")["masqueraded"]
    assert {pair["device"] for pair in pairs} == {"ens3"}
    assert {pair["prefix"] for pair in pairs} == {*vps["firewall"]["masquerade4"], *vps["firewall"]["masquerade6"]}
    assert guard.kept(vps, "")["masqueraded"] == []


def test_a_client_that_masquerades_keeps_its_lans_from_every_way_out(client: dict[str, Any]) -> None:
    pairs = guard.kept(client, "")["masqueraded"]
    assert {pair["device"] for pair in pairs} == set(client["firewall"]["masquerade_devices"])
    lans = {str(ip_network(address, strict=False)) for lan in client["lans"] for address in lan["addresses"]}
    assert {pair["prefix"] for pair in pairs} == lans
