"""The outer socket: UDP bound to one WAN device, with segmentation offload out and in.

One `sendmsg` carries up to 64 equal datagrams (UDP_SEGMENT), one `recvmsg_into` returns as many (UDP_GRO). What the
kernel answers to a send is a result, never an exception: on a WAN that comes and goes, errors are the normal case.

ICMP has no say in what leaves. The path MTU that the kernel has learnt limits no datagram (IP_PMTUDISC_PROBE): routers
and forgers report values that no path has, and the kernel believes them for ten minutes. An error that ICMP leaves on a
connected socket, which the kernel tells on its next call, is counted, and the call is repeated.
"""

import errno
import socket
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from mpquic.net import offload
from mpquic.net.offload import SOL_UDP, UDP_GRO, UDP_SEGMENT
from mpquic.net.peer_address import PKTINFO_BYTES, PeerAddress, source_of
from mpquic.net.send_status import REPORTED_BY_ICMP, SEVERITY, STATUS_OF_ERRNO, SendStatus
from mpquic.net.unsegmented import Unsegmented
from mpquic.proto.path.address import Address

Received = tuple[memoryview, int, Address]
"""What one read gave: the bytes, the size of each datagram in them (the last may be shorter), the sender."""

OffloadMode = Literal["auto", "on", "off"]

BUFFER_BYTES = 4 << 20
READ_BYTES = 65536
"""Bytes of a buffer that takes whatever one read can give."""
MAX_REPORTS = 3
"""Errors of ICMP that one call passes over: a flood of them must not hold up the loop."""
MAX_EMPTY = 16
"""Empty datagrams that one call passes over."""
_MAX_BACKLOG = 1024
_ECN_BITS = 2
_IPV4_TOS = (socket.IPPROTO_IP, socket.IP_TOS)
_IPV6_TOS = (socket.IPPROTO_IPV6, socket.IPV6_TCLASS)
_pack_size = struct.Struct("H").pack
_pack_int = struct.Struct("i").pack
_unpack_int = struct.Struct("i").unpack_from


@dataclass(slots=True)
class UdpCounters:
    """Totals since the socket was made."""

    tx_datagrams: int = 0
    tx_bytes: int = 0
    tx_calls: int = 0
    rx_datagrams: int = 0
    rx_bytes: int = 0
    rx_calls: int = 0
    reported_errors: int = 0
    """Errors that ICMP left on the socket, or the device's end: hints, which anybody can forge."""
    tx_dropped: int = 0
    tx_too_large: int = 0
    tx_unreachable: int = 0
    segmentation_fallbacks: int = 0


def split_segments(data: memoryview, size: int) -> list[bytes]:
    """Cut what one read gave into its datagrams."""
    if len(data) <= size:
        return [bytes(data)]
    return [bytes(data[offset : offset + size]) for offset in range(0, len(data), size)]


