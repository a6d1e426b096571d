"""Checks of meaning: each a small function that yields the problems of a fleet whose shape is sound."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mpquic_plan.checks import addresses, classes, fleet, inner, interfaces, openwrt, references, striping

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mpquic_plan.model import Fleet
    from mpquic_plan.problem import Problem

CHECKS: Final[tuple[Callable[[Fleet], Iterable[Problem]], ...]] = (
    interfaces.names_are_unique,
    interfaces.devices_are_unique,
    interfaces.cards_are_unique,
    interfaces.interface_names_are_short,
    interfaces.devices_are_cards,
    interfaces.trunks_carry_vlans,
    references.vps_exists,
    references.tunnels_use_known_wans,
    references.paths_use_different_wans,
    references.tunnels_use_known_listeners,
    references.outer_ipv6_exists,
    references.lans_use_known_tunnels,
    references.fallbacks_are_known,
    classes.classes_are_distinct,
    classes.one_class_catches_all,
    classes.rules_can_match,
    classes.wans_carry_known_classes,
    classes.class_numbers_are_unique,
    classes.lans_state_one_way,
    classes.lans_use_carried_classes,
    classes.class_tunnels_keep_their_place,
    classes.routed_prefixes_have_one_tunnel_of_a_listener,
    references.egress_leads_out,
    references.management_by_dhcp_is_the_egress,
    references.zones_are_known,
    references.somebody_may_log_in,
    references.forward_openings_let_something_pass,
    references.liveness_has_room,
    addresses.gateways_are_in_their_subnets,
    addresses.dhcp_says_what_it_can,
    addresses.dhcp_servers_have_addresses,
    addresses.routers_are_in_their_subnets,
    addresses.subnets_of_a_site_are_disjoint,
    addresses.modem_prefixes_are_of_modems,
    addresses.wans_do_not_hold_the_vps,
    inner.listener_subnets_have_room,
    inner.listener_subnets_are_disjoint,
    inner.slots_exist,
    inner.clients_fit_their_subnets,
    striping.stripe_ports_exist,
    striping.striped_tunnels_are_served,
    striping.striped_tunnels_send_datagrams,
    fleet.sites_are_distinct,
    fleet.vpses_are_distinct,
    fleet.udp_ports_are_unique,
    fleet.routed_prefixes_are_disjoint,
    fleet.tunnels_of_a_listener_agree,
    openwrt.routers_are_distinct,
    openwrt.router_ports_are_of_lans,
    openwrt.router_policies_lead_out,
    openwrt.routers_have_room,
)


def run(fleet_: Fleet) -> list[Problem]:
    """Return the problems that all checks find."""
    return [problem for check in CHECKS for problem in check(fleet_)]
