"""From the hosts' variables to the model: defaults that follow from names are filled in, addresses parsed."""

from __future__ import annotations

from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import TYPE_CHECKING, Any, TypeVar

from mpquic_plan import addressing, classes, reference
from mpquic_plan.matching import token
from mpquic_plan.model import (
    DhcpClient,
    DhcpServer,
    Fleet,
    ForwardOpening,
    Lan,
    Listener,
    Management,
    Match,
    MatchRule,
    Opening,
    Router,
    RouterPolicy,
    RouterPort,
    Site,
    StaticAddress,
    TrafficClass,
    Vps,
    Wan,
)
from mpquic_plan.problem import Problem
from mpquic_plan.read_tunnels import SETTINGS, TunnelReader
from mpquic_plan.schema import ROOTS, Checked, check

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

T = TypeVar("T")


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
            reader = _Reader(host, root, checked.value, checked)
            if root == "site":
                sites[host] = reader.site()
            else:
                vpses[host] = reader.vps()
            problems += reader.problems
    return Fleet(sites, vpses, frozenset(unreadable)), problems


def _address(text: str | None) -> IPv4Address | None:
    return None if text is None else IPv4Address(text)


def _address6(text: str | None) -> IPv6Address | None:
    return None if text is None else IPv6Address(text)


def _interface6(text: str | None) -> IPv6Interface | None:
    return None if text is None else IPv6Interface(text)


def _lower(text: str | None) -> str | None:
    return None if text is None else text.lower()


def _name_or_none(text: str) -> str | None:
    return None if text == "none" else text


def _fallback(item: Mapping[str, Any]) -> str | None:
    """Return what an item states as fallback; `none` is another word for `block`."""
    stated = item.get("fallback")
    return reference.BLOCK if stated == "none" else stated


def _sound(items: list[T | None]) -> tuple[T, ...]:
    return tuple(item for item in items if item is not None)


def _ports(value: str | list[int | None]) -> tuple[int, ...] | None:
    return None if isinstance(value, str) else _sound(value)


def _rule(path: str, item: Mapping[str, Any]) -> MatchRule:
    ports = tuple(classes.port_range(value) for value in _sound(item.get("ports", [])))
    source_ports = tuple(classes.port_range(value) for value in _sound(item.get("source_ports", [])))
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
        sources=tuple(ip_network(text) for text in _sound(item.get("sources", []))),
        destinations=tuple(ip_network(text) for text in _sound(item.get("destinations", []))),
        dscps=tuple(classes.dscp_number(value) for value in _sound(item.get("dscp", []))),
    )


