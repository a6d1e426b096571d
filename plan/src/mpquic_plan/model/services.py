"""What may be reached and forwarded through the packet filter of a host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpquic_plan.model.addresses import Network


@dataclass(frozen=True, slots=True)
class Opening:
    """A service that may be reached; `sources` are zones on a client, prefixes on a VPS."""

    path: str
    protocol: str
    ports: tuple[int, ...]
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ForwardOpening:
    """What is forwarded besides the tunnels; `source` and `target` are devices or words, empty tuples mean all."""

    path: str
    source: str
    target: str
    sources: tuple[Network, ...]
    destinations: tuple[Network, ...]
    protocol: str | None
    ports: tuple[int, ...]
