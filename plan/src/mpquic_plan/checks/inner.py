"""Inner subnets of listeners, and the places of sites in them."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Final

from mpquic_plan import addressing
from mpquic_plan.checks.addresses import overlap
from mpquic_plan.formats import holds_special
from mpquic_plan.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mpquic_plan.model import Fleet, Listener

LARGEST_SUBNET: Final = 8
SMALLEST_SUBNET: Final = 30


def has_room(listener: Listener) -> bool:
    """Return whether a subnet is of a size and kind that a listener can have."""
    sized = LARGEST_SUBNET <= listener.subnet.prefixlen <= SMALLEST_SUBNET
    return sized and holds_special(listener.subnet) is None


def listener_subnets_have_room(fleet: Fleet) -> Iterator[Problem]:
    """A subnet has room for two ends, and the IPv6 prefix has a /64 for each of its addresses."""
    for vps in fleet.vpses.values():
        for listener in vps.listeners:
            subnet = listener.subnet
            if not LARGEST_SUBNET <= subnet.prefixlen <= SMALLEST_SUBNET:
                yield Problem(vps.host, f"{listener.path}.subnet", f"{subnet} must be from /8 to /30")
            elif not has_room(listener):
                what = holds_special(subnet)
                message = f"{subnet} holds {what}; state another one, such as 10.200.9.0/24"
                yield Problem(vps.host, f"{listener.path}.subnet", message)
            elif listener.subnet6.prefixlen > 32 + subnet.prefixlen:
                yield Problem(
                    vps.host,
                    f"{listener.path}.subnet6",
                    f"{listener.subnet6} is too small; a /64 for each address of {subnet} "
                    f"needs a /{32 + subnet.prefixlen}",
                )


def listener_subnets_are_disjoint(fleet: Fleet) -> Iterator[Problem]:
    """Listeners of a VPS have subnets of their own, and none holds its public address."""
    for vps in fleet.vpses.values():
        for one, other in combinations(vps.listeners, 2):
            if one.name == other.name:
                continue
            if overlap(one.subnet, other.subnet):
                yield Problem(
                    vps.host, f"{other.path}.subnet", f"{other.subnet} overlaps {one.subnet} of {one.name} ({one.path})"
                )
            elif overlap(one.subnet6, other.subnet6):
                yield Problem(
                    vps.host,
                    f"{other.path}.subnet6",
                    f"{other.subnet6} overlaps {one.subnet6} of {one.name} ({one.path})",
                )
        for listener in vps.listeners:
            if vps.address in listener.subnet:
                yield Problem(
                    vps.host, f"{listener.path}.subnet", f"{listener.subnet} holds the public address {vps.address}"
                )
            if vps.address6 is not None and vps.address6 in listener.subnet6:
                yield Problem(
                    vps.host, f"{listener.path}.subnet6", f"{listener.subnet6} holds the public address {vps.address6}"
                )


def slots_exist(fleet: Fleet) -> Iterator[Problem]:
    """Each tunnel has a place of its own on its listener."""
    for site in fleet.sites.values():
        vps = fleet.vps_of(site)
        listeners = {listener.name: listener for listener in vps.listeners} if vps else {}
        taken: dict[tuple[str, int], str] = {}
        # Of two classes with one slot `classes_are_distinct` tells.
        of_classes = {tunnel.name for tunnel in site.tunnels if tunnel.of_class}
        for tunnel in site.tunnels:
            listener = listeners.get(tunnel.listener)
            if listener is not None and vps is not None and tunnel.slot > listener.tunnels_per_site:
                yield Problem(
                    site.host,
                    tunnel.place("slot"),
                    f"listener {listener.name} has room for {listener.tunnels_per_site} of a site; "
                    f"raise tunnels_per_site in {listener.path} of {vps.host}",
                )
            place = (tunnel.listener, tunnel.slot)
            if place not in taken:
                taken[place] = tunnel.name
            elif taken[place] != tunnel.name and tunnel.name not in of_classes:
                yield Problem(
                    site.host,
                    tunnel.place("listener"),
                    f"slot {tunnel.slot} of listener {tunnel.listener} is already used by {taken[place]}; "
                    "state another listener or slot",
                )


def clients_fit_their_subnets(fleet: Fleet) -> Iterator[Problem]:
    """The address that follows from the site's number lies in the subnet, below the server's, which is the last one."""
    for site in fleet.sites.values():
        vps = fleet.vps_of(site)
        listeners = {listener.name: listener for listener in vps.listeners} if vps else {}
        for tunnel in site.tunnels:
            listener = listeners.get(tunnel.listener)
            if listener is None or vps is None or not has_room(listener) or tunnel.slot > listener.tunnels_per_site:
                continue
            offset = addressing.client_offset(listener, site.site_id, tunnel.slot)
            if offset >= addressing.server_offset(listener):
                yield Problem(
                    site.host,
                    "site.site_id",
                    f"{site.site_id} gives {tunnel.name} address {offset} of {listener.subnet}, beyond its end; "
                    f"{listener.path}.subnet of {vps.host} must be a /{addressing.longest_prefix(offset)} or larger",
                )
