"""Misspelt variables of a host, which nothing else would ever look at."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Final

from mpquic_plan.problem import Problem
from mpquic_plan.schema import ROOTS

if TYPE_CHECKING:
    from collections.abc import Iterable

KEYS_OF: Final = {
    "site_id": "site",
    "wans": "site",
    "lans": "site",
    "tunnels": "site",
    "lan_mode": "site",
    "listeners": "vps",
    "tunnel_services": "vps",
    "site_to_site": "vps",
}
"""Keys of `site` and `vps` whose names are so much ours that they mean nothing else at the top level."""

_CUTOFF: Final = 0.8
_PREFIX: Final = "mpquic_"


def misspelt(host: str, names: Iterable[str], known: Iterable[str] = ()) -> list[Problem]:
    """Return a problem for each variable of a host that looks like a misspelling of one of ours.

    `names` are the names of all variables that the inventory gives the host. `known` are the suite's variables besides
    `site` and `vps`; if any is given, each name that begins with `mpquic_` must be one of them.
    """
    valid = frozenset(known)
    problems = []
    for name in sorted(set(names) - set(ROOTS) - valid):
        if name in KEYS_OF:
            problems.append(Problem(host, name, f"is a key of {KEYS_OF[name]}; write it as {KEYS_OF[name]}.{name}"))
        elif name.startswith(_PREFIX):
            if valid:
                problems += _unknown(host, name, valid)
        elif close := difflib.get_close_matches(name.lower(), [*ROOTS, *KEYS_OF], n=1, cutoff=_CUTOFF):
            right = f"{KEYS_OF[close[0]]}.{close[0]}" if close[0] in KEYS_OF else close[0]
            problems.append(Problem(host, name, f"unknown variable; did you mean '{right}'?"))
    return problems


def _unknown(host: str, name: str, valid: frozenset[str]) -> list[Problem]:
    close = difflib.get_close_matches(name.lower(), sorted(valid), n=1, cutoff=0.6)
    hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(sorted(valid))}"
    return [Problem(host, name, f"unknown variable; {hint}")]
