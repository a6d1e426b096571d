"""The devices that the variables name exist."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpquic_plan.preflight.finding import Finding
from mpquic_plan.problem import nearest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mpquic_plan.preflight.finding import Host


def devices_exist(host: Host) -> Iterator[Finding]:
    """Management and LAN interfaces and the public one are there; a WAN may be absent, and a VLAN is made."""
    present = host.survey["links"]
    stated = [(f"site.management[] {item['name']}", item) for item in host.plan.get("management", [])]
    stated += [(f"site.lans[] {item['name']}", item) for item in host.plan.get("lans", [])]
    names = [(path, item["parent"] if item.get("vlan_id") is not None else item["device"]) for path, item in stated]
    device = host.public_device
    if not host.is_client and device:
        names.append(("vps.device", device))
    for path, name in dict.fromkeys(names):
        if name and name not in present:
            yield Finding("missing-device", f"{path}: {_absent(host, name)}")


def _absent(host: Host, name: str) -> str:
    ours = {"lo", *host.tuns}
    links = {each: link for each, link in host.survey["links"].items() if each not in ours and link["kind"] != "tun"}
    close = nearest(name, links, cutoff=0.75)
    hint = f"did you mean {close}? " if close else ""
    listed = ", ".join(f"{each} ({link['mac']})" for each, link in sorted(links.items()))
    return f"there is no interface {name} on the host; {hint}it has {listed}; state the right one in device"
