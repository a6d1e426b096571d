"""Carries tagged frames between a trunk and a tap for each of its VLANs, for a kernel without 802.1Q.

python -m mpqlab.trunk TRUNK TAP=VLAN...

What the kernel sends by a tap goes out on the device TRUNK with the VLAN's tag; what comes in there with that tag goes
to the tap without it. Frames without a tag are the kernel's own affair. It runs in the network namespace of the
devices, and ends by a signal.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import struct
import sys

from mpqlab import dot1q, tap
from mpqlab.dot1q import Tag

# include/uapi/linux/if_ether.h, if_packet.h
_ETH_P_ALL = 0x0003
_SOL_PACKET = 263
_PACKET_AUXDATA = 8
_PACKET_IGNORE_OUTGOING = 23
_TP_STATUS_VLAN_VALID = 1 << 4
_TP_STATUS_VLAN_TPID_VALID = 1 << 6
_AUXDATA = struct.Struct("IIIHHHH")
_FRAME = 65_536


class Trunk:
    """The device that carries tagged frames."""

    def __init__(self, device: str) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        self._socket.bind((device, _ETH_P_ALL))

    def fileno(self) -> int:
        """Return the descriptor, for waiting."""
        return self._socket.fileno()

    def receive(self) -> tuple[Tag | None, bytes]:
        """Return the tag and the rest of the next frame.

        Raises:
            BlockingIOError: there is none.
        """
        frame, ancillary, _, _ = self._socket.recvmsg(_FRAME, socket.CMSG_SPACE(_AUXDATA.size))
        for level, kind, data in ancillary:
            if level == _SOL_PACKET and kind == _PACKET_AUXDATA:
                tag = tag_of(data)
                if tag is not None:
                    return tag, frame
        return dot1q.without_tag(frame)

    def send(self, tag: Tag, frame: bytes) -> None:
        """Send a frame with a tag; like a cable, it loses what the other end doesn't take."""
        with contextlib.suppress(OSError):
            self._socket.send(dot1q.with_tag(frame, tag))


def tag_of(auxdata: bytes) -> Tag | None:
    """Return the tag that the kernel has taken out of a frame, by `struct tpacket_auxdata`; see packet(7)."""
    status, _, _, _, _, tci, tpid = _AUXDATA.unpack(auxdata[: _AUXDATA.size])
    if not status & _TP_STATUS_VLAN_VALID:
        return None
    if status & _TP_STATUS_VLAN_TPID_VALID and tpid != dot1q.TPID:
        return None
    return Tag.from_tci(tci)


def carry(device: str, vlans: dict[str, int]) -> None:
    """Carry frames between the trunk `device` and the taps (their VLANs by name), until the process is ended."""
    trunk = Trunk(device)
    taps = {vlan: tap.attach(name, blocking=False) for name, vlan in vlans.items()}
    selector = selectors.DefaultSelector()
    selector.register(trunk, selectors.EVENT_READ, None)
    for vlan, descriptor in taps.items():
        selector.register(descriptor, selectors.EVENT_READ, Tag(vlan))
    while True:
        for key, _ in selector.select():
            if key.data is None:
                _from_trunk(trunk, taps)
            else:
                _from_tap(trunk, key.fd, key.data)


def _from_trunk(trunk: Trunk, taps: dict[int, int]) -> None:
    # Errors: no more frames, the trunk or the tap is down.
    with contextlib.suppress(OSError):
        while True:
            tag, frame = trunk.receive()
            if tag is not None and tag.vlan in taps:
                os.write(taps[tag.vlan], frame)


def _from_tap(trunk: Trunk, descriptor: int, tag: Tag) -> None:
    with contextlib.suppress(BlockingIOError):
        while True:
            trunk.send(tag, os.read(descriptor, _FRAME))


def main(arguments: list[str]) -> int:
    """Run; return the exit status for wrong arguments."""
    match arguments:
        case [device, *pairs] if pairs and all(pair.partition("=")[2].isdecimal() for pair in pairs):
            carry(device, {pair.partition("=")[0]: int(pair.partition("=")[2]) for pair in pairs})
    sys.stderr.write(__doc__ or "")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
