"""Addresses of another environment that were left in files of ours, or in the loaded rules."""

from __future__ import annotations

import json
import re
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any, Final

from mpquic_plan.check.finding import Finding, problem

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from mpquic_plan.check.finding import Fleet, Host

CHECK = "addresses"
_WORD: Final = re.compile(
    r"(?<![\w.:/-])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f]*:[0-9A-Fa-f:.]*)(?:/\d{1,3})?(?![\w.:/-])"
)


def literals(text: str) -> set[str]:
    """Return the addresses and prefixes that stand in a text, in their shortest form, single addresses without length.

    The all-zero address and loopback belong to no environment and are left out.
    """
    found = set()
    for word in _WORD.findall(text):
        address, _, length = word.partition("/")
        try:
            plain = ip_address(address)
            network = ip_network(word, strict=False)
        except ValueError:
            continue
        if plain.is_unspecified or plain.is_loopback:
            continue
        found.add(str(plain) if not length or network.prefixlen == plain.max_prefixlen else f"{plain}/{length}")
    return found


def instances_are_planned(host: Host, _fleet: Fleet) -> Iterator[Finding]:
    """Yield instance files that the plan doesn't name, and addresses in the others that it doesn't give them."""
    for name, text in sorted(host.survey["instances"].items()):
        path = f"/etc/mpquic/instances/{name}.yml"
        if name not in host.configs:
            yield problem(
                CHECK, f"{path} is there, and the plan names no tunnel {name}", f"run site.yml, or delete {path}"
            )
            continue
        yield from _foreign(path, text, literals(_plain(host.configs[name])))


def files_name_planned_addresses(host: Host, _fleet: Fleet) -> Iterator[Finding]:
    """Yield addresses in systemd-networkd's files of ours and in /etc/resolv.conf that the plan doesn't name."""
    known = literals(_plain(host.plan))
    for path, text in sorted(host.second["network_files"].items()):
        yield from _foreign(path, text, known)
    resolvers = host.plan.get("resolvers", [])
    if resolvers and not str(host.survey["resolv_conf"]).startswith("/run/systemd/resolve/"):
        yield from _foreign(
            "/etc/resolv.conf", host.second["resolv_conf"] or "", literals(" ".join(map(str, resolvers)))
        )


def loaded_rules_are_the_files(host: Host, _fleet: Fleet) -> Iterator[Finding]:
    """Yield addresses that the loaded packet filter names and its file doesn't."""
    known = literals(host.second["filter_file"] or "")
    for address in sorted(literals(host.second["filter"]) - known):
        yield problem(
            CHECK,
            f"the loaded table inet mpquic names {address}, which /etc/mpquic/nftables.nft doesn't",
            "systemctl reload mpquic-firewall",
        )


def _foreign(path: str, text: str, known: Collection[str]) -> Iterator[Finding]:
    # A comment may tell of anything.
    lines = (line for line in text.splitlines() if not line.lstrip().startswith(("#", ";")))
    strange = sorted(address for address in literals("\n".join(lines)) if not _is_known(address, known))
    if strange:
        yield problem(CHECK, f"{path} names {', '.join(strange)}, which the plan doesn't", "run site.yml")


def _is_known(address: str, known: Collection[str]) -> bool:
    """Whether the plan has an address in this form or with another length."""
    plain = address.partition("/")[0]
    return address in known or any(each.partition("/")[0] == plain for each in known)


def _plain(value: Any) -> str:
    """Return plain data as a text whose words are apart."""
    return json.dumps(value).replace('"', " ").replace(",", " ").replace("DNS:", " ").replace("IP:", " ")
