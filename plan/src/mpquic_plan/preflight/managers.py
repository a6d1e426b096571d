"""Who else configures the network of a host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mpquic_plan.preflight import networkd_files
from mpquic_plan.preflight.finding import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mpquic_plan.preflight.finding import Host

FOREIGN: Final = "foreign-network"
RESOLVED: Final = "/run/systemd/resolve/"
OURS: Final = "/etc/systemd/network/*-mpquic-*"
KEPT: Final = "/var/lib/mpquic/before"
"""Folder on the host that keeps what was taken over, below its former path."""
_TUN: Final[dict[str, Any]] = {"kind": "tun", "mac": "", "permanent_mac": "", "altnames": []}


@dataclass(frozen=True, slots=True)
class TakeOver:
    """What the run takes over on a client: files of systemd-networkd and udev, and programs by their names."""

    files: tuple[str, ...]
    managers: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.files or self.managers)


def to_take_over(host: Host) -> TakeOver:
    """Return who else configures the interfaces of a client; nothing on a VPS, whose network stays with its owner."""
    if not host.is_client:
        return TakeOver((), ())
    links = host.survey["links"]
    return TakeOver(
        tuple(_files_for(host, {device: links.get(device) for device in host.devices})), tuple(_managers(host))
    )


def _files_for(host: Host, devices: Mapping[str, Mapping[str, Any] | None]) -> list[str]:
    """Return the foreign files that are for one of these devices."""
    found = []
    for file in host.survey["network_files"]:
        path, text = file["path"], file["text"]
        if path.endswith(".netdev"):
            concerned = networkd_files.makes(text) in devices
        elif path.endswith(".link") and networkd_files.names_link(text) is not None:
            # By its names the variables know a device: without the file it has another one at the next boot.
            concerned = False
        else:
            concerned = any(networkd_files.matches(text, device, link) for device, link in devices.items())
        if concerned:
            found.append(path)
    return found


def _managers(host: Host) -> Iterator[str]:
    found = host.survey["managers"]
    devices = set(host.devices)
    ifupdown = found["ifupdown"]
    if ifupdown["installed"] and (host.first_run or any(devices & set(file["devices"]) for file in ifupdown["files"])):
        yield "ifupdown"
    for name in ("NetworkManager", "dhcpcd"):
        if found[name]["active"] or found[name]["enabled"] in ("enabled", "enabled-runtime"):
            yield name
    netplan = found["netplan"]
    if netplan["installed"] and not netplan["generator_masked"]:
        yield "netplan"
    if host.survey["cloud_network"]:
        yield "cloud-init"


def network_is_ours(host: Host) -> Iterator[Finding]:
    """The first run takes the network over from whoever has it and says so; later, it's somebody's doing."""
    found = to_take_over(host)
    if not found:
        return
    what = ", ".join([*found.managers, *found.files])
    if host.first_run:
        others = [name for name in host.survey.get("purged", []) if name != "ifupdown"]
        yield Finding(
            FOREIGN,
            f"systemd-networkd takes the network over from {what}; what was there is kept in {KEPT}"
            + (f"; packages that need ifupdown are purged with it: {', '.join(others)}" if others else ""),
            Severity.NOTICE,
        )
        return
    yield Finding(
        FOREIGN,
        f"{what} configures interfaces of this site again, which systemd-networkd has by {OURS}: remove it, or "
        f"let this run take it over (mpquic_accept={FOREIGN}; what is there is kept in {KEPT})",
    )


def names_are_resolved(host: Host) -> Iterator[Finding]:
    """Whoever writes the list of DNS servers at each boot isn't taken over, or somebody else writes it."""
    path = host.survey.get("resolv_conf", "")
    if not host.is_client or host.plan["resolvers"] or not path.startswith("/run/") or path.startswith(RESOLVED):
        return
    yield Finding(
        "resolv-conf",
        f"/etc/resolv.conf leads to {path}, which nobody writes at a boot once systemd-networkd has the network: state "
        "site.management[].dns, or install systemd-resolved, for servers by lease as well",
        Severity.NOTICE,
    )


def tunnels_are_ours(host: Host) -> Iterator[Finding]:
    """On a VPS, no file of somebody else configures a TUN device of ours."""
    if host.is_client:
        return
    # They need not be there yet, and what is said of Ethernet isn't for them.
    for path in _files_for(host, dict.fromkeys(host.tuns, _TUN)):
        if path.endswith(".link"):
            # udev's settings of speed, wake-up or address don't hurt a TUN device.
            continue
        yield Finding(
            "foreign-tunnel-file",
            f"{path} is for TUN devices of ours, too ({', '.join(host.tuns)}): give its [Match] the name of the "
            "interface that it is meant for",
        )
