"""Attaching to a tap device that is there: what is written comes in on it, what goes out on it is read."""

from __future__ import annotations

import fcntl
import os
import struct

# include/uapi/linux/if_tun.h
_TUNSETIFF = 0x400454CA
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000


def attach(name: str, *, virtio_header: bool = False, blocking: bool = True) -> int:
    """Return an open file of the tap `name` in this thread's network namespace; frames have no other header.

    Raises:
        OSError: somebody else is attached, or it is no tap.
    """
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | (0 if blocking else os.O_NONBLOCK))
    flags = _IFF_TAP | _IFF_NO_PI | (_IFF_VNET_HDR if virtio_header else 0)
    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
