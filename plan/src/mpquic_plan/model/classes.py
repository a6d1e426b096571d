"""Traffic classes and their rules, as the variables of a site say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mpquic_plan.model.addresses import Network


@dataclass(frozen=True, slots=True)
class MatchRule:
    """A rule of a class; an empty tuple selects all. Port ranges include both ends.

    `protocols` are numbers of the IP header; of a rule with ports alone, those that have ports.
    """

    path: str
    protocols: tuple[int, ...]
    source_ports: tuple[tuple[int, int], ...]
    ports: tuple[tuple[int, int], ...]
    sources: tuple[Network, ...]
    destinations: tuple[Network, ...]
    dscps: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TrafficClass:
    """A traffic class; `slot` is its number, `max_rate` in bit/s. `settings` are keys that its tunnels have from it."""

    path: str
    name: str
    slot: int
    prefix: str
    catch_all: bool
    rules: tuple[MatchRule, ...]
    dscp: int
    low_latency: bool
    max_rate: int | None
    wan_weight: int
    wan_priority: int
    fallback: str | None
    settings: Mapping[str, Any]
