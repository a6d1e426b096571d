"""The way in that this run came by is still there after it."""

from __future__ import annotations

from ipaddress import ip_interface, ip_network
from typing import TYPE_CHECKING, Any

from mpquic_plan.preflight.finding import Finding, Severity, plain_address

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from ipaddress import IPv4Address, IPv6Address

    from mpquic_plan.preflight.finding import Host

    Address = IPv4Address | IPv6Address

LOCKED_OUT = "locked-out"
LEASE = "lease"
UNKNOWN = "UNKNOWN"
"""What sshd calls the ends of a connection that isn't IP, such as one by AF_VSOCK."""
DUID = "ff"
"""First byte of a client identifier of IAID and DUID (RFC 4361), with which systemd-networkd asks by default."""


def connection_stays(host: Host) -> Iterator[Finding]:
    """The device and the address by which Ansible came in are accepted by the client's packet filter afterwards."""
    connection = host.survey["connection"]
    if not host.is_client:
        return
    if connection is None:
        if host.survey.get("by_ssh"):
            # Programs that have systemd start the command (run0, machinectl) leave no trace of ssh in its parents.
            yield Finding(
                LOCKED_OUT,
                "this run came in by ssh, and nothing on the host tells by which interface: no parent process of it "
                "has SSH_CONNECTION; become root by sudo, su or doas (ansible_become_method)",
            )
        return
    device, address = connection["device"], connection["address"]
    if not device:
        # Behind a translation in the host itself (a container's); nothing on the host tells the way of the packets.
        yield Finding(
            LOCKED_OUT,
            f"ssh came in to {address}, which no interface of the host has; connect to an address of the host itself",
        )
        return
    allowed = host.plan["firewall"]["ssh"]["devices"]
    if device not in allowed:
        names = ", ".join(allowed) or "no interface"
        yield Finding(
            LOCKED_OUT,
            f"this run came in by {device} ({address}), and afterwards ssh would be accepted from {names} alone "
            "(site.firewall.ssh_from, site.management[].device): name the interface there, or correct the device, "
            "or come in by another one",
        )
    elif device in {instance["name"] for instance in host.plan["instances"] if not instance["enabled"]}:
        yield Finding(
            LOCKED_OUT,
            f"this run came in by the tunnel {device}, which the variables take out of service (enabled: false of it "
            "or of its WAN): the connection would end in the middle of the run; come in by another interface",
        )
    elif not _keeps_address(host, device, address):
        yield Finding(
            LOCKED_OUT,
            f"this run came in to {address} on {device}, which the variables don't give to the host: the connection "
            "would end in the middle of the run; state this address, or connect to one that stays (ansible_host)",
        )


def _keeps_address(host: Host, device: str, address: str) -> bool:
    """Whether an address of a device stays: the variables state it, or DHCP goes on giving it."""
    own = plain_address(address)
    if own.is_link_local:
        return True
    links = [link for kind in ("management", "wans", "lans") for link in host.plan[kind] if link["device"] == device]
    links += [tun for tun in host.plan["tuns"] if tun["name"] == device]
    return any(
        link.get("dhcp") or any(ip_interface(stated).ip == own for stated in link["addresses"]) for link in links
    )


def replies_find_back(host: Host) -> Iterator[Finding]:
    """The routes of the plan lead back to where Ansible came from, which what is taken over did so far."""
    connection = host.survey["connection"]
    if connection is None or not host.is_client or not connection["device"] or connection["client"] == UNKNOWN:
        return
    device, client = connection["device"], plain_address(connection["client"])
    link = next((link for link in _local_links(host) if link["device"] == device), None)
    if link is None or client.is_link_local or not _keeps_address(host, device, connection["address"]):
        # Tunnels lead where the VPS says; what else ends the connection is told already.
        return
    if not (_is_neighbour(host, link, client) or _is_routed(host, link, client)):
        remedy = (
            "gateways of management interfaces are for IPv4: come in by IPv4, or from the interface's own subnet"
            if client.version == 6
            else "state site.management[].gateway of the interface, or come in from its own subnet"
        )
        yield Finding(
            LOCKED_OUT,
            f"this run came in by {device} from {client}, and no route of the site leads back there: the connection "
            f"would end in the middle of the run; {remedy}",
        )


