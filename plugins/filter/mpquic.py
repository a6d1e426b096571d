"""Filters of the roles: the plan's data in the form that a module takes. Nothing is derived here."""

from __future__ import annotations

from itertools import chain
from typing import Any

from ansible.errors import AnsibleFilterError
from mpquic_plan import guard, matching
from mpquic_plan.check.tunnels import inner_peer
from mpquic_plan.openwrt import uci

Slice = dict[str, Any]

LINK_KINDS = ("management", "wans", "lans")


def host_slice(plan: Any, host: str) -> Slice:
    """Return what the plan holds for `host`; `plan` is the result of mpquic_plan, or empty where that wasn't run."""
    hosts = plan.get("hosts")
    if hosts is None:
        raise AnsibleFilterError(
            "there is no plan: --start-at-task or --skip-tags has left out the tasks that make it, and those that look "
            "at the hosts before anything is changed. Run site.yml again without that option: it goes on where the "
            "last run ended. To run one role alone use --tags base, firewall, pki, networkd, daemon or verify"
        )
    if host not in hosts:
        raise AnsibleFilterError(f"there is no plan for {host}: it has neither 'site' nor 'vps' in its variables")
    return dict(hosts[host])


def router_slice(plan: Any, host: str) -> Slice:
    """Return what the plan holds for an OpenWrt router; `plan` is the result of mpquic_plan."""
    routers = plan.get("routers")
    if routers is None:
        raise AnsibleFilterError("there is no plan: run playbooks/openwrt.yml without --start-at-task and --skip-tags")
    if host not in routers:
        raise AnsibleFilterError(f"there is no plan for {host}: no site names it as its openwrt.host")
    return dict(routers[host])


def uci_text(sections: list[dict[str, Any]], package: str) -> str:
    """Return sections of the plan as the text of a package of UCI, which `uci import` reads."""
    return uci.text(package, map(uci.section, sections))


def instance_unit(name: str, pki_files: list[str], reload_files: list[str]) -> dict[str, Any]:
    """Name of an instance -> unit with the files that it was started with, as units_current takes it."""
    return {
        "name": f"mpquic@{name}.service",
        "config": f"/etc/mpquic/instances/{name}.yml",
        "restart_files": ["/opt/mpquic/current/complete", "/etc/systemd/system/mpquic@.service", *pki_files],
        "reload_files": reload_files,
    }


def _links(plan: Slice) -> list[Slice]:
    return list(chain.from_iterable(plan.get(kind, []) for kind in LINK_KINDS))


def virtual_links(plan: Slice) -> list[dict[str, Any]]:
    """Virtual links of a host with the properties that can't be changed, as owned_network takes them."""
    return [
        {"name": link.get("device", link["name"]), **link["netdev"]}
        for link in [*plan["tuns"], *_links(plan)]
        if link["netdev"] is not None
    ]


def routing_rules(plan: Slice) -> list[dict[str, Any]]:
    """All routing rules of a host, as owned_network takes them."""
    return [
        {
            "priority": rule["priority"],
            "table": rule["table"],
            "from": rule["from"],
            "iif": rule["incoming_interface"],
            "oif": rule["outgoing_interface"],
            "fwmark": rule["mark"],
            "fwmask": rule["mask"],
            "family": rule["family"],
        }
        for link in [*_links(plan), *plan["tuns"]]
        for rule in link["rules"]
    ]


def table_devices(plan: Slice) -> dict[str, list[str]]:
    """Devices that have routes in each table of a host; DHCP and router advertisements fill the table of their WAN."""
    result: dict[str, set[str]] = {}
    for wan in plan.get("wans", []):
        result.setdefault(str(wan["table"]), set()).add(wan["device"])
    for link in [*_links(plan), *plan["tuns"]]:
        for route in link["routes"]:
            if route["table"] is not None:
                result.setdefault(str(route["table"]), set()).add(link.get("device", link["name"]))
    return {table: sorted(devices) for table, devices in result.items()}


def guarded(plan: Slice, public_device: str) -> dict[str, Any]:
    """What mpquic-guard keeps in place on a host, the content of its file; `public_device` is what `auto` means."""
    return guard.kept(plan, public_device)


def resolved(plan: Slice, present: dict[str, str]) -> dict[str, Any]:
    """A slice with the names of the cards that it knows by MAC address; `present` are those of the host."""
    return matching.resolve(plan, present)


def configured_links(plan: Slice) -> list[str]:
    """Links that systemd-networkd can always configure: all of ours but those that may be absent."""
    links = [*plan.get("management", []), *plan.get("trunks", []), *plan.get("lans", []), *plan["tuns"]]
    absent = optional_links(plan)
    return [name for name in (link.get("device", link["name"]) for link in links) if name not in absent]


def optional_links(plan: Slice) -> list[str]:
    """Links that may be absent: WANs, and LANs that are out of service."""
    idle = [lan for lan in plan.get("lans", []) if not lan["enabled"]]
    return [link["device"] for link in [*plan.get("wans", []), *idle]]


def passages(plan: Slice, public_device: str) -> list[dict[str, Any]]:
    """What a host forwards, as forwarding_probe takes it: LANs to tunnels, or tunnels to the Internet."""

    def ipv4(prefixes: list[str]) -> str | None:
        return next((prefix for prefix in prefixes if ":" not in prefix), None)

    ways: list[tuple[str, list[str], str | None]]
    if plan["role"] == "client":
        pairs = plan["firewall"]["forward"]
        ways = [
            (lan["device"], [pair["to"] for pair in pairs if pair["from"] == lan["device"]], ipv4(lan["addresses"]))
            for lan in plan["lans"]
        ]
    else:
        ways = [
            (tun["name"], [public_device], ipv4([route["destination"] for route in tun["routes"]]))
            for tun in plan["tuns"]
        ]
    return [{"from": enters, "to": to, "network": network} for enters, to, network in ways if network and any(to)]


def far_ends(plan: Slice) -> list[dict[str, str]]:
    """Inner IPv4 addresses of the VPS behind each TUN of a client, as tunnel_ping takes them."""
    ends = ((tun["name"], inner_peer(tun)) for tun in plan["tuns"])
    return [{"device": device, "address": address} for device, address in ends if address is not None]


def server_ports(plan: Slice) -> dict[str, list[int]]:
    """UDP ports of each server instance of a host."""
    configs = {each["name"]: each["config"] for each in plan["instances"] if each["config"]["role"] == "server"}
    return {
        name: [port for port in (config["bind_port"], config.get("stripe_port")) if port is not None]
        for name, config in configs.items()
    }


def managed_links(listing: str, ours: list[str]) -> list[str]:
    """Links that somebody else has systemd-networkd configure, given `networkctl list --no-legend`."""
    rows = [line.split() for line in listing.splitlines()]
    return [row[1] for row in rows if len(row) >= 5 and row[4] != "unmanaged" and row[1] not in (*ours, "lo")]


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        return {
            "mpquic_configured_links": configured_links,
            "mpquic_far_ends": far_ends,
            "mpquic_guarded": guarded,
            "mpquic_instance_unit": instance_unit,
            "mpquic_managed_links": managed_links,
            "mpquic_optional_links": optional_links,
            "mpquic_passages": passages,
            "mpquic_resolved": resolved,
            "mpquic_router": router_slice,
            "mpquic_routing_rules": routing_rules,
            "mpquic_server_ports": server_ports,
            "mpquic_slice": host_slice,
            "mpquic_table_devices": table_devices,
            "mpquic_uci": uci_text,
            "mpquic_virtual_links": virtual_links,
        }
