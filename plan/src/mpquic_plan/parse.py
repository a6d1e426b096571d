"""From the hosts' variables to the model: defaults that follow from names are filled in, addresses parsed."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Any

from mpquic_plan import addressing, classes, reading, reference
from mpquic_plan.model import (
    Fleet,
    Listener,
    MatchRule,
    Opening,
    Router,
    RouterPolicy,
    RouterPort,
    Site,
    TrafficClass,
    Vps,
)
from mpquic_plan.problem import Problem
from mpquic_plan.read_links import LinkReader
from mpquic_plan.read_tunnels import SETTINGS, TunnelReader
from mpquic_plan.reading import HostReader
from mpquic_plan.schema import ROOTS, check

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def read_fleet(hosts: Mapping[str, Mapping[str, Any]]) -> tuple[Fleet, list[Problem]]:
    """Return the fleet that the hosts' variables `site` and `vps` describe, and what is wrong with their shape."""
    problems: list[Problem] = []
    sites: dict[str, Site] = {}
    vpses: dict[str, Vps] = {}
    unreadable: set[str] = set()
    for host in sorted(hosts):
        present = [root for root in ROOTS if root in hosts[host]]
        if len(present) == 2:
            problems.append(Problem(host, "vps", "a host is a site's client or a VPS; take away either site or vps"))
            unreadable.add(host)
            continue
        for root in present:
            checked = check(host, root, reference.complete(root, hosts[host][root]))
            problems += checked.problems
            if checked.value is None:
                unreadable.add(host)
                continue
            reader = HostReader(host, checked.value, checked)
            if root == "site":
                sites[host] = _SiteReader(reader).site()
            else:
                vpses[host] = _VpsReader(reader).vps()
            problems += reader.problems
    return Fleet(sites, vpses, frozenset(unreadable)), problems


def _rule(path: str, item: Mapping[str, Any]) -> MatchRule:
    ports = tuple(classes.port_range(value) for value in reading.sound(item.get("ports", [])))
    source_ports = tuple(classes.port_range(value) for value in reading.sound(item.get("source_ports", [])))
    protocols: tuple[int, ...] = ()
    if "protocol" in item:
        protocols = (classes.protocol_number(item["protocol"]),)
    elif ports or source_ports:
        protocols = (classes.PROTOCOLS["tcp"], classes.PROTOCOLS["udp"])
    return MatchRule(
        path=path,
        protocols=protocols,
        source_ports=source_ports,
        ports=ports,
        sources=tuple(ip_network(text) for text in reading.sound(item.get("sources", []))),
        destinations=tuple(ip_network(text) for text in reading.sound(item.get("destinations", []))),
        dscps=tuple(classes.dscp_number(value) for value in reading.sound(item.get("dscp", []))),
    )


