#!/usr/bin/python
"""Ansible module: wait until a host works as planned, or say what doesn't."""

from __future__ import annotations

DOCUMENTATION = r"""
module: site_health
short_description: Wait until units, links and tunnels of a host are as planned
description:
  - A client instance must be C(up), or C(inactive) where its WAN can't be used. A server instance must listen. No unit
    of ours may have failed, and links that are ours must be configured. Nothing is changed.
options:
  instances: {description: Names of the instances., type: list, elements: str, required: true}
  links: {description: Links that must be configured., type: list, elements: str, default: []}
  deadline: {description: Seconds., type: int, default: 30}
  mpquicctl: {description: The operator's command., type: path, default: /usr/local/bin/mpquicctl}
"""

RETURN = r"""
tunnels: {description: Rows of mpquicctl status., returned: always, type: list}
problems: {description: Sentences; empty when all is well., returned: always, type: list}
"""

import json
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

SERVICES = ["mpquic-linkd.service", "mpquic-firewall.service", "systemd-networkd.service"]
PAUSE = 0.5


def tunnel_problems(names: list[str], rows: list[dict[str, Any]]) -> list[str]:
    """What is wrong with the instances, given the rows of `mpquicctl status --json`."""
    by_name = {row["name"]: row for row in rows}
    problems = []
    for name in names:
        row = by_name.get(name)
        if row is None:
            problems.append(f"{name} is not among the instances that mpquicctl lists")
        elif row["role"] == "client" and row["state"] not in ("up", "inactive"):
            problems.append(f"{name} is {row['state']} although {row.get('wan') or 'its WAN'} can be used")
        elif row["role"] == "server" and row["state"] in ("inactive", "down"):
            problems.append(f"{name} does not listen")
    return problems


def unit_problems(listing: str) -> list[str]:
    """What is wrong with units, given `systemctl show --property=Id,ActiveState` of several units."""
    problems = []
    for block in listing.strip().split("\n\n"):
        fields = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if fields.get("ActiveState") != "active":
            problems.append(f"{fields.get('Id')} is {fields.get('ActiveState')}")
    return problems


def link_problems(listing: str, names: list[str]) -> list[str]:
    """What is wrong with links, given `networkctl list --no-legend`."""
    states = {fields[1]: fields[4] for fields in (line.split() for line in listing.splitlines()) if len(fields) >= 5}
    return [
        f"link {name} is {states.get(name, 'not there')} for systemd-networkd"
        for name in names
        if states.get(name) != "configured"
    ]


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "instances": {"type": "list", "elements": "str", "required": True},
            "links": {"type": "list", "elements": "str", "default": []},
            "deadline": {"type": "int", "default": 30},
            "mpquicctl": {"type": "path", "default": "/usr/local/bin/mpquicctl"},
        },
        supports_check_mode=True,
    )
    params = module.params

    def look() -> tuple[list[str], list[dict[str, Any]]]:
        units = module.run_command(["systemctl", "show", "--property=Id,ActiveState", *SERVICES])[1]
        failed = module.run_command(["systemctl", "list-units", "--failed", "--plain", "--no-legend", "mpquic*"])[1]
        links = module.run_command(["networkctl", "list", "--no-legend", "--no-pager"])[1]
        problems = unit_problems(units) + link_problems(links, params["links"])
        problems += [f"{line.split()[0]} has failed" for line in failed.splitlines() if line.split()]
        code, out, err = module.run_command([params["mpquicctl"], "status", "--json"])
        if code != 0:
            return [*problems, f"mpquicctl status: {err.strip()}"], []
        rows = json.loads(out)
        return problems + tunnel_problems(params["instances"], rows), rows

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
