"""What `playbooks/check.yml` judges: pure functions over what was found on the hosts and their slices of the plan.

Each check yields findings. A `problem` makes the run fail; what is held on purpose and what couldn't be looked at is
only told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mpquic_plan.check import addresses, certificates, files, filters, packets, releases, routing, tunnels, units
from mpquic_plan.check.finding import Certificate, Controller, Finding, Fleet, Host, Result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Certificate", "Controller", "Finding", "Fleet", "Host", "Result", "judge"]

CHECKS: Final[dict[str, tuple[Callable[[Host, Fleet], Iterable[Finding]], ...]]] = {
    releases.CHECK: (releases.same_release_runs, releases.release_is_known, releases.both_ends_run_the_same),
    certificates.CHECK: (
        certificates.ca_is_the_controllers,
        certificates.certificates_last,
        certificates.certificate_is_in_use,
        certificates.revoked_list_is_as_planned,
    ),
    addresses.CHECK: (
        addresses.instances_are_planned,
        addresses.files_name_planned_addresses,
        addresses.loaded_rules_are_the_files,
    ),
    tunnels.HEALTH: (tunnels.host_is_sound,),
    tunnels.HOLD: (tunnels.tunnels_out_of_service, tunnels.masked_units),
    tunnels.CHECK: (tunnels.peers_reply, tunnels.both_ends_agree),
    routing.CHECK: (routing.rules_are_as_planned, routing.routes_are_as_planned),
    filters.CHECK: (filters.loaded_table_is_the_files, filters.no_other_file_has_our_tables),
    packets.CHECK: (packets.packets_pass, packets.packets_leave_by_their_tunnel),
    units.CHECK: (units.units_run_steadily, units.what_runs_comes_back, units.boot_was_lately),
    files.CHECK: (files.files_are_as_written,),
}
"""The checks by their names, in the order of the checklist."""


def judge(host: Host, fleet: Fleet) -> list[Finding]:
    """Return everything that is to be said of a host: for a check without a problem one finding that says so."""
    found: list[Finding] = []
    for name, functions in CHECKS.items():
        findings = list(dict.fromkeys(finding for function in functions for finding in function(host, fleet)))
        if not any(finding.result is Result.PROBLEM and finding.check == name for finding in findings):
            findings.insert(0, Finding(name, Result.OK, "as it should be"))
        found += findings
    return found