class _Reader:
    """Reads one host's `site` or `vps`; collects what can't be filled in."""

    def __init__(self, host: str, root: str, value: dict[str, Any], checked: Checked) -> None:
        self.host = host
        self.root = root
        self.value = value
        self.broken = {key: set(names) for key, names in checked.broken.items()}
        self.problems: list[Problem] = []
        self.matches: list[Match] = []

    def _default(self, item: Mapping[str, Any], key: str, default: Any, place: tuple[str, str, str], why: str) -> Any:
        """Return a key's value or its default; `place` is (path, list, name) of the item, for the problem without."""
        path, collection, name = place
        value = item.get(key, default)
        if value is None:
            self.problems.append(Problem(self.host, f"{path}.{key}", f"is missing; {why}"))
            self.broken.setdefault(collection, set()).add(name)
        return value

    def _items(self, holder: Mapping[str, Any], key: str, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for index, item in enumerate(holder[key]):
            if item is not None:
                yield f"{path}.{key}[{index}]", item

    def _matched(self, kind: str, path: str, item: Mapping[str, Any], stated: str | None) -> str | None:
        """Return the token of an item's card if it is known by its MAC address; `stated` is the name of that card."""
        if "match" not in item:
            return None
        mac = item["match"]["mac"].lower()
        name = item["name"]
        self.matches.append(Match(f"{path}.match", kind, name, mac, stated or name, carries_vlan="vlan" in item))
        return token(mac)

    def _broken(self) -> dict[str, frozenset[str]]:
        return {key: frozenset(names) for key, names in sorted(self.broken.items())}

    def site(self) -> Site:
        value = self.value
        firewall = value["firewall"]
        management = tuple(self._management())
        traffic_classes = tuple(self._class(path, item) for path, item in self._items(value, "classes", "site"))
        wans = _sound([self._wan(path, item) for path, item in self._items(value, "wans", "site")])
        lans = tuple(self._lans())
        tunnels = TunnelReader(self.host, value, self.broken, self.problems).tunnels(traffic_classes, wans)
        return Site(
            host=self.host,
            name=value["name"],
            site_id=value["site_id"],
            vps=value.get("vps"),
            lan_mode=value["lan_mode"],
            egress=value.get("egress"),
            log_level=value["log_level"],
            ntp=_sound(value["ntp"]),
            classes=traffic_classes,
            management=management,
            wans=wans,
            lans=lans,
            tunnels=tuple(tunnels),
            ssh_ports=_ports(firewall["ssh_ports"]),
            ssh_from=_sound(firewall["ssh_from"]),
            openings=tuple(
                Opening(path, item["protocol"], _sound(item["ports"]), _sound(item["from"]))
                for path, item in self._items(firewall, "openings", "site.firewall")
            ),
            forward_openings=tuple(self._forward_openings(firewall, "site.firewall")),
            broken=self._broken(),
            matches=tuple(self.matches),
            router=self._router(value["openwrt"]) if "openwrt" in value else None,
        )

    def _router(self, item: Mapping[str, Any]) -> Router:
        path = "site.openwrt"
        return Router(
            path=path,
            host=item["host"],
            ports=tuple(
                RouterPort(place, port["lan"], port["device"]) for place, port in self._items(item, "ports", path)
            )
            if "ports" in item
            else None,
            zones=_sound(item["zones"]),
            policies=tuple(
                RouterPolicy(place, policy["class"], _sound(policy["lans"]), policy["balance"])
                for place, policy in self._items(item, "policies", path)
            ),
            track=tuple(ip_address(text) for text in _sound(item["track"])),
            last_resort=item["last_resort"],
        )

    def _forward_openings(self, holder: Mapping[str, Any], path: str) -> Iterator[ForwardOpening]:
        for item_path, item in self._items(holder, "forward_openings", path):
            yield ForwardOpening(
                path=item_path,
                source=item["from"],
                target=item["to"],
                sources=tuple(ip_network(text) for text in _sound(item["sources"])),
                destinations=tuple(ip_network(text) for text in _sound(item["destinations"])),
                protocol=item.get("protocol"),
                ports=_sound(item.get("ports", [])),
            )

    def _management(self) -> Iterator[Management]:
        for path, item in self._items(self.value, "management", "site"):
            name = item["name"]
            vlan = item.get("vlan")
            place = (path, "management", name)
            parent = None
            if vlan:
                card = self._matched("management", path, item, vlan.get("parent"))
                why = "state it, or which card it is by match"
                parent = card or self._default(vlan, "parent", None, (f"{path}.vlan", *place[1:]), why)
                device = item.get("device", f"{parent}.{vlan['id']}")
            else:
                default = reference.MANAGEMENT_DEVICES.get(name)
                why = f"the reference site has no interface for {name}"
                card = self._matched("management", path, item, item.get("device"))
                device = card or self._default(item, "device", default, place, why)
            if device is None or (vlan and parent is None):
                continue
            yield Management(
                path=path,
                name=name,
                number=int(name.removeprefix("mgmt")),
                device=device,
                address=None if item["address"] == "dhcp" else IPv4Interface(item["address"]),
                address6=_interface6(item.get("address6")),
                gateway=_address(item.get("gateway")),
                dns=_sound(item["dns"]),
                parent=parent,
                vlan_id=vlan["id"] if vlan else None,
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
            fallback=_fallback(item),
            settings={key: item[key] for key in SETTINGS if key in item},
        )

    def _wan(self, path: str, item: Mapping[str, Any]) -> Wan | None:
        static, dhcp, vlan, name = item.get("static"), item.get("dhcp"), item.get("vlan"), item["name"]
        parent = None
        if vlan:
            card = self._matched("wan", path, item, vlan.get("parent"))
            why = "state it, or which card it is by match"
            parent = card or self._default(vlan, "parent", None, (f"{path}.vlan", "wans", name), why)
            if parent is None:
                return None
            device = item.get("device", f"{parent}.{vlan['id']}")
        else:
            card = self._matched("wan", path, item, item.get("device"))
            device = card or item.get("device", reference.WAN_DEVICES[name])
        return Wan(
            path=path,
            name=name,
            enabled=item["enabled"],
            number=int(name.removeprefix("wan")),
            device=device,
            mtu=item["mtu"],
            ipv6=item["ipv6"],
            static=static
            and StaticAddress(
                IPv4Interface(static["address"]),
                IPv4Address(static["gateway"]),
                _interface6(static.get("address6")),
                _address6(static.get("gateway6")),
                static["gateway_on_link"],
            ),
            dhcp=None if dhcp is None else self._dhcp(dhcp),
            mac=_lower(item.get("mac")),
            modem_prefixes=tuple(sorted({IPv4Network(text) for text in _sound(item["modem_prefixes"])})),
            modem_by_gateway=item["modem_route"] == "gateway",
            udp_gso=item["udp_gso"],
            classes=None if item["classes"] == "all" else _sound(item["classes"]),
            class_number=item.get("class_number"),
            parent=parent,
            vlan_id=vlan["id"] if vlan else None,
        )

    @staticmethod
    def _dhcp(item: Mapping[str, Any]) -> DhcpClient:
        return DhcpClient(item["client_id"].lower(), item.get("vendor_class"), item.get("hostname"))

    def _lans(self) -> Iterator[Lan]:
        for path, item in self._items(self.value, "lans", "site"):
            name = item["name"]
            card = self._matched("lan", path, item, item.get("device"))
            device = card or item.get("device", reference.LAN_DEVICES[name])
            tunnel = item.get("tunnel", "none" if "wan" in item else reference.LAN_TUNNELS[name])
            lan = self._lan(path, item, name, device, item.get("address", reference.LAN_ADDRESSES[name]), tunnel)
            yield lan
            for vlan_path, vlan in self._items(item, "vlans", path):
                vlan_name = f"{name}.{vlan['id']}"
                address = self._default(
                    vlan,
                    "address",
                    reference.vlan_address(vlan["id"]),
                    (vlan_path, "lans", vlan_name),
                    f"VLAN {vlan['id']} must state one, since ids above 255 have no default",
                )
                if address is not None:
                    vlan_device = vlan.get("device", f"{device}.{vlan['id']}")
                    yield self._lan(
                        vlan_path, vlan, vlan_name, vlan_device, address, vlan.get("tunnel", "none"), parent=lan
                    )

    def _lan(
        self,
        path: str,
        item: Mapping[str, Any],
        name: str,
        device: str,
        address: str,
        tunnel: str,
        parent: Lan | None = None,
    ) -> Lan:
        return Lan(
            path=path,
            name=name,
            enabled=item["enabled"] and (parent is None or parent.enabled),
            number=parent.number if parent else int(name.removeprefix("lan")),
            device=device,
            address=IPv4Interface(address),
            address6=_interface6(item.get("address6")),
            tunnel=_name_or_none(tunnel),
            wan=item.get("wan"),
            traffic_class=item.get("class"),
            states_way=parent is None or not {"tunnel", "class", "wan"}.isdisjoint(item),
            trust_dscp=item["trust_dscp"],
            router=_address(item.get("router")),
            router6=_address6(item.get("router6")),
            behind=tuple(ip_network(text) for text in _sound(item["behind"])),
            fallback=_fallback(item),
            dhcp_server=self._dhcp_server(item.get("dhcp_server")),
            parent=parent.device if parent else None,
            vlan_id=item.get("id"),
            pcp=item.get("pcp"),
        )

    @staticmethod
    def _dhcp_server(item: Mapping[str, Any] | None) -> DhcpServer | None:
        if item is None:
            return None
        return DhcpServer(_sound(item["dns"]), _address(item.get("first")), _address(item.get("last")), item["lease_s"])

    def vps(self) -> Vps:
        value = self.value
        listeners = tuple(self._listeners())
        return Vps(
            host=self.host,
            address=IPv4Address(value["address"]),
            address6=_address6(value.get("address6")),
            device=None if value["device"] == "auto" else value["device"],
            hostnames=_sound(value.get("hostnames", [self.host])),
            ssh_ports=_ports(value["ssh_ports"]),
            listeners=listeners,
            site_to_site=value["site_to_site"],
            tunnel_services=tuple(
                Opening(path, item["protocol"], _sound(item["ports"]), ())
                for path, item in self._items(value, "tunnel_services", "vps")
            ),
            openings=tuple(
                Opening(path, item["protocol"], _sound(item["ports"]), _sound(item["sources"]))
                for path, item in self._items(value, "openings", "vps")
            ),
            forward_openings=tuple(self._forward_openings(value, "vps")),
            revoked_certificates=_sound(value["revoked_certificates"]),
            log_level=value["log_level"],
            ntp=_sound(value["ntp"]),
            broken=self._broken(),
        )

    def _listeners(self) -> Iterator[Listener]:
        ula = IPv6Network(self.value["ula_prefix"])
        for path, item in self._items(self.value, "listeners", "vps"):
            name = item["name"]
            place = (path, "listeners", name)
            why = f"only mpq1 to mpq6, mt4 to mt6 and mp1 have a default, and this is '{name}'"
            port = self._default(item, "port", reference.LISTENER_PORTS.get(name), place, why)
            subnet_text = self._default(item, "subnet", reference.LISTENER_SUBNETS.get(name), place, why)
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
