"""Builds the plan of all sites and VPSes of the inventory, once, on the controller."""

from __future__ import annotations

import json
from typing import Any

from ansible import constants
from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

try:
    from mpquic_plan import PlanError, Problem, build_all, validate
    from mpquic_plan.variables import misspelt_anywhere
except ImportError as error:
    IMPORT_ERROR: ImportError | None = error
else:
    IMPORT_ERROR = None


class ActionModule(ActionBase):
    """`mpquic_plan`: the pure library `mpquic_plan` with Ansible's variables."""

    TRANSFERS_FILES = False
    BYPASS_HOST_LOOP = True
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        if IMPORT_ERROR is not None:
            raise AnsibleError(
                f"the Python package mpquic_plan can't be imported ({IMPORT_ERROR}); run ansible-playbook from the "
                "project's virtual environment (make lab makes it)"
            )
        _, arguments = self.validate_argument_spec(
            argument_spec={
                "site_group": {"type": "str", "default": "sites"},
                "vps_group": {"type": "str", "default": "vps"},
                "router_group": {"type": "str", "default": "openwrt"},
                "known_variables": {"type": "list", "elements": "str", "default": []},
            }
        )
        variables = task_vars or {}
        hosts, problems = self._read(variables["hostvars"])
        unreadable = {problem.host for problem in problems}
        groups = variables["groups"]
        for root, group in (("site", arguments["site_group"]), ("vps", arguments["vps_group"])):
            members = [str(host) for host in groups.get(group, [])]
            problems += [
                Problem(host, root, f"is missing; every host of the group '{group}' must have it")
                for host in members
                if host not in unreadable and root not in hosts.get(host, {})
            ]
            problems += [
                Problem(
                    host,
                    root,
                    f"is set, but the host isn't in the group '{group}', so that no play would touch it; "
                    f"put it there, or take {root} away",
                )
                for host, roots in hosts.items()
                if root in roots and host not in members
            ]
        problems += _routers(hosts, {str(host) for host in groups.get(arguments["router_group"], [])}, unreadable)
        names = {str(host): [str(name) for name in of_host] for host, of_host in variables["hostvars"].items()}
        problems += misspelt_anywhere(names, arguments["known_variables"])
        if not problems:
            try:
                # The result of a fleet is hundreds of lines: -v shows what is done, -vvv also with what.
                plan = build_all(hosts)._asdict()
            except PlanError as error:
                problems = list(error.problems)
            else:
                return {**result, "changed": False, **plan, "_ansible_verbose_override": True}
        else:
            problems = sorted({*problems, *validate(hosts, unreadable)})
        count = f"{len(problems)} problems" if len(problems) > 1 else "1 problem"
        # Ansible shows the text of a failure twice and each key of the result once more.
        lines = [f"{count} in the variables; no host was touched:", *map(str, problems)]
        self._display.display("\n".join(lines), color=constants.COLOR_ERROR)
        return {**result, "failed": True, "msg": f"{count} in the variables; see above"}

    @staticmethod
    def _read(hostvars: Any) -> tuple[dict[str, dict[str, Any]], list[Problem]]:
        """Return each host's `site` and `vps` as plain data, and a problem for each that can't be read."""
        hosts: dict[str, dict[str, Any]] = {}
        problems: list[Problem] = []
        for host in sorted(hostvars):
            of_host = hostvars[host]
            for root in ("site", "vps"):
                if root not in of_host:
                    continue
                try:
                    # Plain data: Ansible's strings carry tags that neither the library nor a YAML dump knows.
                    plain = json.loads(json.dumps(of_host[root], default=str))
                except AnsibleError as error:
                    problems.append(Problem(str(host), root, f"can't be templated: {error.message}"))
                else:
                    hosts.setdefault(str(host), {})[root] = plain
        return hosts, problems


def _routers(hosts: dict[str, dict[str, Any]], members: set[str], unreadable: set[str]) -> list[Problem]:
    """Routers that sites name and the inventory doesn't have, and those that it has for no site."""
    named: dict[str, str] = {}
    for host, roots in hosts.items():
        site = roots.get("site")
        router = site.get("openwrt") if isinstance(site, dict) else None
        if isinstance(router, dict) and isinstance(router.get("host"), str):
            named[router["host"]] = host
    problems = [
        Problem(
            host,
            "site.openwrt.host",
            f"the inventory has no host {name} in the group 'openwrt'; add it there, or take site.openwrt away",
        )
        for name, host in named.items()
        if name not in members
    ]
    # Whoever can't be read may name it.
    return problems + [
        Problem(
            name,
            "openwrt",
            "is in the group 'openwrt', and no site names it; state it as site.openwrt.host, or take it away",
        )
        for name in sorted(members - named.keys())
        if not unreadable
    ]
