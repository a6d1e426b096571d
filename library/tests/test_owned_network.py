import json
import os
import subprocess
import sys

import pytest
from module_process import LIBRARY
from owned_network import boot_routes, foreign_defaults, surplus_links, surplus_routes, surplus_rules

TUN = {"info_kind": "tun", "info_data": {"type": "tun", "vnet_hdr": True, "user": "mpquic", "group": "mpquic"}}
RANGES = [[1001, 2999]]
TABLES = [[101, 199], [201, 252]]


def test_a_tun_of_ours_that_is_not_planned_goes_and_others_stay() -> None:
    links = [
        {"ifname": "mpq9", "linkinfo": TUN},
        {"ifname": "mpq5", "linkinfo": TUN},
        {"ifname": "tun0", "linkinfo": {"info_kind": "tun", "info_data": {"type": "tun", "user": "openvpn"}}},
        {"ifname": "eth0", "group": "default"},
    ]
    assert surplus_links(links, [{"name": "mpq5", "kind": "tun"}], "mpquic", None) == ["mpq9"]


def test_a_tun_with_another_property_goes_so_that_it_is_made_anew() -> None:
    links = [{"ifname": "mpq5", "linkinfo": TUN}]
    wanted = [{"name": "mpq5", "kind": "tun", "properties": {"vnet_hdr": False}}]
    assert surplus_links(links, wanted, "mpquic", None) == ["mpq5"]


def test_a_vlan_is_ours_by_its_interface_group() -> None:
    vlan = {"info_kind": "vlan", "info_data": {"id": 22}}
    links = [
        {"ifname": "enp6s21.22", "link": "enp6s21", "group": "7770", "linkinfo": vlan},
        {"ifname": "enp6s21.23", "link": "enp6s21", "group": "default", "linkinfo": vlan},
        {"ifname": "enp6s21", "group": "7770"},
    ]
    assert surplus_links(links, [], "mpquic", 7770) == ["enp6s21.22"]


def test_rules_outside_our_priorities_are_never_touched() -> None:
    present = [{"priority": 0, "src": "all", "table": "255"}, {"priority": 32766, "src": "all", "table": "254"}]
    assert surplus_rules(present, [], RANGES) == []


def test_a_rule_with_another_device_or_table_is_surplus() -> None:
    wanted = [{"priority": 1005, "oif": "enp7s7", "table": 105}]
    present = [
        {"priority": 1005, "src": "all", "oif": "enp7s7", "table": "105"},
        {"priority": 1005, "src": "all", "oif": "enp7s8", "table": "105"},
        {"priority": 1005, "src": "all", "oif": "enp7s7", "table": "106"},
    ]
    assert surplus_rules(present, wanted, RANGES) == [
        ["priority", "1005", "oif", "enp7s8", "lookup", "105"],
        ["priority", "1005", "oif", "enp7s7", "lookup", "106"],
    ]


def test_a_host_address_and_its_prefix_form_are_one_selector() -> None:
    wanted = [{"priority": 1801, "from": "10.10.11.100/32", "table": 151}]
    present = [
        {"priority": 1801, "src": "10.10.11.100", "table": "151"},
        {"priority": 1801, "src": "10.10.11.0", "srclen": 24, "table": "151"},
    ]
    assert surplus_rules(present, wanted, RANGES) == [
        ["priority", "1801", "from", "10.10.11.0/24", "lookup", "151"],
    ]


def test_routes_of_unplanned_tables_and_devices_go_and_the_last_resort_stays() -> None:
    present = [
        {"dst": "default", "dev": "mpq5", "table": "205", "metric": 100},
        {"dst": "default", "dev": "mpq4", "table": "205", "metric": 100},
        {"type": "7", "dst": "default", "table": "205", "metric": 1000000},
        {"type": "7", "dst": "default", "dev": "lo", "table": "209", "metric": 1000000},
        {"dst": "10.0.0.0/8", "dev": "eth0"},
        {"dst": "default", "dev": "eth0", "table": "260"},
    ]
    assert surplus_routes(present, {"205": ["mpq5", "enp7s1"]}, TABLES) == [
        ["default", "dev", "mpq4", "table", "205", "metric", "100"],
        ["unreachable", "default", "dev", "lo", "table", "209", "metric", "1000000"],
    ]


