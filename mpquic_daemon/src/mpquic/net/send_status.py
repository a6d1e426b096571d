"""What the kernel replies to a send, as one of a few results."""

import enum
import errno


class SendStatus(enum.Enum):
    """What became of a send; the worst of a batch is told."""

    OK = "ok"
    BLOCKED = "blocked"
    """The socket buffer is full: the rest waits in the socket's own bounded backlog; call `resume` when writable."""
    DROPPED = "dropped"
    """The kernel had no buffer, or a filter refused; later sends may pass."""
    REFUSED = "refused"
    """No neighbour answers, or errors of ICMP come faster than they can be passed over; later sends may pass."""
    TOO_LARGE = "too large"
    """A datagram exceeds the MTU of the device."""
    UNREACHABLE = "unreachable"
    """There is no route, or the source address has gone."""
    NO_DEVICE = "no device"
    """The device that the socket is bound to doesn't exist any more: only a new socket helps."""


SEVERITY = {status: rank for rank, status in enumerate(SendStatus)}

STATUS_OF_ERRNO = {
    errno.ENOBUFS: SendStatus.DROPPED,
    errno.ENOMEM: SendStatus.DROPPED,
    errno.EPERM: SendStatus.DROPPED,
    errno.EACCES: SendStatus.DROPPED,
    errno.ECONNREFUSED: SendStatus.REFUSED,
    errno.EHOSTUNREACH: SendStatus.REFUSED,
    errno.EPROTO: SendStatus.REFUSED,
    errno.EMSGSIZE: SendStatus.TOO_LARGE,
    errno.ENETUNREACH: SendStatus.UNREACHABLE,
    errno.ENETDOWN: SendStatus.UNREACHABLE,
    errno.EPIPE: SendStatus.UNREACHABLE,  # `mute`
    errno.EADDRNOTAVAIL: SendStatus.UNREACHABLE,
    errno.EINVAL: SendStatus.UNREACHABLE,  # the bound source address is local to nothing any more
    errno.ENODEV: SendStatus.NO_DEVICE,
    errno.ENXIO: SendStatus.NO_DEVICE,
}

REPORTED_BY_ICMP = frozenset(
    (
        errno.EMSGSIZE,
        errno.ECONNREFUSED,
        errno.EHOSTUNREACH,
        errno.EHOSTDOWN,
        errno.ENETUNREACH,
        errno.ENONET,
        errno.ENOPROTOOPT,
        errno.EOPNOTSUPP,
        errno.EPROTO,
        errno.EACCES,
    )
)
"""Errors that ICMP may have left on a socket (net/ipv4/icmp.c: icmp_err_convert; net/ipv6/icmp.c: tab_unreach)."""
