#!/usr/bin/python
"""Ansible module: wait until a host works as planned, or say what doesn't."""

from __future__ import annotations

DOCUMENTATION = r"""
module: site_health
short_description: Wait until units, links, kernel parameters, rules and tunnels of a host are as planned
description:
  - A client instance must be C(up), or C(inactive) where its WAN can't be used. A server instance must listen. No unit
    of ours may have failed or be masked, and links that are ours must be configured, by files of ours.
  - What is out of service on purpose (C(held)) is as it should be, whether by the variables, by a command or by a mask.
  - The kernel must forward, must not drop by rp_filter at WANs and TUNs, and must have our packet filter and
    the guard's table loaded.
  - Nothing is changed.
options:
  instances: {description: Names of the instances., type: list, elements: str, required: true}
  ports: {description: UDP ports of each server instance., type: dict, default: {}}
  links: {description: Links that must be configured., type: list, elements: str, default: []}
  wans:
    description: Links that may be absent. Our files must have those that are there.
    type: list
    elements: str
    default: []
  tuns: {description: TUN devices., type: list, elements: str, default: []}
  hooks: {description: Base chains that our table must have., type: list, elements: str, default: []}
  deadline: {description: Seconds., type: int, default: 30}
  mpquicctl: {description: The operator's command., type: path, default: /usr/local/bin/mpquicctl}
"""

RETURN = r"""
tunnels: {description: Rows of mpquicctl status., returned: always, type: list}
problems: {description: Sentences; empty when all is well., returned: always, type: list}
"""

import json
import re
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

OUR_FILE = re.compile(r"\d\d-mpquic-")
FORWARDING = {"net/ipv4/ip_forward": "IPv4", "net/ipv6/conf/all/forwarding": "IPv6"}
SERVICES = [
    "mpquic-linkd.service",
    "mpquic-guard.service",
    "mpquic-firewall.service",
    "mpquic-sysctl.service",
    "mpquic-forwarding.service",
    "systemd-networkd.service",
]
WANTED = Path("/etc/mpquic/guard.json")
HELD = "held"
PAUSE = 0.5


def holders(listing: str, ports: list[int]) -> list[str]:
    """Who has UDP ports, given `ss -Hulnp`: sentences."""
    found = []
    for line in listing.splitlines():
        fields = line.split(None, 5)
        port = fields[3].rpartition(":")[2] if len(fields) > 4 else ""
        if port.isdecimal() and int(port) in ports:
            users = [f"{name} (process {pid})" for name, pid in re.findall(r'\("([^"]*)",pid=(\d+)', line)]
            found.append(f"UDP port {port} is taken by {' and '.join(users) or 'the kernel or another container'}")
    return list(dict.fromkeys(found))


def tunnel_problems(
    names: list[str], rows: list[dict[str, Any]], ports: dict[str, list[int]] | None = None, sockets: str = ""
) -> list[str]:
    """What is wrong with the instances, given the rows of `mpquicctl status --json` and what `ss -Hulnp` lists."""
    by_name = {row["name"]: row for row in rows}
    problems = []
    for name in names:
        row = by_name.get(name)
        if row is None:
            problems.append(f"{name} is not among the instances that mpquicctl lists")
        elif row["state"] == HELD:
            continue
        elif row["role"] == "client" and row["state"] not in ("up", "inactive"):
            why = f": {row['error']}" if row.get("error") else ""
            problems.append(f"{name} is {row['state']} although {row.get('wan') or 'its WAN'} can be used{why}")
        elif row["role"] == "server" and row["state"] in ("inactive", "down"):
            taken = holders(sockets, (ports or {}).get(name, []))
            why = "; ".join(taken) or row.get("error") or f"see journalctl -u mpquic@{name}"
            problems.append(f"{name} does not listen: {why}")
    return problems


def unit_problems(listing: str) -> list[str]:
    """What is wrong with units, given `systemctl show --property=Id,LoadState,ActiveState` of several units."""
    problems = []
    for block in listing.strip().split("\n\n"):
        fields = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        name, state = fields.get("Id"), fields.get("ActiveState")
        if fields.get("LoadState") == "masked":
            problems.append(
                f"{name} is masked and {state}: somebody has taken it out of service, and no tunnel works without it; "
                f"systemctl unmask {name}, then run site.yml again"
            )
        elif state != "active":
            problems.append(f"{name} is {state}")
    return problems


def failed_units(listing: str, rows: list[dict[str, Any]]) -> list[str]:
    """Units of ours that have failed, given `systemctl list-units --failed`; instances that are held don't count.

    Nor do masked units: systemd ignores their watchdog notifications, and kills a process that still runs.
    """
    held = {f"mpquic@{row['name']}.service" for row in rows if row.get("state") == HELD}
    units = [fields[:2] for fields in (line.split() for line in listing.splitlines()) if len(fields) > 1]
    return [f"{name} has failed" for name, loaded in units if loaded != "masked" and name not in held]


def watcher_problems(status_text: str) -> list[str]:
    """What the link watcher says that it can't do, given `systemctl show --property=StatusText --value` of its unit."""
    return [f"mpquic-linkd.service: {text}"] if (text := status_text.strip()) else []


def link_problems(listing: str, names: list[str]) -> list[str]:
    """What is wrong with links, given `networkctl list --no-legend`."""
    states = {fields[1]: fields[4] for fields in (line.split() for line in listing.splitlines()) if len(fields) >= 5}
    return [
        f"link {name} is {states.get(name, 'not there')} for systemd-networkd"
        for name in names
        if states.get(name) != "configured"
    ]


