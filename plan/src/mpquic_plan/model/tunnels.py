"""Tunnels of a site with their paths, as its variables say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Striping:
    """How a tunnel with `transport: stripe` is striped; not `enabled`: it uses QUIC all the same."""

    enabled: bool
    pipes: int
    data_shards: int
    parity_shards: int
    fec: str
    fec_max_overhead: float


@dataclass(frozen=True, slots=True)
class TunnelPath:
    """A WAN as a tunnel uses it; `outer` is the address family between client and VPS.

    Of a lower `priority` it is preferred. `pipes` is None where it has those of the tunnel, `own_transport` tells that
    it states its transport itself. `places` are the paths of keys that its entry, if it has one, doesn't state.
    """

    path: str
    wan: str
    outer: str
    transport: str
    pipes: int | None
    priority: int
    weight: int
    places: Mapping[str, str]
    own_transport: bool = False

    def place(self, key: str) -> str:
        """Return the path in the variables where a key of this path is stated, or may be."""
        return self.places.get(key, f"{self.path}.{key}")


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A tunnel of a site; times as their names say. Whether it is in service its WANs say, too (`Site.serves`).

    `paths` has at least one, the preferred one first; `multipath_policy` says how several are used, and is None of a
    tunnel that states a single WAN. `of_class`: it is there because its WAN carries `traffic_class`. `places` are the
    paths of keys that its entry, if it has one, doesn't state.
    """

    path: str
    name: str
    enabled: bool
    multipath_policy: str | None
    paths: tuple[TunnelPath, ...]
    listener: str
    slot: int
    transport: str
    striping: Striping
    transport_mode: str
    congestion_algorithm: str
    traffic_class: str | None
    of_class: bool
    places: Mapping[str, str]
    tun_mtu: int | None
    probe_interval_ms: int
    down_after_ms: int
    reconnect_max_s: int

    def place(self, key: str) -> str:
        """Return the path in the variables where a key of this tunnel is stated, or may be."""
        return self.places.get(key, f"{self.path}.{key}")

    @property
    def wans(self) -> tuple[str, ...]:
        """Names of the WANs that carry it, the preferred one first."""
        return tuple(path.wan for path in self.paths)

    @property
    def striped_paths(self) -> list[TunnelPath]:
        """The paths that are striped in fact."""
        return [path for path in self.paths if path.transport == "stripe" and self.striping.enabled]
