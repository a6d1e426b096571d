"""Judges what was found on a host, beside what was found on the others and on the controller."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.hashes import SHA256
from mpquic_plan.check import Certificate, Controller, Fleet, Host, Result, judge
from mpquic_plan.check.finding import identity_of


class ActionModule(ActionBase):
    """`mpquic_check`: the pure judgement over what the tasks before it have registered."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(
            argument_spec={"found": {"type": "str", "required": True}, "ca": {"type": "str", "required": True}}
        )
        variables = task_vars or {}
        hostvars, name = variables["hostvars"], str(variables["inventory_hostname"])
        ca = _loaded(_read(Path(arguments["ca"])))
        now = dt.datetime.now(dt.UTC)
        controller = Controller(now, _certificate(ca, None), str(arguments["ca"]))
        found = _found(hostvars, variables["ansible_play_hosts"], str(arguments["found"]))
        plans = {other: each["plan"] for other, each in found.items()}
        vps = plans[name].get("vps")
        fleet = Fleet(
            controller,
            _host(vps, found[vps], ca) if vps in found else None,
            frozenset(identity_of(plan) for plan in plans.values() if plan["role"] == "client"),
        )
        findings = judge(_host(name, found[name], ca), fleet)
        problems = [finding for finding in findings if finding.result is Result.PROBLEM]
        shown = [
            {"check": each.check, "result": each.result.value, "text": each.text, "remedy": each.remedy}
            for each in findings
        ]
        # The table at the end tells them, once: what is in `invocation` is handed to it, and shown with -vvv alone.
        told = {**result, "changed": False, "invocation": {"findings": shown}}
        if problems:
            count = f"{len(problems)} problems" if len(problems) > 1 else "1 problem"
            return {**told, "failed": True, "msg": f"{count} on {name}, told at the end"}
        return told


def _found(hostvars: Any, hosts: list[str], variable: str) -> dict[str, Any]:
    """What was found on the hosts of the play, as far as they have come."""
    return {host: hostvars[host][variable] for host in hosts if variable in hostvars[host]}


def _host(name: str, tagged: dict[str, Any], ca: x509.Certificate | None) -> Host:
    found = json.loads(json.dumps(tagged, default=str))
    pki = found["survey"]["pki"]
    return Host(
        name,
        found["plan"],
        found["survey"],
        found["first"],
        found["second"],
        health=found["health"],
        replies=found["replies"],
        forwarding=found["forwarding"],
        files=found["files"],
        release=found["release"],
        ca=_certificate(_loaded(pki["ca"]), None),
        certificate=_certificate(_loaded(pki["certificate"]), ca),
    )


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return None


def _loaded(text: str | None) -> x509.Certificate | None:
    """The certificate in a text, None when there is none that can be read."""
    try:
        return x509.load_pem_x509_certificate(text.encode()) if text else None
    except ValueError:
        return None


def _certificate(loaded: x509.Certificate | None, ca: x509.Certificate | None) -> Certificate | None:
    if loaded is None:
        return None
    return Certificate(
        fingerprint=loaded.fingerprint(SHA256()).hex(),
        serial=f"{loaded.serial_number:x}",
        not_before=loaded.not_valid_before_utc,
        not_after=loaded.not_valid_after_utc,
        issued_by_ca=ca is None or _issued_by(loaded, ca),
    )


def _issued_by(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(ca)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True
