"""The receiving half of a session: datagrams to frames. What is refused is counted by reason and has no effect."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cryptography.exceptions import InvalidTag

from mpquic.proto.packet.assembler import FrameAssembler
from mpquic.proto.packet.run import SEGMENT_HEADER
from mpquic.proto.stripe.fec import GroupDecoder
from mpquic.proto.stripe.keys import CONTROL_SPACE
from mpquic.proto.stripe.replay import CONTROL_WINDOW, SHARD_WINDOW, ReplayWindow
from mpquic.proto.stripe.reports import Reporter
from mpquic.proto.stripe.return_path import Address
from mpquic.proto.stripe.wire import (
    CONTROL_BIT,
    EPOCH_SHIFT,
    HEADER_SIZE,
    MAGIC,
    OVERHEAD,
    QUICK_HEADER,
    REPAIR_PREFIX,
    TAG_SIZE,
    TYPE_MASK,
    VERSION,
    PacketType,
    check_shape,
    each_of,
)
from mpquic.proto.tunnel.dedup import Arrival

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mpquic.proto.path.path import FrameOrRun
    from mpquic.proto.stripe.keys import EpochKey, Opener
    from mpquic.proto.stripe.pipes import Pipes

_unpack_header = QUICK_HEADER.unpack_from
_DATA = int(PacketType.DATA)
_PARITY = int(PacketType.PARITY)
_REPAIR = int(PacketType.REPAIR)
_UNKNOWN: tuple[int, int, EpochKey | None] = (-1, 0, None)
_NEW, _DUPLICATE = Arrival.NEW, Arrival.DUPLICATE
_LOW32 = 0xFFFFFFFF
_LENGTH_MASK = 0xFFFF
_SHORTEST = OVERHEAD + SEGMENT_HEADER.size + 1
"""Bytes of a datagram that may be a segment."""

Datagrams = tuple["bytes | bytearray | memoryview", int, "Address | None"]
"""What one read gave: datagrams back to back, the size of each (the last may be shorter: UDP GRO), and where they came
from; None where there is no choice."""


class ControlPacket(NamedTuple):
    """An authenticated packet of a control type. `number` orders those of a session."""

    kind: int
    number: int
    pipe: int
    body: bytes
    address: Address | None
    shards_before: int
    """Shards that had come by its pipe when it came."""


class StripeReceiver:
    """Opens datagrams, refuses what is not the peer's or came before, repairs groups."""

    def __init__(
        self,
        session: int,
        opener: Opener,
        pipes: Pipes,
        *,
        shard_window: int = SHARD_WINDOW,
        extend: Callable[[], None] | None = None,
    ) -> None:
        self._session = session
        self._opener = opener
        self._pipes = pipes
        self.window = ReplayWindow(shard_window)
        self.control_window = ReplayWindow(CONTROL_WINDOW)
        self.decoder = GroupDecoder(extend=extend)
        self.reporter = Reporter(self.window)
        self.refused: dict[str, int] = {}
        self.shards = 0
        """Shards opened: each number counts once."""
        self.octets = self.datagrams = 0
        """Octets and number of the datagrams of the last `receive`."""
        self.gap_at = float("-inf")
        """When a shard came last while one before it was missing."""
        self._now = 0.0
        self._assembler = FrameAssembler(self.refuse)
        self._lowest = 0
        self._known: dict[int, tuple[int, int, EpochKey]] = {}
        """Type, pipe and key by the first eight octets of the headers of shards that have been opened."""
        self._opened_last = opener.current
        self.copies_in_vain = 0

    def refuse(self, reason: str) -> None:
        """Count something that was not taken."""
        self.refused[reason] = self.refused.get(reason, 0) + 1

    def receive(self, batch: Iterable[Datagrams], now: float) -> tuple[list[FrameOrRun], list[ControlPacket]]:
        """Take what some reads gave, in the order of the packet numbers as far as that is known."""
        control: list[ControlPacket] = []
        self._now = now
        shards_before, highest_before = self.shards, self.window.highest
        self._lowest = highest_before + 1
        octets = datagrams = 0
        unproven = self._pipes.unproven
        for data, segment, address in batch:
            view = memoryview(data)
            size = len(view)
            octets += size
            start = 0
            if segment <= 0:
                segment = size
            datagrams += -(-size // segment) if segment else 1
            if size >= 2 * segment and segment >= _SHORTEST:
                start = self._take_run(view, segment, address) * segment
            if start < size:
                self._take_each(view[start:], segment, address, now, control)
            if unproven and address in unproven:
                unproven[address].received += size
        self.octets, self.datagrams = octets, datagrams
        fresh = self.shards - shards_before
        if fresh:
            self.reporter.on_shards(fresh, self._lowest, highest_rose=self.window.highest > highest_before, now=now)
        return self._assembler.take(), control

    def _take_each(
        self, view: memoryview, segment: int, address: Address | None, now: float, control: list[ControlPacket]
    ) -> None:
        """Take the datagrams of a read one by one; those of control types go to `control`."""
        window, add, follow = self.window, self._assembler.add, self.decoder.follow
        current = self._opener.current
        start, end = 0, len(view)
        due = first_due = window.highest + 1
        common = kind = -1
        begin = 0  # What lies from here to `start` are the octets of `first_due` to `due`.
        pipe, iv, decrypt = 0, current.iv, current.aead.decrypt
        while start < end:
            stop = start + segment
            if stop > end:
                stop = end
            size = stop - start - HEADER_SIZE
            if size < TAG_SIZE:
                self.refuse("truncated")
                break
            head, low, place = _unpack_header(view, start)
            if head != common:
                if due > first_due:
                    self._arrived(first_due, due - first_due, start - begin, pipe, address)
                    first_due = due
                begin = start
                common = head
                kind, pipe, key = self._known.get(head, _UNKNOWN)
                if key is self._opener.current:
                    iv, decrypt = key.iv, key.aead.decrypt
                else:
                    kind = -1
            if low == due & _LOW32 and place & _LENGTH_MASK == size and kind >= 0:
                # The usual packet: the shard that is due, of a type, pipe and epoch that have been seen.
                header = view[start : start + HEADER_SIZE]
                start += HEADER_SIZE
                index, data_shards = place >> 24, place >> 16 & 0xFF
                # Only DATA may have no place in a group.
                if (place >> 16 or kind != _DATA) and check_shape(kind, index, data_shards) is not None:
                    self.refuse("shard")
                    start = stop
                    begin += size + HEADER_SIZE
                    continue
                try:
                    body = decrypt((iv ^ due).to_bytes(12, "big"), view[start:stop], header)
                except InvalidTag:
                    self.refuse("forged")
                    begin += size + HEADER_SIZE
                else:
                    due += 1
                    if not data_shards:
                        add(body)
                    elif kind == _DATA:
                        add(body)
                        if not follow(due - 1 - index, index, data_shards, body):
                            self._repaired(due - 1 - index, self.decoder.add_data(due - 1 - index, index, body, now)[1])
                    else:
                        self._arrived(first_due, due - first_due, stop - begin, pipe, address)
                        first_due, begin = due, stop
                        self._grouped(kind, due - 1, index, data_shards, body, now)
                start = stop
                continue
            if due > first_due:
                self._arrived(first_due, due - first_due, start - begin, pipe, address)
            begin = stop
            if kind == _DATA and place == size:
                number = window.expand(low)
                if window.check(number) is _NEW:
                    # Nearly as usual: it has overtaken another, or was overtaken.
                    nonce = (iv ^ number).to_bytes(12, "big")
                    header, sealed = view[start : start + HEADER_SIZE], view[start + HEADER_SIZE : stop]
                    start = stop
                    try:
                        body = decrypt(nonce, sealed, header)
                    except InvalidTag:
                        self.refuse("forged")
                    else:
                        self._arrived(number, 1, size + HEADER_SIZE, pipe, address)
                        add(body)
                    due = first_due = window.highest + 1
                    continue
            opened = self._open(view[start:stop], head, low, place, address, now)
            start = stop
            due = first_due = window.highest + 1
            common = -1
            if opened is None:
                continue
            kind, number, pipe, key, body = opened
            if kind & CONTROL_BIT:
                shards_before = self._pipes.all[pipe].receiving.shards
                control.append(ControlPacket(kind, number, pipe, body, address, shards_before))
                continue
            if kind != _REPAIR:
                self._known[head] = (kind, pipe, key)
            if kind == _DATA and place <= _LENGTH_MASK:
                add(body)
            else:
                self._grouped(kind, number, place >> 24, place >> 16 & 0xFF, body, now)
        if due > first_due:
            self._arrived(first_due, due - first_due, start - begin, pipe, address)

    def _take_run(self, view: memoryview, segment: int, address: Address | None) -> int:
        """Take the datagrams of a read all at once if they are what they mostly are; return how many, or 0.

        That is: DATA shards of one size, new numbers one after the other, outside of groups, pipe and epoch known. All
        headers are compared in a few steps, column by column.
        """
        count = len(view) // segment
        fields = each_of(QUICK_HEADER, segment, count).unpack_from(view)
        heads, lows, places = fields[::3], fields[1::3], fields[2::3]
        head, low = heads[0], lows[0]
        first = self.window.expand(low)
        kind, pipe, key = self._known.get(head, _UNKNOWN)
        if (
            kind != _DATA
            or key is not self._opener.current
            or heads.count(head) != count
            or places.count(segment - HEADER_SIZE) != count
            or lows != tuple(range(low, low + count))
            or not self.window.vacant(first, count)
        ):
            return 0
        decrypt, iv = key.aead.decrypt, key.iv
        nonces = [(iv ^ number).to_bytes(12, "big") for number in range(first, first + count)]
        try:
            bodies = [
                decrypt(nonce, view[start + HEADER_SIZE : start + segment], view[start : start + HEADER_SIZE])
                for nonce, start in zip(nonces, range(0, count * segment, segment), strict=True)
            ]
        except InvalidTag:
            return 0  # One by one it will show which.
        self._arrived(first, count, count * segment, pipe, address)
        self._assembler.add_all(bodies)
        return count

    def _arrived(self, first: int, count: int, octets: int, pipe: int, address: Address | None) -> None:
        """Shards have come whose numbers follow each other, the first of them `first`, in so many octets."""
        if first > self.window.highest + 1:
            self.gap_at = self._now
        self.window.add_run(first, count)
        self.shards += count
        self._lowest = min(self._lowest, first)
        self._pipes.on_shards(pipe, count, octets, first + count - 1, address)

    def _open(
        self, packet: memoryview, head: int, low: int, place: int, address: Address | None, now: float
    ) -> tuple[int, int, int, EpochKey, bytes] | None:
        """Check and open any packet; return type, number, pipe, key and body, None when it has been refused."""
        checked = self._check(head, place >> 24, place >> 16 & 0xFF, place & _LENGTH_MASK, len(packet), now)
        if checked is None:
            return None
        kind, pipe, key = checked
        is_control = kind & CONTROL_BIT
        space = self.control_window if is_control else self.window
        number = space.expand(low)
        arrival = space.check(number)
        if arrival is not _NEW:
            self.refuse("replayed" if arrival is _DUPLICATE else "late")
            return None
        nonce = key.iv ^ (number | CONTROL_SPACE if is_control else number)
        try:
            body = key.aead.decrypt(nonce.to_bytes(12, "big"), packet[HEADER_SIZE:], packet[:HEADER_SIZE])
        except InvalidTag:
            self.refuse("forged")
            return None
        if self._opener.opened(key, now) is not self._opened_last:
            # Nothing may refer to the keys of epochs that are over.
            self._opened_last = self._opener.current
            self._known.clear()
        if is_control:
            space.add(number)
            self._pipes.on_control(pipe, len(packet), number, address)
        else:
            self._arrived(number, 1, len(packet), pipe, address)
        return kind, number, pipe, key, body

    def _check(
        self, head: int, index: int, data_shards: int, length: int, size: int, now: float
    ) -> tuple[int, int, EpochKey] | None:
        """Return type, pipe and key of a header that begins with `head`; None, and counted, if something is wrong."""
        if head >> 48 != MAGIC or head >> 44 & 15 != VERSION:
            self.refuse("foreign")
            return None
        if head & 0xFFFFFFFF != self._session:
            self.refuse("session")
            return None
        pipe, epoch_type = head >> 40 & 15, head >> 32 & 255
        kind = epoch_type & TYPE_MASK
        fault = check_shape(kind, index, data_shards)
        if fault is None and length != size - HEADER_SIZE:
            fault = "length"
        if fault is None and pipe >= len(self._pipes.all):
            fault = "pipe"
        key = None
        if fault is None:
            key = self._opener.key_for(epoch_type >> EPOCH_SHIFT, now)
            fault = "epoch"
        if key is None:
            self.refuse(str(fault))
            return None
        return kind, pipe, key

    def _grouped(self, kind: int, number: int, index: int, data_shards: int, body: bytes, now: float) -> None:
        """Take a shard of a group, or a retransmission."""
        if kind == _PARITY:
            base = number - index
            if base < 0:
                self.refuse("shard")
            elif self.window.holds(base, data_shards):
                self.decoder.complete(base)
            else:
                self._repaired(base, self.decoder.add_parity(base, index, data_shards, body, now))
            return
        if kind != _DATA:
            if len(body) <= REPAIR_PREFIX.size:
                self.refuse("repair")
                return
            number = self.window.expand(REPAIR_PREFIX.unpack_from(body)[0])
            body = body[REPAIR_PREFIX.size :]
            if self.window.check(number) is _DUPLICATE:
                self.copies_in_vain += 1
                return
        base = number - index
        if not data_shards:
            self._assembler.add(body)
            return
        if base < 0:
            self.refuse("shard")
            return
        new, repaired = self.decoder.add_data(base, index, body, now)
        if new:
            self._assembler.add(body)
        self._repaired(base, repaired)

    def _repaired(self, base: int, repaired: list[tuple[int, bytes]]) -> None:
        """FEC has given back shards of the group that begins with the number `base`."""
        for place, block in repaired:
            self.reporter.on_repaired(base + place)
            self._assembler.add(block)
