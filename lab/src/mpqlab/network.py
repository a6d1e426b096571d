"""Makes the namespaces of the lab, and the devices, addresses and routes of those that are no machines.

Every device is created inside a namespace of the lab with its peer in another one: the root namespace never gets a
device, a route or a sysctl. `machine_links` makes what the machines are plugged into.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from mpqlab import topology
from mpqlab.run import ip, ip_json, nft, run, sysctl
from mpqlab.topology import (
    EMULATED_WANS,
    INTERNET,
    ISP_LAN_DEVICE,
    ISP_UPLINK_DEVICE,
    LANS,
    MGMT,
    NODES,
    OPENWRT,
    VLANS,
    mac,
    namespace,
)

if TYPE_CHECKING:
    from mpqlab.topology import Subnet, Vlan, Wan

NETNS = Path("/run/netns")
CONTROLLER_PEER = "mgmt"

_ROUTER_SYSCTL = {
    "ipv4/ip_forward": 1,
    "ipv4/conf/all/rp_filter": 0,
    "ipv4/conf/default/rp_filter": 0,
    "ipv6/conf/all/forwarding": 1,
    "ipv6/conf/default/accept_dad": 0,
    "ipv6/conf/default/accept_ra": 0,
}
# Stated, since a new namespace may begin with the forwarding of the machine that runs the lab.
_CONTROLLER_SYSCTL = {"ipv4/ip_forward": 0, "ipv6/conf/all/forwarding": 0}
_HOST_SYSCTL = {"ipv6/conf/default/accept_dad": 0, "ipv6/conf/default/accept_ra": 0}

_MASQUERADE = """
table inet lab {{
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        {rule}
    }}
}}
"""
# Nobody outside an ISP can open a connection to its customers, by IPv6 neither.
_ISP_FILTER = f"""
table inet lab {{
    chain forward {{
        type filter hook forward priority filter; policy accept;
        iifname "{ISP_UPLINK_DEVICE}" ct state new drop
    }}
}}
"""
# A second lock beside the sysctl: the client's management must have no way to the Internet by the controller.
_CONTROLLER_FILTER = """
table inet lab {
    chain forward {
        type filter hook forward priority filter; policy drop;
    }
}
"""


def namespace_exists(node: str) -> bool:
    """Tell whether a node's network namespace exists."""
    return (NETNS / namespace(node)).exists()


def create_namespace(node: str) -> None:
    """Make a node's network namespace with its loopback up."""
    run(["ip", "netns", "add", namespace(node)])
    ip(node, ["link set lo up"])


def delete_namespace(node: str) -> None:
    """Remove a node's network namespace, and with it all devices, routes, rules and nftables in it."""
    if namespace_exists(node):
        run(["ip", "netns", "delete", namespace(node)])


def device_exists(node: str, device: str) -> bool:
    """Tell whether a device exists in a node's namespace."""
    return any(link["ifname"] == device for link in json.loads(ip_json(node, "link", "show") or "[]"))


def has_carrier(node: str, device: str) -> bool:
    """Tell whether a device is there and its other end is up, of a tap also that it is up itself."""
    links = json.loads(ip_json(node, "-details", "link", "show") or "[]")
    return any(
        link["ifname"] == device
        and "NO-CARRIER" not in link["flags"]
        and ("UP" in link["flags"] or link.get("linkinfo", {}).get("info_kind") != "tun")
        for link in links
    )


def veth(outer: str, node: str, device: str, group: int, number: int) -> str:
    """Return the `ip` command for a veth pair: `outer` here, `device` in the namespace of `node`."""
    here, there = mac(group, number, 2), mac(group, number, 1)
    return f"link add {outer} address {here} type veth peer name {device} address {there} netns {namespace(node)}"


def create_all_namespaces() -> None:
    """Make every namespace and what in it does not depend on a device of a machine."""
    for node in NODES:
        create_namespace(node)
    for wan in EMULATED_WANS:
        sysctl(wan.isp, _ROUTER_SYSCTL)
    sysctl(OPENWRT, _ROUTER_SYSCTL)
    sysctl(INTERNET, _ROUTER_SYSCTL)
    ip(
        INTERNET,
        [
            f"address add {topology.INTERNET_ADDRESS}/32 dev lo",
            f"address add {topology.INTERNET_ADDRESS6}/128 dev lo nodad",
        ],
    )
    _configure_openwrt()
    _connect_controller()
    for wan in EMULATED_WANS:
        _create_isp(wan)


def _connect_controller() -> None:
    """Give the controller a way to the VPS and to nothing else of the Internet.

    Its address that refuses connections stands for a site that is off.
    """
    sysctl(MGMT, _CONTROLLER_SYSCTL)
    nft(MGMT, _CONTROLLER_FILTER)
    ip(
        INTERNET,
        [
            veth(CONTROLLER_PEER, MGMT, topology.CONTROLLER_DEVICE, 4, 1),
            f"address add {topology.CONTROLLER_GATEWAY} dev {CONTROLLER_PEER}",
            f"link set {CONTROLLER_PEER} up",
        ],
    )
    ip(
        MGMT,
        [
            f"address add {topology.CONTROLLER_ADDRESS} dev {topology.CONTROLLER_DEVICE}",
            f"address add {topology.REFUSING_ADDRESS}/32 dev lo",
            f"link set {topology.CONTROLLER_DEVICE} up",
            f"route add {topology.VPS_ADDRESS.network} via {topology.CONTROLLER_GATEWAY.ip}",
        ],
    )


