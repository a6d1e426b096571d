"""Sites, VPSes and the fleet that they are, as their variables say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mpquic_plan.matching import substitute

if TYPE_CHECKING:
    from collections.abc import Mapping
    from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

    from mpquic_plan.model.classes import TrafficClass
    from mpquic_plan.model.links import Lan, Management, Match, Wan
    from mpquic_plan.model.router import Router
    from mpquic_plan.model.services import ForwardOpening, Opening
    from mpquic_plan.model.tunnels import Tunnel


@dataclass(frozen=True, slots=True)
class Site:
    """A site, seen from its client. `broken`: names whose items hold errors, by collection; '*' is an unknown name."""

    host: str
    name: str
    site_id: int
    vps: str | None
    lan_mode: str
    egress: str | None
    log_level: str
    ntp: tuple[str, ...]
    classes: tuple[TrafficClass, ...]
    management: tuple[Management, ...]
    wans: tuple[Wan, ...]
    lans: tuple[Lan, ...]
    tunnels: tuple[Tunnel, ...]
    ssh_ports: tuple[int, ...] | None
    ssh_from: tuple[str, ...]
    openings: tuple[Opening, ...]
    forward_openings: tuple[ForwardOpening, ...]
    broken: Mapping[str, frozenset[str]] = field(default_factory=dict)
    matches: tuple[Match, ...] = ()
    router: Router | None = None

    @property
    def cards(self) -> list[Match]:
        """Each card that is known by its MAC address, once: as the link that has it untagged, if there is one."""
        by_mac: dict[str, Match] = {}
        for match in sorted(self.matches, key=lambda match: match.carries_vlan):
            by_mac.setdefault(match.mac, match)
        return sorted(by_mac.values(), key=lambda match: (match.kind, match.name))

    def named(self, device: str) -> str:
        """Return the name of a device as it is where no matched card is present."""
        return substitute(device, {match.mac: match.device for match in self.cards})

    def serves(self, tunnel: Tunnel) -> bool:
        """Whether a tunnel is in service: neither it nor all of its WANs are out of service on purpose."""
        idle = {wan.name for wan in self.wans if not wan.enabled}
        return tunnel.enabled and not idle.issuperset(tunnel.wans)

    def class_named(self, name: str | None) -> TrafficClass | None:
        """Return a class by its name; None without a name, or where there is no such class."""
        return next((entry for entry in self.classes if entry.name == name), None)

    @property
    def catch_all(self) -> TrafficClass | None:
        """The class of what no rule matches."""
        return next((entry for entry in self.classes if entry.catch_all), None)

    def class_tunnel(self, wan: str | None, traffic_class: str | None) -> Tunnel | None:
        """Return the tunnel of a class on a WAN, if that carries it."""
        return next(
            (
                tunnel
                for tunnel in self.tunnels
                if tunnel.of_class and wan in tunnel.wans and tunnel.traffic_class == traffic_class
            ),
            None,
        )

    @property
    def local_links(self) -> tuple[Management | Lan, ...]:
        """All links but WANs and tunnels: those that may carry VLANs."""
        return (*self.management, *self.lans)

    @property
    def tagged(self) -> tuple[Management | Wan, ...]:
        """Management interfaces and WANs that are VLANs."""
        links: tuple[Management | Wan, ...] = (*self.management, *self.wans)
        return tuple(item for item in links if item.parent is not None)

    @property
    def vlans(self) -> list[Management | Lan | Wan]:
        """All links that are VLANs on another one."""
        links: tuple[Management | Lan | Wan, ...] = (*self.management, *self.lans, *self.wans)
        return [item for item in links if item.vlan_id is not None]


@dataclass(frozen=True, slots=True)
class Listener:
    """A UDP port of a VPS with its TUN and inner subnets; `stripe_port` is None where it serves no striped tunnels."""

    path: str
    name: str
    port: int
    stripe_port: int | None
    tun: str
    subnet: IPv4Network
    subnet6: IPv6Network
    tunnels_per_site: int
    tun_mtu: int


@dataclass(frozen=True, slots=True)
class Vps:
    """A VPS; `device` is None where the default route tells it, `ssh_ports` where the ssh server does."""

    host: str
    address: IPv4Address
    address6: IPv6Address | None
    device: str | None
    hostnames: tuple[str, ...]
    ssh_ports: tuple[int, ...] | None
    listeners: tuple[Listener, ...]
    site_to_site: bool
    tunnel_services: tuple[Opening, ...]
    openings: tuple[Opening, ...]
    forward_openings: tuple[ForwardOpening, ...]
    revoked_certificates: tuple[str, ...]
    log_level: str
    ntp: tuple[str, ...]
    broken: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fleet:
    """All sites and VPSes of an inventory, by inventory host. `unreadable`: hosts whose variables can't be judged."""

    sites: Mapping[str, Site]
    vpses: Mapping[str, Vps]
    unreadable: frozenset[str]

    def vps_of(self, site: Site) -> Vps | None:
        """Return the VPS of a site: the named one, or the only one."""
        if site.vps is not None:
            return self.vpses.get(site.vps)
        return next(iter(self.vpses.values())) if len(self.vpses) == 1 else None

    def sites_of(self, vps: Vps) -> list[Site]:
        """Return the sites of a VPS in the order of their numbers."""
        chosen = [site for site in self.sites.values() if self.vps_of(site) is vps]
        return sorted(chosen, key=lambda site: (site.site_id, site.host))
