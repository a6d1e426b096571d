"""Routing tables and rule priorities, each from a number that stands in a name, so that none moves with a list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mpquic_plan.model import Lan, Listener, Management, TrafficClass, Wan

MAIN_TABLE: Final = 254
_DEFAULT_TABLE: Final = 253
KERNEL_RULES: Final = ((4, 32766, MAIN_TABLE), (4, 32767, _DEFAULT_TABLE), (6, 32766, MAIN_TABLE))
"""Family, priority and table of the rules that a kernel begins with, but for that of the local table, which nobody can
delete (net/ipv4/fib_rules.c and net/ipv6/fib6_rules.c)."""

_WAN_TABLE: Final = 100
_MANAGEMENT_TABLE: Final = 150
_LAN_TABLE: Final = 200
_VLAN_TABLE: Final = 100_000
"""VLAN v of LAN n: 100000 n + v, which reads as both."""

_CLASS_TABLE: Final = 1000
_FALLBACK_TABLE: Final = 2000
"""The class of slot s: 1000 + 10 n + s on WAN n, and 2000 + 10 n + s for its fallback from LAN n."""

_WAY_BACK_TABLE: Final = 1_000_000

_WAN_PRIORITY: Final = 1000
INNER_PRIORITY: Final = 1700
_MANAGEMENT_PRIORITY: Final = 1800
EGRESS_MAIN_PRIORITY: Final = 1900
_EGRESS_PRIORITY: Final = 1900
_LAN_PRIORITY: Final = 2000
VLAN_PRIORITY: Final = 2100
CLASS_PRIORITY: Final = 2200
TUNNEL_FALLBACK_PRIORITY: Final = 2300
WAN_FALLBACK_PRIORITY: Final = 2500
FLOOR_PRIORITY: Final = 2600
"""Rules of all VLANs have one priority, and those of all classes, fallbacks, floors: they select different incoming
interfaces or marks, so none comes before another, and none moves when one is added."""

TABLE_RANGES: Final = ((101, 199), (201, 252), (1011, 1068), (2011, 2068), (100_001, 604_094), (1_000_001, 1_065_535))
"""Tables of the suite; 253 to 255 are the kernel's."""
PRIORITY_RANGES: Final = ((1001, 2999),)
"""Rule priorities of the suite; 1000 is the kernel's rule for VRFs."""

DEFAULT_METRIC: Final = 100
FALLBACK_METRIC: Final = 200
"""Metric of the route by the tunnel that carries while the tunnel of its table is down."""
_MODEM_METRIC: Final = 200
LAST_METRIC: Final = 1_000_000
"""Metric of the route that ends a table, behind everything that DHCP or a tunnel puts there."""


def wan_table(wan: Wan) -> int:
    """Return the table of a WAN: 100 + N."""
    return _WAN_TABLE + wan.number


def wan_priority(wan: Wan) -> int:
    """Return the priority of the rule that sends what is bound to a WAN's device to its table."""
    return _WAN_PRIORITY + wan.number


def modem_metric(wan: Wan) -> int:
    """Return the metric of a route to a WAN's modem, for those who prefer no WAN: the lowest number wins."""
    return _MODEM_METRIC + wan.number


def management_table(management: Management) -> int:
    """Return the table of the replies of a management interface."""
    return _MANAGEMENT_TABLE + management.number


def management_priority(management: Management) -> int:
    """Return the priority of the rule from a management interface's address."""
    return _MANAGEMENT_PRIORITY + management.number


def egress_priority(wan: Wan) -> int:
    """Return the priority of the rule that sends the client's own traffic to a WAN."""
    return _EGRESS_PRIORITY + wan.number


def way_back_table(listener: Listener) -> int:
    """Return the table of a VPS for what goes back by the listener by which its connection came: 1000000 + port."""
    return _WAY_BACK_TABLE + listener.port


def lan_table(lan: Lan) -> int:
    """Return the table of a LAN (200 + N) or of a VLAN."""
    return _LAN_TABLE + lan.number if lan.vlan_id is None else _VLAN_TABLE * lan.number + lan.vlan_id


def lan_priority(lan: Lan) -> int:
    """Return the priority of the rule from a LAN's or VLAN's interface to the table that carries it."""
    return _LAN_PRIORITY + lan.number if lan.vlan_id is None else VLAN_PRIORITY


def class_table(wan: Wan, traffic_class: TrafficClass) -> int:
    """Return the table of a class on a WAN: 1000 + 10 N + slot."""
    return _CLASS_TABLE + 10 * wan.number + traffic_class.slot


def fallback_table(lan: Lan, traffic_class: TrafficClass) -> int:
    """Return the table of what carries a class of a LAN while its tunnel is down: 2000 + 10 N + slot."""
    return _FALLBACK_TABLE + 10 * lan.number + traffic_class.slot