def _local_links(host: Host) -> list[Mapping[str, Any]]:
    return [*host.plan["management"], *host.plan["lans"]]


def _is_neighbour(host: Host, link: Mapping[str, Any], client: Address) -> bool:
    """Whether an address is in a subnet of a link: of those that are stated, or of its lease."""
    present = host.survey["links"].get(link["device"], {}).get("addresses", [])
    subnets = [*link["addresses"], *(present if link.get("dhcp") else [])]
    return any(client in ip_interface(subnet).network for subnet in subnets)


def _is_routed(host: Host, link: Mapping[str, Any], client: Address) -> bool:
    """Whether replies have a route: of the link itself, in the table for its own address, or of the main table."""
    links = _local_links(host)
    if client.version == 4 and any(other.get("dhcp") and other["egress"] for other in links):
        return True
    main = [route for other in links for route in other["routes"] if route["table"] is None]
    return any(
        route["type"] == "unicast" and client in ip_network(route["destination"]) for route in [*link["routes"], *main]
    )


def lease_stays(host: Host) -> Iterator[Finding]:
    """The lease that Ansible came in to is asked for as before: a server may know hosts by their client identifier."""
    connection = host.survey["connection"]
    if connection is None or not host.is_client or not connection["device"]:
        return
    device, address = connection["device"], plain_address(connection["address"])
    if address.version == 6 or not any(item["device"] == device and item["dhcp"] for item in host.plan["management"]):
        return
    link = host.survey["links"].get(device, {})
    lease = link.get("lease", {"address": "", "client": ""})
    if lease["address"] == str(address) and lease["client"].startswith(DUID):
        return
    if host.first_run:
        yield Finding(
            LEASE,
            f"this run came in to {address} on {device}, which is no lease of systemd-networkd: that asks with a "
            "client identifier of its own (ClientIdentifier=duid), and the server may give it another address, by "
            f"which nobody would look for it. Reserve {address} for {link.get('mac', 'the card')} on the server, then "
            f"go on with mpquic_accept={LEASE}; or state it (site.management[].address)",
        )
    elif lease["address"] not in ("", str(address)):
        yield Finding(
            LEASE,
            f"this run came in to {address} on {device}, which is gone at the next boot: the lease there is "
            f"{lease['address']}; come in to that one (ansible_host)",
            Severity.NOTICE,
        )


def ssh_port_stays(host: Host) -> Iterator[Finding]:
    """The port by which Ansible came in is open afterwards."""
    connection, ports = host.survey["connection"], host.ssh_ports
    if connection is not None and ports is not None and connection["port"] not in ports:
        key = "site.firewall.ssh_ports" if host.is_client else "vps.ssh_ports"
        yield Finding(
            LOCKED_OUT,
            f"this run came in by port {connection['port']}, and {key} opens {', '.join(map(str, ports))} alone; "
            "add the port, or set auto",
        )


def management_address_is_there(host: Host) -> Iterator[Finding]:
    """No other device has an address of a management interface: the host would have it twice."""
    for item in host.plan.get("management", []):
        if item.get("netdev") is None and item["device"] not in host.survey["links"]:
            # That it's missing is told already, with the device that has its address.
            continue
        for address in item["addresses"]:
            wanted = ip_interface(address).ip
            for name, link in host.survey["links"].items():
                present = [ip_interface(entry).ip for entry in link["addresses"]]
                if name != item["device"] and wanted in present and name not in _wan_devices(host):
                    yield Finding(
                        LOCKED_OUT,
                        f"{wanted}, the address of {item['name']} on {item['device']}, is on {name} at present; "
                        f"correct site.management[].device, or take the address away from {name}",
                    )


def _wan_devices(host: Host) -> list[str]:
    return [wan["device"] for wan in host.plan["wans"]]
