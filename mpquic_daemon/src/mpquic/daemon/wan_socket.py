"""Sockets of a client to its server: by the WAN's device, from an address of that device and of no other.

The kernel takes the source by the route, and may lend the address of another device where the own one is missing. The
packet filter can't tell whose an address is that several devices have. So the source is compared here with what netlink
shows, and a socket whose address the device has no more falls silent.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from mpquic.proto.path.address import plain_host

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mpquic.config import PathConfig
    from mpquic.net.kernel import Kernel
    from mpquic.net.udp import UdpSocket


def open_socket(kernel: Kernel, path: PathConfig, port: int, own: tuple[str, ...], **options: Any) -> UdpSocket:
    """Return a socket that is connected to `port` of the server. OSError.

    `own` are the addresses of the path's device; empty for a path without one.
    """
    any_address = "::" if path.family == socket.AF_INET6 else "0.0.0.0"
    fixed = {"device": path.bind_device, "peer": (path.remote_addr, port), "dual_stack": False, **options}
    made = kernel.udp((path.bind_address or any_address, 0), **fixed)
    if not own or path.bind_address is not None or plain_host(made.local_address) in own:
        return made
    # Nothing has left by it: connecting a UDP socket sends nothing.
    made.close()
    return kernel.udp((own[0], 0), **fixed)


def mute_foreign(sockets: Iterable[UdpSocket], own: tuple[str, ...]) -> None:
    """Let nothing leave any more from an address that the device doesn't have now."""
    for each in sockets:
        if plain_host(each.local_address) not in own:
            each.mute()
