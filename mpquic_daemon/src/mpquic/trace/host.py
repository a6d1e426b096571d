"""Asks this host what `fib` and `ruleset` need: ip(8), nft(8), /proc."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mpquic.trace import listing
from mpquic.trace.ruleset import Ruleset

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mpquic.trace.fib import Flow, Route, Rule
    from mpquic.trace.listing import Device, KernelWord

TIMEOUT_S: Final = 10.0
PATH: Final = "/usr/local/sbin:/usr/sbin:/sbin"


class HostError(Exception):
    """The host can't be asked; the text is for people."""


@dataclass(frozen=True, slots=True)
class Routing:
    """Rules and routes of one IP version, the devices, and which of these forward it."""

    rules: Sequence[Rule]
    routes: Sequence[Route]
    devices: Mapping[str, Device]

    @property
    def groups(self) -> dict[str, str]:
        """The group of each device."""
        return {name: device.group for name, device in self.devices.items()}


def run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a tool; HostError when it isn't there or hangs."""
    environment = {**os.environ, "LC_ALL": "C", "PATH": f"{os.environ.get('PATH', '')}:{PATH}"}
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, env=environment)
    except FileNotFoundError:
        raise HostError(f"{command[0]} isn't installed") from None
    except subprocess.TimeoutExpired:
        raise HostError(f"{' '.join(command)} doesn't end in {TIMEOUT_S:g} s") from None


def listing_of(command: Sequence[str]) -> Any:
    """Return what a tool prints as JSON; HostError."""
    done = run(command)
    if done.returncode != 0:
        raise HostError(f"{' '.join(command)}: {done.stderr.strip() or f'exit status {done.returncode}'}")
    try:
        return json.loads(done.stdout or "[]")
    except ValueError:
        raise HostError(f"{' '.join(command)} printed no JSON") from None


def devices() -> dict[str, Device]:
    """Return the devices with their addresses and counters; HostError."""
    return listing.devices(listing_of(["ip", "-json", "-details", "-stats", "address"]))


def routing(version: int) -> Routing:
    """Return rules, routes and devices; HostError."""
    family = f"-{version}"
    return Routing(
        listing.rules(listing_of(["ip", "-json", family, "rule"]), version),
        listing.routes(listing_of(["ip", "-json", "-details", family, "route", "show", "table", "all"]), version),
        devices(),
    )


def ruleset() -> Ruleset:
    """Return all tables of nftables; HostError."""
    return Ruleset(listing_of(["nft", "--json", "list", "ruleset"]), run(["nft", "--handle", "list", "ruleset"]).stdout)


def legacy_tables(version: int) -> list[str]:
    """Return the tables of legacy iptables that are loaded: their rules are in no listing of nft."""
    path = Path("/proc/net/ip_tables_names" if version == 4 else "/proc/net/ip6_tables_names")
    try:
        return path.read_text().split()
    except OSError:
        return []


def kernel_word(flow: Flow) -> KernelWord:
    """Return the route that the kernel itself chooses for a packet; HostError."""
    done = run(listing.question(flow))
    try:
        entries = json.loads(done.stdout or "[]") if done.returncode == 0 else []
    except ValueError:
        entries = []
    return listing.kernel_word(entries, done.stderr)


def forwards(device: str, version: int) -> bool:
    """Whether packets that come in by a device are forwarded."""
    folder = Path("/proc/sys/net", f"ipv{version}", "conf")
    # IPv6 has one switch for all devices: the one of a device only says whether it takes router advertisements.
    path = folder / (device if version == 4 else "all") / "forwarding"
    try:
        return path.read_text().strip() == "1"
    except OSError:
        return False
