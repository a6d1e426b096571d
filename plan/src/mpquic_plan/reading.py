"""What the readers of variables share: items of lists, defaults that may be missing, addresses."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Interface, ip_network
from typing import TYPE_CHECKING, Any, TypeVar

from mpquic_plan import reference
from mpquic_plan.matching import token
from mpquic_plan.model import ForwardOpening, Match
from mpquic_plan.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mpquic_plan.schema import Checked

T = TypeVar("T")


def address(text: str | None) -> IPv4Address | None:
    """Return an IPv4 address, or None where none is stated."""
    return None if text is None else IPv4Address(text)


def address6(text: str | None) -> IPv6Address | None:
    """Return an IPv6 address, or None where none is stated."""
    return None if text is None else IPv6Address(text)


def interface6(text: str | None) -> IPv6Interface | None:
    """Return an IPv6 address with its prefix length, or None where none is stated."""
    return None if text is None else IPv6Interface(text)


def fallback(item: Mapping[str, Any]) -> str | None:
    """Return what an item states as fallback; `none` is another word for `block`."""
    stated = item.get("fallback")
    return reference.BLOCK if stated == "none" else stated


def sound(items: list[T | None]) -> tuple[T, ...]:
    """Return the items that the schema has not rejected."""
    return tuple(item for item in items if item is not None)


def ports(value: str | list[int | None]) -> tuple[int, ...] | None:
    """Return ports, or None where a word stands for them."""
    return None if isinstance(value, str) else sound(value)


class HostReader:
    """The variables of one host; collects what can't be filled in, and the cards that are known by MAC address."""

    def __init__(self, host: str, value: dict[str, Any], checked: Checked) -> None:
        self.host = host
        self.value = value
        self.broken = {key: set(names) for key, names in checked.broken.items()}
        self.problems: list[Problem] = []
        self.matches: list[Match] = []

    def default(self, item: Mapping[str, Any], key: str, default: Any, place: tuple[str, str, str], why: str) -> Any:
        """Return a key's value or its default; `place` is (path, list, name) of the item, for the problem without."""
        path, collection, name = place
        value = item.get(key, default)
        if value is None:
            self.problems.append(Problem(self.host, f"{path}.{key}", f"is missing; {why}"))
            self.broken.setdefault(collection, set()).add(name)
        return value

    def items(self, holder: Mapping[str, Any], key: str, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield path and value of each item of a list that the schema has not rejected."""
        for index, item in enumerate(holder[key]):
            if item is not None:
                yield f"{path}.{key}[{index}]", item

    def matched(self, kind: str, path: str, item: Mapping[str, Any], stated: str | None) -> str | None:
        """Return the token of an item's card if it is known by its MAC address; `stated` is the name of that card."""
        if "match" not in item:
            return None
        mac = item["match"]["mac"].lower()
        name = item["name"]
        self.matches.append(Match(f"{path}.match", kind, name, mac, stated or name, carries_vlan="vlan" in item))
        return token(mac)

    def forward_openings(self, holder: Mapping[str, Any], path: str) -> Iterator[ForwardOpening]:
        """Yield what is forwarded besides the tunnels."""
        for item_path, item in self.items(holder, "forward_openings", path):
            yield ForwardOpening(
                path=item_path,
                source=item["from"],
                target=item["to"],
                sources=tuple(ip_network(text) for text in sound(item["sources"])),
                destinations=tuple(ip_network(text) for text in sound(item["destinations"])),
                protocol=item.get("protocol"),
                ports=sound(item.get("ports", [])),
            )

    def broken_names(self) -> dict[str, frozenset[str]]:
        """Return names of items that hold errors, by collection."""
        return {key: frozenset(names) for key, names in sorted(self.broken.items())}
