"""Facts about a device's lease, asked of the kernel and of the instances that use the device."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from mpquic import control_client
from mpquic.linkd.renew import LeaseEvidence
from mpquic.net.rtnetlink import NeighbourState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mpquic.net.netlink import LinkMonitor

CONTROL_TIMEOUT = 1.0


async def gather(monitor: LinkMonitor, device: str, instances: Iterable[str]) -> LeaseEvidence:
    """Return what is known of `device`, which carries `instances`; OSError when netlink fails."""
    neighbour = monitor.neighbour(device)
    # In threads, since other processes answer, and pyroute2 wants no running loop around it.
    stamp = await asyncio.to_thread(address_stamp, monitor.state(device).index)
    answers = await asyncio.gather(*(asyncio.to_thread(_is_up, name) for name in instances))
    return LeaseEvidence(
        tunnel_up=any(answers),
        gateway_failed=bool(neighbour & (NeighbourState.FAILED | NeighbourState.INCOMPLETE)),
        address_stamp=stamp,
    )


def address_stamp(index: int) -> int:
    """Return when the kernel was last told of an IPv4 address of the device, in hundredths of a second of its uptime.

    networkd sets the address anew at each answer of the DHCP server, which updates `tstamp` of struct ifa_cacheinfo
    (net/ipv4/devinet.c, set_ifa_lifetime). 0 without an address.
    """
    # Loaded for this rare question only: it is larger than the rest of linkd.
    from pyroute2 import IPRoute

    with IPRoute() as route:
        found = [message.get_attr("IFA_CACHEINFO") for message in route.get_addr(family=socket.AF_INET, index=index)]
    return max((int(info["tstamp"]) for info in found if info), default=0)


def _is_up(name: str) -> bool:
    try:
        answer = control_client.ask(name, {"op": "get", "what": "status"}, CONTROL_TIMEOUT)
    except (control_client.NotRunning, control_client.ControlError, OSError):
        return False  # What can't say that it is up isn't.
    return bool(answer.get("state") == "up")
