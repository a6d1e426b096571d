"""Who else configures the network of a host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from mpquic_plan import netdevs
from mpquic_plan.preflight import judge
from mpquic_plan.preflight.managers import to_take_over

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpquic_plan.preflight import Host

    Make = Callable[..., Host]
    Told = Callable[..., list[str]]

NETPLAN_ALL = {
    "path": "/run/systemd/network/10-netplan-all-en.network",
    "text": "[Match]\nName=en*\n\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=ipv6\n",
}
NETPLAN_WAN = {
    "path": "/run/systemd/network/10-netplan-enp7s7.network",
    "text": "[Match]\nName=enp7s7\n\n[Network]\nDHCP=yes\n",
}
LATER = ("taken_over", {"files": [], "managers": []})


def file(path: str, text: str) -> tuple[str, Any]:
    return "network_files", [{"path": path, "text": text}]


def program(name: str, **state: Any) -> list[tuple[str, Any]]:
    return [(f"managers/{name}/{key}", value) for key, value in state.items()]


@pytest.mark.parametrize(
    ("changes", "taken"),
    [
        (program("ifupdown", installed=True), "ifupdown"),
        (program("NetworkManager", installed=True, active=True, enabled="enabled"), "NetworkManager"),
        (program("NetworkManager", installed=True, enabled="enabled"), "NetworkManager"),
        (program("netplan", installed=True), "netplan"),
        (program("dhcpcd", installed=True, active=True), "dhcpcd"),
        ([("cloud_network", True)], "cloud-init"),
    ],
)
def test_the_first_run_takes_the_network_over_and_says_so(
    client: Make, problems: Told, notices: Told, changes: list[tuple[str, Any]], taken: str
) -> None:
    host = client(*changes)
    assert problems(host) == []
    (only,) = notices(host)
    assert only == (
        f"foreign-network: systemd-networkd takes the network over from {taken}; what was there is kept in "
        "/var/lib/mpquic/before"
    )
    assert to_take_over(host).managers == (taken,)


@pytest.mark.parametrize(
    "changes",
    [
        program("ifupdown", installed=True, files=[{"path": "/etc/network/interfaces", "devices": ["enp6s18"]}]),
        program("NetworkManager", installed=True, active=True),
        program("netplan", installed=True),
        [("cloud_network", True)],
        [("network_files", [NETPLAN_ALL])],
    ],
)
def test_a_later_run_names_it_as_a_problem_that_may_be_accepted(
    client: Make, problems: Told, changes: list[tuple[str, Any]]
) -> None:
    host = client(LATER, *changes)
    (only,) = problems(host)
    assert "configures interfaces of this site again" in only
    assert "mpquic_accept=foreign-network" in only
    assert problems(host, ["foreign-network"]) == []


@pytest.mark.parametrize(
    "changes",
    [
        program("ifupdown", installed=True, files=[{"path": "/etc/network/interfaces", "devices": []}]),
        program("NetworkManager", installed=True, enabled="masked"),
        program("netplan", installed=True, generator_masked=True),
        program("cloud-init", installed=True),
        program("dhcpcd", installed=True, enabled="disabled"),
    ],
)
def test_a_program_that_was_taken_over_is_not_named_again(
    client: Make, problems: Told, notices: Told, changes: list[tuple[str, Any]]
) -> None:
    host = client(LATER, *changes)
    assert problems(host) == notices(host) == []


@pytest.mark.parametrize(
    "text",
    [
        NETPLAN_ALL["text"],
        NETPLAN_WAN["text"],
        "[Match]\nName=!lo docker*\n[Network]\nDHCP=yes\n",
        "[Match]\nMACAddress=52:54:00:00:01:00\n[Network]\nDHCP=yes\n",
        "[Match]\nType=ether\nKind=!*\n[Network]\nDHCP=yes\n",
    ],
    ids=["netplan for all", "netplan for one WAN", "all but some", "MAC address", "type"],
)
def test_a_foreign_file_for_a_device_of_ours_is_taken_over(client: Make, problems: Told, text: str) -> None:
    path = "/etc/systemd/network/10-theirs.network"
    host = client(file(path, text))
    assert to_take_over(host).files == (path,)
    assert problems(host) == []


def test_a_file_for_the_parent_of_a_vlan_is_taken_over(client: Make) -> None:
    vlan = [("lans/0/device", "enp6s20.30"), ("lans/0/netdev", netdevs.vlan(30, "enp6s20"))]
    host = client(file("/etc/systemd/network/10-trunk.network", "[Match]\nName=enp6s20\n"), plan=vlan)
    assert to_take_over(host)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/etc/systemd/network/10-wlan.network", "[Match]\nName=wl*\n[Network]\nDHCP=yes\n"),
        ("/etc/systemd/network/10-other.network", "[Match]\nMACAddress=52:54:00:ff:ff:ff\n"),
        ("/etc/systemd/network/10-empty.network", "[Network]\nDHCP=yes\n"),
        ("/etc/systemd/network/10-wg.netdev", "[NetDev]\nName=wg0\nKind=wireguard\n"),
        ("/run/systemd/network/10-netplan-NM-0.link", "[Match]\n[Link]\nWakeOnLan=off\n"),
    ],
)
def test_a_file_for_other_devices_is_left_alone(client: Make, path: str, text: str) -> None:
    assert not to_take_over(client(file(path, text)))


@pytest.mark.parametrize("link", ["Name=enp7s3", "NamePolicy=", "NamePolicy=kernel database onboard slot path"])
def test_a_file_that_names_our_devices_stays_as_the_variables_know_them_by_it(client: Make, link: str) -> None:
    path = "/etc/systemd/network/10-wan1.link"
    assert not to_take_over(client(file(path, f"[Match]\nOriginalName=*\n[Link]\n{link}\n")))


def test_a_foreign_netdev_of_one_of_our_names_is_taken_over(client: Make) -> None:
    path = "/etc/systemd/network/10-tun.netdev"
    assert to_take_over(client(file(path, "[NetDev]\nName=mpq1\nKind=tun\n"))).files == (path,)


def test_several_are_named_in_one_sentence(client: Make, notices: Told) -> None:
    host = client(*program("netplan", installed=True), ("cloud_network", True), ("network_files", [NETPLAN_ALL]))
    (only,) = notices(host)
    assert f"from netplan, cloud-init, {NETPLAN_ALL['path']};" in only


def test_the_network_of_a_vps_stays_with_whoever_has_it(vps: Make, problems: Told, notices: Told) -> None:
    host = vps(
        *program("netplan", installed=True),
        *program("ifupdown", installed=True),
        *program("NetworkManager", installed=True, active=True),
        ("cloud_network", True),
        ("network_files", [{"path": "/run/systemd/network/10-netplan-eth0.network", "text": "[Match]\nName=eth0\n"}]),
    )
    assert not to_take_over(host)
    assert problems(host) == notices(host) == []


@pytest.mark.parametrize(
    "text", ["[Match]\nName=*\n", "[Match]\nName=mpq1\n", "[Match]\nName=!eth0\n", "[Match]\nKind=tun\n"]
)
def test_a_file_on_a_vps_that_is_for_our_tunnels_is_a_problem(vps: Make, problems: Told, text: str) -> None:
    (only,) = problems(vps(file("/etc/systemd/network/10-all.network", text)))
    assert only.startswith("foreign-tunnel-file: /etc/systemd/network/10-all.network is for TUN devices of ours, too")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("10-cloud.network", "[Match]\nType=ether\n[Network]\nDHCP=yes\n"),
        ("10-cards.network", "[Match]\nName=*\nKind=!*\n[Network]\nDHCP=yes\n"),
        ("10-all.network", "[Network]\nDHCP=yes\n"),
        ("99-default.link", "[Match]\nOriginalName=*\n[Link]\nMACAddressPolicy=none\n"),
        ("10-eth0.link", "[Match]\nMACAddress=52:54:00:00:00:01\n[Link]\nName=eth0\n"),
    ],
)
@pytest.mark.parametrize("tunnels", ["there", "absent"])
def test_files_of_a_cloud_image_are_no_problem(
    vps: Make, link: Callable[..., dict[str, Any]], problems: Told, tunnels: str, name: str, text: str
) -> None:
    host = vps(file(f"/etc/systemd/network/{name}", text))
    if tunnels == "there":
        host.survey["links"]["mpq1"] = link("tun", "10.200.1.2/32", mac="")
    assert problems(host) == []


def test_an_accepted_problem_is_still_told(client: Make) -> None:
    host = client(LATER, ("network_files", [NETPLAN_ALL]))
    (finding,) = judge(host, ["foreign-network"])
    assert finding.severity.value == "notice"


@pytest.mark.parametrize("path", ["/run/NetworkManager/resolv.conf", "/run/resolvconf/resolv.conf"])
def test_a_list_of_dns_servers_that_nobody_will_write_is_told(
    client: Make, problems: Told, notices: Told, path: str
) -> None:
    """A link into /run outlives the program that wrote there: https://github.com/Oefenweb/ansible-dns/pull/6."""
    host = client(("resolv_conf", path), plan=[("resolvers", [])])
    assert problems(host) == []
    (only,) = notices(host)
    assert f"/etc/resolv.conf leads to {path}, which nobody writes at a boot" in only
    assert "site.management[].dns" in only


@pytest.mark.parametrize(
    ("path", "resolvers"),
    [
        ("/run/NetworkManager/resolv.conf", ["192.0.2.53"]),
        ("/run/systemd/resolve/stub-resolv.conf", []),
        ("/etc/resolv.conf", []),
    ],
)
def test_dns_servers_of_the_variables_of_resolved_or_of_a_person_stay(
    client: Make, notices: Told, path: str, resolvers: list[str]
) -> None:
    assert notices(client(("resolv_conf", path), plan=[("resolvers", resolvers)])) == []


def test_packages_that_go_with_ifupdown_are_told_before(client: Make, notices: Told) -> None:
    """bonding's ifenslave and others depend on it, and apt asks nobody in a run."""
    host = client(("managers/ifupdown/installed", True), ("purged", ["ifenslave", "ucarp", "ifupdown"]))
    (only,) = notices(host)
    assert only.endswith("; packages that need ifupdown are purged with it: ifenslave, ucarp")
    (only,) = notices(client(("managers/ifupdown/installed", True), ("purged", ["ifupdown"])))
    assert "purged" not in only
