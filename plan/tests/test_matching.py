"""Devices that the variables know by MAC address: tokens in the plan, names when the host has been looked at."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpquic_plan import PlanError, build
from mpquic_plan.matching import resolve

if TYPE_CHECKING:
    from collections.abc import Callable

Hosts = dict[str, dict[str, Any]]
MACS = [f"02:00:5e:00:53:{n:02x}" for n in range(1, 14)]


def _mac(n: int) -> str:
    return MACS[n - 1]


def _site(**more: Any) -> dict[str, Any]:
    return {
        "name": "farm",
        "site_id": 1,
        "management": [{"name": "mgmt1", "address": "dhcp", "match": {"mac": _mac(1)}}],
        "wans": [{"name": "wan5", "match": {"mac": _mac(2)}, "modem_prefixes": ["192.168.100.1/32"]}, {"name": "wan6"}],
        "lans": [
            {
                "name": "lan5",
                "match": {"mac": _mac(3)},
                "device": "inside",
                "fallback": "wan5",
                "vlans": [{"id": 21, "tunnel": "mpq5"}],
            }
        ],
        **more,
    }


def _slice(site: dict[str, Any]) -> dict[str, Any]:
    return build({"farm": {"site": site}, "vps1": {"vps": {"address": "203.0.113.10"}}})["farm"]


def _devices(plan: dict[str, Any]) -> dict[str, str]:
    return {link["name"]: link["device"] for kind in ("management", "wans", "lans") for link in plan[kind]}


def test_cards_that_are_present_have_the_names_that_they_have() -> None:
    plan = resolve(_slice(_site()), {_mac(1): "enp1s0", _mac(2).upper(): "enx1", _mac(3): "ens5"})
    assert _devices(plan) == {"mgmt1": "enp1s0", "wan5": "enx1", "wan6": "enp7s8", "lan5": "ens5", "lan5.21": "ens5.21"}
    config = next(instance["config"] for instance in plan["instances"] if instance["name"] == "mpq5")
    assert config["bind_ip"] == "iface:enx1"
    assert plan["wans"][0]["file"] == "05-mpquic-20-enx1"
    assert {"from": "ens5", "to": "enx1"} in plan["firewall"]["forward"]
    assert plan["firewall"]["modems"][0]["device"] == "enx1"
    pinned = [(card["mac"], card["device"], card["file"]) for card in plan["matches"]]
    assert pinned == [
        (_mac(3), "ens5", "05-mpquic-30-lan5"),
        (_mac(1), "enp1s0", "05-mpquic-10-mgmt1"),
        (_mac(2), "enx1", "05-mpquic-20-wan5"),
    ]


def test_a_card_that_is_absent_has_the_stated_name_or_that_of_its_item() -> None:
    assert _devices(resolve(_slice(_site()), {})) == {
        "mgmt1": "mgmt1",
        "wan5": "wan5",
        "wan6": "enp7s8",
        "lan5": "inside",
        "lan5.21": "inside.21",
    }


def test_a_vlan_of_management_may_be_on_the_card_of_a_lan() -> None:
    management = [
        {"name": "mgmt1", "address": "dhcp"},
        {"name": "mgmt2", "address": "10.30.0.1/24", "vlan": {"id": 30}, "match": {"mac": _mac(3)}},
        {"name": "mgmt3", "address": "10.31.0.1/24", "vlan": {"id": 31, "parent": "trunk"}, "match": {"mac": _mac(4)}},
    ]
    plan = resolve(_slice(_site(management=management)), {_mac(3): "ens5"})
    assert [item["device"] for item in plan["management"]] == ["enp6s18", "ens5.30", "trunk.31"]
    lan = next(lan for lan in plan["lans"] if lan["name"] == "lan5")
    assert lan["vlan_devices"] == ["ens5.21", "ens5.30"]
    assert [(trunk["device"], trunk["vlan_devices"]) for trunk in plan["trunks"]] == [("trunk", ["trunk.31"])]


def test_names_that_the_kernel_refuses_are_told_of() -> None:
    with pytest.raises(PlanError) as raised:
        resolve(_slice(_site()), {_mac(3): "enp130s20f1np0"})
    assert str(raised.value) == (
        "farm: site.lans[0].match: the interface of lan5.21 would be called 'enp130s20f1np0.21', which has 17 "
        "characters; an interface name has at most 15: state a shorter device for lan5.21"
    )


@pytest.mark.parametrize(
    ("present", "message"),
    [
        ({_mac(2): "enp7s8"}, f"the card {_mac(2)} is called 'enp7s8', which is the interface of wan6"),
        (
            {_mac(1): "wan5"},
            f"the card {_mac(2)} isn't there and would be called 'wan5', which is the interface of mgmt1",
        ),
    ],
)
def test_a_name_that_another_link_has_is_told_of(present: dict[str, str], message: str) -> None:
    with pytest.raises(PlanError, match=r"state another device") as raised:
        resolve(_slice(_site()), present)
    assert message in str(raised.value)


def test_a_plan_without_matches_stays_as_it_is(changed: Callable[..., Hosts]) -> None:
    for plan in build(changed([])).values():
        assert resolve(plan, {_mac(1): "enp1s0"}) == plan


@st.composite
def matched_sites(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, str]]:
    """A site with some links by MAC address, and a host that has some of the cards."""
    macs = iter(draw(st.permutations(MACS)))
    numbers = draw(st.lists(st.integers(1, 6), min_size=1, max_size=6, unique=True))

    def link(name: str, **more: Any) -> dict[str, Any]:
        item: dict[str, Any] = {"name": name, **more}
        if draw(st.booleans()):
            item["match"] = {"mac": next(macs)}
            if draw(st.booleans()):
                item["device"] = f"x{name}"
        return item

    site = {
        "name": "farm",
        "site_id": 1,
        "management": [link("mgmt1", address="dhcp")],
        "wans": [link(f"wan{n}", modem_prefixes=["192.168.100.1/32"]) for n in numbers],
        "lans": [
            link(
                f"lan{n}", address=f"172.16.{n}.1/24", dhcp_server={"dns": ["192.0.2.53"]}, fallback=f"wan{numbers[0]}"
            )
            | ({"vlans": [{"id": 10 + n, "tunnel": "none"}]} if draw(st.booleans()) else {})
            for n in numbers
        ],
        "firewall": {"forward_openings": [{"from": "lan", "to": f"wan{numbers[0]}"}]},
    }
    present = {mac: f"enx{place}" for place, mac in enumerate(draw(st.lists(st.sampled_from(MACS), unique=True)))}
    return site, present


@settings(max_examples=60, deadline=None)
@given(matched_sites())
def test_no_token_is_left(case: tuple[dict[str, Any], dict[str, str]]) -> None:
    site, present = case
    plan = _slice(site)
    before = json.dumps(plan)
    resolved = resolve(plan, present)
    assert "match:" not in json.dumps(resolved)
    assert json.dumps(plan) == before
    devices = list(_devices(resolved).values())
    assert len(set(devices)) == len(devices)
    assert resolve(resolved, {}) | {"matches": 0} == resolved | {"matches": 0}