class UdpSocket:
    """A non-blocking UDP socket, optionally bound to a device and connected to one peer.

    `local` is (host, port); host "::" with `dual_stack` takes IPv4 too. With `peer` the socket is connected: the kernel
    fixes route and source address then, so that a change of either asks for a new socket. A socket that is bound to no
    address gives each sender as a `PeerAddress`, and what is sent to that leaves from the address to which it has sent:
    the kernel would take one by the route, and a NAT or a connected socket on the other side would refuse it. What the
    path carries is found out by who sends (RFC 8899). `dscp` is that of all packets. ECN is always Not-ECT, the
    compatibility mode of RFC 6040 section 4.3, as no mark of the network is carried inwards. `clock` gives seconds.
    Raises OSError when the socket can't be made now (no such device, address or route).
    """

    def __init__(
        self,
        local: Address,
        *,
        device: str | None = None,
        peer: Address | None = None,
        gso: OffloadMode = "auto",
        dscp: int = 0,
        dual_stack: bool = True,
        reads: int = 4,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        family = socket.AF_INET6 if ":" in local[0] else socket.AF_INET
        self.counters = UdpCounters()
        self.device = device
        self.reads = reads
        """Reads of `recv_batch` that give something, at most, when nothing else is said."""
        self._buffers = [memoryview(bytearray(READ_BYTES)) for _ in range(reads)]
        self._control_bytes = socket.CMSG_SPACE(4)
        self.drained = True
        """Whether the last `recv_batch` has left nothing to read."""
        self._unsegmented = Unsegmented(clock)
        self._backlog: list[tuple[bytes, Address | None, int]] = []
        self._gso = gso == "on" or (gso == "auto" and offload.segmentation_works() is not False)
        self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self._configure(family, device, dual_stack=dual_stack, gro=gso != "off")
            if dscp:
                for level, kind in _tos_options(family, dual_stack=dual_stack):
                    self._socket.setsockopt(level, kind, dscp << _ECN_BITS)
            self._bind(local)
            if peer is not None:
                self._socket.connect(peer)
            self._connected = peer is not None
            if peer is None and local[0] in ("::", "0.0.0.0"):
                self._tell_local_addresses(family)
        except BaseException:
            self._socket.close()
            raise

    def _bind(self, local: Address) -> None:
        try:
            self._socket.bind(local)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            who = f"UDP port {local[1]} is taken; `ss -ulnp sport = {local[1]}` tells by whom"
            raise OSError(error.errno, who) from error

    def _configure(self, family: socket.AddressFamily, device: str | None, *, dual_stack: bool, gro: bool) -> None:
        sock = self._socket
        if device is not None:
            # Without privilege a socket may be bound to a device once (Linux 5.7).
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode() + b"\0")
        # The kernel cuts this down to net.core.rmem_max and wmem_max; going beyond asks for CAP_NET_ADMIN.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not dual_stack))
            sock.setsockopt(socket.IPPROTO_IPV6, offload.IPV6_MTU_DISCOVER, offload.IP_PMTUDISC_PROBE)
        if family == socket.AF_INET or dual_stack:
            sock.setsockopt(socket.IPPROTO_IP, offload.IP_MTU_DISCOVER, offload.IP_PMTUDISC_PROBE)
        if gro:
            try:
                sock.setsockopt(SOL_UDP, UDP_GRO, 1)
            except OSError as error:
                if error.errno != errno.ENOPROTOOPT:  # before Linux 5.0: datagrams come one by one
                    raise

    def _tell_local_addresses(self, family: socket.AddressFamily) -> None:
        if family == socket.AF_INET6:  # which tells those of IPv4 too, mapped
            self._socket.setsockopt(socket.IPPROTO_IPV6, offload.IPV6_RECVPKTINFO, 1)
        else:
            self._socket.setsockopt(socket.IPPROTO_IP, offload.IP_PKTINFO, 1)
        self._control_bytes += socket.CMSG_SPACE(PKTINFO_BYTES)

    def fileno(self) -> int:
        """File descriptor for a selector."""
        return self._socket.fileno()

    @property
    def local_address(self) -> Address:
        """Address that the socket is bound to."""
        return self._socket.getsockname()  # type: ignore[no-any-return]

    @property
    def peer_address(self) -> Address:
        """Address that the socket is connected to, in the form in which it will show as a sender."""
        return self._socket.getpeername()  # type: ignore[no-any-return]

    @property
    def wants_write(self) -> bool:
        """Whether datagrams wait for the socket to become writable; call `resume` then."""
        return bool(self._backlog)

    def path_mtu(self) -> int | None:
        """Path MTU in bytes that the kernel believes in, by the device and ICMP; None without a peer or a route."""
        if not self._connected:
            return None
        v6 = self._socket.family == socket.AF_INET6
        level, option = (socket.IPPROTO_IPV6, offload.IPV6_MTU) if v6 else (socket.IPPROTO_IP, offload.IP_MTU)
        try:
            return self._socket.getsockopt(level, option)
        except OSError:  # ENOTCONN: the route has gone
            return None

    def recv_batch(self, buffers: Sequence[memoryview] | None = None, *, singles: int = 0) -> list[Received]:
        """Read what waits, at most as often as there are buffers: the given ones, or own, until the next call.

        With `singles`, so many reads more if they give single datagrams: these are copied and leave their buffer free.
        Empty datagrams are passed over. `drained` tells whether nothing waits any more.
        """
        batch: list[Received] = []
        counters = self.counters
        receive = self._socket.recvmsg_into
        free = iter(self._buffers if buffers is None else buffers)
        buffer = next(free, None)
        reports = empty = 0
        self.drained = False
        while buffer is not None:
            try:
                size, control, _flags, address = receive([buffer], self._control_bytes)
            except BlockingIOError:
                self.drained = True
                break
            except OSError:
                # An ICMP error or the device's end, told on the next call of whatever kind: not about what waits here.
                counters.reported_errors += 1
                reports += 1
                if reports > MAX_REPORTS:
                    break
                continue
            segment = size
            for level, kind, value in control:
                if level == SOL_UDP and kind == UDP_GRO:
                    segment = _unpack_int(value)[0]
                elif (source := source_of(level, kind, value)) is not None:
                    address = PeerAddress(address)
                    address.source = source
            counters.rx_calls += 1
            counters.rx_bytes += size
            if not size:
                # It fills no buffer, and what waits behind it must not wait for the next call.
                counters.rx_datagrams += 1
                empty += 1
                if empty >= MAX_EMPTY:
                    break
                continue
            counters.rx_datagrams += -(-size // segment) if segment else 1
            if singles and size <= segment:
                singles -= 1
                batch.append((memoryview(bytes(buffer[:size])), segment, address))
                continue
            batch.append((buffer[:size], segment, address))
            buffer = next(free, None)
        return batch

    def send_batch(self, datagrams: Sequence[bytes], address: Address | None = None, dscp: int = 0) -> SendStatus:
        """Send in order; neighbours of equal size leave in one call. `address` is None on a connected socket.

        `dscp`, if it isn't 0, is that of these packets, instead of the socket's.
        """
        if self._backlog:
            self._keep(datagrams, address, dscp)
            return SendStatus.BLOCKED
        if len(datagrams) == 1:
            status = self._send_group(datagrams, address, dscp)
            if status is SendStatus.BLOCKED:
                self._keep(datagrams, address, dscp)
            return status
        worst = SendStatus.OK
        start, end = 0, len(datagrams)
        while start < end:
            single = not self._gso or (self._unsegmented.hosts and _host(address) in self._unsegmented)
            stop = start + 1 if single else self._group_end(datagrams, start)
            status = self._send_group(datagrams[start:stop], address, dscp)
            if status is SendStatus.BLOCKED:
                self._keep(datagrams[start:], address, dscp)
                return status
            if self._backlog:  # the run of single datagrams after a refused segmentation has filled the buffer
                self._keep(datagrams[stop:], address, dscp)
                return SendStatus.BLOCKED
            if status is not SendStatus.OK and SEVERITY[status] > SEVERITY[worst]:
                worst = status
            start = stop
        return worst

    def resume(self) -> SendStatus:
        """Send what waited for the socket to become writable."""
        waiting, self._backlog = self._backlog, []
        worst = SendStatus.OK
        start = 0
        while start < len(waiting):
            _, address, dscp = waiting[start]
            stop = start + 1
            # The same one, not an equal one: that may have another source.
            while stop < len(waiting) and waiting[stop][1] is address and waiting[stop][2] == dscp:
                stop += 1
            status = self.send_batch([each[0] for each in waiting[start:stop]], address, dscp)
            if SEVERITY[status] > SEVERITY[worst]:
                worst = status
            start = stop
        return worst

    def mute(self) -> None:
        """Let nothing leave any more, what waits included; what arrives is still read. Connected sockets only."""
        self._backlog.clear()
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the socket; waiting datagrams are dropped."""
        self._backlog.clear()
        self._socket.close()

    @staticmethod
    def _group_end(datagrams: Sequence[bytes], start: int) -> int:
        """End of the run that one segmented send can carry: equal sizes, and one shorter at the end.

        A single datagram leaves alone: it may be a probe of the path's MTU, and a virtual network that forwards what
        was sent at once as one packet would lose the shorter one with it.
        """
        size = len(datagrams[start])
        if not size:
            return start + 1
        limit = min(len(datagrams), start + min(offload.MAX_SEGMENTS, max(1, offload.MAX_SEGMENTED_BYTES // size)))
        sizes = list(map(len, datagrams[start:limit]))
        equal = sizes.count(size)
        if equal == len(sizes):
            return limit
        if equal != len(sizes) - 1 or sizes[-1] == size:
            equal = next(place for place, length in enumerate(sizes) if length != size)
        return start + equal + (equal > 1 and 0 < sizes[equal] < size)

    def _send_group(self, group: Sequence[bytes], address: Address | None, dscp: int) -> SendStatus:
        control = [self._tos_message(address, dscp)] if dscp else []
        if len(group) == 1:
            error = self._call(group, control, address)
            return self._status(error, 1, address) if error else SendStatus.OK
        error = self._call(group, [(SOL_UDP, UDP_SEGMENT, _pack_size(len(group[0]))), *control], address)
        if error not in (errno.EIO, errno.EINVAL):
            return self._status(error, len(group), address)
        # This egress can't segment (no checksum offload), or the segment exceeds the MTU on kernels that answer so.
        # Only when the single datagrams pass was it segmentation.
        worst = SendStatus.OK
        for index, datagram in enumerate(group):
            status = self._status(self._call([datagram], control, address), 1, address)
            if status is SendStatus.BLOCKED:
                self._keep(group[index:], address, dscp)
                return SendStatus.OK
            if SEVERITY[status] > SEVERITY[worst]:
                worst = status
        if worst is SendStatus.OK:
            self._unsegmented.add(_host(address))
            self.counters.segmentation_fallbacks += 1
        return worst

    def _call(self, buffers: Sequence[bytes], control: list[tuple[int, int, bytes]], address: Address | None) -> int:
        """Make one send; 0 or the errno. An error that repeats itself is the kernel's own, any other was ICMP's."""
        if isinstance(address, PeerAddress) and address.source is not None:
            control = [*control, address.source]
        counters = self.counters
        reports = 0
        while True:
            try:
                size = self._socket.sendmsg(buffers, control, 0, address)
                break
            except OSError as error:
                number = error.errno or errno.EIO
                reports += 1
                if number not in REPORTED_BY_ICMP or reports > MAX_REPORTS:
                    return number
        counters.reported_errors += reports
        counters.tx_calls += 1
        counters.tx_datagrams += len(buffers)
        counters.tx_bytes += size
        return 0

    def _tos_message(self, address: Address | None, dscp: int) -> tuple[int, int, bytes]:
        """Return the control message for a DSCP. A dual-stack socket sends to an IPv4-mapped address by IPv4."""
        v6 = self._socket.family == socket.AF_INET6 and not (address is not None and address[0].startswith("::ffff:"))
        level, kind = _IPV6_TOS if v6 else _IPV4_TOS
        return level, kind, _pack_int(dscp << _ECN_BITS)

    def _status(self, error: int, datagrams: int, address: Address | None) -> SendStatus:
        if not error:
            return SendStatus.OK
        if error in (errno.EAGAIN, errno.EWOULDBLOCK):
            return SendStatus.BLOCKED
        status = STATUS_OF_ERRNO.get(error, SendStatus.DROPPED)
        if status is SendStatus.TOO_LARGE:
            self.counters.tx_too_large += datagrams
        elif status in (SendStatus.UNREACHABLE, SendStatus.NO_DEVICE):
            self.counters.tx_unreachable += datagrams
            if isinstance(address, PeerAddress):
                address.source = None  # maybe that address is ours no more
        else:
            self.counters.tx_dropped += datagrams
        return status

    def _keep(self, datagrams: Iterable[bytes], address: Address | None, dscp: int) -> None:
        for datagram in datagrams:
            if len(self._backlog) < _MAX_BACKLOG:
                self._backlog.append((datagram, address, dscp))
            else:
                self.counters.tx_dropped += 1


def _tos_options(family: socket.AddressFamily, *, dual_stack: bool) -> list[tuple[int, int]]:
    """Socket options that set the DSCP: of IPv6 packets, of IPv4 ones, or of both."""
    if family == socket.AF_INET:
        return [_IPV4_TOS]
    return [_IPV6_TOS, _IPV4_TOS] if dual_stack else [_IPV6_TOS]


def _host(address: Address | None) -> str | None:
    return None if address is None else address[0]
