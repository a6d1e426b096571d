"""netplan as cloud images have it: one file for all devices that begin with `en`, and one that somebody has added."""

from __future__ import annotations

from pathlib import Path

from mpqlab.foreign import netplan_generator
from mpqlab.foreign.program import File, Program
from mpqlab.topology import CLIENT, VPS, VPS_ADDRESS, VPS_ADDRESS6, VPS_DEVICE, VPS_GATEWAY, VPS_GATEWAY6, find_wan

GENERATOR = "usr/lib/systemd/system-generators/netplan"
_SINGLE_WAN = find_wan("wan5").device

_ALL = """\
network:
    version: 2
    ethernets:
        all-en:
            match:
                name: en*
            dhcp4: true
            dhcp4-overrides:
                use-domains: true
            dhcp6: true
            dhcp6-overrides:
                use-domains: true
"""
_WAN = f"""\
network:
    version: 2
    ethernets:
        {_SINGLE_WAN}:
            dhcp4: true
"""
_PROVIDER = f"""\
# This file is generated from information provided by the datasource.
network:
    version: 2
    ethernets:
        {VPS_DEVICE}:
            addresses:
            - {VPS_ADDRESS}
            - {VPS_ADDRESS6}
            nameservers:
                addresses:
                - {VPS_GATEWAY.ip}
            routes:
            -   to: default
                via: {VPS_GATEWAY.ip}
            -   to: default
                via: {VPS_GATEWAY6.partition("/")[0]}
"""


def program(machine: str) -> Program:
    """Return netplan for a machine; the client's management stays with ifupdown."""
    sources = {
        CLIENT: {"etc/netplan/60-uplink.yaml": _WAN, "etc/netplan/90-default.yaml": _ALL},
        VPS: {"etc/netplan/50-cloud-init.yaml": _PROVIDER},
    }[machine]
    files = {path: File(text, 0o600) for path, text in sources.items()}
    files[GENERATOR] = File(Path(netplan_generator.__file__).read_text(), 0o755)
    # The generator runs at a daemon-reload, which follows anyway.
    return Program(files)
