"""Constants of the kernel's UDP and socket interface that Python 3.11 doesn't name, and the test of UDP segmentation.

Sources: include/uapi/linux/udp.h, include/uapi/linux/in.h, include/uapi/linux/in6.h.
"""

import errno
import select
import socket
import struct
from functools import cache

SOL_UDP = 17
"""Level of UDP's socket options and control messages."""
UDP_SEGMENT = 103
"""Send: the kernel cuts one buffer into datagrams of this size (Linux 4.18); control message: native u16."""
UDP_GRO = 104
"""Receive: the kernel joins datagrams of one flow (Linux 5.0); control message: the segment size, native int."""
IP_MTU_DISCOVER = 10
IPV6_MTU_DISCOVER = 23
IP_PMTUDISC_PROBE = 3
"""Set DF, and send what the device takes whatever path MTU the kernel has heard of; EMSGSIZE beyond that."""
IP_PKTINFO = 8
IPV6_RECVPKTINFO = 49
IPV6_PKTINFO = 50
"""Which local address a datagram came to or shall leave from; the second switches it on, the others are messages."""
IP_MTU = 14
IPV6_MTU = 24

MAX_SEGMENTS = 64
"""Datagrams in one segmented send. Kernels before 6.9 take 64 at most (UDP_MAX_SEGMENTS)."""
MAX_SEGMENTED_BYTES = 65000
"""Bytes in one segmented send: below the 65507 of an IPv4 datagram, with room for IPv6."""

_TEST_DATAGRAMS = (b"\xa5" * 1200, b"\x5a" * 1200, b"\xc3" * 700)
_TEST_WAIT_MS = 200


@cache
def segmentation_works() -> bool | None:
    """Tell whether UDP_SEGMENT yields the datagrams that were put in, tried once over the loopback.

    None where it can't be told, as when the loopback is down in this network namespace: use it then, the sender falls
    back at run time. Some kernels (7.0 to 7.1.4) are reported to corrupt the headers of segmented datagrams.
    """
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.setblocking(False)
        sender.setblocking(False)
        control = [(SOL_UDP, UDP_SEGMENT, struct.pack("H", len(_TEST_DATAGRAMS[0])))]
        try:
            receiver.bind(("127.0.0.1", 0))
            sender.sendmsg(_TEST_DATAGRAMS, control, 0, receiver.getsockname())
        except OSError as error:
            return False if error.errno in (errno.EIO, errno.EINVAL, errno.ENOPROTOOPT, errno.EMSGSIZE) else None
        poll = select.poll()
        poll.register(receiver, select.POLLIN)
        for expected in _TEST_DATAGRAMS:
            if not poll.poll(_TEST_WAIT_MS) or receiver.recv(65536) != expected:
                return False
    return True
