"""A tunnel over several WANs: one TUN and one address at both ends, and a path for each WAN."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from mpquic_plan import build, guard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Hosts = dict[str, dict[str, Any]]
Change = tuple[str, str, Any]
SITE = "site1-client"
MP1 = "site.tunnels[6]"
"""Its entry in the reference site."""


def _named(items: list[dict[str, Any]], name: str) -> dict[str, Any]:
    (item,) = [item for item in items if item["name"] == name]
    return item


def _config(plan: dict[str, Any], host: str = SITE) -> dict[str, Any]:
    return dict(_named(plan[host]["instances"], "mp1")["config"])


@pytest.fixture
def plan_of(whole: Hosts, put: Callable[[Hosts, Iterable[Change]], None]) -> Callable[..., dict[str, Any]]:
    """Plans the reference site after changes of its client's variables."""

    def plan(*changes: tuple[str, Any]) -> dict[str, Any]:
        put(whole, [(SITE, path, value) for path, value in changes])
        return build(whole)

    return plan


def test_mp1_has_the_numbers_of_the_reference(plan_of: Callable[..., dict[str, Any]]) -> None:
    plan = plan_of()
    client, server = plan[SITE], plan["vps1"]
    assert _named(client["tuns"], "mp1")["addresses"] == ["10.200.17.1/32", "fd6d:7071:ac8:1101::1/128"]
    assert _named(server["tuns"], "mp1")["addresses"][0] == "10.200.17.254/32"
    assert _named(server["tuns"], "mp1")["routes"][0]["destination"] == "10.200.17.0/24"
    config = _config(plan, "vps1")
    assert (config["bind_port"], config["stripe_port"]) == (45017, 46017)
    assert [(peer["tunnel"], peer["allowed"]) for peer in config["peers"]] == [
        ("mp1", _config(plan)["inner_addresses"])
    ]
    assert {45017, 46017} <= set(server["firewall"]["udp_ports"])
    assert "10.200.17.0/24" in server["firewall"]["masquerade4"]


def test_its_instance_has_a_path_for_each_wan_and_no_wan_of_its_own(plan_of: Callable[..., dict[str, Any]]) -> None:
    config = _config(plan_of())
    assert (config["transport"], config["stripe_port"]) == ("stripe", 46017)
    assert {"bind_ip", "remote_addr", "remote_port", "wan"}.isdisjoint(config)
    assert (config["multipath_enabled"], config["multipath_policy"]) == (True, "failover")
    ends = {"remote_addr": "203.0.113.10", "remote_port": 45017, "weight": 1}
    assert config["multipath_paths"] == [
        {"name": "wan5", "bind_ip": "iface:enp7s7", "priority": 10, **ends},
        {"name": "wan6", "bind_ip": "iface:enp7s8", "priority": 20, **ends},
    ]


def test_a_tunnel_over_one_wan_has_no_key_of_several(plan_of: Callable[..., dict[str, Any]]) -> None:
    for instance in plan_of()[SITE]["instances"]:
        if instance["name"] != "mp1":
            assert not [key for key in instance["config"] if key.startswith("multipath")]
            assert instance["config"]["wan"].startswith("wan")


def test_vlan_17_goes_by_it_alone(plan_of: Callable[..., dict[str, Any]]) -> None:
    client = plan_of()[SITE]
    vlan = _named(client["lans"], "lan1.17")
    assert (vlan["device"], vlan["addresses"], vlan["table"]) == ("enp6s20.17", ["172.16.17.1/30"], 100_017)
    assert [rule["table"] for rule in vlan["rules"]] == [100_017]
    ways = [
        (link["name"], route["destination"])
        for link in [*client["wans"], *client["tuns"]]
        for route in link["routes"]
        if route["table"] == 100_017
    ]
    assert ways == [("mp1", "0.0.0.0/0"), ("mp1", "::/0")]
    assert {"from": "enp6s20.17", "to": "mp1"} in client["firewall"]["forward"]
    assert [pair["to"] for pair in client["firewall"]["forward"] if pair["from"] == "enp6s20.17"] == ["mp1"]
    assert "mp1" in client["firewall"]["masquerade_devices"]


def test_the_guard_keeps_its_device_routes_and_rules(plan_of: Callable[..., dict[str, Any]]) -> None:
    kept = guard.kept(plan_of()[SITE], "")
    assert {"name": "mp1", "mtu": 1400} in kept["tuns"]
    assert [(rule["incoming"], rule["table"]) for rule in kept["rules"] if rule["device"] == "enp6s20.17"] == [
        ("enp6s20.17", 100_017)
    ] * 2
    assert {route["table"] for route in kept["routes"] if route["device"] == "mp1"} == {254, 100_017}


def test_the_preferred_path_comes_first_whatever_the_order(plan_of: Callable[..., dict[str, Any]]) -> None:
    listed = [{"wan": "wan6"}, {"wan": "wan4", "priority": 300}, {"wan": "wan5"}, {"wan": "wan3", "priority": 0}]
    config = _config(plan_of((f"{MP1}.multipath_paths", listed)))
    assert [(path["name"], path["priority"]) for path in config["multipath_paths"]] == [
        ("wan3", 0),
        ("wan5", 100),
        ("wan6", 100),
        ("wan4", 300),
    ]


