"""Files of ours are as the roles would write them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpquic_plan.check.finding import Finding, problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mpquic_plan.check.finding import Fleet, Host

CHECK = "files"


def files_are_as_written(host: Host, _fleet: Fleet) -> Iterator[Finding]:
    """Yield files that a run of site.yml would write, mend or remove."""
    for path, what in sorted(host.files.items()):
        yield problem(
            CHECK, f"{path} {what}", "ansible-playbook site.yml --check --diff shows it, without --check mends it"
        )
