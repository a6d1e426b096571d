"""A host isn't the copy of another one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpquic_plan.preflight.finding import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mpquic_plan.preflight.finding import Host


def machine_id_is_its_own(host: Host) -> Iterator[Finding]:
    """No other host has its machine-id(5), of which systemd makes the identity that DHCP servers know a host by."""
    own = host.survey.get("machine_id", "")
    copies = sorted(name for name, machine_id in host.machine_ids.items() if own and machine_id == own)
    if copies:
        yield Finding(
            "clone",
            f"/etc/machine-id is that of {', '.join(copies)}, too, as in copies of a machine: in one network with DHCP "
            "they get one address. Empty the file (`truncate --size=0 /etc/machine-id`) and boot; remove "
            "/var/lib/dbus/machine-id if it's a file",
            Severity.NOTICE,
        )
