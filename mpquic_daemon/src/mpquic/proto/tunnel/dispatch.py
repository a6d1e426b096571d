"""From the TUN of a server to the groups of its clients, by inner destination."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from mpquic.proto.packet import ip
from mpquic.proto.tunnel.sender import Buffer, read_packets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mpquic.proto.packet.superframe import Packet
    from mpquic.proto.tunnel.counters import Counters

Owner = TypeVar("Owner")


def dispatch(
    buffers: Iterable[Buffer], owner_of: Callable[[bytes], Owner | None], counters: Counters
) -> list[tuple[Owner, list[Packet]]]:
    """Sort reads of the TUN by the owner of their destination (4 or 16 bytes), in order of first appearance.

    Packets for nobody are counted as "no route".
    """
    batches: dict[bytes, tuple[Owner, list[Packet]]] = {}
    by_owner: dict[int, tuple[Owner, list[Packet]]] = {}
    for packet in read_packets(buffers, counters):
        destination = ip.destination(packet.payload)
        batch = batches.get(destination)
        if batch is None:
            owner = owner_of(destination)
            if owner is None:
                counters.refuse("no_route")
                continue
            batch = by_owner.setdefault(id(owner), (owner, []))
            batches[destination] = batch
        batch[1].append(packet)
    return list(by_owner.values())
