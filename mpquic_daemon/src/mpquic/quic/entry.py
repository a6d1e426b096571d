"""A connection with what the listener keeps of it."""

from dataclasses import dataclass

from mpquic.proto.path.address import Address
from mpquic.quic.link import QuicLink


@dataclass(slots=True, eq=False)
class Entry:
    """One connection of a listener, known by `number` too. `connection_ids` lead to it."""

    number: int
    link: QuicLink
    connection_ids: list[bytes]
    address: Address | None
    """Where all its packets have come from until the handshake was complete; None when there are several."""
    registered: bool = False
