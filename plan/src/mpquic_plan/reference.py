"""Names and numbers of the reference site: defaults that site variables replace."""

from __future__ import annotations

import copy
from typing import Any, Final

SITE_LINKS: Final = range(1, 7)
WAN_DEVICES: Final = {f"wan{n}": f"enp7s{n + 2}" for n in SITE_LINKS}
LAN_DEVICES: Final = {
    "lan1": "enp6s20",
    "lan2": "enp6s21",
    "lan3": "enp6s22",
    "lan4": "enp6s23",
    "lan5": "enp7s1",
    "lan6": "enp7s2",
}
LAN_ADDRESSES: Final = {f"lan{n}": f"172.16.{n}.1/30" for n in SITE_LINKS}
MANAGEMENT_DEVICES: Final = {"mgmt1": "enp6s18", "mgmt2": "enp6s19"}
TUNNEL_WANS: Final = {f"mpq{n}": f"wan{n}" for n in SITE_LINKS}
LAN_TUNNELS: Final = {f"lan{n}": f"mpq{n}" for n in SITE_LINKS}
CLASS_LISTENERS: Final = {"mt4": 1, "mt5": 2, "mt6": 3}
"""Class number of each listener of class tunnels."""
MULTIPATH_LISTENERS: Final = {"mp1": 17}
"""Number of each listener of tunnels over several WANs, in its port and its subnet."""
LISTENER_PORTS: Final = {
    **{f"mpq{n}": 45000 + n for n in SITE_LINKS},
    **{name: 45009 + n for name, n in CLASS_LISTENERS.items()},
    **{name: 45000 + n for name, n in MULTIPATH_LISTENERS.items()},
}
LISTENER_SUBNETS: Final = {
    **{f"mpq{n}": f"10.200.{n}.0/30" for n in SITE_LINKS},
    **{name: f"10.200.{9 + n}.0/24" for name, n in CLASS_LISTENERS.items()},
    **{name: f"10.200.{n}.0/24" for name, n in MULTIPATH_LISTENERS.items()},
}
TUNNELS_PER_SITE: Final = dict.fromkeys(CLASS_LISTENERS, 3)
CLASSES: Final[tuple[dict[str, Any], ...]] = (
    {
        "name": "critical",
        "slot": 1,
        "prefix": "cr",
        "dscp": "EF",
        "low_latency": True,
        "match": [{"protocol": "udp", "ports": [5060, "10000-20000"]}, {"dscp": ["EF"]}],
    },
    {
        "name": "bulk",
        "slot": 2,
        "prefix": "br",
        "catch_all": True,
        "match": [{"protocol": "tcp", "ports": ["5001-6000"]}],
    },
    {
        "name": "default",
        "slot": 3,
        "prefix": "df",
        "match": [{"protocol": "tcp", "ports": [80, 443, 8443]}],
    },
)
STRIPE_PORT_OFFSET: Final = 1000
BLOCK: Final = "block"
"""The fallback that lets nothing leak."""
TRANSPORTS: Final = {"datagram": "stripe", "reliable": "quic"}
"""Transport of a tunnel that states none, by its mode: striping sends again by itself, and has no reliable mode."""
TRANSPORT_MODE: Final = "datagram"
MULTIPATH_POLICY: Final = "failover"
PATH_PRIORITY: Final = 100
PATH_WEIGHT: Final = 1
LARGEST_VLAN_WITH_ADDRESS: Final = 255
"""172.16.<id>.1/30 exists only for ids that fit into an octet."""


def stripe_port(port: int) -> int:
    """Return the default stripe port of a listener; beyond 65535 where the listener must state one."""
    return port + STRIPE_PORT_OFFSET


def class_listener(wan_number: int) -> str:
    """Return the name of the listener of a WAN's class tunnels."""
    return f"mt{wan_number}"


def vlan_address(vlan_id: int) -> str | None:
    """Return the default address of a VLAN, or None where the id can't stand in an octet."""
    return f"172.16.{vlan_id}.1/30" if vlan_id <= LARGEST_VLAN_WITH_ADDRESS else None


def complete(root: str, value: Any) -> Any:
    """Return `site` or `vps` with the lists that it leaves out: what the reference has for the WANs that it states."""
    if not isinstance(value, dict):
        return value
    if root == "vps":
        return {"listeners": [{"name": f"mpq{n}"} for n in SITE_LINKS], **value}
    wans = value.get("wans", [{"name": name} for name in WAN_DEVICES])
    names = [item.get("name") for item in wans if isinstance(item, dict)] if isinstance(wans, list) else []
    numbers = [n for n in SITE_LINKS if f"wan{n}" in names]
    return {
        "classes": copy.deepcopy(list(CLASSES)),
        "wans": wans,
        "lans": [{"name": f"lan{n}"} for n in numbers],
        "tunnels": [{"name": f"mpq{n}"} for n in numbers],
        **value,
    }
