"""netplan as cloud images have it: one file for all devices that begin with `en`, and one that somebody has added."""

from __future__ import annotations

from pathlib import Path

from mpqlab.foreign import netplan_generator
from mpqlab.foreign.program import File, Program
from mpqlab.topology import (
    CLIENT,
    MANAGEMENT,
    VPS,
    VPS_ADDRESS,
    VPS_ADDRESS6,
    VPS_DEVICE,
    VPS_GATEWAY,
    VPS_GATEWAY6,
    find_wan,
)

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


_FIRST, _SECOND = MANAGEMENT
_ALONE = f"""\
network:
    version: 2
    ethernets:
        {_FIRST.device}:
            addresses:
            - {_FIRST.client}
            nameservers:
                addresses:
                - {_FIRST.controller.ip}
            routes:
            -   to: default
                via: {_FIRST.controller.ip}
        {_SECOND.device}:
            addresses:
            - {_SECOND.client}
        {_SINGLE_WAN}:
            dhcp4: true
"""
_NO_IFUPDOWN = "# ifupdown has been replaced by netplan on this system.\nauto lo\niface lo inet loopback\n"


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


def alone(machine: str) -> Program:
    """Return netplan as the only one that configures a machine: the client's management too, by systemd-networkd."""
    if machine == VPS:
        return program(machine)
    files = {
        "etc/netplan/50-cloud-init.yaml": File(_ALONE, 0o600),
        "etc/network/interfaces": File(_NO_IFUPDOWN),
        GENERATOR: File(Path(netplan_generator.__file__).read_text(), 0o755),
    }
    # The files of the other setting would come before the one for a single device.
    absent = ("etc/netplan/60-uplink.yaml", "etc/netplan/90-default.yaml")
    return Program(files, absent, commands=(("systemctl", "enable", "--quiet", "--now", "systemd-networkd"),))
