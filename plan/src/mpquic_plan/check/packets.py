"""A packet of each LAN leaves by the right tunnel, and its reply comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpquic_plan.check.finding import Finding, Result, problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mpquic_plan.check.finding import Fleet, Host

CHECK = "packets"


def packets_pass(host: Host, _fleet: Fleet) -> Iterator[Finding]:
    """Yield passages that were tried and don't work, and those that couldn't be tried."""
    found = host.forwarding
    if "passed" not in found:
        reason = found.get("msg", "no reason given")
        yield problem(
            CHECK, f"no packet could be tried: {reason}", "run ansible-playbook with -vvv for the module's error"
        )
        return
    for text in found.get("problems", []):
        yield problem(
            CHECK, str(text), "mpquicctl status; ip route get DESTINATION from SOURCE iif DEVICE; nft list ruleset"
        )
    for text in [*found.get("idle", []), *found.get("untried", [])]:
        yield Finding(CHECK, Result.SKIPPED, str(text))


def packets_leave_by_their_tunnel(host: Host, _fleet: Fleet) -> Iterator[Finding]:
    """Yield LANs of a client whose packets left by something else although their tunnel is up."""
    if not host.is_client:
        return
    first: dict[str, str] = {}
    for pair in host.plan["firewall"]["forward"]:
        first.setdefault(pair["from"], pair["to"])
    for passage in host.forwarding.get("passed", []):
        enters, _, leaves = str(passage).partition(" to ")
        wanted = first.get(enters, leaves)
        if leaves != wanted and host.rows.get(wanted, {}).get("state") == "up":
            text = f"packets of {enters} leave by {leaves} although {wanted} is up"
            yield problem(CHECK, text, f"ip route show table all dev {wanted}; run site.yml")
