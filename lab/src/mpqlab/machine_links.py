"""Makes the links of the machines: their devices, and the ends of them in the namespaces around.

The machines' ends of the veth pairs stay as a new NIC is: down and without address. Of a client with a kernel of its
own only the outer ends are made, as taps: its NICs are what qemu attaches to them.
"""

from __future__ import annotations

import json
from enum import Enum
from typing import TYPE_CHECKING

from mpqlab import topology
from mpqlab.errors import LabError
from mpqlab.network import device_exists, veth
from mpqlab.run import ip
from mpqlab.topology import (
    ATTACHED_WANS,
    CLIENT,
    INTERNET,
    ISP_LAN_DEVICE,
    ISP_PORT_DEVICE,
    LANS,
    MANAGEMENT,
    MGMT,
    OPENWRT,
    RUN,
    VLANS,
    VPS,
    Attachment,
    mac,
    namespace,
)

if TYPE_CHECKING:
    from mpqlab.topology import Lan, Management, Vlan, Wan

FOREIGN_LINKS = RUN / "foreign-links.json"
"""Names of the client's devices that stand for its VLANs where the kernel has no 802.1Q. inventories/lab reads them."""
VPS_PEER = "vps"


def _to_client(outer: str, device: str, group: int, number: int, *, own_kernel: bool) -> list[str]:
    """Return the `ip` commands for `outer` here, at whose other end is the client's NIC `device`."""
    if own_kernel:
        return [f"tuntap add dev {outer} mode tap", f"link set {outer} address {mac(group, number, 2)}"]
    return [veth(outer, CLIENT, device, group, number)]


def connect_machine(machine: str, plugged: frozenset[int] | None = None, *, own_kernel: bool = False) -> None:
    """Make all devices of a machine's namespace, and configure the ends outside it.

    `plugged` are the numbers of the WANs that have a device; None stands for the reference site's.
    """
    if machine == VPS:
        _connect_vps()
        return
    for management in MANAGEMENT:
        _connect_management(management, own_kernel=own_kernel)
    for lan in LANS:
        _connect_lan(lan, own_kernel=own_kernel)
    tags = tagging(own_kernel=own_kernel)
    for vlan in VLANS:
        _connect_vlan(vlan, tags)
    FOREIGN_LINKS.write_text(json.dumps([vlan.device for vlan in VLANS] if tags is Tagging.NONE else []))
    for wan in ATTACHED_WANS:
        if plugged is None or wan.number in plugged:
            plug(wan, own_kernel=own_kernel)


def disconnect_machine(machine: str) -> None:
    """Remove all devices of a machine, from their outer ends and at once.

    A namespace's own removal happens in the background: names would still be taken for a moment.
    """
    if machine == VPS:
        outer = {INTERNET: [VPS_PEER]}
    else:
        outer = {
            MGMT: [management.peer for management in MANAGEMENT],
            OPENWRT: [*(vlan.openwrt_device for vlan in VLANS), *(lan.openwrt_device for lan in LANS)],
        }
        outer |= {wan.isp: [ISP_PORT_DEVICE] for wan in ATTACHED_WANS}
    for node, devices in outer.items():
        ip(node, [f"link delete {device}" for device in devices if device_exists(node, device)])


def plugged_wans() -> frozenset[int]:
    """Return the numbers of the WANs whose device the client has now."""
    return frozenset(wan.number for wan in ATTACHED_WANS if device_exists(wan.isp, ISP_PORT_DEVICE))


def _connect_vps() -> None:
    ip(
        INTERNET,
        [
            veth(VPS_PEER, VPS, topology.VPS_DEVICE, 4, 0),
            f"address add {topology.VPS_GATEWAY} dev {VPS_PEER}",
            f"address add {topology.VPS_GATEWAY6} dev {VPS_PEER} nodad",
            f"link set {VPS_PEER} up",
        ],
    )


