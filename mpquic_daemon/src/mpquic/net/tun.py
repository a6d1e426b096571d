"""The inner device: a TUN with virtio headers, through which the kernel hands over and takes TCP superframes.

The device belongs to systemd-networkd (`Kind=tun`, `VNetHeader=yes`, `User=`); the process only attaches to it, which
its user may do without any capability. Sources: include/uapi/linux/if_tun.h, drivers/net/tun.c.
"""

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

TUNSETIFF = 0x400454CA
TUNSETOFFLOAD = 0x400454D0
TUNSETVNETHDRSZ = 0x400454D8
TUNSETCARRIER = 0x400454E2
"""Linux 4.20; asks for no privilege on an attached device."""
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000
IFF_VNET_HDR = 0x4000
TUN_F_CSUM = 0x01
TUN_F_TSO4 = 0x02
TUN_F_TSO6 = 0x04
TUN_F_USO4 = 0x20
TUN_F_USO6 = 0x40
"""USO needs both its flags, and Linux 6.2."""
VNET_HEADER_BYTES = 10
"""struct virtio_net_hdr without the buffer count."""
NAME_BYTES = 15
_READ_BYTES = 65536 + VNET_HEADER_BYTES
_DEVICE = "/dev/net/tun"

Buffer = bytes | bytearray | memoryview


class TunError(Exception):
    """The device can't be attached; the text says why and what to do."""


@dataclass(slots=True)
class TunCounters:
    """Totals since the device was attached."""

    rx_packets: int = 0
    rx_bytes: int = 0
    tx_packets: int = 0
    tx_bytes: int = 0
    tx_invalid: int = 0
    """The kernel refused the packet or its virtio header (EINVAL)."""
    tx_down: int = 0
    """The device is down (EIO) or gone."""
    tx_dropped: int = 0
    """The kernel had no memory or room."""


class TunDevice:
    """An attached TUN. Reads and writes are whole packets or superframes, each after a 10-byte virtio header.

    Without `create` the device must exist. The carrier is off after attaching until `set_carrier(True)`. With `uso` the
    kernel hands over UDP superframes as well, where it can (`uso` tells). Raises TunError.
    """

    def __init__(self, name: str, *, vnet_hdr: bool = True, uso: bool = False, create: bool = False) -> None:
        if not name or len(name.encode()) > NAME_BYTES:
            raise TunError(f"{name!r} is no interface name: it has 1 to {NAME_BYTES} bytes")
        self.name = name
        self.counters = TunCounters()
        self._carrier = False
        self._gone = False
        if not create:
            _require_device(name)
        self._fd = _open_clone_device()
        try:
            self._attach(vnet_hdr=vnet_hdr)
            self.set_carrier(carrier=False)
            self.uso = vnet_hdr and self._set_offloads(uso=uso)
        except BaseException:
            os.close(self._fd)
            raise

    def _attach(self, *, vnet_hdr: bool) -> None:
        flags = IFF_TUN | IFF_NO_PI | (IFF_VNET_HDR if vnet_hdr else 0)
        try:
            fcntl.ioctl(self._fd, TUNSETIFF, struct.pack("16sH22x", self.name.encode(), flags))
        except OSError as error:
            raise TunError(_attach_error(self.name, error)) from error
        if vnet_hdr:
            fcntl.ioctl(self._fd, TUNSETVNETHDRSZ, struct.pack("i", VNET_HEADER_BYTES))

    def _set_offloads(self, *, uso: bool) -> bool:
        offloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6
        if uso:
            try:
                fcntl.ioctl(self._fd, TUNSETOFFLOAD, offloads | TUN_F_USO4 | TUN_F_USO6)
            except OSError as error:
                if error.errno != errno.EINVAL:  # before Linux 6.2
                    raise
            else:
                return True
        fcntl.ioctl(self._fd, TUNSETOFFLOAD, offloads)
        return False

    def fileno(self) -> int:
        """File descriptor for a selector."""
        return self._fd

    @property
    def carrier(self) -> bool:
        """Whether the carrier is on."""
        return self._carrier

    @property
    def gone(self) -> bool:
        """Whether the device was deleted under us: only attaching anew helps, and the descriptor polls readable."""
        return self._gone

    def set_carrier(self, carrier: bool) -> None:
        """Switch the carrier: off makes routes by the device linkdown, so that they count as absent for forwarding."""
        try:
            fcntl.ioctl(self._fd, TUNSETCARRIER, struct.pack("i", carrier))
        except OSError as error:
            if error.errno != errno.EBADFD:
                raise
            self._gone = True
        self._carrier = carrier and not self._gone

    def read_batch(self, max_packets: int = 32) -> list[bytes]:
        """Read what waits, at most `max_packets` packets, each with its virtio header."""
        packets: list[bytes] = []
        read, fd = os.read, self._fd
        try:
            for _ in range(max_packets):
                # Not a comprehension: what was read before the queue ran empty counts.
                packets.append(read(fd, _READ_BYTES))  # noqa: PERF401
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno not in (errno.EIO, errno.EBADFD):  # down, or deleted
                raise
            self._gone = self._gone or error.errno == errno.EBADFD
        self.counters.rx_packets += len(packets)
        self.counters.rx_bytes += sum(map(len, packets))
        return packets

    def write(self, buffers: Sequence[Buffer]) -> bool:
        """Write one packet or superframe, the first buffer beginning with the virtio header; False if not taken."""
        counters = self.counters
        try:
            written = os.writev(self._fd, buffers)
        except OSError as error:
            if error.errno == errno.EINVAL:
                counters.tx_invalid += 1
            elif error.errno in (errno.EIO, errno.EBADFD, errno.ENODEV, errno.ENETDOWN):
                counters.tx_down += 1
                self._gone = self._gone or error.errno == errno.EBADFD
            else:
                counters.tx_dropped += 1
            return False
        counters.tx_packets += 1
        counters.tx_bytes += written
        return True

    def close(self) -> None:
        """Detach. A persistent device stays and loses its carrier."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _require_device(name: str) -> None:
    try:
        socket.if_nametoindex(name)
    except OSError as error:
        raise TunError(
            f"the TUN device {name} doesn't exist: systemd-networkd creates it from its .netdev file "
            f"(Kind=tun, VNetHeader=yes); see `networkctl status {name}` and run the provisioning again"
        ) from error


def _open_clone_device() -> int:
    try:
        return os.open(_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise TunError(f"{_DEVICE} is missing: load the kernel module tun") from error
    except OSError as error:
        raise TunError(
            f"{_DEVICE} can't be opened ({error.strerror}): the unit needs DeviceAllow={_DEVICE} and the file mode 0666"
        ) from error


def _attach_error(name: str, error: OSError) -> str:
    reasons = {
        errno.EBUSY: "another process has it; is a second instance with the same tun_name running?",
        errno.EINVAL: "it isn't a TUN with VNetHeader=yes and MultiQueue=no; delete it, systemd-networkd makes it anew",
        errno.EPERM: "it belongs to another user; its .netdev file must name the daemon's User= and Group=",
    }
    return f"the TUN device {name} can't be attached: {reasons.get(error.errno or 0, error.strerror)}"
