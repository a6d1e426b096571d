"""Settings of a stripe session that both ends know from their configuration and the registration."""

from __future__ import annotations

from dataclasses import dataclass

from mpquic.proto.congestion.algorithms import controller_class
from mpquic.proto.stripe.adaptive import FecMode
from mpquic.proto.stripe.keys import Suite
from mpquic.proto.stripe.wire import MAX_GROUP, MAX_PIPES

MIN_DATAGRAM = 1200
MAX_DATAGRAM = 65000


def check_datagram_size(size: int, name: str = "datagram_size") -> None:
    """Refuse a UDP payload that no path has to carry, or that none can.

    Raises:
        ValueError: it is out of range.
    """
    if not MIN_DATAGRAM <= size <= MAX_DATAGRAM:
        raise ValueError(f"{name}: {MIN_DATAGRAM} to {MAX_DATAGRAM} bytes")


@dataclass(frozen=True, slots=True)
class StripeConfig:
    """Sizes in bytes, times in seconds.

    Raises:
        ValueError: a value is out of range.
    """

    pipes: int = 4
    datagram_size: int = 1452
    """UDP payload of a full datagram. With path MTU discovery the most that it tries: what the local link takes."""
    initial_datagram_size: int | None = None
    """What discovery begins with and falls back to (pmtu.py). None: no discovery, `datagram_size` from the start."""
    data_shards: int = 10
    parity_shards: int = 2
    fec: FecMode = FecMode.ADAPTIVE
    max_overhead: float = 0.5
    """Bytes of parity and retransmissions for each byte sent for the first time."""
    congestion_algorithm: str = "auto"
    """Congestion control of what this end sends: auto (which is bbr here), bbr, cubic or reno."""
    group_timeout: float = 0.003
    """A group that doesn't fill is closed after so long."""
    suite: Suite = Suite.AES_128_GCM
    idle_timeout: float = 30.0
    """A server forgets a session from which nothing came for so long."""

    def __post_init__(self) -> None:
        controller_class(self.congestion_algorithm, "bbr")
        if not 1 <= self.pipes <= MAX_PIPES:
            raise ValueError(f"pipes: 1 to {MAX_PIPES}")
        check_datagram_size(self.datagram_size)
        if self.initial_datagram_size is not None:
            check_datagram_size(self.initial_datagram_size, "initial_datagram_size")
            if self.initial_datagram_size > self.datagram_size:
                raise ValueError("initial_datagram_size: at most datagram_size")
        if self.data_shards < 1 or self.parity_shards < 0 or self.data_shards + self.parity_shards > MAX_GROUP:
            raise ValueError(f"data_shards and parity_shards: at least 1 and 0, at most {MAX_GROUP} together")
        if self.data_shards > MAX_GROUP // 2:
            raise ValueError(f"data_shards: at most {MAX_GROUP // 2}")
        if not 0 <= self.max_overhead <= 1:
            raise ValueError("max_overhead: 0 to 1")