def _connect_management(management: Management, *, own_kernel: bool) -> None:
    ip(
        MGMT,
        [
            *_to_client(management.peer, management.device, 1, management.number, own_kernel=own_kernel),
            f"address add {management.controller} dev {management.peer}",
            f"link set {management.peer} up",
        ],
    )


def _connect_lan(lan: Lan, *, own_kernel: bool) -> None:
    device = lan.openwrt_device
    ip(
        OPENWRT,
        [
            *_to_client(device, lan.device, 2, lan.number, own_kernel=own_kernel),
            f"address add {lan.transit_openwrt} dev {device}",
            f"address add {lan.transit_openwrt6} dev {device} nodad",
            f"link set {device} up",
            f"route replace default via {lan.transit_client.partition('/')[0]} dev {device} table {lan.table}",
            f"route replace default via {lan.transit_client6.partition('/')[0]} dev {device} table {lan.table}",
        ],
    )


def has_8021q(node: str) -> bool:
    """Tell whether the kernel can make VLAN devices, by making one in a node's namespace."""
    try:
        ip(node, ["link add link lo name lo.1 type vlan id 1", "link delete lo.1"])
    except LabError:
        return False
    return True


class Tagging(Enum):
    """Who puts the tags of VLANs into frames on OpenWrt's side of the trunks, and takes them out."""

    KERNEL = "the kernel"
    PROGRAM = "a program"
    NONE = "nobody: a cable of its own stands for each VLAN"


def tagging(*, own_kernel: bool) -> Tagging:
    """Tell who does it: the kernel if it can, else a program if the client's own kernel expects tags."""
    if has_8021q(OPENWRT):
        return Tagging.KERNEL
    return Tagging.PROGRAM if own_kernel else Tagging.NONE


def _connect_vlan(vlan: Vlan, tags: Tagging) -> None:
    """Make OpenWrt's end of a VLAN."""
    device, trunk = vlan.openwrt_device, vlan.lan.openwrt_device
    if tags is Tagging.KERNEL:
        made = [f"link add link {trunk} name {device} type vlan id {vlan.id}"]
    elif tags is Tagging.PROGRAM:
        # The address is the trunk's, as that of a VLAN device is.
        made = [f"tuntap add dev {device} mode tap", f"link set {device} address {mac(2, vlan.lan.number, 2)}"]
    else:
        made = [veth(device, CLIENT, vlan.device, 6, vlan.id)]
    ip(
        OPENWRT,
        [
            *made,
            f"address add {vlan.transit_openwrt} dev {device}",
            f"address add {vlan.transit_openwrt6} dev {device} nodad",
            f"link set {device} up",
            f"route replace default via {vlan.transit_client.partition('/')[0]} dev {device} table {vlan.table}",
            f"route replace default via {vlan.transit_client6.partition('/')[0]} dev {device} table {vlan.table}",
        ],
    )


def plug(wan: Wan, *, own_kernel: bool = False) -> None:
    """Make the client's WAN device, with a modem's port at its other end."""
    lines = [
        f"tuntap add dev {ISP_PORT_DEVICE} mode tap"
        if own_kernel
        else f"link add {ISP_PORT_DEVICE} type veth peer name {wan.device} address {wan.mac} netns {namespace(CLIENT)}",
    ]
    if wan.attachment is Attachment.ISP:
        lines.append(f"link set {ISP_PORT_DEVICE} master {ISP_LAN_DEVICE}")
    if wan.attachment is not Attachment.NO_CARRIER:
        lines.append(f"link set {ISP_PORT_DEVICE} up")
    ip(wan.isp, lines)


def unplug(wan: Wan) -> None:
    """Take the client's WAN device away, like a USB modem that is pulled."""
    ip(wan.isp, [f"link delete {ISP_PORT_DEVICE}"])


def set_carrier(wan: Wan, *, on: bool) -> None:
    """Give or take the carrier of the client's WAN device."""
    ip(wan.isp, [f"link set {ISP_PORT_DEVICE} {'up' if on else 'down'}"])