def file_problems(listing: dict[str, Any], names: list[str]) -> list[str]:
    """Links that another `.network` file than ours has taken, given `networkctl --json=short list`."""
    files = {link["Name"]: link.get("NetworkFile") for link in listing["Interfaces"]}
    return [
        f"link {name} is configured by {files[name] or 'no file'}, not by ours: remove what matches it there"
        for name in names
        if name in files and not OUR_FILE.match(Path(files[name] or "").name)
    ]


def filter_problems(listing: dict[str, Any], hooks: list[str]) -> list[str]:
    """What is missing of our packet filter, given `nft --json list chains`."""
    chains = [entry["chain"] for entry in listing["nftables"] if "chain" in entry]
    ours = {
        chain.get("hook"): chain.get("policy")
        for chain in chains
        if (chain["family"], chain["table"]) == ("inet", "mpquic")
    }
    remedy = "systemctl reload mpquic-firewall loads it"
    if not ours:
        return [f"table inet mpquic isn't loaded: {remedy}"]
    missing = [f"table inet mpquic has no chain at the hook {hook}: {remedy}" for hook in hooks if hook not in ours]
    open_ = [hook for hook in ("input", "forward") if ours.get(hook, "drop") != "drop"]
    return missing + [f"table inet mpquic has policy {ours[hook]} at the hook {hook}: {remedy}" for hook in open_]


def barrier_problems(listing: dict[str, Any], wanted: str) -> list[str]:
    """Whether the guard's own table is missing, given `nft --json list chains` and what the guard wants (its JSON)."""
    if not json.loads(wanted or "{}").get("masqueraded"):
        return []
    if any("chain" in entry and entry["chain"]["table"] == "mpquic_guard" for entry in listing["nftables"]):
        return []
    risk = "a flush of the packet filter would let packets leave with inner addresses"
    return [f"table inet mpquic_guard is missing, so {risk}: journalctl -u mpquic-guard says why"]


def parameter_problems(root: Path, devices: list[str]) -> list[str]:
    """Kernel parameters below `root` (/proc/sys) that keep packets from being forwarded or received."""

    def read(name: str) -> str:
        path = root / name
        return path.read_text().strip() if path.is_file() else ""

    problems = [f"{family} isn't forwarded: {name} is 0" for name, family in FORWARDING.items() if read(name) == "0"]
    for device in devices:
        # The kernel takes the stricter of both.
        names = [f"net/ipv4/conf/{each}/rp_filter" for each in ("all", device)]
        if read(names[1]):
            problems += [f"{device} drops what comes in: {name} is {read(name)}" for name in names if read(name) != "0"]
    return list(dict.fromkeys(problems))


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "instances": {"type": "list", "elements": "str", "required": True},
            "ports": {"type": "dict", "default": {}},
            "links": {"type": "list", "elements": "str", "default": []},
            "wans": {"type": "list", "elements": "str", "default": []},
            "tuns": {"type": "list", "elements": "str", "default": []},
            "hooks": {"type": "list", "elements": "str", "default": []},
            "deadline": {"type": "int", "default": 30},
            "mpquicctl": {"type": "path", "default": "/usr/local/bin/mpquicctl"},
        },
        supports_check_mode=True,
    )
    params = module.params

    def look() -> tuple[list[str], list[dict[str, Any]]]:
        units = module.run_command(["systemctl", "show", "--property=Id,LoadState,ActiveState", *SERVICES])[1]
        failed = module.run_command(["systemctl", "list-units", "--failed", "--plain", "--no-legend", "mpquic*"])[1]
        links = module.run_command(["networkctl", "list", "--no-legend", "--no-pager"])[1]
        problems = unit_problems(units) + link_problems(links, params["links"])
        said = module.run_command(["systemctl", "show", "--property=StatusText", "--value", "mpquic-linkd.service"])[1]
        problems += watcher_problems(said)
        shown = module.run_command(["networkctl", "--json=short", "list"])[1]
        problems += file_problems(json.loads(shown or '{"Interfaces": []}'), [*params["links"], *params["wans"]])
        if params["hooks"]:
            chains = module.run_command(["nft", "--json", "list", "chains"])[1]
            listing = json.loads(chains or '{"nftables": []}')
            problems += filter_problems(listing, params["hooks"])
            problems += barrier_problems(listing, WANTED.read_text() if WANTED.is_file() else "")
        problems += parameter_problems(Path("/proc/sys"), [*params["wans"], *params["tuns"]])
        code, out, err = module.run_command([params["mpquicctl"], "status", "--json"])
        if code != 0:
            return [*problems, *failed_units(failed, []), f"mpquicctl status: {err.strip()}"], []
        rows = json.loads(out)
        problems += failed_units(failed, rows)
        sockets = module.run_command(["ss", "-Hulnp"])[1] if params["ports"] else ""
        return problems + tunnel_problems(params["instances"], rows, params["ports"], sockets), rows

    limit = time.monotonic() + params["deadline"]
    problems, rows = look()
    while problems and time.monotonic() < limit:
        time.sleep(PAUSE)
        problems, rows = look()
    if problems:
        module.fail_json(msg="; ".join(problems), problems=problems, tunnels=rows)
    module.exit_json(changed=False, problems=[], tunnels=rows)


if __name__ == "__main__":
    main()
