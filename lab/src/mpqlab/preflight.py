"""What the lab needs of the controller, checked before anything is touched: each lack is one sentence."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from mpqlab import cgroup, machine_links, namespaces, network, qemu, topology
from mpqlab.errors import LabError
from mpqlab.image import CACHE
from mpqlab.lock import locked
from mpqlab.machine import STORAGE
from mpqlab.mounts import overlay, remove_tree
from mpqlab.run import run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PROGRAMS = {
    "debootstrap": "debootstrap",
    "dnsmasq": "dnsmasq-base",
    "ip": "iproute2",
    "iperf3": "iperf3",
    "mount": "mount",
    "nft": "nftables",
    "nsenter": "util-linux",
    "ssh": "openssh-client",
    "systemd-nspawn": "systemd-container",
    "unshare": "util-linux",
}
QEMU_PROGRAMS = {
    "apt-get": "apt",
    "busybox": "busybox-static",
    "mke2fs": "e2fsprogs",
    "qemu-system-x86_64": "qemu-system-x86",
}
"""Besides, of a client with a kernel of its own."""
_PROBE_NODE = "probe"
_PROBE = topology.namespace(_PROBE_NODE)
_IP_LINK_ADD = ["ip", "-n", _PROBE, "link", "add", "name"]
_MASQUERADE = "table inet one { chain c { type nat hook postrouting priority srcnat; masquerade; }; }\n"
# What the firewall of the machines is written with.
_FIB = "table inet two { chain c { type filter hook output priority filter; fib saddr . oif type != local drop; }; }\n"
_STATE = "table inet three { chain c { type filter hook input priority filter; ct state established accept; }; }\n"


def check_system() -> None:
    """Check what every command needs: Linux and root.

    Raises:
        LabError: the first thing that is missing, and what to do.
    """
    if platform.system() != "Linux":
        raise LabError(f"the lab needs Linux (Debian 12 or newer), and this is {platform.system()}")
    if os.geteuid() != 0:
        raise LabError("the lab makes namespaces and mounts, so it needs root: run the command again with sudo")


def check() -> None:
    """Check what building the lab needs: Debian, the programs and the kernel's features.

    Raises:
        LabError: the first thing that is missing, and what to do.
    """
    check_system()
    if not Path("/etc/debian_version").exists():
        raise LabError("the lab needs Debian 12 or newer: this system has no /etc/debian_version")
    missing = missing_programs(PROGRAMS, shutil.which)
    if missing:
        raise LabError(f"programs are missing: install them with `apt-get install {' '.join(missing)}`")
    if not Path("/dev/net/tun").exists():
        raise LabError("the kernel has no TUN devices: /dev/net/tun is missing, try `modprobe tun`")
    with locked(_PROBE, lambda: None):
        _check_control_groups()
        _check_overlay()
        namespaces.note_mount()
        try:
            _check_kernel()
        finally:
            namespaces.release_mount()


def check_qemu() -> None:
    """Check what a client with a kernel of its own needs besides.

    Raises:
        LabError: the first thing that is missing, and what to do.
    """
    if platform.machine() != "x86_64":
        raise LabError(f"the client's own kernel is one for x86_64, and this machine is {platform.machine()}")
    qemu.check_names()
    missing = missing_programs(QEMU_PROGRAMS, shutil.which)
    if missing:
        raise LabError(f"programs are missing ({', '.join(missing)}): install them with `make qemu`")


def has_8021q() -> bool:
    """Tell whether this kernel has VLAN devices, by making one in a namespace that is removed at once."""
    with locked(_PROBE, lambda: None):
        namespaces.note_mount()
        try:
            network.delete_namespace(_PROBE_NODE)
            network.create_namespace(_PROBE_NODE)
            return machine_links.has_8021q(_PROBE_NODE)
        finally:
            network.delete_namespace(_PROBE_NODE)
            namespaces.release_mount()


def missing_programs(programs: Mapping[str, str], which: Callable[[str], str | None]) -> list[str]:
    """Return the Debian packages of those `programs` (their packages by name) that `which` doesn't find."""
    return sorted({package for program, package in programs.items() if which(program) is None})


