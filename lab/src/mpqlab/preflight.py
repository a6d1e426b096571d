"""What the lab needs of the controller, checked before anything is touched: each lack is one sentence."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from mpqlab.errors import LabError
from mpqlab.lock import locked
from mpqlab.run import run
from mpqlab.topology import LAB_NAME

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAMS = {
    "debootstrap": "debootstrap",
    "dnsmasq": "dnsmasq-base",
    "ip": "iproute2",
    "iperf3": "iperf3",
    "mount": "mount",
    "nft": "nftables",
    "nsenter": "util-linux",
    "systemd-nspawn": "systemd-container",
    "unshare": "util-linux",
}
_PROBE = f"{LAB_NAME}-probe"
_IP_LINK_ADD = ["ip", "-n", _PROBE, "link", "add", "name"]
_RULESET = "table inet probe { chain c { type nat hook postrouting priority srcnat; masquerade; }; }\n"


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
    missing = missing_programs(shutil.which)
    if missing:
        raise LabError(f"programs are missing: install them with `apt-get install {' '.join(missing)}`")
    if not Path("/dev/net/tun").exists():
        raise LabError("the kernel has no TUN devices: /dev/net/tun is missing, try `modprobe tun`")
    _check_file_systems()
    with locked(_PROBE, lambda: None):
        _check_kernel()


def missing_programs(which: Callable[[str], str | None]) -> list[str]:
    """Return the Debian packages whose programs `which` doesn't find."""
    return sorted({package for program, package in PROGRAMS.items() if which(program) is None})


def _check_file_systems() -> None:
    if "overlay" not in Path("/proc/filesystems").read_text().split():
        try:
            run(["modprobe", "overlay"])
        except LabError:
            raise LabError("the kernel has no overlay file system: try `modprobe overlay`") from None


def _check_kernel() -> None:
    """Try what the lab does, in a namespace of its own that is removed at once."""
    attempts: list[tuple[str, str, Callable[[], object]]] = [
        (
            "veth devices",
            "veth",
            lambda: run([*_IP_LINK_ADD, "one", "type", "veth", "peer", "name", "two"]),
        ),
        ("bridges", "bridge", lambda: run([*_IP_LINK_ADD, "three", "type", "bridge"])),
        ("nftables with masquerade", "nft_masq", lambda: run(_in_probe(["nft", "-f", "-"]), stdin=_RULESET)),
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
    finally:
        run(["ip", "netns", "delete", _PROBE])


def _in_probe(argv: list[str]) -> list[str]:
    return ["nsenter", f"--net=/run/netns/{_PROBE}", "--", *argv]
