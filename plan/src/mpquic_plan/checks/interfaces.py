"""Names of items and of interfaces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mpquic_plan.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mpquic_plan.model import Fleet, Site, Vps

LONGEST_INTERFACE_NAME: Final = 15
"""IFNAMSIZ of the kernel, less its final zero (include/uapi/linux/if.h)."""

Named = tuple[str, str]
"""Path and name."""

Item = tuple[str, str, str]
"""Path, name of the item that has the interface, name of the interface."""


def _repeated(host: str, kind: str, items: Iterable[Named]) -> Iterator[Problem]:
    first: dict[str, str] = {}
    for path, name in items:
        if name in first:
            yield Problem(host, path, f"{kind} '{name}' is already used by {first[name]}")
        else:
            first[name] = path


def names_are_unique(fleet: Fleet) -> Iterator[Problem]:
    """Names in each list are unique, and VLAN ids on each trunk."""
    for site in fleet.sites.values():
        yield from _repeated(site.host, "the name", [(f"{item.path}.name", item.name) for item in site.management])
        yield from _repeated(site.host, "the name", [(f"{wan.path}.name", wan.name) for wan in site.wans])
        lans = [lan for lan in site.lans if lan.vlan_id is None]
        yield from _repeated(site.host, "the name", [(f"{lan.path}.name", lan.name) for lan in lans])
        vlans = [lan for lan in site.lans if lan.vlan_id is not None]
        yield from _repeated(site.host, "the VLAN", [(f"{lan.path}.id", lan.name) for lan in vlans])
        yield from _repeated(site.host, "the name", [(f"{tunnel.path}.name", tunnel.name) for tunnel in site.tunnels])
    for vps in fleet.vpses.values():
        yield from _repeated(vps.host, "the name", [(f"{item.path}.name", item.name) for item in vps.listeners])


def _site_devices(site: Site) -> list[Item]:
    return [
        *((f"{item.path}.device", item.name, item.device) for item in site.management),
        *((f"{wan.path}.device", wan.name, wan.device) for wan in site.wans),
        *((f"{lan.path}.device", lan.name, lan.device) for lan in site.lans),
        *((f"{tunnel.path}.name", f"tunnel {tunnel.name}", tunnel.name) for tunnel in site.tunnels),
    ]


def _vps_devices(vps: Vps) -> list[Item]:
    public = [("vps.device", "the VPS", vps.device)] if vps.device is not None else []
    return public + [(f"{listener.path}.tun", listener.name, listener.tun) for listener in vps.listeners]


def _devices(fleet: Fleet) -> Iterator[tuple[str, list[Item]]]:
    for site in fleet.sites.values():
        yield site.host, _site_devices(site)
    for vps in fleet.vpses.values():
        yield vps.host, _vps_devices(vps)


def devices_are_unique(fleet: Fleet) -> Iterator[Problem]:
    """No two items of a host have the same interface."""
    for host, devices in _devices(fleet):
        # Items of one name are told of by their name; that they share its default interface is no second error.
        order = [path for path, _, _ in devices]
        first = {owner: (path, device) for path, owner, device in reversed(devices)}
        yield from _repeated(host, "the interface", sorted(first.values(), key=lambda item: order.index(item[0])))


def interface_names_are_short(fleet: Fleet) -> Iterator[Problem]:
    """No interface has a name that the kernel refuses."""
    for host, devices in _devices(fleet):
        for path, _, name in devices:
            if name == "lo":
                yield Problem(host, path, "'lo' is the loopback interface; name another")
            if len(name) > LONGEST_INTERFACE_NAME:
                yield Problem(
                    host,
                    path,
                    f"'{name}' has {len(name)} characters; an interface name has at most {LONGEST_INTERFACE_NAME}",
                )
