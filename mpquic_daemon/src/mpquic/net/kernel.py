"""What a client or a server gets from the kernel, in one place, so that a simulation can give it something else."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpquic.net.event_loop import idle_time
from mpquic.net.netlink import LinkMonitor
from mpquic.net.tun import TunDevice
from mpquic.net.udp import UdpSocket

if TYPE_CHECKING:
    from collections.abc import Callable


def suspended() -> float:
    """Return for how many seconds the machine was suspended since it booted: event loops' clocks stand meanwhile.

    A virtual machine that its host pauses knows nothing of it.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


@dataclass(frozen=True, slots=True)
class Kernel:
    """Constructors of devices and sockets, with the arguments and errors of the classes that are the defaults."""

    tun: Callable[..., TunDevice] = TunDevice
    udp: Callable[..., UdpSocket] = UdpSocket
    monitor: Callable[..., LinkMonitor] = LinkMonitor
    suspended: Callable[[], float] = suspended
    """Seconds for which the machine was suspended, in all."""
    processor_time: Callable[[], float] = time.thread_time
    """Seconds of processor time that the thread has taken."""
    idle_time: Callable[[], float] = idle_time
    """Seconds for which the running event loop had nothing to do, in all."""


KERNEL = Kernel()
"""The real one."""
