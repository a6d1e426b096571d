"""Stops a run whose part on a VPS would cut off a site that can't follow, before anything is touched."""

from __future__ import annotations

import json
from typing import Any

import yaml
from ansible.plugins.action import ActionBase
from cryptography import x509
from mpquic_plan.preflight.cut_off import cut_off, moves, served


class ActionModule(ActionBase):
    """`mpquic_cut_off`: the pure comparison with Ansible's variables."""

    TRANSFERS_FILES = False
    BYPASS_HOST_LOOP = True
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(
            argument_spec={
                "plan": {"type": "dict", "required": True},
                "hosts": {"type": "list", "elements": "str", "required": True},
                "accept": {"type": "list", "elements": "str", "default": []},
                "renumber": {"type": "list", "elements": "str", "default": []},
            }
        )
        plan = json.loads(json.dumps(arguments["plan"], default=str))
        hostvars = (task_vars or {})["hostvars"]
        present, accepted = set(arguments["hosts"]), {host.strip() for host in arguments["accept"]}
        renumber = {listener.strip() for listener in arguments["renumber"]}
        lines, moved = [], []
        for name in sorted(present):
            if plan[name]["role"] != "vps":
                continue
            absent = {
                host: slice_
                for host, slice_ in plan.items()
                if slice_["role"] == "client" and slice_["vps"] == name and host not in present
            }
            survey = json.loads(json.dumps(hostvars[name]["mpquic_survey"]["survey"], default=str))
            now = served([config for text in survey["instances"].values() if isinstance(config := _load(text), dict)])
            planned = served([instance["config"] for instance in plan[name]["instances"]])
            moved += [str(each) for each in moves(now, planned) if not {each.listener, "all"} & renumber]
            found = cut_off(
                now,
                planned,
                _names(survey["pki"]["certificate"]),
                [entry.removeprefix("DNS:") for entry in plan[name]["pki"]["subject_alt_names"]],
                absent,
            )
            lines += [str(each) for each in found if not {each.host, "all"} & accepted]
        if lines:
            return _stopped(
                result,
                "sites that aren't in this run or weren't reached would be cut off; nothing was changed",
                *(f"would be cut off: {line}" for line in lines),
                "bring them into the run, or take the change back; mpquic_cut_off=HOST,... (or all) cuts them off",
            )
        if moved:
            return _stopped(
                result,
                "inner addresses of several sites would move; nothing was changed",
                *(f"would move: {line}" for line in moved),
                "their tunnels would be down until the sites' part is through; mpquic_renumber=LISTENER,... moves them",
            )
        return {**result, "changed": False}


def _stopped(result: dict[str, Any], why: str, *problems: str) -> dict[str, Any]:
    # `invocation` is the part of a result that Ansible hands to the table, and shows itself with -vvv alone.
    return {**result, "failed": True, "changed": False, "msg": why, "invocation": {"problems": list(problems)}}


def _load(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None


def _names(certificate: str | None) -> list[str]:
    """DNS names in a certificate, in their order; none when there is no certificate that can be read."""
    if not certificate:
        return []
    try:
        loaded = x509.load_pem_x509_certificate(certificate.encode())
        names = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return []
    return list(names.get_values_for_type(x509.DNSName))
