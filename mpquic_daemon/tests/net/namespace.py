"""A network namespace of its own for a test, without a name: it ends with the last process and socket in it."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def ip(*words: str) -> None:
    """Run ip(8) in the namespace of this thread."""
    subprocess.run(["ip", *" ".join(words).split()], check=True, capture_output=True, text=True)


def add_local(address: str) -> None:
    """Give `lo` an IPv6 address that packets can go to: the kernel makes its route later, in a work queue."""
    ip(f"addr add {address}/128 dev lo nodad")
    wait_for(lambda: _is_local(address))


def delete_local(address: str) -> None:
    """Take an IPv6 address from `lo`, with its route."""
    ip(f"addr del {address}/128 dev lo")
    wait_for(lambda: not _is_local(address))


def _is_local(address: str) -> bool:
    command = ["ip", "-6", "route", "show", "table", "local", f"{address}/128"]
    return bool(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())


@contextmanager
def new_namespace() -> Iterator[None]:
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if _libc.unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        yield
    finally:
        if _libc.setns(home, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        os.close(home)


class _EthtoolValue(ctypes.Structure):
    _fields_ = [("command", ctypes.c_uint32), ("value", ctypes.c_uint32)]


def set_checksum_offload(device: str, *, enabled: bool) -> None:
    """Do as `ethtool -K DEVICE tx on|off`: without it the kernel refuses to segment UDP (ETHTOOL_STXCSUM)."""
    value = _EthtoolValue(0x17, enabled)
    request = struct.pack("16sP16x", device.encode(), ctypes.addressof(value))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, 0x8946, request)


class FarSide:
    """A second namespace, at the other end of veth devices."""

    def __init__(self) -> None:
        with new_namespace():
            self._namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
            ip("link set lo up")

    def take(self, device: str) -> None:
        """Move a device of this namespace there."""
        ip(f"link set {device} netns /proc/{os.getpid()}/fd/{self._namespace}")

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Be there for a while."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            if _libc.setns(self._namespace, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
            yield
        finally:
            _libc.setns(home, CLONE_NEWNET)
            os.close(home)

    def close(self) -> None:
        os.close(self._namespace)
