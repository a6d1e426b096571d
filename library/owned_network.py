#!/usr/bin/python
"""Ansible module: no virtual link, rule or route of ours that the plan doesn't name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: owned_network
short_description: Delete our links, routing rules and routes that are no longer wanted
description:
  - systemd-networkd is told to leave foreign rules and routes alone, so after a change that came with its restart it
    also leaves our own old ones. This module lists what lies in our ranges and deletes what is not named.
  - A link is ours when it is a TUN device owned by I(link_owner), or is in the interface group I(link_group). One that
    is named but has other properties is deleted too, for systemd-networkd never changes those of an existing link.
options:
  links:
    description: Virtual links that stay, each with C(name) and the C(kind) and C(properties) to compare. Left out,
      links are not looked at.
    type: list
    elements: dict
  link_owner: {description: User that owns our TUN devices., type: str, default: mpquic}
  link_group: {description: Interface group of our virtual links., type: int}
  priorities: {description: First and last priority of each range of our rules., type: list, elements: list}
  rules:
    description: >-
      Rules that stay, each with C(priority) and C(table), and where they have it C(from), C(to), C(iif), C(oif),
      C(fwmark) with C(fwmask), C(family).
    type: list
    elements: dict
    default: []
  tables: {description: First and last number of each range of our routing tables., type: list, elements: list}
  boot_devices:
    description:
      - Devices on which the main table keeps no gateway that a script has set (protocol boot).
    type: list
    elements: str
    default: []
  default_devices:
    description:
      - Devices by which the main table keeps no default route of a script or a DHCP client (protocols boot and dhcp),
        as ours brings it to another table, or there is none of ours.
    type: list
    elements: str
    default: []
  routes:
    description: Devices whose routes may be in a table, by table number. Routes without a device stay in such a table.
    type: dict
    default: {}
"""

RETURN = r"""
deleted: {description: What was deleted, as arguments of ip(8)., returned: always, type: list}
"""

import ipaddress
import json
from typing import Any

from ansible.module_utils.basic import AnsibleModule

# RTPROT_BOOT of linux/rtnetlink.h, what ip(8) sets when it isn't told and then doesn't show; RTPROT_DHCP.
BOOT = "3"
DHCP = "16"
# `ip -N` shows a route's type as in linux/rtnetlink.h, and takes no number for one.
ROUTE_TYPES = {"6": "blackhole", "7": "unreachable", "8": "prohibit", "9": "throw"}
FAMILIES = {"-4": "ipv4", "-6": "ipv6"}
GONE = ("No such process", "Cannot find device", "No such file or directory", "No such device")


def our_links(links: list[dict[str, Any]], owner: str, group: int | None) -> dict[str, dict[str, Any]]:
    """Links of `ip -d -j link` that are ours, by name."""
    result = {}
    for link in links:
        info = link.get("linkinfo", {})
        data = info.get("info_data", {})
        is_our_tun = info.get("info_kind") == "tun" and data.get("user") == owner
        in_our_group = group is not None and bool(info.get("info_kind")) and str(link.get("group")) == str(group)
        if is_our_tun or in_our_group:
            result[link["ifname"]] = {"kind": info.get("info_kind"), "link": link.get("link"), **data}
    return result


def surplus_links(
    present: list[dict[str, Any]], wanted: list[dict[str, Any]], owner: str, group: int | None
) -> list[str]:
    """Names of links to delete: ours and not wanted, or with another kind or property than wanted."""
    by_name = {link["name"]: link for link in wanted}
    result = []
    for name, found in our_links(present, owner, group).items():
        want = by_name.get(name)
        if want is None:
            result.append(name)
            continue
        properties = {"kind": want["kind"], **want.get("properties", {})}
        if any(found.get(key) != value for key, value in properties.items()):
            result.append(name)
    return sorted(result)


def within(number: int, ranges: list[list[int]]) -> bool:
    """Whether a number lies in one of the ranges, ends included."""
    return any(first <= number <= last for first, last in ranges)


def selector(rule: dict[str, Any], name: str, ip_name: str) -> str:
    """A prefix of a rule as the plan or as `ip -json` writes it, in one form; empty when it selects all."""
    if rule.get(name):
        return str(ipaddress.ip_network(rule[name], strict=False))
    address = rule.get(ip_name)
    if not address or address == "all":
        return ""
    length = rule.get(f"{ip_name}len")
    return str(ipaddress.ip_network(address if length is None else f"{address}/{length}"))


def rule_key(rule: dict[str, Any]) -> tuple[object, ...]:
    """What tells our rules apart: priority, table, prefixes, devices, mark."""
    return (
        int(rule["priority"]),
        int(rule.get("table") or 0),
        selector(rule, "from", "src"),
        selector(rule, "to", "dst"),
        str(rule.get("iif") or ""),
        str(rule.get("oif") or ""),
        *mark(rule),
    )


def mark(rule: dict[str, Any]) -> tuple[int, int]:
    """Mark and mask of a rule; `ip -json` leaves out a mask of all bits, and the mark of a rule that has none."""
    value = int(str(rule.get("fwmark") or 0), 0)
    return value, int(str(rule.get("fwmask") or (0xFFFFFFFF if value else 0)), 0)


