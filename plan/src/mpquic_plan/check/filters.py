"""The loaded packet filter is what its file makes, and no other file makes it, too."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from mpquic_plan.check.finding import Finding, Result, problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mpquic_plan.check.finding import Fleet, Host

CHECK = "filter"
SHOWN: Final = 3
"""Rules that a finding names, at most."""


def loaded_table_is_the_files(host: Host, _fleet: Fleet) -> Iterator[Finding]:
    """Yield if rules of table inet mpquic are missing, were added or were moved, in the second look."""
    loaded, wanted = (_lines(host.second[key]) for key in ("filter", "filter_wanted"))
    if not loaded or not wanted:
        # That no table is loaded, or that its file is missing, is told by other checks.
        yield Finding(CHECK, Result.SKIPPED, "the loaded table inet mpquic can't be compared with its file")
        return
    missing, added = (
        list((Counter(one) - Counter(other)).elements()) for one, other in ((wanted, loaded), (loaded, wanted))
    )
    parts = [f"{what} {_some(lines)}" for what, lines in (("lacks", missing), ("has besides", added)) if lines]
    if not parts and loaded != wanted:
        parts = ["has its rules in another order"]
    if parts:
        text = f"the loaded table inet mpquic differs from /etc/mpquic/nftables.nft: it {' and '.join(parts)}"
        yield problem(CHECK, text, "systemctl reload mpquic-firewall")


def no_other_file_has_our_tables(host: Host, _fleet: Fleet) -> Iterator[Finding]:
    """Yield files of the administrator that hold a copy of our tables, as `nft list ruleset > FILE` writes it."""
    for path, tables in sorted(host.second["saved_tables"].items()):
        names = " and ".join(f"table inet {name}" for name in tables)
        text = f"{path} holds a copy of {names}"
        # The kernel lets nobody but the guard make its table while it runs, and refuses the whole file.
        text += ": nft can't load the file" if "mpquic_guard" in tables else ", which is loaded as it was then"
        yield problem(CHECK, text, "take what is ours out of it: site.yml and mpquic-guard load it")


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _some(lines: list[str]) -> str:
    more = f" and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return ", ".join(f"'{line}'" for line in lines[:SHOWN]) + more
