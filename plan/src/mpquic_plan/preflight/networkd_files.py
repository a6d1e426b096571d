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

    A key that can't be judged from here (driver, path, property) counts as met: better named than overlooked.
    """
    match = sections(text).get("Match", {})
    names = _words(match, "Name") + _words(match, "OriginalName")
    if names and not _by_name(names, name):
        return False
    addresses = [
        word.lower().replace("-", ":") for key in ("MACAddress", "PermanentMACAddress") for word in _words(match, key)
    ]
    if addresses:
        own = {str(link[key]).lower() for key in ("mac", "permanent_mac")} if link else set()
        if not own & set(addresses):
            return False
    kinds = _words(match, "Kind")
    if kinds and (link is None or not _by_name(kinds, link["kind"])):
        return False
    types = _words(match, "Type")
    return not types or _by_name(types, "none" if link and link["kind"] == "tun" else "ether")


def _words(match: Section, key: str) -> list[str]:
    words: list[str] = []
    for value in match.get(key, []):
        # An empty value forgets what stood before it.
        words = [*words, *value.split()] if value else []
    return words


def _by_name(patterns: list[str], name: str) -> bool:
    """Whether a name is among shell patterns; a `!` before the first of them turns all of them round."""
    inverted = patterns[0].startswith("!")
    plain = [patterns[0].lstrip("!"), *patterns[1:]]
    return any(fnmatchcase(name, pattern) for pattern in plain) is not inverted
