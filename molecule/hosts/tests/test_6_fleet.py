"""A fleet's run: who is off or fails is reported and stops nobody else, and nobody is cut off unasked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .conftest import BARE_NODE, REFUSING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mpqlab.testing import Lab

    from .conftest import Site, Variables

    Edit = Callable[[Callable[[Variables], None]], Path]


def with_two_more(variables: Variables) -> None:
    """Two further sites: one is off, one isn't a host that the suite knows."""
    variables.add_site(2, **REFUSING)
    variables.add_site(3, **BARE_NODE)


def rows(output: str) -> dict[str, list[str]]:
    """Words of each row of the table at the end, by host."""
    lines = output.partition("SITES AND VPSES")[2].partition("\n\n")[0].splitlines()[2:]
    return {line.split()[0]: line.split() for line in lines if line.strip()}


def test_who_is_off_or_fails_is_reported_and_stops_no_other(lab: Lab, run_site: Site, edited: Edit) -> None:
    inventory = edited(with_two_more)
    done = run_site(inventory=inventory)
    assert done.status == 4, done.output[-5000:]
    table = rows(done.output)
    assert table["site1-client"][1] in ("ok", "changed")
    assert table["vps1"][1] == "changed"
    assert table["site2-client"][1] == "unreachable"
    assert table["site3-client"][1] == "stopped"
    assert "site3-client: " in done.output.partition("SITES AND VPSES")[2]
    for tunnel in ("mpq4", "mpq5", "mpq6"):
        lab.wait_state(tunnel, "up", within=10)
    assert "fleet" in lab.status("vps")

    # Both would be cut off now by another port, which they can't follow to.
    def moved(variables: Variables) -> None:
        with_two_more(variables)
        variables.vps["listeners"][-1]["port"] = 45017

    refused = run_site(inventory=edited(moved))
    assert refused.status in (2, 4), refused.output[-5000:]
    for site, tunnel in (("site2-client", "site2a"), ("site3-client", "site3a")):
        assert f"{site}: {tunnel}: the port of listener fleet would change from 45010 to 45017" in refused.output
    assert "port: 45010" in lab.run("vps", "cat /etc/mpquic/instances/fleet.yml")
    accepted = run_site(
        "--check", "--limit", "vps1", "-e", "mpquic_cut_off=site2-client,site3-client", inventory=edited(moved)
    )
    assert "would be cut off: site1-client" not in accepted.output
    assert "would be cut off: site2-client" not in accepted.output
    assert any("daemon : Write files" in task for task in accepted.changed), accepted.output[-5000:]


def test_a_run_for_the_vps_alone_does_not_cut_off_the_sites_that_are_not_in_it(
    lab: Lab, run_site: Site, edited: Edit
) -> None:
    def moved(variables: Variables) -> None:
        next(each for each in variables.vps["listeners"] if each["name"] == "mpq5")["port"] = 45055

    done = run_site("--limit", "vps1", inventory=edited(moved))
    assert done.status == 2, done.output[-5000:]
    assert "site1-client: mpq5: the port of listener mpq5 would change from 45005 to 45055" in done.output
    assert lab.state("mpq5") == "up"