class _SiteReader:
    """Reads the `site` of one host."""

    def __init__(self, reader: HostReader) -> None:
        self._reader = reader

    def site(self) -> Site:
        value, links = self._reader.value, LinkReader(self._reader)
        firewall = value["firewall"]
        management = tuple(links.management())
        traffic_classes = tuple(self._class(path, item) for path, item in self._reader.items(value, "classes", "site"))
        wans = links.wans()
        lans = tuple(links.lans())
        tunnels = TunnelReader(self._reader.host, value, self._reader.broken, self._reader.problems).tunnels(
            traffic_classes, wans
        )
        return Site(
            host=self._reader.host,
            name=value["name"],
            site_id=value["site_id"],
            vps=value.get("vps"),
            lan_mode=value["lan_mode"],
            egress=value.get("egress"),
            log_level=value["log_level"],
            ntp=reading.sound(value["ntp"]),
            classes=traffic_classes,
            management=management,
            wans=wans,
            lans=lans,
            tunnels=tuple(tunnels),
            ssh_ports=reading.ports(firewall["ssh_ports"]),
            ssh_from=reading.sound(firewall["ssh_from"]),
            openings=tuple(
                Opening(path, item["protocol"], reading.sound(item["ports"]), reading.sound(item["from"]))
                for path, item in self._reader.items(firewall, "openings", "site.firewall")
            ),
            forward_openings=tuple(self._reader.forward_openings(firewall, "site.firewall")),
            broken=self._reader.broken_names(),
            matches=tuple(self._reader.matches),
            router=self._router(value["openwrt"]) if "openwrt" in value else None,
        )

    def _router(self, item: Mapping[str, Any]) -> Router:
        path = "site.openwrt"
        return Router(
            path=path,
            host=item["host"],
            ports=tuple(
                RouterPort(place, port["lan"], port["device"])
                for place, port in self._reader.items(item, "ports", path)
            )
            if "ports" in item
            else None,
            zones=reading.sound(item["zones"]),
            policies=tuple(
                RouterPolicy(place, policy["class"], reading.sound(policy["lans"]), policy["balance"])
                for place, policy in self._reader.items(item, "policies", path)
            ),
            track=tuple(ip_address(text) for text in reading.sound(item["track"])),
            last_resort=item["last_resort"],
        )

    @staticmethod
    def _class(path: str, item: Mapping[str, Any]) -> TrafficClass:
        rate = item.get("max_rate")
        return TrafficClass(
            path=path,
            name=item["name"],
            slot=item["slot"],
            prefix=item["prefix"],
            catch_all=item["catch_all"],
            rules=tuple(
                _rule(f"{path}.match[{index}]", rule) for index, rule in enumerate(item["match"]) if rule is not None
            ),
            dscp=classes.dscp_number(item["dscp"]),
            low_latency=item["low_latency"],
            max_rate=None if rate is None else round(rate * 1_000_000),
            wan_weight=item["wan_weight"],
            wan_priority=item["wan_priority"],
            fallback=reading.fallback(item),
            settings={key: item[key] for key in SETTINGS if key in item},
        )


class _VpsReader:
    """Reads the `vps` of one host."""

    def __init__(self, reader: HostReader) -> None:
        self._reader = reader

    def vps(self) -> Vps:
        value = self._reader.value
        listeners = tuple(self._listeners())
        return Vps(
            host=self._reader.host,
            address=IPv4Address(value["address"]),
            address6=reading.address6(value.get("address6")),
            device=None if value["device"] == "auto" else value["device"],
            hostnames=reading.sound(value.get("hostnames", [self._reader.host])),
            ssh_ports=reading.ports(value["ssh_ports"]),
            listeners=listeners,
            site_to_site=value["site_to_site"],
            tunnel_services=tuple(
                Opening(path, item["protocol"], reading.sound(item["ports"]), ())
                for path, item in self._reader.items(value, "tunnel_services", "vps")
            ),
            openings=tuple(
                Opening(path, item["protocol"], reading.sound(item["ports"]), reading.sound(item["sources"]))
                for path, item in self._reader.items(value, "openings", "vps")
            ),
            forward_openings=tuple(self._reader.forward_openings(value, "vps")),
            revoked_certificates=reading.sound(value["revoked_certificates"]),
            log_level=value["log_level"],
            ntp=reading.sound(value["ntp"]),
            broken=self._reader.broken_names(),
        )

    def _listeners(self) -> Iterator[Listener]:
        ula = IPv6Network(self._reader.value["ula_prefix"])
        for path, item in self._reader.items(self._reader.value, "listeners", "vps"):
            name = item["name"]
            place = (path, "listeners", name)
            why = f"only mpq1 to mpq6, mt4 to mt6 and mp1 have a default, and this is '{name}'"
            port = self._reader.default(item, "port", reference.LISTENER_PORTS.get(name), place, why)
            subnet_text = self._reader.default(item, "subnet", reference.LISTENER_SUBNETS.get(name), place, why)
            if port is None or subnet_text is None:
                continue
            subnet = IPv4Network(subnet_text)
            subnet6 = item.get("subnet6")
            yield Listener(
                path=path,
                name=name,
                port=port,
                stripe_port=item.get("stripe_port", reference.stripe_port(port)) if item["stripe_enabled"] else None,
                tun=item.get("tun", name),
                subnet=subnet,
                subnet6=IPv6Network(subnet6) if subnet6 else addressing.embedded(ula, subnet),
                tunnels_per_site=item.get("tunnels_per_site", reference.TUNNELS_PER_SITE.get(name, 1)),
                tun_mtu=item["tun_mtu"],
            )
