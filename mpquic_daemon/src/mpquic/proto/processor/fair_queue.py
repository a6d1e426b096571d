"""Whose work is done next when there is more than can be done: start-time fair queueing, and bounded queues.

Start-time fair queueing (Goyal, Vin, Cheng: "Start-time Fair Queueing", SIGCOMM 1996) shares a server whose speed
varies, and needs no cost in advance: who has been charged least is served next. Who has been idle begins at what the
others have got, so it neither saves up nor falls behind. While several wait, what two of them get differs by no more
than the costliest service of each.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Key = TypeVar("Key")
Item = TypeVar("Item")

ITEM_BYTES = 256
"""What an item takes in memory beside its size, about."""
_ROOM = 64
"""Keys of which it is remembered at least what they were charged."""


class ServiceOrder(Generic[Key]):
    """The keys that wait, by what they have been charged. Costs are of any one unit, and never negative."""

    def __init__(self) -> None:
        self._charged: dict[Key, float] = {}
        """Virtual time at which the next service of a key begins, as far as it is known."""
        self._waiting: dict[Key, int] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._numbers = count()
        self._room = _ROOM
        self._now = 0.0
        """Virtual time: when the latest service began."""

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, key: Key) -> bool:
        return key in self._waiting

    def wait(self, key: Key) -> None:
        """Have a key wait for service, if it doesn't already."""
        if key in self._waiting:
            return
        start = self._charged[key] = self.charged(key)
        number = self._waiting[key] = next(self._numbers)
        heappush(self._heap, (start, number, key))

    def take(self) -> Key | None:
        """Return who is served next, and waits no longer; None when nobody waits."""
        heap, waiting = self._heap, self._waiting
        while heap:
            start, number, key = heappop(heap)
            if waiting.get(key) != number:
                continue  # forgotten meanwhile
            charged = self._charged[key]
            if charged > start:
                # Charged while it waited.
                heappush(heap, (charged, number, key))
                continue
            del waiting[key]
            self._now = start
            return key
        return None

    def charge(self, key: Key, cost: float) -> None:
        """Charge a key for what it has been given, whether it waits or not."""
        self._charged[key] = self.charged(key) + cost
        if len(self._charged) > self._room:
            self._prune()

    def charged(self, key: Key) -> float:
        """Return what a key has been charged, comparable with that of others: virtual time."""
        return max(self._charged.get(key, self._now), self._now)

    def forget(self, key: Key) -> None:
        """Remove a key: it doesn't wait, and nothing is known of it."""
        self._charged.pop(key, None)
        self._waiting.pop(key, None)

    def _prune(self) -> None:
        """Forget the keys that would begin anew at the same place."""
        now, waiting = self._now, self._waiting
        self._charged = {key: time for key, time in self._charged.items() if time > now or key in waiting}
        self._room = max(_ROOM, 2 * len(self._charged))


class BoundedQueues(Generic[Key, Item]):
    """A queue for each key, first in, first out, bounded in bytes together.

    When they are full, the longest one loses its oldest: who sends more than he is served loses what is his own.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._queues: dict[Key, deque[tuple[int, Item]]] = {}
        self._sizes: dict[Key, int] = {}
        self._total = 0
        self.dropped = 0
        """Items that were lost because the queues were full."""

    @property
    def bytes(self) -> int:
        """What waits, with `ITEM_BYTES` for each item."""
        return self._total

    def __len__(self) -> int:
        return len(self._queues)

    def __contains__(self, key: Key) -> bool:
        return key in self._queues

    def put(self, key: Key, item: Item, size: int) -> None:
        """Append an item of `size` bytes to the queue of a key."""
        size += ITEM_BYTES
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = deque()
            self._sizes[key] = 0
        queue.append((size, item))
        self._sizes[key] += size
        self._total += size
        if self._total > self._max_bytes:
            self._shorten()

    def take(self, key: Key, max_bytes: int | None = None) -> list[Item]:
        """Return the oldest items of a key: all, or those before `max_bytes` are reached, at least one."""
        queue = self._queues.get(key)
        if queue is None:
            return []
        if max_bytes is None or self._sizes[key] <= max_bytes:
            self.forget(key)
            return [item for _, item in queue]
        taken: list[Item] = []
        total = 0
        while total < max_bytes:  # there is more than that
            size, item = queue.popleft()
            total += size
            taken.append(item)
        self._reduce(key, total)
        return taken

    def replace(self, change: Callable[[Item], Item]) -> None:
        """Put the result of `change` in the place of each item; sizes stay."""
        for queue in self._queues.values():
            for index, (size, item) in enumerate(queue):
                queue[index] = (size, change(item))

    def forget(self, key: Key) -> None:
        """Remove the queue of a key."""
        if self._queues.pop(key, None) is not None:
            self._total -= self._sizes.pop(key)

    def _shorten(self) -> None:
        # Looking for the longest costs a look at each: so it is done once for many items.
        enough = self._max_bytes - self._max_bytes // 16
        while self._total > enough:
            key = max(self._sizes, key=self._sizes.__getitem__)
            queue, size = self._queues[key], self._sizes[key]
            excess = min(self._total - enough, -(-size // 2))
            lost = 0
            while lost < excess:
                lost += queue.popleft()[0]
                self.dropped += 1
            self._reduce(key, lost)

    def _reduce(self, key: Key, size: int) -> None:
        self._sizes[key] -= size
        self._total -= size
        if not self._queues[key]:
            self.forget(key)
