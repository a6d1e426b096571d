"""Reads of several sockets, put back into the order in which the peer sent their packets.

Each pipe of a client has a queue of its own in the kernel. What one socket gives is in order; which socket has what was
sent next, only the packet numbers tell. So the reads are merged by number, and a socket is read again only when nothing
of it waits: a number that is missing is then either in a socket that can be read, or it hasn't arrived. Nothing waits
for what hasn't arrived.

The numbers are those of headers that nobody has authenticated yet: who forges one changes the order of a batch, and no
more.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from mpquic.proto.packet.frame import serial_distance
from mpquic.proto.stripe.wire import CONTROL_BIT, NUMBER, OVERHEAD, each_of, shard_number

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mpquic.proto.stripe.receiver import Datagrams
    from mpquic.proto.stripe.return_path import Address

_SHARDS = bytes(octet for octet in range(256) if not octet & CONTROL_BIT)
"""Octets of the header that tell of a shard, whatever the epoch."""
_LOW32 = 0xFFFFFFFF
_FIRST = -1 << 31


def in_sending_order(reads: Sequence[Datagrams], due: int) -> list[Datagrams]:
    """Return the reads of one socket by the number of the first packet in each, `due` being expected next.

    Packets of control types have numbers of their own: they come behind what came before them from the same address.
    """
    latest: dict[Address | None, int] = {}

    def place(read: Datagrams) -> int:
        number, address = shard_number(read[0]), read[2]
        found = latest.get(address, _FIRST) if number is None else serial_distance(number, due)
        latest[address] = found
        return found

    return sorted(reads, key=place)


class Piece(NamedTuple):
    """Packets with consecutive numbers, back to back: the first number (low 32 bits), how many, the size of each.

    `first` is None for what is no shard; such a piece is in the next batch. `data` is what the read gave, or a copy if
    that was not in one piece.
    """

    first: int | None
    packets: int
    data: bytes | memoryview
    segment: int

    @property
    def buffer(self) -> bytearray | None:
        """The buffer that holds `data`, None for a copy."""
        owner = self.data.obj if isinstance(self.data, memoryview) else None
        return owner if isinstance(owner, bytearray) else None


def pieces(data: bytes | memoryview, segment: int) -> list[Piece]:
    """Cut what one read gave where its numbers do not go on."""
    size = len(data)
    count = -(-size // segment)
    first = shard_number(data)
    if count == 1:
        return [Piece(first, 1, data, segment)]
    if first is not None and _consecutive(data, segment, count, first):
        return [Piece(first, count, data, segment)]
    found: list[Piece] = []
    start, begin = first, 0
    for place in range(1, count + 1):
        number = shard_number(data[place * segment : (place + 1) * segment]) if place < count else None
        held = place - begin
        if place < count and start is not None and number is not None and (number - start) & _LOW32 == held:
            continue
        found.append(Piece(start, held, bytes(data[begin * segment : place * segment]), segment))
        start, begin = number, place
    return found


def _consecutive(data: bytes | memoryview, segment: int, count: int, first: int) -> bool:
    """Tell whether the numbers of all datagrams go on from `first`; looking at the ends alone would miss repeats."""
    whole = len(data) // segment
    if segment < OVERHEAD or (whole < count and shard_number(data[whole * segment :]) != first + whole & _LOW32):
        return False
    if first + whole <= _LOW32:
        expected = tuple(range(first, first + whole))
    else:
        expected = tuple([number & _LOW32 for number in range(first, first + whole)])
    if each_of(NUMBER, segment, whole).unpack_from(data) != expected:
        return False
    kinds = bytes(data[3 : whole * segment : segment])
    return not kinds.translate(None, _SHARDS)


class PipeMerge:
    """What has been read of each pipe and is in no batch yet.

    A batch ends after `runs` pieces of more than one packet, or `most` pieces: what then waits is in the next batch.
    """

    def __init__(self, pipes: int, *, runs: int = 16, most: int = 64) -> None:
        self._queues: list[deque[Piece]] = [deque() for _ in range(pipes)]
        self._current = self._queues[0]
        self._runs = runs
        self._most = most
        self._due = 0

    @property
    def waiting(self) -> bool:
        """Whether anything waits."""
        return any(self._queues)

    def lacks(self, pipe: int) -> bool:
        """Tell whether nothing of a pipe waits, so that its socket may have what is due."""
        return not self._queues[pipe]

    def add(self, pipe: int, found: Sequence[Piece]) -> None:
        """Take the pieces of a read."""
        self._queues[pipe].extend(found)

    def next_batch(self, due: int, read: Callable[[], bool]) -> list[Piece]:
        """Return the pieces of one batch in the order of their numbers; `due` is expected first.

        `read` reads once from each pipe that `lacks`, as far as it has something, and says whether any had.
        """
        self._due = due & _LOW32
        taken: list[Piece] = []
        runs = 0
        while runs < self._runs and len(taken) < self._most:
            piece = self._take()
            if piece is not None:
                taken.append(piece)
                runs += piece.packets > 1
            elif not read() and not self._skip():
                break
        return taken

    def _take(self) -> Piece | None:
        """Return the piece that is next: what is due, late, or no shard; None when no pipe has it."""
        queue = self._current
        if not queue or not self._is_next(queue[0]):
            for queue in self._queues:
                if queue and self._is_next(queue[0]):
                    self._current = queue
                    break
            else:
                return None
        piece = queue.popleft()
        if piece.first is not None:
            end = piece.first + piece.packets
            if serial_distance(end, self._due) > 0:
                self._due = end & _LOW32
        return piece

    def _is_next(self, piece: Piece) -> bool:
        return piece.first is None or serial_distance(piece.first, self._due) <= 0

    def _skip(self) -> bool:
        """What is due hasn't come: go on with what was sent next; False when nothing waits."""
        waiting = [queue[0].first for queue in self._queues if queue and queue[0].first is not None]
        if waiting:
            self._due = min(waiting, key=lambda first: serial_distance(first, self._due))
        return bool(waiting)
