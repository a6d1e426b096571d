#!/usr/bin/python3
"""Imitation of netplan's generator, which systemd runs at boot and at each daemon-reload.

It writes /run/systemd/network/10-netplan-ID.network from /etc/netplan/*.yaml, so whoever removes only those files has
them again at the next boot. It reads the keys of `ethernets` that machines of the lab have. Unlike the real one it
doesn't enable systemd-networkd: on the client ifupdown has the management NICs until somebody takes them over.

This file is copied into machines: it needs nothing but Python and its YAML module.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

SOURCES = Path("/etc/netplan")
TARGET = Path("/run/systemd/network")


def merged(sources: Path) -> dict[str, Any]:
    """Return the devices of all files by their id; a later file replaces a device of an earlier one."""
    devices: dict[str, Any] = {}
    for path in sorted(sources.glob("*.yaml")):
        document = yaml.safe_load(path.read_text()) or {}
        devices |= document.get("network", {}).get("ethernets", {})
    return devices


def unit(identity: str, device: dict[str, Any]) -> str:
    """Return the text of a device's .network file, in netplan's order of sections and keys."""
    dhcp = {(True, True): "yes", (True, False): "ipv4", (False, True): "ipv6"}.get(
        (bool(device.get("dhcp4")), bool(device.get("dhcp6")))
    )
    lines = ["[Match]", f"Name={device.get('match', {}).get('name', identity)}", "", "[Network]"]
    lines += [f"DHCP={dhcp}"] if dhcp else []
    lines.append("LinkLocalAddressing=ipv6")
    lines += [f"Address={address}" for address in device.get("addresses", [])]
    lines += [f"DNS={address}" for address in device.get("nameservers", {}).get("addresses", [])]
    for route in device.get("routes", []):
        lines += ["", "[Route]"]
        lines += [] if route["to"] == "default" else [f"Destination={route['to']}"]
        lines.append(f"Gateway={route['via']}")
    lines += ["", "[DHCP]", "RouteMetric=100", "UseMTU=true"] if dhcp else []
    return "\n".join(lines) + "\n"


def generate(sources: Path = SOURCES, target: Path = TARGET) -> None:
    """Write a file for each device, and remove those of devices that are no longer named."""
    target.mkdir(parents=True, exist_ok=True)
    for stale in target.glob("10-netplan-*"):
        stale.unlink()
    for identity, device in merged(sources).items():
        (target / f"10-netplan-{identity}.network").write_text(unit(identity, device))


if __name__ == "__main__":
    generate()
