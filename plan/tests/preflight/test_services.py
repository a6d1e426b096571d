"""What listens on a host: on ports that are to be ours, and what the packet filter would close."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpquic_plan.preflight import Host

    Make = Callable[..., Host]
    Told = Callable[..., list[str]]
    Listener = Callable[..., dict[str, Any]]
    Listening = Callable[..., tuple[str, Any]]

LOADED = [{"table": {"family": "inet", "name": "mpquic"}}]


@pytest.fixture
def listening(sshd: list[dict[str, Any]], listener: Listener) -> Listening:
    """sshd and one more, as the change of a host."""

    def change(*words: Any, **more: Any) -> tuple[str, Any]:
        return "sockets", [*sshd, listener(*words, **more)]

    return change


def test_a_service_that_would_be_closed_is_named_with_its_process_and_unit(
    vps: Make, listening: Listening, problems: Told
) -> None:
    (only,) = problems(vps(listening("tcp", "*", 9100, "node_exporter", "prometheus-node-exporter.service")))
    assert only == (
        "closed-services: these listen and would be closed: tcp/9100 (node_exporter, process 700, "
        "prometheus-node-exporter.service); open what is wanted in vps.openings, or go on with "
        "mpquic_accept=closed-services"
    )


def test_a_client_is_pointed_to_its_own_key(client: Make, listening: Listening, problems: Told) -> None:
    host = client(listening("tcp", "10.10.11.100", 9100, "node_exporter"))
    assert "site.firewall.openings" in problems(host)[0]
    assert problems(host, ["closed-services"]) == []


def test_both_families_of_a_service_are_one(vps: Make, listener: Listener, problems: Told) -> None:
    both = [listener("tcp", address, 443, "nginx", "nginx.service") for address in ("0.0.0.0", "::")]
    (only,) = problems(vps(("sockets", both)))
    assert only.count("tcp/443") == 1


def test_an_opening_keeps_a_service_open(vps: Make, listening: Listening, problems: Told) -> None:
    opening = {"protocol": "tcp", "ports": [443], "sources": []}
    host = vps(listening("tcp", "*", 443, "nginx"), plan=[("firewall/openings", [opening])])
    assert problems(host) == []
    other = {"protocol": "udp", "ports": [443], "sources": []}
    assert problems(vps(listening("tcp", "*", 443, "nginx"), plan=[("firewall/openings", [other])]))


def test_nothing_is_missed_once_our_filter_is_loaded(vps: Make, listening: Listening, problems: Told) -> None:
    assert problems(vps(listening("tcp", "*", 9100, "node_exporter"), ("filters", LOADED))) == []


@pytest.mark.parametrize(
    "socket",
    [
        ("udp", "127.0.0.53", 53, "systemd-resolve", "systemd-resolved.service", "lo"),
        ("udp", "0.0.0.0", 5355, "systemd-resolve", "systemd-resolved.service"),
        ("tcp", "::", 5355, "systemd-resolve", "systemd-resolved.service"),
        ("udp", "127.0.0.1", 323, "chronyd", "chrony.service"),
        ("udp", "::1", 323, "chronyd", "chrony.service"),
        ("udp", "0.0.0.0", 123, "ntpd", "ntpsec.service"),
        ("udp", "fe80::1", 123, "ntpd", "ntpsec.service", "eth0"),
        ("tcp", "127.0.0.1", 25, "exim4", "exim4.service"),
        ("tcp", "::ffff:127.0.0.1", 8080, "java"),
        ("tcp", "0.0.0.0", 8080, "app", "", "lo"),
        ("udp", "0.0.0.0", 68, "dhclient", "networking.service"),
        ("udp", "203.0.113.10", 68, "systemd-network", "systemd-networkd.service", "eth0"),
        ("udp", "fe80::1", 546, "dhclient", "networking.service", "eth0"),
        ("udp", "0.0.0.0", 5353, "avahi-daemon", "avahi-daemon.service"),
        ("udp", "239.255.255.250", 1900, "minissdpd"),
        ("udp", "224.0.0.9", 520, "routed"),
        ("udp", "0.0.0.0", 47123, "dnsmasq"),
        ("tcp", "0.0.0.0", 111, "rpcbind", "rpcbind.service"),
        ("udp", "::", 111, "rpcbind", "rpcbind.service"),
        ("tcp", "0.0.0.0", 39641, "rpc.statd", "rpc-statd.service"),
        ("tcp", "0.0.0.0", 8443, "docker-proxy", "docker.service"),
        ("tcp", "*", 2222, "sshd", "ssh.service"),
        ("tcp", "*", 22, "systemd", "init.scope"),
        ("udp", "*", 45001, "mpquic", "mpquic@mpq1.service"),
    ],
    ids=lambda socket: f"{socket[3]} {socket[0]} {socket[1]} {socket[2]}",
)
def test_what_is_usual_on_a_sound_host_stops_nobody(
    vps: Make, listening: Listening, problems: Told, socket: tuple[Any, ...]
) -> None:
    assert problems(vps(listening(*socket))) == []


@pytest.mark.parametrize(
    ("socket", "named"),
    [
        (("udp", "0.0.0.0", 51820), "udp/51820 (the kernel)"),
        (("udp", "0.0.0.0", 1194, "openvpn"), "udp/1194 (openvpn, process 700)"),
        (("tcp", "0.0.0.0", 40000, "app"), "tcp/40000 (app, process 700)"),
        (("tcp", "2001:db8:113::10", 80, "nginx"), "tcp/80"),
        (("udp", "0.0.0.0", 123, "chronyd"), "udp/123"),
    ],
)
def test_what_serves_others_is_named(
    vps: Make, listening: Listening, problems: Told, socket: tuple[Any, ...], named: str
) -> None:
    (only,) = problems(vps(listening(*socket)))
    assert named in only


def test_rpcbind_of_a_server_of_nfs_is_missed(vps: Make, listener: Listener, problems: Told) -> None:
    sockets = [listener("tcp", "0.0.0.0", 111, "rpcbind"), listener("tcp", "0.0.0.0", 2049)]
    (only,) = problems(vps(("sockets", sockets)))
    assert "tcp/111 (rpcbind" in only
    assert "tcp/2049 (the kernel)" in only


def test_ssh_by_another_port_stays_open_as_the_run_came_in_by_it(vps: Make, listener: Listener, problems: Told) -> None:
    host = vps(("sockets", [listener("tcp", "*", 2200, "dropbear")]), ("connection/port", 2200))
    assert problems(host) == []


def test_a_port_of_ours_that_somebody_has_is_named_with_the_owner(
    vps: Make, listening: Listening, problems: Told
) -> None:
    (only,) = problems(vps(listening("udp", "127.0.0.1", 45005, "socat", "relay.service", pid=4711)))
    assert only == (
        "port-taken: UDP port 45005, which vps.listeners names, is taken by socat, process 4711, relay.service; stop "
        "it there, or state another port (vps.listeners[].port, stripe_port)"
    )


def test_a_stripe_port_is_one_of_ours_and_tcp_is_not(vps: Make, listening: Listening, problems: Told) -> None:
    assert problems(vps(listening("udp", "*", 46001), ("filters", LOADED)))
    assert problems(vps(listening("tcp", "*", 45001), ("filters", LOADED))) == []


def test_a_taken_port_can_not_be_accepted(vps: Make, listening: Listening, problems: Told) -> None:
    assert problems(vps(listening("udp", "*", 45001, "socat")), ["port-taken", "closed-services"])


def test_a_client_has_no_ports_of_its_own(client: Make, listening: Listening, problems: Told) -> None:
    assert problems(client(listening("udp", "*", 45001, "socat"), ("filters", LOADED))) == []
