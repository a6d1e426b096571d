"""What runs in the namespaces that aren't machines: DHCP, DNS, iperf3, HTTP, and the emulated links."""

from __future__ import annotations

import functools
import sys
from ipaddress import IPv4Interface
from typing import TYPE_CHECKING

from mpqlab import topology
from mpqlab.emulator.client import EmulatorClient
from mpqlab.network import has_carrier, set_public_address
from mpqlab.run import inside, listening, spawn
from mpqlab.topology import (
    EMULATED_WANS,
    INTERNET,
    ISP_LAN_DEVICE,
    ISP_UPLINK_DEVICE,
    LANS,
    MANAGEMENT,
    MGMT,
    OPENWRT,
    VLANS,
    namespace,
)
from mpqlab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mpqlab.state import Process, State
    from mpqlab.topology import Subnet, Wan

HTTP_PORT = 80
LEASE_TIME = "1h"
READY_SECONDS = 15.0

_DNSMASQ = (
    "dnsmasq",
    "--conf-file=/dev/null",
    "--keep-in-foreground",
    "--pid-file=",
    "--log-facility=-",
    "--user=root",
)
_NAMES = (
    f"--host-record={topology.VPS_NAME},{topology.VPS_ADDRESS.ip},{topology.VPS_ADDRESS6.partition('/')[0]}",
    f"--host-record={topology.INTERNET_NAME},{topology.INTERNET_ADDRESS},{topology.INTERNET_ADDRESS6}",
)


def emulator_name(wan: Wan) -> str:
    """Return the record name of a WAN's link emulator."""
    return f"{wan.name}.emulator"


def dhcp_name(wan: Wan) -> str:
    """Return the record name of an ISP's DHCP server."""
    return f"{wan.isp}.dhcp"


def control_socket(state: State, wan: Wan) -> Path:
    """Return the path of the control socket of a WAN's link emulator."""
    return state.control / f"{wan.name}.sock"


def emulator(state: State, wan: Wan) -> EmulatorClient:
    """Return the client of a WAN's link emulator."""
    return EmulatorClient(control_socket(state, wan))


def default_settings(wan: Wan) -> list[str]:
    """Return a WAN's settings when the lab starts, as the emulator reads them."""
    return [f"delay_ms={wan.rtt_ms / 2:g}", f"up.rate_mbit={wan.up:g}", f"down.rate_mbit={wan.down:g}"]


def start_all(state: State, *, tags: bool = False) -> bool:
    """Start whatever isn't running, then wait until all of it answers; return whether there was anything to start.

    With `tags` programs put the tags of VLANs into frames on OpenWrt's side, since the kernel can't.
    """
    waiting: list[tuple[Process, str, int]] = []
    links: list[Wan] = []
    for wan in EMULATED_WANS:
        if _stopped(state, emulator_name(wan)):
            _start_emulator(state, wan)
            links.append(wan)
        if _stopped(state, dhcp_name(wan)):
            waiting.append((start_dhcp(state, wan, current_subnet(state, wan)), "udp", 67))
    for lan in LANS:
        name, port = f"internet.iperf{lan.number}", topology.IPERF_BASE_PORT + lan.number
        if _stopped(state, name):
            waiting.append((spawn(state, name, inside(INTERNET, ["iperf3", "-s", "-p", str(port)])), "tcp", port))
    if _stopped(state, "internet.http"):
        command = inside(INTERNET, [sys.executable, "-m", "mpqlab.httpd", str(HTTP_PORT)])
        waiting.append((spawn(state, "internet.http", command), "tcp", HTTP_PORT))
    dns = {
        INTERNET: [topology.INTERNET_ADDRESS, topology.INTERNET_ADDRESS6, str(topology.VPS_GATEWAY.ip)],
        MGMT: [str(MANAGEMENT[0].controller.ip)],
    }
    for node, addresses in dns.items():
        if _stopped(state, f"{node}.dns"):
            waiting.append((_start_dns(state, node, addresses), "udp", 53))
    tagging = _start_trunks(state) if tags else []
    for wan in links:
        emulator(state, wan).wait_until_ready(READY_SECONDS)
        set_public_address(wan, current_subnet(state, wan))
    for process, protocol, port in waiting:
        await_listening(process, protocol, port)
    for process, device in tagging:
        ready = functools.partial(has_carrier, OPENWRT, device)
        wait_for(ready, READY_SECONDS, f"{process.name} carries {device}", process)
    return bool(links or waiting or tagging)


