"""A TUN device in a network namespace, with superframes: the ioctls, and what the kernel counts."""

import ctypes
import fcntl
import os
import re
import socket
import struct
from pathlib import Path
from types import TracebackType

from mpqlab.emulator.frame import VNET_HDR_SIZE

# include/uapi/linux/if_tun.h
_TUNSETIFF = 0x400454CA
_TUNSETOFFLOAD = 0x400454D0
_TUNSETVNETHDRSZ = 0x400454D8
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
_TUN_F_CSUM = 0x01
_TUN_F_TSO4 = 0x02
_TUN_F_TSO6 = 0x04
# include/uapi/linux/sockios.h, if.h
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_SIOCSIFTXQLEN = 0x8943
_IFF_UP = 0x1
_CLONE_NEWNET = 0x40000000

_QUEUE_PACKETS = 10_000
"""Packets that the kernel holds until they are read: a burst that arrives while the emulator waits for a processor."""
_READ_SIZE = 65_536 + VNET_HDR_SIZE
_DEVICE_NAME = re.compile(r"[A-Za-z0-9._-]{1,15}")


class SetupError(Exception):
    """Something that the emulator needs is missing; the text is a sentence for the person who started it."""


class NetworkNamespace:
    """The calling thread is in the named namespace between enter and exit, and back in its own afterwards."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._own = -1

    def __enter__(self) -> None:
        try:
            target = os.open(f"/run/netns/{self._name}", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise SetupError(
                f"There is no network namespace {self._name}: make it with 'ip netns add {self._name}'."
            ) from None
        self._own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(target)
        finally:
            os.close(target)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _setns(self._own)
        os.close(self._own)


def _setns(descriptor: int) -> None:
    # os.setns exists from Python 3.12 on.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET):
        error = ctypes.get_errno()
        raise OSError(error, f"setns: {os.strerror(error)}")


def check_host() -> None:
    """Raise SetupError unless this process may make TUN devices in namespaces."""
    if os.geteuid() != 0:
        raise SetupError("The link emulator makes TUN devices in network namespaces: run it as root.")
    if not Path("/dev/net/tun").is_char_device():
        raise SetupError("/dev/net/tun is missing: load the kernel's module with 'modprobe tun'.")


class TunDevice:
    """An attached TUN device without protocol information, with virtio headers, TSO and checksum offload; it is up.

    It is made if it isn't there, and then vanishes with this object. IPv6 gets no link-local address by itself, so that
    no router solicitation crosses the link unasked. UDP segmentation (USO) is not offered: UDP comes packet by packet.
    """

    def __init__(self, namespace: str, name: str) -> None:
        if not _DEVICE_NAME.fullmatch(name) or name in (".", ".."):
            raise SetupError(f"{name} is no interface name: expected 1 to 15 letters, digits, '.', '_' or '-'.")
        self.label = f"{namespace}:{name}"
        self._name = name
        with NetworkNamespace(namespace):
            try:
                self._descriptor = self._attach()
            except OSError as error:
                raise SetupError(f"The TUN device {self.label} can't be attached: {error.strerror}.") from error
            # An open file of /proc/net stays with the namespace that it was opened in.
            self._statistics = Path("/proc/thread-self/net/dev").open("rb")  # noqa: SIM115 - closed in close()

    def _attach(self) -> int:
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            name = self._name.encode()
            flags = _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR
            fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name, flags))
            fcntl.ioctl(descriptor, _TUNSETVNETHDRSZ, struct.pack("i", VNET_HDR_SIZE))
            fcntl.ioctl(descriptor, _TUNSETOFFLOAD, _TUN_F_CSUM | _TUN_F_TSO4 | _TUN_F_TSO6)
            address_mode = Path(f"/proc/sys/net/ipv6/conf/{self._name}/addr_gen_mode")
            if address_mode.exists():
                address_mode.write_text("1\n")
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
                fcntl.ioctl(control, _SIOCSIFTXQLEN, struct.pack("16si20x", name, _QUEUE_PACKETS))
                reply = fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack("16sh22x", name, 0))
                (up,) = struct.unpack_from("h", reply, 16)
                fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh22x", name, up | _IFF_UP))
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def fileno(self) -> int:
        """Return the descriptor, for waiting."""
        return self._descriptor

    def read(self) -> bytes | None:
        """Return the next packet with its virtio header, or None when there is none.

        Raises:
            OSError: the device or its namespace has gone.
        """
        try:
            return os.read(self._descriptor, _READ_SIZE)
        except BlockingIOError:
            return None

    def write(self, data: bytes) -> bool:
        """Hand a packet with its virtio header to the kernel; False if it refuses (device down, bad packet)."""
        try:
            os.write(self._descriptor, data)
        except OSError:
            return False
        return True

    def overrun(self) -> int:
        """Return how many packets the kernel has dropped since the device exists because they weren't read in time."""
        self._statistics.seek(0)
        for line in self._statistics.read().decode().splitlines():
            name, colon, values = line.partition(":")
            if colon and name.strip() == self._name:
                return int(values.split()[11])
        return 0

    def close(self) -> None:
        """Detach."""
        os.close(self._descriptor)
        self._statistics.close()
