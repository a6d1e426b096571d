"""A packet that is sent to see its way: how it is made, and known again on any device, with its reply."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from mpquic.proto.packet import ip
from mpquic.trace.expression import ICMP, ICMPV6, TCP, UDP

if TYPE_CHECKING:
    from mpquic.trace.fib import Address

TOKEN_BYTES: Final = 24
_ECHO: Final = {4: (8, 0), 6: (128, 129)}
"""Types of an ICMP echo request and reply (RFC 792, RFC 4443)."""
_ERRORS: Final = {
    (4, 3, 0): "network unreachable",
    (4, 3, 1): "host unreachable",
    (4, 3, 3): "port unreachable",
    (4, 3, 4): "fragmentation needed",
    (4, 3, 13): "administratively prohibited",
    (4, 11, 0): "time exceeded",
    (6, 1, 0): "no route",
    (6, 1, 1): "administratively prohibited",
    (6, 1, 3): "address unreachable",
    (6, 1, 4): "port unreachable",
    (6, 2, 0): "packet too big",
    (6, 3, 0): "hop limit exceeded",
}
_ERROR_TYPES: Final = {4: frozenset({3, 11, 12}), 6: frozenset({1, 2, 3, 4})}
_FIN, _SYN, _RST, _ACK = 0x01, 0x02, 0x04, 0x10

Kind = Literal["request", "reply", "error"]


class Sighting(NamedTuple):
    """A packet of ours that a device has sent or received: `words` says what it is."""

    kind: Kind
    words: str


@dataclass(slots=True)
class Probe:
    """What is sent: `token` is its payload, or, for TCP, nothing. Ports and identifier are those of the socket.

    `translated` is what NAT has made of the own port or identifier, once it was seen leaving.
    """

    destination: Address
    protocol: str
    port: int | None
    token: bytes
    own: int
    translated: int | None = None

    @property
    def number(self) -> int:
        """IP's number of the protocol."""
        if self.protocol == "icmp":
            return ICMP if self.destination.version == 4 else ICMPV6
        return TCP if self.protocol == "tcp" else UDP

    def echo_request(self) -> bytes:
        """Return the ICMP message. The kernel computes the checksum of ICMPv6, which covers addresses."""
        kind = _ECHO[self.destination.version][0]
        message = struct.pack("!BBHHH", kind, 0, 0, self.own, 1) + self.token
        if self.destination.version == 6:
            return message
        return message[:2] + struct.pack("!H", ip.internet_checksum(message)) + message[4:]

    def recognise(self, packet: bytes, *, outgoing: bool) -> Sighting | None:
        """Tell whether a packet that a device sends or receives is ours, or a reply to it; None for any other."""
        cut = whole(packet)
        if cut is None or (cut[0] >> 4) != self.destination.version:
            return None
        protocol, offset, _ = ip.transport(cut)
        body = cut[offset:]
        if outgoing:
            return self._request(cut, protocol, body)
        if ip.source(cut) == self.destination.packed and protocol == self.number:
            reply = self._reply(body)
            if reply is not None:
                return reply
        if protocol in (ICMP, ICMPV6):
            return self._error(cut, body)
        return None

    def _request(self, packet: bytes, protocol: int, body: bytes) -> Sighting | None:
        if ip.destination(packet) != self.destination.packed or protocol != self.number or len(body) < 8:
            return None
        if self.protocol == "icmp":
            if body[0] != _ECHO[self.destination.version][0] or body[8:] != self.token:
                return None
            self.translated = struct.unpack_from("!H", body, 4)[0]
            return Sighting("request", "echo request")
        source, port = struct.unpack_from("!HH", body)
        if port != self.port:
            return None
        if self.protocol == "udp" and body[8:] == self.token:
            self.translated = source
            return Sighting("request", "UDP datagram")
        if self.protocol == "tcp" and source == self.own and len(body) >= 20:
            self.translated = source
            return Sighting("request", "SYN" if body[13] & (_SYN | _ACK) == _SYN else "TCP segment")
        return None

    def _reply(self, body: bytes) -> Sighting | None:
        if len(body) < 8:
            return None
        if self.protocol == "icmp":
            is_reply = body[0] == _ECHO[self.destination.version][1] and body[8:] == self.token
            return Sighting("reply", "echo reply") if is_reply else None
        port, own = struct.unpack_from("!HH", body)
        if port != self.port or own != self.translated:
            return None
        if self.protocol == "udp":
            return Sighting("reply", "UDP datagram")
        if len(body) < 20:
            return None
        if body[13] & _RST:
            return Sighting("reply", "RST (the port is closed, and the host there)")
        return Sighting("reply", "SYN-ACK (the port is open)" if body[13] & _SYN else "TCP segment")

    def _error(self, packet: bytes, body: bytes) -> Sighting | None:
        """An ICMP error quotes the packet: its header and at least 8 bytes behind it (RFC 792, RFC 4443)."""
        version, quoted = self.destination.version, body[8:]
        header = 20 if version == 4 else 40
        if len(body) < 8 or body[0] not in _ERROR_TYPES[version] or len(quoted) < header + 8:
            return None
        if quoted[0] >> 4 != version or ip.destination(quoted) != self.destination.packed:
            return None
        protocol = quoted[9] if version == 4 else quoted[6]
        inner = quoted[(quoted[0] & 15) << 2 if version == 4 else header :]
        if protocol != self.number or len(inner) < 8:
            return None
        place = 4 if self.protocol == "icmp" else 0
        if struct.unpack_from("!H", inner, place)[0] not in (self.translated, self.own):
            return None
        if self.port is not None and struct.unpack_from("!H", inner, 2)[0] != self.port:
            return None
        name = _ERRORS.get((version, body[0], body[1]), f"type {body[0]} code {body[1]}")
        return Sighting("error", f"ICMP error ({name}) from {ipaddress.ip_address(ip.source(packet))}")


def whole(packet: bytes) -> bytes | None:
    """Return an IP packet without the padding of its frame, None when it isn't whole."""
    if len(packet) < 20:
        return None
    length = struct.unpack_from("!H", packet, 2)[0]
    if packet[0] >> 4 == 6:
        length = struct.unpack_from("!H", packet, 4)[0] + 40
    cut = packet[:length]
    try:
        ip.check(cut)
    except ip.MalformedPacketError:
        return None
    return cut