def current_subnet(state: State, wan: Wan) -> Subnet:
    """Return what the ISP gives now; `link renumber` goes to the next one, or to a lease that a person wants."""
    now = state.read(wan.name)
    subnet = wan.subnets[int(now.get("subnet", 0))]
    return subnet.with_lease(IPv4Interface(now["lease"])) if "lease" in now else subnet


def start_dhcp(state: State, wan: Wan, subnet: Subnet) -> Process:
    """Start the ISP's DHCP server, and router advertisements where it has IPv6; nobody has a lease yet."""
    leases = state.run / f"{wan.isp}.leases"
    leases.unlink(missing_ok=True)
    options = [
        "--port=0",
        f"--interface={ISP_LAN_DEVICE}",
        "--bind-dynamic",
        "--no-ping",
        "--dhcp-authoritative",
        "--log-dhcp",
        f"--dhcp-leasefile={leases}",
        f"--dhcp-range={subnet.lease},{subnet.last_lease},{subnet.gateway.netmask},{LEASE_TIME}",
        f"--dhcp-host={wan.mac},{subnet.lease}",
        f"--dhcp-option=option:router,{subnet.gateway.ip}",
        f"--dhcp-option=option:dns-server,{topology.INTERNET_ADDRESS}",
    ]
    if subnet.prefix6:
        options += [
            "--enable-ra",
            f"--dhcp-range={subnet.prefix6.network_address},ra-only,64,{LEASE_TIME}",
            f"--dhcp-option=option6:dns-server,[{topology.INTERNET_ADDRESS6}]",
        ]
    return spawn(state, dhcp_name(wan), inside(wan.isp, [*_DNSMASQ, *options]))


def await_listening(process: Process, protocol: str, port: int) -> None:
    """Wait until a service has bound its port."""
    wait_for(lambda: listening(process, protocol, port), READY_SECONDS, f"{process.name} listens", process)


def _start_dns(state: State, node: str, addresses: Sequence[str]) -> Process:
    # Addresses that come and go (mgmt's, the gateway of the VPS) are bound when they are there.
    listen = [f"--listen-address={address}" for address in addresses]
    options = ["--bind-dynamic", "--no-resolv", "--no-hosts", "--local=/#/", *listen, *_NAMES]
    return spawn(state, f"{node}.dns", inside(node, [*_DNSMASQ, *options]))


def _start_trunks(state: State) -> list[tuple[Process, str]]:
    """Start the program of each trunk; return it with the last VLAN's device that it attaches to."""
    started = []
    for trunk in {vlan.lan.openwrt_device: None for vlan in VLANS}:
        name = f"{OPENWRT}.{trunk}.tags"
        if _stopped(state, name):
            carried = [vlan for vlan in VLANS if vlan.lan.openwrt_device == trunk]
            pairs = [f"{vlan.openwrt_device}={vlan.id}" for vlan in carried]
            argv = inside(OPENWRT, [sys.executable, "-m", "mpqlab.trunk", trunk, *pairs])
            started.append((spawn(state, name, argv), carried[-1].openwrt_device))
    return started


def _start_emulator(state: State, wan: Wan) -> Process:
    argv = [
        sys.executable,
        "-m",
        "mpqlab.emulator",
        "--name",
        wan.name,
        "--control",
        str(control_socket(state, wan)),
        "--up",
        f"{namespace(wan.isp)}:{ISP_UPLINK_DEVICE}",
        "--down",
        f"{namespace(INTERNET)}:{wan.name}",
        *default_settings(wan),
    ]
    return spawn(state, emulator_name(wan), argv)


def _stopped(state: State, name: str) -> bool:
    process = state.process(name)
    return process is None or not process.alive
