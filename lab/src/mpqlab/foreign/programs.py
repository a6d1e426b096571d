"""The imitated programs by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpqlab.foreign import docker, hardening, managers, netplan, program, ufw

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpqlab.foreign.program import Program
    from mpqlab.machine import Machine

PROGRAMS: dict[str, Callable[[str], Program]] = {
    "cloud-init": managers.cloud_init,
    "dhcpcd": managers.dhcpcd,
    "docker": docker.program,
    "hardening": hardening.program,
    "netplan": netplan.program,
    "netplan-alone": netplan.alone,
    "networkmanager": managers.network_manager,
    "ufw": ufw.program,
}


def install(machine: Machine, name: str) -> None:
    """Put the program `name` onto a machine."""
    program.install(PROGRAMS[name](machine.name), machine)


def remove(machine: Machine, name: str) -> None:
    """Take the program `name` off a machine."""
    program.remove(PROGRAMS[name](machine.name), machine)
