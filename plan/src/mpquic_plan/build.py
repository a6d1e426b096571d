"""The way in: validate the variables of all hosts, build the plan of all hosts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mpquic_plan import checks
from mpquic_plan.client import client_slice
from mpquic_plan.openwrt import router_slice
from mpquic_plan.parse import read_fleet
from mpquic_plan.problem import PlanError, Problem
from mpquic_plan.vps import vps_slice

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from mpquic_plan.model import Fleet


def validate(hosts: Mapping[str, Mapping[str, Any]], unreadable: Collection[str] = ()) -> list[Problem]:
    """Return everything that is wrong; `hosts` maps inventory hosts to `{'site': ...}` or `{'vps': ...}`.

    `unreadable` are hosts whose variables the caller couldn't read: nobody is told that they are missing.
    """
    fleet, problems = read_fleet(hosts)
    fleet = replace(fleet, unreadable=fleet.unreadable | frozenset(unreadable))
    return sorted({*problems, *checks.run(fleet)})


def build(hosts: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the plan: a slice of plain data (as JSON has it) for each host that has `site` or `vps`.

    Raises `PlanError` with every problem if there is one.
    """
    fleet = _sound_fleet(hosts)
    plan = {}
    for vps in fleet.vpses.values():
        sites = fleet.sites_of(vps)
        plan[vps.host] = vps_slice(vps, sites)
        plan |= {site.host: client_slice(site, vps) for site in sites}
    return dict(sorted(plan.items()))


def build_routers(hosts: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the slice of each OpenWrt router that a site names, by its inventory name.

    Raises `PlanError` as `build` does.
    """
    fleet = _sound_fleet(hosts)
    return {
        site.router.host: router_slice(site, site.router, vps)
        for vps in fleet.vpses.values()
        for site in fleet.sites_of(vps)
        if site.router is not None
    }


def _sound_fleet(hosts: Mapping[str, Mapping[str, Any]]) -> Fleet:
    fleet, problems = read_fleet(hosts)
    found = sorted({*problems, *checks.run(fleet)})
    if found:
        raise PlanError(found)
    return fleet
