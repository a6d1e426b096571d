"""Frames that no datagram of a path takes are split into fragments, and put together again at the far end."""

from typing import ClassVar

from mpquic.proto.packet.frame import MAX_PAYLOAD, Frame, FrameError, FrameFlag
from mpquic.proto.path.path import FrameOrRun

MAX_FRAGMENTS = 255

_FRAGMENT = int(FrameFlag.FRAGMENT)
Key = tuple[int, int, int, int, int]


def split(frame: Frame, capacity: int) -> list[Frame]:
    """Split a frame so that no encoded piece exceeds `capacity` bytes; one that fits is returned as it is.

    Raises:
        FrameError: it would need more than 255 fragments, or it is a fragment already.
    """
    if frame.size <= capacity:
        return [frame]
    if frame.flags & _FRAGMENT:
        raise FrameError("fragment")
    room = capacity - frame.header_size - 2
    count = -(-len(frame.payload) // room) if room > 0 else MAX_FRAGMENTS + 1
    if count > MAX_FRAGMENTS:
        raise FrameError("too_many_fragments")
    # Equal pieces rather than a full one and a stub: they then leave in one UDP GSO batch.
    piece = -(-len(frame.payload) // count)
    count = -(-len(frame.payload) // piece)
    flags = frame.flags | _FRAGMENT
    return [
        Frame(
            frame.payload[index * piece : (index + 1) * piece],
            frame.traffic_class,
            frame.sequence,
            flags,
            frame.gso_size,
            index,
            count,
        )
        for index in range(count)
    ]


def rejoin(frames: list[FrameOrRun]) -> list[FrameOrRun]:
    """Put frames together again whose fragments are all among these, in the place of the first; leave the others."""
    pieces: dict[Key, dict[int, Frame]] = {}
    for frame in frames:
        if isinstance(frame, Frame) and frame.flags & _FRAGMENT:
            pieces.setdefault(_key(frame), {})[frame.fragment_index] = frame
    if not pieces:
        return frames
    joined: list[FrameOrRun] = []
    done: set[Key] = set()
    for frame in frames:
        if not (isinstance(frame, Frame) and frame.flags & _FRAGMENT):
            joined.append(frame)
            continue
        key = _key(frame)
        if len(pieces[key]) < frame.fragment_count:
            joined.append(frame)
        elif key not in done:
            done.add(key)
            payload = b"".join([pieces[key][index].payload for index in range(frame.fragment_count)])
            joined.append(Frame(payload, frame.traffic_class, frame.sequence, frame.flags & ~_FRAGMENT, frame.gso_size))
    return joined


def _key(frame: Frame) -> Key:
    return frame.traffic_class, frame.sequence, frame.fragment_count, frame.flags, frame.gso_size


class _Partial:
    """The fragments of one packet that have arrived so far."""

    __slots__ = ("cost", "deadline", "missing", "pieces", "size")

    def __init__(self, count: int, deadline: float) -> None:
        self.pieces: list[bytes | memoryview | None] = [None] * count
        self.missing = count
        self.size = 0
        self.deadline = deadline
        self.cost = self.ENTRY_COST + 8 * count

    # What an entry costs beyond its payload, so that many tiny fragments cannot exceed the bound in real memory.
    ENTRY_COST: ClassVar[int] = 256


class Reassembler:
    """Puts fragments together again, bounded in time (seconds) and in bytes; the oldest packet yields when full."""

    def __init__(self, timeout: float = 1.0, max_bytes: int = 1 << 20) -> None:
        self._timeout = timeout
        self._max_bytes = max_bytes
        self._partials: dict[Key, _Partial] = {}
        self._cost = 0
        self.completed = 0
        self.expired = 0
        self.evicted = 0
        self.duplicates = 0
        self.oversized = 0

    def snapshot(self) -> dict[str, int]:
        """Return all counters by name."""
        return {name: getattr(self, name) for name in ("completed", "expired", "evicted", "duplicates", "oversized")}

    @property
    def memory(self) -> int:
        """Bytes accounted to incomplete packets."""
        return self._cost

    def __len__(self) -> int:
        return len(self._partials)

    def add(self, frame: Frame, now: float) -> Frame | None:
        """Take a frame; return it whole, or None while fragments are missing.

        Fragments are told apart by class, sequence number, count, flags and gso_size: a packet that was split again for
        another path does not mix with its first copy.
        """
        if not frame.flags & _FRAGMENT:
            return frame
        self.expire(now)
        key = _key(frame)
        partial = self._partials.get(key)
        if partial is None:
            partial = _Partial(frame.fragment_count, now + self._timeout)
            self._partials[key] = partial
            self._cost += partial.cost
        if partial.pieces[frame.fragment_index] is not None:
            self.duplicates += 1
            return None
        partial.pieces[frame.fragment_index] = frame.payload
        size = len(frame.payload)
        partial.missing -= 1
        partial.size += size
        partial.cost += size
        self._cost += size
        if partial.size > MAX_PAYLOAD:
            self.oversized += 1
            self._drop(key)
            return None
        if partial.missing == 0:
            self._drop(key)
            self.completed += 1
            payload = b"".join([piece for piece in partial.pieces if piece is not None])
            return Frame(payload, frame.traffic_class, frame.sequence, frame.flags & ~_FRAGMENT, frame.gso_size)
        while self._cost > self._max_bytes:
            self.evicted += 1
            self._drop(next(iter(self._partials)))
        return None

    def clear(self) -> None:
        """Forget all fragments, and not what has been counted."""
        self._partials.clear()
        self._cost = 0

    def expire(self, now: float) -> None:
        """Give up packets whose time has passed. All have the same timeout, so the first inserted expires first."""
        while self._partials:
            key = next(iter(self._partials))
            if self._partials[key].deadline > now:
                return
            self.expired += 1
            self._drop(key)

    def _drop(self, key: Key) -> None:
        self._cost -= self._partials.pop(key).cost
