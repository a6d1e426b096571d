"""Which links a file of systemd-networkd or udev is for (systemd.network(5), systemd.link(5), section [Match])."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

Section = dict[str, list[str]]


def sections(text: str) -> dict[str, Section]:
    """Return the values of each key of each section, in the order in which they stand; other lines are passed over."""
    result: dict[str, Section] = {}
    current: Section = {}
    for raw in text.replace("\\\n", " ").splitlines():
        line = raw.strip()
        if line.startswith("[") and line.endswith("]"):
            current = result.setdefault(line[1:-1], {})
        elif "=" in line and line[0] not in "#;":
            key, value = (part.strip() for part in line.split("=", 1))
            current.setdefault(key, []).append(value)
    return result


def makes(text: str) -> str:
    """Return the name of the device that a .netdev file makes."""
    return (sections(text).get("NetDev", {}).get("Name") or [""])[-1]


def matches(text: str, name: str, link: Mapping[str, Any] | None) -> bool:
    """Return whether a file is for the link of a name; `link` is what the survey has of it, None if it's absent.

    A key that can't be judged from here (driver, path, property) counts as met: better named than overlooked. A file
    whose [Match] says nothing is for no link: networkd and udev ignore it, with a warning.
    """
    match = sections(text).get("Match", {})
    if not any(_patterns(match, key) for key in match):
        return False
    names = [name, *(link or {}).get("altnames", [])]
    if not all(_by_name(_patterns(match, key), *names) for key in ("Name", "OriginalName")):
        return False
    addresses = [_digits(word) for key in ("MACAddress", "PermanentMACAddress") for word in _patterns(match, key)]
    if addresses:
        # A device whose address was changed is met by both: by the permanent one at a boot, by the other later.
        own = {_digits(str(link.get(key, ""))) for key in ("mac", "permanent_mac")} if link else set()
        if not own & set(addresses):
            return False
    kind = str(link["kind"]) if link else ""
    # A device that isn't there is taken for a network card, which has no kind.
    if not _by_name(_patterns(match, "Kind"), *([kind] if kind else [])):
        return False
    return _by_name(_patterns(match, "Type"), "none" if kind == "tun" else "ether")


def names_link(text: str) -> str | None:
    """Return the name that a .link file gives; '' if it gives one by a policy, None if it's about something else."""
    link = sections(text).get("Link", {})
    if name := (link.get("Name") or [""])[-1]:
        return name
    return "" if "NamePolicy" in link else None


def _digits(address: str) -> str:
    """Return the digits of a hardware address, which has three notations (systemd.link(5), MACAddress=)."""
    return address.lower().translate(dict.fromkeys(map(ord, ":-.")))


def _patterns(match: Section, key: str) -> list[str]:
    """Return the patterns of a key. A `!` before the first of a line is put before each of it, as networkd does."""
    patterns: list[str] = []
    for value in match.get(key, []):
        mark = "!" if value.startswith("!") else ""
        # An empty value forgets what stood before it.
        patterns = [*patterns, *(mark + word for word in value.removeprefix("!").split())] if value else []
    return patterns


def _by_name(patterns: list[str], *names: str) -> bool:
    """Whether one of the names of a link is met by shell patterns; without any, each is."""
    plain = [pattern for pattern in patterns if not pattern.startswith("!")]
    excluded = [pattern.removeprefix("!") for pattern in patterns if pattern.startswith("!")]
    met = [name for name in names if not any(fnmatchcase(name, pattern) for pattern in excluded)]
    if plain:
        return any(fnmatchcase(name, pattern) for name in met for pattern in plain)
    return bool(met) or not names
