"""Would a change of a VPS cut off a site that isn't in the run?"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import mpquic_plan
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mpquic_plan.preflight.cut_off import cut_off, moves, served

if TYPE_CHECKING:
    from collections.abc import Callable

    Hosts = dict[str, dict[str, Any]]
    Put = Callable[[Hosts, list[tuple[str, str, Any]]], None]
    Judge = Callable[..., list[str]]

NAME = "vps1.example.net"


def plain(hosts: Hosts) -> Hosts:
    result: Hosts = json.loads(json.dumps(mpquic_plan.build(hosts), default=str))
    return result


def configurations(vps: dict[str, Any]) -> list[dict[str, Any]]:
    return [instance["config"] for instance in vps["instances"]]


@pytest.fixture
def judge(reference: Hosts, put: Put) -> Judge:
    """Judges a change of the variables on a VPS that serves the reference site, while that site is absent."""

    def of(
        *changes: tuple[str, str, Any],
        before: list[tuple[str, str, Any]] | None = None,
        now: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = list,
        absent: bool = True,
        names: list[str] | None = None,
    ) -> list[str]:
        put(reference, before or [])
        serving = now(configurations(plain(reference)["vps1"]))
        put(reference, changes)
        after = plain(reference)
        planned_names = [entry.removeprefix("DNS:") for entry in after["vps1"]["pki"]["subject_alt_names"]]
        found = cut_off(
            served(serving),
            served(configurations(after["vps1"])),
            [NAME] if names is None else names,
            planned_names,
            {"site1-client": after["site1-client"]} if absent else {},
        )
        return [str(each) for each in found]

    return of


def test_a_run_without_a_change_cuts_nobody_off(judge: Judge) -> None:
    assert judge() == []


def test_a_changed_port_is_named_with_the_tunnel(judge: Judge) -> None:
    assert judge(("vps1", "vps.listeners[4].port", 45555)) == [
        "site1-client: mpq5: the port of listener mpq5 would change from 45005 to 45555"
    ]


def test_a_site_in_the_run_may_follow(judge: Judge) -> None:
    assert judge(("vps1", "vps.listeners[4].port", 45555), absent=False) == []


def test_a_listener_that_is_taken_away_serves_nobody_any_more(judge: Judge) -> None:
    found = judge(
        ("site1-client", "site.tunnels[5]", ...),
        ("site1-client", "site.lans[5].tunnel", "mpq5"),
        ("vps1", "vps.listeners[5]", ...),
    )
    assert found == ["site1-client: mpq6: port 45006 (listener mpq6) would not serve it any more"] or found == [
        "site1-client: its tunnel on mpq6: port 45006 (listener mpq6) would not serve it any more"
    ]


def test_a_listener_of_another_name_on_the_same_port_goes_on_serving(judge: Judge) -> None:
    def renamed(configs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**config, "name": f"old-{config['name']}"} for config in configs]

    assert judge(now=renamed) == []


def test_another_name_of_the_site_is_another_identity(judge: Judge) -> None:
    found = judge(("site1-client", "site.name", "north"))
    assert len(found) == 6
    assert found[0] == (
        "site1-client: mpq1: its identity would change from urn:mpquic:site:site1 to urn:mpquic:site:north (site.name)"
    )


def test_another_inner_address_is_named(judge: Judge) -> None:
    def other(configs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        configs[0]["peers"][0]["allowed"] = ["10.99.1.1/32"]
        return configs

    assert judge(now=other) == [
        "site1-client: its tunnel on mpq1: its inner address on mpq1 would change from 10.99.1.1 to 10.200.1.1"
    ]


@pytest.mark.parametrize(("now", "count"), [([NAME], 0), (["old.example.net", NAME], 1), ([], 0)])
def test_the_first_name_of_the_certificate_is_what_clients_expect(judge: Judge, now: list[str], count: int) -> None:
    found = judge(names=now)
    assert len(found) == count
    assert all("the certificate of the VPS would lose the name old.example.net" in each for each in found)


def test_a_vps_that_serves_nobody_yet_can_not_cut_off(judge: Judge) -> None:
    assert judge(now=lambda _: [], names=["old.example.net"]) == []


def test_the_stripe_port_matters_to_a_striped_tunnel_alone(judge: Judge) -> None:
    quic = [("site1-client", "site.tunnels[0].transport", "quic")]
    assert judge(("vps1", "vps.listeners[0].stripe_port", 46999), before=quic) == []
    found = judge(
        ("vps1", "vps.listeners[1].stripe_port", 46998),
        before=[("site1-client", "site.tunnels[1].transport", "stripe")],
    )
    assert found == ["site1-client: mpq2: the stripe port of mpq2 would change from 46002 to 46998"]


def test_an_address_that_another_site_has_now_is_that_sites_own(judge: Judge) -> None:
    """Sites may swap addresses while the one whose address it becomes was never provisioned."""

    def others(configs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for config in configs:
            config["peers"][0]["identity"] = "urn:mpquic:site:site2"
        return configs

    both = judge(now=others)
    assert len(both) == 6, "a site that isn't planned any more may be the same one by another name"
    planned = served(others([{"role": "server", "bind_port": 1, "peers": [{"identity": "", "allowed": []}]}]))
    client = {
        "pki": {"subject_alt_names": ["URI:urn:mpquic:site:site1"]},
        "tuns": [{"name": "mpq1", "addresses": ["10.200.1.1/32"]}],
        "instances": [],
    }
    now = served(
        [
            {
                "role": "server",
                "bind_port": 1,
                "peers": [{"identity": "urn:mpquic:site:site2", "allowed": ["10.200.1.1/32"]}],
            }
        ]
    )
    assert list(cut_off(now, planned, [], [], {"site1-client": client})) == []


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"role": "client"},
        {"role": "server"},
        {"role": "server", "bind_port": "45001"},
        {"role": "server", "bind_port": 45001, "peers": None},
        {"role": "server", "bind_port": 45001, "peers": [None, "x", {}]},
    ],
)
def test_a_damaged_instance_serves_nobody(config: dict[str, Any]) -> None:
    assert served([config]) == []


def test_the_inner_address_is_the_first_host_route_of_ipv4() -> None:
    allowed = ["2001:db8::1/128", "172.16.0.0/16", "10.200.1.1/32", "10.200.1.9/32"]
    peers = [{"identity": "a", "allowed": allowed}, {"identity": "b", "allowed": None}]
    (first, second) = served([{"role": "server", "bind_port": 1, "peers": peers}])
    assert (first.address, second.address) == ("10.200.1.1", "")


DATA = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["identity", "allowed", "x"]), inner, max_size=3),
    ),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {"role": st.just("server"), "bind_port": st.just(45001)},
        optional={"peers": st.one_of(DATA, st.lists(DATA)), "stripe_port": DATA, "stripe_enabled": DATA, "name": DATA},
    )
)
@example({"role": "server", "bind_port": 45001, "peers": 5})
@example({"role": "server", "bind_port": 45001, "peers": [{"identity": "a", "allowed": 5}]})
def test_whatever_is_in_a_file_on_the_host_can_be_read(config: dict[str, Any]) -> None:
    assert all(entry.port == config["bind_port"] for entry in served([config]))


SECOND = {
    "name": "site2",
    "site_id": 2,
    "vps": "vps1",
    "management": [{"name": "mgmt1", "address": "dhcp"}],
    "wans": [{"name": "wan4", "classes": "all", "class_number": 1}],
    "tunnels": [],
    "lans": [],
}


def moved(hosts: Hosts, put: Put, changes: list[tuple[str, str, Any]]) -> list[str]:
    before = served(configurations(plain(hosts)["vps1"]))
    put(hosts, changes)
    return [str(each) for each in moves(before, served(configurations(plain(hosts)["vps1"])))]


def test_more_tunnels_of_each_site_move_those_of_the_other_sites_and_each_is_named(whole: Hosts, put: Put) -> None:
    put(whole, [("site2-client", "site", SECOND)])
    assert moved(whole, put, [("vps1", "vps.listeners[6].tunnels_per_site", 4)]) == [
        "mt4: cr1 of urn:mpquic:site:site2 from 10.200.10.13 to 10.200.10.17",
        "mt4: br1 of urn:mpquic:site:site2 from 10.200.10.17 to 10.200.10.21",
        "mt4: df1 of urn:mpquic:site:site2 from 10.200.10.21 to 10.200.10.25",
    ]


def test_a_listener_of_one_site_may_be_renumbered(whole: Hosts, put: Put) -> None:
    assert moved(whole, put, [("vps1", "vps.listeners[6].subnet", "10.200.20.0/24")]) == []


def test_another_site_moves_nobody(whole: Hosts, put: Put) -> None:
    assert moved(whole, put, [("site2-client", "site", SECOND)]) == []
