"""Virtual devices of a host, VLANs and TUN devices: the properties that can't be changed once such a device is there.

The files of systemd-networkd that make a device are rendered from them, and the module that deletes a device for
another property compares with them, as `ip -details -json link` shows them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

USER: Final = "mpquic"
"""User and group of the tunnel processes, who attach to TUN devices."""
PRIORITIES: Final = range(16)
"""Packets' priorities of the kernel (SO_PRIORITY) that are mapped to one of 802.1p."""


def tun() -> dict[str, Any]:
    """Return a TUN device."""
    return {"kind": "tun", "properties": {"vnet_hdr": True, "multi_queue": False, "user": USER, "group": USER}}


def vlan(vlan_id: int | None, parent: str | None, pcp: int | None = None) -> dict[str, Any] | None:
    """Return a VLAN device with this 802.1p priority; None for a link without a VLAN id, which is no such device.

    The kernel shows no map to priority 0, which is what it does without one.
    """
    if vlan_id is None:
        return None
    maps = [{"from": number, "to": pcp} for number in PRIORITIES] if pcp else None
    return {"kind": "vlan", "properties": {"id": vlan_id, "link": parent, "egress_qos": maps}}


def parent(link: Mapping[str, Any]) -> str | None:
    """Return the device below a link of a slice that is a VLAN; None for any other."""
    netdev = link.get("netdev")
    return None if netdev is None else str(netdev["properties"]["link"])
