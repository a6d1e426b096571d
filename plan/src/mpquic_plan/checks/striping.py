"""Striped tunnels: the ports of the VPS that serve them, and what they can't be together with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mpquic_plan import reference
from mpquic_plan.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mpquic_plan.model import Fleet, Site, Tunnel, TunnelPath

LARGEST_PORT: Final = 65535


def stripe_ports_exist(fleet: Fleet) -> Iterator[Problem]:
    """Each listener that serves striped tunnels has a port for them: near the end of the range there is no default."""
    for vps in fleet.vpses.values():
        for listener in vps.listeners:
            if listener.stripe_port is not None and listener.stripe_port > LARGEST_PORT:
                yield Problem(
                    vps.host,
                    f"{listener.path}.stripe_port",
                    f"is missing; its default, port + {reference.STRIPE_PORT_OFFSET}, would be {listener.stripe_port}; "
                    "state one, or stripe_enabled: false",
                )


def striped_tunnels_are_served(fleet: Fleet) -> Iterator[Problem]:
    """Each striped tunnel connects to a listener that serves such tunnels."""
    for site in fleet.sites.values():
        vps = fleet.vps_of(site)
        listeners = {listener.name: listener for listener in vps.listeners} if vps else {}
        for tunnel, path in _striped(site):
            listener = listeners.get(tunnel.listener)
            if vps is not None and listener is not None and listener.stripe_port is None:
                yield Problem(
                    site.host,
                    path.place("transport"),
                    f"listener {listener.name} of {vps.host} serves no striped tunnels; "
                    f"take stripe_enabled: false away from {listener.path}, or set transport: quic",
                )


def striped_tunnels_send_datagrams(fleet: Fleet) -> Iterator[Problem]:
    """A striped tunnel repairs what is lost by itself, and has no reliable mode."""
    for site in fleet.sites.values():
        for tunnel, _ in _striped(site):
            if tunnel.transport_mode != "datagram":
                yield Problem(
                    site.host,
                    tunnel.place("transport_mode"),
                    f"{tunnel.transport_mode} doesn't go with transport: stripe, which sends again by itself; "
                    "set transport_mode: datagram, or transport: quic",
                )


def _striped(site: Site) -> Iterator[tuple[Tunnel, TunnelPath]]:
    """Give the striped tunnels, each with its striped paths: one of them for all that have it from the tunnel."""
    for tunnel in site.tunnels:
        yield from {path.place("transport"): (tunnel, path) for path in tunnel.striped_paths}.values()
