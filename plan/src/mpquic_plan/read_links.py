"""From the variables of a site to its links: management interfaces, WANs, LANs and their VLANs."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network, ip_network
from typing import TYPE_CHECKING, Any

from mpquic_plan import reading, reference
from mpquic_plan.model import DhcpClient, DhcpServer, Lan, Management, StaticAddress, Wan

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mpquic_plan.reading import HostReader


def _lower(text: str | None) -> str | None:
    return None if text is None else text.lower()


def _name_or_none(text: str) -> str | None:
    return None if text == "none" else text


class LinkReader:
    """Reads the links of one site."""

    def __init__(self, reader: HostReader) -> None:
        self._reader = reader

    def wans(self) -> tuple[Wan, ...]:
        """Return the WANs of which enough is known."""
        return reading.sound(
            [self._wan(path, item) for path, item in self._reader.items(self._reader.value, "wans", "site")]
        )

    def management(self) -> Iterator[Management]:
        """Yield the management interfaces of which enough is known."""
        for path, item in self._reader.items(self._reader.value, "management", "site"):
            name = item["name"]
            vlan = item.get("vlan")
            place = (path, "management", name)
            parent = None
            if vlan:
                card = self._reader.matched("management", path, item, vlan.get("parent"))
                why = "state it, or which card it is by match"
                parent = card or self._reader.default(vlan, "parent", None, (f"{path}.vlan", *place[1:]), why)
                device = item.get("device", f"{parent}.{vlan['id']}")
            else:
                default = reference.MANAGEMENT_DEVICES.get(name)
                why = f"the reference site has no interface for {name}"
                card = self._reader.matched("management", path, item, item.get("device"))
                device = card or self._reader.default(item, "device", default, place, why)
            if device is None or (vlan and parent is None):
                continue
            yield Management(
                path=path,
                name=name,
                number=int(name.removeprefix("mgmt")),
                device=device,
                address=None if item["address"] == "dhcp" else IPv4Interface(item["address"]),
                address6=reading.interface6(item.get("address6")),
                gateway=reading.address(item.get("gateway")),
                dns=reading.sound(item["dns"]),
                parent=parent,
                vlan_id=vlan["id"] if vlan else None,
            )

    def _wan(self, path: str, item: Mapping[str, Any]) -> Wan | None:
        static, dhcp, vlan, name = item.get("static"), item.get("dhcp"), item.get("vlan"), item["name"]
        parent = None
        if vlan:
            card = self._reader.matched("wan", path, item, vlan.get("parent"))
            why = "state it, or which card it is by match"
            parent = card or self._reader.default(vlan, "parent", None, (f"{path}.vlan", "wans", name), why)
            if parent is None:
                return None
            device = item.get("device", f"{parent}.{vlan['id']}")
        else:
            card = self._reader.matched("wan", path, item, item.get("device"))
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
                reading.interface6(static.get("address6")),
                reading.address6(static.get("gateway6")),
                static["gateway_on_link"],
            ),
            dhcp=None if dhcp is None else self._dhcp(dhcp),
            mac=_lower(item.get("mac")),
            modem_prefixes=tuple(sorted({IPv4Network(text) for text in reading.sound(item["modem_prefixes"])})),
            modem_by_gateway=item["modem_route"] == "gateway",
            udp_gso=item["udp_gso"],
            classes=None if item["classes"] == "all" else reading.sound(item["classes"]),
            class_number=item.get("class_number"),
            parent=parent,
            vlan_id=vlan["id"] if vlan else None,
        )

    @staticmethod
    def _dhcp(item: Mapping[str, Any]) -> DhcpClient:
        return DhcpClient(item["client_id"].lower(), item.get("vendor_class"), item.get("hostname"))

    def lans(self) -> Iterator[Lan]:
        """Yield the LANs, each followed by its VLANs."""
        for path, item in self._reader.items(self._reader.value, "lans", "site"):
            name = item["name"]
            card = self._reader.matched("lan", path, item, item.get("device"))
            device = card or item.get("device", reference.LAN_DEVICES[name])
            tunnel = item.get("tunnel", "none" if "wan" in item else reference.LAN_TUNNELS[name])
            lan = self._lan(path, item, name, device, item.get("address", reference.LAN_ADDRESSES[name]), tunnel)
            yield lan
            for vlan_path, vlan in self._reader.items(item, "vlans", path):
                vlan_name = f"{name}.{vlan['id']}"
                address = self._reader.default(
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
            address6=reading.interface6(item.get("address6")),
            tunnel=_name_or_none(tunnel),
            wan=item.get("wan"),
            traffic_class=item.get("class"),
            states_way=parent is None or not {"tunnel", "class", "wan"}.isdisjoint(item),
            trust_dscp=item["trust_dscp"],
            router=reading.address(item.get("router")),
            router6=reading.address6(item.get("router6")),
            behind=tuple(ip_network(text) for text in reading.sound(item["behind"])),
            fallback=reading.fallback(item),
            dhcp_server=self._dhcp_server(item.get("dhcp_server")),
            parent=parent.device if parent else None,
            vlan_id=item.get("id"),
            pcp=item.get("pcp"),
        )

    @staticmethod
    def _dhcp_server(item: Mapping[str, Any] | None) -> DhcpServer | None:
        if item is None:
            return None
        return DhcpServer(
            reading.sound(item["dns"]),
            reading.address(item.get("first")),
            reading.address(item.get("last")),
            item["lease_s"],
        )
