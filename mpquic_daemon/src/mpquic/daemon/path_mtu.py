"""What ICMP has left on the sockets of a client, as hints for path MTU discovery, and the MTU that is too small.

The kernel keeps what ICMP says of a path's MTU for ten minutes. Anybody can forge it, so it starts a look and is a size
to try, and it is told as a cause only where there is silence to explain.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from mpquic.quic.pmtu import IP_UDP_BYTES, smallest_mtu

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpquic.net.udp import UdpSocket

BASE_FAILS = "packets of 1200 bytes don't pass, smaller ones do"


def shortage(mtu: int | None, family: int) -> str | None:
    """Say that a path MTU of `mtu` bytes is too small for QUIC; None when it isn't, or nothing is known."""
    needed = smallest_mtu(version_of(family))
    if mtu is None or mtu >= needed:
        return None
    return f"the path's MTU is {mtu}, QUIC needs {needed}"


def base_fails(mtu: int | None, family: int) -> str:
    """Say the same when probes have shown it, with the MTU that ICMP has named if it did."""
    needed = smallest_mtu(version_of(family))
    return shortage(mtu, family) or f"the path's MTU is below {needed}, QUIC needs {needed}: {BASE_FAILS}"


def version_of(family: int) -> int:
    """Return the version of IP of an address family."""
    return 6 if family == socket.AF_INET6 else 4


class ReportedErrors:
    """Errors that ICMP leaves on a connected socket. `on_path_mtu` gets the path MTU in bytes that the kernel has."""

    def __init__(self, udp: UdpSocket, on_path_mtu: Callable[[int], object]) -> None:
        self._udp = udp
        self._seen = udp.counters.reported_errors
        self._on_path_mtu = on_path_mtu

    def look(self) -> bool:
        """Tell whether there were errors since the last look. Cheap when there were none."""
        seen = self._udp.counters.reported_errors
        if seen == self._seen:
            return False
        self._seen = seen
        mtu = self._udp.path_mtu()
        if mtu is not None:
            self._on_path_mtu(mtu)
        return True


def payload(mtu: int, family: int) -> int:
    """Return the UDP payload in bytes that a path MTU leaves."""
    return mtu - IP_UDP_BYTES[version_of(family)]
