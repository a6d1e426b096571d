"""What the guard keeps in place, as the roles write it into `/etc/mpquic/guard.json`. What isn't in it isn't wanted.

Each thing names the device in whose file systemd-networkd finds it: it is wanted only while that device is there.
"""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal, TypeAlias

import msgspec

Family = Literal[4, 6]
RouteType = Literal["unicast", "blackhole", "unreachable", "prohibit"]
Number = Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)]
"""What an attribute of rtnetlink can carry."""


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A routing rule. With `carrier` systemd-networkd has it in place only while its device has carrier."""

    family: Family
    priority: Number
    table: Number
    source: str = ""
    incoming: str = ""
    outgoing: str = ""
    mark: Number = 0
    mask: Number = 0
    """Bits of the packet mark that it looks at, and their value; without any, 0."""
    suppress_prefix_length: Number | None = None
    device: str = ""
    carrier: bool = False

    @property
    def words(self) -> str:
        """The rule as people read it."""
        parts = [f"rule ipv{self.family} {self.priority}:"]
        for name, value in (("from", self.source), ("iif", self.incoming), ("oif", self.outgoing)):
            parts += [name, value] if value else []
        parts += ["fwmark", f"{self.mark:#x}/{self.mask:#x}"] if self.mask else []
        return " ".join([*parts, "lookup", str(self.table)])


class Route(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A static route; `device` is where it leads to, or in whose file it is when its type leads nowhere."""

    family: Family
    destination: str
    table: Number
    type: RouteType = "unicast"
    gateway: str = ""
    on_link: bool = False
    metric: Number = 0
    device: str
    carrier: bool = False

    @property
    def words(self) -> str:
        """The route as people read it."""
        kind = "" if self.type == "unicast" else f"{self.type} "
        way = f" dev {self.device}" if self.type == "unicast" else ""
        return f"route {kind}{self.destination}{way} table {self.table}"


class Address(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A static address. Without `prefix_route` the kernel makes no route to its subnet."""

    device: str
    address: str
    prefix_route: bool = True
    detect_duplicates: bool = True
    carrier: bool = False

    @property
    def words(self) -> str:
        """The address as people read it."""
        return f"address {self.address} dev {self.device}"


class Tun(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A TUN device that exists and is up; `mtu` in bytes."""

    name: str
    mtu: Number

    @property
    def words(self) -> str:
        """The device as people read it."""
        return f"device {self.name}"


class TunState(msgspec.Struct, frozen=True, kw_only=True):
    """That a TUN device is up and has its MTU (bytes)."""

    name: str
    mtu: Number

    @property
    def words(self) -> str:
        """The state as people read it."""
        return f"device {self.name} up, mtu {self.mtu}"


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """A kernel parameter by the name of its file below /proc/sys."""

    name: str
    value: str

    @property
    def words(self) -> str:
        """The parameter as people read it."""
        return f"{self.name} {self.value}"


class Masqueraded(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A prefix whose packets leave by a device with another source address, or not at all."""

    device: str
    prefix: str


Thing: TypeAlias = Rule | Route | Address | Tun | TunState | Parameter


class Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole file."""

    rules: list[Rule] = []
    routes: list[Route] = []
    addresses: list[Address] = []
    tuns: list[Tun] = []
    parameters: dict[str, int] = {}
    forwarding: dict[str, int] = {}
    """Parameters that are 0 while the packet filter isn't loaded."""
    filter_file: str = ""
    """What nft(8) loads; empty where no table is looked after."""
    masqueraded: list[Masqueraded] = []


class WantedError(Exception):
    """The file is not what the roles write; the text says where it's wrong."""


def parse(data: bytes) -> Wanted:
    """Read the content of guard.json; WantedError."""
    try:
        wanted = msgspec.json.decode(data, type=Wanted)
        for rule in wanted.rules:
            if rule.source:
                ipaddress.ip_network(rule.source)
        for route in wanted.routes:
            ipaddress.ip_network(route.destination)
            if route.gateway:
                ipaddress.ip_address(route.gateway)
        for address in wanted.addresses:
            ipaddress.ip_interface(address.address)
        for masqueraded in wanted.masqueraded:
            ipaddress.ip_network(masqueraded.prefix)
        for name in (*wanted.parameters, *wanted.forwarding):
            if ".." in name or not name.startswith("net/"):
                raise WantedError(f"{name} is no parameter below net/")
    except (msgspec.DecodeError, ValueError) as error:
        raise WantedError(str(error)) from error
    return wanted
