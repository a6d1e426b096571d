"""A host as the preflight sees it, and what it finds."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from mpquic_plan import netdevs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from ipaddress import IPv4Address, IPv6Address


def plain_address(text: str) -> IPv4Address | IPv6Address:
    """Return an address as a socket or sshd shows it without its scope, an IPv4 one as such."""
    plain = ip_address(text.partition("%")[0])
    return getattr(plain, "ipv4_mapped", None) or plain


class Severity(Enum):
    """Whether a finding stops the host."""

    PROBLEM = "problem"
    NOTICE = "notice"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a person has to know: what is found where, and what to do about it."""

    code: str
    message: str
    severity: Severity = Severity.PROBLEM

    def accepted(self) -> Finding:
        """Return the same as a notice."""
        return replace(self, severity=Severity.NOTICE)


@dataclass(frozen=True, slots=True)
class Host:
    """A host: its inventory name, its slice of the plan, its survey, and how far its clock is ahead in seconds.

    `machine_ids` are those of the other hosts of the run, by inventory name. `foreign_links` are VLAN devices that
    somebody else makes.
    """

    name: str
    plan: Mapping[str, Any]
    survey: Mapping[str, Any]
    clock_ahead: float = 0.0
    machine_ids: Mapping[str, str] = field(default_factory=dict)
    foreign_links: frozenset[str] = frozenset()

    @property
    def is_client(self) -> bool:
        """Whether it is the client of a site."""
        return bool(self.plan["role"] == "client")

    @property
    def path(self) -> str:
        """Root of its variables, for messages."""
        return "site" if self.is_client else "vps"

    @property
    def first_run(self) -> bool:
        """Whether no run has come to the point of taking over its network."""
        return self.survey.get("taken_over") is None

    @property
    def tuns(self) -> list[str]:
        """Names of its TUN devices."""
        return [tun["name"] for tun in self.plan["tuns"]]

    @property
    def devices(self) -> list[str]:
        """Names of the devices that are ours: all of a client, the TUNs of a VPS."""
        links = [link for kind in ("management", "wans", "lans") for link in self.plan.get(kind, [])]
        # Below a VLAN there is a device that carries it.
        named = [name for link in links for name in (link["device"], netdevs.parent(link)) if name]
        return list(dict.fromkeys([*named, *self.tuns]))

    @property
    def public_device(self) -> str:
        """Name of the public device of a VPS, '' when it isn't known."""
        device: str = self.plan.get("public", {}).get("device", "")
        if device != "auto":
            return device
        routes = [route for route in self.survey["default_routes"] if route["family"] == 4]
        return str(routes[0]["device"]) if routes else ""

    @property
    def ssh_ports(self) -> list[int] | None:
        """The ports of sshd that stay open, None when they are those that it listens on."""
        ports = self.plan["firewall"]["ssh"]["ports"]
        return None if ports == "auto" else list(ports)
