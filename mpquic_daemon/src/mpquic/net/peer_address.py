"""The address of a peer together with ours to which it has sent, for sockets that are bound to no address."""

import socket
from typing import Any

from mpquic.net import offload

PKTINFO_BYTES = 20
"""Size of the larger of both control messages: struct in6_pktinfo of ipv6(7) and RFC 3542."""


class PeerAddress(tuple[Any, ...]):  # noqa: SLOT001 - a tuple has no room for slots
    """The sender of a read, with the address of ours to which that read has come: what goes to it leaves from there.

    It equals the plain address. Whoever keeps the one that came with authentic data keeps both ends of the path, and no
    datagram of anybody else changes them; so sockets remember nothing about peers.
    """

    source: tuple[int, int, bytes] | None = None
    """Control message that has the kernel send from that address; None has the kernel choose by the route."""


def source_of(level: int, kind: int, value: bytes) -> tuple[int, int, bytes] | None:
    """Return what sends from where a datagram has come to, by the control message that tells this; None for others."""
    # The interface is left to the route (0); struct in_pktinfo is in ip(7).
    if level == socket.IPPROTO_IPV6 and kind == offload.IPV6_PKTINFO:
        return level, kind, value[:16] + bytes(4)
    if level == socket.IPPROTO_IP and kind == offload.IP_PKTINFO:
        return level, kind, bytes(4) + value[4:8] + bytes(4)
    return None
