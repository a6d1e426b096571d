"""The way in: validate the variables of all hosts, build the plan of all hosts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from mpquic_plan import checks
from mpquic_plan.client import client_slice
from mpquic_plan.openwrt import router_slice
from mpquic_plan.parse import read_fleet
from mpquic_plan.problem import PlanError, Problem
from mpquic_plan.vps import vps_slice

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


class Slices(NamedTuple):
    """Slices by inventory name: of clients and VPSes, and of OpenWrt routers."""

    hosts: dict[str, dict[str, Any]]
    routers: dict[str, dict[str, Any]]


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
    return build_all(hosts).hosts


def build_all(hosts: Mapping[str, Mapping[str, Any]]) -> Slices:
    """Return what `build` does, and the slices of the OpenWrt routers that sites name.

    Raises `PlanError` with every problem if there is one.
    """
    fleet, problems = read_fleet(hosts)
    found = sorted({*problems, *checks.run(fleet)})
    if found:
        raise PlanError(found)
    plan: dict[str, dict[str, Any]] = {}
    routers: dict[str, dict[str, Any]] = {}
    for vps in fleet.vpses.values():
        sites = fleet.sites_of(vps)
        plan[vps.host] = vps_slice(vps, sites)
        plan |= {site.host: client_slice(site, vps) for site in sites}
        routers |= {site.router.host: router_slice(site, site.router, vps) for site in sites if site.router is not None}
    return Slices(dict(sorted(plan.items())), routers)
