"""The CA is the controller's, certificates last, and lists of revoked ones are as planned."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Final

from mpquic_plan.check.finding import Finding, Result, problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mpquic_plan.check.finding import Certificate, Fleet, Host

CHECK = "certificates"
WARN_BEFORE: Final = dt.timedelta(days=30)


def ca_is_the_controllers(host: Host, fleet: Fleet) -> Iterator[Finding]:
    """Yield if the host has another CA than the controller, or a certificate that this one hasn't signed."""
    controller = fleet.controller
    if controller.ca is None:
        yield Finding(
            CHECK,
            Result.SKIPPED,
            f"the controller has no CA to compare with: {controller.ca_file} can't be read",
            "set mpquic_pki_dir, or check from the controller that has the CA",
        )
    elif host.ca is None:
        yield problem(CHECK, "/etc/mpquic/pki/ca.crt is missing or can't be read", "run site.yml")
    elif host.ca.fingerprint != controller.ca.fingerprint:
        yield problem(
            CHECK,
            f"its CA is {_short(host.ca.fingerprint)}, the controller's is {_short(controller.ca.fingerprint)} "
            f"({controller.ca_file})",
            "the host belongs to another fleet, or the CA was replaced: docs/first-site.md, The certificate authority",
        )
    elif host.certificate is not None and not host.certificate.issued_by_ca:
        yield problem(CHECK, f"{_own(host)} wasn't signed by the controller's CA", "run site.yml")


def certificates_last(host: Host, fleet: Fleet) -> Iterator[Finding]:
    """Yield certificates that have ended, aren't valid yet, or end soon."""
    if host.certificate is None:
        yield problem(CHECK, f"{_own(host)} is missing or can't be read", "run site.yml")
    for what, certificate in ((_own(host), host.certificate), ("the CA's certificate", host.ca)):
        if certificate is not None:
            yield from _dates(what, certificate, fleet.controller.now)


def certificate_is_in_use(host: Host, _fleet: Fleet) -> Iterator[Finding]:
    """Yield instances that run with another certificate than the file has: they keep it until they are restarted."""
    if host.certificate is None:
        return
    running = {name: (row.get("certificate") or {}).get("serial") for name, row in host.rows.items()}
    late = [name for name, serial in sorted(running.items()) if serial and not _equal(serial, host.certificate.serial)]
    if late:
        yield problem(
            CHECK,
            f"{', '.join(late)} {'runs' if len(late) == 1 else 'run'} with another certificate than {_own(host)} has",
            f"systemctl restart {' '.join(f'mpquic@{name}' for name in late)}",
        )


def revoked_list_is_as_planned(host: Host, _fleet: Fleet) -> Iterator[Finding]:
    """Yield if the host's list of revoked certificates isn't that of the variables."""
    if "revoked_file" not in host.plan["pki"]:
        return
    wanted = {_digits(str(serial)) for serial in host.plan["pki"].get("revoked", [])}
    text = host.second["revoked"]
    lines = (line.partition("#")[0].strip() for line in (text or "").splitlines())
    found = {_digits(line) for line in lines if line}
    if text is None or found != wanted:
        parts = [f"lacks {', '.join(sorted(wanted - found))}"] if wanted - found else []
        parts += [f"has {', '.join(sorted(found - wanted))} more"] if found - wanted else []
        what = " and ".join(parts) if text is not None and parts else "is missing or can't be read"
        yield problem(CHECK, f"its list of revoked certificates {what}", "run site.yml")


def _dates(what: str, certificate: Certificate, now: dt.datetime) -> Iterator[Finding]:
    if now >= certificate.not_after:
        yield problem(CHECK, f"{what} ended on {certificate.not_after:%Y-%m-%d}", "run site.yml, which renews it")
    elif now < certificate.not_before:
        text = f"{what} isn't valid before {certificate.not_before:%Y-%m-%d %H:%M}Z"
        yield problem(CHECK, text, "compare the clocks of the host and of the controller")
    elif certificate.not_after - now < WARN_BEFORE:
        days = (certificate.not_after - now).days
        text = f"{what} ends in {days} days, on {certificate.not_after:%Y-%m-%d}"
        yield problem(CHECK, text, "run site.yml, which renews a host's; a new CA: docs/first-site.md")


def _own(host: Host) -> str:
    return f"/etc/mpquic/pki/{host.plan['pki']['name']}.crt"


def _digits(serial: str) -> str:
    return serial.replace(":", "").lower().lstrip("0") or "0"


def _equal(one: object, other: str) -> bool:
    return _digits(str(one)) == _digits(other)


def _short(fingerprint: str) -> str:
    return ":".join(fingerprint[place : place + 2] for place in range(0, 16, 2)).upper() + "..."
