"""A peer that holds the keys of a session and keeps to none of its rules: valid packets with whatever content."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mpquic.proto.packet.frame import Frame, encode_frames
from mpquic.proto.stripe.keepalive import Keepalive, encode_keepalive
from mpquic.proto.stripe.session import StripeSession
from mpquic.proto.stripe.wire import PacketType

from .duplex import SECRET, SESSION

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mpquic.proto.path.path import FrameOrRun

HOME = ("192.0.2.1", 40000)


def tcp_packet(connection: int, sequence: int, size: int = 1) -> bytes:
    """A TCP segment over IPv4 with so many octets of data."""
    head = b"\x45\0" + (40 + size).to_bytes(2, "big") + bytes((0, 0, 0, 0, 64, 6, 0, 0)) + bytes(8)
    ports = connection.to_bytes(4, "big")
    return head + ports + (sequence % 2**32).to_bytes(4, "big") + bytes(4) + b"\x50\x10" + bytes(6 + size)


class HostilePeer:
    """Seals what a session at the other end takes for the packets of its peer, with numbers of choice."""

    def __init__(self, victim: StripeSession, now: float = 0.0) -> None:
        self.victim = victim
        self.honest = StripeSession(victim.config, SESSION, SECRET, now, client=not victim.client, entropy=os.urandom)
        """Does what it must so that the victim takes it for a client."""
        self.sealer = self.honest._sealer
        self.address = None if victim.client else HOME

    def control(self, kind: int, body: bytes, pipe: int = 0) -> bytes:
        return self.sealer.seal_control(kind, pipe, body)

    def keepalive(self, now: float, pipe: int = 0, kind: PacketType = PacketType.KEEPALIVE) -> bytes:
        return self.control(kind, encode_keepalive(Keepalive.REQUEST, 0, now), pipe)

    def shard(
        self,
        body: bytes,
        *,
        kind: int = PacketType.DATA,
        index: int = 0,
        data_shards: int = 0,
        number: int | None = None,
    ) -> bytes:
        if number is not None:
            self.sealer.next_shard = number
        return self.sealer.seal_shards(kind, 0, index, data_shards, [body])[0]

    def frames(self, frames: Sequence[Frame]) -> bytes:
        return self.shard(encode_frames(frames))

    def give(self, packets: Iterable[bytes], now: float, address: tuple[str, int] | None = None) -> list[FrameOrRun]:
        """Have the victim read them; return what it passes on."""
        reads = [(packet, len(packet), address or self.address) for packet in packets]
        return self.victim.receive(reads, now)

    def come_up(self, now: float) -> None:
        """Make all pipes carry, with an address for each."""
        for _ in range(4):
            self.honest.poll(now)
            for pipe, _, datagrams in self.honest.take_outgoing():
                self.give(datagrams, now, (HOME[0], HOME[1] + pipe))
            self.hear(now)

    def hear(self, now: float) -> None:
        """Take what the victim sends."""
        for _, _, datagrams in self.victim.take_outgoing():
            self.honest.receive([(datagram, len(datagram), None) for datagram in datagrams], now)
