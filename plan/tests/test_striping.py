"""A tunnel is striped when its site says so, at both ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from mpquic_plan import build

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Hosts = dict[str, dict[str, Any]]
Change = tuple[str, str, Any]
STRIPED: Change = ("site1-client", "site.tunnels[5].transport", "stripe")
QUIC: Change = ("site1-client", "site.tunnels[5].transport", "quic")
RELIABLE: Change = ("site1-client", "site.tunnels[5].transport_mode", "reliable")
KEYS = ("pipes", "stripe_data_shards", "stripe_parity_shards", "stripe_fec", "stripe_fec_max_overhead")


@pytest.fixture
def plan_of(changed: Callable[[Iterable[Change]], Hosts]) -> Callable[..., dict[str, Any]]:
    """Plans the reference site after changes."""

    def plan(*changes: Change) -> dict[str, Any]:
        return build(changed(changes))

    return plan


def config_of(plan: dict[str, Any], host: str, name: str = "mpq6") -> dict[str, Any]:
    (config,) = (instance["config"] for instance in plan[host]["instances"] if instance["name"] == name)
    return dict(config)


def test_a_striped_tunnel_meets_its_listener_1000_ports_higher(plan_of: Callable[..., dict[str, Any]]) -> None:
    plan = plan_of(STRIPED)
    client, server = config_of(plan, "site1-client"), config_of(plan, "vps1")
    assert (client["transport"], client["remote_port"], client["stripe_port"]) == ("stripe", 45006, 46006)
    assert (server["stripe_enabled"], server["bind_port"], server["stripe_port"]) == (True, 45006, 46006)
    assert [client[key] for key in KEYS] == [4, 10, 2, "adaptive", 0.5]


def test_a_tunnel_that_states_nothing_is_striped(plan_of: Callable[..., dict[str, Any]]) -> None:
    plan = plan_of()
    for instance in plan["site1-client"]["instances"]:
        config = instance["config"]
        assert (config["transport"], config["transport_mode"]) == ("stripe", "datagram")
        assert config["stripe_port"] == config["remote_port"] + 1000


def test_a_reliable_tunnel_goes_over_quic_without_saying_so(plan_of: Callable[..., dict[str, Any]]) -> None:
    plan = plan_of(RELIABLE)
    config = config_of(plan, "site1-client")
    assert (config["transport"], config["transport_mode"]) == ("quic", "reliable")
    assert {*KEYS, "stripe_enabled", "stripe_port"}.isdisjoint(config)
    assert config_of(plan, "site1-client", "mpq5")["transport"] == "stripe"
    assert config_of(plan_of(QUIC), "site1-client") == config


@pytest.mark.parametrize(
    ("of_class", "own", "expected"),
    [
        ({}, {}, "stripe"),
        ({"transport_mode": "reliable"}, {}, "quic"),
        ({"transport": "quic"}, {}, "quic"),
        ({"transport_mode": "reliable"}, {"transport_mode": "datagram"}, "stripe"),
        ({"transport": "quic"}, {"transport": "stripe"}, "stripe"),
        ({}, {"transport_mode": "reliable"}, "quic"),
    ],
)
def test_the_transport_is_what_tunnel_and_class_state_or_follows_from_the_mode(
    whole: Hosts, of_class: dict[str, str], own: dict[str, str], expected: str
) -> None:
    site = whole["site1-client"]["site"]
    site["classes"] = [{"name": "all", "slot": 1, "prefix": "al", "catch_all": True, **of_class}]
    for lan in site["lans"]:
        lan.pop("vlans", None)
    site["tunnels"] += [{"name": "al2", **own}]
    plan = build(whole)
    assert config_of(plan, "site1-client", "al2")["transport"] == expected


def test_a_stated_stripe_port_reaches_both_ends_and_the_firewall(plan_of: Callable[..., dict[str, Any]]) -> None:
    plan = plan_of(STRIPED, ("vps1", "vps.listeners[5].stripe_port", 50006))
    assert config_of(plan, "site1-client")["stripe_port"] == 50006
    assert config_of(plan, "vps1")["stripe_port"] == 50006
    assert 50006 in plan["vps1"]["firewall"]["udp_ports"]
    assert 46006 not in plan["vps1"]["firewall"]["udp_ports"]


def test_a_tunnel_over_quic_is_told_nothing_of_stripes(plan_of: Callable[..., dict[str, Any]]) -> None:
    config = config_of(plan_of(QUIC, ("site1-client", "site.pipes", 8)), "site1-client")
    assert config["transport"] == "quic"
    assert {*KEYS, "stripe_enabled", "stripe_port"}.isdisjoint(config)


def test_what_a_tunnel_states_wins_over_its_site(plan_of: Callable[..., dict[str, Any]]) -> None:
    values = {"site": [8, 20, 4, "always", 1], "tunnels[5]": [2, 12, 0, "off", 0.0]}
    changes = [
        ("site1-client", f"{path}.{key}", value)
        for path, listed in (("site", values["site"]), ("site.tunnels[5]", values["tunnels[5]"]))
        for key, value in zip(KEYS, listed, strict=True)
    ]
    plan = plan_of(STRIPED, ("site1-client", "site.tunnels[4].transport", "stripe"), *changes)
    assert [config_of(plan, "site1-client", "mpq5")[key] for key in KEYS] == values["site"]
    assert [config_of(plan, "site1-client", "mpq6")[key] for key in KEYS] == values["tunnels[5]"]


def test_a_site_takes_its_tunnels_back_to_quic_with_one_key(plan_of: Callable[..., dict[str, Any]]) -> None:
    off = ("site1-client", "site.stripe_enabled", False)
    plan = plan_of(STRIPED, off, ("site1-client", "site.wans[5].mtu", 1420))
    config = config_of(plan, "site1-client")
    assert (config["transport"], config["stripe_enabled"], config["tun_mtu"]) == ("stripe", False, 1348)
    plan = plan_of(("site1-client", "site.tunnels[5].stripe_enabled", True))
    config = config_of(plan, "site1-client")
    assert (config["transport"], config["stripe_enabled"], config["tun_mtu"]) == ("stripe", True, 1342)


def test_a_tunnel_that_is_not_striped_in_fact_may_be_reliable_and_needs_no_stripe_port(
    plan_of: Callable[..., dict[str, Any]],
) -> None:
    plan = plan_of(
        STRIPED,
        ("site1-client", "site.tunnels[5].stripe_enabled", False),
        ("site1-client", "site.tunnels[5].transport_mode", "reliable"),
        ("vps1", "vps.listeners[5].stripe_enabled", False),
    )
    assert config_of(plan, "site1-client")["stripe_port"] is None


def test_a_listener_without_striped_tunnels_opens_no_port_for_them(plan_of: Callable[..., dict[str, Any]]) -> None:
    plan = plan_of(
        QUIC,
        ("vps1", "vps.listeners[5].stripe_enabled", False),
        ("vps1", "vps.listeners[5].port", 65535),
    )
    server = config_of(plan, "vps1")
    assert (server["stripe_enabled"], server["stripe_port"]) == (False, None)
    assert plan["vps1"]["firewall"]["udp_ports"] == [*range(45001, 45006), *range(46001, 46006), 65535]
