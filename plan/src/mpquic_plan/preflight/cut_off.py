"""Would a run's change of a VPS cut off a site that isn't in the run, and so can't follow?

What a VPS serves now is in its instances' YAML; what it will serve is in the plan. A client that isn't reached goes on
with what it has: a port, its identity, its inner address, the name that it expects in the server's certificate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Served:
    """One tunnel as a VPS serves it: ports, who may come, which inner address it has."""

    listener: str
    port: int
    stripe_port: int | None
    identity: str
    address: str
    tunnel: str = ""


@dataclass(frozen=True, slots=True)
class Move:
    """A tunnel of a listener whose inner address would change."""

    listener: str
    identity: str
    tunnel: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.listener}: {self.tunnel} of {self.identity} from {self.before} to {self.after}"


@dataclass(frozen=True, slots=True)
class CutOff:
    """A tunnel of an absent site that would not come up any more, and why."""

    host: str
    tunnel: str
    reason: str

    def __str__(self) -> str:
        return f"{self.host}: {self.tunnel}: {self.reason}"


def served(instances: Sequence[Mapping[str, Any]]) -> list[Served]:
    """Return what a VPS serves, given the configurations of its instances; one that is damaged serves nobody."""
    return [
        Served(
            str(config.get("name", "")),
            config["bind_port"],
            config.get("stripe_port") if config.get("stripe_enabled", True) else None,
            str(peer["identity"]),
            _own_address(_listed(peer.get("allowed"))),
            str(peer.get("tunnel", "")),
        )
        for config in instances
        if config.get("role") == "server" and isinstance(config.get("bind_port"), int)
        for peer in _listed(config.get("peers"))
        if isinstance(peer, dict) and "identity" in peer
    ]


def moves(now: Sequence[Served], planned: Sequence[Served]) -> Iterator[Move]:
    """Yield the tunnels whose inner addresses would change on listeners that several sites share.

    Such a change is asked for by nobody who raises `tunnels_per_site` for a site of his own.
    """
    before = {(entry.listener, entry.identity, entry.tunnel): entry.address for entry in now}
    sites = {(entry.listener, entry.identity) for entry in (*now, *planned)}
    shared = {listener for listener, _ in sites if sum(other == listener for other, _ in sites) > 1}
    for entry in planned:
        address = before.get((entry.listener, entry.identity, entry.tunnel), "")
        if entry.listener in shared and address and entry.address and address != entry.address:
            yield Move(entry.listener, entry.identity, entry.tunnel, address, entry.address)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _own_address(allowed: Sequence[Any]) -> str:
    """Return the inner address among a peer's prefixes: the first host route of IPv4; '' without one."""
    for prefix in map(str, allowed):
        address, _, length = prefix.partition("/")
        if length in ("", "32") and address.count(".") == 3:
            return address
    return ""


def cut_off(
    now: Sequence[Served],
    planned: Sequence[Served],
    names_now: Sequence[str],
    names_planned: Collection[str],
    absent: Mapping[str, Mapping[str, Any]],
) -> Iterator[CutOff]:
    """Yield the tunnels of absent sites that the change of a VPS would end.

    `absent` maps inventory hosts to the slices of clients that aren't in the run and use this VPS; the names are those
    in the server's certificate.
    """
    for host, client in sorted(absent.items()):
        identity = client["pki"]["subject_alt_names"][0].removeprefix("URI:")
        addresses = {_first_address(tun) for tun in client["tuns"]}
        # An address may have belonged to another site, which is still served by its own name.
        others = {entry.identity for entry in planned} - {identity}
        mine = [
            entry
            for entry in now
            if entry.identity == identity or (entry.address in addresses and entry.identity not in others)
        ]
        striped = {instance["name"] for instance in client["instances"] if _is_striped(instance["config"])}
        for entry in mine:
            tunnel = _tunnel_of(client, entry)
            if reason := _why(entry, identity, planned, striped=tunnel in striped):
                yield CutOff(host, tunnel, reason)
        # Clients expect the first name (`tls.server_name`).
        if mine and names_now and names_now[0] not in names_planned:
            yield CutOff(host, "all tunnels", f"the certificate of the VPS would lose the name {names_now[0]}")


def _is_striped(config: Mapping[str, Any]) -> bool:
    return bool(config.get("transport") == "stripe" and config.get("stripe_enabled", True))


def _first_address(tun: Mapping[str, Any]) -> str:
    return str(tun["addresses"][0]).partition("/")[0]


def _tunnel_of(client: Mapping[str, Any], entry: Served) -> str:
    names = [tun["name"] for tun in client["tuns"] if _first_address(tun) == entry.address]
    return names[0] if names else f"its tunnel on {entry.listener}"


def _why(entry: Served, identity: str, planned: Sequence[Served], *, striped: bool) -> str:
    """Return what of a tunnel would change so that its client can't connect; '' when nothing does."""
    if entry.identity != identity:
        return f"its identity would change from {entry.identity} to {identity} (site.name)"
    same = [other for other in planned if other.identity == entry.identity]
    by_port = [other for other in same if other.port == entry.port]
    if not by_port:
        of_listener = [other for other in same if other.listener == entry.listener]
        if of_listener:
            return f"the port of listener {entry.listener} would change from {entry.port} to {of_listener[0].port}"
        return f"port {entry.port} (listener {entry.listener}) would not serve it any more"
    by_address = [other for other in by_port if other.address == entry.address]
    if not by_address:
        return f"its inner address on {entry.listener} would change from {entry.address} to {by_port[0].address}"
    stripe_port = by_address[0].stripe_port
    if striped and entry.stripe_port is not None and stripe_port != entry.stripe_port:
        return f"the stripe port of {entry.listener} would change from {entry.stripe_port} to {stripe_port or 'none'}"
    return ""
