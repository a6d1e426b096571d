"""Devices that the variables know by the MAC addresses of their cards.

The plan is made before any host is looked at, so such a device is called `match:<mac>` in it, wherever its name stands
(`match:<mac>.21` is a VLAN on it). `resolve` puts the names in.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from mpquic_plan.problem import PlanError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_INTERFACE_NAME: Final = 15
"""IFNAMSIZ of the kernel, less its final zero (include/uapi/linux/if.h)."""

_TOKEN: Final = re.compile(r"match:([0-9a-f]{2}(?::[0-9a-f]{2}){5})")


def token(mac: str) -> str:
    """Return what stands for the name of the device with a MAC address (in lower case)."""
    return f"match:{mac}"


def substitute(text: str, names: Mapping[str, str]) -> str:
    """Return a text with the names of devices, by MAC address, in place of their tokens; others stay."""
    return _TOKEN.sub(lambda found: names.get(found[1], found[0]), text)


def resolve(plan: Mapping[str, Any], present: Mapping[str, str]) -> dict[str, Any]:
    """Return the slice of a host with the names of its devices.

    `present` maps MAC addresses of cards that the host has to their names. A device that isn't there gets the name that
    the variables state, or that of its item. `matches` of the result tell the name that each card is to keep.

    Raises `PlanError` if a name is too long for the kernel, or is that of two links.
    """
    found = {mac.lower(): name for mac, name in present.items()}
    matches: list[dict[str, Any]] = list(plan.get("matches", []))
    names = {entry["mac"]: found.get(entry["mac"], entry["device"]) for entry in matches}
    resolved = {key: _replaced(value, names) for key, value in plan.items()}
    resolved["matches"] = [{**entry, "device": names[entry["mac"]]} for entry in matches]
    problems = sorted({*_too_long(plan, names, matches), *_shared(plan, names, found, matches)})
    if problems:
        raise PlanError(problems)
    return resolved


def _replaced(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return substitute(value, names)
    if isinstance(value, list):
        return [_replaced(item, names) for item in value]
    if isinstance(value, dict):
        return {_replaced(key, names): _replaced(item, names) for key, item in value.items()}
    return value


def _links(plan: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (item, device) of each link of a slice, tokens as they are."""
    for kind in ("management", "trunks", "wans", "lans"):
        for link in plan.get(kind, []):
            yield link["name"], link["device"]
    for tun in plan.get("tuns", []):
        yield f"tunnel {tun['name']}", tun["name"]


def _too_long(plan: Mapping[str, Any], names: Mapping[str, str], matches: list[dict[str, Any]]) -> Iterator[Problem]:
    for item, device in _links(plan):
        name = substitute(device, names)
        entry = _entry(device, matches)
        if entry is not None and len(name) > MAX_INTERFACE_NAME:
            message = (
                f"the interface of {item} would be called '{name}', which has {len(name)} characters; an interface "
                f"name has at most {MAX_INTERFACE_NAME}: state a shorter device for {item}"
            )
            yield Problem(entry["host"], entry["path"], message)


def _shared(
    plan: Mapping[str, Any], names: Mapping[str, str], found: Mapping[str, str], matches: list[dict[str, Any]]
) -> Iterator[Problem]:
    owners: dict[str, tuple[str, str]] = {}
    # Those that the variables name come first, so that the problem is told of one that is matched.
    for item, device in sorted(_links(plan), key=lambda link: _entry(link[1], matches) is not None):
        name = substitute(device, names)
        owner, other = owners.setdefault(name, (item, device))
        if other == device:
            continue
        entry = _entry(device, matches)
        if entry is not None:
            why = f"is called '{name}'" if entry["mac"] in found else f"isn't there and would be called '{name}'"
            message = f"the card {entry['mac']} {why}, which is the interface of {owner}; state another device"
            yield Problem(entry["host"], entry["path"], message)


def _entry(device: str, matches: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the match that a device is of, or on."""
    found = _TOKEN.match(device)
    return next((entry for entry in matches if found and entry["mac"] == found[1]), None)
