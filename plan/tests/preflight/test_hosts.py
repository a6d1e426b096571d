"""Whole machines as providers and installers leave them: a sound one is not stopped without need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpquic_plan.preflight import Host

    Make = Callable[..., Host]
    Told = Callable[..., list[str]]
    Listener = Callable[..., dict[str, Any]]
    Link = Callable[..., dict[str, Any]]

ACTIVE = {"active": "active", "enabled": "enabled"}


def test_a_cloud_vps_with_debian(vps: Make, listener: Listener, problems: Told, notices: Told) -> None:
    host = vps(
        (
            "sockets",
            [
                listener("udp", "127.0.0.54", 53, "systemd-resolve", "systemd-resolved.service", "lo"),
                listener("udp", "127.0.0.53", 53, "systemd-resolve", "systemd-resolved.service", "lo"),
                listener("udp", "203.0.113.10", 68, "systemd-network", "systemd-networkd.service", "eth0"),
                listener("udp", "0.0.0.0", 5355, "systemd-resolve", "systemd-resolved.service"),
                listener("udp", "::", 5355, "systemd-resolve", "systemd-resolved.service"),
                listener("udp", "127.0.0.1", 323, "chronyd", "chrony.service"),
                listener("udp", "0.0.0.0", 111, "rpcbind", "rpcbind.service"),
                listener("tcp", "0.0.0.0", 5355, "systemd-resolve", "systemd-resolved.service"),
                listener("tcp", "0.0.0.0", 22, "sshd", "ssh.service"),
                listener("tcp", "127.0.0.1", 25, "exim4", "exim4.service"),
                listener("tcp", "::1", 25, "exim4", "exim4.service"),
                listener("tcp", "0.0.0.0", 111, "rpcbind", "rpcbind.service"),
            ],
        ),
        ("units", {"systemd-timesyncd.service": ACTIVE, "chrony.service": ACTIVE}),
        ("managers/ifupdown", {"installed": True, "active": False, "enabled": "", "files": []}),
        ("cloud_network", True),
        (
            "network_files",
            [
                {
                    "path": "/run/systemd/network/10-netplan-eth0.network",
                    "text": "[Match]\nPermanentMACAddress=52:54:00:00:00:01\nName=eth0\n\n[Network]\nDHCP=yes\n",
                },
                {
                    "path": "/run/systemd/network/10-netplan-eth0.link",
                    "text": "[Match]\nPermanentMACAddress=52:54:00:00:00:01\n\n[Link]\nName=eth0\nWakeOnLan=off\n",
                },
            ],
        ),
    )
    assert problems(host) == notices(host) == []


def test_a_vps_with_ubuntu_whose_ufw_is_not_enabled(
    vps: Make, listener: Listener, problems: Told, notices: Told
) -> None:
    host = vps(
        ("sockets", [listener("tcp", "*", 22, "systemd", "init.scope")]),
        ("units", {"ufw.service": ACTIVE, "networkd-dispatcher.service": ACTIVE}),
        ("managers/netplan", {"installed": True, "active": False, "files": [], "generator_masked": False}),
        ("cloud_network", True),
        ("nft", False),
    )
    assert problems(host) == notices(host) == []


def test_a_vps_with_docker_is_asked_for_the_openings_of_its_containers_and_nothing_else(
    vps: Make, listener: Listener, link: Link, problems: Told
) -> None:
    changes = [
        ("sockets", [listener("tcp", "0.0.0.0", 8080, "docker-proxy", "docker.service")]),
        ("units", {"docker.service": ACTIVE}),
        ("links/docker0", link("bridge", "172.17.0.1/16")),
        ("links/br-0a1b2c", link("bridge", "172.18.0.1/16", "fe80::42:1/64")),
        ("links/veth1", link("veth", "fe80::1/64", master="br-0a1b2c")),
    ]
    assert [each.split(" (")[0] for each in problems(vps(*changes))] == [
        "foreign-filters: br-0a1b2c",
        "foreign-filters: docker0",
    ]
    openings = [{"from": name, "to": "eth0", "prefix": None} for name in ("docker0", "br-0a1b2c")]
    assert problems(vps(*changes, plan=[("firewall/forward_openings", openings)])) == []


def test_a_virtual_machine_with_debian_and_ifupdown_becomes_a_client(
    client: Make, listener: Listener, problems: Told, notices: Told
) -> None:
    host = client(
        (
            "sockets",
            [
                listener("udp", "0.0.0.0", 68, "dhclient", "networking.service"),
                listener("tcp", "0.0.0.0", 22, "sshd", "ssh.service"),
            ],
        ),
        ("units", {"networking.service": ACTIVE}),
        ("managers/ifupdown/installed", True),
        ("managers/ifupdown/files", [{"path": "/etc/network/interfaces", "devices": ["enp6s18"]}]),
    )
    assert problems(host) == []
    assert "takes the network over from ifupdown;" in notices(host)[0]


def test_a_cloud_image_of_ubuntu_becomes_a_client(client: Make, problems: Told, notices: Told) -> None:
    link_file = "/run/systemd/network/10-netplan-enp6s18.link"
    host = client(
        ("managers/netplan/installed", True),
        ("cloud_network", True),
        (
            "network_files",
            [{"path": link_file, "text": "[Match]\nPermanentMACAddress=52:54:00:00:01:00\n\n[Link]\nName=enp6s18\n"}],
        ),
    )
    assert problems(host) == []
    assert "takes the network over from netplan, cloud-init;" in notices(host)[0]
