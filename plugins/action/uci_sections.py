"""Brings the sections of an OpenWrt router that are ours to what they are to be, by its shell and `uci` alone."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.plugins.connection import ConnectionBase
from mpquic_plan.openwrt import uci

FORM = ("package.section, such as mwan3.default_rule_v4", 2)


class ActionModule(ActionBase):
    """`uci_sections`: the pure comparison of `mpquic_plan.openwrt.uci`, and the scripts of the role."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(
            argument_spec={
                "packages": {"type": "dict", "required": True},
                "take_over": {"type": "list", "elements": "str", "default": []},
                "confirm_s": {"type": "int", "default": 60},
            }
        )
        # Plain data: Ansible's strings carry tags.
        packages = json.loads(json.dumps(arguments["packages"], default=str))
        wanted = {package: [uci.section(item) for item in sections] for package, sections in packages.items()}
        given_up = self._given_up(arguments["take_over"], wanted)

        present = self._read(list(wanted))
        commands = {
            package: [
                *(f"delete {name}" for name in sorted(given_up) if _has(present[package], package, name)),
                *uci.changes(package, present[package], sections),
            ]
            for package, sections in wanted.items()
        }
        self._stand_in_the_way(present, wanted, given_up)
        changed = [package for package, lines in commands.items() if lines]
        lines = [line for package in changed for line in commands[package]]
        result |= {"changed": bool(changed), "commands": lines, "reloaded": []}
        if self._task.diff:
            result["diff"] = [_difference(package, present[package], wanted[package]) for package in changed]
        if not changed or self._task.check_mode:
            return result

        self._script(
            "apply.sh", packages=" ".join(changed), batch="\n".join(lines), confirm=str(arguments["confirm_s"])
        )
        # The connection that is open may outlive the way by which a new one would come.
        if type(self._connection).reset is not ConnectionBase.reset:
            self._connection.reset()
        self._script("confirm.sh")
        left = self._read(changed)
        rest = [line for package in changed for line in uci.changes(package, left[package], wanted[package])]
        if rest:
            raise AnsibleActionFail("the router didn't keep what it was given; it still lacks: " + "; ".join(rest))
        result["reloaded"] = changed
        return result

    @staticmethod
    def _given_up(names: list[str], packages: dict[str, Any]) -> set[str]:
        form, parts = FORM
        for name in names:
            package, _, section = name.partition(".")
            if len(name.split(".")) != parts or package not in packages or not section.isidentifier():
                raise AnsibleActionFail(
                    f"take_over: '{name}' isn't of the form {form}, of a package among {', '.join(packages)}; an "
                    "anonymous section has to be deleted by hand (uci delete, uci commit)"
                )
        return set(names)

    def _read(self, packages: list[str]) -> dict[str, list[uci.Section]]:
        text = self._script("read.sh", packages=" ".join(packages))
        try:
            found = uci.parse(text)
        except uci.UciError as error:
            raise AnsibleActionFail(f"the router's configuration can't be read: {error}; see uci export") from error
        return {package: found.get(package, []) for package in packages}

    def _stand_in_the_way(
        self,
        present: dict[str, list[uci.Section]],
        wanted: dict[str, list[uci.Section]],
        given_up: set[str],
    ) -> None:
        lines = [
            f"{name}: {why}"
            for package, sections in wanted.items()
            if sections
            for name, why in uci.obstacles(package, present[package], sections)
            if name not in given_up
        ]
        if lines:
            names = ", ".join(line.partition(":")[0] for line in lines)
            raise AnsibleActionFail(
                "sections of somebody else stand in the way, and nothing was changed: "
                + "; ".join(lines)
                + f". Delete or change them on the router, or have the run delete them: openwrt_take_over: [{names}]"
            )

    def _script(self, name: str, **variables: str) -> str:
        """Run a script of the role on the router, with variables, and return what it prints."""
        script = Path(self._find_needle("files", name)).read_text(encoding="utf-8")
        text = "".join(f"{key}={shlex.quote(value)}\n" for key, value in variables.items()) + script
        done = self._low_level_execute_command("sh -s", in_data=text.encode(), sudoable=False, executable="/bin/sh")
        if done["rc"]:
            said = " ".join(str(done.get("stderr") or done.get("stdout") or f"exit status {done['rc']}").split())
            raise AnsibleActionFail(said)
        return str(done["stdout"])


def _has(sections: list[uci.Section], package: str, name: str) -> bool:
    return any(f"{package}.{each.name}" == name for each in sections)


def _difference(package: str, present: list[uci.Section], wanted: list[uci.Section]) -> dict[str, str]:
    return {
        "before_header": f"{package}: what is ours on the router",
        "after_header": f"{package}: what is to be ours",
        "before": uci.text(package, (each for each in present if each.ours)),
        "after": uci.text(package, wanted),
    }
