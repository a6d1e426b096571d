"""The receiving half of a session: datagrams to frames. What is refused is counted by reason and has no effect."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from cryptography.exceptions import InvalidTag

from mpquic.proto.dedup import Arrival
from mpquic.proto.frame import FRAME_VERSION, Frame, FrameError, decode_frames
from mpquic.proto.stripe.fec import GroupDecoder
from mpquic.proto.stripe.keys import CONTROL_SPACE
from mpquic.proto.stripe.replay import CONTROL_WINDOW, SHARD_WINDOW, ReplayWindow
from mpquic.proto.stripe.reports import Reporter
from mpquic.proto.stripe.wire import (
    CONTROL_BIT,
    EPOCH_SHIFT,
    HEADER_SIZE,
    MAGIC,
    OVERHEAD,
    REPAIR_PREFIX,
    TYPE_MASK,
    VERSION,
    PacketType,
    check_shape,
)

if TYPE_CHECKING:
    from mpquic.proto.stripe.keys import EpochKey, Opener
    from mpquic.proto.stripe.pipes import Address, Pipes

# The first eight octets as one number: what neighbours have in common is compared in one step.
_QUICK = Struct("!QIBBH")
_BASE = Struct("!BBHI")
_PLAIN = FRAME_VERSION << 4
_NO_NUMBER = 1 << 64
_DATA = int(PacketType.DATA)
_PARITY = int(PacketType.PARITY)
_NEW, _DUPLICATE = Arrival.NEW, Arrival.DUPLICATE


class ControlPacket(NamedTuple):
    """An authenticated packet of a control type. `number` orders those of a session."""

    kind: int
    number: int
    pipe: int
    body: bytes


class StripeReceiver:
    """Opens datagrams, refuses what is not the peer's or came before, repairs groups."""

    def __init__(self, session: int, opener: Opener, pipes: Pipes, *, shard_window: int = SHARD_WINDOW) -> None:
        self._session = session
        self._opener = opener
        self._pipes = pipes
        self.window = ReplayWindow(shard_window)
        self.control_window = ReplayWindow(CONTROL_WINDOW)
        self.decoder = GroupDecoder()
        self.reporter = Reporter(self.window)
        self.refused: dict[str, int] = {}
        self.shards = 0
        self.copies_in_vain = 0

    def refuse(self, reason: str) -> None:
        """Count something that was not taken."""
        self.refused[reason] = self.refused.get(reason, 0) + 1

    def receive(
        self, data: bytes | bytearray | memoryview, segment: int, address: Address | None, now: float
    ) -> tuple[list[Frame], list[ControlPacket]]:
        """Take what one read gave: datagrams of `segment` bytes back to back, the last perhaps shorter (UDP GRO).

        `address` is where they came from; None where there is no choice.
        """
        frames: list[Frame] = []
        control: list[ControlPacket] = []
        window, unpack, make = self.window, _QUICK.unpack_from, _BASE.unpack_from
        view = memoryview(data)
        end, highest_before = len(view), window.highest
        fresh, lowest = 0, _NO_NUMBER
        usual, pipe, newest = -1, 0, -1
        current = key = self._opener.current
        decrypt, iv = key.aead.decrypt, key.iv
        for start in range(0, end, segment if segment > 0 else end or 1):
            packet = view[start : start + segment] if segment > 0 else view
            size = len(packet)
            if size < OVERHEAD:
                self.refuse("truncated")
                continue
            head, low, index, data_shards, length = unpack(packet)
            if head == usual and length == size - HEADER_SIZE:
                # As the packet before: a DATA shard of the same pipe and epoch.
                if index >= data_shards and (index or data_shards):
                    self.refuse("shard")
                    continue
                kind, is_control = _DATA, 0
            else:
                checked = self._check(head, index, data_shards, length, size, now)
                if checked is None:
                    continue
                if newest >= 0:
                    self._pipes.on_packet(pipe, newest, address)
                    newest = -1
                kind, pipe, key = checked
                decrypt, iv = key.aead.decrypt, key.iv
                is_control = kind & CONTROL_BIT
                usual = head if kind == _DATA else -1
            space = self.control_window if is_control else window
            number = space.highest + 1
            if number & 0xFFFFFFFF != low:
                number = space.expand(low)
                arrival = space.check(number)
                if arrival is not _NEW:
                    self.refuse("replayed" if arrival is _DUPLICATE else "late")
                    continue
            nonce = iv ^ (number | CONTROL_SPACE if is_control else number)
            try:
                body = decrypt(nonce.to_bytes(12, "big"), packet[HEADER_SIZE:], packet[:HEADER_SIZE])
            except InvalidTag:
                self.refuse("forged")
                continue
            if key is not current:
                current = self._opener.opened(key, now)
            space.add(number)
            if is_control:
                control.append(ControlPacket(kind, number, pipe, body))
                self._pipes.on_control(pipe, number, address)
                continue
            fresh += 1
            if number > newest:
                newest = number
            if number < lowest:
                lowest = number
            if kind != _DATA or data_shards:
                self._grouped(kind, number, index, data_shards, body, now, frames)
                continue
            # One whole packet, the usual content; anything else takes the long way.
            if len(body) > _BASE.size:
                first, traffic_class, length, sequence = make(body)
                if first & 0xFB == _PLAIN and length == len(body) - _BASE.size:
                    frames.append(Frame(body[8:], traffic_class, sequence, first & 15))
                    continue
            self._decode(body, frames)
        if newest >= 0:
            self._pipes.on_packet(pipe, newest, address)
        if fresh:
            self.shards += fresh
            self.reporter.on_shards(fresh, lowest, highest_rose=window.highest > highest_before, now=now)
        return frames, control

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

    def _decode(self, body: bytes, frames: list[Frame]) -> None:
        try:
            frames += decode_frames(body)
        except FrameError as error:
            self.refuse(f"frame {error.reason}")

    def _grouped(
        self, kind: int, number: int, index: int, data_shards: int, body: bytes, now: float, frames: list[Frame]
    ) -> None:
        """Take a shard of a group, or a copy."""
        if kind == _PARITY:
            base = number - index
            repaired = self.decoder.add_parity(base, index, data_shards, body, now) if base >= 0 else []
        else:
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
                self._decode(body, frames)
                return
            if base < 0:
                self.refuse("shard")
                return
            new, repaired = self.decoder.add_data(base, index, body, now)
            if new:
                self._decode(body, frames)
        for place, block in repaired:
            self.reporter.on_repaired(base + place)
            self._decode(block, frames)
