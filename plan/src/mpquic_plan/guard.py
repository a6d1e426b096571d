"""What mpquic-guard keeps in place on a host, read from its slice: only what its files make without asking anybody.

The shape is that of `mpquic.guard.wanted`.
"""

from __future__ import annotations

from ipaddress import ip_interface, ip_network
from itertools import chain
from typing import TYPE_CHECKING, Any

from mpquic_plan import tables
from mpquic_plan.wans import DHCP_GATEWAY

if TYPE_CHECKING:
    from collections.abc import Iterator

Slice = dict[str, Any]
FILTER_FILE = "/etc/mpquic/nftables.nft"


def kept(plan: Slice, public_device: str) -> dict[str, Any]:
    """Return the content of guard.json for a slice that has the names of the host's cards.

    `public_device` is what `auto` means on a VPS; empty where that isn't known.
    """
    # Only where systemd-networkd waits for carrier is the configuration of a link absent without it.
    waiting = [(link, True) for link in [*plan.get("management", []), *plan.get("wans", [])]]
    always = [(link, False) for link in [*plan.get("lans", []), *plan["tuns"]]]
    links = [*waiting, *always]
    between = [*_public(plan, public_device), *(_device(link) for link in [*plan.get("lans", []), *plan["tuns"]])]
    wans = [_device(wan) for wan in plan.get("wans", [])]
    return {
        "filter_file": FILTER_FILE,
        "rules": [
            *_kernel_rules(),
            *chain.from_iterable(_rules(link, carrier=carrier) for link, carrier in links),
        ],
        "routes": list(chain.from_iterable(_routes(link, carrier=carrier) for link, carrier in links)),
        "addresses": list(chain.from_iterable(_addresses(link, plan, carrier=carrier) for link, carrier in links)),
        "tuns": [{"name": tun["name"], "mtu": tun["mtu"]} for tun in plan["tuns"]],
        "parameters": dict(
            chain.from_iterable(_each(name, value, [*wans, *between]) for name, value in plan["sysctl"].items())
        ),
        "forwarding": _forwarding(plan["forwarding"], between),
        "masqueraded": [
            {"device": device, "prefix": prefix} for device, prefix in sorted(_masqueraded(plan, public_device))
        ],
    }


def _device(link: Slice) -> str:
    return str(link.get("device", link["name"]))


def _kernel_rules() -> Iterator[dict[str, Any]]:
    """Give the rules that every kernel begins with: `ip rule flush` takes them away, and with them the main table."""
    for family, priority, table in tables.KERNEL_RULES:
        yield {
            "family": family,
            "priority": priority,
            "table": table,
            "source": "",
            "incoming": "",
            "outgoing": "",
            "mark": 0,
            "mask": 0,
            "suppress_prefix_length": None,
            "device": "lo",
            "carrier": False,
        }


def _rules(link: Slice, *, carrier: bool) -> Iterator[dict[str, Any]]:
    for rule in link.get("rules", []):
        for family in (4, 6):
            if rule["family"] in ("both", f"ipv{family}"):
                yield {
                    "family": family,
                    "priority": rule["priority"],
                    "table": rule["table"],
                    "source": rule["from"] or "",
                    "incoming": rule["incoming_interface"] or "",
                    "outgoing": rule["outgoing_interface"] or "",
                    "mark": rule["mark"] or 0,
                    "mask": rule["mask"] or 0,
                    "suppress_prefix_length": rule["suppress_prefix_length"],
                    "device": _device(link),
                    "carrier": carrier,
                }


def _routes(link: Slice, *, carrier: bool) -> Iterator[dict[str, Any]]:
    for route in link["routes"]:
        if route["gateway"] == DHCP_GATEWAY:
            continue  # of a lease, which is systemd-networkd's alone
        yield {
            "family": ip_network(route["destination"]).version,
            "destination": route["destination"],
            "table": tables.MAIN_TABLE if route["table"] is None else route["table"],
            "type": route["type"],
            "gateway": route["gateway"] or "",
            "on_link": route["on_link"],
            "metric": route["metric"] or 0,
            "device": _device(link),
            "carrier": carrier,
        }


def _addresses(link: Slice, plan: Slice, *, carrier: bool) -> Iterator[dict[str, Any]]:
    for address in link["addresses"]:
        yield {
            "device": _device(link),
            "address": str(ip_interface(address)),
            "prefix_route": link not in plan.get("wans", []),
            "detect_duplicates": link not in plan["tuns"],
            "carrier": carrier,
        }


def _public(plan: Slice, public_device: str) -> list[str]:
    """The device of a VPS that leads to the Internet, where it is known."""
    device = plan.get("public", {}).get("device", "")
    return [found] if (found := public_device if device == "auto" else device) else []


def _masqueraded(plan: Slice, public_device: str) -> set[tuple[str, str]]:
    """Devices, and the prefixes whose packets leave by them with another source address."""
    rules = plan["firewall"]
    if plan["role"] == "vps":
        prefixes4, prefixes6 = rules["masquerade4"], rules["masquerade6"]
        return {(device, prefix) for device in _public(plan, public_device) for prefix in [*prefixes4, *prefixes6]}
    lans = plan["lans"]
    prefixes = {str(ip_interface(address).network) for lan in lans for address in lan["addresses"]}
    prefixes |= {route["destination"] for lan in lans for route in lan["routes"] if route["gateway"] is not None}
    return {(device, prefix) for device in rules["masquerade_devices"] for prefix in prefixes}


def _each(name: str, value: int, devices: list[str]) -> Iterator[tuple[str, int]]:
    """Give a parameter by the name of its file; `*` stands for each device of ours, as others' are theirs."""
    path = name.replace(".", "/")
    if "*" not in path:
        yield path, value
        return
    for device in devices:
        yield path.replace("*", device), value


def _forwarding(parameters: dict[str, int], devices: list[str]) -> dict[str, int]:
    found = {name.replace(".", "/"): value for name, value in parameters.items()}
    # The kernel copies the parameter of all to each device, where it can be changed by itself.
    for family, whole in (("ipv4", "net.ipv4.ip_forward"), ("ipv6", "net.ipv6.conf.all.forwarding")):
        if whole in parameters:
            found |= {f"net/{family}/conf/{device}/forwarding": parameters[whole] for device in devices}
    return found
