"""The model of the site agrees with itself."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Interface, ip_interface, ip_network

import pytest
from mpqlab import topology
from mpqlab.topology import ATTACHED_WANS, EMULATED_WANS, LANS, MANAGEMENT, NODES, WANS, Attachment, find_lan, find_wan


def test_device_names_of_the_client_are_those_of_the_reference_site() -> None:
    devices = [management.device for management in MANAGEMENT]
    devices += [lan.device for lan in LANS] + [wan.device for wan in WANS]
    assert devices == [
        *("enp6s18", "enp6s19", "enp6s20", "enp6s21", "enp6s22", "enp6s23", "enp7s1", "enp7s2"),
        *("enp7s3", "enp7s4", "enp7s5", "enp7s6", "enp7s7", "enp7s8"),
    ]


def test_no_subnet_of_the_lab_overlaps_another() -> None:
    subnets = [management.client.network for management in MANAGEMENT]
    subnets += [subnet.gateway.network for wan in WANS for subnet in wan.subnets]
    for lan in LANS:
        subnets += [ip_interface(text).network for text in (lan.transit_openwrt, lan.router)]
    subnets.append(topology.VPS_ADDRESS.network)
    overlaps = [(a, b) for index, a in enumerate(subnets) for b in subnets[:index] if a.overlaps(b)]
    assert overlaps == []


def test_both_ends_of_a_transit_are_in_one_subnet() -> None:
    for lan in LANS:
        assert ip_interface(lan.transit_client).network == ip_interface(lan.transit_openwrt).network
        assert ip_interface(lan.transit_client6).network == ip_interface(lan.transit_openwrt6).network
        assert ip_interface(lan.router6).network == ip_interface(lan.host_address6).network


def test_each_lease_is_in_the_subnet_of_its_gateway() -> None:
    for wan in EMULATED_WANS:
        for subnet in wan.subnets:
            assert ip_interface(subnet.lease).network.subnet_of(subnet.gateway.network)
            assert subnet.lease != str(subnet.gateway.ip)


def test_public_addresses_are_documentation_addresses_and_unique() -> None:
    public = [subnet.public for wan in WANS for subnet in wan.subnets]
    assert all(ip_interface(address).network.subnet_of(ip_network("198.51.100.0/24")) for address in public)
    assert max(Counter(public).values()) == 1


def test_an_isp_can_renumber() -> None:
    assert all(len(wan.subnets) >= 2 for wan in EMULATED_WANS)


def test_cgnat_addresses_come_from_the_shared_range_of_rfc_6598() -> None:
    shared = ip_network("100.64.0.0/10")
    assert all(subnet.gateway.network.subnet_of(shared) for subnet in find_wan("wan6").subnets)


def test_wan1_has_no_device_and_no_isp() -> None:
    assert find_wan("wan1").attachment is Attachment.NO_DEVICE
    assert "isp1" not in NODES
    assert [wan.number for wan in ATTACHED_WANS] == [2, 3, 4, 5, 6]


def test_names_fit_into_an_interface_name() -> None:
    names = [wan.device for wan in WANS] + [lan.device for lan in LANS] + [topology.VPS_DEVICE]
    assert all(len(name) <= 15 for name in names)


@pytest.mark.parametrize("text", ["wan5", "WAN5", "5", "enp7s7"])
def test_a_wan_is_found_by_each_of_its_names(text: str) -> None:
    assert find_wan(text).number == 5


def test_an_unknown_wan_is_refused_with_the_names_that_exist() -> None:
    with pytest.raises(ValueError, match=r"no WAN is called 'wan7': choose one of wan1, wan2, .*wan6"):
        find_wan("wan7")


def test_an_unknown_lan_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no LAN 7"):
        find_lan(7)


def test_mac_addresses_are_local_unicast_and_unique() -> None:
    macs = [topology.mac(group, number, side) for group in range(1, 6) for number in range(7) for side in (1, 2)]
    assert all(int(mac[:2], 16) & 0b11 == 0b10 for mac in macs)
    assert len(set(macs)) == len(macs)


def test_an_isp_can_give_a_lease_that_equals_another_address() -> None:
    subnet = find_wan("wan6").subnets[0].with_lease(IPv4Interface("172.16.5.1/30"))
    assert (str(subnet.gateway), subnet.lease, subnet.last_lease) == ("172.16.5.2/30", "172.16.5.1", "172.16.5.2")
    assert subnet.public == find_wan("wan6").subnets[0].public
