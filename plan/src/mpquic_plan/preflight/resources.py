"""Clock, disk, memory and kernel of a host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mpquic_plan.preflight.finding import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mpquic_plan.preflight.finding import Host

CLOCK_NAMED: Final = 300.0
"""Seconds of difference from the controller's clock that are told."""
CLOCK_STOPS: Final = 20 * 3600.0
"""Seconds at which certificates would not hold: they are valid from a day before they are issued."""

MIB: Final = 1 << 20
ROOM: Final = {
    "/": (16, "the system"),
    "/etc": (4, "configuration"),
    "/opt": (160, "two releases of the daemon"),
    "/var/lib": (32, "the archive of a release"),
    "/var/tmp": (4, "private folders of services"),
    "/tmp": (16, "the installation of a release"),
    "/run": (4, "sockets and states"),
}
"""MiB that must be free for root in each folder, and what for. Folders of one file system share the largest."""
LATER: Final = {"/opt": (80, "another release of the daemon")}
"""What else is needed where there is a release already: not the room that it has taken."""
INODES: Final = 5000
MEMORY_STOPS: Final = 400 * MIB


SYSTEMS: Final = {"debian": 12, "ubuntu": 24}


def system_is_supported(host: Host) -> Iterator[Finding]:
    """It runs a Debian or an Ubuntu that the roles know, with systemd."""
    system = host.survey["system"]
    version = str(system["VERSION_ID"]).partition(".")[0]
    oldest = SYSTEMS.get(system["ID"])
    supported = oldest is not None and (not version or (version.isdecimal() and int(version) >= oldest))
    if not supported or system["init"] != "systemd" or not system["apt"]:
        init = system["init"] or "an unknown process"
        yield Finding(
            "system",
            f"{system['PRETTY_NAME'] or 'an unknown system'} with {init} as its first process; Debian 12 or newer, or "
            "Ubuntu 24.04 or newer, with systemd and apt is needed: reinstall it, or take it out of the inventory",
        )


def clock_is_right(host: Host) -> Iterator[Finding]:
    """The clock agrees with the controller's, or certificates aren't valid on the host."""
    ahead = host.clock_ahead
    if abs(ahead) <= CLOCK_NAMED:
        return
    side = "ahead of" if ahead > 0 else "behind"
    text = f"the clock is {_duration(abs(ahead))} {side} the controller's"
    if abs(ahead) < CLOCK_STOPS:
        yield Finding("clock", f"{text}; set ntp, or look at `timedatectl` on both", Severity.NOTICE)
    else:
        yield Finding(
            "clock",
            f"{text}: certificates would be judged by a wrong time. Set whichever clock is wrong "
            "(`timedatectl set-ntp true`), then run again; mpquic_accept=clock goes on all the same",
        )


def _duration(seconds: float) -> str:
    for size, name in ((365 * 86400, "years"), (86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} seconds"


def disk_has_room(host: Host) -> Iterator[Finding]:
    """There is room for what the run writes."""
    told: set[object] = set()
    room = {**ROOM, **LATER} if host.survey["ours"] else ROOM
    for folder, (needed, purpose) in sorted(room.items(), key=lambda item: -item[1][0]):
        free = host.survey["disk"].get(folder)
        if free is None or free["device"] in told:
            continue
        if free["bytes"] < needed * MIB:
            told.add(free["device"])
            have = free["bytes"] / MIB
            yield Finding(
                "disk-full",
                f"{folder} has {have:.0f} MiB free, and {needed} MiB are needed for {purpose}; make room there",
            )
        elif 0 <= free["inodes"] < INODES:
            told.add(free["device"])
            yield Finding(
                "disk-full", f"{folder} has {free['inodes']} inodes free, and {INODES} are needed; delete files there"
            )


def disk_is_usable(host: Host) -> Iterator[Finding]:
    """Where the run writes it may write, and programs may be run from where they are installed."""
    told: set[object] = set()
    # Not `/` itself, which may be read-only below folders that aren't.
    for folder in ("/etc", "/opt", "/run", "/var/lib"):
        found = host.survey["disk"].get(folder, {})
        if found.get("read_only") and found["device"] not in told:
            told.add(found["device"])
            yield Finding(
                "read-only",
                f"{folder} is on a file system that is mounted read-only, as the kernel does after errors of a disk "
                "(`journalctl --dmesg`), or an image for testing: mount it for writing",
            )
    if host.survey["disk"].get("/opt", {}).get("noexec"):
        yield Finding(
            "read-only",
            "/opt is mounted with noexec, and the daemon is installed there: mount it with exec",
        )


def memory_is_enough(host: Host) -> Iterator[Finding]:
    """The host has the memory that the tunnels need."""
    memory = host.survey["memory"]
    if 0 < memory < MEMORY_STOPS:
        yield Finding(
            "memory",
            f"the host has {memory / MIB:.0f} MiB of memory, and {MEMORY_STOPS // MIB} are needed; give the machine "
            "more, or go on with mpquic_accept=memory",
        )


def kernel_has_tun(host: Host) -> Iterator[Finding]:
    """Tunnels can be made."""
    if not host.survey["tun"]:
        yield Finding(
            "kernel",
            "/dev/net/tun isn't there: load the module tun (`modprobe tun`), or allow the device to this container",
        )


def kernel_has_modules(host: Host) -> Iterator[Finding]:
    """The kernel can filter, and tag VLANs where the plan has one."""
    links = [link for kind in ("management", "wans", "lans") for link in host.plan.get(kind, [])]
    vlans = any(link["netdev"] is not None and link["device"] not in host.foreign_links for link in links)
    missing = [name for name in host.survey["missing_modules"] if vlans or name != "8021q"]
    if missing:
        yield Finding(
            "kernel",
            f"the kernel {host.survey['kernel']} has no {', '.join(missing)}: install the distribution's full kernel "
            "(linux-image-amd64, or linux-image-cloud-amd64 on a virtual machine), and boot it",
        )