def _check_control_groups() -> None:
    """Run a command in a control group, as the lab does with all that it starts."""
    try:
        run(cgroup.joining("probe", ["true"]))
    except LabError as error:
        raise LabError(f"no command can be run in a control group of its own: {error}") from None
    finally:
        cgroup.remove("probe")


def _check_overlay() -> None:
    if "overlay" not in Path("/proc/filesystems").read_text().split():
        try:
            run(["modprobe", "overlay"])
        except LabError:
            raise LabError("the kernel has no overlay file system: try `modprobe overlay`") from None
    for folder in (CACHE.parent, STORAGE.parent):
        check_overlay_layers(folder / _PROBE)


def check_overlay_layers(scratch: Path) -> None:
    """Check that a directory can hold the upper layer of an overlay, by mounting one in `scratch`, which is removed.

    Raises:
        LabError: its file system can't: it is an overlay itself, as in most containers, or lacks extended attributes.
    """
    try:
        remove_tree(scratch)
        lower = scratch / "lower"
        (lower / "folder").mkdir(parents=True)
        with overlay(scratch / "merged", [lower], scratch / "upper", scratch / "work") as merged:
            # Replacing a directory of the lower layer needs extended attributes in the upper one.
            (merged / "folder").rmdir()
            (merged / "folder").mkdir()
    except (LabError, OSError) as error:
        raise LabError(
            f"{scratch.parent} can't hold the machines' file systems, since no overlay can be mounted there: "
            f"mount ext4, xfs or tmpfs at {scratch.parent} ({error})"
        ) from None
    finally:
        remove_tree(scratch)


def _check_kernel() -> None:
    """Try what the lab does, in a namespace of its own that is removed at once."""
    attempts: list[tuple[str, str, Callable[[], object]]] = [
        (
            "veth devices",
            "veth",
            lambda: run([*_IP_LINK_ADD, "one", "type", "veth", "peer", "name", "two"]),
        ),
        ("bridges", "bridge", lambda: run([*_IP_LINK_ADD, "three", "type", "bridge"])),
        ("nftables with masquerade", "nft_masq", lambda: _load(_MASQUERADE)),
        ("nftables with fib", "nft_fib_inet", lambda: _load(_FIB)),
        ("nftables with connection tracking", "nft_ct", lambda: _load(_STATE)),
    ]
    if not hasattr(os, "pidfd_open"):
        raise LabError("this Python has no os.pidfd_open (it needs Linux 5.3): use Debian 12 or newer")
    try:
        if Path("/run/netns", _PROBE).exists():
            run(["ip", "netns", "delete", _PROBE])
        run(["ip", "netns", "add", _PROBE])
    except LabError as error:
        raise LabError(
            f"no network namespace can be made (in a container, run it with --privileged): {error}"
        ) from None
    try:
        for feature, module, attempt in attempts:
            try:
                attempt()
            except LabError:
                raise LabError(f"the kernel has no {feature}: try `modprobe {module}`") from None
        try:
            run(["ip", "-n", _PROBE, "-6", "address", "add", "2001:db8::1/128", "dev", "lo"])
        except LabError:
            raise LabError(
                "the kernel has no IPv6, which the lab's networks use: boot without `ipv6.disable=1` "
                "and set the sysctls net.ipv6.conf.all.disable_ipv6 and net.ipv6.conf.default.disable_ipv6 to 0"
            ) from None
    finally:
        run(["ip", "netns", "delete", _PROBE])


def _load(ruleset: str) -> None:
    run(["nsenter", f"--net=/run/netns/{_PROBE}", "--", "nft", "-f", "-"], stdin=ruleset)
