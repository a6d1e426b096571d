"""What is judged on the hosts before the first change: pure functions over a host's survey and its slice of the plan.

The survey is what the Ansible module `host_survey` returns; each check yields findings, of which a `problem` stops the
host and a `notice` is only told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mpquic_plan.preflight import access, devices, filters, identity, managers, resources, services
from mpquic_plan.preflight.finding import Finding, Host, Severity

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

__all__ = ["ACCEPTABLE", "Finding", "Host", "Severity", "judge"]

CHECKS: Final[tuple[Callable[[Host], Iterable[Finding]], ...]] = (
    resources.system_is_supported,
    access.connection_stays,
    access.replies_find_back,
    access.lease_stays,
    access.ssh_port_stays,
    access.management_address_is_there,
    devices.devices_exist,
    managers.network_is_ours,
    managers.names_are_resolved,
    managers.tunnels_are_ours,
    filters.filters_can_be_read,
    filters.others_let_ours_pass,
    filters.ours_lets_others_pass,
    services.ports_are_free,
    services.services_stay_open,
    identity.machine_id_is_its_own,
    resources.clock_is_right,
    resources.disk_has_room,
    resources.disk_is_usable,
    resources.memory_is_enough,
    resources.kernel_has_tun,
    resources.kernel_has_modules,
)

ACCEPTABLE: Final = frozenset({"foreign-filters", "closed-services", "clock", "lease", "memory", "foreign-network"})
"""Codes of problems that a person may accept by the variable `mpquic_accept`; the others lock out or can't work."""


def judge(host: Host, accepted: Collection[str] = ()) -> list[Finding]:
    """Return everything that is to be said of a host, problems first; accepted problems have become notices."""
    found = [finding for check in CHECKS for finding in check(host)]
    weighed = [finding.accepted() if finding.code in ACCEPTABLE & set(accepted) else finding for finding in found]
    return sorted(dict.fromkeys(weighed), key=lambda finding: finding.severity is Severity.NOTICE)
