"""What no single key of an instance can tell: how its keys fit each other."""

from __future__ import annotations

import ipaddress
import itertools
from typing import TYPE_CHECKING, TypeAlias

from mpquic.config.model import (
    LARGEST_PORT,
    ONE_PATH,
    STRIPE_PORT_OFFSET,
    ClientConfig,
)
from mpquic.config.schema import Problem, expected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mpquic.config.model import InstanceConfig, PathConfig, ServerConfig

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


def check_meaning(config: InstanceConfig) -> Iterator[Problem]:
    """Yield what is wrong with a configuration of which each key by itself is right."""
    if config.down_after_ms < 2 * config.probe_interval_ms:
        yield Problem(
            "down_after_ms",
            f"expected at least twice probe_interval_ms ({2 * config.probe_interval_ms}), not {config.down_after_ms}",
        )
    yield from _check_client(config) if isinstance(config, ClientConfig) else _check_server(config)


def _check_client(config: ClientConfig) -> Iterator[Problem]:
    yield from _check_unique(config.inner_addresses, "inner_addresses")
    problems = list(_check_multipath(config) if config.multipath_enabled else _check_one_path(config))
    yield from problems
    if problems:
        return
    for index, path in enumerate(config.paths):
        place = f"multipath_paths[{index}]." if config.multipath_enabled else ""
        yield from _check_path(path, place)
    if config.transport_mode == "reliable" and any(path.transport == "stripe" for path in config.paths):
        yield Problem(
            "transport_mode", "expected datagram with transport: stripe, which sends again by itself, not reliable"
        )


def _check_one_path(config: ClientConfig) -> Iterator[Problem]:
    for key in ONE_PATH:
        if getattr(config, key) is None:
            yield Problem(key, f"missing; expected {expected(ClientConfig, key)}")
    if config.multipath_paths:
        yield Problem("multipath_paths", "expected multipath_enabled: true beside it, or no such key")


def _check_multipath(config: ClientConfig) -> Iterator[Problem]:
    for key in (*ONE_PATH, "wan"):
        if getattr(config, key) is not None:
            yield Problem(key, "expected in each entry of multipath_paths instead, since multipath_enabled is true")
    if not config.multipath_paths:
        yield Problem("multipath_paths", "missing; expected a list of at least one path")
    for key in ("name", "bind_ip"):
        seen: dict[str, int] = {}
        for index, entry in enumerate(config.multipath_paths):
            first = seen.setdefault(getattr(entry, key), index)
            if first != index:
                message = f"that of multipath_paths[{first}]; expected another for each path"
                yield Problem(f"multipath_paths[{index}].{key}", message)


def _check_path(path: PathConfig, place: str) -> Iterator[Problem]:
    if path.bind_address is not None:
        local, remote = ipaddress.ip_address(path.bind_address), ipaddress.ip_address(path.remote_addr)
        if local.version != remote.version:
            yield Problem(
                f"{place}bind_ip", f"expected an IPv{remote.version} address as remote_addr is, not '{local}'"
            )
    if path.transport == "stripe" and path.stripe_port == path.remote_port:
        yield Problem(f"{place}stripe_port", f"expected another port than remote_port, not {path.stripe_port}")


def _check_server(config: ServerConfig) -> Iterator[Problem]:
    if config.stripe_enabled:
        yield from _check_stripe_port(config)
    names: dict[tuple[str, str], int] = {}
    owned: list[tuple[Network, int]] = []
    for index, peer in enumerate(config.peers):
        first = names.setdefault((peer.identity, peer.tunnel), index)
        if first != index:
            yield Problem(
                f"peers[{index}]", f"identity and tunnel are those of peers[{first}]; one entry for each pair"
            )
        yield from _check_unique(peer.allowed, f"peers[{index}].allowed")
        owned += [(ipaddress.ip_network(prefix), index) for prefix in peer.allowed]
    # Sorted, a prefix that lies inside others comes right after the last one that contains it.
    owned.sort(key=lambda entry: (entry[0].version, entry[0].network_address.packed, entry[0].prefixlen))
    for (outer, owner), (inner, index) in itertools.pairwise(owned):
        if owner != index and outer.version == inner.version and outer.overlaps(inner):
            yield Problem(f"peers[{index}].allowed", f"{inner} overlaps {outer} of peers[{owner}]")


def _check_stripe_port(config: ServerConfig) -> Iterator[Problem]:
    if config.stripe_port == config.bind_port:
        yield Problem("stripe_port", f"expected another port than bind_port, not {config.stripe_port}")
    elif config.stripe_bind_port > LARGEST_PORT:
        yield Problem(
            "stripe_port",
            f"bind_port + {STRIPE_PORT_OFFSET} is {config.stripe_bind_port}, no UDP port; state stripe_port",
        )


def _check_unique(prefixes: tuple[str, ...], key: str) -> Iterator[Problem]:
    seen: dict[Network, int] = {}
    for index, prefix in enumerate(prefixes):
        first = seen.setdefault(ipaddress.ip_network(prefix), index)
        if first != index:
            yield Problem(f"{key}[{index}]", f"{prefix} is given twice, first as {key}[{first}]")
