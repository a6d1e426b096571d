"""Names of the machines' network devices: the reference site's, or those that another hypervisor or kernel gives."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

REFERENCE = "reference"
VARIABLE = "MPQLAB_NICS"


@dataclass(frozen=True, slots=True)
class Nics:
    """Device names of one scheme: of the client's management, LAN and WAN NICs by number, and of the VPS."""

    scheme: str
    management: tuple[str, ...]
    lans: tuple[str, ...]
    wans: tuple[str, ...]
    vps: str


class UnknownSchemeError(ValueError):
    """The environment names a scheme that doesn't exist; the text is meant for the person at the terminal."""


_MANAGEMENT = 2
_LANS = 6
_WANS = 6
# The number of a machine's first NIC in a scheme that counts: ens3 is the first slot that QEMU leaves free.
_COUNTED = {"eth": 0, "ens": 3}
SCHEMES = (REFERENCE, *_COUNTED)


def named(scheme: str) -> Nics:
    """Return the device names of a scheme.

    Raises:
        UnknownSchemeError: there is no such scheme.
    """
    if scheme == REFERENCE:
        return Nics(
            scheme,
            ("enp6s18", "enp6s19"),
            ("enp6s20", "enp6s21", "enp6s22", "enp6s23", "enp7s1", "enp7s2"),
            ("enp7s3", "enp7s4", "enp7s5", "enp7s6", "enp7s7", "enp7s8"),
            "ens18",
        )
    if scheme not in _COUNTED:
        raise UnknownSchemeError(
            f"{VARIABLE}={scheme}: there are no such device names, choose one of {', '.join(SCHEMES)}"
        )
    first = _COUNTED[scheme]
    names = tuple(f"{scheme}{first + number}" for number in range(_MANAGEMENT + _LANS + _WANS))
    return Nics(
        scheme,
        names[:_MANAGEMENT],
        names[_MANAGEMENT : _MANAGEMENT + _LANS],
        names[_MANAGEMENT + _LANS :],
        names[0],
    )


def recorded(path: Path) -> str | None:
    """Return the scheme of the lab that has written the record `path`, None when none runs."""
    try:
        record = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    scheme = record.get("nics") if isinstance(record, dict) and record.get("complete") else None
    return scheme if isinstance(scheme, str) else None


def chosen(environment: Mapping[str, str], path: Path) -> str:
    """Return the scheme for a command: the variable's, else that of the running lab, else the reference's."""
    return environment.get(VARIABLE) or recorded(path) or REFERENCE