def test_a_gateway_that_a_script_has_set_goes_and_those_of_networkd_stay() -> None:
    present = [
        {"dst": "default", "gateway": "10.10.11.1", "dev": "enp6s18", "flags": ["onlink"]},
        {"dst": "default", "gateway": "10.10.11.1", "dev": "enp6s18", "protocol": "4", "metric": 100},
        {"dst": "default", "gateway": "192.0.2.1", "dev": "eth9", "protocol": "3"},
        {"dst": "10.10.11.0/24", "dev": "enp6s18", "protocol": "2"},
    ]
    assert boot_routes(present, ["enp6s18"]) == [["default", "via", "10.10.11.1", "dev", "enp6s18", "proto", "3"]]


def test_a_default_route_that_a_dhcp_client_or_a_script_has_left_on_a_wan_goes() -> None:
    """It would be the best way out of the host until the next boot, whatever the variables say."""
    present = [
        {"dst": "default", "gateway": "100.64.4.1", "dev": "enp7s6", "metric": 1011, "protocol": "16"},
        {"dst": "default", "gateway": "100.64.4.1", "dev": "enp7s6"},
        {"dst": "default", "dev": "enp7s7", "protocol": "3"},
        {"dst": "default", "gateway": "10.10.11.1", "dev": "enp6s18", "metric": 100, "protocol": "16"},
        {"dst": "192.0.2.0/24", "gateway": "100.64.4.9", "dev": "enp7s6"},
        {"dst": "100.64.4.0/24", "dev": "enp7s6", "protocol": "16"},
        {"type": "blackhole", "dst": "default", "protocol": "3"},
    ]
    assert foreign_defaults(present, ["enp7s6", "enp7s7"]) == [
        ["default", "via", "100.64.4.1", "dev", "enp7s6", "proto", "16"],
        ["default", "via", "100.64.4.1", "dev", "enp7s6", "proto", "3"],
        ["default", "dev", "enp7s7", "proto", "3"],
    ]


@pytest.mark.root
def test_the_kernel_takes_each_kind_of_route_away() -> None:
    """With the ip command of the machine: what it shows isn't always what it takes."""
    kinds = ("unreachable", "blackhole", "prohibit", "throw")
    add = [
        f"ip -{family} route add {kind} default table {200}{number} metric 1000000"
        for family in (4, 6)
        for number, kind in enumerate(kinds)
    ]
    script = f"""
        set -e
        ip link set lo up
        ip link add one type veth peer name two
        ip link set one up
        ip link set two up
        ip address add 172.16.5.1/30 dev one
        {"; ".join(add)}
        ip route add 192.0.2.0/24 via 172.16.5.2 dev one table 2009
        ip route add unreachable default table 20
        for run in 1 2; do printf %s "$ARGUMENTS" | {sys.executable} {LIBRARY}/owned_network.py; done
        (ip -4 route show table all; ip -6 route show table all) | grep -c 'table 200' || true
        ip route show table 20
    """
    arguments = {"tables": [[2000, 2009]], "routes": {}, "rules": [], "priorities": []}
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", script],
        env=os.environ | {"ARGUMENTS": json.dumps({"ANSIBLE_MODULE_ARGS": arguments})},
        capture_output=True,
        text=True,
        check=False,
    )
    first, second, left, foreign = [line for line in done.stdout.splitlines() if line]
    assert json.loads(first)["changed"], first
    assert not json.loads(second)["changed"], second
    assert (left, foreign.strip()) == ("0", "unreachable default")
