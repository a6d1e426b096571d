"""Reads a socket that many clients share into a bounded queue for each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from mpquic.proto.processor.fair_queue import BoundedQueues

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpquic.net.udp import Received, UdpSocket

Key = TypeVar("Key")
Kind = TypeVar("Kind")

MAX_READS = 128
"""Reads before what they gave is worked on, about, while several send."""
MIXED_TIME = 0.1
"""Seconds for which several senders are expected after the datagrams of another one than before."""
QUEUE_BYTES = 4 << 20
"""What waits to be worked on, at most: as much as the kernel keeps for a socket."""


class Arrivals(Generic[Key]):
    """What has been read of a socket and waits to be worked on, by sender.

    While several send, all of it is read, so that nobody waits unseen behind the many packets of another one. `claim`
    tells whose a read is by its first datagram and its address, None when it's nobody's and is dropped. `on_first` is
    called for the first read that waits of a sender: it has to have `take` called until nothing waits.
    """

    def __init__(
        self,
        socket: UdpSocket,
        claim: Callable[[Received], Key | None],
        on_first: Callable[[Key], object],
        *,
        singles: int = 0,
    ) -> None:
        self._socket = socket
        self._claim = claim
        self._on_first = on_first
        self._singles = singles
        self._queues: BoundedQueues[Key, Received] = BoundedQueues(QUEUE_BYTES)
        self._latest: Key | None = None
        self._mixed_at = float("-inf")
        self._borrowed = False
        """Whether what waits may be in the socket's own buffers, which the next batch is read into."""

    def __contains__(self, key: Key) -> bool:
        return key in self._queues

    def __len__(self) -> int:
        return len(self._queues)

    @property
    def dropped(self) -> int:
        """Reads that were dropped because too much waited."""
        return self._queues.dropped

    def read(self, now: float, counts: dict[Key, int] | None = None) -> bool:
        """Read what has come; false when more may wait in the socket. `counts` gets the number of reads by sender."""
        reads = 0
        while reads < MAX_READS:
            if self._borrowed:
                self._queues.replace(_copied)
            in_place = self._borrowed = not self._queues
            batch = self._receive()
            reads += len(batch)
            for read in batch:
                key = self._claim(read)
                if key is None:
                    continue
                if counts is not None:
                    counts[key] = counts.get(key, 0) + 1
                self._keep(key, read if in_place else _copied(read), now)
            if self._socket.drained:
                return True
            if not batch or now - self._mixed_at > MIXED_TIME:
                break
        return False

    def read_alone(self, kind: type[Kind], now: float) -> tuple[Kind, list[Received]] | None:
        """Read once, and return what has come, if it is all of a sender that has been alone of late, and of this kind.

        It is in the socket's own buffers, until the next read. Otherwise None: what was read waits, if anything was.
        """
        latest = self._latest
        if self._queues or not isinstance(latest, kind) or now - self._mixed_at <= MIXED_TIME:
            return None
        alone: Kind = latest
        batch = self._receive()
        for read in batch:
            if self._claim(read) is not latest:
                break
        else:
            return (alone, batch) if batch else None
        for read in batch:
            key = self._claim(read)
            if key is not None:
                self._keep(key, read, now)
        self._borrowed = True
        return None

    def take(self, key: Key, max_bytes: int | None) -> list[Received]:
        """Return the oldest reads of a sender: all, or those before `max_bytes` are reached, at least one."""
        return self._queues.take(key, max_bytes)

    def _receive(self) -> list[Received]:
        return self._socket.recv_batch(singles=self._singles) if self._singles else self._socket.recv_batch()

    def _keep(self, key: Key, read: Received, now: float) -> None:
        if key is not self._latest:
            self._latest, self._mixed_at = key, now
        if key not in self._queues:
            self._on_first(key)
        self._queues.put(key, read, len(read[0]))

    def forget(self, key: Key) -> None:
        """Drop what waits of a sender that has gone."""
        self._queues.forget(key)
        if self._latest is key:
            self._latest = None


def _copied(read: Received) -> Received:
    """Return a read whose bytes are its own."""
    data = read[0]
    return read if data.readonly else (memoryview(bytes(data)), read[1], read[2])