def test_a_single_path_is_enough(plan_of: Callable[..., dict[str, Any]]) -> None:
    plan = plan_of((f"{MP1}.multipath_paths", [{"wan": "wan4"}]))
    assert [path["name"] for path in _config(plan)["multipath_paths"]] == ["wan4"]


def test_what_a_path_states_is_its_own_and_the_rest_the_tunnel_s(plan_of: Callable[..., dict[str, Any]]) -> None:
    plan = plan_of(
        (f"{MP1}.transport", "quic"),
        (
            f"{MP1}.multipath_paths",
            [{"wan": "wan5", "transport": "stripe", "pipes": 8, "outer": "ipv6"}, {"wan": "wan6"}],
        ),
    )
    config = _config(plan)
    one, other = config["multipath_paths"]
    assert (one["transport"], one["pipes"], one["remote_addr"]) == ("stripe", 8, "2001:db8:113::10")
    assert {"transport", "pipes"}.isdisjoint(other)
    assert (config["transport"], config["stripe_port"], config["pipes"]) == ("quic", 46017, 4)


def test_sizes_are_what_every_path_carries(plan_of: Callable[..., dict[str, Any]]) -> None:
    paths = [{"wan": "wan5", "transport": "stripe"}, {"wan": "wan6", "transport": "quic"}]
    plan = plan_of((f"{MP1}.multipath_paths", paths), ("site.wans[4].mtu", 1420), ("site.wans[5].mtu", 1410))
    config = _config(plan)
    # WAN 6 has the smaller datagrams, and WAN 5 with its larger header the smaller packets.
    assert (config["max_datagram_size"], config["tun_mtu"]) == (1410 - 28, 1410 - 28 - 30 - 14)
    plan = plan_of(("site.wans[5].mtu", 1416))
    config = _config(plan)
    assert (config["max_datagram_size"], config["tun_mtu"]) == (1416 - 28, 1420 - 28 - 36 - 14)
    (mss,) = [entry for entry in plan[SITE]["firewall"]["mss"] if entry["device"] == "mp1"]
    assert mss["ipv4"] == config["tun_mtu"] - 40
    assert _config(plan, "vps1")["max_datagram_size"] == config["max_datagram_size"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [(("on", "on"), "on"), (("auto", "on"), "auto"), (("on", "off"), "off"), (("off", "auto"), "off")],
)
def test_a_card_that_corrupts_offloads_has_none_of_its_tunnels_ask_for_them(
    plan_of: Callable[..., dict[str, Any]], words: tuple[str, str], expected: str
) -> None:
    plan = plan_of(*((f"site.wans[{place}].udp_gso", word) for place, word in zip((4, 5), words, strict=True)))
    assert _config(plan)["udp_gso"] == expected


def test_it_is_in_service_as_long_as_one_of_its_wans_is(plan_of: Callable[..., dict[str, Any]]) -> None:
    before = _config(plan_of())
    plan = plan_of(("site.wans[4].enabled", False))
    assert _config(plan) == before, "a path whose device is down needs no restart of the others"
    assert _named(plan[SITE]["instances"], "mp1")["enabled"]
    assert "enabled" not in _config(plan, "vps1")["peers"][0]
    plan = plan_of(("site.wans[5].enabled", False))
    assert _config(plan) == {**before, "enabled": False}
    assert _config(plan, "vps1")["peers"][0]["enabled"] is False


def test_its_lan_sees_the_modem_of_the_preferred_path(plan_of: Callable[..., dict[str, Any]]) -> None:
    page = ["192.168.100.1/32"]
    changes = [(f"site.wans[{place}].modem_prefixes", page) for place in (1, 4, 5)]
    wans = plan_of(*changes)[SITE]["wans"]
    metrics = {
        wan["name"]: route["metric"]
        for wan in wans
        for route in wan["routes"]
        if route["table"] == 100_017 and route["destination"] == page[0]
    }
    assert min(metrics, key=lambda name: metrics[name]) == "wan5"
    assert metrics["wan6"] < metrics["wan2"]
    assert len(set(metrics.values())) == 3


def test_it_may_have_a_class_of_its_own(plan_of: Callable[..., dict[str, Any]]) -> None:
    plan = plan_of((f"{MP1}.class", "critical"))
    assert (_config(plan)["dscp"], _config(plan)["class_name"]) == (46, "critical")
    assert _config(plan, "vps1")["peers"][0]["dscp"] == 46
    # What a class is worth among others on a WAN says nothing of which path is preferred.
    assert [path["priority"] for path in _config(plan)["multipath_paths"]] == [10, 20]


def test_a_lan_may_fall_back_to_it(plan_of: Callable[..., dict[str, Any]]) -> None:
    client = plan_of(("site.lans[3].fallback", "mp1"))[SITE]
    routes = [route for route in _named(client["tuns"], "mp1")["routes"] if route["table"] == 204]
    assert [(route["destination"], route["metric"]) for route in routes] == [("0.0.0.0/0", 200), ("::/0", 200)]
    assert {"from": "enp6s23", "to": "mp1"} in client["firewall"]["forward"]


def test_the_daemon_takes_what_the_plan_writes() -> None:
    config = pytest.importorskip("mpquic.config")
    golden = Path(__file__).parents[2] / "molecule/render/golden"
    files = sorted(golden.glob("*/etc/mpquic/instances/*.yml"))
    several = [path for path in files if "multipath_paths" in path.read_text()]
    assert len(several) >= 3
    for path in files:
        assert config.load(path).name == path.stem
