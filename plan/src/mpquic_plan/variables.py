"""Misspelt variables of a host, which nothing else would ever look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mpquic_plan.problem import Problem, nearest
from mpquic_plan.schema import ROOTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

KEYS_OF: Final = {
    "site_id": "site",
    "wans": "site",
    "lans": "site",
    "tunnels": "site",
    "lan_mode": "site",
    "stripe_data_shards": "site",
    "stripe_parity_shards": "site",
    "stripe_fec": "site",
    "stripe_fec_max_overhead": "site",
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
        elif close := _ours(name.lower()):
            right = f"{KEYS_OF[close]}.{close}" if close in KEYS_OF else close
            problems.append(Problem(host, name, f"unknown variable; did you mean '{right}'?"))
    return problems


def misspelt_anywhere(names: Mapping[str, Iterable[str]], known: Iterable[str] = ()) -> list[Problem]:
    """Return the problems of `misspelt` for the variables of many hosts; what many have by their group is told once."""
    valid = frozenset(known)
    hosts: dict[tuple[str, str], list[str]] = {}
    for host in sorted(names):
        for problem in misspelt(host, names[host], valid):
            hosts.setdefault((problem.path, problem.message), []).append(host)
    problems = []
    for (path, message), having in hosts.items():
        more = f" (so on {len(having)} hosts)" if len(having) > 1 else ""
        problems.append(Problem(having[0], path, message + more))
    return problems


def _ours(name: str) -> str | None:
    """Return the variable or distinctive key of ours that a name is nearly, or has the letters of in another order."""
    return nearest(name, [*ROOTS, *KEYS_OF], _CUTOFF)


def _unknown(host: str, name: str, valid: frozenset[str]) -> list[Problem]:
    # The prefix that all have in common would make any two names near.
    close = nearest(name.removeprefix(_PREFIX), [known.removeprefix(_PREFIX) for known in valid])
    hint = f"did you mean '{_PREFIX}{close}'?" if close else f"there are {', '.join(sorted(valid))}"
    return [Problem(host, name, f"unknown variable; {hint}")]
