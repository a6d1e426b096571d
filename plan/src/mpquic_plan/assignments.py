"""By which tunnels the traffic of a LAN goes, and by what while these are down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpquic_plan.reference import BLOCK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mpquic_plan.model import Lan, Site, TrafficClass, Tunnel, Wan


@dataclass(frozen=True, slots=True)
class Assignment:
    """What carries all traffic of a LAN, or that of one class where the rules of the classes decide (`marked`).

    `traffic_class` is None where the LAN states a tunnel. Without `tunnel` only the fallback carries; at most one of
    `fallback_tunnel` and `fallback_wan` is set.
    """

    lan: Lan
    traffic_class: TrafficClass | None
    tunnel: Tunnel | None
    fallback_tunnel: Tunnel | None
    fallback_wan: Wan | None

    @property
    def marked(self) -> bool:
        """Whether the packet filter marks it with its class."""
        return self.lan.classified

    @property
    def tunnels(self) -> list[Tunnel]:
        """The tunnels that may carry it, the preferred one first."""
        return [tunnel for tunnel in (self.tunnel, self.fallback_tunnel) if tunnel is not None]


def assignments(site: Site, lan: Lan, *, idle: bool = False) -> tuple[Assignment, ...]:
    """Return what carries the traffic of a LAN: one for each class where rules decide.

    Of a LAN that is out of service there is none, unless `idle` asks for what carries it otherwise.
    """
    if not lan.enabled and not idle:
        return ()
    if lan.classified:
        return tuple(_of_class(site, lan, entry) for entry in site.classes)
    if lan.traffic_class is not None:
        entry = site.class_named(lan.traffic_class)
        return () if entry is None else (_of_class(site, lan, entry),)
    tunnel = next((tunnel for tunnel in site.tunnels if tunnel.name == lan.tunnel), None)
    return (_with_fallback(site, lan, None, tunnel),)


def all_assignments(site: Site, *, idle: bool = False) -> Iterator[Assignment]:
    """Give what carries the traffic of each LAN, in the order of LANs and VLANs; `idle` as in `assignments`."""
    for lan in sorted(site.lans, key=lambda lan: (lan.number, lan.vlan_id or 0)):
        yield from assignments(site, lan, idle=idle)


def _of_class(site: Site, lan: Lan, entry: TrafficClass) -> Assignment:
    """The tunnel of a class on the LAN's WAN; of a class that the WAN doesn't carry, that of the catch-all."""
    tunnel = site.class_tunnel(lan.wan, entry.name)
    if tunnel is None and site.catch_all is not None:
        tunnel = site.class_tunnel(lan.wan, site.catch_all.name)
    return _with_fallback(site, lan, entry, tunnel)


def _with_fallback(site: Site, lan: Lan, entry: TrafficClass | None, tunnel: Tunnel | None) -> Assignment:
    name = fallback_name(lan, entry)
    other = next((other for other in site.tunnels if other.name == name and other is not tunnel), None)
    wan = next((wan for wan in site.wans if wan.name == name and wan.enabled), None)
    return Assignment(lan, entry, tunnel, other, None if other is not None else wan)


def fallback_name(lan: Lan, entry: TrafficClass | None) -> str:
    """Return the fallback of a LAN's traffic of a class by its name: the LAN's own, else the class's, else `block`."""
    if lan.fallback is not None:
        return lan.fallback
    return entry.fallback if entry is not None and entry.fallback is not None else BLOCK
