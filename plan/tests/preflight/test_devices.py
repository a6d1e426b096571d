"""The devices that the variables name exist."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mpquic_plan import netdevs
from mpquic_plan.preflight.devices import cards

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpquic_plan.preflight import Host

    Make = Callable[..., Host]
    Told = Callable[..., list[str]]


def test_a_lan_that_is_not_there_is_told_with_a_near_name(client: Make, problems: Told) -> None:
    host = client()
    host.survey["links"]["enp6s20np0"] = host.survey["links"].pop("enp6s20")
    (only,) = problems(host)
    assert "missing-device: site.lans[] lan1: there is no interface enp6s20 on the host; did you mean" in only
    assert "state the right one in device" in only


def test_a_wan_may_be_absent(client: Make, problems: Told) -> None:
    host = client()
    del host.survey["links"]["enp7s7"]
    assert problems(host) == []


def test_a_lan_that_is_out_of_service_may_be_absent(client: Make, problems: Told) -> None:
    host = client(plan=[("lans/4/enabled", False)])
    del host.survey["links"]["enp7s1"]
    assert problems(host) == []


def test_a_vlan_is_made_but_its_parent_is_not(client: Make, problems: Told) -> None:
    vlan = [("lans/0/device", "enp6s20.30"), ("lans/0/netdev", netdevs.vlan(30, "enp6s20"))]
    assert problems(client(plan=vlan)) == []
    host = client(plan=vlan)
    del host.survey["links"]["enp6s20"]
    (only,) = problems(host)
    assert "site.lans[] lan1: there is no interface enp6s20 " in only


def test_the_public_device_of_a_vps_is_there_if_it_is_named(vps: Make, problems: Told) -> None:
    assert problems(vps(plan=[("public/device", "eth0")])) == []
    (only,) = problems(vps(plan=[("public/device", "ens3")]))
    assert "missing-device: vps.device: there is no interface ens3 on the host; it has eth0" in only


def test_a_host_without_a_card_is_said_to_have_none(vps: Make, problems: Told) -> None:
    host = vps(plan=[("public/device", "ens3")])
    host.survey["links"] = {"lo": host.survey["links"]["lo"]}
    told = [line for line in problems(host) if line.startswith("missing-device")]
    assert told == [
        "missing-device: vps.device: there is no interface ens3 on the host; it has none; state the right one in device"
    ]


def test_a_vps_without_a_default_route_of_ipv4_has_no_public_device(vps: Make, problems: Told) -> None:
    assert problems(vps(("default_routes", [{"family": 6, "device": "eth0", "gateway": "fe80::1"}]))) == []


def test_our_own_tunnels_are_not_offered_as_names(
    client: Make, link: Callable[..., dict[str, Any]], problems: Told
) -> None:
    host = client(("links/mpq1", link("tun")))
    del host.survey["links"]["enp6s20"]
    (only,) = problems(host)
    assert "mpq1" not in only
    assert "lo (" not in only


def test_the_near_name_is_not_one_that_the_variables_use_already(client: Make, problems: Told) -> None:
    host = client()
    del host.survey["links"]["enp6s20"]
    (only,) = problems(host)
    assert "did you mean" not in only


def test_a_second_name_of_a_card_is_told_with_its_first_one(
    client: Make, link: Callable[..., dict[str, Any]], problems: Told
) -> None:
    host = client(("links/lan0", link("", altnames=["enp6s20"])))
    del host.survey["links"]["enp6s20"]
    (only,) = problems(host)
    assert "did you mean lan0?" in only


def test_a_card_that_is_known_by_an_address_which_the_host_lacks_is_told_by_it(client: Make, problems: Told) -> None:
    host = client()
    host.plan["matches"] = [{"mac": "02:00:00:00:00:aa", "device": "lan1", "kind": "lan", "name": "lan1"}]
    host.plan["lans"][0]["device"] = "lan1"
    (only,) = problems(host)
    assert "site.lans[] lan1: no card of the host has the MAC address 02:00:00:00:00:aa" in only


def test_cards_are_known_by_the_address_that_they_were_made_with() -> None:
    links = {
        "lo": {"mac": "00:00:00:00:00:00", "permanent_mac": "", "kind": ""},
        "ens3": {"mac": "02:00:00:00:00:01", "permanent_mac": "02:00:00:00:00:AA", "kind": ""},
        "ens3.7": {"mac": "02:00:00:00:00:01", "permanent_mac": "", "kind": "vlan"},
    }
    found = cards(links)
    assert found["02:00:00:00:00:aa"] == "ens3"
    assert found["02:00:00:00:00:01"] == "ens3"
