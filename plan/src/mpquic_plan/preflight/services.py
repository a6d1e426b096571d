"""What listens on a host: on ports that are to be ours, and what the packet filter would close."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mpquic_plan.preflight.finding import Finding, plain_address

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mpquic_plan.preflight.finding import Host

OUR_UNIT: Final = "mpquic@"
# DHCP and DHCPv6 clients, which the filter lets through, and talk of a link that ends at it: mDNS, LLMNR, SSDP.
LINK_PORTS: Final = frozenset({67, 68, 546, 547, 5353, 5355, 1900})
LLMNR: Final = 5355
FIRST_EPHEMERAL: Final = 32768
"""Lowest port that the kernel gives to a socket that asked for none (net.ipv4.ip_local_port_range)."""
WIREGUARD: Final = 51820
"""A service's port among those: WireGuard's own, whose socket is the kernel's."""
NFS: Final = 2049
# Clients of NFS and NTP have these open to everybody, and need nobody to come in.
RPC: Final = frozenset({"rpcbind", "rpc.statd"})
NTP_CLIENTS: Final = frozenset({"ntpd"})
# It has the ports that Docker publishes; packets to them are forwarded, which is judged elsewhere.
DOCKER: Final = "docker-proxy"


def ports_are_free(host: Host) -> Iterator[Finding]:
    """Nobody else has a UDP port of our listeners."""
    if host.is_client:
        return
    wanted = set(host.plan["firewall"]["udp_ports"])
    for socket in host.survey["sockets"]:
        if socket["protocol"] == "udp" and socket["port"] in wanted and not socket["unit"].startswith(OUR_UNIT):
            yield Finding(
                "port-taken",
                f"UDP port {socket['port']}, which vps.listeners names, is taken by {_owner(socket)}; stop it there, "
                "or state another port (vps.listeners[].port, stripe_port)",
            )


def services_stay_open(host: Host) -> Iterator[Finding]:
    """What is reached from elsewhere now is reached afterwards."""
    if _filter_is_loaded(host) or host.survey["ours"]:
        # What isn't reached now is closed already, and nobody misses it.
        return
    sockets = host.survey["sockets"]
    exports = any(socket["port"] == NFS for socket in sockets)
    closed = [
        socket
        for socket in sockets
        if _reachable(socket) and not _is_missed_by_nobody(socket, exports=exports) and not _stays_open(host, socket)
    ]
    if closed:
        listed = ", ".join(
            dict.fromkeys(f"{socket['protocol']}/{socket['port']} ({_owner(socket)})" for socket in closed)
        )
        key = "site.firewall.openings" if host.is_client else "vps.openings"
        yield Finding(
            "closed-services",
            f"these listen and would be closed: {listed}; open what is wanted in {key}, or go on with "
            "mpquic_accept=closed-services",
        )


def _filter_is_loaded(host: Host) -> bool:
    return any(
        entry.get("table", {}).get("name") == "mpquic" and entry["table"]["family"] == "inet"
        for entry in host.survey["filters"]
    )


def _owner(socket: Mapping[str, Any]) -> str:
    process = f"{socket['process']}, process {socket['pid']}" if socket["process"] else "the kernel"
    return f"{process}, {socket['unit']}" if socket["unit"] else process


def _reachable(socket: Mapping[str, Any]) -> bool:
    """Whether a socket waits for others than the host itself."""
    if socket["unit"].startswith(OUR_UNIT):
        return False
    port = socket["port"]
    if socket["protocol"] == "udp":
        if port in LINK_PORTS or (port >= FIRST_EPHEMERAL and port != WIREGUARD):
            return False
    elif port == LLMNR:
        return False
    if socket["address"] in ("*", "0.0.0.0", "::", ""):
        return str(socket["device"]) != "lo"
    address = plain_address(socket["address"])
    return not address.is_loopback and not address.is_multicast


def _is_missed_by_nobody(socket: Mapping[str, Any], *, exports: bool) -> bool:
    """Whether a program listens by habit, or what is reached by it is reached by forwarding."""
    if socket["process"] in RPC:
        return not exports
    return socket["process"] == DOCKER or (socket["process"] in NTP_CLIENTS and socket["port"] == 123)


def _stays_open(host: Host, socket: Mapping[str, Any]) -> bool:
    firewall = host.plan["firewall"]
    port, protocol = int(socket["port"]), str(socket["protocol"])
    if protocol == "tcp":
        ports, connection = host.ssh_ports, host.survey["connection"]
        own = {22} | ({connection["port"]} if connection else set())
        # Which ports of sshd stay is what ssh_ports is for; that the way in does is judged elsewhere.
        if socket["process"] == "sshd" or port in (own if ports is None else ports):
            return True
    openings = [*firewall["openings"], *firewall.get("tunnel_services", [])]
    if protocol == "udp" and port in firewall.get("udp_ports", []):
        return True
    return any(opening["protocol"] == protocol and port in opening["ports"] for opening in openings)