def surplus_rules(
    present: list[dict[str, Any]], wanted: list[dict[str, Any]], priorities: list[list[int]]
) -> list[list[str]]:
    """Arguments of `ip rule del` for each rule in our ranges of priorities that is not wanted."""
    keep = {rule_key(rule) for rule in wanted}
    result = []
    for rule in present:
        if not within(int(rule["priority"]), priorities) or rule_key(rule) in keep:
            continue
        words = ["priority", str(rule["priority"])]
        for word, prefix in (("from", selector(rule, "from", "src")), ("to", selector(rule, "to", "dst"))):
            words += [word, prefix] if prefix else []
        for name in ("iif", "oif"):
            words += [name, str(rule[name])] if rule.get(name) else []
        value, mask = mark(rule)
        words += ["fwmark", f"{value:#x}/{mask:#x}"] if mask else []
        if rule.get("table"):
            words += ["lookup", str(rule["table"])]
        result.append(words)
    return result


def surplus_routes(
    present: list[dict[str, Any]], wanted: dict[str, list[str]], tables: list[list[int]]
) -> list[list[str]]:
    """Arguments of `ip route del` for each route in our ranges of tables whose table or device is not wanted."""
    result = []
    for route in present:
        table = str(route.get("table", "main"))
        if not table.isdigit() or not within(int(table), tables):
            continue
        device = route.get("dev")
        kind = str(route.get("type", "unicast"))
        if table in wanted and (kind != "unicast" or not device or device in wanted[table]):
            continue
        words = [] if kind == "unicast" else [ROUTE_TYPES.get(kind, kind)]
        words.append(str(route["dst"]))
        if device:
            words += ["dev", str(device)]
        words += ["table", table]
        if "metric" in route:
            words += ["metric", str(route["metric"])]
        result.append(words)
    return result


def boot_routes(present: list[dict[str, Any]], devices: list[str]) -> list[list[str]]:
    """Arguments of `ip route del` for each gateway on these devices that a script has set."""
    return [
        deletion(route, BOOT)
        for route in present
        if route.get("dev") in devices and "gateway" in route and str(route.get("protocol", BOOT)) == BOOT
    ]


def foreign_defaults(present: list[dict[str, Any]], devices: list[str]) -> list[list[str]]:
    """Arguments of `ip route del` for each default route by these devices of a script or a DHCP client."""
    return [
        deletion(route, protocol)
        for route in present
        if route["dst"] == "default" and route.get("dev") in devices
        if (protocol := str(route.get("protocol", BOOT))) in (BOOT, DHCP)
    ]


def deletion(route: dict[str, Any], protocol: str) -> list[str]:
    """Arguments of `ip route del` for a route of the main table."""
    gateway = ["via", str(route["gateway"])] if "gateway" in route else []
    return [str(route["dst"]), *gateway, "dev", str(route["dev"]), "proto", protocol]


class Ip:
    """The ip command of the host."""

    def __init__(self, module: AnsibleModule) -> None:
        self._module = module
        self._path = module.get_bin_path("ip", required=True)

    def show(self, *words: str) -> list[dict[str, Any]]:
        """Objects of a listing; an empty listing and a table that doesn't exist give none."""
        code, out, err = self._module.run_command([self._path, "-json", "-N", *words])
        if code != 0:
            if "FIB table does not exist" in err:
                return []
            self._module.fail_json(msg=f"ip {' '.join(words)}: {err.strip()}")
        return [entry for entry in json.loads(out or "[]") if entry]

    def delete(self, *words: str) -> None:
        """Delete one object; that it has gone meanwhile is no error."""
        code, _, err = self._module.run_command([self._path, *words])
        if code != 0 and not any(text in err for text in GONE):
            self._module.fail_json(msg=f"ip {' '.join(words)}: {err.strip()}")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "links": {"type": "list", "elements": "dict"},
            "link_owner": {"type": "str", "default": "mpquic"},
            "link_group": {"type": "int"},
            "priorities": {"type": "list", "elements": "list"},
            "rules": {"type": "list", "elements": "dict", "default": []},
            "tables": {"type": "list", "elements": "list"},
            "boot_devices": {"type": "list", "elements": "str", "default": []},
            "default_devices": {"type": "list", "elements": "str", "default": []},
            "routes": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    params = module.params
    ip = Ip(module)
    doomed: list[list[str]] = []
    if params["links"] is not None:
        # Owners are shown by name only without -N, which has no meaning for links otherwise.
        code, out, err = module.run_command([ip._path, "-json", "-details", "link", "show"])
        if code != 0:
            module.fail_json(msg=f"ip link show: {err.strip()}")
        present = [entry for entry in json.loads(out or "[]") if entry]
        names = surplus_links(present, params["links"], params["link_owner"], params["link_group"])
        doomed += [["link", "delete", "dev", name] for name in names]
    for family in FAMILIES:
        if params["priorities"]:
            wanted_rules = [
                rule for rule in params["rules"] if rule.get("family", "both") in ("both", FAMILIES[family])
            ]
            rules = surplus_rules(ip.show(family, "rule", "show"), wanted_rules, params["priorities"])
            doomed += [[family, "rule", "del", *words] for words in rules]
        if params["tables"]:
            listing = ip.show(family, "route", "show", "table", "all")
            wanted = {str(table): devices for table, devices in params["routes"].items()}
            doomed += [[family, "route", "del", *words] for words in surplus_routes(listing, wanted, params["tables"])]
    if params["boot_devices"] or params["default_devices"]:
        listing = ip.show("-4", "route", "show", "table", "main")
        routes = boot_routes(listing, params["boot_devices"])
        routes += [words for words in foreign_defaults(listing, params["default_devices"]) if words not in routes]
        doomed += [["-4", "route", "del", *words] for words in routes]
    if not module.check_mode:
        for words in doomed:
            ip.delete(*words)
    shown = [" ".join(words) for words in doomed]
    result: dict[str, Any] = {"changed": bool(doomed), "deleted": shown}
    if module._diff and doomed:
        result["diff"] = {"before": "".join(f"{line}\n" for line in shown), "after": ""}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
