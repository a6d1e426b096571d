"""A fleet of the reference site, and a way to change values of it by their paths."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ROOT = Path(__file__).parents[2]
Hosts = dict[str, dict[str, Any]]


def _put(hosts: Hosts, host: str, path: str, value: Any) -> None:
    """Set the value at a path such as `site.lans[0].address`; an index one past the end appends, `...` deletes."""
    parts = [int(part) if part.isdecimal() else part for part in re.findall(r"[^.\[\]]+", path)]
    holder: Any = hosts.setdefault(host, {})
    for part in parts[:-1]:
        holder = holder[part] if isinstance(part, int) else holder.setdefault(part, {})
    last: Any = parts[-1]
    if value is ...:
        del holder[last]
    elif isinstance(holder, list) and last == len(holder):
        holder.append(copy.deepcopy(value))
    else:
        holder[last] = copy.deepcopy(value)


@pytest.fixture(scope="session")
def inventory() -> Callable[[str], Hosts]:
    """The variables of both hosts of an inventory of the repository."""

    def read(environment: str) -> Hosts:
        folder = ROOT / "inventories" / environment / "group_vars"
        return {
            "site1-client": yaml.safe_load((folder / "site1/site.yml").read_text()),
            "vps1": yaml.safe_load((folder / "vps/vps.yml").read_text()),
        }

    return read


@pytest.fixture
def whole(inventory: Callable[[str], Hosts]) -> Hosts:
    """The reference site with its class tunnels, VLANs, and the tunnel over several WANs."""
    return inventory("prod")


@pytest.fixture
def reference(whole: Hosts) -> Hosts:
    """The reference site as far as each WAN has one tunnel for one LAN."""
    site, vps = whole["site1-client"]["site"], whole["vps1"]["vps"]
    for wan in site["wans"]:
        wan.pop("classes", None)
        wan.pop("class_number", None)
    for lan in site["lans"]:
        lan.pop("vlans", None)
    site.pop("openwrt", None)
    site["tunnels"] = [tunnel for tunnel in site["tunnels"] if "multipath_enabled" not in tunnel]
    vps["listeners"] = [listener for listener in vps["listeners"] if listener["name"].startswith("mpq")]
    return whole


@pytest.fixture(scope="session")
def put() -> Callable[[Hosts, Iterable[tuple[str, str, Any]]], None]:
    """Changes the variables of hosts in place, each change (host, path, value)."""

    def change(hosts: Hosts, changes: Iterable[tuple[str, str, Any]]) -> None:
        for host, path, value in changes:
            _put(hosts, host, path, value)

    return change


@pytest.fixture
def changed(reference: Hosts, put: Callable[..., None]) -> Callable[[Iterable[tuple[str, str, Any]]], Hosts]:
    """The reference fleet after changes."""

    def change(changes: Iterable[tuple[str, str, Any]]) -> Hosts:
        put(reference, changes)
        return reference

    return change