def _configure_openwrt() -> None:
    devices = [*(lan.openwrt_device for lan in LANS), *(vlan.openwrt_device for vlan in VLANS)]
    outside = "{ " + ", ".join(f'"{device}"' for device in devices) + " }"
    nft(OPENWRT, _MASQUERADE.format(rule=f"oifname {outside} masquerade"))
    rules = []
    for lan in LANS:
        sysctl(lan.host, _HOST_SYSCTL)
        inner = f"host{lan.number}"
        ip(
            OPENWRT,
            [
                veth(inner, lan.host, "eth0", 5, lan.number),
                f"address add {lan.router} dev {inner}",
                f"address add {lan.router6} dev {inner} nodad",
                f"link set {inner} up",
            ],
        )
        ip(
            lan.host,
            [
                f"address add {lan.host_address} dev eth0",
                f"address add {lan.host_address6} dev eth0 nodad",
                "link set eth0 up",
                f"route add default via {lan.router.partition('/')[0]}",
                f"route add default via {lan.router6.partition('/')[0]}",
            ],
        )
        rules += [
            f"rule add iif {inner} table {lan.table} priority {lan.table}",
            # Without a way through its own LAN a host has none: never by another LAN.
            f"route add unreachable default metric 4096 table {lan.table}",
        ]
    for family in ("-4", "-6"):
        ip(OPENWRT, rules, family=family)
    for vlan in VLANS:
        _serve_vlan(vlan)


def _serve_vlan(vlan: Vlan) -> None:
    """Give the LAN's host an address whose traffic OpenWrt sends by a VLAN, and by nothing else."""
    inner = f"host{vlan.lan.number}"
    ip(OPENWRT, [f"address add {vlan.router} dev {inner}", f"address add {vlan.router6} dev {inner} nodad"])
    ip(
        vlan.lan.host,
        [f"address add {vlan.host_address} dev eth0", f"address add {vlan.host_address6} dev eth0 nodad"],
    )
    for family, address in (("-4", vlan.host_address), ("-6", vlan.host_address6)):
        source = f"{address.partition('/')[0]}/{32 if family == '-4' else 128}"
        ip(
            OPENWRT,
            [
                f"rule add iif {inner} from {source} table {vlan.table} priority 50",
                f"route add unreachable default metric 4096 table {vlan.table}",
            ],
            family=family,
        )


def _create_isp(wan: Wan) -> None:
    """Make the ISP's LAN: a bridge, so that it stays as it is while the client's device comes and goes."""
    rule = f'meta nfproto ipv4 oifname "{ISP_UPLINK_DEVICE}" masquerade'
    nft(wan.isp, _MASQUERADE.format(rule=rule) + _ISP_FILTER)
    ip(
        wan.isp,
        [
            f"link add {ISP_LAN_DEVICE} address {mac(3, wan.number, 2)} type bridge stp_state 0 mcast_snooping 0",
            f"link set {ISP_LAN_DEVICE} up",
        ],
    )
    set_customer_subnet(wan, wan.subnets[0])


def set_customer_subnet(wan: Wan, subnet: Subnet) -> None:
    """Give the ISP's LAN another subnet (and only this one)."""
    lines = [f"address flush dev {ISP_LAN_DEVICE} scope global", f"address add {subnet.gateway} dev {ISP_LAN_DEVICE}"]
    if subnet.gateway6:
        lines.append(f"address add {subnet.gateway6} dev {ISP_LAN_DEVICE} nodad")
    ip(wan.isp, lines)


def set_public_address(wan: Wan, subnet: Subnet) -> None:
    """Configure both ends of the emulated link: the ISP's public address, and the Internet's routes to it."""
    ip(
        wan.isp,
        [
            f"address flush dev {ISP_UPLINK_DEVICE} scope global",
            f"link set {ISP_UPLINK_DEVICE} up",
            f"address add {subnet.public}/32 dev {ISP_UPLINK_DEVICE}",
            f"route replace default dev {ISP_UPLINK_DEVICE}",
        ],
    )
    ip(
        INTERNET,
        [
            f"link set {wan.name} up",
            f"route flush table main dev {wan.name} scope link",
            f"route replace {subnet.public}/32 dev {wan.name}",
        ],
    )
    if subnet.prefix6:
        stale = [f"route flush {other.prefix6}" for other in wan.subnets if other is not subnet]
        ip(wan.isp, [f"route replace default dev {ISP_UPLINK_DEVICE}"], family="-6")
        ip(INTERNET, [*stale, f"route replace {subnet.prefix6} dev {wan.name}"], family="-6")
